//! Messages in: what is applied and acknowledged, what is ignored, and what ends the session.

use crate::harness::{Lab, Process, each_node, eventually, pause};
use crate::raw_handshake::node_with_raw_peers;
use crate::rawpeer::{
    ERROR_PROTOCOL, ERROR_SIZE, FINISHED, RESYNC_REQ, RawPeer, Received, define, integers, message,
    string_key, timed, update, varint,
};

/// A session in its everyday state: nobody learns, nobody teaches.
fn session(lab: &Lab) -> (Process, RawPeer) {
    let (node, address) = node_with_raw_peers(lab);
    let mut peer = RawPeer::join(&address, "raw", "node");
    peer.settle();
    (node, peer)
}

/// `t_str` as its true layout says: gpt0 and gpc0, string of at most 32.
fn define_t_str(id: u64) -> Vec<u8> {
    define(id, "t_str", (6, 33), 6, &[1_800_000])
}

fn str_update(id: u32, key: &str, values: &[u64]) -> Vec<u8> {
    update(id, &string_key(key), &integers(values))
}

fn value(node: &Process, table: &str, key: &str, name: &str) -> Option<u64> {
    node.cli().row(table, key).map(|row| row.number(name))
}

/// The last ack for a table among what came.
fn last_ack(messages: &[Received], wanted: u64) -> Option<u32> {
    messages.iter().rev().find_map(|message| match message {
        Received::Ack { table, id } if *table == wanted => Some(*id),
        _ => None,
    })
}

#[test]
fn updates_are_applied_and_acknowledged() {
    each_node("updates and acks", |lab| {
        let (node, mut peer) = session(lab);
        peer.send(&[define_t_str(77), str_update(0x200, "a", &[1, 2])].concat());
        assert_eq!(last_ack(&peer.quiet(500), 77), Some(0x200));
        // One cumulative ack at the end of a burst.
        let burst: Vec<u8> = (0..1000)
            .flat_map(|n| str_update(0x300 + n, &format!("b{n}"), &[n.into(), 3]))
            .collect();
        peer.send(&burst);
        let acks = peer.quiet(700);
        assert_eq!(last_ack(&acks, 77), Some(0x300 + 999));
        assert!(acks.len() < 100, "{} acks for a burst of 1000 updates", acks.len());
        assert_eq!(node.cli().used("t_str"), Ok(1001));
        assert_eq!(value(&node, "t_str", "b500", "gpt0"), Some(500));
        // Ids are counted for each table; a gap and a step back are nothing special.
        let int = define(3, "t_int", (2, 4), 4, &[2_073_600_000]);
        peer.send(&[int, update(5, &[0, 0, 0, 9], &[240, 0])].concat());
        peer.send(&[define_t_str(77), str_update(7, "c", &[1, 2])].concat());
        let acks = peer.quiet(500);
        assert_eq!((last_ack(&acks, 3), last_ack(&acks, 77)), (Some(5), Some(7)));
        assert_eq!(value(&node, "t_int", "9", "gpc0"), Some(240));
        // The same id again is not acknowledged again, but applied.
        peer.send(&str_update(7, "c", &[1, 99]));
        assert_eq!(last_ack(&peer.quiet(500), 77), None);
        assert_eq!(value(&node, "t_str", "c", "gpc0"), Some(99));
    });
}

#[test]
fn incremental_ids_and_switches_are_understood() {
    each_node("incremental ids and switch", |lab| {
        let (node, mut peer) = session(lab);
        let inc = |key: &str| message(10, 0x81, &[string_key(key), vec![1, 2]].concat());
        let inc_timed = |key: &str| {
            let expire = 5000u32.to_be_bytes().to_vec();
            message(10, 0x86, &[expire, string_key(key), vec![1, 2]].concat())
        };
        let int = define(3, "t_int", (2, 4), 4, &[2_073_600_000]);
        peer.send(&[define_t_str(77), str_update(0x200, "a", &[1, 2]), inc("b")].concat());
        peer.send(&[int, update(5, &[0, 0, 0, 9], &[8])].concat());
        // Back to the first by SWITCH: its own sequence goes on.
        peer.send(&[message(10, 0x83, &varint(77)), inc("c"), inc_timed("d")].concat());
        let acks = peer.quiet(500);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(value(&node, "t_str", key, "gpc0"), Some(2), "{key}");
        }
        let row = node.cli().row("t_str", "d").expect("the timed one");
        assert!(row.exp <= 5000, "{row:?}");
        // From 3.3 on HAProxy acknowledges these with swapped bytes (protocol.md 5.4).
        if lab.node.is_stickring() || lab.node.number() < (3, 3) {
            assert_eq!(last_ack(&acks, 77), Some(0x203), "{acks:?}");
        }
    });
}

