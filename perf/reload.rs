//! A node that starts again: by a hand-over from its old process, and by learning from a peer.
//!
//! Owns the two processes of a run, and the sessions that stay through it. Called by the work
//! `reload`. Rule: the clock runs from before the new process is started until its table is whole;
//! the table is then checked, on a session that outlived the old process where there is one.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, NODE, Setup, Subject, Variant, free_address, generator};
use crate::fill::{self, Push, join, take, take_by, warm};
use crate::model::Model;
use crate::peer::Peer;
use crate::rounds::Sample;
use crate::usage::cpu_s;
use crate::{Outcome, fail};

/// A new process whose old one has left has its table by then, or never.
const ORPHAN_MAX: Duration = Duration::from_secs(15);
/// Between two looks at a process, which costs it nothing.
const LOOK_AT_PROCESS: Duration = Duration::from_millis(1);
/// Between two looks at a table's count, which the daemon has to answer...
const LOOK: Duration = Duration::from_millis(5);
/// ...and, where that is more, this part of the time gone by: one hundredth.
const LOOKS: u32 = 100;
/// From the last entry to the end of the lesson.
const END_OF_LESSON: Duration = Duration::from_millis(300);
/// Sessions that are there when the new process comes, and that send nothing but heartbeats.
pub const SESSIONS: usize = 4;

/// From the start of the new process to a whole table.
pub const WHOLE: &str = "table whole s";
/// And to the end of the old process.
pub const OLD_GONE: &str = "old process gone s";
/// Of [`SESSIONS`], those that went on with the new process.
pub const KEPT: &str = "sessions kept";
/// Both processes.
pub const CPU: &str = "CPU s per M, both";

/// A table that is looked at now and then until it holds all entries.
struct Filling<'a> {
    daemon: &'a Daemon,
    keys: u32,
    begin: Instant,
    next: Duration,
    /// What the last look saw.
    said: String,
}

