//! The instant hand-over between real processes: peers on blocking sockets that must notice
//! nothing, and deaths at every step.

use crate::daemon::{Daemon, ENGINES, KINDS, Kind, free_address, on, wait_until};
use crate::peer::{Peer, define, fill, updates};
use std::collections::HashMap;
use std::process::Child;
use std::time::{Duration, Instant};
use stickring::wire::message::Control;

pub const LONG: Duration = Duration::from_secs(20);
const KIND: Kind = Kind { engine: "auto", shards: 2 };

/// Starts a successor, which says how it went when it is up.
pub fn successor(daemon: &Daemon, args: &[&str]) -> Child {
    let pid = daemon.pid().to_string();
    daemon.launch(&[&["-sf", &pid], args].concat())
}

/// Has another process take over, and waits until the old one has left.
pub fn reload(daemon: &Daemon) {
    let new = successor(daemon, &[]);
    let pid = daemon.pid();
    assert_eq!(daemon.exit_code(LONG), Some(0), "{:?}: {}", daemon.kind, daemon.log());
    daemon.replace(new);
    let said = format!("Hand-over from process {pid}: instant, finished,");
    assert!(wait_until(LONG, || daemon.log().contains(&said)), "{}", daemon.log());
}

pub fn rows(n: u32, value: u64) -> HashMap<u32, u64> {
    (1..=n).map(|key| (key, value)).collect()
}

#[test]
fn peers_notice_nothing_of_many_reloads() {
    on(&KINDS, |daemon| {
        let names: Vec<String> = (0..5).map(|n| format!("peer-{n}")).collect();
        let mut peers: Vec<Peer> = names.iter().map(|n| Peer::connect(daemon, n)).collect();
        for round in 1..=6u64 {
            daemon.set((1..=100).map(|key| (key, round)));
            reload(daemon);
            for peer in &mut peers {
                let all = |p: &Peer| p.rows == rows(100, round);
                assert!(peer.pump(LONG, all), "{:?} {round}: {}", daemon.kind, daemon.log());
            }
            daemon.set((1..=100).map(|key| (key, round + 100)));
            for peer in &mut peers {
                let all = |p: &Peer| p.rows == rows(100, round + 100);
                assert!(peer.pump(LONG, all), "{:?}: behind {round}", daemon.kind);
            }
        }
        assert!(peers.iter().all(|p| !p.closed));
        assert_eq!((daemon.used(), daemon.info("HandoverSessionsKept")), (100, 5));
    });
}

#[test]
fn updates_that_flow_during_fifty_reloads_are_all_there() {
    on(&ENGINES, |daemon| {
        let mut peer = Peer::connect(daemon, "teacher");
        peer.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        peer.send(&define());
        let mut sent = 0u32;
        for _ in 0..50 {
            let new = successor(daemon, &[]);
            let end = Instant::now() + LONG;
            // Everything is sent in pieces that end anywhere.
            while daemon.exit_code(Duration::ZERO).is_none() {
                let bytes = updates(sent + 1, (sent + 1..=sent + 100).map(|n| (n, 7)));
                sent += 100;
                for piece in bytes.chunks(313) {
                    peer.send(piece);
                }
                peer.step();
                let acked = peer.acks.last().copied().unwrap_or(0);
                if sent - acked > 100_000 {
                    let near = |p: &Peer| p.acks.last().is_some_and(|a| sent - a < 50_000);
                    peer.pump(Duration::from_secs(1), near);
                }
                let goes_on = !peer.closed && Instant::now() < end;
                assert!(goes_on, "{:?}: {}", daemon.kind, daemon.log());
            }
            daemon.replace(new);
        }
        assert!(peer.pump(LONG, |p| p.acks.last() == Some(&sent)), "{:?}", daemon.kind);
        assert!(peer.acks.is_sorted_by(|a, b| a < b), "{:?}: no id is acked twice", daemon.kind);
        assert!(!peer.closed && sent > 5_000, "{sent}");
        assert_eq!(daemon.used(), sent as usize, "{:?}", daemon.kind);
        // The last one's line may still be on its way to us.
        let all = || daemon.log().matches("instant, finished").count() == 50;
        assert!(wait_until(LONG, all), "{}", daemon.log());
    });
}

