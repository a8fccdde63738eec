//! Messages out: lessons taught, local changes pushed, and where a session goes on after a break.

use std::collections::BTreeSet;

use crate::config::SECTION;
use crate::harness::{Lab, Process, each_node, eventually, pause};
use crate::raw_handshake::node_with_raw_peers;
use crate::rawpeer::{
    CONFIRM, FINISHED, PARTIAL, RESYNC_REQ, RawPeer, Received, Update, define, integers, message,
    read_varint, string_key, update, updates_of, varint,
};

/// The key of an update of `t_str`, and its values.
fn key_and_values(update: &Update) -> (String, Vec<u64>) {
    let mut rest = &update.rest[..];
    let length = read_varint(&mut rest).expect("key length") as usize;
    let (key, mut rest) = rest.split_at(length);
    let mut values = Vec::new();
    while !rest.is_empty() {
        values.push(read_varint(&mut rest).expect("a value"));
    }
    (String::from_utf8_lossy(key).into_owned(), values)
}

fn keys_of(updates: &[Update]) -> Vec<String> {
    let of_strings = updates.iter().filter(|update| update.table == "t_str");
    let mut keys: Vec<String> = of_strings.map(|update| key_and_values(update).0).collect();
    keys.sort();
    keys
}

fn ack(received: &[Received], id: u32) -> Vec<u8> {
    let table = received.iter().find_map(|message| match message {
        Received::Define { id, name, .. } if name == "t_str" => Some(*id),
        _ => None,
    });
    let table = table.expect("a definition of t_str");
    message(10, 0x84, &[&varint(table)[..], &id.to_be_bytes()].concat())
}

fn settled(lab: &Lab) -> (Process, String) {
    let (node, address) = node_with_raw_peers(lab);
    RawPeer::join(&address, "raw", "node").settle();
    (node, address)
}

fn set(node: &Process, key: &str, value: u32) {
    node.cli().must(&format!("set table t_str key {key} data.gpc0 {value}"));
}

#[test]
fn a_lesson_holds_all_tables_and_remaining_lifetimes() {
    each_node("a lesson", |lab| {
        let (node, address) = settled(lab);
        set(&node, "old", 300);
        node.cli().must("set table t_int key 305419896 data.gpc0 9");
        node.cli().must("set table t_ip6 key 2001:db8::1 data.gpc0 7");
        pause(2000);
        set(&node, "young", 5);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.settle();
        peer.send(&RESYNC_REQ);
        let (messages, end) = peer.until(&[FINISHED, PARTIAL], 3000);
        assert_eq!(end, FINISHED);
        let mut names: Vec<&str> = Vec::new();
        for message in &messages {
            if let Received::Define { name, key, bits, tail, .. } = message {
                names.push(name);
                match name.as_str() {
                    "t_str" => assert_eq!((*key, *bits, &tail[..]), ((6, 33), 6, &[1_800_000][..])),
                    "t_int" => assert_eq!((*key, tail[0]), ((2, 4), 2_073_600_000)),
                    "t_bin" => assert_eq!((*key, tail[0]), ((7, 8), 0)),
                    "t_arr" => assert_eq!(tail[1..], [22, 3, 23, 2, 24, 2, 600_000]),
                    "t_decay" => assert_eq!(tail[1..], [3, 6000, 5, 20_000]),
                    "t_nodata" => assert_eq!((*key, *bits), ((4, 4), 0)),
                    _ => {}
                }
            }
        }
        for name in ["/t_pp", "t_ip", "t_ip6", "t_str", "t_int", "t_bin", "t_arr", "t_nodata"] {
            assert!(names.contains(&name), "{name} is not in the lesson: {names:?}");
        }
        let updates = updates_of(&messages);
        assert_eq!(updates.len(), 4, "{updates:?}");
        assert!(updates.iter().all(|update| update.kind >= 0x85), "timed: {updates:?}");
        for update in updates.iter().filter(|update| update.table == "t_str") {
            let (key, values) = key_and_values(update);
            let left = update.expire.expect("timed");
            let (gpc, age) = if key == "old" { (300, 2000) } else { (5, 0) };
            assert_eq!(values, [0, gpc], "{key}");
            let wanted = 1_800_000 - age;
            assert!(left <= wanted && left + 3000 > wanted, "{key}: {left} ms, not {wanted}");
        }
        let int = updates.iter().find(|update| update.table == "t_int").expect("t_int");
        assert_eq!(int.rest[..5], [0x12, 0x34, 0x56, 0x78, 9], "{int:?}");
        peer.send(&CONFIRM);
        let again = peer.updates(700);
        assert!(again.iter().all(|update| update.kind < 0x85), "only a lesson is timed: {again:?}");
        // Asked again, it teaches again.
        peer.send(&RESYNC_REQ);
        let (messages, end) = peer.until(&[FINISHED, PARTIAL], 3000);
        assert_eq!(
            (keys_of(&updates_of(&messages)), end),
            (vec!["old".into(), "young".into()], FINISHED)
        );
    });
}

