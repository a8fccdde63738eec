//! Learn and teach: push a model into a daemon, take it back, compare.
//!
//! Owns the sessions of one run. Called by the works `learn`, `teach`, `memory`, `fanout`. Rule:
//! everything is encoded before the clock starts; the clock stops at the ack of the last update,
//! which a daemon may only send when all before it is applied; and no run ends without the check.

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use stickring::table::memory::Region;
use stickring::wire::{Control, Message};

use crate::daemon::{Daemon, GENERATORS, NODE, Setup, Subject, generator};
use crate::model::{Check, Model};
use crate::peer::{BLOCK, HEARTBEAT, Inbox, Peer};
use crate::rounds::Sample;
use crate::usage::Usage;
use crate::{Outcome, fail, pin};

/// A daemon that has just started asks its first peer within that time.
pub const SETTLE_MAX: Duration = Duration::from_secs(15);
/// The scheduler's account of a thread is exact once it sleeps.
const REST: Duration = Duration::from_millis(30);

/// How updates are pushed.
#[derive(Clone, Copy, Debug)]
pub struct Push {
    /// Sessions that push at once, each its own part of the keys.
    pub sessions: usize,
    /// An explicit id every so many updates; 1: always.
    pub batch: u64,
    /// Give up behind that time.
    pub limit: Duration,
}

/// What pushing took.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// When the first byte was sent.
    pub begin: Instant,
    /// From there to the last ack.
    pub took: Duration,
    /// Updates.
    pub updates: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// CPU of the daemon; growth of its memory.
    pub used: Usage,
    /// The daemon behind it.
    pub after: Usage,
}

/// Connects as generator `n` to the node; the daemon's first session answers its resync request.
pub fn join(daemon: &Daemon, n: usize, first: bool) -> Outcome<Peer> {
    let mut peer = Peer::connect(&daemon.address, &generator(n), NODE)?;
    if first {
        peer.settle(SETTLE_MAX)?;
    }
    Ok(peer)
}

/// What a session's receiving side saw.
#[derive(Default)]
struct Seen {
    acked: AtomicU32,
    last_ack: Mutex<Option<Instant>>,
    /// Why it ended, when it did.
    end: Mutex<Option<String>>,
    stop: AtomicBool,
}

fn receive(inbox: &mut Inbox, seen: &Seen) -> Outcome<()> {
    while !seen.stop.load(Ordering::Relaxed) {
        if !inbox.fill()? {
            continue;
        }
        let now = Instant::now();
        let mut last = None;
        while let Some(f) = inbox.next()? {
            match Message::of(&f)? {
                Message::Ack { uid, .. } => last = Some(uid),
                Message::Error(code) => return fail(format!("the daemon sent error {code}")),
                _ => {}
            }
        }
        if let Some(uid) = last {
            *seen.last_ack.lock().expect("no panic holds it") = Some(now);
            seen.acked.store(uid, Ordering::Release);
        }
    }
    Ok(())
}

/// Sends one session's stream and waits for its last ack. Returns when the first byte was
/// sent and when that ack came.
fn push_one(
    peer: Peer,
    stream: &[u8],
    last: u32,
    limit: Duration,
    go: &Barrier,
) -> Outcome<(Instant, Instant)> {
    let Peer { mut inbox, mut sock, .. } = peer;
    let seen = Arc::new(Seen::default());
    let receiver = thread::spawn({
        let seen = seen.clone();
        move || {
            let end = receive(&mut inbox, &seen).err().map(|e| e.to_string());
            *seen.end.lock().expect("no panic holds it") = end;
        }
    });
    go.wait();
    let begin = Instant::now();
    let sent = stream.chunks(BLOCK).try_for_each(|block| sock.write_all(block));
    let mut beat = Instant::now();
    let mut result = sent.map_err(|e| format!("sending failed: {e}"));
    while result.is_ok() && seen.acked.load(Ordering::Acquire) != last {
        if receiver.is_finished() {
            let end = seen.end.lock().expect("no panic holds it").take();
            result = Err(end.unwrap_or_default());
        } else if begin.elapsed() > limit {
            let acked = seen.acked.load(Ordering::Acquire);
            result = Err(format!("the last ack is {acked} of {last} behind {limit:?}"));
        } else if beat.elapsed() > HEARTBEAT {
            beat = Instant::now();
            let _ = sock.write_all(&Control::Heartbeat.bytes());
        }
        thread::sleep(Duration::from_micros(200));
    }
    seen.stop.store(true, Ordering::Relaxed);
    let _ = receiver.join();
    result?;
    let at = *seen.last_ack.lock().expect("no panic holds it");
    at.map_or_else(|| fail("no ack came"), |at| Ok((begin, at)))
}

