//! What tables can do beside holding entries: sending on, receiving only, being full, being shared
//! out over peers; and two nodes of our own side by side.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::compare::{Slack, become_equal};
use crate::config::{Config, Member, SECTION};
use crate::harness::{Lab, Process, each_node, each_version, eventually};
use crate::rawpeer::{
    FINISHED, RESYNC_REQ, RawPeer, Received, define, integers, string_key, timed, update,
};

fn tables(list: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    list.iter().map(|(name, text)| (*name, (*text).to_owned())).collect()
}

fn value(process: &Process, table: &str, key: &str, name: &str) -> Option<u64> {
    process.cli().row(table, key).map(|row| row.number(name))
}

#[test]
fn write_to_copies_what_is_not_counted() {
    each_version("write-to", (3, 0), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let list = tables(&[
            ("copy", "type ip size 1k expire 1h store gpt0,gpc0,server_id"),
            ("source", "type ip size 1k expire 1h store gpt0,gpc0,server_id write-to copy"),
        ]);
        let node_side = lab.node(&Config::new(&[&node, &hap]).tables(&list));
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&list));
        eventually(10, "a session", || hap_side.cli().established(SECTION, "node"));
        let set = "set table source key 10.0.0.1 data.gpt0 5 data.gpc0 7 data.server_id 3";
        hap_side.cli().must(set);
        eventually(5, "the copy", || {
            let row =
                node_side.cli().row("copy", "10.0.0.1").ok_or_else(|| "no copy".to_owned())?;
            let seen = (row.number("gpt0"), row.number("gpc0"), row.number("server_id"));
            if seen == (5, 0, 3) { Ok(()) } else { Err(format!("{row:?}")) }
        });
        assert_eq!(value(&node_side, "source", "10.0.0.1", "gpc0"), Some(7));
    });
}

#[test]
fn recv_only_tables_take_the_current_connections() {
    each_node("recv-only", |lab| {
        if lab.node.number() < (3, 2) {
            return;
        }
        let (node, raw) = (lab.member("node"), lab.member("raw"));
        let list = tables(&[
            ("only", "type ip size 1k expire 1h store conn_cur,gpc0 recv-only"),
            ("both", "type ip size 1k expire 1h store conn_cur,gpc0"),
        ]);
        let process = lab.node(&Config::new(&[&node, &raw]).tables(&list));
        let mut peer = RawPeer::join(&node.address, "raw", "node");
        peer.settle();
        for (id, name) in [(1, "only"), (2, "both")] {
            peer.send(&define(id, name, (4, 4), 1 << 2 | 1 << 6, &[3_600_000]));
            peer.send(&update(1, &[10, 0, 0, 1], &integers(&[7, 33])));
        }
        assert_eq!(peer.quiet(500).len(), 2, "two acks");
        assert_eq!(value(&process, "only", "10.0.0.1", "conn_cur"), Some(33));
        assert_eq!(value(&process, "both", "10.0.0.1", "conn_cur"), Some(0));
        assert_eq!(value(&process, "both", "10.0.0.1", "gpc0"), Some(7));
    });
}

#[test]
fn byte_rates_are_shown_with_their_factor() {
    each_version("brates-factor", (3, 2), |lab| {
        let (hap, node) = (lab.member("hap"), lab.member("node"));
        let text = "type ip size 1k expire 1h store bytes_in_rate(600s),bytes_out_rate(600s) \
                    brates-factor 100";
        let list = tables(&[("scaled", text)]);
        let node_side = lab.node(&Config::new(&[&node, &hap]).tables(&list));
        let hap_side = lab.haproxy(&Config::new(&[&hap, &node]).tables(&list));
        eventually(10, "a session", || hap_side.cli().established(SECTION, "node"));
        hap_side.cli().must("set table scaled key 10.0.0.1 data.bytes_in_rate 1234567");
        node_side.cli().must("set table scaled key 10.0.0.2 data.bytes_in_rate 1234567");
        become_equal(&hap_side, &node_side, "scaled", Slack::default(), 5);
    });
}

