//! The instant hand-over to a process that has other tables: those both have keep their rows, and
//! nothing a peer has not confirmed is lost with its session.

use crate::daemon::{Daemon, ENGINES, KINDS, Kind, free_address, on, wait_until};
use crate::instant::{LONG, reload, rows, successor};
use crate::peer::{Peer, define, fill, updates};
use std::time::{Duration, Instant};

const KIND: Kind = Kind { engine: "auto", shards: 2 };
const T: &str = "    table t type integer size 1m expire 1h store gpc0\n";
const SMALL: &str = "    table small type integer size 10k expire 1h store gpc0\n";
const FRESH: &str = "    table fresh type ip size 100k expire 1h store gpc0,gpc1\n";
const CHANGED: &str = "DOWN (the section's tables have changed)";

fn used(daemon: &Daemon, table: &str) -> Option<usize> {
    let text = daemon.cli("show table");
    let line = text.lines().find(|l| l.contains(&format!("table: {table},")))?;
    line.rsplit_once("used:")?.1.trim().parse().ok()
}

fn set(daemon: &Daemon, table: &str, key: &str, value: u64) {
    let reply = daemon.cli(&format!("set table {table} key {key} data.gpc0 {value}"));
    assert_eq!(reply.trim(), "", "set table {table}");
}

/// The session has ended, and the next one begins.
fn again(peer: &mut Peer, daemon: &Daemon, name: &str) {
    assert!(!peer.pump(LONG, |_| false) && peer.closed, "{}", daemon.log());
    peer.reconnect(daemon, name);
}

#[test]
fn what_both_have_stays_and_what_is_not_confirmed_is_sent_again() {
    on(&KINDS, |daemon| {
        fill(daemon, 5_000);
        let mut peer = Peer::connect(daemon, "peer");
        // Before the others, behind them, and instead of one: every number and id changes.
        let steps = [
            (T.to_string(), FRESH.to_string() + T),
            (SMALL.to_string(), SMALL.to_string() + &FRESH.replace("fresh", "last")),
            (SMALL.to_string(), String::new()),
            (FRESH.to_string(), String::new()),
        ];
        for (round, (from, to)) in (1..).zip(steps) {
            daemon.set((1..=100).map(|key| (key, round)));
            assert!(peer.pump(LONG, |p| p.rows == rows(100, round)), "{}", daemon.log());
            peer.pump(Duration::from_millis(100), |_| false);
            peer.acking = false;
            daemon.set((101..=110).map(|key| (key, round)));
            let all = |p: &Peer| (101..=110).all(|key| p.rows.get(&key) == Some(&round));
            assert!(peer.pump(LONG, all), "{:?} {round}", daemon.kind);
            daemon.edit(&from, &to);
            reload(daemon);
            peer.rows.clear();
            again(&mut peer, daemon, "peer");
            let last = |p: &Peer| p.rows.len() >= 10;
            assert!(peer.pump(LONG, last), "{:?} {round}: {}", daemon.kind, daemon.log());
            peer.pump(Duration::from_millis(100), |_| false);
            let sent = |p: &Peer| all(p) && p.rows.len() == 10;
            assert!(sent(&peer), "{:?} {round}: {:?}", daemon.kind, peer.rows);
            // The rows lie where they are looked for: none comes twice.
            daemon.set((1..=5_000).map(|key| (key, u64::from(key))));
            assert_eq!(daemon.used(), 5_000, "{:?} {round}", daemon.kind);
            peer.pump(LONG, |p| p.rows.len() == 5_000);
            peer.rows.retain(|key, _| *key <= 100);
        }
        let log = daemon.log();
        assert_eq!(log.matches(CHANGED).count(), 4, "{log}");
        assert_eq!(log.matches("instant, finished, 5000 entries").count(), 4, "{log}");
        assert!(!log.contains("No instant hand-over"), "{log}");
        assert_eq!(used(daemon, "p/last"), Some(0));
        assert_eq!((used(daemon, "p/small"), used(daemon, "p/fresh")), (None, None));
    });
}

