//! From a change to its arrival: at one peer or many, at a given rate or as fast as it goes.
//!
//! Owns the sessions of one run and its histogram. Called by the works `latency` and `fanout`.
//! Rule: an update counts from the moment it was due, not from when this tool found time to send
//! it, so that a stall is charged to every update that it delayed (no coordinated omission). One
//! busy thread sends and receives, so that no wake-up of ours is in the figures.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use stickring::wire::{Definition, KeyShape, Message, Update, message};

use crate::daemon::{Daemon, Setup, Subject};
use crate::fill::{join, take, warm};
use crate::keys::Keys;
use crate::model::{Model, Origin, TABLE, TABLE_ID};
use crate::peer::{HEARTBEAT, Peer};
use crate::rounds::Sample;
use crate::{Outcome, fail};

/// What has not arrived by then, behind the last change, never will.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Commands in one line of the stats socket, at a given rate and as fast as it goes.
const COMMANDS: [usize; 2] = [16, 128];
/// Longest latency a histogram holds, in ns.
const LONGEST_NS: u64 = 120_000_000_000;

/// What changes, and what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `set table` on the stats socket; its update arrives at every receiver.
    Command,
    /// An update of ours; its ack comes back.
    Update,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// See [`Change`].
    pub change: Change,
    /// Changes a second; none: as fast as `window` lets them.
    pub rate: Option<f64>,
    /// How long.
    pub seconds: f64,
    /// Without a rate: changes that have not arrived everywhere yet.
    pub window: u64,
    /// Peers that receive.
    pub receivers: usize,
}

impl Plan {
    /// The most changes it makes.
    pub fn changes_max(&self) -> u32 {
        match self.rate {
            Some(rate) => (rate * self.seconds) as u32,
            // More than any stats socket is known to take: then it ends early.
            None => (1e6 * self.seconds) as u32,
        }
        .max(1)
    }
}

/// A peer that receives updates and acknowledges them, as any node does.
struct Receiver {
    peer: Peer,
    /// Changes that came (or were acked) so far.
    arrived: u64,
    uid: u32,
    /// Their id of our table, once defined.
    table: Option<i32>,
}

impl Receiver {
    /// Reads what is there; `each` gets the number of each change that came.
    fn receive(&mut self, model: &Model, each: &mut dyn FnMut(u32)) -> Outcome<()> {
        if !self.peer.inbox.fill()? {
            return Ok(());
        }
        let before = self.uid;
        while let Some(f) = self.peer.inbox.next()? {
            match Message::of(&f)? {
                Message::Define(payload) => {
                    let theirs = Definition::decode(payload)?;
                    self.table = (theirs.name == TABLE.as_bytes()).then_some(theirs.id);
                }
                Message::Update(form, payload) if self.table.is_some() => {
                    let update = Update::decode(form, payload, KeyShape::Fixed(4))?;
                    self.uid = update.uid.unwrap_or(self.uid.wrapping_add(1));
                    self.arrived += 1;
                    each(model.order.index(u32::from_be_bytes(update.key.try_into()?)));
                }
                Message::Ack { table: TABLE_ID, uid } => {
                    (self.arrived as u32..uid).for_each(&mut *each);
                    self.arrived = self.arrived.max(u64::from(uid));
                }
                Message::Error(code) => return fail(format!("the daemon sent error {code}")),
                _ => {}
            }
        }
        if let (Some(table), true) = (self.table, self.uid != before) {
            let mut ack = Vec::with_capacity(16);
            message::encode_ack(&mut ack, table, self.uid);
            self.peer.sock.write_all(&ack)?;
        }
        Ok(())
    }
}

/// Where changes are made; bytes wait here while a socket is full.
struct Source {
    change: Change,
    cli: Option<UnixStream>,
    /// Commands in one line.
    commands: usize,
    out: Vec<u8>,
    junk: Vec<u8>,
}

impl Source {
    fn new(daemon: &Daemon, plan: &Plan) -> Outcome<Source> {
        let (change, commands) = (plan.change, COMMANDS[usize::from(plan.rate.is_none())]);
        let mut source =
            Source { change, cli: None, commands, out: Vec::new(), junk: vec![0; 1 << 16] };
        match change {
            Change::Update => message::encode_define(&mut source.out, &crate::model::definition()),
            Change::Command => {
                let mut cli = UnixStream::connect(&daemon.socket)?;
                cli.set_read_timeout(Some(Duration::from_secs(5)))?;
                cli.write_all(b"prompt\n")?;
                let n = cli.read(&mut source.junk)?;
                if !source.junk[..n].contains(&b'>') {
                    return fail("the stats socket gives no prompt");
                }
                cli.set_nonblocking(true)?;
                source.cli = Some(cli);
            }
        }
        Ok(source)
    }

    /// Adds changes `from..to`.
    fn queue(&mut self, model: &Model, from: u64, to: u64) -> Outcome<()> {
        for number in from..to {
            if self.change == Change::Update {
                model.encode(&mut self.out, number, Some(number as u32 + 1), false);
                continue;
            }
            let key = std::net::Ipv4Addr::from(model.order.key(number as u32));
            let gpc0 = model.cli_value(number as u32);
            let last =
                (number - from) as usize % self.commands == self.commands - 1 || number + 1 == to;
            let end = if last { '\n' } else { ';' };
            write!(self.out, "set table {TABLE} key {key} data.gpc0 {gpc0}{end}")?;
        }
        Ok(())
    }