#[test]
fn what_is_not_ours_is_ignored_and_not_acknowledged() {
    each_node("unknown and mismatching tables", |lab| {
        let (node, mut peer) = session(lab);
        let key = string_key("ignored");
        let strange: [(&str, Vec<u8>); 7] = [
            ("unknown table", define(9, "nosuch", (6, 33), 6, &[30_000])),
            ("key length", define(9, "t_str", (6, 17), 6, &[30_000])),
            ("key type", define(9, "t_str", (7, 33), 6, &[30_000])),
            ("reserved key type", define(9, "t_str", (3, 33), 6, &[30_000])),
            ("array without its tail", define(9, "t_arr", (6, 9), 1 << 22, &[])),
            ("wrong type in the tail", define(9, "t_decay", (6, 9), 8, &[30_000, 5, 6000])),
            ("rate without a period", define(9, "t_decay", (6, 9), 8, &[30_000])),
        ];
        for (what, definition) in strange {
            peer.send(&[definition, update(0x50, &key, &[1, 2, 3, 4])].concat());
            assert_eq!(peer.quiet(250), [], "after a definition with: {what}");
        }
        // An update before any definition on a fresh table id, and messages nobody knows.
        peer.send(&message(10, 0x83, &varint(4711)));
        peer.send(&str_update(0x60, "ignored", &[1, 2]));
        peer.send(&[0, 9, 1, 0, 1, 1, 10, 5, 77, 3]);
        peer.send(&message(10, 0x90, b"later stick-table message"));
        peer.send(&message(77, 0x91, b"a class to come"));
        peer.send(&message(10, 0x84, &[&varint(4711)[..], &[0, 0, 0, 1]].concat()));
        assert_eq!(peer.quiet(250), []);
        for table in ["t_str", "t_arr", "t_decay"] {
            assert_eq!(node.cli().used(table), Ok(0), "{table}");
        }
        // The session is as good as before.
        peer.send(&[define_t_str(4), str_update(0x70, "good", &[1, 2])].concat());
        assert_eq!(last_ack(&peer.quiet(500), 4), Some(0x70));
        assert_eq!(value(&node, "t_str", "good", "gpc0"), Some(2));
        if lab.node.is_stickring() {
            let log = node.log();
            assert!(log.contains("nosuch"), "no word about the refused table in the log:\n{log}");
        }
    });
}

#[test]
fn unknown_data_types_are_dropped_behind_the_known() {
    each_node("unknown data types", |lab| {
        let (node, mut peer) = session(lab);
        let bits = 6 | 1 << 40;
        peer.send(&define(8, "t_str", (6, 33), bits, &[30_000, 40, 17]));
        peer.send(&str_update(1, "future", &[11, 12, 13, 14]));
        assert_eq!(last_ack(&peer.quiet(500), 8), Some(1));
        assert_eq!(value(&node, "t_str", "future", "gpt0"), Some(11));
        assert_eq!(value(&node, "t_str", "future", "gpc0"), Some(12));
        // Types that the table does not store are decoded and dropped: server_id, conn_cnt, bytes.
        let bits = 1 | 6 | 1 << 4 | 1 << 13;
        peer.send(&define(8, "t_str", (6, 33), bits, &[30_000]));
        peer.send(&str_update(2, "more", &[7, 21, 22, 9, 1 << 40]));
        assert_eq!(last_ack(&peer.quiet(500), 8), Some(2));
        assert_eq!(value(&node, "t_str", "more", "gpt0"), Some(21));
        assert_eq!(value(&node, "t_str", "more", "gpc0"), Some(22));
        // Trailing bytes in a message are nobody's business.
        peer.send(&[define_t_str(8), str_update(3, "tail", &[1, 2, 3, 4, 5])].concat());
        assert_eq!(last_ack(&peer.quiet(500), 8), Some(3));
    });
}