#[test]
fn a_table_that_is_gone_takes_its_rows_along() {
    let daemon = Daemon::start(KIND);
    crate::peer::teach_nothing(&daemon);
    fill(&daemon, 1_000);
    for n in 1..=300 {
        set(&daemon, "p/small", &n.to_string(), 1);
    }
    daemon.edit(SMALL, "");
    reload(&daemon);
    assert_eq!((daemon.used(), used(&daemon, "p/small")), (1_000, None));
    daemon.edit(T, &(T.to_string() + SMALL));
    reload(&daemon);
    assert_eq!((daemon.used(), used(&daemon, "p/small")), (1_000, Some(0)));
    set(&daemon, "p/small", "7", 1);
    // Once more without any change: every number is what it has become.
    let mut peer = Peer::connect(&daemon, "peer");
    assert!(peer.pump(LONG, |p| p.updates.iter().any(|(_, key, _)| *key == 7)));
    reload(&daemon);
    daemon.set([(5, 5)]);
    assert!(peer.pump(LONG, |p| p.rows.get(&5) == Some(&5)) && !peer.closed);
    assert_eq!((daemon.used(), used(&daemon, "p/small")), (1_000, Some(1)));
    let log = daemon.log();
    assert!(log.contains("instant, finished, 1000 entries"), "{log}");
    assert_eq!(log.matches("instant, finished,").count(), 3, "{log}");
}

#[test]
fn sections_with_the_same_tables_keep_their_sessions() {
    let other = free_address();
    let daemon = Daemon::start(KIND);
    let peers = format!("stickring\n    engine {}", KIND.engine);
    let section = format!(
        "peers q\n    bind {other}\n    server node\n    \
         table t type integer size 1m expire 1h store gpc0\n{peers}"
    );
    daemon.edit(&peers, &section);
    let new = successor(&daemon, &[]);
    assert_eq!(daemon.exit_code(LONG), Some(0));
    daemon.replace(new);
    let why = "configurations differ (peers sections or their local peer)";
    assert!(wait_until(LONG, || daemon.log().contains(why)), "{}", daemon.log());
    let up = || Peer::try_connect(other, "starter").is_some();
    assert!(wait_until(LONG, up), "{}", daemon.log());
    let mut ends = Peer::connect(&daemon, "ends");
    let mut stays = Peer::try_connect(other, "stays").expect("a session");
    set(&daemon, "q/t", "1", 1);
    set(&daemon, "p/t", "2", 1);
    assert!(stays.pump(LONG, |p| p.rows.get(&1) == Some(&1)), "{}", daemon.log());
    assert!(ends.pump(LONG, |p| p.rows.get(&2) == Some(&1)), "{}", daemon.log());
    daemon.edit(SMALL, &(SMALL.to_string() + FRESH));
    reload(&daemon);
    again(&mut ends, &daemon, "ends");
    set(&daemon, "q/t", "1", 2);
    set(&daemon, "p/t", "2", 2);
    assert!(stays.pump(LONG, |p| p.rows.get(&1) == Some(&2)), "{}", daemon.log());
    assert!(ends.pump(LONG, |p| p.rows.get(&2) == Some(&2)), "{}", daemon.log());
    assert!(!stays.closed && daemon.info("HandoverSessionsKept") == 1, "{}", daemon.log());
    assert_eq!((used(&daemon, "q/t"), used(&daemon, "p/t")), (Some(1), Some(1)));
}

#[test]
fn a_failure_leaves_the_old_tables_and_their_sessions() {
    let daemon = Daemon::start(KIND);
    crate::peer::teach_nothing(&daemon);
    let mut peer = Peer::connect(&daemon, "peer");
    daemon.set([(1, 1)]);
    set(&daemon, "p/small", "1", 1);
    daemon.edit(SMALL, FRESH);
    for place in ["new-asked", "new-received", "new-built"] {
        let mut new = successor(&daemon, &[&format!("fault:{place}")]);
        let died = wait_until(LONG, || new.try_wait().unwrap().is_some());
        assert!(died, "{place}: {}", daemon.log());
        daemon.set([(1, 2)]);
        assert!(peer.pump(LONG, |p| p.rows == rows(1, 2)), "{place}: {}", daemon.log());
        assert_eq!(used(&daemon, "p/small"), Some(1), "{place}");
        daemon.set([(1, 1)]);
        assert!(peer.pump(LONG, |p| p.rows == rows(1, 1)) && !peer.closed, "{place}");
    }
    reload(&daemon);
    assert_eq!((used(&daemon, "p/small"), used(&daemon, "p/fresh")), (None, Some(0)));
    assert_eq!(daemon.used(), 1);
}

