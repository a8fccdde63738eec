//! What a peer has confirmed, and what was sent to it and is not confirmed yet.
//!
//! [`Ledger`] outlives sessions, one a peer: positions in the shards' change logs up to which the
//! peer has everything. [`Flight`] lives as long as a session: batches sent and not acked. Rule:
//! only an ack of an id really sent in this session counts, since HAProxy 3.3 and later ack
//! byte-swapped ids after implicit ones, and a restarted peer may ack anything (protocol.md 5.4);
//! everything sent and not acked is sent again in the next session.

use crate::limits::{ACK_SEARCHES_MAX, FLIGHT_BATCHES_MAX, FLIGHT_BYTES_MAX};
use crate::wire::frame::{self, Cut};
use crate::wire::{KeyShape, Message, Update};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Changes of one table from one shard, encoded once for all peers.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// Our table, from 0.
    pub table: usize,
    /// The shard they come from.
    pub source: usize,
    /// Epoch of the [`super::Event::PushStart`] they answer; others are dropped.
    pub epoch: u32,
    /// The table's DEFINE frame, sent before the updates when another table was sent last.
    pub define: Bytes,
    /// UPDATE frames, all with explicit ids, ascending.
    pub bytes: Bytes,
    /// How many.
    pub updates: u32,
    /// Id of the first one. Ids are unique in a table over all sources.
    pub first_uid: u32,
    /// Id of the last one.
    pub last_uid: u32,
    /// Position in the source's change log behind the last one.
    pub end: u64,
}

/// One table's cursors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cursors {
    /// By source: everything before this position is confirmed.
    confirmed: Vec<u64>,
    /// Last id acked, for `show peers`.
    acked_uid: u32,
    /// Last id sent, for `show peers`.
    pushed_uid: u32,
}

/// What a peer has confirmed; survives its sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    tables: Vec<Cursors>,
}

impl Ledger {
    /// Position in `source`'s change log of `table` up to which the peer has everything; 0 when it
    /// has confirmed nothing.
    pub fn confirmed(&self, table: usize, source: usize) -> u64 {
        let cursors = self.tables.get(table);
        cursors.and_then(|t| t.confirmed.get(source)).copied().unwrap_or(0)
    }

    /// By source: [`Ledger::confirmed`].
    pub fn confirmed_all(&self, table: usize) -> Vec<u64> {
        self.tables.get(table).map_or(Vec::new(), |t| t.confirmed.clone())
    }

    /// Last id of `table` the peer acked; 0 when none.
    pub fn acked_uid(&self, table: usize) -> u32 {
        self.tables.get(table).map_or(0, |t| t.acked_uid)
    }

    /// Last id of `table` sent to the peer; 0 when none.
    pub fn pushed_uid(&self, table: usize) -> u32 {
        self.tables.get(table).map_or(0, |t| t.pushed_uid)
    }

    /// Number of tables that have cursors.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// Moves a cursor forward; it never goes back.
    pub fn confirm(&mut self, table: usize, source: usize, end: u64) {
        let cursors = self.cursors(table);
        if cursors.confirmed.len() <= source {
            cursors.confirmed.resize(source + 1, 0);
        }
        let at = &mut cursors.confirmed[source];
        *at = (*at).max(end);
    }

    /// The same for tables in another order. By table: its new number, `None` when it is gone.
    pub fn renumbered(mut self, numbers: &[Option<usize>]) -> Ledger {
        let mut ledger = Ledger::default();
        for (cursors, number) in self.tables.iter_mut().zip(numbers) {
            if let Some(number) = *number {
                *ledger.cursors(number) = std::mem::take(cursors);
            }
        }
        ledger
    }

    /// Tables and sources are ours, not the peer's: their number is bounded by our configuration.
    fn cursors(&mut self, table: usize) -> &mut Cursors {
        if self.tables.len() <= table {
            self.tables.resize_with(table + 1, Cursors::default);
        }
        &mut self.tables[table]
    }
}

