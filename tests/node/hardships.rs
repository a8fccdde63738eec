//! The instant hand-over where a process is in trouble: too few descriptors, many tables, several
//! successors at once, one of another user, one that stands still, and long chains of processes.

use crate::daemon::{Daemon, ENGINES, KINDS, Kind, free_address, on, wait_until};
use crate::instant::{LONG, reload, rows, successor};
use crate::peer::{Peer, fill, teach_nothing};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::Duration;

const KIND: Kind = Kind { engine: "auto", shards: 2 };

/// What a process holds: descriptors, and mappings of memory that is handed over.
fn held(daemon: &Daemon) -> (usize, usize) {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    (daemon.descriptors(), maps.matches("/memfd:").count())
}

#[test]
fn a_chain_of_a_hundred_processes_holds_what_the_first_one_did() {
    on(&ENGINES, |daemon| {
        fill(daemon, 20_000);
        let names: Vec<String> = (0..5).map(|n| format!("peer-{n}")).collect();
        let mut peers: Vec<Peer> = names.iter().map(|n| Peer::connect(daemon, n)).collect();
        let mut before = None;
        for round in 1..=100u64 {
            daemon.set((1..=20).map(|key| (key, round)));
            reload(daemon);
            for peer in &mut peers {
                let all = |p: &Peer| p.rows.get(&20) == Some(&round);
                assert!(peer.pump(LONG, all), "{:?} {round}: {}", daemon.kind, daemon.log());
            }
            if round == 5 {
                before = Some((held(daemon), daemon.memory()));
            }
        }
        let (before, memory) = before.unwrap();
        let same = wait_until(LONG, || held(daemon) == before);
        assert!(same, "{:?}: {:?}, {before:?} before", daemon.kind, held(daemon));
        // A copy of the rows a process would be 60 MiB; the allocator takes some more or less.
        let more = daemon.memory().saturating_sub(memory);
        assert!(more < 16 << 20, "{:?}: {more} bytes more than {memory}", daemon.kind);
        assert_eq!((daemon.used(), daemon.info("HandoverSessionsKept")), (20_000, 5));
    });
}

#[test]
fn sixty_tables_go_from_process_to_process() {
    on(&KINDS, |daemon| {
        let line = "table small type integer size 10k expire 1h store gpc0\n";
        let more = (0..60).map(|n| {
            let (kind, size) =
                [("ip", 1_000), ("string len 40", 100_000), ("integer", 200_000)][n % 3];
            format!("    table t{n} type {kind} size {size} expire 1h store gpc0,gpt0\n")
        });
        daemon.edit(line, &format!("{line}{}", more.collect::<String>()));
        let new = successor(daemon, &[]);
        assert_eq!(daemon.exit_code(LONG), Some(0), "{}", daemon.log());
        daemon.replace(new);
        let up = wait_until(LONG, || daemon.cli("show table").contains("p/t59,"));
        assert!(up, "{:?}: {}", daemon.kind, daemon.log());
        let key = |n: u32| match n % 3 {
            0 => "10.0.0.1".to_string(),
            1 => "a-key-of-some-length".to_string(),
            _ => "77".to_string(),
        };
        let set = |n| format!("set table p/t{n} key {} data.gpc0 {n}", key(n));
        let lines: Vec<String> = (0..60).map(set).collect();
        assert_eq!(daemon.cli(&lines.join(";")).trim(), "");
        for _ in 0..2 {
            reload(daemon);
            for n in 0..60 {
                let row = daemon.cli(&format!("show table p/t{n} key {}", key(n)));
                assert!(row.contains(&format!("gpc0={n}")), "{:?} t{n}: {row}", daemon.kind);
            }
        }
    });
}

/// Waits for the old process's end by the protocol, for which the instant hand-over left everything
/// as it was.
fn falls_back(daemon: &Daemon, new: Child, why: &str) {
    assert_eq!(daemon.exit_code(LONG), Some(0), "{}", daemon.log());
    daemon.replace(new);
    let all = wait_until(LONG, || daemon.log().contains("protocol, finished"));
    assert!(all, "{}", daemon.log());
    let said = daemon.log();
    let reason = said.lines().find(|l| l.contains("No instant hand-over: "));
    assert!(reason.is_some_and(|l| l.contains(why)), "{why}: {reason:?} {said}");
}

#[test]
fn too_few_descriptors_on_either_side_lose_nothing() {
    for (old, new, why) in [
        ("files:1000", "files:60", "descriptors did not arrive"),
        ("files:100", "files:1000", "Too many open files"),
    ] {
        let daemon = Daemon::with(KIND, "node", free_address(), &[], &[old]);
        teach_nothing(&daemon);
        fill(&daemon, 3_000);
        daemon.set((1..=20).map(|key| (key, 4)));
        let names: Vec<String> = (0..50).map(|n| format!("peer-{n}")).collect();
        let mut peers: Vec<Peer> = names.iter().map(|n| Peer::connect(&daemon, n)).collect();
        let confirmed = |p: &Peer| (1..=20).all(|key| p.rows.get(&key) == Some(&4));
        assert!(peers.iter_mut().all(|p| p.pump(LONG, confirmed)), "{}", daemon.log());
        let successor = successor(&daemon, &[new]);
        falls_back(&daemon, successor, why);
        assert_eq!(daemon.used(), 3_000, "{why}");
        let mut peer = Peer::connect(&daemon, "peer-0");
        daemon.set([(1, 5)]);
        assert!(peer.pump(LONG, |p| p.rows.get(&1) == Some(&5)), "{}", daemon.log());
    }
}