#[test]
fn a_peer_of_version_2_0_is_taught_without_lifetimes() {
    each_node("a 2.0 peer", |lab| {
        let (node, address) = settled(lab);
        set(&node, "k", 1);
        let mut peer = RawPeer::join_as(&address, "2.0", "raw", "node");
        peer.settle();
        peer.send(&RESYNC_REQ);
        let (messages, _) = peer.until(&[FINISHED], 3000);
        let updates = updates_of(&messages);
        assert_eq!(keys_of(&updates), ["k"]);
        assert!(updates.iter().all(|u| u.kind < 0x85), "timed for a 2.0 peer: {updates:?}");
        peer.send(&CONFIRM);
        // With 2.1 it is taught with lifetimes again.
        drop(peer);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.settle();
        peer.send(&RESYNC_REQ);
        let (messages, _) = peer.until(&[FINISHED], 3000);
        assert!(updates_of(&messages).iter().all(|u| u.kind >= 0x85), "{messages:?}");
    });
}

#[test]
fn a_lesson_is_partial_until_the_node_has_learned() {
    each_node("partial", |lab| {
        let (node, address) = node_with_raw_peers(lab);
        let mut first = RawPeer::join(&address, "raw", "node");
        first.expect(RESYNC_REQ, 3000);
        let mut second = RawPeer::join(&address, "raw2", "node");
        second.send(&RESYNC_REQ);
        let (_, end) = second.until(&[FINISHED, PARTIAL], 3000);
        assert_eq!(end, PARTIAL, "before the node has learned");
        second.send(&CONFIRM);
        // The first turns out to be as new as the node: the second is asked.
        first.send(&define(4, "t_str", (6, 33), 6, &[1_800_000]));
        first.send(&update(0x8000_0001, &string_key("half"), &integers(&[1, 2])));
        first.send(&PARTIAL);
        first.until(&[CONFIRM], 2000);
        second.expect(RESYNC_REQ, 5000);
        second.send(&FINISHED);
        second.expect(CONFIRM, 2000);
        assert!(node.cli().row("t_str", "half").is_some());
        first.send(&RESYNC_REQ);
        let (messages, end) = first.until(&[FINISHED, PARTIAL], 3000);
        assert_eq!(end, FINISHED);
        assert_eq!(keys_of(&updates_of(&messages)), ["half"], "learned entries are taught, too");
    });
}

#[test]
fn what_changes_behind_a_lesson_is_pushed() {
    each_node("changes behind a lesson", |lab| {
        let (node, address) = settled(lab);
        // Nobody is there to read these changes, and the lesson is the first to take them.
        let keys: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
        for key in &keys {
            set(&node, key, 1);
        }
        let hello = b"HAProxyS 2.1\nnode\nraw2 7 1\n";
        let (mut peer, status) = RawPeer::hello(&address, &[&hello[..], &RESYNC_REQ].concat());
        assert_eq!(status, "200");
        let (lesson, _) = peer.until(&[FINISHED, PARTIAL], 3000);
        assert_eq!(keys_of(&updates_of(&lesson)), keys);
        peer.send(&CONFIRM);
        peer.quiet(600);
        for key in &keys {
            set(&node, key, 2);
        }
        let changed = peer.updates(700);
        assert_eq!(keys_of(&changed), keys, "changed behind the lesson");
        assert!(changed.iter().all(|update| key_and_values(update).1 == [0, 2]), "{changed:?}");
    });
}

