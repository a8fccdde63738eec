//! A shard on its way to another process: standing still, as data, and at work again there.
//!
//! The coordinator freezes all shards ([`Step::Freeze`]): sockets stop between two bytes, what was
//! received and is on its way between shards is applied, nothing new begins. Once all are at rest
//! ([`Step::Probe`]), each is exported ([`Step::Export`]). From then on it touches nothing: either
//! it is thawed ([`Step::Thaw`]) and goes on as if nothing had happened, or the process ends and
//! the other one has taken its place. Rule: nothing of this needs a peer's help, or looks at rows.

use super::apply::SectionTables;
use super::connection::{ConnIo, Halted, Tx};
use super::flush::SubscriberState;
use super::message::{ConnKey, CreditKind, KeyFilter, Message};
use super::scan::LessonState;
use super::{Conn, Control, LessonOut, SessionId, Shard, ShardEvent, ShardParams, Translation};
use crate::Millis;
use crate::engine::{Clock, Stream};
use crate::session::{Ledger, NotAtRest, Session, SessionState};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the coordinator has a shard do, in this order.
pub enum Step {
    /// Come to rest. Commands of the stats socket wait.
    Freeze,
    /// Say how far it is.
    Probe(oneshot::Sender<Probe>),
    /// Give everything away, as copies and second descriptors, and touch nothing any more.
    Export(oneshot::Sender<Result<Exported, String>>),
    /// Go on.
    Thaw,
}

/// How far a shard has come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// No task of a socket holds bytes, and no event waits here.
    pub halted: bool,
    /// It never will be: the system cannot interrupt a read.
    pub failed: Option<String>,
    /// Messages sent to and received from shards since the start.
    pub traffic: (u64, u64),
    /// Events sent to the coordinator since the start.
    pub events: u64,
}

/// A shard as data.
pub struct Exported {
    /// Everything but memory and sockets.
    pub state: Vec<u8>,
    /// Sockets and memory, in the state's order.
    pub fds: Vec<OwnedFd>,
    /// Sessions in it.
    pub sessions: usize,
}

/// What a new process's shard begins with.
pub struct Inherited {
    /// See [`Exported::state`].
    pub state: Bytes,
    /// See [`Exported::fds`].
    pub fds: Vec<OwnedFd>,
    /// Its tables here.
    pub tables: Arc<Translation>,
    /// Told once whether all of it fits.
    pub built: std::sync::mpsc::Sender<Result<(), String>>,
    /// Everything is ours from now on. An error: it never will be.
    pub go: oneshot::Receiver<()>,
}

#[derive(Serialize, Deserialize)]
struct ConnState {
    key: ConnKey,
    id: SessionId,
    section: usize,
    filter: Option<KeyFilter>,
    timed: bool,
    session: SessionState,
    received: Bytes,
    queue: Vec<Tx>,
    credits: Vec<(usize, CreditKind)>,
    lesson: Option<LessonOut>,
}

#[derive(Serialize, Deserialize)]
struct PartState {
    table: usize,
    header: Vec<u8>,
    fds: usize,
}

#[derive(Serialize, Deserialize)]
struct ShardState {
    generation: u32,
    conns: Vec<ConnState>,
    /// Sessions that ended meanwhile, which the coordinator has not heard, with their sections.
    ended: Vec<(SessionId, usize, Ledger)>,
    subscribers: Vec<SubscriberState>,
    lessons: Vec<LessonState>,
    parts: Vec<PartState>,
}

/// A session that waits for its socket to be ours.
pub(super) struct Waiting {
    state: ConnState,
    session: Session<super::Layout>,
    socket: OwnedFd,
}

/// Whether the shard works, and what waits while it does not.
#[derive(Default)]
pub(super) struct Freeze {
    stage: Stage,
    deferred: Vec<Control>,
    failed: Rc<RefCell<Option<String>>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Working,
    Freezing,
    /// Exported: whatever is here may belong to another process.
    Frozen,
}

/// Makes a shard, on its own thread; `None` when what it was to inherit does not fit, or is not
/// ours in the end.
pub async fn prepare(mut params: ShardParams, clock: Clock) -> Option<Shard> {
    let inherited = params.inherited.take();
    let mut shard = Shard::new(params);
    if let Some(Inherited { state, fds, tables, built, go }) = inherited {
        let adopted = shard.adopt(&state, fds, &tables);
        let (waiting, told) = match adopted {
            Ok(waiting) => (Some(waiting), built.send(Ok(()))),
            Err(error) => (None, built.send(Err(error))),
        };
        let waiting = waiting.filter(|_| told.is_ok())?;
        go.await.ok()?;
        shard.resume(waiting, clock.now());
    }
    Some(shard)
}

impl Shard {
    /// True while the shard does its work.
    pub(super) fn is_working(&self) -> bool {
        self.freeze.stage == Stage::Working
    }

