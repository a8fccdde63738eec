//! A pinned thread: its partitions, the sessions that live on it, and the tick that does
//! everything.
//!
//! Owns its parts of all tables and its sessions' states. Fed by the other shards (rings), by the
//! coordinator (a bounded channel) and by its own reader tasks. Rule: `Shard::tick` is the one
//! place where anything changes; tasks only move bytes.
//!
//! | file | what |
//! |---|---|
//! | `registry.rs` | which tables exist, shared by all shards |
//! | `message.rs` | what shards say to each other |
//! | `connection.rs` | the two tasks of a session's socket |
//! | `session_glue.rs` | a session's events, turned into messages |
//! | `apply.rs` | updates in: spread to the owners, applied |
//! | `flush.rs` | local changes out |
//! | `scan.rs` | lessons out |
//! | `parts.rs` | this shard's rows |
//! | `ticks.rs` | how long ticks took |
//! | `handover.rs` | the whole of it to another process |
//! | `translate.rs` | an old process's tables here |
//! | `status.rs` | what it says of itself |

pub mod apply;
pub mod connection;
pub mod flush;
pub mod handover;
pub mod message;
pub mod parts;
pub mod registry;
pub mod scan;
mod session_glue;
mod status;
#[cfg(test)]
mod tests;
mod ticks;
mod translate;

pub use handover::prepare;
pub use message::{ConnKey, KeyFilter};
pub use parts::{Parts, PartsError};
pub use registry::{Layout, Registry, Table};
pub use translate::{TableState, Translation};

use crate::Millis;
use crate::engine::mesh::MeshEnd;
use crate::engine::{Clock, Engine, Stream, breathe};
use crate::limits::{EVENT_RETRY_MS, EVENT_SLOTS, EXPIRE_EVERY_MS, TICK_MESSAGES, TRIM_EVERY_MS};
use crate::session::{CloseReason, Counters, Ledger, Refusal, Session, SessionParams};
use apply::Router;
use bytes::BytesMut;
use connection::{ConnIo, LocalBell};
use flush::Flush;
use handover::{Freeze, Inherited, Step};
use message::{Batch, CreditKind, Message};
use scan::Lessons;
use serde::{Deserialize, Serialize};
use slab::Slab;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use ticks::Ticks;
use tokio::sync::mpsc;

/// The coordinator's number for a session, never used again.
pub type SessionId = u64;

/// A session that was just established, on its way to its home.
pub struct Open {
    /// The coordinator's number for it.
    pub id: SessionId,
    /// Index of its peers section.
    pub section: usize,
    /// The socket, with nothing in flight.
    pub socket: OwnedFd,
    /// Bytes that came behind the handshake.
    pub leftover: Vec<u8>,
    /// What the handshake said.
    pub params: SessionParams,
    /// What the peer has confirmed in earlier sessions.
    pub ledger: Ledger,
    /// Keys the peer takes; `None`: all.
    pub filter: Option<KeyFilter>,
    /// We are the old process: teach without being asked.
    pub teach: bool,
}

/// A piece of work the coordinator wants done between two ticks' steps.
pub type Job = Box<dyn FnOnce(&mut Shard, Millis) + Send>;

/// What the coordinator tells a shard.
pub enum Control {
    /// A session is to live here.
    Open(Box<Open>),
    /// This session learns: the section has chosen it.
    Learn(SessionId),
    /// End this session at once.
    Close(SessionId),
    /// Run this, for the stats socket.
    Run(Job),
    /// A step of a hand-over to another process.
    Handover(Step),
    /// End all sessions and leave.
    Stop,
}

/// What a shard tells the coordinator.
#[derive(Debug)]
pub enum ShardEvent {
    /// The lesson a session learned is over and applied.
    LessonEnd {
        /// Session.
        id: SessionId,
        /// The teacher was up to date.
        finished: bool,
        /// Updates in it.
        updates: u64,
        /// Time it took.
        duration_ms: u64,
    },
    /// A peer asked for a lesson.
    Teaching(SessionId),
    /// A peer confirmed a lesson of ours.
    Taught {
        /// Session.
        id: SessionId,
        /// We were up to date.
        finished: bool,
        /// Entries sent.
        entries: u64,
        /// Time it took.
        duration_ms: u64,
    },
    /// A heartbeat came.
    Heard(SessionId),
    /// A peer's definition is not followed.
    Refused {
        /// Session.
        id: SessionId,
        /// Table name as the peer wrote it.
        name: Vec<u8>,
        /// Why.
        refusal: Refusal,
    },
    /// A session is over.
    Ended {
        /// Session.
        id: SessionId,
        /// What its peer has confirmed.
        ledger: Ledger,
        /// Its counts.
        counters: Box<Counters>,
        /// Why, when it was the session's own decision.
        close: Option<CloseReason>,
        /// Why the socket ended.
        socket: String,
    },
    /// Memory for a table cannot be had: updates are lost until it can.
    OutOfMemory(String),
}