/// What a message does to a session: the error sent, and the close.
fn ends(lab: &Lab, what: &str, bytes: &[u8], error: [u8; 2]) {
    let (mut node, mut peer) = session(lab);
    peer.send(bytes);
    let got = peer.next(1500);
    assert_eq!(got, Some(Received::Short(error)), "{what}");
    assert!(peer.closes(1500), "{what}: still open");
    assert!(node.alive());
}

#[test]
fn broken_messages_end_the_session_with_an_error() {
    each_node("broken messages", |lab| {
        let broken: [(&str, Vec<u8>, [u8; 2]); 8] = [
            ("class 255", vec![255, 0], ERROR_PROTOCOL),
            ("length without end", vec![10, 0x80, 255, 255, 255, 255, 255], ERROR_PROTOCOL),
            ("too long", [&[10, 0x80][..], &varint(20_000)].concat(), ERROR_SIZE),
            ("definition cut", message(10, 0x82, &[1, 5, b't']), ERROR_PROTOCOL),
            ("name of no length", message(10, 0x82, &[1, 0, 6, 33, 6]), ERROR_PROTOCOL),
            ("no id", [define_t_str(4), message(10, 0x80, &[0, 0])].concat(), ERROR_PROTOCOL),
            ("values cut", [define_t_str(4), str_update(1, "k", &[1])].concat(), ERROR_PROTOCOL),
            ("ack cut", message(10, 0x84, &[4, 0, 0]), ERROR_PROTOCOL),
        ];
        for (what, bytes, error) in broken {
            ends(lab, what, &bytes, error);
        }
    });
}

#[test]
fn a_message_of_the_largest_size_is_accepted() {
    each_node("the largest message", |lab| {
        let (node, mut peer) = session(lab);
        let values = [integers(&[1, 2]), vec![7; 15_900]].concat();
        peer.send(&[define_t_str(4), update(5, &string_key("large"), &values)].concat());
        assert_eq!(last_ack(&peer.quiet(700), 4), Some(5));
        assert_eq!(value(&node, "t_str", "large", "gpc0"), Some(2));
    });
}

#[test]
fn keys_are_read_as_haproxy_reads_them() {
    each_node("keys", |lab| {
        let (node, mut peer) = session(lab);
        let long = "y".repeat(40);
        peer.send(&[define_t_str(4), str_update(1, &long, &[1, 2])].concat());
        peer.send(
            &[define(5, "t_bin", (7, 8), 4, &[0]), update(1, b"k1\0\0\0\0\0\0", &[7])].concat(),
        );
        let ip6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        peer.send(&[define(6, "t_ip6", (5, 16), 4, &[60_000]), update(1, &ip6, &[7])].concat());
        peer.send(
            &[define(7, "t_ip", (4, 4), 4, &[60_000]), update(1, &[10, 0, 0, 1], &[7])].concat(),
        );
        let large = [0xff, 0xff, 0xff, 0xfe];
        peer.send(&[define(8, "t_int", (2, 4), 4, &[60_000]), update(1, &large, &[7])].concat());
        peer.send(&[define(9, "/t_pp", (4, 4), 4, &[60_000]), update(1, &[1; 4], &[7])].concat());
        let acks = peer.quiet(500);
        assert_eq!(acks.len(), 6, "{acks:?}");
        let cli = node.cli();
        assert!(cli.row("t_str", &"y".repeat(32)).is_some(), "a key cut to 32 bytes");
        let binary = cli.table("t_bin");
        assert!(binary.rows.contains_key("6B31000000000000"), "{binary:?}");
        assert_eq!(value(&node, "t_ip6", "2001:db8::1", "gpc0"), Some(7));
        assert_eq!(value(&node, "t_ip", "10.0.0.1", "gpc0"), Some(7));
        assert!(cli.table("t_int").rows.contains_key("4294967294"));
        assert_eq!(value(&node, "mypeers/t_pp", "1.1.1.1", "gpc0"), Some(7));
    });
}

