//! The handshake byte by byte: statuses, who may join, silence, and the hello the node itself says.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::config::{Config, SECTION, all_tables};
use crate::harness::{Lab, Process, each_node, pause};
use crate::rawpeer::{
    FINISHED, HEARTBEAT, RESYNC_REQ, RawPeer, Received, define, string_key, update,
};

/// A node with two raw peers, which it looks for where nobody is; and its address.
pub fn node_with_raw_peers(lab: &Lab) -> (Process, String) {
    let (node, raw, other) = (lab.member("node"), lab.member("raw"), lab.member("raw2"));
    let config = Config::new(&[&node, &raw, &other]).tables(&all_tables(lab.node.number()));
    (lab.node(&config), node.address)
}

/// Hellos and the status each gets (protocol.md 2.2, captures hello_and_status).
const HELLOS: [(&str, &str); 19] = [
    ("HAProxyS 2.1\nnode\nraw 1 1\n", "200"),
    ("HAProxyS 2.1\r\nnode\r\nraw 1 1\r\n", "200"),
    ("HAProxyS 2.0\nnode\nraw 1 1\n", "200"),
    ("HAProxyS 02.01\nnode\nraw 1 1\n", "200"),
    ("HAProxyS 2.1\nnode\nraw \n", "200"),
    ("HAProxyS 2.1\nnode\nraw foo bar baz\n", "200"),
    ("HAProxyS 2.2\nnode\nraw 1 1\n", "502"),
    ("HAProxyS 1.0\nnode\nraw 1 1\n", "502"),
    ("HAProxyS 3.0\nnode\nraw 1 1\n", "502"),
    ("HAProxyS 2.1.0\nnode\nraw 1 1\n", "502"),
    ("HAProxyS 2\nnode\nraw 1 1\n", "502"),
    ("HAProxyS  2.1\nnode\nraw 1 1\n", "502"),
    ("HAProxyX 2.1\nnode\nraw 1 1\n", "501"),
    ("GET / HTTP/1.1\r\n\r\n", "501"),
    ("HAProxyS 2.1\nother\nraw 1 1\n", "503"),
    ("HAProxyS 2.1\n\nraw 1 1\n", "503"),
    ("HAProxyS 2.1\nnode\nnobody 1 1\n", "504"),
    ("HAProxyS 2.1\nnode\nraw\n", "501"),
    ("HAProxyS 2.1\nnode\n\n", "501"),
];

#[test]
fn every_hello_gets_its_status() {
    each_node("hello statuses", |lab| {
        let (_node, address) = node_with_raw_peers(lab);
        for (hello, wanted) in HELLOS {
            let (mut peer, status) = RawPeer::hello(&address, hello.as_bytes());
            let code = status.split(' ').next().unwrap_or_default();
            assert_eq!(code, wanted, "status of {hello:?}");
            if wanted != "200" {
                assert!(peer.closes(1000), "left open after {wanted} to {hello:?}");
                assert_eq!(peer.unread(), b"", "bytes behind the status of {hello:?}");
            }
        }
    });
}

#[test]
fn statuses_come_as_soon_as_a_line_is_wrong() {
    each_node("early statuses", |lab| {
        let (_node, address) = node_with_raw_peers(lab);
        for (start, wanted) in [("HAProxyS 9.9\n", "502"), ("HAProxyS 2.1\nother\n", "503")] {
            let (_peer, status) = RawPeer::hello(&address, start.as_bytes());
            assert_eq!(status, wanted, "after {start:?} alone");
        }
    });
}