    /// One step of a hand-over.
    pub(super) fn handover(&mut self, step: Step, now: Millis) {
        match step {
            Step::Freeze => self.begin_freeze(),
            // The coordinator may have given up meanwhile.
            Step::Probe(reply) => drop(reply.send(self.probe())),
            Step::Export(reply) => {
                self.freeze.stage = Stage::Frozen;
                drop(reply.send(self.export()));
            }
            Step::Thaw => self.thaw(now),
        }
    }

    fn begin_freeze(&mut self) {
        self.freeze.stage = Stage::Freezing;
        self.freeze.failed.take();
        for (_, conn) in &self.conns {
            if conn.close.is_some() {
                // It is over; its last words are not waited for.
                conn.io.close();
            }
            let (io, failed, engine) = (conn.io.clone(), self.freeze.failed.clone(), self.engine);
            tokio::task::spawn_local(async move {
                if let Err(error) = io.freeze(engine).await {
                    *failed.borrow_mut() = Some(error.to_string());
                }
            });
        }
    }

    fn probe(&self) -> Probe {
        let still = |io: &ConnIo| io.is_halted() || io.ended().is_some();
        let halted = self.conns.iter().all(|(_, c)| still(&c.io)) && self.unsent.is_empty();
        Probe {
            halted,
            failed: self.freeze.failed.borrow().clone(),
            traffic: self.mesh.traffic(),
            events: self.events_sent,
        }
    }

    /// The tick while the shard is coming to rest: what is under way arrives, nothing begins.
    pub(super) fn frozen_tick(&mut self, now: Millis) -> bool {
        let mut more = self.take_controls(now);
        if self.freeze.stage == Stage::Freezing {
            more |= self.take_messages(now);
            self.mesh.flush();
            self.send_events();
        }
        more
    }

    /// Keeps a command for later, while it would disturb; gives it back when it may be carried out.
    pub(super) fn may_wait(&mut self, control: Control) -> Option<Control> {
        let now = matches!(
            (&control, self.freeze.stage),
            (Control::Handover(_), _)
                | (_, Stage::Working)
                | (Control::Learn(_) | Control::Close(_), Stage::Freezing)
        );
        if now {
            return Some(control);
        }
        self.freeze.deferred.push(control);
        None
    }

    fn thaw(&mut self, now: Millis) {
        self.freeze.stage = Stage::Working;
        for (_, conn) in &mut self.conns {
            conn.session.handle_resumed(now);
            conn.io.thaw();
        }
        for control in std::mem::take(&mut self.freeze.deferred) {
            self.take_control(control, now);
        }
        self.flush.changed();
        self.bell.ring();
    }

    fn export(&mut self) -> Result<Exported, String> {
        if self.mesh.has_work() || !self.probe().halted {
            return Err("a shard is not at rest".to_string());
        }
        let (mut conns, mut ended, mut fds) = (Vec::new(), Vec::new(), Vec::new());
        for (_, conn) in &self.conns {
            let session = match conn.session.export() {
                Ok(session) if conn.io.ended().is_none() && conn.close.is_none() => session,
                Ok(_) | Err(NotAtRest::Closed) => {
                    ended.push((conn.id, conn.section, conn.session.ledger().clone()));
                    continue;
                }
                Err(error) => return Err(format!("a session is not at rest: {error}")),
            };
            fds.push(conn.io.duplicate().map_err(|e| format!("socket: {e}"))?);
            let Halted { received, queue, credits } = conn.io.halted(conn.held.as_ref());
            conns.push(ConnState {
                key: conn.key,
                id: conn.id,
                section: conn.section,
                filter: conn.filter,
                timed: conn.timed,
                session,
                received: received.freeze(),
                queue: queue.into(),
                credits,
                lesson: conn.lesson.clone(),
            });
        }
        let mut parts = Vec::new();
        for (table, header, memory) in self.parts.export()? {
            parts.push(PartState { table, header, fds: memory.len() });
            fds.extend(memory);
        }
        let sessions = conns.len();
        let state = ShardState {
            generation: self.generation,
            conns,
            ended,
            subscribers: self.flush.export(),
            lessons: self.lessons.export(),
            parts,
        };
        let state = postcard::to_allocvec(&state).map_err(|e| format!("state: {e}"))?;
        Ok(Exported { state, fds, sessions })
    }

