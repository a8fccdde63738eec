//! Deaths at bad moments, and neighbours that stall: nothing is lost, nobody else suffers.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::compare::{Slack, become_equal};
use crate::config::{Config, SECTION, all_tables};
use crate::harness::{Lab, Process, each_node, each_version, eventually, pause, signal};
use crate::rawpeer::{FINISHED, HEARTBEAT, RESYNC_REQ, RawPeer};

const ENTRIES: usize = 40_000;

fn configs(lab: &Lab) -> (Config, Config) {
    let (hap, node) = (lab.member("hap"), lab.member("node"));
    let tables = all_tables(lab.version.number);
    let hap_config = Config::new(&[&hap, &node]).tables(&tables);
    (hap_config, Config::new(&[&node, &hap]).tables(&tables))
}

fn fill(process: &Process, mark: usize) {
    process.cli().batch(
        (0..ENTRIES).map(|n| {
            format!("set table t_str key key-{n:06} data.gpt0 {} data.gpc0 {mark}", n % 300)
        }),
    );
}

fn complete(process: &Process, limit: u64) {
    eventually(limit, "all entries", || {
        let used = process.cli().used("t_str")?;
        if used == ENTRIES { Ok(()) } else { Err(format!("{used} of {ENTRIES}")) }
    });
}

#[test]
fn the_node_dies_in_the_middle_of_learning() {
    each_version("killed while learning", (3, 0), |lab| {
        let (hap_config, node_config) = configs(lab);
        let hap = lab.haproxy(&hap_config);
        fill(&hap, 7);
        let mut node = lab.node(&node_config);
        for wait in [0, 15, 40, 90] {
            eventually(12, "a lesson begins", || match node.cli().used("t_str")? {
                0 => Err("nothing learned yet".to_owned()),
                _ => Ok(()),
            });
            pause(wait);
            node.kill();
            node.start();
        }
        complete(&node, 30);
        become_equal(&hap, &node, "t_str", Slack { rate: 0, exp_ms: 5000 }, 10);
    });
}

#[test]
fn haproxy_dies_in_the_middle_of_being_taught() {
    each_version("haproxy killed while being taught", (3, 0), |lab| {
        let (hap_config, node_config) = configs(lab);
        let node = lab.node(&node_config);
        fill(&node, 9);
        let mut hap = lab.haproxy(&hap_config);
        for wait in [0, 10, 30, 80] {
            eventually(12, "a lesson begins", || match hap.cli().used("t_str")? {
                0 => Err("nothing taught yet".to_owned()),
                _ => Ok(()),
            });
            pause(wait);
            hap.kill();
            hap.start();
        }
        complete(&hap, 30);
        become_equal(&node, &hap, "t_str", Slack { rate: 0, exp_ms: 5000 }, 10);
    });
}

#[test]
fn a_stopped_haproxy_gets_what_it_missed() {
    each_version("haproxy stopped for a while", (2, 5), |lab| {
        let (hap_config, node_config) = configs(lab);
        let node = lab.node(&node_config);
        let hap = lab.haproxy(&hap_config);
        eventually(12, "a session", || node.cli().established(SECTION, "hap"));
        for (process, key) in [(&node, "n-before"), (&hap, "h-before")] {
            process.cli().must(&format!("set table t_str key {key} data.gpc0 1"));
        }
        for (process, key) in [(&hap, "n-before"), (&node, "h-before")] {
            eventually(5, key, || process.cli().row("t_str", key).ok_or_else(|| key.to_owned()));
        }
        signal(hap.pid(), Signal::STOP);
        let begin = Instant::now();
        node.cli().must("set table t_str key n-meanwhile data.gpc0 2");
        eventually(14, "the session given up", || match node.cli().established(SECTION, "hap") {
            Ok(state) => Err(format!("{state:?}")),
            Err(_) => Ok(()),
        });
        assert!(begin.elapsed() > Duration::from_secs(3), "given up after {:?}", begin.elapsed());
        node.cli().must("set table t_str key n-before data.gpc0 3");
        signal(hap.pid(), Signal::CONT);
        for (key, wanted) in [("n-meanwhile", 2), ("n-before", 3)] {
            eventually(20, "what was missed", || {
                let row = hap.cli().row("t_str", key).ok_or_else(|| format!("no {key}"))?;
                let seen = row.number("gpc0");
                let (ours, peers) = (node.cli().row("t_str", key), node.cli().ask("show peers"));
                let state = format!("{key}: gpc0={seen}, in the node {ours:?}\n{peers}");
                if seen == wanted { Ok(()) } else { Err(state) }
            });
        }
        hap.cli().must("set table t_str key h-after data.gpc0 4");
        eventually(10, "going on", || {
            node.cli().row("t_str", "h-after").ok_or_else(|| "nothing".to_owned())
        });
    });
}

