//! Connections that come in crowds.

use crate::daemon::{ENGINES, KINDS, on, wait_until};
use crate::peer::Peer;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn silent_connections_keep_nobody_out() {
    on(&ENGINES, |daemon| {
        let silent: Vec<TcpStream> =
            (0..300).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
        let began = Instant::now();
        let mut peer = Peer::connect(daemon, "real");
        daemon.set([(1, 2)]);
        assert!(peer.pump(Duration::from_secs(2), |p| p.rows.get(&1) == Some(&2)));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", daemon.kind);
        drop(silent);
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
