//! A session on its home: received bytes into it, its outputs to the socket, the other shards and
//! the coordinator.

use super::apply::{Routing, SectionTables};
use super::connection::Tx;
use super::message::{Chunk, ConnKey, CreditKind, Message, PartTaught, Subscribe, Teach};
use super::{LessonOut, SessionId, Shard, ShardEvent};
use crate::Millis;
use crate::limits::{CHUNK_BYTES, CHUNK_CREDITS, LAST_WORDS_MS, TX_QUEUE_MAX};
use crate::session::{ChangeBatch, Event, Output, Session};
use bytes::{Bytes, BytesMut};
use std::sync::atomic::Ordering;

impl Shard {
    /// Passes what sockets have received to their sessions, and credits of what was written to the
    /// shards that made it. True when a session has more to take.
    pub(super) fn read_sessions(&mut self, now: Millis) -> bool {
        let slots: Vec<usize> = self.conns.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let conn = &mut self.conns[slot];
            if conn.session.is_holding() && !self.waits[conn.section].load(Ordering::Relaxed) {
                conn.session.handle_release(now);
            }
            self.read_session(slot, now);
            let conn = &self.conns[slot];
            for (shard, kind) in conn.io.take_credits() {
                self.mesh.send(shard, Message::Credit { conn: conn.key, kind });
            }
        }
        false
    }

    pub(super) fn read_session(&mut self, slot: usize, now: Millis) {
        let queue_max = TX_QUEUE_MAX + self.mesh.shards() * CHUNK_CREDITS as usize * CHUNK_BYTES;
        let conn = &mut self.conns[slot];
        let Some(buffer) = conn.held.take().or_else(|| conn.io.take_filled()) else { return };
        // What nobody will read any more holds up nothing.
        let stuck = conn.io.queued_bytes() > queue_max && conn.io.ended().is_none();
        if conn.close.is_none() && (stuck || !conn.session.wants_read()) {
            // Not given back: the reader stops, and TCP holds the peer up.
            conn.held = Some(buffer);
            return;
        }
        let buffer = self.take_bytes(slot, buffer, now);
        let conn = &mut self.conns[slot];
        if conn.session.is_held() && conn.io.ended().is_none() {
            // What was read is looked at again when the old process has taught.
            conn.held = Some(buffer);
        } else {
            conn.io.give_back(buffer);
        }
    }

    /// One pass over received bytes; what is left of an incomplete message stays in the buffer.
    fn take_bytes(&mut self, slot: usize, mut buffer: BytesMut, now: Millis) -> BytesMut {
        let conn = &mut self.conns[slot];
        let registry = self.parts.registry().clone();
        let mut tables = SectionTables { registry: &registry, section: conn.section };
        let mut routing = Routing { router: &mut self.router, registry: &registry };
        let used = match conn.session.handle_bytes(&buffer, now, &mut tables, &mut routing) {
            Ok(used) => used,
            // The session has queued its error message and the close; updates before the fault
            // count.
            Err(_) => buffer.len(),
        };
        let round = conn.session.close_round();
        let bytes = buffer.split_to(used).freeze();
        if let Some(round) = round {
            self.dispatch(slot, round, &bytes, now);
        }
        self.drain(slot, now);
        buffer
    }

    /// Sends a pass's updates to their owners; our own are applied at once.
    fn dispatch(&mut self, slot: usize, round: u64, bytes: &Bytes, now: Millis) {
        let key = self.conns[slot].key;
        let batches = self.router.take(key, round, bytes);
        let mut missing = 0;
        for (owner, batch) in batches {
            if owner == self.id {
                if let Err(error) = self.parts.apply(&batch, now) {
                    self.event(ShardEvent::OutOfMemory(error.to_string()));
                }
                self.router.recycle(batch);
            } else {
                missing += 1;
                self.mesh.send(owner, Message::Apply(batch));
            }
        }
        let conn = &mut self.conns[slot];
        if missing == 0 {
            conn.session.handle_applied(round, now);
        } else {
            conn.rounds.push((round, missing));
        }
    }

    /// The slot of a session, unless it is gone.
    fn slot(&self, key: ConnKey) -> Option<usize> {
        let slot = key.slot as usize;
        (self.conns.get(slot)?.key == key).then_some(slot)
    }

    /// A shard has applied its part of a round.
    pub(super) fn applied(&mut self, key: ConnKey, round: u64, now: Millis) {
        let Some(slot) = self.slot(key) else { return };
        let conn = &mut self.conns[slot];
        let Some(at) = conn.rounds.iter().position(|(r, _)| *r == round) else { return };
        conn.rounds[at].1 -= 1;
        if conn.rounds[at].1 == 0 {
            conn.rounds.remove(at);
            conn.session.handle_applied(round, now);
            self.drain(slot, now);
        }
    }

    /// Changes from an owner. The credit goes back when they are written, or dropped as stale.
    pub(super) fn changes(&mut self, key: ConnKey, batch: ChangeBatch, now: Millis) {
        let Some(slot) = self.slot(key) else { return };
        let owner = batch.source;
        let conn = &mut self.conns[slot];
        conn.session.handle_changes(batch, now);
        self.drain(slot, now);
        self.queue(slot, Tx::Credit(owner, CreditKind::Changes));
    }

    /// A piece of a lesson from an owner.
    pub(super) fn chunk(&mut self, chunk: Chunk, now: Millis) {
        let Some(slot) = self.slot(chunk.conn) else { return };
        let conn = &mut self.conns[slot];
        conn.session.handle_lesson_chunk(chunk.lesson, chunk.bytes, chunk.entries, now);
        self.drain(slot, now);
        let credit = Tx::Credit(usize::from(chunk.owner), CreditKind::Lesson);
        self.queue(slot, credit);
    }

    /// An owner has taught its part; when all have, the lesson ends.
    pub(super) fn part_taught(&mut self, part: PartTaught, now: Millis) {
        let Some(slot) = self.slot(part.conn) else { return };
        let section = self.conns[slot].section;
        let up_to_date = self.is_up_to_date(section);
        let conn = &mut self.conns[slot];
        let Some(lesson) = conn.lesson.as_mut().filter(|l| l.number == part.lesson) else { return };
        let tails = part.tails.iter().enumerate();
        lesson.tails.extend(tails.map(|(table, tail)| (table, usize::from(part.owner), *tail)));
        lesson.missing -= 1;
        if lesson.missing == 0
            && let Some(lesson) = conn.lesson.take()
        {
            conn.session.handle_lesson_done(lesson.number, up_to_date, lesson.tails, now);
            self.drain(slot, now);
        }
    }

    /// Does something with session `id`, if it lives here.
    pub(super) fn with_session(
        &mut self,
        id: SessionId,
        now: Millis,
        action: impl FnOnce(&mut Session<super::Layout>),
    ) {
        let slot = self.conns.iter().find(|(_, c)| c.id == id).map(|(slot, _)| slot);
        if let Some(slot) = slot {
            action(&mut self.conns[slot].session);
            self.drain(slot, now);
        }
    }

    /// Carries out everything a session wants, as its rule demands after every input.
    pub(super) fn drain(&mut self, slot: usize, now: Millis) {
        while let Some(output) = self.conns[slot].session.poll_output() {
            match output {
                Output::Send(bytes) => self.queue(slot, Tx::Bytes(bytes)),
                Output::Event(event) => self.session_event(slot, event, now),
            }
        }
    }

    fn queue(&mut self, slot: usize, tx: Tx) {
        let conn = &mut self.conns[slot];
        conn.io.send(tx);
        if !std::mem::replace(&mut conn.unflushed, true) {
            self.unflushed.push(slot);
        }
    }

    /// Sends what this tick has queued.
    pub(super) fn flush_sessions(&mut self) {
        while let Some(slot) = self.unflushed.pop() {
            // A session that ended meanwhile has nothing to send, one in its place loses nothing.
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.unflushed = false;
                conn.io.flush();
            }
        }
    }

    fn session_event(&mut self, slot: usize, event: Event, now: Millis) {
        let conn = &mut self.conns[slot];
        let (key, id) = (conn.key, conn.id);
        match event {
            Event::PushStart { epoch } => self.start_pushing(slot, epoch),
            Event::PushStop => self.tell_all(|_| Message::Unsubscribe(key)),
            Event::TeachStart { lesson, timed } => {
                let missing = self.mesh.shards();
                conn.lesson = Some(LessonOut { number: lesson, missing, tails: Vec::new() });
                let (section, filter) = (conn.section, conn.filter);
                let wish = Teach { conn: key, lesson, section, timed, filter };
                self.tell_all(|_| Message::Teach(Box::new(wish.clone())));
                self.event(ShardEvent::Teaching(id));
            }
            Event::LessonEnd { finished, updates, duration_ms } => {
                self.event(ShardEvent::LessonEnd { id, finished, updates, duration_ms });
            }
            Event::Taught { finished, entries, duration_ms } => {
                self.event(ShardEvent::Taught { id, finished, entries, duration_ms });
            }
            Event::Heard => self.event(ShardEvent::Heard(id)),
            Event::Refused { name, refusal } => {
                self.event(ShardEvent::Refused { id, name, refusal });
            }
            Event::Close(reason) => {
                conn.close = Some(reason);
                conn.cut_at = Some(now.plus(LAST_WORDS_MS));
                conn.io.close_gently();
            }
        }
    }

    /// Asks every shard for its changes, from where the peer has confirmed.
    fn start_pushing(&mut self, slot: usize, epoch: u32) {
        let conn = &self.conns[slot];
        let tables = self.parts.registry().section_len(conn.section);
        let ledger = conn.session.ledger();
        let wishes: Vec<Subscribe> = (0..self.mesh.shards())
            .map(|source| Subscribe {
                conn: conn.key,
                epoch,
                section: conn.section,
                from: (0..tables).map(|table| ledger.confirmed(table, source)).collect(),
                filter: conn.filter,
                timed: conn.timed,
            })
            .collect();
        for (shard, wish) in wishes.into_iter().enumerate() {
            self.mesh.send(shard, Message::Subscribe(Box::new(wish)));
        }
    }

    fn tell_all(&mut self, message: impl Fn(usize) -> Message) {
        for shard in 0..self.mesh.shards() {
            self.mesh.send(shard, message(shard));
        }
    }
}