#[test]
fn haproxy_reloads_beside_the_node() {
    each_version("haproxy reloaded", (2, 5), |lab| {
        let (hap_config, node_config) = configs(lab);
        let node = lab.node(&node_config);
        let mut old = lab.haproxy(&hap_config);
        eventually(12, "a session", || node.cli().established(SECTION, "hap"));
        fill(&old, 7);
        complete(&node, 20);
        for round in 0..2 {
            // As an operator reloads: the new process tells the old one to go, and learns from it.
            let new = lab.reload(&mut old);
            eventually(20, "all entries in the new process", || {
                let used = new.cli().used("t_str")?;
                if used >= ENTRIES { Ok(()) } else { Err(format!("{used} of {ENTRIES}")) }
            });
            eventually(15, "the session of the new process", || {
                let there = new.cli().established(SECTION, "node")?;
                node.cli().established(SECTION, "hap").map(|_| there)
            });
            new.cli().must(&format!("set table t_str key new{round} data.gpc0 1"));
            node.cli().must(&format!("set table t_str key node{round} data.gpc0 1"));
            for (process, key) in [(&node, "new"), (&new, "node")] {
                eventually(15, "going on", || {
                    let row = process.cli().row("t_str", &format!("{key}{round}"));
                    row.ok_or_else(|| format!("no {key}{round}"))
                });
            }
            old = new;
        }
        become_equal(&old, &node, "t_str", Slack { rate: 0, exp_ms: 5000 }, 10);
    });
}

fn resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn a_peer_that_does_not_read_costs_the_others_nothing() {
    each_node("a peer that does not read", |lab| {
        if !lab.node.is_stickring() {
            // The bounds are ours.
            return;
        }
        let (node, slow, good) = (lab.member("node"), lab.member("raw"), lab.member("raw2"));
        let config = Config::new(&[&node, &slow, &good]).tables(&all_tables((3, 4)));
        let process = lab.node(&config);
        let mut first = RawPeer::join(&node.address, "raw2", "node");
        first.settle();
        fill(&process, 1);
        first.updates(1000);
        let before = resident_kib(&process);
        // The slow one asks for a lesson and reads nothing of it, nor of what follows.
        let mut slow = RawPeer::join(&node.address, "raw", "node");
        slow.send(&RESYNC_REQ);
        for round in 2..6 {
            let begin = Instant::now();
            fill(&process, round);
            let updates = first.updates(1500);
            let keys: std::collections::BTreeSet<_> =
                updates.iter().map(|update| &update.rest[..11]).collect();
            assert_eq!(keys.len(), ENTRIES, "the good peer in round {round}");
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
            slow.try_send(&HEARTBEAT);
        }
        let after = resident_kib(&process);
        assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB now");
        // The good one is taught as well, meanwhile.
        first.send(&RESYNC_REQ);
        let (lesson, _) = first.until(&[FINISHED], 5000);
        assert!(lesson.len() >= ENTRIES, "{} messages in the lesson", lesson.len());
    });
}

#[test]
fn a_peer_that_only_pushes_is_served_and_slowed_down() {
    each_node("a peer that pushes without reading", |lab| {
        if !lab.node.is_stickring() {
            return;
        }
        let (node, raw) = (lab.member("node"), lab.member("raw"));
        let process = lab.node(&Config::new(&[&node, &raw]).tables(&all_tables((3, 4))));
        let mut peer = RawPeer::join(&node.address, "raw", "node");
        peer.settle();
        let before = resident_kib(&process);
        peer.send(&crate::rawpeer::define(4, "t_str", (6, 33), 6, &[1_800_000]));
        let (count, keys) = (600_000u32, 20_000);
        for chunk in 0..count / 1000 {
            let updates = (0..1000).flat_map(|n| {
                let id = chunk * 1000 + n + 1;
                let key = crate::rawpeer::string_key(&format!("k{}", id % keys));
                crate::rawpeer::update(id, &key, &crate::rawpeer::integers(&[1, id.into()]))
            });
            peer.send(&updates.collect::<Vec<u8>>());
        }
        let last = crate::rawpeer::Received::Ack { table: 4, id: count };
        let acks = peer.quiet(1500);
        assert_eq!(acks.last(), Some(&last), "{} acks", acks.len());
        assert_eq!(process.cli().used("t_str"), Ok(keys as usize));
        let row = process.cli().row("t_str", "k0").expect("the entry");
        assert_eq!(row.number("gpc0"), u64::from(count), "{row:?}");
        let after = resident_kib(&process);
        assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB now");
    });
}