/// The part of a model's updates that session `n` of `of` pushes: its own keys, all generations.
fn part(model: &Model, n: usize, of: usize) -> Vec<Range<u64>> {
    let keys = u64::from(model.keys);
    let (from, to) = (keys * n as u64 / of as u64, keys * (n as u64 + 1) / of as u64);
    (0..model.updates.div_ceil(keys))
        .map(|g| g * keys + from..(g * keys + to).min(model.updates))
        .filter(|r| !r.is_empty())
        .collect()
}

/// Encodes what session `n` pushes. Returns the stream and its last update id.
fn stream(model: &Model, push: &Push, n: usize) -> (Vec<u8>, u32) {
    let ranges = part(model, n, push.sessions);
    let count: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    let mut out = Vec::with_capacity(64 + count as usize * 24);
    stickring::wire::message::encode_define(&mut out, &crate::model::definition());
    for (i, number) in ranges.into_iter().flatten().enumerate() {
        let i = i as u64;
        let explicit = i.is_multiple_of(push.batch) || i + 1 == count;
        model.encode(&mut out, number, explicit.then_some(i as u32 + 1), false);
    }
    (out, count as u32)
}

/// Bytes touched before a fill in small pages and in huge ones, for each entry: more than any
/// daemon takes.
const WARM_EACH: [usize; 2] = [256, 64];

/// Touches as much free memory as the daemon is about to take, and frees it, from the daemon's
/// CPUs: each keeps a stock of what was freed on it. On a virtual machine that gives free memory
/// back to its host, whoever is first to touch it again waits for the host; without this, that
/// would be the daemon, and now and then half of its time.
pub fn warm(cpus: &[usize], keys: u32) -> Outcome<()> {
    let share = (keys as usize).div_ceil(cpus.len().max(1));
    match cpus {
        [] => touch(share),
        _ => cpus.chunks(1).try_for_each(|cpu| pin::on(cpu, || touch(share))),
    }
}

fn touch(keys: usize) -> Outcome<()> {
    let [small, huge] = WARM_EACH.map(|each| keys * each);
    let mut memory = vec![0u8; small];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    drop(std::hint::black_box(memory));
    let mut region = Region::reserve("warm", huge)?;
    region.grow_to(huge)?;
    region.bytes_mut().iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    Ok(())
}

/// Pushes the whole model into a daemon whose section is settled by `first`.
pub fn push(daemon: &Daemon, first: Peer, model: &Model, push: &Push) -> Outcome<Pushed> {
    let mut peers = vec![first];
    for n in 1..push.sessions {
        peers.push(join(daemon, n + 1, false)?);
    }
    let streams: Vec<_> = (0..push.sessions).map(|n| stream(model, push, n)).collect();
    let bytes = streams.iter().map(|(s, _)| s.len() as u64).sum();
    for peer in &mut peers {
        peer.control(Control::Heartbeat)?;
    }
    warm(&daemon.cpus, model.keys)?;
    let before = daemon.usage()?;
    let go = Barrier::new(push.sessions);
    let one = |(peer, (stream, last)): (Peer, &(Vec<u8>, u32))| {
        push_one(peer, stream, *last, push.limit, &go).map_err(|e| e.to_string())
    };
    let times: Vec<_> = thread::scope(|scope| {
        let pairs = peers.into_iter().zip(&streams);
        let running: Vec<_> = pairs.map(|pair| scope.spawn(|| one(pair))).collect();
        running.into_iter().map(|r| r.join()).collect()
    });
    let mut span: Option<(Instant, Instant)> = None;
    for time in times {
        let (b, e) = time.map_err(|_| "a pushing thread panicked")??;
        span = Some(span.map_or((b, e), |(begin, end)| (begin.min(b), end.max(e))));
    }
    let Some((begin, end)) = span else { return fail("nothing was pushed") };
    thread::sleep(REST);
    let after = daemon.usage()?;
    let used = after.since(before);
    Ok(Pushed { begin, took: end - begin, updates: model.updates, bytes, used, after })
}