/// A batch sent and not acked.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sent {
    first_uid: u32,
    last_uid: u32,
    /// (source, position behind it); several when batches were merged.
    ends: Vec<(usize, u64)>,
    /// The updates, to tell which ids were in it; `None` when the bound on bytes took it.
    bytes: Option<Bytes>,
}

impl Sent {
    /// True when `uid` lies between the batch's first and last id, wrap-around included.
    fn spans(&self, uid: u32) -> bool {
        uid.wrapping_sub(self.first_uid) <= self.last_uid.wrapping_sub(self.first_uid)
    }

    /// True when an update with this id was in the batch, as far as is known.
    fn holds(&self, uid: u32) -> bool {
        self.spans(uid) && self.bytes.as_ref().is_some_and(|b| has_uid(b, uid))
    }
}

/// True when one of the UPDATE frames in `bytes` carries `uid`.
fn has_uid(bytes: &[u8], uid: u32) -> bool {
    let mut rest = bytes;
    while let Ok(Cut::Frame(frame)) = frame::cut(rest, usize::MAX) {
        rest = &rest[frame.len..];
        if let Ok(Message::Update(form, payload)) = Message::of(&frame)
            && let Ok(update) = Update::decode(form, payload, KeyShape::Fixed(0))
            && update.uid == Some(uid)
        {
            return true;
        }
    }
    false
}

/// What an ack of the peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckResult {
    /// The cursors moved.
    Moved,
    /// An id acked before, or inside a batch whose ids are no longer known: nothing moved.
    Same,
    /// An id that was not sent in this session.
    Garbage,
}

/// One table's batches in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct InFlight {
    queue: VecDeque<Sent>,
    /// Last id acked in this session.
    acked: Option<u32>,
}

/// Batches of one session that are sent and not acked, by table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Flight {
    tables: Vec<InFlight>,
    batches: usize,
    bytes: usize,
    /// Acks looked for inside batches since the last batch was sent.
    searches: u32,
}

impl Flight {
    /// Takes note of a batch just sent.
    pub fn sent(&mut self, batch: &ChangeBatch, ledger: &mut Ledger) {
        ledger.cursors(batch.table).pushed_uid = batch.last_uid;
        self.searches = 0;
        if self.tables.len() <= batch.table {
            self.tables.resize_with(batch.table + 1, InFlight::default);
        }
        self.tables[batch.table].queue.push_back(Sent {
            first_uid: batch.first_uid,
            last_uid: batch.last_uid,
            ends: vec![(batch.source, batch.end)],
            bytes: Some(batch.bytes.clone()),
        });
        self.batches += 1;
        self.bytes += batch.bytes.len();
        self.bound(batch.table);
    }

    /// The log moved on without anything to send, as when all changed rows have expired: confirmed
    /// together with what was sent before.
    pub fn skipped(&mut self, batch: &ChangeBatch, ledger: &mut Ledger) {
        let last = self.tables.get_mut(batch.table).and_then(|t| t.queue.back_mut());
        let Some(last) = last else {
            return ledger.confirm(batch.table, batch.source, batch.end);
        };
        match last.ends.iter_mut().find(|(source, _)| *source == batch.source) {
            Some((_, end)) => *end = batch.end,
            None => last.ends.push((batch.source, batch.end)),
        }
    }

    /// Keeps the bounds by forgetting detail about the table's oldest batches: an ack inside them
    /// then moves nothing, an ack behind them still does.
    fn bound(&mut self, table: usize) {
        let queue = &mut self.tables[table].queue;
        if self.bytes > FLIGHT_BYTES_MAX {
            for sent in queue.iter_mut() {
                if self.bytes <= FLIGHT_BYTES_MAX / 2 {
                    break;
                }
                self.bytes -= sent.bytes.take().map_or(0, |b| b.len());
            }
        }
        while self.batches > FLIGHT_BATCHES_MAX && queue.len() >= 2 {
            let Some(oldest) = queue.pop_front() else { break };
            self.batches -= 1;
            self.bytes -= oldest.bytes.map_or(0, |b| b.len());
            if let Some(next) = queue.front_mut() {
                self.bytes -= next.bytes.take().map_or(0, |b| b.len());
                next.first_uid = oldest.first_uid;
                for (source, end) in oldest.ends {
                    if !next.ends.iter().any(|&(s, _)| s == source) {
                        next.ends.push((source, end));
                    }
                }
            }
        }
    }