/// Waits for the end of a process that is not the daemon; its exit code.
fn ended(child: &mut Child) -> Option<i32> {
    let mut code = None;
    wait_until(LONG, || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    code.and_then(|c| c.code())
}

#[test]
fn of_two_successors_at_once_one_takes_over_and_the_other_leaves() {
    on(&ENGINES, |daemon| {
        let mut peer = Peer::connect(daemon, "peer");
        for round in 1..=5 {
            daemon.set((1..=50).map(|key| (key, round)));
            assert!(peer.pump(LONG, |p| p.rows == rows(50, round)));
            let mut both = [successor(daemon, &[]), successor(daemon, &[])];
            assert_eq!(daemon.exit_code(LONG), Some(0), "{:?}: {}", daemon.kind, daemon.log());
            let pid = daemon.pid();
            let said = format!("Hand-over from process {pid}: instant, finished,");
            assert!(wait_until(LONG, || daemon.log().contains(&said)), "{}", daemon.log());
            // The one that came too late names the address, which is in use, and ends.
            let mut code = None;
            let over = wait_until(LONG, || {
                peer.pump(Duration::from_millis(20), |_| false);
                let codes = both.each_mut().map(|c| c.try_wait().unwrap());
                code = codes.iter().flatten().next().copied();
                code.is_some()
            });
            assert!(over, "{:?}: {}", daemon.kind, daemon.log());
            assert_eq!(code.unwrap().code(), Some(1), "{:?}: {}", daemon.kind, daemon.log());
            let [mut one, two] = both;
            let stays = if one.try_wait().unwrap().is_some() { two } else { one };
            daemon.replace(stays);
            assert!(!peer.closed && daemon.used() == 50, "{}", daemon.log());
            assert_eq!(daemon.exit_code(Duration::ZERO), None, "{}", daemon.log());
        }
    });
}

#[test]
fn a_successor_that_stands_still_keeps_no_other_from_taking_over() {
    on(&ENGINES, |daemon| {
        daemon.set((1..=50).map(|key| (key, 5)));
        let mut still = successor(daemon, &["stop:fault:new-built"]);
        std::thread::sleep(Duration::from_millis(300));
        let new = successor(daemon, &[]);
        assert_eq!(daemon.exit_code(LONG), Some(0), "{:?}: {}", daemon.kind, daemon.log());
        daemon.replace(new);
        let over = || daemon.log().contains("finished, ") && daemon.used() == 50;
        assert!(wait_until(LONG, over), "{:?}: {}", daemon.kind, daemon.log());
        // Going on, it finds out that it has nothing and that the address is in use.
        kill_process(Pid::from_raw(still.id() as i32).unwrap(), Signal::CONT).unwrap();
        assert_eq!(ended(&mut still), Some(1), "{:?}: {}", daemon.kind, daemon.log());
        assert!(daemon.log().contains("it has taken it back"), "{}", daemon.log());
        daemon.set([(1, 6)]);
        reload(daemon);
        assert_eq!(daemon.used(), 50);
    });
}

#[test]
fn an_old_process_that_stands_still_goes_on_when_it_may() {
    on(&ENGINES, |daemon| {
        daemon.set((1..=50).map(|key| (key, 5)));
        daemon.signal(Signal::STOP);
        let mut new = successor(daemon, &[]);
        assert_eq!(ended(&mut new), Some(1), "{:?}: {}", daemon.kind, daemon.log());
        assert!(daemon.log().contains("No instant hand-over: "), "{}", daemon.log());
        assert_eq!(daemon.exit_code(Duration::ZERO), None);
        daemon.signal(Signal::CONT);
        let mut peer = None;
        let listens = wait_until(LONG, || {
            peer = Peer::try_connect(daemon.address, "peer");
            peer.is_some()
        });
        assert!(listens, "{:?}: {}", daemon.kind, daemon.log());
        let mut peer = peer.unwrap();
        daemon.set([(1, 6)]);
        assert!(peer.pump(LONG, |p| p.rows.get(&1) == Some(&6)), "{}", daemon.log());
        reload(daemon);
        daemon.set([(1, 7)]);
        assert!(peer.pump(LONG, |p| p.rows.get(&1) == Some(&7)), "{}", daemon.log());
        assert_eq!(daemon.used(), 50);
    });
}

/// Each of them has everything stopped and going on again, at once one after the other.
#[test]
fn successors_that_die_one_after_the_other_keep_nobody_from_taking_over() {
    on(&KINDS, |daemon| {
        let mut peer = Peer::connect(daemon, "peer");
        daemon.set((1..=50).map(|key| (key, 5)));
        assert!(peer.pump(LONG, |p| p.rows == rows(50, 5)));
        daemon.signal(Signal::STOP);
        let dying: Vec<Child> = (0..6).map(|_| successor(daemon, &["fault:new-asked"])).collect();
        for mut child in dying {
            assert_eq!(ended(&mut child), None, "killed: {}", daemon.log());
        }
        let new = successor(daemon, &[]);
        std::thread::sleep(Duration::from_millis(300));
        daemon.signal(Signal::CONT);
        assert_eq!(daemon.exit_code(LONG), Some(0), "{:?}: {}", daemon.kind, daemon.log());
        daemon.replace(new);
        let said = || daemon.log().contains(": instant, finished,");
        assert!(wait_until(LONG, said), "{:?}: {}", daemon.kind, daemon.log());
        assert_eq!(daemon.log().matches("given up, going on").count(), 6, "{}", daemon.log());
        daemon.set([(1, 6)]);
        assert!(peer.pump(LONG, |p| p.rows.get(&1) == Some(&6)), "{}", daemon.log());
    });
}

#[test]
fn a_successor_of_another_user_gets_nothing() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can start processes of another user; who is trusted is tested beside it.
        return;
    }
    let daemon = Daemon::start(KIND);
    teach_nothing(&daemon);
    let mut peer = Peer::connect(&daemon, "peer");
    daemon.set((1..=50).map(|key| (key, 5)));
    assert!(peer.pump(LONG, |p| p.rows == rows(50, 5)));
    let folder = daemon.socket().parent().unwrap().to_owned();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    // Any number of them hardly delays one who may.
    let mut strangers: Vec<Child> = (0..20).map(|_| successor(&daemon, &["user:65534"])).collect();
    for stranger in &mut strangers {
        assert_eq!(ended(stranger), Some(1), "{}", daemon.log());
    }
    assert_eq!(daemon.log().matches("No instant hand-over: ").count(), 20, "{}", daemon.log());
    assert!(!peer.pump(Duration::from_millis(50), |_| false) && !peer.closed);
    reload(&daemon);
    daemon.set([(1, 6)]);
    assert!(peer.pump(LONG, |p| p.rows.get(&1) == Some(&6)), "{}", daemon.log());
}