#[test]
fn a_hello_may_come_in_pieces_and_with_messages_behind_it() {
    each_node("hello in pieces", |lab| {
        let (node, address) = node_with_raw_peers(lab);
        RawPeer::join(&address, "raw", "node").settle();
        let hello = b"HAProxyS 2.1\nnode\nraw2 7 1\n";
        let stream = std::net::TcpStream::connect(&address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        for byte in hello {
            std::io::Write::write_all(&mut &stream, &[*byte]).expect("one byte");
            pause(5);
        }
        let mut reply = [0; 4];
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        std::io::Read::read_exact(&mut &stream, &mut reply).expect("a status");
        assert_eq!(&reply, b"200\n");
        drop(stream);
        // Messages right behind the hello, in the same write.
        let messages = [
            b"HAProxyS 2.1\nnode\nraw 7 1\n".to_vec(),
            define(5, "t_str", (6, 33), 6, &[30000]),
            update(9, &string_key("behind"), &[1, 2]),
        ];
        let (mut peer, status) = RawPeer::hello(&address, &messages.concat());
        assert_eq!(status, "200");
        let got = peer.quiet(700);
        assert!(got.contains(&Received::Ack { table: 5, id: 9 }), "no ack: {got:?}");
        assert!(node.cli().row("t_str", "behind").is_some());
    });
}

#[test]
fn silence_and_endless_lines_end_a_connection() {
    each_node("silent connections", |lab| {
        let (_node, address) = node_with_raw_peers(lab);
        let begin = Instant::now();
        let starts: [&[u8]; 3] = [b"", b"HAProxyS 2.1\n", b"HAProxyS 2.1\nnode\nraw 1 1\n"];
        // 2.6 may cut a session that is silent behind its hello much earlier (protocol.md 2.5).
        let count = if lab.node.number() >= (3, 0) { 3 } else { 2 };
        std::thread::scope(|scope| {
            for start in &starts[..count] {
                let address = &address;
                scope.spawn(move || {
                    let mut peer = RawPeer::speak(address, start);
                    assert!(peer.closes(8000), "open after 8 s of silence behind {start:?}");
                    let seconds = begin.elapsed().as_secs_f32();
                    assert!((4.5..7.5).contains(&seconds), "{seconds} s behind {start:?}");
                });
            }
        });
        if lab.node.number() >= (3, 0) {
            let begin = Instant::now();
            let mut stream = RawPeer::speak(&address, &[b'x'; 60_000]);
            assert!(stream.closes(8000), "a line of 60 000 bytes is not refused");
            assert!(begin.elapsed() < Duration::from_secs(7));
        }
    });
}

#[test]
fn the_last_session_of_a_name_wins_and_the_local_name_keeps_its_first() {
    each_node("sessions of the same name", |lab| {
        let (_node, address) = node_with_raw_peers(lab);
        let mut first = RawPeer::join(&address, "raw", "node");
        first.settle();
        let mut second = RawPeer::join(&address, "raw", "node");
        assert!(first.closes(1500), "the older session of a name is still open");
        second.settle();
        let (mut local, status) = RawPeer::hello(&address, b"HAProxyS 2.1\nnode\nnode 1 1\n");
        assert_eq!(status, "200", "the node's own name");
        local.send(&HEARTBEAT);
        let (mut again, status) = RawPeer::hello(&address, b"HAProxyS 2.1\nnode\nnode 2 1\n");
        assert_eq!(status, "300", "the node's own name for the second time");
        assert!(again.closes(1500), "open after status 300");
        assert!(!local.closes(300), "the first local session was closed");
    });
}

fn node_that_dials(lab: &Lab) -> (Process, TcpListener) {
    let (node, raw) = (lab.member("node"), lab.member("raw"));
    let listener = TcpListener::bind(&raw.address).expect("the raw peer's address");
    let config = Config::new(&[&node, &raw]).tables(&all_tables(lab.node.number()));
    (lab.node(&config), listener)
}

#[test]
fn the_hello_of_the_node_and_its_first_messages() {
    each_node("the node's hello", |lab| {
        let (_node, listener) = node_that_dials(lab);
        let (mut peer, lines) = RawPeer::accept(&listener, 8);
        assert_eq!(lines[0], "HAProxyS 2.1");
        assert_eq!(lines[1], "raw");
        let words: Vec<&str> = lines[2].split(' ').collect();
        assert_eq!(words[0], "node", "{lines:?}");
        assert!(words[1].parse::<u32>().is_ok_and(|pid| pid > 1), "{lines:?}");
        assert_eq!(words[2], "1", "{lines:?}");
        peer.send(b"200\n");
        peer.expect(RESYNC_REQ, 2000);
        if lab.node.is_stickring() {
            assert!(!peer.heartbeats.is_empty() || peer.heartbeat_within(1000), "no heartbeat");
        }
        peer.send(&FINISHED);
        assert_eq!(peer.next(2000), Some(Received::Short([0, 3])));
    });
}

#[test]
fn the_node_takes_a_status_as_haproxy_does() {
    each_node("status with a text", |lab| {
        let (node, listener) = node_that_dials(lab);
        let (mut peer, _) = RawPeer::accept(&listener, 8);
        peer.send(b"200 OK\r\n");
        peer.expect(RESYNC_REQ, 2000);
        let state = node.cli().established(SECTION, "raw").expect("established");
        assert_eq!(state.fields["place"], "remote");
    });
}

#[test]
fn the_node_comes_back_after_a_lost_session() {
    each_node("reconnect", |lab| {
        let (_node, listener) = node_that_dials(lab);
        let (mut peer, _) = RawPeer::accept(&listener, 8);
        peer.send(b"200\n");
        peer.expect(RESYNC_REQ, 2000);
        drop(peer);
        let begin = Instant::now();
        let (mut peer, lines) = RawPeer::accept(&listener, 9);
        assert_eq!(lines[0], "HAProxyS 2.1");
        assert!(begin.elapsed() < Duration::from_secs(8));
        peer.send(b"200\n");
        assert!(peer.heartbeat_within(4000) || !peer.closes(100), "closed after the status");
    });
}

#[test]
fn heartbeats_come_every_three_seconds() {
    each_node("heartbeats", |lab| {
        let (_node, address) = node_with_raw_peers(lab);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.settle();
        let others = peer.quiet(10_000);
        assert_eq!(others, [], "unexpected messages on an idle session");
        let beats = peer.heartbeats.clone();
        if lab.node.is_stickring() {
            assert!(beats[0] < Duration::from_millis(500), "first heartbeat at {:?}", beats[0]);
        }
        for pair in beats.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap < Duration::from_millis(3600), "{gap:?} between heartbeats: {beats:?}");
        }
        assert!(beats.len() >= 3, "heartbeats in 10 s: {beats:?}");
    });
}

#[test]
fn a_peer_that_only_listens_is_dropped_after_five_seconds() {
    each_node("a silent peer", |lab| {
        if lab.node.number() < (3, 0) {
            // For 2.6 writing counts as life, too.
            return;
        }
        let (node, address) = node_with_raw_peers(lab);
        let mut peer = RawPeer::join(&address, "raw", "node");
        peer.settle();
        let begin = Instant::now();
        peer.send(&HEARTBEAT);
        std::thread::scope(|scope| {
            // Being sent something does not count as hearing from the peer.
            scope.spawn(|| {
                for number in 0..6 {
                    node.cli().must(&format!("set table t_str key k{number} data.gpc0 1"));
                    pause(1000);
                }
            });
            assert!(peer.closes(9000), "open after 9 s of silence");
        });
        let seconds = begin.elapsed().as_secs_f32();
        assert!((4.5..7.0).contains(&seconds), "closed after {seconds} s of silence");
    });
}
