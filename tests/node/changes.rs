//! Updates in and local changes out.

use crate::daemon::{Daemon, ENGINES, KINDS, Kind, free_address, on, wait_until};
use crate::peer::{Peer, define, updates};
use std::collections::HashMap;
use std::time::Duration;
use stickring::wire::message::Control;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn fifty_thousand_updates_are_acked_as_they_are_applied() {
    on(&KINDS, |daemon| {
        let mut peer = Peer::connect(daemon, "teacher");
        peer.acking = false;
        peer.send(&define());
        // The first few are watched closely: an ack never runs ahead of the table.
        for first in (1..=5_000u32).step_by(500) {
            peer.send(&updates(first, (first..first + 500).map(|n| (n, 7))));
            let last = first + 499;
            assert!(peer.pump(LONG, |p| p.acks.last() == Some(&last)));
            assert!(daemon.used() >= last as usize, "{:?}: acked {last}", daemon.kind);
        }
        peer.send(&updates(5_001, (5_001..=50_000).map(|n| (n, u64::from(n)))));
        while peer.acks.last() != Some(&50_000) {
            let acked = peer.acks.last().copied().unwrap();
            assert!(daemon.used() >= acked as usize, "{:?}: acked {acked}", daemon.kind);
            assert!(peer.pump(LONG, |p| p.acks.last() != Some(&acked)));
        }
        assert!(peer.acks.is_sorted_by(|a, b| a < b), "{:?}", daemon.kind);
        assert_eq!(daemon.used(), 50_000);
        for key in [1, 5_000, 5_001, 33_333, 50_000] {
            let value = if key <= 5_000 { 7 } else { key };
            let row = daemon.cli(&format!("show table p/t key {key}"));
            assert!(row.contains(&format!("gpc0={value}\n")), "{row}");
        }
    });
}

#[test]
fn what_is_set_reaches_ten_peers() {
    on(&KINDS, |daemon| {
        let names: Vec<String> = (0..10).map(|n| format!("peer-{n}")).collect();
        let mut peers: Vec<Peer> = names.iter().map(|n| Peer::connect(daemon, n)).collect();
        for round in 1..=3 {
            daemon.set((0..200).map(|key| (key, round)));
            for peer in &mut peers {
                let all = |p: &Peer| p.rows.len() == 200 && p.rows.values().all(|v| *v == round);
                assert!(peer.pump(LONG, all), "{:?}: round {round}", daemon.kind);
            }
        }
        for peer in &peers {
            let shards = daemon.kind.shards as u32;
            for source in 0..shards {
                let ids = peer.updates.iter().map(|u| u.0).filter(|id| id % shards == source);
                assert!(ids.is_sorted_by(|a, b| a < b), "{:?}", daemon.kind);
            }
        }
    });
}

#[test]
fn the_last_connection_of_a_name_wins_and_goes_on_where_the_one_before_stood() {
    on(&KINDS, |daemon| {
        let mut first = Peer::connect(daemon, "twin");
        daemon.set((0..100).map(|key| (key, 1)));
        assert!(first.pump(LONG, |p| p.rows.len() == 100));
        // Its last ack is on the wire; a heartbeat behind it tells when it was read.
        std::thread::sleep(Duration::from_millis(100));
        let mut second = Peer::connect(daemon, "twin");
        daemon.set((100..150).map(|key| (key, 2)));
        assert!(second.pump(LONG, |p| p.rows.len() == 50), "{:?}", daemon.kind);
        assert!(second.rows.keys().all(|key| *key >= 100), "what was acked is not sent again");
        first.pump(Duration::from_secs(1), |_| false);
        assert!(first.closed, "{:?}: the older one ends", daemon.kind);
        // Not acked: sent again. Many at once: the last one wins.
        let mut third = Peer::connect(daemon, "twin");
        third.acking = false;
        daemon.set((200..210).map(|key| (key, 3)));
        assert!(third.pump(LONG, |p| p.rows.contains_key(&209)));
        let mut crowd: Vec<Peer> = (0..20).map(|_| Peer::connect(daemon, "twin")).collect();
        let mut last = crowd.pop().unwrap();
        let all = |p: &Peer| (200..210).all(|key| p.rows.get(&key) == Some(&3));
        assert!(last.pump(LONG, all), "{:?}: {:?}", daemon.kind, last.rows);
        for mut peer in crowd {
            peer.pump(Duration::from_secs(2), |_| false);
            assert!(peer.closed, "{:?}", daemon.kind);
        }
    });
}

/// Changes flow while one peer's connections break again and again: in lessons, before, after.
#[test]
fn two_hundred_broken_connections_lose_nothing() {
    on(&ENGINES, |daemon| {
        let wanted: HashMap<u32, u64> = std::thread::scope(|scope| {
            let setter = scope.spawn(|| {
                let mut wanted = HashMap::new();
                for round in 1..=120u64 {
                    let keys = (0..100).map(|n| (n * 7 + round as u32 * 13) % 3_000);
                    let rows: HashMap<u32, u64> = keys.map(|key| (key, round)).collect();
                    daemon.set(rows.iter().map(|(k, v)| (*k, *v)));
                    wanted.extend(rows);
                    std::thread::sleep(Duration::from_millis(5));
                }
                wanted
            });
            let mut peer = Peer::connect(daemon, "torn");
            for n in 0..200u64 {
                if n % 3 == 0 {
                    peer.control(Control::ResyncRequest);
                }
                let patience = Duration::from_millis(n % 7);
                let ends = (n % 5) as usize / 4;
                peer.pump(patience, |p| p.ends.len() > ends);
                peer.reconnect(daemon, "torn");
            }
            let wanted = setter.join().unwrap();
            assert!(
                peer.pump(LONG, |p| p.rows == wanted),
                "{:?}: {} of {} rows differ",
                daemon.kind,
                wanted.iter().filter(|(key, value)| peer.rows.get(key) != Some(value)).count(),
                wanted.len()
            );
            wanted
        });
        assert!(wanted.len() > 1_000);
    });
}

#[test]
fn two_nodes_keep_each_other_up_to_date() {
    for kinds in [
        [Kind { engine: "auto", shards: 2 }, Kind { engine: "epoll", shards: 1 }],
        [Kind { engine: "auto", shards: 1 }, Kind { engine: "auto", shards: 4 }],
    ] {
        let (a, b) = (free_address(), free_address());
        let first = Daemon::start_at(kinds[0], "a", a, &[("b", b)]);
        let second = Daemon::start_at(kinds[1], "b", b, &[("a", a)]);
        first.set((0..500).map(|key| (key, 1)));
        second.set((500..800).map(|key| (key, 2)));
        let both = || first.used() == 800 && second.used() == 800;
        assert!(wait_until(LONG, both), "{} and {} of 800", first.used(), second.used());
        drop(second);
        first.set((800..900).map(|key| (key, 3)));
        let second = Daemon::start_at(kinds[1], "b", b, &[("a", a)]);
        assert!(wait_until(LONG, || second.used() == 900), "{} of 900", second.used());
        let row = second.cli("show table p/t key 899");
        assert!(row.contains("gpc0=3\n"), "{row}");
    }
}