/// A signal that means nothing is not the end of a process, at the start or just when it has become
/// the owner of everything.
#[test]
fn a_signal_in_the_middle_of_taking_over_is_not_the_end_of_it() {
    let signals = [Signal::USR2, Signal::HUP, Signal::QUIT];
    let all = ["new-asked", "new-said"].into_iter().flat_map(|at| signals.map(|s| (at, s)));
    for (place, signal) in all {
        let daemon = Daemon::start(KIND);
        teach_nothing(&daemon);
        let mut peer = Peer::connect(&daemon, "peer");
        daemon.set((1..=50).map(|key| (key, 5)));
        assert!(peer.pump(LONG, |p| p.rows == rows(50, 5)));
        let new = successor(&daemon, &[&format!("stop:fault:{place}")]);
        let stat = format!("/proc/{}/stat", new.id());
        let stands = || std::fs::read_to_string(&stat).is_ok_and(|s| s.contains(") T "));
        assert!(wait_until(LONG, stands), "{place}: {}", daemon.log());
        for signal in [signal, Signal::CONT] {
            kill_process(Pid::from_raw(new.id() as i32).unwrap(), signal).unwrap();
        }
        assert_eq!(daemon.exit_code(LONG), Some(0), "{}", daemon.log());
        daemon.replace(new);
        let said = || daemon.log().contains("instant, finished,");
        assert!(wait_until(LONG, said), "{place}, {signal:?}: {}", daemon.log());
        daemon.set([(1, 6)]);
        let changed = peer.pump(LONG, |p| p.rows.get(&1) == Some(&6));
        assert!(changed, "{place}, {signal:?}: {}", daemon.log());
        assert_eq!(daemon.exit_code(Duration::ZERO), None);
    }
}

/// The same while nothing is its own yet: it ends as it is told, and the old process goes on.
#[test]
fn one_that_is_told_to_leave_before_it_has_anything_leaves() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::USR1, 0)] {
        let daemon = Daemon::start(KIND);
        teach_nothing(&daemon);
        daemon.set((1..=50).map(|key| (key, 5)));
        let mut new = successor(&daemon, &["stop:fault:new-built"]);
        let back = "Instant hand-over given up, going on";
        assert!(wait_until(LONG, || daemon.log().contains(back)), "{}", daemon.log());
        for signal in [signal, Signal::CONT] {
            kill_process(Pid::from_raw(new.id() as i32).unwrap(), signal).unwrap();
        }
        assert_eq!(ended(&mut new), Some(code), "{}", daemon.log());
        assert_eq!((daemon.exit_code(Duration::ZERO), daemon.used()), (None, 50));
        // It may have asked for the address by then, as it does for a hand-over by the protocol.
        daemon.signal(Signal::TTIN);
        let listens = || Peer::try_connect(daemon.address, "peer").is_some();
        assert!(wait_until(LONG, listens), "{}", daemon.log());
        reload(&daemon);
        assert_eq!(daemon.used(), 50);
    }
}