    /// Builds everything another process has exported, but touches no socket and no row. The
    /// sessions are given to [`Shard::resume`], but those of a section whose tables are others:
    /// they end with the other process, and what their peers have confirmed is kept.
    pub(super) fn adopt(
        &mut self,
        state: &[u8],
        fds: Vec<OwnedFd>,
        tables: &Translation,
    ) -> Result<Vec<Waiting>, String> {
        let state: ShardState = postcard::from_bytes(state).map_err(|e| format!("state: {e}"))?;
        let sockets = state.conns.len();
        let memory: usize = state.parts.iter().map(|p| p.fds).sum();
        if fds.len() != sockets + memory {
            return Err(format!("{} descriptors for {sockets} sessions and {memory}", fds.len()));
        }
        let mut fds = fds.into_iter();
        let (mut waiting, mut ended) = (Vec::new(), state.ended);
        for (conn, socket) in state.conns.into_iter().zip(fds.by_ref().take(sockets)) {
            if tables.ends(conn.section) {
                ended.push((conn.id, conn.section, conn.session.into_ledger()));
                continue;
            }
            let session = self.adopt_session(&conn)?;
            waiting.push(Waiting { state: conn, session, socket });
        }
        for part in state.parts {
            let memory: Vec<OwnedFd> = fds.by_ref().take(part.fds).collect();
            match tables.id(part.table).ok_or("a table that does not exist there")? {
                Some(id) => self.parts.adopt(id, &part.header, memory)?,
                None => drop(memory),
            }
        }
        let shards = self.mesh.shards();
        for subscriber in state.subscribers.into_iter().filter(|s| !tables.ends(s.section)) {
            self.fits(subscriber.conn, 0)?;
            if !self.flush.import(subscriber, self.id, shards) {
                return Err("a subscription does not fit".to_string());
            }
        }
        for lesson in state.lessons.into_iter().filter(|l| !tables.ends(l.wish.section)) {
            self.fits(lesson.wish.conn, lesson.wish.section)?;
            if !self.lessons.import(lesson, &self.parts, shards) {
                return Err("a lesson does not fit".to_string());
            }
        }
        self.generation = state.generation;
        for (id, section, ledger) in ended {
            self.ended(id, tables.ledger(section, ledger), "closed during the hand-over");
        }
        Ok(waiting)
    }

    /// Numbers that this shard uses as indexes.
    fn fits(&self, key: ConnKey, section: usize) -> Result<(), String> {
        if usize::from(key.shard) < self.mesh.shards() && section < self.up_to_date.len() {
            return Ok(());
        }
        Err("a session of another node".to_string())
    }

    fn adopt_session(&self, conn: &ConnState) -> Result<Session<super::Layout>, String> {
        self.fits(conn.key, conn.section)?;
        let shards = self.mesh.shards();
        let queued = conn.queue.iter().filter_map(|tx| match tx {
            Tx::Credit(shard, _) => Some(*shard),
            Tx::Bytes(_) => None,
        });
        let mut credits = queued.chain(conn.credits.iter().map(|(shard, _)| *shard));
        if usize::from(conn.key.shard) != self.id || credits.any(|shard| shard >= shards) {
            return Err("a session of another shard".to_string());
        }
        let registry = self.parts.registry().clone();
        let mut tables = SectionTables { registry: &registry, section: conn.section };
        Session::import(conn.session.clone(), &mut tables).map_err(|e| format!("session: {e}"))
    }

    /// Everything is ours: the sockets are taken into work.
    pub(super) fn resume(&mut self, waiting: Vec<Waiting>, now: Millis) {
        let mut conns = Vec::new();
        for Waiting { state, mut session, socket } in waiting {
            let slot = state.key.slot as usize;
            let stream = match Stream::new(self.engine, socket) {
                Ok(stream) => stream,
                Err(error) => {
                    self.forget(state.key);
                    self.ended(state.id, session.into_ledger(), &format!("socket: {error}"));
                    continue;
                }
            };
            session.handle_resumed(now);
            let halted = Halted {
                received: BytesMut::from(&state.received[..]),
                queue: VecDeque::from(state.queue),
                credits: state.credits,
            };
            let conn = Conn {
                key: state.key,
                id: state.id,
                section: state.section,
                filter: state.filter,
                timed: state.timed,
                session,
                io: ConnIo::resume(stream, halted, self.bell.clone()),
                unflushed: false,
                held: None,
                rounds: Vec::new(),
                lesson: state.lesson,
                close: None,
                told: false,
                cut_at: None,
            };
            conns.push((slot, conn));
        }
        self.conns = conns.into_iter().collect();
        self.bell.ring();
    }

    /// All shards stop working for a session.
    fn forget(&mut self, key: ConnKey) {
        for shard in 0..self.mesh.shards() {
            self.mesh.send(shard, Message::Unsubscribe(key));
            self.mesh.send(shard, Message::StopTeaching(key));
        }
    }

    fn ended(&mut self, id: SessionId, ledger: Ledger, why: &str) {
        let (counters, close, socket) = (Box::default(), None, why.to_string());
        self.event(ShardEvent::Ended { id, ledger, counters, close, socket });
    }
}
