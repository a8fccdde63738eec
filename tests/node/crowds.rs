//! Connections that come in crowds.

use crate::daemon::{Daemon, ENGINES, KINDS, free_address, on, wait_until};
use crate::peer::Peer;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn silent_connections_keep_nobody_out() {
    on(&ENGINES, |daemon| {
        // Every shard is up, with its ring, once it has answered.
        daemon.set((0..100).map(|key| (key, 1)));
        let baseline = daemon.descriptors();
        let silent: Vec<TcpStream> =
            (0..300).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
        let began = Instant::now();
        let mut peer = Peer::connect(daemon, "real");
        daemon.set([(1, 2)]);
        assert!(peer.pump(Duration::from_secs(2), |p| p.rows.get(&1) == Some(&2)));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", daemon.kind);
        // And they are bounded: the oldest made room.
        let most = baseline + stickring::limits::HANDSHAKES_MAX + 2;
        let bounded = wait_until(Duration::from_secs(2), || daemon.descriptors() <= most);
        assert!(bounded, "{:?}: {} of {most}", daemon.kind, daemon.descriptors());
        drop(silent);
    });
}

#[test]
fn with_a_limit_of_connections_the_silent_ones_make_room_too() {
    let daemon = Daemon::with(ENGINES[0], "node", free_address(), &[], &["-n", "20"]);
    crate::peer::teach_nothing(&daemon);
    let mut first = Peer::connect(&daemon, "first");
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    let mut peer = Peer::connect(&daemon, "real");
    drop(silent);
    daemon.set([(1, 2)]);
    for peer in [&mut first, &mut peer] {
        assert!(peer.pump(Duration::from_secs(2), |p| p.rows.get(&1) == Some(&2)));
    }
}

/// `accept-peers … max 64` in the configuration of these tests.
#[test]
fn undeclared_peers_are_bounded_and_take_over_no_cursors() {
    on(&ENGINES, |daemon| {
        daemon.set((0..50).map(|key| (key, 1)));
        let mut peers: Vec<Peer> =
            (0..63).map(|n| Peer::connect(daemon, &format!("peer-{n}"))).collect();
        assert!(peers.iter_mut().all(|p| p.pump(Duration::from_secs(5), |p| p.rows.len() == 50)));
        // The one that started the daemon is gone and makes room.
        let mut late = Peer::connect(daemon, "late");
        assert!(late.pump(Duration::from_secs(5), |p| p.rows.len() == 50), "{:?}", daemon.kind);
        assert!(Peer::try_connect(daemon.address, "one-more").is_none(), "{:?}", daemon.kind);
        // Those who were there go on, and a name that is known always comes in.
        daemon.set([(999, 7)]);
        let told = |p: &Peer| p.rows.get(&999) == Some(&7);
        assert!(peers.iter_mut().all(|p| p.pump(Duration::from_secs(5), told)));
        assert!(late.pump(Duration::from_secs(5), told));
        late.reconnect(daemon, "late");
    });
}

#[test]
fn a_thousand_connections_leave_no_descriptor_behind() {
    on(&KINDS, |daemon| {
        drop(Peer::connect(daemon, "first"));
        let quiet = || daemon.info("ConnectedPeers") == 0;
        assert!(wait_until(Duration::from_secs(5), quiet), "{:?}", daemon.kind);
        let baseline = daemon.descriptors();
        let mut open = Vec::new();
        for n in 0..1_000 {
            match n % 5 {
                0 => drop(TcpStream::connect(daemon.address)),
                1 => {
                    let mut stream = TcpStream::connect(daemon.address).unwrap();
                    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                }
                2 => {
                    let mut stream = TcpStream::connect(daemon.address).unwrap();
                    stream.write_all(b"HAProxyS 2.1\nno").unwrap();
                    open.push(stream);
                }
                3 => drop(Peer::connect(daemon, &format!("peer-{}", n % 50))),
                _ => {
                    let mut peer = Peer::connect(daemon, "torn");
                    peer.send(b"\x0a\x80\x0d\0\0");
                }
            }
            if n % 100 == 0 {
                open.clear();
            }
        }
        drop(open);
        let back = || daemon.descriptors() <= baseline + 1;
        assert!(
            wait_until(Duration::from_secs(8), back),
            "{:?}: {} descriptors, {baseline} before",
            daemon.kind,
            daemon.descriptors()
        );
        assert!(wait_until(Duration::from_secs(5), quiet), "{:?}", daemon.kind);
    });
}
