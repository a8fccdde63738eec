//! The old process's half of a reload: a scripted successor listens on its address.

use crate::daemon::{Daemon, ENGINES, KINDS, Kind, free_address, on, wait_until};
use crate::peer::{Peer, fill};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);
const KIND: Kind = Kind { engine: "auto", shards: 2 };

/// Takes the address over as soon as it is free.
fn listen(address: SocketAddr) -> TcpListener {
    let mut listener = None;
    wait_until(LONG, || {
        listener = TcpListener::bind(address).ok();
        listener.is_some()
    });
    listener.expect("the address of the old process")
}

/// The old process's connection, answered with 200.
fn welcome(listener: &TcpListener, daemon: &Daemon) -> Peer {
    let (mut peer, hello) = Peer::accept(listener, LONG).expect("the old process");
    let wanted = format!("HAProxyS 2.1\nnode\nnode {} 1", daemon.pid());
    assert!(hello.starts_with(&wanted), "{hello:?}");
    peer.send(b"200\n");
    peer
}

fn taught(peer: &mut Peer) {
    assert!(peer.pump(LONG, |p| !p.ends.is_empty()), "closed: {}", peer.closed);
}

#[test]
fn a_successor_gets_everything_and_the_old_process_leaves() {
    on(&KINDS, |daemon| {
        fill(daemon, 30_000);
        daemon.set((1..=100).map(|key| (key, 7)));
        let mut remote = Peer::connect(daemon, "remote");
        remote.pump(Duration::from_millis(300), |_| false);
        daemon.signal(Signal::USR1);
        let listener = listen(daemon.address);
        let mut peer = welcome(&listener, daemon);
        taught(&mut peer);
        assert_eq!(peer.ends, [true], "{:?}", daemon.kind);
        assert_eq!((peer.rows.len(), peer.timed), (30_000, 30_000), "{:?}", daemon.kind);
        for (&key, &value) in &peer.rows {
            assert_eq!(value, if key <= 100 { 7 } else { u64::from(key) }, "key {key}");
        }
        assert_eq!(daemon.exit_code(Duration::from_secs(2)), Some(0), "{:?}", daemon.kind);
        assert!(!remote.pump(LONG, |_| false) && remote.closed);
        let log = daemon.log();
        let line = "Hand-over to the new process: protocol, finished, 30000 entries in ";
        assert!(log.contains(line), "{log}");
        assert!(log.contains("0 sessions kept") && log.contains("ms without a listener"), "{log}");
    });
}

#[test]
fn a_process_that_is_not_up_to_date_teaches_all_the_same() {
    let remotes = [("other", free_address())];
    let daemon = Daemon::start_at(KIND, "node", free_address(), &remotes);
    daemon.set((1..=500).map(|key| (key, 1)));
    daemon.signal(Signal::USR1);
    let listener = listen(daemon.address);
    let mut peer = welcome(&listener, &daemon);
    taught(&mut peer);
    assert_eq!((peer.ends.clone(), peer.rows.len()), (vec![false], 500));
    assert_eq!(daemon.exit_code(Duration::from_secs(2)), Some(0));
    assert!(daemon.log().contains("protocol, partial, 500 entries"), "{}", daemon.log());
}

#[test]
fn a_busy_a_breaking_and_a_dumb_successor_are_tried_again() {
    on(&ENGINES, |daemon| {
        fill(daemon, 20_000);
        daemon.signal(Signal::USR1);
        let listener = listen(daemon.address);
        let (mut busy, _) = Peer::accept(&listener, LONG).expect("the old process");
        busy.send(b"300\n");
        let began = Instant::now();
        let (_, hello) = Peer::accept(&listener, LONG).expect("another attempt");
        assert!(hello.starts_with("HAProxyS 2.1\nnode\n"));
        let waited = began.elapsed();
        assert!(waited > Duration::from_millis(400) && waited < Duration::from_secs(1));
        // That one was closed without a status, and this one in the middle of the lesson.
        let mut peer = welcome(&listener, daemon);
        assert!(peer.pump(LONG, |p| p.rows.len() > 100));
        drop(peer);
        // This one dies with the lesson received and not confirmed.
        let mut peer = welcome(&listener, daemon);
        while peer.rows.len() < 20_000 {
            let mut chunk = vec![0; 1 << 16];
            peer.stream.set_read_timeout(Some(LONG)).unwrap();
            let n = peer.stream.read(&mut chunk).unwrap();
            if chunk[..n].ends_with(&[0, 1]) {
                break;
            }
        }
        drop(peer);
        let mut peer = welcome(&listener, daemon);
        taught(&mut peer);
        assert_eq!((peer.rows.len(), daemon.exit_code(LONG)), (20_000, Some(0)));
    });
}