    /// Writes what the socket takes, and reads the answers away.
    fn flush(&mut self, peer: &mut Peer) -> Outcome<()> {
        if !self.out.is_empty() {
            let written = match &mut self.cli {
                Some(cli) => cli.write(&self.out),
                None => peer.sock.write(&self.out),
            };
            self.out.drain(..unless_blocked(written)?);
        }
        let Some(cli) = &mut self.cli else { return Ok(()) };
        let n = unless_blocked(cli.read(&mut self.junk))?;
        // Only line feeds and prompts may come: anything else is an error message.
        if self.junk[..n].iter().any(u8::is_ascii_alphabetic) {
            let text = String::from_utf8_lossy(&self.junk[..n.min(200)]).into_owned();
            return fail(format!("the stats socket says: {}", text.trim()));
        }
        Ok(())
    }
}

fn unless_blocked(result: std::io::Result<usize>) -> Outcome<usize> {
    match result {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
        other => Ok(other?),
    }
}

/// What came of a plan.
struct Driven {
    /// When the first change was due.
    begin: Instant,
    sent: u64,
    /// From there to the last arrival.
    took: Duration,
    /// In ns, one for each change and receiver.
    latencies: Histogram<u64>,
}

fn drive(
    source: &mut Source,
    receivers: &mut [Receiver],
    model: &Model,
    plan: &Plan,
) -> Outcome<Driven> {
    let mut latencies = Histogram::new_with_bounds(1, LONGEST_NS, 3)?;
    let mut due_at: Vec<u64> = Vec::with_capacity(plan.changes_max() as usize);
    let (begin, most) = (Instant::now(), u64::from(plan.changes_max()));
    let stop = Duration::from_secs_f64(plan.seconds);
    let mut beat = begin;
    loop {
        let now = begin.elapsed();
        let sent = due_at.len() as u64;
        let over = now >= stop || sent == most;
        let slowest = receivers.iter().map(|r| r.arrived).min().unwrap_or(0);
        if over && slowest >= sent {
            return Ok(Driven { begin, sent, took: now, latencies });
        }
        if now > stop + DRAIN_MAX {
            return fail(format!("{slowest} of {sent} changes have arrived behind {now:?}"));
        }
        let due = match plan.rate {
            _ if over => sent,
            Some(rate) => most.min((now.as_secs_f64() * rate) as u64 + 1),
            None => most.min(slowest + plan.window).max(sent),
        };
        source.queue(model, sent, due)?;
        due_at.extend((sent..due).map(|n| match plan.rate {
            Some(rate) => (n as f64 * 1e9 / rate) as u64,
            None => now.as_nanos() as u64,
        }));
        source.flush(&mut receivers[0].peer)?;
        for receiver in receivers.iter_mut() {
            let mut wild = None;
            receiver.receive(model, &mut |number| {
                let now = begin.elapsed().as_nanos() as u64;
                match due_at.get(number as usize) {
                    Some(due) => latencies.saturating_record(now.saturating_sub(*due).max(1)),
                    None => wild = Some(number),
                }
            })?;
            if let Some(number) = wild {
                return fail(format!("change {number} came before it was made"));
            }
        }
        if beat.elapsed() > HEARTBEAT {
            beat = Instant::now();
            for receiver in receivers.iter_mut().filter(|_| source.change == Change::Command) {
                receiver.peer.beat()?;
            }
        }
    }
}

/// Names of the figures.
pub mod metric {
    /// Changes that arrived everywhere.
    pub const RATE: &str = "changes/s";
    /// Changes times receivers.
    pub const DELIVERED: &str = "deliveries/s";
    /// Half of them were faster.
    pub const P50: &str = "p50 us";
    /// Nine of ten.
    pub const P90: &str = "p90 us";
    /// 99 of 100.
    pub const P99: &str = "p99 us";
    /// 999 of 1000.
    pub const P999: &str = "p99.9 us";
    /// The slowest.
    pub const MAX: &str = "max us";
    /// CPU of the daemon by changes.
    pub const CPU: &str = "CPU s per M";
}

/// One run: a fresh daemon, the plan, the check.
pub fn run(subject: &Subject, setup: &Setup, order: Keys, plan: &Plan) -> Outcome<Sample> {
    let setup = Setup { keys: plan.changes_max(), ..setup.clone() };
    let daemon = Daemon::start(subject, &setup)?;
    let origin = if plan.change == Change::Update { Origin::Peer } else { Origin::Cli };
    let model = Model::once(order, plan.changes_max(), origin);
    let mut receivers = Vec::new();
    for n in 1..=plan.receivers {
        let peer = join(&daemon, n, n == 1)?;
        peer.sock.set_nonblocking(true)?;
        receivers.push(Receiver { peer, arrived: 0, uid: 0, table: None });
    }
    let mut source = Source::new(&daemon, plan)?;
    warm(&setup.cpus, plan.changes_max())?;
    let before = daemon.usage()?;
    let driven = drive(&mut source, &mut receivers, &model, plan)?;
    let used = daemon.usage()?.since(before);
    drop(receivers);
    let sent = driven.sent as f64;
    let model = Model::once(order, driven.sent as u32, origin);
    take(&daemon, &model, driven.begin)?;
    let us = |q: f64| driven.latencies.value_at_quantile(q) as f64 / 1e3;
    let quantiles = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999];
    let mut sample = Sample::default()
        .with(metric::RATE, sent / driven.took.as_secs_f64())
        .with(metric::DELIVERED, sent * plan.receivers as f64 / driven.took.as_secs_f64())
        .with(metric::P50, us(0.5))
        .with(metric::P90, us(0.9))
        .with(metric::P99, us(0.99))
        .with(metric::P999, us(0.999))
        .with(metric::MAX, us(1.0))
        .with(metric::CPU, used.cpu_s / sent * 1e6);
    if plan.rate.is_none() {
        return Ok(sample);
    }
    let curve = quantiles.iter().map(|q| (1.0 / (1.0 - q), us(*q))).collect();
    sample.curves.insert("latency by percentile", curve);
    Ok(sample)
}