#[test]
fn a_full_table_loses_what_expires_first() {
    each_node("a full table", |lab| {
        let (node, raw) = (lab.member("node"), lab.member("raw"));
        let list = tables(&[
            ("purge", "type string len 16 size 1k expire 1h store gpc0"),
            ("keep", "type string len 16 size 1k expire 1h nopurge store gpc0"),
        ]);
        let process = lab.node(&Config::new(&[&node, &raw]).tables(&list));
        let mut peer = RawPeer::join(&node.address, "raw", "node");
        peer.settle();
        for (id, name) in [(1, "purge"), (2, "keep")] {
            peer.send(&define(id, name, (6, 17), 4, &[3_600_000]));
            let entries = (0..1500u32).flat_map(|n| {
                timed(n + 1, 60_000 + n * 100, &string_key(&format!("k{n:04}")), &[1])
            });
            peer.send(&entries.collect::<Vec<u8>>());
        }
        let acks = peer.quiet(1000);
        for table in [1, 2] {
            assert!(acks.contains(&Received::Ack { table, id: 1500 }), "{table}: {acks:?}");
        }
        let (purge, keep) = (process.cli().table("purge"), process.cli().table("keep"));
        assert!(purge.rows.len() <= 1024 && purge.rows.len() >= 1000, "{}", purge.rows.len());
        assert!(purge.rows.contains_key("k1499"), "the newest is not there");
        if lab.node.is_stickring() {
            // HAProxy 3.x goes through its buckets and takes the soonest of one of them.
            assert!(!purge.rows.contains_key("k0000"), "the soonest to expire is still there");
            let least = purge.rows.values().map(|row| row.exp).min().expect("rows");
            assert!(least > 60_000 + 40_000, "entries that expire sooner stay: {least}");
        }
        assert_eq!(keep.rows.len(), 1024);
        assert!(keep.rows.contains_key("k0000") && !keep.rows.contains_key("k1499"));
    });
}

#[test]
fn expired_entries_are_neither_shown_nor_taught() {
    each_node("expiry", |lab| {
        let (node, raw) = (lab.member("node"), lab.member("raw"));
        let list = tables(&[("short", "type string len 16 size 1k expire 3s store gpc0")]);
        let process = lab.node(&Config::new(&[&node, &raw]).tables(&list));
        let mut peer = RawPeer::join(&node.address, "raw", "node");
        peer.settle();
        process.cli().must("set table short key a data.gpc0 1");
        peer.stay(1500);
        process.cli().must("set table short key b data.gpc0 1");
        assert_eq!(process.cli().used("short"), Ok(2));
        peer.stay(2100);
        let rows = process.cli().table("short").rows;
        assert_eq!(rows.keys().collect::<Vec<_>>(), ["b"], "3.6 s after a, 2.1 s after b");
        peer.stay(2000);
        assert_eq!(process.cli().table("short").lines, 0);
        peer.send(&RESYNC_REQ);
        let (lesson, _) = peer.until(&[FINISHED], 3000);
        let taught = lesson.iter().filter(|m| matches!(m, Received::Update { .. })).count();
        assert_eq!(taught, 0, "{lesson:?}");
        assert_eq!(process.cli().used("short"), Ok(0));
    });
}

/// Serves several peers at once for `ms` milliseconds. By peer: the keys it was pushed, as they are
/// encoded, with their table.
fn serve(peers: &mut [RawPeer], ms: u64) -> Vec<BTreeSet<(String, Vec<u8>)>> {
    let end = Instant::now() + Duration::from_millis(ms);
    let mut keys = vec![BTreeSet::new(); peers.len()];
    while Instant::now() < end {
        for (peer, keys) in peers.iter_mut().zip(&mut keys) {
            while let Some(received) = peer.next(10) {
                match received {
                    Received::Short(RESYNC_REQ) => peer.send(&FINISHED),
                    Received::Update { rest, .. } => {
                        let table = peer.current.clone().expect("a definition before");
                        // The values are one byte each: everything before is the key.
                        keys.insert((table, rest[..rest.len() - 1].to_vec()));
                    }
                    _ => {}
                }
            }
            assert!(!peer.ended(), "a session was closed");
        }
    }
    keys
}