/// Sums over one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Memory of rows and indexes.
    pub bytes: u64,
    /// Live entries.
    pub entries: u64,
    /// Entries evicted early because their table was full.
    pub evictions: u64,
    /// New entries refused because their table was full.
    pub refused: u64,
    /// Updates of peers written into tables since the start.
    pub applied: u64,
    /// Updates received in the sessions of now.
    pub updates_in: u64,
    /// Updates and lesson entries sent in them.
    pub updates_out: u64,
    /// Updates ignored in them.
    pub updates_ignored: u64,
    /// Bytes sent in them.
    pub bytes_out: u64,
    /// Time spent in ticks since the start, in µs.
    pub busy_us: u64,
    /// 99 of 100 ticks took at most this long, in µs.
    pub tick_p99_us: u64,
    /// The longest tick, in µs.
    pub tick_max_us: u64,
}

/// One session on its home.
struct Conn {
    key: ConnKey,
    id: SessionId,
    section: usize,
    filter: Option<KeyFilter>,
    timed: bool,
    session: Session<Layout>,
    io: Rc<ConnIo>,
    /// In the shard's list of those to flush.
    unflushed: bool,
    /// A received buffer that waits until the session wants to read.
    held: Option<BytesMut>,
    /// Rounds that wait for shards: (round, shards missing).
    rounds: Vec<(u64, usize)>,
    /// The lesson under way: number, owners missing, log positions so far.
    lesson: Option<LessonOut>,
    close: Option<CloseReason>,
    /// The coordinator has ended it: an update that waits is not waited for.
    told: bool,
    /// When it is cut off, whether or not what it was to be told at its end is written.
    cut_at: Option<Millis>,
}

impl Conn {
    /// The coordinator has done with it.
    fn end(&mut self) {
        self.told = true;
        self.io.close();
    }

