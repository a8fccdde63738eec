//! The session after status 200: messages in, messages and events out (protocol.md 5, 6.2, 6.3).
//!
//! Owns one connection's state. Called by its home shard: `handle_*` with what happened, then
//! `poll_output` until it gives nothing, then `poll_timeout`. Rules: an ack goes out only when all
//! before it is applied; no ack while learning; nothing is pushed while learning or teaching; bad
//! input ends this session with the error message HAProxy would send.

use super::incoming::{Defined, Incoming, Taken};
use super::ledger::{AckResult, ChangeBatch, Flight, Ledger};
use super::lesson::{Learn, Tails, Teach};
use super::rounds::{Round, Rounds};
use super::status::{Counters, SessionStatus, TableStatus};
use super::timers::{Due, Timers};
use super::{
    CloseReason, Event, Fault, Layout, Output, Refusal, SessionError, SessionParams, Sink, Tables,
};
use crate::limits::SESSION_OUTPUT_MAX;
use crate::time::Millis;
use crate::wire::frame::{self, Cut, Frame};
use crate::wire::message::{self, Control, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Pushing on the fly: what the shards were told, and whether to tell them again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Push {
    epoch: u32,
    announced: bool,
    /// Pushing was interrupted since the announcement.
    interrupted: bool,
}

/// An established session. See the module's head.
#[derive(Debug)]
pub struct Session<L> {
    pub(super) params: SessionParams,
    pub(super) output: VecDeque<Output>,
    /// Bytes waiting in `output`.
    pub(super) waiting: usize,
    pub(super) timers: Timers,
    pub(super) incoming: Incoming<L>,
    /// What the bytes received since the last [`Session::close_round`] gave.
    pub(super) round: Round,
    pub(super) rounds: Rounds,
    pub(super) ledger: Ledger,
    pub(super) flight: Flight,
    pub(super) learn: Learn,
    pub(super) teach: Teach,
    pub(super) lessons: u32,
    pub(super) push: Push,
    /// Our table whose DEFINE was sent last.
    pub(super) defined_out: Option<usize>,
    /// Acked ids by table when the last lesson out began.
    pub(super) origins: Vec<u32>,
    pub(super) counters: Counters,
    /// Bytes of an incomplete message the caller keeps.
    pub(super) partial: usize,
    pub(super) confirms_owed: u32,
    /// An old process is to teach first: see [`Session::hold`].
    pub(super) holding: bool,
    /// Something waits for that, and so does what is behind it.
    pub(super) held: bool,
    pub(super) closed: bool,
}

impl<L: Layout> Session<L> {
    /// A session that was just established. A heartbeat is queued at once: HAProxy 2.6 may close a
    /// silent session within two seconds (protocol.md 2.5).
    pub fn new(params: SessionParams, ledger: Ledger, now: Millis) -> Session<L> {
        let mut session = Session {
            params,
            output: VecDeque::new(),
            waiting: 0,
            timers: Timers::new(now),
            incoming: Incoming::default(),
            round: Round::default(),
            rounds: Rounds::default(),
            ledger,
            flight: Flight::default(),
            learn: Learn::default(),
            teach: Teach::default(),
            lessons: 0,
            push: Push::default(),
            defined_out: None,
            origins: Vec::new(),
            counters: Counters::default(),
            partial: 0,
            confirms_owed: 0,
            holding: false,
            held: false,
            closed: false,
        };
        session.heartbeat(now);
        session
    }

    /// Takes the bytes at the head of the stream and gives how many were used; the caller keeps the
    /// rest and passes it again with what follows. Work is proportional to `bytes`.
    ///
    /// # Errors
    /// Input that ends the session: the error message and [`Event::Close`] are queued.
    pub fn handle_bytes<T: Tables<Layout = L>>(
        &mut self,
        bytes: &[u8],
        now: Millis,
        tables: &mut T,
        sink: &mut impl Sink<L>,
    ) -> Result<usize, SessionError> {
        if self.closed {
            return Ok(bytes.len());
        }
        if bytes.len() > self.partial {
            self.timers.heard(now);
        }
        let mut at = 0;
        while !self.closed {
            let result = match frame::cut(&bytes[at..], self.params.bufsize) {
                Ok(Cut::NeedMore(_)) => break,
                Ok(Cut::Frame(frame)) if self.holding && message::touches_tables(&frame) => {
                    self.held = true;
                    break;
                }
                Ok(Cut::Frame(frame)) => self
                    .message(&frame, bytes, now, tables, sink)
                    .map(|()| frame.len)
                    .map_err(Fault::Decode),
                Err(e) => Err(Fault::Frame(e)),
            };
            match result {
                Ok(len) => {
                    self.counters.messages_in += 1;
                    self.counters.bytes_in += len as u64;
                    at += len;
                }
                Err(fault) => return Err(self.fail(fault, now)),
            }
        }
        if self.closed {
            return Ok(bytes.len());
        }
        self.partial = bytes.len() - at;
        Ok(at)
    }

    fn message<T: Tables<Layout = L>>(
        &mut self,
        frame: &Frame<'_>,
        bytes: &[u8],
        now: Millis,
        tables: &mut T,
        sink: &mut impl Sink<L>,
    ) -> Result<(), crate::wire::DecodeError> {
        match Message::of(frame)? {
            Message::Update(form, payload) => {
                let learning = matches!(self.learn, Learn::Processing { .. });
                match self.incoming.update(form, payload, bytes, !learning, sink)? {
                    Taken::Yes => self.updated(now),
                    Taken::NoTable => self.counters.updates_ignored += 1,
                }
            }
            Message::Define(payload) => {
                let defined = self.incoming.define(payload, tables)?;
                self.refused(defined);
            }
            Message::Switch(id) => {
                self.incoming.switch(id);
            }
            Message::Ack { table, uid } => self.peer_acked(table, uid),
            Message::Control(control) => self.control(control, now),
            Message::Error(_) => self.counters.errors_in += 1,
            Message::Unknown => self.counters.unknown_messages += 1,
        }
        Ok(())
    }

    #[inline]
    fn updated(&mut self, now: Millis) {
        self.round.updates += 1;
        self.counters.updates_in += 1;
        if let Learn::Processing { updates, progress, .. } = &mut self.learn {
            *updates += 1;
            *progress = now;
        }
    }

    fn refused(&mut self, defined: Defined) {
        let Defined::Refused { name, refusal, first } = defined else { return };
        *match refusal {
            Refusal::Unknown => &mut self.counters.refused_unknown,
            Refusal::Mismatch(_) => &mut self.counters.refused_mismatch,
            Refusal::BadTail => &mut self.counters.refused_tail,
            Refusal::TooMany => &mut self.counters.refused_many,
        } += 1;
        if first {
            self.event(Event::Refused { name, refusal });
        }
    }

    fn peer_acked(&mut self, table: i32, uid: u32) {
        if self.teach != Teach::None {
            self.counters.acks_ignored += 1;
            return;
        }
        let index = i64::from(table) - 1;
        let result = match usize::try_from(index) {
            Ok(index) => self.flight.acked(index, uid, &mut self.ledger),
            Err(_) => AckResult::Garbage,
        };
        match result {
            AckResult::Moved => self.counters.acks_in += 1,
            AckResult::Same => self.counters.acks_ignored += 1,
            AckResult::Garbage => self.counters.acks_garbage += 1,
        }
    }

    fn control(&mut self, control: Control, now: Millis) {
        match control {
            Control::Heartbeat => {
                self.counters.heartbeats_in += 1;
                self.event_once(Event::Heard);
            }
            Control::ResyncRequest => self.start_teaching(now),
            Control::ResyncFinished | Control::ResyncPartial => {
                self.round.confirms += 1;
                self.confirms_owed += 1;
                if let Learn::Processing { since, updates, .. } = self.learn {
                    self.learn = Learn::Ended { since, updates };
                    self.round.lesson_end = Some(control == Control::ResyncFinished);
                }
            }
            Control::ResyncConfirm => self.confirmed(now),
        }
    }

    /// Closes the round of what [`Session::handle_bytes`] took since the last call. `Some(round)`:
    /// call [`Session::handle_applied`] with it once all updates given to the sink are in the
    /// tables (at once if there were none).
    pub fn close_round(&mut self) -> Option<u64> {
        self.round.acks = self.incoming.take_acks();
        if self.round.is_empty() {
            return None;
        }
        Some(self.rounds.push(std::mem::take(&mut self.round)))
    }

    /// Everything of `round` is in the tables. Rounds may complete in any order; acks,
    /// confirmations and the lesson's end go out in order.
    pub fn handle_applied(&mut self, round: u64, now: Millis) {
        if self.rounds.is_full() {
            // We did not read meanwhile: only now can the peer be heard again.
            self.timers.heard(now);
        }
        self.rounds.applied(round);
        let mut acks: Vec<(usize, u32)> = Vec::new();
        let mut confirms = 0;
        let mut end = None;
        while let Some(round) = self.rounds.release() {
            for (slot, uid) in round.acks {
                match acks.iter_mut().find(|(s, _)| *s == slot) {
                    Some(ack) => ack.1 = uid,
                    None => acks.push((slot, uid)),
                }
            }
            confirms += round.confirms;
            end = end.or(round.lesson_end);
        }
        self.send_released(&acks, confirms, now);
        if let (Some(finished), Learn::Ended { since, updates }) = (end, self.learn) {
            self.learn = Learn::NotAssigned;
            self.event(Event::LessonEnd { finished, updates, duration_ms: now.since(since) });
        }
    }

    fn send_released(&mut self, acks: &[(usize, u32)], confirms: u32, now: Millis) {
        if self.closed {
            return;
        }
        let mut out = Vec::with_capacity(acks.len() * 12 + confirms as usize * 2);
        for &(slot, uid) in acks {
            if let Some(id) = self.incoming.ack_due(slot, uid) {
                message::encode_ack(&mut out, id, uid);
                self.counters.acks_out += 1;
            }
        }
        for _ in 0..confirms {
            out.extend_from_slice(&Control::ResyncConfirm.bytes());
        }
        self.confirms_owed = self.confirms_owed.saturating_sub(confirms);
        if !out.is_empty() {
            self.send(out.into(), now);
        }
    }

    /// Takes no update and no request for a lesson until [`Session::handle_release`]: the old
    /// process teaches first. The peer's updates are newer than its lesson, which would overwrite
    /// them, and unread they are not acked; and a lesson of ours would lack what we have yet to
    /// learn, for a peer that asks once in its life (protocol.md 6.1).
    pub fn hold(&mut self) {
        self.holding = true;
    }

    /// The old process has taught, or nobody waits for it any more.
    pub fn handle_release(&mut self, now: Millis) {
        self.holding = false;
        if std::mem::take(&mut self.held) {
            self.timers.heard(now);
        }
    }

    /// Something waits for the old process's lesson, unread.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// True between [`Session::hold`] and [`Session::handle_release`].
    pub fn is_holding(&self) -> bool {
        self.holding
    }

    /// The section chose this session for a lesson: a remote is asked, an old process teaches by
    /// itself. Ignored while one is under way.
    pub fn handle_learn(&mut self, now: Millis) {
        if self.closed || self.learn != Learn::NotAssigned {
            return;
        }
        self.learn = Learn::Processing { since: now, updates: 0, progress: now };
        self.push.interrupted = true;
        if !self.params.local {
            self.send(Bytes::copy_from_slice(&Control::ResyncRequest.bytes()), now);
        }
    }

    /// We are the old process and this session goes to our successor: teach without being asked.
    pub fn handle_teach(&mut self, now: Millis) {
        if !self.closed {
            self.start_teaching(now);
        }
    }

    fn start_teaching(&mut self, now: Millis) {
        if self.waits(|e| matches!(e, Event::TeachStart { .. })) {
            // Asked again before the shards have heard of it.
            return;
        }
        self.lessons = self.lessons.wrapping_add(1);
        self.teach = Teach::Teaching { lesson: self.lessons, since: now, entries: 0 };
        self.push.interrupted = true;
        self.flight.clear();
        self.origins = (0..self.ledger.tables()).map(|t| self.ledger.acked_uid(t)).collect();
        self.event(Event::TeachStart { lesson: self.lessons, timed: self.params.minor >= 1 });
    }

    /// CONFIRM: the lesson we taught has arrived. Unsolicited ones change nothing.
    fn confirmed(&mut self, now: Millis) {
        let Teach::Ended { since, entries, finished, ref tails } = self.teach else { return };
        for &(table, source, end) in tails {
            self.ledger.confirm(table, source, end);
        }
        self.teach = Teach::None;
        self.event(Event::Taught { finished, entries, duration_ms: now.since(since) });
        if self.params.local {
            self.close(CloseReason::HandedOver);
        }
    }

    /// Changes of one table from one shard, to be pushed. Dropped when their epoch is over.
    pub fn handle_changes(&mut self, batch: ChangeBatch, now: Millis) {
        let current = self.push.announced && !self.push.interrupted;
        if !self.may_push() || !current || self.push.epoch != batch.epoch {
            self.counters.batches_stale += 1;
            return;
        }
        if batch.updates == 0 {
            self.flight.skipped(&batch, &mut self.ledger);
            return;
        }
        if self.defined_out != Some(batch.table) {
            self.defined_out = Some(batch.table);
            self.send(batch.define.clone(), now);
        }
        self.counters.updates_out += u64::from(batch.updates);
        self.flight.sent(&batch, &mut self.ledger);
        self.send(batch.bytes, now);
    }

    /// A piece of a lesson; it starts with its own DEFINE. Dropped when that lesson is over.
    pub fn handle_lesson_chunk(&mut self, lesson: u32, chunk: Bytes, entries: u64, now: Millis) {
        match &mut self.teach {
            Teach::Teaching { lesson: ours, entries: sent, .. } if *ours == lesson => {
                *sent += entries;
                self.counters.entries_taught += entries;
                self.defined_out = None;
                if self.params.local {
                    // A learning HAProxy says nothing to an old process until the lesson's end.
                    self.timers.heard(now);
                }
                self.send(chunk, now);
            }
            _ => self.counters.chunks_stale += 1,
        }
    }

    /// All shards have sent their part: FINISHED when `up_to_date`, PARTIAL otherwise. `tails` says
    /// where each source's log stood when it began: pushing goes on there after the CONFIRM.
    pub fn handle_lesson_done(&mut self, lesson: u32, up_to_date: bool, tails: Tails, now: Millis) {
        let Teach::Teaching { lesson: ours, since, entries } = self.teach else { return };
        if ours != lesson || self.closed {
            return;
        }
        self.teach = Teach::Ended { since, entries, finished: up_to_date, tails };
        let end = if up_to_date { Control::ResyncFinished } else { Control::ResyncPartial };
        if self.params.local {
            self.timers.heard(now);
        }
        self.send(Bytes::copy_from_slice(&end.bytes()), now);
    }

    /// Call at [`Session::poll_timeout`] or later.
    pub fn handle_timeout(&mut self, now: Millis) {
        if self.closed {
            return;
        }
        if self.rounds.is_full() || self.held {
            // Our shards are behind and the peer is not read: it is not silent, we are deaf.
            self.timers.heard(now);
        }
        self.end_stalled(now);
        match self.timers.due(now) {
            Due::Nothing => {}
            Due::Heartbeat => self.heartbeat(now),
            Due::Silence => self.close(CloseReason::Silence),
        }
    }

    /// When [`Session::handle_timeout`] has something to do; `None` once closed.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let stall = self.learn.stalls_at().unwrap_or(Millis(u64::MAX));
        (!self.closed).then(|| self.timers.next().min(stall))
    }

    /// Ends a lesson whose teacher goes no further. Should its end come after all, it is confirmed.
    fn end_stalled(&mut self, now: Millis) {
        if self.learn.stalls_at().is_none_or(|at| now < at) {
            return;
        }
        if let Learn::Processing { since, updates, progress } = &mut self.learn {
            if !self.rounds.is_empty() {
                // What came before is not applied yet: it is us who go no further.
                *progress = now;
                return;
            }
            let (updates, duration_ms) = (*updates, now.since(*since));
            self.learn = Learn::NotAssigned;
            self.event(Event::LessonEnd { finished: false, updates, duration_ms });
        }
    }

    /// The next thing to do. Poll until `None` after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.push.announced && (self.push.interrupted || !self.may_push()) {
            self.push.announced = false;
            return Some(Output::Event(Event::PushStop));
        }
        if let Some(output) = self.output.pop_front() {
            if let Output::Send(bytes) = &output {
                self.waiting -= bytes.len();
            }
            return Some(output);
        }
        if !self.push.announced && self.may_push() {
            self.push.announced = true;
            self.push.interrupted = false;
            self.push.epoch = self.push.epoch.wrapping_add(1);
            return Some(Output::Event(Event::PushStart { epoch: self.push.epoch }));
        }
        None
    }

    /// False while too many rounds wait to be applied, too much output waits to be polled, or
    /// something is held: the caller stops reading, and TCP holds the peer back.
    pub fn wants_read(&self) -> bool {
        !self.closed && !self.held && !self.rounds.is_full() && self.waiting < SESSION_OUTPUT_MAX
    }

    /// True once [`Event::Close`] was queued: further input is swallowed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What the peer has confirmed so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What survives the session.
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// Counts so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Server names received, by slot, for `show peers dict`.
    pub fn dictionary(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.incoming.dictionary().slots()
    }

    /// For `show peers`.
    pub fn status(&self) -> SessionStatus {
        let rx = self.incoming.tables();
        let defined = rx.iter().map(|t| t.table + 1).max().unwrap_or(0);
        let mut tables: Vec<TableStatus> = (0..defined.max(self.ledger.tables()))
            .map(|table| TableStatus {
                table,
                last_pushed: self.ledger.pushed_uid(table),
                update: self.ledger.acked_uid(table),
                teaching_origin: self.origins.get(table).copied().unwrap_or(0),
                confirmed: self.ledger.confirmed_all(table),
                ..TableStatus::default()
            })
            .collect();
        for t in rx {
            let status = &mut tables[t.table];
            status.remote_id = t.remote_id.unwrap_or(0);
            status.remote_data = t.data_types;
            status.last_get = t.last_get;
            status.last_acked = t.last_acked;
        }
        SessionStatus {
            learn: self.learn.name(),
            teach: self.teach.name(),
            confirm: self.confirms_owed,
            rounds: self.rounds.len(),
            unacked_batches: self.flight.len(),
            heartbeat_at: self.timers.heartbeat_at(),
            pushing: self.push.announced,
            current_in: self.incoming.current().map(|t| t.table),
            current_out: self.defined_out,
            tables,
            counters: self.counters,
        }
    }

    /// Nothing is pushed while learning or teaching, nor ever to our own name (protocol.md 6.2,
    /// 6.4).
    fn may_push(&self) -> bool {
        !self.closed
            && !self.params.local
            && self.learn == Learn::NotAssigned
            && self.teach == Teach::None
    }

    fn heartbeat(&mut self, now: Millis) {
        self.counters.heartbeats_out += 1;
        self.send(Bytes::copy_from_slice(&Control::Heartbeat.bytes()), now);
    }

    fn fail(&mut self, fault: Fault, now: Millis) -> SessionError {
        let message = self.counters.messages_in + 1;
        let error = SessionError { message, offset: self.counters.bytes_in, fault };
        self.send(Bytes::copy_from_slice(&error.code().bytes()), now);
        self.close(CloseReason::BadInput(error));
        error
    }

    fn close(&mut self, reason: CloseReason) {
        self.event(Event::Close(reason));
        self.closed = true;
    }

    fn send(&mut self, bytes: Bytes, now: Millis) {
        if self.closed {
            return;
        }
        self.timers.sent(now);
        self.counters.bytes_out += bytes.len() as u64;
        self.waiting += bytes.len();
        self.output.push_back(Output::Send(bytes));
    }

    fn event(&mut self, event: Event) {
        if !self.closed {
            self.output.push_back(Output::Event(event));
        }
    }

    /// Queues an event unless an equal one still waits, so that a peer cannot pile them up.
    fn event_once(&mut self, event: Event) {
        if !self.waits(|e| *e == event) {
            self.event(event);
        }
    }

    fn waits(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.output.iter().any(|o| matches!(o, Output::Event(e) if what(e)))
    }
}