    /// The peer acked `uid` of `table`.
    pub fn acked(&mut self, table: usize, uid: u32, ledger: &mut Ledger) -> AckResult {
        let Some(InFlight { queue, acked }) = self.tables.get_mut(table) else {
            return AckResult::Garbage;
        };
        // Reading batches through costs time that a hostile peer must not have without end, and
        // such an ack confirms only what the next one at a batch's end confirms as well.
        let search = self.searches < ACK_SEARCHES_MAX;
        let at = queue.iter().position(|s| s.last_uid == uid || search && s.holds(uid));
        self.searches += u32::from(search && at.is_none_or(|at| queue[at].last_uid != uid));
        let Some(at) = at else {
            let known = *acked == Some(uid) || queue.iter().any(|s| s.spans(uid));
            return if known { AckResult::Same } else { AckResult::Garbage };
        };
        // An ack inside a batch confirms what was before it; the batch waits for its own end.
        let whole = if queue[at].last_uid == uid { at + 1 } else { at };
        for sent in queue.drain(..whole) {
            self.batches -= 1;
            self.bytes -= sent.bytes.map_or(0, |b| b.len());
            for (source, end) in sent.ends {
                ledger.confirm(table, source, end);
            }
        }
        *acked = Some(uid);
        ledger.cursors(table).acked_uid = uid;
        AckResult::Moved
    }

    /// Forgets everything: a lesson takes its place.
    pub fn clear(&mut self) {
        *self = Flight::default();
    }

    /// Batches not acked.
    pub fn len(&self) -> usize {
        self.batches
    }

    /// True when nothing waits for an ack.
    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// Bytes kept of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::UpdateForm;

    /// A batch of updates with these ids, which ends at its last one.
    fn batch(uids: std::ops::Range<u32>) -> ChangeBatch {
        let kind = UpdateForm { explicit_id: true, timed: false }.kind();
        let mut bytes = Vec::new();
        for uid in uids.clone() {
            frame::build(&mut bytes, frame::class::TABLE, kind, |out| {
                out.extend_from_slice(&uid.to_be_bytes());
            });
        }
        ChangeBatch {
            table: 0,
            source: 0,
            epoch: 1,
            define: Bytes::new(),
            bytes: bytes.into(),
            updates: uids.len() as u32,
            first_uid: uids.start,
            last_uid: uids.end - 1,
            end: u64::from(uids.end),
        }
    }

    #[test]
    fn acks_inside_batches_are_looked_for_a_bounded_number_of_times() {
        let (mut flight, mut ledger) = (Flight::default(), Ledger::default());
        flight.sent(&batch(1..1_000), &mut ledger);
        flight.sent(&batch(1_000..2_000), &mut ledger);
        for n in 0..ACK_SEARCHES_MAX {
            let found = flight.acked(0, 1_000 + n % 2, &mut ledger);
            assert_eq!(found, AckResult::Moved);
        }
        assert_eq!(ledger.confirmed(0, 0), 1_000);
        assert_eq!(flight.acked(0, 1_500, &mut ledger), AckResult::Same, "not looked for");
        assert_eq!(flight.acked(0, 9_999, &mut ledger), AckResult::Garbage);
        assert_eq!(flight.acked(0, 1_999, &mut ledger), AckResult::Moved, "a batch's end is known");
        assert_eq!((ledger.confirmed(0, 0), flight.len()), (2_000, 0));
        flight.sent(&batch(2_000..3_000), &mut ledger);
        assert_eq!(flight.acked(0, 2_500, &mut ledger), AckResult::Moved, "looked for again");
    }
}
