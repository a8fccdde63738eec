//! A node that starts again: by HAProxy's own hand-over, and by learning from a peer.
//!
//! Owns the two processes of a run. Called by the work `reload`. Rule: the clock runs from before
//! the new process is started until its table is whole, and the table is then checked.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, NODE, Setup, Subject, free_address, generator};
use crate::fill::{self, Push, join, take};
use crate::model::Model;
use crate::rounds::Sample;
use crate::{Outcome, fail};

/// A new process whose old one has left has its table by then, or never.
const ORPHAN_MAX: Duration = Duration::from_secs(15);
/// Between two looks at a table's count.
const LOOK: Duration = Duration::from_millis(5);
/// From the last entry to the end of the lesson.
const END_OF_LESSON: Duration = Duration::from_millis(300);

/// From the start of the new process to a whole table.
pub const WHOLE: &str = "table whole s";
/// From there to the end of the old process.
pub const OLD_GONE: &str = "old process gone s";
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

/// `-sf`: the old process teaches the new one over their local address and leaves.
pub fn hand_over(subject: &Subject, setup: &Setup, model: &Model, push: &Push) -> Outcome<Sample> {
    let mut old = Daemon::start(subject, setup)?;
    let first = join(&old, 1, true)?;
    let pushed = fill::push(&old, first, model, push)?;
    let before = old.usage()?.cpu_s;
    let setup = Setup { address: Some(old.address.clone()), ..setup.clone() };
    let more = ["-sf".to_owned(), old.pid().to_string()];
    let begin = Instant::now();
    let new = Daemon::start_with(subject, &setup, &more)?;
    let mut last = before;
    let gone = loop {
        if old.exited()?.is_some() {
            break begin.elapsed();
        }
        last = old.usage().map_or(last, |u| u.cpu_s.max(last));
        if begin.elapsed() > push.limit {
            let used = new.used()?;
            return fail(format!("the old process is still there; {used} of {}", model.keys));
        }
        std::thread::sleep(LOOK);
    };
    let took = whole(&new, model.keys, begin, gone + ORPHAN_MAX)?;
    std::thread::sleep(END_OF_LESSON);
    take(&new, model, pushed.begin)?;
    let cpu = last - before + new.usage()?.cpu_s;
    Ok(Sample::default()
        .with(WHOLE, took.as_secs_f64())
        .with(OLD_GONE, gone.as_secs_f64())
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
    let mut first = crate::peer::Peer::connect(&keeper, &generator(2), &generator(1))?;
    first.settle(fill::SETTLE_MAX)?;
    let pushed = fill::push(&keeper_daemon, first, model, push)?;
    let before = keeper_daemon.usage()?.cpu_s;
    let setup =
        Setup { address: Some(node), others: vec![(generator(1), keeper)], ..setup.clone() };
    let begin = Instant::now();
    let new = Daemon::start(subject, &setup)?;
    let took = whole(&new, model.keys, begin, push.limit)?;
    std::thread::sleep(END_OF_LESSON);
    take(&new, model, pushed.begin)?;
    let cpu = keeper_daemon.usage()?.cpu_s - before + new.usage()?.cpu_s;
    Ok(Sample::default()
        .with(WHOLE, took.as_secs_f64())
        .with(CPU, cpu / f64::from(model.keys) * 1e6))
}