#[test]
fn lessons_under_way_go_on_in_both_directions() {
    on(&KINDS, |daemon| {
        fill(daemon, 60_000);
        // One that is taught: what it has not read yet goes through three processes.
        let mut pupil = Peer::connect(daemon, "pupil");
        pupil.control(Control::ResyncRequest);
        assert!(pupil.pump(LONG, |p| p.rows.len() > 1_000));
        // One that teaches, in the middle of a message.
        let mut teacher = Peer::connect(daemon, "teacher");
        teacher.send(&define());
        let lesson = updates(1, (100_001..=100_500).map(|n| (n, 1)));
        let (half, rest) = lesson.split_at(lesson.len() / 2 + 3);
        teacher.send(half);
        reload(daemon);
        assert!(pupil.pump(LONG, |p| p.rows.len() > 20_000));
        reload(daemon);
        teacher.send(rest);
        assert!(teacher.pump(LONG, |p| p.acks.last() == Some(&500)), "{:?}", daemon.kind);
        let pupil_done = |p: &Peer| p.ends == [true];
        assert!(pupil.pump(LONG, pupil_done), "{:?}: {}", daemon.kind, daemon.log());
        let taught = pupil.rows.iter().filter(|(key, value)| u64::from(**key) == **value).count();
        assert_eq!(taught, 60_000, "{:?}", daemon.kind);
        assert!(!pupil.closed && !teacher.closed);
        assert_eq!(daemon.used(), 60_500);
    });
}

#[test]
fn connections_in_the_queue_are_taken_by_the_new_process() {
    on(&ENGINES, |daemon| {
        let address = daemon.address;
        let coming = std::thread::spawn(move || {
            for n in 0..300 {
                // A hello that is cut off in the middle comes again.
                let name = format!("fresh-{}", n % 3);
                if Peer::try_connect(address, &name).is_none() {
                    assert!(Peer::try_connect(address, &name).is_some(), "connection {n}");
                }
            }
        });
        for _ in 0..5 {
            reload(daemon);
        }
        coming.join().unwrap();
    });
}

#[test]
pub fn reloads_that_overtake_each_other_end_with_one_process_and_every_session() {
    on(&ENGINES, |daemon| {
        let mut peer = Peer::connect(daemon, "peer");
        daemon.set((1..=50).map(|key| (key, 5)));
        assert!(peer.pump(LONG, |p| p.rows == rows(50, 5)));
        let mut pids = vec![daemon.pid().to_string()];
        let mut processes = Vec::new();
        for _ in 0..4 {
            let named: Vec<&str> = pids.iter().map(String::as_str).collect();
            let new = daemon.launch(&[&["-sf"], &named[..]].concat());
            pids.push(new.id().to_string());
            processes.push(new);
            peer.pump(Duration::from_millis(30), |_| false);
        }
        let last = processes.pop().unwrap();
        for mut process in processes {
            let left = || process.try_wait().unwrap().is_some();
            assert!(wait_until(LONG, left), "{:?}: {}", daemon.kind, daemon.log());
        }
        assert_eq!(daemon.exit_code(LONG), Some(0));
        daemon.replace(last);
        assert!(wait_until(LONG, || daemon.log().matches("instant, finished").count() == 4));
        daemon.set((1..=50).map(|key| (key, 6)));
        assert!(peer.pump(LONG, |p| p.rows == rows(50, 6)), "{}", daemon.log());
        assert!(!peer.closed);
    });
}

#[test]
fn another_shape_is_refused_by_name_and_taught_by_the_protocol() {
    for (from, to, why) in [
        ("nbthread 2", "nbthread 3", "2 and 3 shards"),
        ("size 10k", "size 20k", "configurations differ (table '/small')"),
        ("localpeer node", "localpeer node\n", ""),
    ] {
        let daemon = Daemon::start(KIND);
        crate::peer::teach_nothing(&daemon);
        fill(&daemon, 5_000);
        daemon.edit(from, to);
        let new = successor(&daemon, &[]);
        assert_eq!(daemon.exit_code(LONG), Some(0), "{}", daemon.log());
        daemon.replace(new);
        let all = wait_until(LONG, || daemon.used() == 5_000);
        let log = daemon.log();
        assert!(all && log.contains(why), "{log}");
        assert_eq!(log.contains("No instant hand-over: "), !why.is_empty(), "{log}");
        assert_eq!(log.contains(": instant, finished"), why.is_empty(), "{log}");
    }
}

#[test]
fn the_engine_may_change_and_sessions_go_on() {
    let daemon = Daemon::start(KIND);
    crate::peer::teach_nothing(&daemon);
    let mut peer = Peer::connect(&daemon, "peer");
    for (round, engine) in ["auto", "epoll", "auto", "epoll"].windows(2).enumerate() {
        daemon.edit(&format!("engine {}", engine[0]), &format!("engine {}", engine[1]));
        reload(&daemon);
        daemon.set((1..=50).map(|key| (key, round as u64)));
        assert!(peer.pump(LONG, |p| p.rows == rows(50, round as u64)), "{}", daemon.log());
    }
    assert!(!peer.closed);
}

/// What is left after a death: the process that answers on the stats socket, and whether the
/// sessions of before are still there.
struct Left {
    peer: Peer,
    daemon: Daemon,
    new: Child,
}