impl<'a> Filling<'a> {
    fn new(daemon: &'a Daemon, keys: u32, begin: Instant) -> Filling<'a> {
        Filling { daemon, keys, begin, next: Duration::ZERO, said: String::new() }
    }

    /// Looks, if it is time to. Returns when it was seen to be whole. A daemon that is too busy to
    /// answer is asked again.
    fn look(&mut self) -> Option<Duration> {
        if self.begin.elapsed() < self.next {
            return None;
        }
        let used = self.daemon.used();
        let now = self.begin.elapsed();
        self.next = now + LOOK.max(now / LOOKS);
        self.said = match &used {
            Ok(used) => format!("{used} of {} entries", self.keys),
            Err(e) => format!("its entries are not known: {e}"),
        };
        used.is_ok_and(|used| used == u64::from(self.keys)).then_some(now)
    }
}

/// When, counted from the start of the new process.
struct HandOver {
    whole: Duration,
    gone: Duration,
    /// CPU seconds of the old process when it was last seen.
    old_cpu_s: f64,
}

/// Waits until the new process has everything and the old one has ended.
fn watch(old: &mut Daemon, mut filling: Filling<'_>, limit: Duration) -> Outcome<HandOver> {
    let begin = filling.begin;
    let (mut whole, mut gone, mut old_cpu_s) = (None, None, 0.0f64);
    loop {
        if gone.is_none() {
            old_cpu_s = cpu_s(old.pid()).map_or(old_cpu_s, |s| s.max(old_cpu_s));
            let ended = old.exited()?;
            gone = ended.map(|_| begin.elapsed());
            if let Some(status) = ended.filter(|status| !status.success()) {
                return fail(format!("the old process ended with {status}: {}", old.log()));
            }
        }
        if whole.is_none() {
            whole = filling.look();
        }
        match (whole, gone) {
            (Some(whole), Some(gone)) => return Ok(HandOver { whole, gone, old_cpu_s }),
            (_, None) if begin.elapsed() > limit => {
                let (limit, said) = (limit.as_secs(), filling.said);
                let whole = whole.map_or(String::new(), |at: Duration| format!(" since {at:.1?}"));
                return fail(format!("the old process is there behind {limit} s; {said}{whole}"));
            }
            (None, Some(gone)) if begin.elapsed() > gone + ORPHAN_MAX => {
                return fail(format!("the old process has left; {}", filling.said));
            }
            _ => std::thread::sleep(LOOK_AT_PROCESS),
        }
    }
}

/// The sessions that are still open.
fn open(sessions: Vec<Peer>) -> Vec<Peer> {
    let is_open = |peer: &mut Peer| -> Outcome<()> {
        peer.beat()?;
        peer.sock.set_nonblocking(true)?;
        while peer.inbox.fill()? {
            while peer.inbox.next()?.is_some() {}
        }
        Ok(peer.sock.set_nonblocking(false)?)
    };
    sessions.into_iter().filter_map(|mut peer| is_open(&mut peer).ok().map(|()| peer)).collect()
}

/// A stickring that says it took over in another way than it was configured to has not done what
/// the figures are about.
fn check_kind(subject: &Subject, new: &Daemon) -> Outcome<()> {
    let wanted = match subject.variant {
        _ if !subject.ours => return Ok(()),
        Variant::ByProtocol => "protocol",
        Variant::Plain | Variant::Tuned => "instant",
    };
    match new.info("HandoverKind")? {
        Some(kind) if kind == wanted => Ok(()),
        kind => fail(format!("the hand-over was {kind:?}, not {wanted}: {}", new.log())),
    }
}

/// `-sf`: the new process takes over from the old one, which leaves.
pub fn hand_over(
    subject: &Subject,
    setup: &Setup,
    model: &Model,
    push: &Push,
    limit: Duration,
) -> Outcome<Sample> {
    let mut old = Daemon::start(subject, setup)?;
    let first = join(&old, 1, true)?;
    let pushed = fill::push(&old, first, model, push)?;
    // Once more: the new process takes memory too, unless it takes the old one's.
    warm(&setup.cpus, model.keys)?;
    let sessions: Outcome<Vec<Peer>> = (0..SESSIONS).map(|n| join(&old, 2 + n, false)).collect();
    let sessions = sessions?;
    let before = cpu_s(old.pid())?;
    let setup = Setup { address: Some(old.address.clone()), ..setup.clone() };
    let more = ["-sf".to_owned(), old.pid().to_string()];
    let begin = Instant::now();
    let new = Daemon::start_with(subject, &setup, &more)?;
    let filling = Filling::new(&new, model.keys, begin);
    let HandOver { whole, gone, old_cpu_s } = watch(&mut old, filling, limit)?;
    std::thread::sleep(END_OF_LESSON);
    check_kind(subject, &new)?;
    let mut sessions = open(sessions);
    let kept = sessions.len();
    let cpu = (old_cpu_s - before).max(0.0) + cpu_s(new.pid())?;
    match sessions.pop() {
        Some(session) => take_by(session, &new, model, pushed.begin)?,
        None => take(&new, model, pushed.begin)?,
    };
    Ok(Sample::default()
        .with(WHOLE, whole.as_secs_f64())
        .with(OLD_GONE, gone.as_secs_f64())
        .with(KEPT, kept as f64)
        .with(CPU, cpu / f64::from(model.keys) * 1e6))
}

/// A killed node starts from nothing and learns from a peer of its own kind.
///
/// The peer is filled first; then the node, which it knows but has not met yet, starts as it would
/// behind `kill -9`: there is nothing it could still have.
pub fn relearn(
    subject: &Subject,
    setup: &Setup,
    keeper_cpus: &[usize],
    model: &Model,
    push: &Push,
    limit: Duration,
) -> Outcome<Sample> {
    let (node, keeper) = (free_address()?, free_address()?);
    let keeper_setup = Setup {
        name: generator(1),
        address: Some(keeper.clone()),
        others: vec![(NODE.to_owned(), node.clone())],
        cpus: keeper_cpus.to_vec(),
        ..setup.clone()
    };
    let keeper_daemon = Daemon::start(subject, &keeper_setup)?;
    let mut first = Peer::connect(&keeper, &generator(2), &generator(1))?;
    first.settle(fill::SETTLE_MAX)?;
    let pushed = fill::push(&keeper_daemon, first, model, push)?;
    warm(&setup.cpus, model.keys)?;
    let before = cpu_s(keeper_daemon.pid())?;
    let setup =
        Setup { address: Some(node), others: vec![(generator(1), keeper)], ..setup.clone() };
    let begin = Instant::now();
    let new = Daemon::start(subject, &setup)?;
    let mut filling = Filling::new(&new, model.keys, begin);
    let took = loop {
        if let Some(took) = filling.look() {
            break took;
        }
        if begin.elapsed() > limit {
            return fail(format!("{} behind {} s", filling.said, limit.as_secs()));
        }
        std::thread::sleep(LOOK_AT_PROCESS);
    };
    std::thread::sleep(END_OF_LESSON);
    let cpu = cpu_s(keeper_daemon.pid())? - before + cpu_s(new.pid())?;
    take(&new, model, pushed.begin)?;
    Ok(Sample::default()
        .with(WHOLE, took.as_secs_f64())
        .with(CPU, cpu / f64::from(model.keys) * 1e6))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_session_that_was_closed_is_not_counted_as_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (mut peers, mut nodes) = (Vec::new(), Vec::new());
        for n in 1..=3 {
            let (address, name) = (address.clone(), generator(n));
            let peer =
                std::thread::spawn(move || Peer::connect(&address, &name, NODE).expect("200"));
            let (mut node, _) = listener.accept().expect("a connection");
            node.write_all(b"200\n").expect("the status");
            peers.push(peer.join().expect("a session"));
            nodes.push(node);
        }
        // What was read away is not taken for the end, and what has ended is.
        let mut junk = [0; 512];
        let _ = nodes[1].read(&mut junk).expect("the hello");
        nodes[0].write_all(&stickring::wire::Control::Heartbeat.bytes()).expect("a heartbeat");
        nodes[1].shutdown(std::net::Shutdown::Write).expect("the end");
        std::thread::sleep(Duration::from_millis(50));
        let kept = open(peers);
        assert_eq!(kept.len(), 2);
        nodes.truncate(2);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(open(kept).len(), 1);
    }
}