#[test]
fn shards_get_the_keys_that_haproxy_gives_them() {
    each_version("shards", (3, 0), |lab| {
        let list = tables(&[
            ("s_str", "type string len 16 size 1k expire 1h store gpc0"),
            ("s_ip", "type ip size 1k expire 1h store gpc0"),
            ("s_ip6", "type ipv6 size 1k expire 1h store gpc0"),
            ("s_int", "type integer size 1k expire 1h store gpc0"),
        ]);
        let side = |name: &str, start: &dyn Fn(&Config) -> Process| {
            let local = lab.member(name);
            let raws: Vec<Member> = (1..=3).map(|n| lab.member(&format!("raw{n}"))).collect();
            let mut config = Config::new(&[&local]).tables(&list);
            config.sections[0].lines.push("shards 3".to_owned());
            for (n, raw) in raws.iter().enumerate() {
                let line = format!("peer {} {} shard {}", raw.name, raw.address, n + 1);
                config.sections[0].lines.push(line);
            }
            let process = start(&config);
            let join = |raw: &Member| RawPeer::join(&local.address, &raw.name, name);
            let mut peers: Vec<RawPeer> = raws.iter().map(join).collect();
            // HAProxy asks one peer of each shard for a lesson, one after the other.
            serve(&mut peers, 4500);
            process.cli().batch((0..40u64).flat_map(|n| {
                [
                    format!("set table s_str key key{n} data.gpc0 1"),
                    format!("set table s_ip key 10.0.{n}.1 data.gpc0 1"),
                    format!("set table s_ip6 key 2001:db8::{n} data.gpc0 1"),
                    format!("set table s_int key {} data.gpc0 1", n * 77_777_777 % (1 << 32)),
                ]
            }));
            serve(&mut peers, 2500)
        };
        let theirs = side("hap", &|config| lab.haproxy(config));
        let ours = side("node", &|config| lab.node(config));
        let total: usize = ours.iter().map(BTreeSet::len).sum();
        assert_eq!(total, 160, "every key has one shard");
        assert!(ours.iter().all(|shard| shard.len() > 20), "not shared out");
        for (number, (wanted, got)) in theirs.iter().zip(&ours).enumerate() {
            let wrong: Vec<_> = got.symmetric_difference(wanted).collect();
            assert!(wrong.is_empty(), "shard {}: these keys differ: {wrong:?}", number + 1);
        }
    });
}

fn two_nodes(lab: &Lab) -> (Process, Process) {
    let (one, two) = (lab.member("one"), lab.member("two"));
    let list = tables(&[
        ("t_str", "type string len 32 size 100k expire 1h store gpt0,gpc0,gpc0_rate(600s)"),
        ("t_arr", "type string len 8 size 1k expire 1h store gpt(3),gpc(2),gpc_rate(2,600s)"),
    ]);
    let first = lab.node(&Config::new(&[&one, &two]).tables(&list));
    let second = lab.node(&Config::new(&[&two, &one]).tables(&list));
    eventually(12, "a session of the two", || first.cli().established(SECTION, "two"));
    (first, second)
}

#[test]
fn two_nodes_teach_each_other() {
    each_node("two nodes", |lab| {
        let (mut first, mut second) = two_nodes(lab);
        let numbers = 0..5000u32;
        first.cli().batch(
            numbers
                .clone()
                .map(|n| format!("set table t_str key one{n} data.gpt0 {n} data.gpc0_rate {n}")),
        );
        second.cli().batch(numbers.map(|n| format!("set table t_str key two{n} data.gpc0 {n}")));
        first.cli().must("set table t_str key shared data.gpc0 1");
        let complete = |process: &Process| {
            eventually(15, "all entries", || {
                let used = process.cli().used("t_str")?;
                if used == 10_001 { Ok(()) } else { Err(format!("{used} of 10001")) }
            });
        };
        complete(&first);
        complete(&second);
        become_equal(&first, &second, "t_str", Slack::default(), 10);
        for round in 0..2 {
            let restarted = if round == 0 { &mut first } else { &mut second };
            restarted.kill();
            restarted.start();
            complete(&first);
            complete(&second);
            become_equal(&first, &second, "t_str", Slack::default(), 10);
        }
    });
}
