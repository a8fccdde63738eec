//! A real HAProxy whose stickring is reloaded under it, again and again, while entries are made on
//! both sides: its session stays, and every entry is there at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::compare::{Slack, become_equal};
use crate::config::{Config, SECTION, all_tables};
use crate::harness::{Process, each_version, eventually, pause};
use crate::stats::PeerState;

/// Reloads of the storm, five a second.
const RELOADS: usize = 40;

#[test]
fn a_storm_of_reloads_loses_no_entry_and_no_session() {
    each_version("storm of instant reloads", (2, 5), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let tables = all_tables(lab.version.number);
        let mut node_side = lab.node(&Config::new(&[&node, &hap]).tables(&tables));
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&tables));
        eventually(12, "a session", || hap_side.cli().established(SECTION, "node"));
        // After a collision the winner may still be cut once.
        pause(2_500);
        let up = || hap_side.cli().established(SECTION, "node");
        let before = eventually(5, "the session after a collision", up);
        let stop = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                let mut made = 0;
                while !stop.load(Ordering::Relaxed) {
                    let some = (made..made + 50).map(|n| {
                        format!("set table t_str key key-{n:06} data.gpt0 {} data.gpc0 {n}", n % 9)
                    });
                    hap_side.cli().batch(some);
                    made += 50;
                    std::thread::sleep(Duration::from_millis(10));
                }
                made
            });
            for n in 0..RELOADS {
                let begin = Instant::now();
                let line = format!("set table t_ip key 10.0.0.{n} data.gpc0 {n}");
                node_side.cli().must(&line);
                let new = lab.reload(&mut node_side);
                node_side = new;
                std::thread::sleep(Duration::from_millis(200).saturating_sub(begin.elapsed()));
            }
            stop.store(true, Ordering::Relaxed);
            maker.join().expect("the maker")
        });
        for (process, name) in [(&hap_side, "hap"), (&node_side, "node")] {
            for (table, count) in [("t_str", made), ("t_ip", RELOADS)] {
                eventually(20, &format!("all of {table} in {name}"), || {
                    let used = process.cli().used(table)?;
                    (used == count).then_some(()).ok_or_else(|| format!("{used} of {count}"))
                });
            }
        }
        for table in ["t_str", "t_ip"] {
            become_equal(&hap_side, &node_side, table, Slack { rate: 0, exp_ms: 5000 }, 20);
        }
        let after = eventually(5, "the session", up);
        for counter in ["new_conn", "no_hbt", "proto_err", "coll"] {
            assert_eq!(before.number(counter), after.number(counter), "{counter}: {after:?}");
        }
        let log = node_side.log();
        let instant = log.matches(": instant, finished,").count();
        assert_eq!((instant, log.matches(" is DOWN ").count()), (RELOADS, down_before(&log)));
    });
}

/// What belongs to a session's connection and stays when it goes on.
fn connections(session: &PeerState) -> [u64; 4] {
    ["new_conn", "no_hbt", "proto_err", "coll"].map(|counter| session.number(counter))
}

#[test]
fn a_peer_is_added_and_removed_by_reloads_and_the_other_one_notices_nothing() {
    each_version("reloads that add and remove a peer", (2, 5), |lab| {
        let [hap, more, node] = ["hap", "more", "node"].map(|name| lab.member(name));
        let tables = all_tables(lab.version.number);
        let one = Config::new(&[&node, &hap]).tables(&tables);
        let both = Config::new(&[&node, &more, &hap]).tables(&tables);
        let mut node_side = lab.node(&one);
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&tables));
        let more_side = lab.haproxy(&Config::new(&[&more, &node]).tables(&tables));
        let up = || hap_side.cli().established(SECTION, "node");
        eventually(12, "a session", up);
        // After a collision the winner may still be cut once.
        pause(2_500);
        let before = eventually(5, "the session after a collision", up);
        let fill = |name: &str| {
            let rows = (0..1_000).map(|n| format!("set table t_str key {name}-{n} data.gpc0 {n}"));
            hap_side.cli().batch(rows);
        };
        let all = |process: &Process, count: usize| {
            let used = process.cli().used("t_str")?;
            (used == count).then_some(()).ok_or_else(|| format!("{used} of {count}"))
        };
        fill("a");
        eventually(10, "all in the node", || all(&node_side, 1_000));
        let file = lab.path("node.cfg");
        let socket = lab.path("node.sock");
        for round in 1..=2 {
            std::fs::write(&file, both.render(&socket)).expect("config file");
            node_side = lab.reload(&mut node_side);
            let there = || node_side.cli().established(SECTION, "more");
            eventually(15, "a session with the second HAProxy", there);
            node_side.cli().must(&format!("set table t_int key {round} data.gpc0 7"));
            for process in [&hap_side, &more_side] {
                eventually(10, "the node's change", || {
                    let row = process.cli().row("t_int", &round.to_string());
                    row.map(|_| ()).ok_or_else(|| "not there".to_owned())
                });
            }
            std::fs::write(&file, one.render(&socket)).expect("config file");
            node_side = lab.reload(&mut node_side);
            eventually(10, "the end of the session with the second HAProxy", || {
                match more_side.cli().established(SECTION, "node") {
                    Ok(_) => Err("still there".to_owned()),
                    Err(_) => Ok(()),
                }
            });
            let peers = node_side.cli().ask(&format!("show peers {SECTION}"));
            assert!(!peers.contains("id=more"), "{peers}");
        }
        fill("b");
        eventually(10, "all in the node", || all(&node_side, 2_000));
        become_equal(&hap_side, &node_side, "t_str", Slack { rate: 0, exp_ms: 5000 }, 20);
        let after = eventually(5, "the session", up);
        assert_eq!(connections(&before), connections(&after), "{after:?}");
        let log = node_side.log();
        let gone = log.matches("more is DOWN (not in the configuration any more)").count();
        assert_eq!((log.matches(": instant, finished,").count(), gone), (4, 2), "{log}");
    });
}

