//! Lessons to several peers, some of which do not read.

use crate::daemon::{ENGINES, KINDS, on, wait_until};
use crate::peer::{Peer, define, fill, updates};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use stickring::wire::message::Control;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn three_peers_are_taught_at_once() {
    on(&KINDS, |daemon| {
        fill(daemon, 30_000);
        daemon.set((1..=100).map(|key| (key, 1)));
        std::thread::scope(|scope| {
            for n in 0..3 {
                scope.spawn(move || {
                    let mut peer = Peer::connect(daemon, &format!("pupil-{n}"));
                    peer.control(Control::ResyncRequest);
                    assert!(peer.pump(LONG, |p| !p.ends.is_empty()), "{:?}", daemon.kind);
                    assert_eq!(peer.rows.len(), 30_000, "{:?}", daemon.kind);
                    for (&key, &value) in &peer.rows {
                        let wanted = if key <= 100 { 1 } else { u64::from(key) };
                        assert_eq!(value, wanted, "key {key}");
                    }
                });
            }
        });
    });
}

/// Peers that ask and never read, or read a byte now and then, cost a bounded amount of memory and
/// nobody else's time.
#[test]
fn slow_readers_delay_nobody_and_cost_little() {
    on(&ENGINES, |daemon| {
        fill(daemon, 300_000);
        let before = daemon.memory();
        let mut slow: Vec<Peer> =
            (0..15).map(|n| Peer::connect(daemon, &format!("slow-{n}"))).collect();
        for peer in &mut slow {
            peer.control(Control::ResyncRequest);
        }
        let began = Instant::now();
        let mut quick = Peer::connect(daemon, "quick");
        let mut byte = [0; 1];
        for round in 1..=3 {
            quick.control(Control::ResyncRequest);
            assert!(quick.pump(LONG, |p| p.ends.len() == round), "{:?}", daemon.kind);
            for peer in &mut slow {
                // Heard, so that they are not taken for dead.
                peer.control(Control::Heartbeat);
                let _ = peer.stream.read(&mut byte);
            }
        }
        assert_eq!(quick.rows.len(), 300_000);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{:?}: {took:?}", daemon.kind);
        let more = daemon.memory().saturating_sub(before) >> 20;
        assert!(more < 100, "{:?}: {more} MB for 15 slow readers", daemon.kind);
        // Then they fall silent without ever reading: their sessions end all the same.
        drop(quick);
        let gone = wait_until(Duration::from_secs(12), || daemon.info("ConnectedPeers") == 0);
        assert!(gone, "{:?}: {} are still there", daemon.kind, daemon.info("ConnectedPeers"));
    });
}

#[test]
fn a_peer_that_sends_and_never_reads_is_bounded() {
    on(&ENGINES, |daemon| {
        fill(daemon, 100_000);
        let before = daemon.memory();
        let mut flood = Peer::connect(daemon, "flood");
        flood.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        flood.send(&define());
        let request = Control::ResyncRequest.bytes();
        let rows = updates(1, (1..=200).map(|n| (n, 5)));
        let end = Instant::now() + Duration::from_secs(3);
        let mut other = Peer::connect(daemon, "other");
        let mut value = 10;
        while Instant::now() < end {
            // Writes that do not fit are given up: a torn message is the flood's own fault.
            let _ = flood.stream.write(&request);
            let _ = flood.stream.write(&rows);
            if value < 20 {
                value += 1;
                daemon.set([(900_000, value)]);
                let in_time = Duration::from_secs(2);
                assert!(other.pump(in_time, |p| p.rows.get(&900_000) == Some(&value)));
            }
        }
        let more = daemon.memory().saturating_sub(before) >> 20;
        assert!(more < 40, "{:?}: {more} MB", daemon.kind);
        // It comes again: what is queued for its first connection holds up nothing.
        let began = Instant::now();
        let mut again = Peer::connect(daemon, "flood");
        assert!(again.pump(LONG, |p| p.rows.get(&900_000) == Some(&value)), "{:?}", daemon.kind);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{:?}: {took:?}", daemon.kind);
        drop((flood, again));
        assert!(other.pump(LONG, |_| daemon.info("ConnectedPeers") == 1), "{:?}", daemon.kind);
    });
}