#[test]
fn beside_auto_tables_no_table_comes_or_goes_at_once() {
    let daemon = Daemon::start(KIND);
    daemon.edit("stickring\n", "stickring\n    auto-tables size 10k\n");
    for (from, to, why) in [("", "", "(auto-tables)"), (SMALL, "", "(tables beside auto-tables)")] {
        set(&daemon, "p/small", "1", 1);
        daemon.edit(from, to);
        let new = successor(&daemon, &[]);
        assert_eq!(daemon.exit_code(LONG), Some(0));
        daemon.replace(new);
        assert!(wait_until(LONG, || daemon.log().contains(why)), "{}", daemon.log());
    }
    // It has been taught, and created from its definition.
    let there = || daemon.cli("show table").contains("small, type: integer");
    assert!(wait_until(LONG, there), "{}", daemon.cli("show table"));
}

/// A peer that sends updates one after the other, and again what was not acked when its session
/// ended, as a HAProxy does.
struct Teacher {
    peer: Peer,
    sent: u32,
    /// The last one it ever sent: it may be there without an ack, and is sent again.
    last: u32,
    acked: u32,
    sessions: u32,
}

impl Teacher {
    fn step(&mut self, daemon: &Daemon, more: u32) {
        if self.peer.closed {
            // A hello that is cut off in the middle comes again.
            let Some(mut peer) = Peer::try_connect(daemon.address, "teacher") else { return };
            peer.rows = std::mem::take(&mut self.peer.rows);
            self.peer = peer;
            self.peer.send(&define());
            self.sent = self.acked;
            self.sessions += 1;
        }
        if more > 0 && self.sent - self.acked < 50_000 {
            let (first, last) = (self.sent + 1, self.sent + more);
            self.peer.send(&updates(first, (first..=last).map(|n| (n, 7))));
            self.sent = last;
            self.last = self.last.max(last);
        }
        self.peer.step();
        self.acked = self.acked.max(self.peer.acks.last().copied().unwrap_or(0));
    }
}

#[test]
fn updates_that_flow_while_tables_come_and_go_are_all_there() {
    const LOCAL: u32 = 1 << 30;
    on(&ENGINES, |daemon| {
        let mut peer = Peer::connect(daemon, "teacher");
        peer.send(&define());
        let mut teacher = Teacher { peer, sent: 0, last: 0, acked: 0, sessions: 1 };
        for round in 0..20 {
            let steps = [(T, FRESH.to_string() + T), (FRESH, String::new())];
            let (from, to) = &steps[round as usize % 2];
            daemon.edit(from, to);
            daemon.set([(LOCAL + round, u64::from(round))]);
            let new = successor(daemon, &[]);
            let end = Instant::now() + LONG;
            while daemon.exit_code(Duration::ZERO).is_none() {
                teacher.step(daemon, 100);
                assert!(Instant::now() < end, "{:?}: {}", daemon.kind, daemon.log());
            }
            daemon.replace(new);
        }
        let local = |p: &Peer| (0..20).all(|n| p.rows.get(&(LOCAL + n)) == Some(&u64::from(n)));
        let end = Instant::now() + LONG;
        let done = |t: &Teacher| !t.peer.closed && t.acked == t.last && local(&t.peer);
        while !done(&teacher) {
            let more = (teacher.last - teacher.sent).min(100);
            teacher.step(daemon, more);
            assert!(Instant::now() < end, "{:?}: {}", daemon.kind, daemon.log());
        }
        assert_eq!(daemon.used(), teacher.last as usize + 20, "{:?}", daemon.kind);
        assert!(teacher.last > 1_000 && teacher.sessions > 10, "{}", teacher.sessions);
        let instant = || daemon.log().matches("instant, finished").count() == 20;
        assert!(wait_until(LONG, instant), "{}", daemon.log());
    });
}