#[test]
fn a_table_is_added_and_removed_by_reloads_and_the_others_keep_every_entry() {
    each_version("reloads that add and remove a table", (2, 5), |lab| {
        let [hap, node] = ["hap", "node"].map(|name| lab.member(name));
        let tables = all_tables(lab.version.number);
        let all = Config::new(&[&node, &hap]).tables(&tables);
        // Without one in the middle: the ids of those behind it are others.
        let less = tables.iter().filter(|(name, _)| *name != "t_ip6").cloned();
        let less = Config::new(&[&node, &hap]).tables(&less.collect::<Vec<_>>());
        let mut node_side = lab.node(&less);
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&tables));
        let up = || hap_side.cli().established(SECTION, "node");
        eventually(12, "a session", up);
        pause(2_500);
        let key = |round: usize, n: usize| format!("2001:db8::{round:x}:{n:x}");
        let (file, socket) = (lab.path("node.cfg"), lab.path("node.sock"));
        let slack = Slack { rate: 0, exp_ms: 5000 };
        for round in 1..=2 {
            // Entries of both sides, right before the reload: some of them are not confirmed yet.
            let names = (0..300).map(|n| format!("set table t_str key h{round}-{n} data.gpc0 {n}"));
            hap_side.cli().batch(names);
            let keys =
                (0..300).map(|n| format!("set table t_ip6 key {} data.gpc0 {n}", key(round, n)));
            hap_side.cli().batch(keys);
            let own = (0..300).map(|n| format!("set table t_str key n{round}-{n} data.gpc0 {n}"));
            node_side.cli().batch(own);
            std::fs::write(&file, all.render(&socket)).expect("config file");
            node_side = lab.reload(&mut node_side);
            for process in [&hap_side, &node_side] {
                eventually(15, "every entry of both", || {
                    let used = process.cli().used("t_str")?;
                    (used == 600 * round).then_some(()).ok_or_else(|| format!("{used}"))
                });
            }
            // The node has it for the first time: it gets what the peer has made.
            become_equal(&hap_side, &node_side, "t_str", slack, 20);
            if round == 1 {
                become_equal(&hap_side, &node_side, "t_ip6", slack, 20);
            }
            node_side.cli().must(&format!("set table t_ip6 key {} data.gpc0 9", key(9, round)));
            eventually(10, "an entry of the new table", || {
                let row = hap_side.cli().row("t_ip6", &key(9, round));
                row.map(|_| ()).ok_or_else(|| "not there".to_owned())
            });
            std::fs::write(&file, less.render(&socket)).expect("config file");
            node_side = lab.reload(&mut node_side);
            eventually(15, "a session", up);
            assert!(!node_side.cli().ask("show table").contains("t_ip6"));
        }
        become_equal(&hap_side, &node_side, "t_str", slack, 20);
        assert_eq!(hap_side.cli().used("t_ip6").ok(), Some(602));
        let log = node_side.log();
        assert_eq!(log.matches(": instant, finished,").count(), 4, "{log}");
        let ended = log.matches("hap is DOWN (the section's tables have changed)").count();
        assert_eq!(ended, 4, "{log}");
    });
}

/// Sessions lost before the first reload, in the collisions of the start.
fn down_before(log: &str) -> usize {
    log.split(": instant, finished,").next().unwrap_or_default().matches(" is DOWN ").count()
}
