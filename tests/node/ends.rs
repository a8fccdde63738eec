//! How the process ends.

use crate::daemon::{KINDS, on};
use crate::peer::{Peer, fill};
use rustix::process::Signal;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use stickring::wire::message::Control;

#[test]
fn sigterm_ends_everything_at_once() {
    on(&KINDS, |daemon| {
        fill(daemon, 100_000);
        let mut peers: Vec<Peer> =
            (0..8).map(|n| Peer::connect(daemon, &format!("peer-{n}"))).collect();
        for peer in peers.iter_mut().take(4) {
            // A lesson that nobody reads.
            peer.control(Control::ResyncRequest);
        }
        let _handshake = TcpStream::connect(daemon.address).unwrap();
        let _cli = UnixStream::connect(daemon.socket()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.exit_code(Duration::from_secs(2)), Some(143), "{:?}", daemon.kind);
        assert!(!daemon.socket().exists(), "{:?}: the stats socket's file stays", daemon.kind);
        for peer in &mut peers {
            peer.pump(Duration::from_secs(2), |_| false);
            assert!(peer.closed);
        }
    });
}