/// A hand-over in which the old and the new process die at these places.
fn dying(old: &str, new: &str) -> Left {
    let daemon = Daemon::with(KIND, "node", free_address(), &[], &[old]);
    crate::peer::teach_nothing(&daemon);
    let mut peer = Peer::connect(&daemon, "peer");
    daemon.set((1..=50).map(|key| (key, 5)));
    assert!(peer.pump(LONG, |p| p.rows == rows(50, 5)));
    peer.pump(Duration::from_millis(50), |_| false);
    let new = successor(&daemon, &[new]);
    Left { peer, daemon, new }
}

impl Left {
    fn new_died(&mut self) -> bool {
        let mut died = false;
        wait_until(Duration::from_secs(3), || {
            died = self.new.try_wait().unwrap().is_some();
            died
        });
        died
    }

    /// The session goes on, with what is set now.
    fn goes_on(&mut self) {
        assert!(wait_until(LONG, || std::os::unix::net::UnixStream::connect(self.daemon.socket())
            .is_ok()));
        self.daemon.set((1..=50).map(|key| (key, 6)));
        assert!(self.peer.pump(LONG, |p| p.rows == rows(50, 6)), "{}", self.daemon.log());
        assert!(!self.peer.closed);
        assert_eq!(self.daemon.used(), 50);
    }
}

#[test]
fn the_old_process_goes_on_when_the_new_one_dies() {
    for place in ["new-asked", "new-received", "new-built"] {
        let mut left = dying("fault:", &format!("fault:{place}"));
        assert!(left.new_died(), "{place}");
        left.goes_on();
        assert_eq!(left.daemon.exit_code(Duration::ZERO), None, "{place}");
        // And another one may come.
        reload(&left.daemon);
        left.goes_on();
    }
}

#[test]
fn a_new_process_that_stands_still_is_not_waited_for() {
    let mut left = dying("fault:", "stop:fault:new-built");
    let back = "Instant hand-over given up, going on";
    assert!(wait_until(LONG, || left.daemon.log().contains(back)), "{}", left.daemon.log());
    left.goes_on();
    left.new.kill().unwrap();
    left.new.wait().unwrap();
    left.goes_on();
}

#[test]
fn the_new_process_goes_on_when_the_old_one_dies_with_everything_sent() {
    for place in ["old-sent", "old-leaves"] {
        let mut left = dying(&format!("fault:{place}"), "fault:");
        assert!(wait_until(LONG, || left.daemon.log().contains("instant, finished")), "{place}");
        let Left { peer, daemon, new } = left;
        daemon.replace(new);
        left = Left { peer, daemon, new: std::process::Command::new("true").spawn().unwrap() };
        left.goes_on();
        left.new.wait().unwrap();
    }
}

#[test]
fn the_new_process_starts_afresh_when_the_old_one_dies_earlier() {
    for place in ["old-asked", "old-frozen", "old-answered"] {
        let Left { mut peer, daemon, new } = dying(&format!("fault:{place}"), "fault:");
        daemon.replace(new);
        assert!(!peer.pump(LONG, |_| false) && peer.closed, "{place}");
        let up = wait_until(LONG, || Peer::try_connect(daemon.address, "peer").is_some());
        assert!(up, "{place}: {}", daemon.log());
        assert_eq!(daemon.used(), 0);
    }
}

#[test]
fn who_owned_everything_takes_it_along_and_nobody_else_goes_on() {
    for place in ["new-taken", "new-said"] {
        let mut left = dying("fault:", &format!("fault:{place}"));
        assert!(left.new_died(), "{place}");
        assert_eq!(left.daemon.exit_code(LONG), Some(0), "{place}: {}", left.daemon.log());
        assert!(!left.peer.pump(LONG, |_| false) && left.peer.closed, "{place}");
    }
}

#[test]
fn when_both_die_the_next_start_is_a_start_like_any_other() {
    let pairs = [
        ("old-sent", "new-received"),
        ("old-sent", "new-built"),
        ("old-sent", "new-taken"),
        ("old-sent", "new-said"),
        ("old-leaves", "new-said"),
    ];
    for (old, new) in pairs {
        let mut left = dying(&format!("fault:{old}"), &format!("fault:{new}"));
        assert!(left.new_died(), "{old}, {new}");
        assert!(!left.peer.pump(LONG, |_| false) && left.peer.closed, "{old}, {new}");
        let fresh = successor(&left.daemon, &[]);
        left.daemon.replace(fresh);
        let up = wait_until(LONG, || Peer::try_connect(left.daemon.address, "peer").is_some());
        assert!(up, "{old}, {new}: {}", left.daemon.log());
        assert_eq!(left.daemon.used(), 0);
    }
}
