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
/// Between two looks at a table's count, which the daemon has to answer.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks at a process, which costs it nothing.
const LOOK_AT_PROCESS: Duration = Duration::from_millis(1);
/// From the last entry to the end of the lesson.
const END_OF_LESSON: Duration = Duration::from_millis(300);
/// Sessions that are there when the new process comes, and send nothing but heartbeats.
pub const SESSIONS: usize = 4;

/// From the start of the new process to a whole table.
pub const WHOLE: &str = "table whole s";
/// From there to the end of the old process.
pub const OLD_GONE: &str = "old process gone s";
/// Of [`SESSIONS`], those that went on with the new process.
pub const KEPT: &str = "sessions kept";
/// Both processes.
pub const CPU: &str = "CPU s per M, both";

/// Waits until a daemon holds all entries. Returns how long that took.
fn whole(new: &Daemon, keys: u32, begin: Instant, limit: Duration) -> Outcome<Duration> {
    loop {
        let used = new.used()?;
        if used == u64::from(keys) {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > limit {
            return fail(format!("{used} of {keys} entries behind {limit:?}"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until the old process has ended. Returns how long that took, and the CPU seconds it had
/// used when it was last seen.
fn gone(old: &mut Daemon, begin: Instant, limit: Duration) -> Outcome<Option<(Duration, f64)>> {
    let mut cpu = 0.0f64;
    loop {
        if let Some(status) = old.exited()? {
            let took = begin.elapsed();
            if !status.success() {
                return fail(format!("the old process ended with {status}: {}", old.log()));
            }
            return Ok(Some((took, cpu)));
        }
        cpu = cpu_s(old.pid()).map_or(cpu, |s| s.max(cpu));
        if begin.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(LOOK_AT_PROCESS);
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
    warm(model.keys)?;
    let sessions: Outcome<Vec<Peer>> = (0..SESSIONS).map(|n| join(&old, 2 + n, false)).collect();
    let sessions = sessions?;
    let before = cpu_s(old.pid())?;
    let setup = Setup { address: Some(old.address.clone()), ..setup.clone() };
    let more = ["-sf".to_owned(), old.pid().to_string()];
    let begin = Instant::now();
    let new = Daemon::start_with(subject, &setup, &more)?;
    let Some((gone, old_cpu)) = gone(&mut old, begin, limit)? else {
        let used = new.used()?;
        let seconds = limit.as_secs();
        return fail(format!("not done behind {seconds} s: {used} of {} entries", model.keys));
    };
    let took = whole(&new, model.keys, begin, gone + ORPHAN_MAX)?;
    std::thread::sleep(END_OF_LESSON);
    check_kind(subject, &new)?;
    let mut sessions = open(sessions);
    let kept = sessions.len();
    let cpu = (old_cpu - before).max(0.0) + cpu_s(new.pid())?;
    match sessions.pop() {
        Some(session) => take_by(session, &new, model, pushed.begin)?,
        None => take(&new, model, pushed.begin)?,
    };
    Ok(Sample::default()
        .with(WHOLE, took.as_secs_f64())
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
    warm(model.keys)?;
    let before = cpu_s(keeper_daemon.pid())?;
    let setup =
        Setup { address: Some(node), others: vec![(generator(1), keeper)], ..setup.clone() };
    let begin = Instant::now();
    let new = Daemon::start(subject, &setup)?;
    let took = whole(&new, model.keys, begin, limit)?;
    std::thread::sleep(END_OF_LESSON);
    let cpu = cpu_s(keeper_daemon.pid())? - before + cpu_s(new.pid())?;
    take(&new, model, pushed.begin)?;
    Ok(Sample::default()
        .with(WHOLE, took.as_secs_f64())
        .with(CPU, cpu / f64::from(model.keys) * 1e6))
}
