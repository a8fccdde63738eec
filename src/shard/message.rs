//! What shards say to each other. Small, so that rings stay in cache: the bulk is behind a `Bytes`
//! or a box.

use super::registry::Layout;
use crate::session::ChangeBatch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A session, wherever it lives. The generation tells a slot's sessions apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnKey {
    /// Home shard.
    pub shard: u16,
    /// Slot in the home's slab.
    pub slot: u32,
    /// Counts the sessions a slot has had.
    pub generation: u32,
}

/// See the module head. `conn` is the session concerned, on whichever side it is read.
#[derive(Debug)]
pub enum Message {
    /// Home to owner: updates for your partitions.
    Apply(Box<Batch>),
    /// Owner to home: those of this round are in the tables.
    Applied {
        /// Session.
        conn: ConnKey,
        /// The session's round.
        round: u64,
    },
    /// Home to owners: send local changes from these positions on.
    Subscribe(Box<Subscribe>),
    /// Home to owners: stop sending changes.
    Unsubscribe(ConnKey),
    /// Owner to home: local changes.
    Changes(ConnKey, Box<ChangeBatch>),
    /// Home to owners: send everything you have. Replaces an earlier lesson of the session.
    Teach(Box<Teach>),
    /// Home to owners: the lesson is off.
    StopTeaching(ConnKey),
    /// Owner to home: a piece of a lesson.
    Chunk(Box<Chunk>),
    /// A table holds more than its size, and the receiver more than its share: trim it.
    Crowded(usize),
    /// Owner to home: my part of the lesson is done.
    PartTaught(Box<PartTaught>),
    /// Home to owner: this much of what you sent is on the wire.
    Credit {
        /// Session.
        conn: ConnKey,
        /// What it was.
        kind: CreditKind,
    },
}

/// The two streams an owner sends to a home, each with its own credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreditKind {
    /// [`Message::Changes`].
    Changes,
    /// [`Message::Chunk`].
    Lesson,
}

/// Updates of one session's stream for one owner, in stream order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Where they came from.
    pub conn: ConnKey,
    /// The session's round they belong to.
    pub round: u64,
    /// The received bytes that the items point into.
    pub bytes: Bytes,
    /// Runs of items that share a layout.
    pub runs: Vec<Run>,
    /// The updates.
    pub items: Vec<Item>,
    /// Dictionary strings of the items, as [`Item::server_key`] numbers them.
    pub strings: Vec<Arc<[u8]>>,
}

/// Consecutive items of one table definition.
#[derive(Debug)]
pub struct Run {
    /// How to read them.
    pub layout: Arc<Layout>,
    /// They are for the layout's `write-to` table, not its own.
    pub second: bool,
    /// How many.
    pub count: usize,
}

/// One update, as ranges of the batch's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Hash of the key, computed once.
    pub hash: u64,
    /// Start of the key.
    pub key_at: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// Start of the values.
    pub values_at: u32,
    /// Bytes of the values.
    pub values_len: u32,
    /// Lifetime as on the wire, when `timed`.
    pub expire_ms: u32,
    /// The update carries a lifetime. (An `Option` would be put together in memory and copied.)
    pub timed: bool,
    /// 1 + index into [`Batch::strings`]; 0: none.
    pub server_key: u32,
}

/// A peer that takes only a part of the keys (`shards` of a section, protocol.md 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFilter {
    /// The part it takes, 1 to `shards`.
    pub shard: u32,
    /// Number of parts.
    pub shards: u32,
}

/// A session's wish for local changes.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Who.
    pub conn: ConnKey,
    /// The session's push epoch, to be put into each batch.
    pub epoch: u32,
    /// The section, for its tables.
    pub section: usize,
    /// Confirmed positions in this owner's logs, by table of the section; 0 for the rest.
    pub from: Vec<u64>,
    /// Keys it takes; `None`: all.
    pub filter: Option<KeyFilter>,
    /// It takes remaining lifetimes (version 2.1).
    pub timed: bool,
}

/// A session's wish for everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Teach {
    /// Who.
    pub conn: ConnKey,
    /// The session's lesson number.
    pub lesson: u32,
    /// The section, for its tables.
    pub section: usize,
    /// With remaining lifetimes (version 2.1).
    pub timed: bool,
    /// Keys it takes; `None`: all.
    pub filter: Option<KeyFilter>,
}

/// A piece of a lesson: definition and updates of one table.
#[derive(Debug)]
pub struct Chunk {
    /// Whose.
    pub conn: ConnKey,
    /// Lesson number.
    pub lesson: u32,
    /// Owner that made it, to get the credit back.
    pub owner: u16,
    /// Frames.
    pub bytes: Bytes,
    /// Updates in it.
    pub entries: u64,
}

/// The end of one owner's part of a lesson.
#[derive(Debug)]
pub struct PartTaught {
    /// Whose.
    pub conn: ConnKey,
    /// Lesson number.
    pub lesson: u32,
    /// Owner.
    pub owner: u16,
    /// Log positions when the lesson began, by table of the section: what changed since will be
    /// pushed.
    pub tails: Vec<u64>,
    /// Entries that could not be encoded for the peer.
    pub skipped: u64,
}