#[test]
fn a_lost_teacher_is_replaced() {
    each_node("a lost teacher", |lab| {
        let (_node, address) = node_with_raw_peers(lab);
        let mut first = RawPeer::join(&address, "raw", "node");
        first.expect(RESYNC_REQ, 3000);
        let mut second = RawPeer::join(&address, "raw2", "node");
        assert_eq!(second.quiet(500), [], "two lessons at once");
        drop(first);
        second.expect(RESYNC_REQ, 5000);
        // The second fails as well, and comes back by itself: it is asked again.
        drop(second);
        let mut second = RawPeer::join(&address, "raw2", "node");
        second.expect(RESYNC_REQ, 4000);
    });
}

#[test]
fn local_changes_reach_every_peer_and_learned_ones_none() {
    each_node("pushing", |lab| {
        let (node, address) = settled(lab);
        let mut one = RawPeer::join(&address, "raw", "node");
        one.settle();
        let mut two = RawPeer::join(&address, "raw2", "node");
        two.settle();
        set(&node, "mine", 1);
        for peer in [&mut one, &mut two] {
            let updates = peer.updates(600);
            assert_eq!(keys_of(&updates), ["mine"]);
            assert_eq!(key_and_values(&updates[0]).1, [0, 1]);
            assert!(updates[0].kind == 0x80 && updates[0].id > Some(0), "{updates:?}");
        }
        // Learned from one: neither echoed nor passed on.
        one.send(&define(4, "t_str", (6, 33), 6, &[1_800_000]));
        one.send(&update(1, &string_key("theirs"), &integers(&[1, 2])));
        eventually(3, "learned", || {
            node.cli().row("t_str", "theirs").ok_or_else(|| "missing".to_owned())
        });
        assert_eq!(two.updates(700), [], "a learned entry was passed on");
        assert_eq!(one.updates(300), [], "a learned entry was echoed");
        // Changed here, it is everybody's, its teacher's as well.
        set(&node, "theirs", 55);
        for peer in [&mut one, &mut two] {
            let updates = peer.updates(600);
            assert_eq!(keys_of(&updates), ["theirs"]);
            assert_eq!(key_and_values(&updates[0]).1, [1, 55]);
        }
        // Neither a clear nor a look is told to anybody.
        node.cli().must("clear table t_str key theirs");
        node.cli().table("t_str");
        assert_eq!((one.updates(400), two.updates(100)), (vec![], vec![]));
        let state = node.cli().established(SECTION, "raw").expect("established");
        let table = state.tables.get("t_str").expect("t_str is shared");
        assert!(table["last_pushed"] != "0", "{table:?}");
    });
}

#[test]
fn ids_are_explicit_and_new_for_every_update() {
    each_node("update ids", |lab| {
        let (node, address) = settled(lab);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.settle();
        let (mut last, mut seen) = (0, BTreeSet::new());
        for round in 0..5 {
            let names = (0..20).map(|n| format!("set table t_str key r{round}k{n} data.gpc0 {n}"));
            node.cli().batch(names);
            let updates = peer.updates(400);
            assert_eq!(updates.len(), 20);
            for update in &updates {
                let id = match update.id {
                    Some(id) => id,
                    // Implicit ids make HAProxy 3.3 and later answer garbage: never from us.
                    None if !lab.node.is_stickring() => last + 1,
                    None => panic!("an implicit id: {update:?}"),
                };
                // Each shard counts on its own: ids of several shards come interleaved.
                assert!(id > 0 && seen.insert(id), "id {id} again");
                last = id;
            }
        }
        // An entry changed many times before it is sent is sent with its newest values.
        let many = (0..200).map(|n| format!("set table t_str key hot data.gpc0 {n}"));
        node.cli().batch(many);
        let mut updates = peer.updates(600);
        updates.retain(|update| update.table == "t_str");
        let newest = updates.last().expect("the hot entry");
        assert_eq!(key_and_values(newest), ("hot".to_owned(), vec![0, 199]));
    });
}