#[test]
fn lifetimes_are_taken_from_timed_updates_and_capped() {
    each_node("lifetimes", |lab| {
        let (node, mut peer) = session(lab);
        let values = integers(&[1, 2]);
        peer.send(&define_t_str(4));
        peer.send(&str_update(1, "full", &[1, 2]));
        peer.send(&timed(2, 20_000, &string_key("short"), &values));
        peer.send(&timed(3, 0x7fff_ffff, &string_key("capped"), &values));
        peer.send(&timed(4, 0, &string_key("gone"), &values));
        peer.send(&define(5, "t_bin", (7, 8), 4, &[0]));
        peer.send(&timed(5, 0, b"eternal!", &[7]));
        assert_eq!(last_ack(&peer.quiet(500), 5), Some(5));
        let exp = |key: &str| node.cli().row("t_str", key).map(|row| row.exp);
        let near = |exp: Option<u64>, wanted: u64| {
            let exp = exp.expect("an entry");
            assert!(exp <= wanted && exp + 4000 > wanted, "exp={exp}, wanted {wanted}");
        };
        near(exp("full"), 1_800_000);
        near(exp("short"), 20_000);
        if lab.node.number() >= (3, 2) {
            near(exp("capped"), 1_800_000);
        }
        pause(1200);
        if lab.node.number() >= (3, 5) || lab.node.is_stickring() {
            assert_eq!(exp("gone"), None);
        }
        assert_eq!(node.cli().table("t_bin").rows.len(), 1);
    });
}

#[test]
fn values_overwrite_and_the_rest_stays() {
    each_node("merging", |lab| {
        let (node, mut peer) = session(lab);
        peer.send(&[define_t_str(4), str_update(1, "k", &[10, 20])].concat());
        // Only gpc0: gpt0 stays.
        peer.send(&define(4, "t_str", (6, 33), 4, &[1_800_000]));
        peer.send(&str_update(2, "k", &[5]));
        assert_eq!(last_ack(&peer.quiet(500), 4), Some(2));
        assert_eq!(value(&node, "t_str", "k", "gpt0"), Some(10));
        assert_eq!(value(&node, "t_str", "k", "gpc0"), Some(5), "the last wins, not the largest");
        // Arrays: five elements into three, then two.
        let bits = 1 << 22;
        let arrays = |elements: u64| define(6, "t_arr", (6, 9), bits, &[3_600_000, 22, elements]);
        peer.send(&[arrays(5), str_update(1, "k", &[1, 2, 3, 4, 5])].concat());
        peer.send(&[arrays(2), str_update(2, "k", &[7, 8])].concat());
        assert_eq!(last_ack(&peer.quiet(500), 6), Some(2));
        let row = node.cli().row("t_arr", "k").expect("the entry");
        let gpt: Vec<u64> = (0..3).map(|n| row.number(&format!("gpt{n}"))).collect();
        assert_eq!(gpt, [7, 8, 3], "{row:?}");
        // conn_cur is everybody's own; a rate is kept as it was counted: age, current, previous.
        let bits = 1 << 6 | 1 << 8;
        peer.send(&define(7, "t_ip", (4, 4), bits, &[600_000, 8, 180_000]));
        peer.send(&update(1, &[10, 0, 0, 1], &integers(&[33, 90_000, 10, 20])));
        assert_eq!(last_ack(&peer.quiet(500), 7), Some(1));
        let row = node.cli().row("t_ip", "10.0.0.1").expect("the entry");
        assert_eq!(row.number("conn_cur"), 0, "{row:?}");
        // Half of the period is over: 10 + 20 / 2; a second of a busy machine moves it by 0.1.
        let rate = row.number("sess_rate(180000)");
        assert!((19..=20).contains(&rate), "{row:?}");
    });
}

#[test]
fn nothing_is_acknowledged_while_learning() {
    each_node("no acks while learning", |lab| {
        let (node, address) = node_with_raw_peers(lab);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.expect(RESYNC_REQ, 3000);
        peer.send(&[define_t_str(4), str_update(0x8000_0003, "learned", &[1, 2])].concat());
        let acks = peer.quiet(800);
        if lab.node.number() >= (3, 3) {
            assert_eq!(acks, [], "while learning");
        }
        eventually(3, "the entry taught", || {
            value(&node, "t_str", "learned", "gpc0").ok_or_else(|| "missing".to_owned())
        });
        peer.send(&FINISHED);
        assert_eq!(peer.next(2000), Some(Received::Short([0, 3])), "the confirmation");
        peer.send(&str_update(0x11, "after", &[1, 2]));
        assert_eq!(last_ack(&peer.quiet(600), 4), Some(0x11));
    });
}