/// What a full resync took.
#[derive(Clone, Copy, Debug)]
pub struct Taught {
    /// From the request to the end.
    pub took: Duration,
    /// To the first entry.
    pub first: Duration,
    /// Entries, each compared with the model.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
    /// CPU of the daemon.
    pub used: Usage,
}

/// Takes everything back on a fresh session and compares it with the model. `since`: when the
/// first of it was sent.
pub fn take(daemon: &Daemon, model: &Model, since: Instant) -> Outcome<Taught> {
    take_by(join(daemon, GENERATORS, false)?, daemon, model, since)
}

/// The same on a session that there is.
pub fn take_by(mut peer: Peer, daemon: &Daemon, model: &Model, since: Instant) -> Outcome<Taught> {
    let before = daemon.usage()?;
    let lesson = peer.resync(model.keys)?;
    thread::sleep(REST);
    let used = daemon.usage()?.since(before);
    if !lesson.finished {
        return fail("the lesson ended with 'partial'");
    }
    lesson.check(Check::new(model, since.elapsed()))?;
    let (entries, bytes) = (lesson.entries, lesson.bytes.len() as u64);
    Ok(Taught { took: lesson.took, first: lesson.first, entries, bytes, used })
}

/// Names of the figures.
pub mod metric {
    /// Updates of all sessions until the last ack.
    pub const LEARN: &str = "updates/s";
    /// CPU seconds of the daemon.
    pub const LEARN_CPU: &str = "learn CPU s per M";
    /// Wall clock of a push.
    pub const LEARN_WALL: &str = "learn wall s";
    /// Entries of a full resync.
    pub const TEACH: &str = "taught/s";
    /// CPU seconds of the daemon.
    pub const TEACH_CPU: &str = "teach CPU s per M";
    /// Wall clock of a full resync.
    pub const TEACH_WALL: &str = "teach wall s";
    /// From the request to the first entry.
    pub const TEACH_FIRST: &str = "first entry ms";
    /// Whole resident memory by entries.
    pub const RSS: &str = "RSS B per entry";
    /// Growth of resident memory by entries.
    pub const GROWTH: &str = "growth B per entry";
    /// Part of resident memory in huge pages.
    pub const HUGE: &str = "huge pages %";
}

/// Fill, take back, check: all figures of one run.
pub fn run(subject: &Subject, setup: &Setup, model: &Model, how: &Push) -> Outcome<Sample> {
    let daemon = Daemon::start(subject, setup)?;
    let first = join(&daemon, 1, true)?;
    let pushed = push(&daemon, first, model, how)?;
    let taught = take(&daemon, model, pushed.begin)?;
    let (updates, keys) = (pushed.updates as f64, f64::from(model.keys));
    let entries = taught.entries as f64;
    Ok(Sample::default()
        .with(metric::LEARN, updates / pushed.took.as_secs_f64())
        .with(metric::LEARN_CPU, pushed.used.cpu_s / updates * 1e6)
        .with(metric::LEARN_WALL, pushed.took.as_secs_f64())
        .with("learn MB/s", pushed.bytes as f64 / 1e6 / pushed.took.as_secs_f64())
        .with(metric::TEACH, entries / taught.took.as_secs_f64())
        .with(metric::TEACH_CPU, taught.used.cpu_s / entries * 1e6)
        .with(metric::TEACH_WALL, taught.took.as_secs_f64())
        .with(metric::TEACH_FIRST, taught.first.as_secs_f64() * 1e3)
        .with("teach MB/s", taught.bytes as f64 / 1e6 / taught.took.as_secs_f64())
        .with(metric::RSS, pushed.after.rss / keys)
        .with(metric::GROWTH, pushed.used.rss / keys)
        .with(metric::HUGE, 100.0 * pushed.after.huge / pushed.after.rss.max(1.0)))
}