#[test]
fn a_new_session_goes_on_behind_the_last_ack() {
    each_node("resuming", |lab| {
        let (node, address) = settled(lab);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.settle();
        let mut messages = Vec::new();
        for key in ["a", "b", "c"] {
            set(&node, key, 1);
            messages.extend(peer.quiet(400));
        }
        let updates = updates_of(&messages);
        assert_eq!(keys_of(&updates), ["a", "b", "c"]);
        let mut id = updates[0].id.expect("the first is explicit");
        id = updates[1].id.unwrap_or(id + 1);
        peer.send(&ack(&messages, id));
        pause(300);
        drop(peer);
        set(&node, "d", 1);
        let mut peer = RawPeer::join(&address, "raw", "node");
        let others = peer.settle();
        assert_eq!(keys_of(&updates_of(&others)), ["c", "d"], "behind the ack of b");
        // An ack of what was never sent is garbage: nothing that it would skip may be lost.
        peer.send(&ack(&others, 0x7fff_ffff));
        pause(300);
        drop(peer);
        let mut peer = RawPeer::join(&address, "raw", "node");
        let resent = keys_of(&updates_of(&peer.settle()));
        assert!(resent.contains(&"c".to_owned()) && resent.contains(&"d".to_owned()), "{resent:?}");
    });
}

#[test]
fn a_server_key_is_sent_once_and_then_by_its_number() {
    each_node("dictionary", |lab| {
        let (node, web) = (lab.member("node"), "web");
        let (raw, other) = (lab.member("raw"), lab.member("raw2"));
        let table = "type string len 20 size 1k expire 10m store server_id,server_key".to_owned();
        let config = crate::config::Config::new(&[&node, &raw, &other]).tables(&[(web, table)]);
        let process = lab.node(&config);
        let mut peer = RawPeer::join(&node.address, "raw", "node");
        peer.settle();
        let word = |id: u8, text: &str| {
            let entry = [varint(id.into()), varint(text.len() as u64), text.into()].concat();
            [varint(entry.len() as u64), entry].concat()
        };
        let web_update = |id: u32, key: &str, dict: &[u8]| {
            update(id, &[&string_key(key)[..], &[1]].concat(), dict)
        };
        peer.send(&define(9, web, (6, 21), 0x80001, &[600_000]));
        peer.send(&web_update(1, "k1", &word(1, "srv-two")));
        peer.send(&web_update(2, "k2", &[1, 1]));
        peer.send(&web_update(3, "k3", &[0]));
        peer.send(&web_update(4, "k4", &word(128, "s128")));
        // An empty slot leaves the value as it is, and so does no value.
        peer.send(&web_update(5, "k5", &[1, 77]));
        peer.send(&web_update(6, "k1", &[0]));
        assert!(peer.quiet(500).contains(&Received::Ack { table: 9, id: 6 }));
        let wanted =
            [("k1", "srv-two"), ("k2", "srv-two"), ("k3", "-"), ("k4", "s128"), ("k5", "-")];
        for (key, server) in wanted {
            let row = process.cli().row(web, key).unwrap_or_else(|| panic!("no {key}"));
            assert_eq!(row.values["server_key"], server, "{key}");
        }
        // Taught back: the text once, then its number alone.
        peer.send(&RESYNC_REQ);
        let (messages, _) = peer.until(&[FINISHED], 3000);
        let lesson = updates_of(&messages);
        assert_eq!(lesson.len(), 5, "{lesson:?}");
        let texts = lesson.iter().filter(|u| u.rest.windows(7).any(|w| w == b"srv-two")).count();
        assert_eq!(texts, 1, "the text of a server in {lesson:?}");
        peer.send(&CONFIRM);
        if lab.node.number() < (3, 4) {
            // Older ones take it, or crash (protocol.md 4.7).
            return;
        }
        peer.send(&web_update(7, "k6", &word(129, "x")));
        let (_, error) = peer.until(&[[1, 0]], 2000);
        assert_eq!(error, [1, 0], "slot 129");
        assert!(peer.closes(2000));
    });
}
