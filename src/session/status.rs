//! What `show peers`, metrics and logs say about a session.

use serde::{Deserialize, Serialize};

/// Counts of one session since it was established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages received.
    pub messages_in: u64,
    /// Bytes received in whole messages.
    pub bytes_in: u64,
    /// Bytes given out to be sent.
    pub bytes_out: u64,
    /// Updates given to the tables.
    pub updates_in: u64,
    /// Updates pushed on the fly.
    pub updates_out: u64,
    /// Entries sent in lessons.
    pub entries_taught: u64,
    /// Updates ignored because no table was selected.
    pub updates_ignored: u64,
    /// Definitions refused: no such table.
    pub refused_unknown: u64,
    /// Definitions refused: key or arrays differ.
    pub refused_mismatch: u64,
    /// Definitions refused: faulty parameters.
    pub refused_tail: u64,
    /// Definitions refused: too many tables.
    pub refused_many: u64,
    /// Messages of unknown class or type, skipped.
    pub unknown_messages: u64,
    /// Error messages received.
    pub errors_in: u64,
    /// Acks received that moved a cursor.
    pub acks_in: u64,
    /// Acks received of ids not sent in this session.
    pub acks_garbage: u64,
    /// Acks received while teaching or of ids acked before.
    pub acks_ignored: u64,
    /// Acks sent.
    pub acks_out: u64,
    /// Heartbeats received.
    pub heartbeats_in: u64,
    /// Heartbeats sent.
    pub heartbeats_out: u64,
    /// Change batches dropped because pushing had stopped or an older epoch made them.
    pub batches_stale: u64,
    /// Lesson chunks dropped because the lesson was over.
    pub chunks_stale: u64,
}

impl Counters {
    /// Adds another session's counts.
    pub fn add(&mut self, other: &Counters) {
        self.messages_in += other.messages_in;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.updates_in += other.updates_in;
        self.updates_out += other.updates_out;
        self.entries_taught += other.entries_taught;
        self.updates_ignored += other.updates_ignored;
        self.refused_unknown += other.refused_unknown;
        self.refused_mismatch += other.refused_mismatch;
        self.refused_tail += other.refused_tail;
        self.refused_many += other.refused_many;
        self.unknown_messages += other.unknown_messages;
        self.errors_in += other.errors_in;
        self.acks_in += other.acks_in;
        self.acks_garbage += other.acks_garbage;
        self.acks_ignored += other.acks_ignored;
        self.acks_out += other.acks_out;
        self.heartbeats_in += other.heartbeats_in;
        self.heartbeats_out += other.heartbeats_out;
        self.batches_stale += other.batches_stale;
        self.chunks_stale += other.chunks_stale;
    }
}

/// One table in `show peers`. Ids are 0 when there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStatus {
    /// Our table, from 0; our id on the wire is one more.
    pub table: usize,
    /// The peer's id for it; 0: not defined.
    pub remote_id: i32,
    /// Data types of the peer's definition.
    pub remote_data: u64,
    /// Last id received from it.
    pub last_get: u32,
    /// Last of its ids we acked.
    pub last_acked: u32,
    /// Last of our ids sent to it.
    pub last_pushed: u32,
    /// Last of our ids it acked.
    pub update: u32,
    /// Its `update` when the last lesson we taught began.
    pub teaching_origin: u32,
    /// By source: position in its change log up to which the peer has everything.
    pub confirmed: Vec<u64>,
}

/// A session at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// NOTASSIGNED, PROCESSING or FINISHED.
    pub learn: &'static str,
    /// NONE, TEACHING or FINISHED.
    pub teach: &'static str,
    /// CONFIRMs we owe.
    pub confirm: u32,
    /// Rounds received and not applied yet.
    pub rounds: usize,
    /// Batches sent and not acked.
    pub unacked_batches: usize,
    /// When our next heartbeat is due.
    pub heartbeat_at: crate::Millis,
    /// Changes may be pushed.
    pub pushing: bool,
    /// Our table the peer's updates go to now.
    pub current_in: Option<usize>,
    /// Our table whose definition was sent last.
    pub current_out: Option<usize>,
    /// By table, those that have any state.
    pub tables: Vec<TableStatus>,
    /// Counts.
    pub counters: Counters,
}