    /// Nothing that was received waits to be looked at. (What is held for an old process's lesson
    /// was never acked, and comes again with the peer's next session.)
    fn has_counted(&self) -> bool {
        self.held.is_none() || self.told && self.session.is_held()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct LessonOut {
    number: u32,
    missing: usize,
    tails: Vec<(usize, usize, u64)>,
}

/// See the module head.
pub struct Shard {
    id: usize,
    engine: Engine,
    /// This shard's rows.
    pub parts: Parts,
    mesh: MeshEnd<Message>,
    bell: LocalBell,
    conns: Slab<Conn>,
    /// Sessions with something queued since they were flushed.
    unflushed: Vec<usize>,
    generation: u32,
    router: Router,
    flush: Flush,
    lessons: Lessons,
    control: mpsc::Receiver<Control>,
    events: mpsc::Sender<ShardEvent>,
    unsent: VecDeque<ShardEvent>,
    events_sent: u64,
    freeze: Freeze,
    /// By section: whether a lesson we teach ends with FINISHED.
    up_to_date: Arc<Vec<AtomicBool>>,
    /// By section: whether remotes' updates wait for the old process's lesson.
    waits: Arc<Vec<AtomicBool>>,
    last_trim: Millis,
    ticks: Ticks,
    stopping: bool,
}

/// What a shard is made of.
pub struct ShardParams {
    /// Number of this shard.
    pub id: usize,
    /// I/O engine.
    pub engine: Engine,
    /// All tables.
    pub registry: Arc<Registry>,
    /// Rings to and from the others.
    pub mesh: MeshEnd<Message>,
    /// Everybody's bells.
    pub bells: Arc<Vec<crate::engine::Doorbell>>,
    /// From the coordinator.
    pub control: mpsc::Receiver<Control>,
    /// To the coordinator.
    pub events: mpsc::Sender<ShardEvent>,
    /// Most updates in one batch or chunk (`tune.peers.max-updates-at-once`).
    pub updates_at_once: Option<u32>,
    /// By section: up to date.
    pub up_to_date: Arc<Vec<AtomicBool>>,
    /// By section: an old process is to teach before remotes' updates count. Ring every bell after
    /// taking it back.
    pub waits: Arc<Vec<AtomicBool>>,
    /// What another process has handed over.
    pub inherited: Option<Inherited>,
}

/// Runs a shard to its end, on its own thread.
pub async fn run(mut shard: Shard, clock: Clock) {
    let bell = shard.bell.clone();
    loop {
        bell.clear();
        let began_us = clock.now_us();
        let more = shard.tick(clock.now());
        shard.ticks.record(clock.now_us() - began_us);
        if shard.stopping && shard.conns.is_empty() {
            // The system takes the tables back faster than they can be taken apart.
            std::mem::forget(shard);
            return;
        }
        if more {
            // Not yield_now: only a real wait lets the runtime submit what the tasks have queued.
            breathe(shard.engine).await;
            continue;
        }
        let now = clock.now();
        let sleep = shard.next_deadline(now).map(|at| at.since(now).max(1));
        let rings = bell.wait(|| shard.has_work());
        match sleep {
            // Dropping the bell's wait is safe: it holds no I/O.
            Some(ms) => {
                let limit = std::time::Duration::from_millis(ms);
                let _ = tokio::time::timeout(limit, rings).await;
            }
            None => rings.await,
        }
    }
}

impl Shard {
    fn new(params: ShardParams) -> Shard {
        let shards = params.mesh.shards();
        Shard {
            id: params.id,
            engine: params.engine,
            parts: Parts::new(params.id, params.registry),
            mesh: params.mesh,
            bell: LocalBell::new(params.bells, params.id),
            conns: Slab::new(),
            unflushed: Vec::new(),
            generation: 0,
            router: Router::new(shards),
            flush: Flush::new(params.updates_at_once),
            lessons: Lessons::new(params.updates_at_once),
            control: params.control,
            events: params.events,
            unsent: VecDeque::new(),
            events_sent: 0,
            freeze: Freeze::default(),
            up_to_date: params.up_to_date,
            waits: params.waits,
            last_trim: Millis(0),
            ticks: Ticks::new(),
            stopping: false,
        }
    }

    /// Everything a shard does, in order. True when there is more to do at once.
    fn tick(&mut self, now: Millis) -> bool {
        if !self.is_working() {
            return self.frozen_tick(now);
        }
        let mut more = self.take_controls(now);
        more |= self.take_messages(now);
        more |= self.read_sessions(now);
        self.run_timers(now);
        more |= self.parts.expire(now);
        more |= self.lessons.run(&mut self.parts, &mut self.mesh, now);
        more |= self.flush.run(&mut self.parts, &mut self.mesh, now);
        more |= self.take_own(now);
        self.reap(now);
        let all = now.since(self.last_trim) >= TRIM_EVERY_MS;
        if all {
            self.last_trim = now;
        }
        more |= self.parts.settle(now, all);
        for (shard, table) in self.parts.take_crowded() {
            self.mesh.send(shard, Message::Crowded(table));
        }
        self.mesh.flush();
        self.flush_sessions();
        self.send_events();
        more
    }

    fn has_work(&self) -> bool {
        self.mesh.has_work() || !self.control.is_empty()
    }

    fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let events = (!self.unsent.is_empty()).then(|| now.plus(EVENT_RETRY_MS));
        if !self.is_working() {
            return events;
        }
        let sessions = self.conns.iter().filter_map(|(_, c)| c.session.poll_timeout()).min();
        // Rows are exact on read; sweeping them a few at a time would only keep the CPU awake.
        let rows = self.parts.next_deadline().map(|at| at.max(now.plus(EXPIRE_EVERY_MS)));
        let cuts = self.conns.iter().filter_map(|(_, c)| c.cut_at).min();
        [sessions, rows, cuts, events, self.flush.next_deadline()].into_iter().flatten().min()
    }

    fn take_controls(&mut self, now: Millis) -> bool {
        for _ in 0..TICK_MESSAGES {
            let Ok(control) = self.control.try_recv() else { return false };
            if let Some(control) = self.may_wait(control) {
                self.take_control(control, now);
            }
        }
        true
    }

    fn take_control(&mut self, control: Control, now: Millis) {
        match control {
            Control::Open(open) => self.open(*open, now),
            Control::Learn(id) => self.with_session(id, now, |s| s.handle_learn(now)),
            Control::Close(id) => {
                if let Some((_, conn)) = self.conns.iter_mut().find(|(_, c)| c.id == id) {
                    conn.end();
                }
            }
            Control::Run(job) => {
                job(self, now);
                self.flush.changed();
            }
            Control::Handover(step) => self.handover(step, now),
            Control::Stop => {
                self.stopping = true;
                self.conns.iter_mut().for_each(|(_, c)| c.end());
            }
        }
    }

    fn take_messages(&mut self, now: Millis) -> bool {
        for _ in 0..TICK_MESSAGES {
            let Some(message) = self.mesh.receive() else { return false };
            self.take_message(message, now);
        }
        true
    }

    /// Messages behind the runs that made them: chunks and changes for sessions of our own are on
    /// the wire when this tick ends. True when there are some that the next tick must act on.
    fn take_own(&mut self, now: Millis) -> bool {
        for _ in 0..TICK_MESSAGES {
            let Some(message) = self.mesh.receive() else { return false };
            let out = matches!(message, Message::Changes(..) | Message::Chunk(_));
            self.take_message(message, now);
            if !out {
                return true;
            }
        }
        true
    }

    fn take_message(&mut self, message: Message, now: Millis) {
        let shards = self.mesh.shards();
        match message {
            Message::Apply(batch) => self.apply(batch, now),
            Message::Applied { conn, round } => self.applied(conn, round, now),
            Message::Subscribe(wish) => self.flush.subscribe(*wish, self.id, shards, now),
            Message::Unsubscribe(conn) => self.flush.unsubscribe(conn),
            Message::Changes(key, batch) => self.changes(key, *batch, now),
            Message::Crowded(table) => self.parts.touch(table),
            Message::Teach(wish) => self.lessons.start(*wish, &mut self.parts, shards),
            Message::StopTeaching(conn) => self.lessons.stop(conn),
            Message::Chunk(chunk) => self.chunk(*chunk, now),
            Message::PartTaught(part) => self.part_taught(*part, now),
            Message::Credit { conn, kind: CreditKind::Changes } => self.flush.credit(conn),
            Message::Credit { conn, kind: CreditKind::Lesson } => self.lessons.credit(conn),
        }
    }

    /// Applies a batch and tells its session's home.
    fn apply(&mut self, batch: Box<Batch>, now: Millis) {
        if let Err(error) = self.parts.apply(&batch, now) {
            self.event(ShardEvent::OutOfMemory(error.to_string()));
        }
        let (conn, round) = (batch.conn, batch.round);
        self.router.recycle(batch);
        self.mesh.send(usize::from(conn.shard), Message::Applied { conn, round });
    }

    fn run_timers(&mut self, now: Millis) {
        let due: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, c)| c.session.poll_timeout().is_some_and(|at| at <= now))
            .map(|(slot, _)| slot)
            .collect();
        for slot in due {
            self.conns[slot].session.handle_timeout(now);
            self.drain(slot, now);
        }
        for (_, conn) in self.conns.iter_mut().filter(|(_, c)| c.cut_at.is_some_and(|at| at <= now))
        {
            conn.cut_at = None;
            conn.io.close();
        }
    }

    /// Takes over a new session.
    fn open(&mut self, open: Open, now: Millis) {
        let stream = match Stream::new(self.engine, open.socket) {
            Ok(stream) => stream,
            Err(error) => {
                let (ledger, counters) = (open.ledger, Box::default());
                let socket = format!("socket: {error}");
                self.event(ShardEvent::Ended {
                    id: open.id,
                    ledger,
                    counters,
                    close: None,
                    socket,
                });
                return;
            }
        };
        self.generation = self.generation.wrapping_add(1);
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        let key = ConnKey { shard: self.id as u16, slot: slot as u32, generation: self.generation };
        let mut session = Session::new(open.params, open.ledger, now);
        if open.teach {
            session.handle_teach(now);
        } else if !open.params.local && self.waits[open.section].load(Ordering::Relaxed) {
            session.hold();
        }
        entry.insert(Conn {
            key,
            id: open.id,
            section: open.section,
            filter: open.filter,
            timed: open.params.minor >= 1,
            session,
            io: ConnIo::start(stream, &open.leftover, self.bell.clone()),
            unflushed: false,
            held: None,
            rounds: Vec::new(),
            lesson: None,
            close: None,
            told: false,
            cut_at: None,
        });
        if self.stopping {
            self.conns[slot].end();
        }
        self.drain(slot, now);
    }

    /// Removes sessions whose sockets have ended.
    fn reap(&mut self, now: Millis) {
        let ended: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, c)| c.io.ended().is_some() && c.has_counted())
            .map(|(slot, _)| slot)
            .collect();
        for slot in ended {
            // What came before the end counts.
            self.read_session(slot, now);
            let conn = self.conns.remove(slot);
            conn.io.close();
            for shard in 0..self.mesh.shards() {
                self.mesh.send(shard, Message::Unsubscribe(conn.key));
                self.mesh.send(shard, Message::StopTeaching(conn.key));
            }
            let counters = Box::new(*conn.session.counters());
            self.event(ShardEvent::Ended {
                id: conn.id,
                counters,
                close: conn.close,
                socket: conn.io.ended().unwrap_or_default(),
                ledger: conn.session.into_ledger(),
            });
        }
    }

    fn event(&mut self, event: ShardEvent) {
        // What a peer can cause without end is only news; the others are bounded by the sessions.
        let news = !matches!(event, ShardEvent::Ended { .. } | ShardEvent::LessonEnd { .. });
        if self.unsent.len() < EVENT_SLOTS || !news {
            self.unsent.push_back(event);
        }
    }

    /// Gives events to the coordinator; what has no room waits for the next tick.
    fn send_events(&mut self) {
        while let Some(event) = self.unsent.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                self.unsent.push_front(event);
                return;
            }
            self.events_sent += 1;
        }
    }

    fn is_up_to_date(&self, section: usize) -> bool {
        self.up_to_date[section].load(Ordering::Relaxed)
    }
}