#[test]
fn without_a_successor_it_gives_up_after_five_seconds() {
    on(&ENGINES, |daemon| {
        daemon.set([(1, 1)]);
        daemon.signal(Signal::USR1);
        let began = Instant::now();
        // Still there for those who look, but nothing may change any more.
        std::thread::sleep(Duration::from_millis(300));
        let reply = daemon.cli("set table p/t key 2 data.gpc0 1;clear table p/t;show table p/t");
        assert!(reply.contains("its tables go to the next one"), "{reply}");
        assert!(reply.contains("used:1"), "{reply}");
        assert_eq!(daemon.exit_code(LONG), Some(0));
        let took = began.elapsed();
        assert!(took > Duration::from_millis(4_500), "{took:?}");
        assert!(took < Duration::from_millis(6_500), "{took:?}");
        assert!(daemon.log().contains("nobody took them in time"), "{}", daemon.log());
    });
}

#[test]
fn a_successor_of_another_name_ends_it_at_once() {
    on(&ENGINES, |daemon| {
        daemon.set([(1, 1)]);
        daemon.signal(Signal::USR1);
        let listener = listen(daemon.address);
        let (mut peer, _) = Peer::accept(&listener, LONG).expect("the old process");
        peer.send(b"503\n");
        assert_eq!(daemon.exit_code(Duration::from_secs(1)), Some(0));
        assert!(daemon.log().contains("refuses us with status 503"), "{}", daemon.log());
    });
}

#[test]
fn a_second_sigusr1_keeps_it_looking_and_sigterm_ends_it() {
    on(&ENGINES, |daemon| {
        daemon.set([(1, 1)]);
        daemon.signal(Signal::USR1);
        std::thread::sleep(Duration::from_secs(4));
        // A further reload names all processes there are: the newest one takes the tables.
        daemon.signal(Signal::USR1);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(daemon.exit_code(Duration::ZERO), None, "it has given up");
        let listener = listen(daemon.address);
        let (mut peer, _) = Peer::accept(&listener, LONG).expect("the old process");
        peer.send(b"200\n");
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.exit_code(Duration::from_secs(2)), Some(143));
    });
}

#[test]
fn hard_stop_after_bounds_it() {
    let global = "    hard-stop-after 1s\n";
    let daemon = Daemon::configured(KIND, "node", free_address(), &[], &[], global);
    daemon.set([(1, 1)]);
    daemon.signal(Signal::USR1);
    let began = Instant::now();
    let listener = listen(daemon.address);
    // It teaches, and is never confirmed.
    let (mut peer, _) = Peer::accept(&listener, LONG).expect("the old process");
    peer.send(b"200\n");
    assert_eq!(daemon.exit_code(LONG), Some(0));
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(2), "{took:?}");
    assert!(daemon.log().contains("performing a hard-stop"), "{}", daemon.log());
}

#[test]
fn what_the_stats_socket_is_saying_is_said_to_its_end() {
    let daemon = Daemon::start(KIND);
    crate::peer::teach_nothing(&daemon);
    fill(&daemon, 200_000);
    let mut dump = UnixStream::connect(daemon.socket()).unwrap();
    dump.write_all(b"show table p/t\n").unwrap();
    let mut text = vec![0; 1000];
    dump.read_exact(&mut text).unwrap();
    daemon.signal(Signal::USR1);
    let listener = listen(daemon.address);
    let mut peer = welcome(&listener, &daemon);
    taught(&mut peer);
    dump.read_to_end(&mut text).unwrap();
    let lines = text.split(|b| *b == b'\n').filter(|l| l.starts_with(b"0x")).count();
    assert_eq!((lines, peer.rows.len()), (200_000, 200_000));
    assert_eq!(daemon.exit_code(LONG), Some(0));
}

#[test]
fn changes_reach_the_peers_before_their_sessions_end() {
    const ROWS: u32 = 25_000;
    on(&ENGINES, |daemon| {
        let mut peer = Peer::connect(daemon, "peer");
        rustix::net::sockopt::set_socket_recv_buffer_size(&peer.stream, 1 << 17).unwrap();
        peer.pump(Duration::from_millis(200), |_| false);
        // More than sockets hold, for a peer that has not begun to read it.
        daemon.set((1..=ROWS).map(|key| (key, 3)));
        daemon.signal(Signal::USR1);
        rustix::net::sockopt::set_socket_recv_buffer_size(&peer.stream, 1 << 20).unwrap();
        let began = Instant::now();
        assert!(!peer.pump(LONG, |_| false) && peer.closed);
        assert_eq!(peer.rows.len() as u32, ROWS, "{:?}", daemon.kind);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let listener = listen(daemon.address);
        let mut peer = welcome(&listener, daemon);
        taught(&mut peer);
        assert_eq!(peer.rows.len() as u32, ROWS);
    });
}
