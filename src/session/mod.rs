//! One connection to a peer as a state machine: bytes, values and `now` in, bytes and events out.
//!
//! Owns everything that lives as long as the connection: the handshake ([`handshake`]), then the
//! established [`Session`] with its definitions, acks, lessons and timers. The [`Ledger`] (what a
//! peer has confirmed) and the [`link::Link`] (when to dial it) outlive the connection, one a peer.
//! Called by the coordinator (handshake, links) and by the home shard (sessions). Rules it keeps:
//! an ack means applied; nothing grows without a bound of [`crate::limits`]; any bytes cost at most
//! this session.
//!
//! Source of all behaviour: protocol.md sections 2, 5 and 6.

#![forbid(unsafe_code)]

pub mod established;
pub mod handshake;
pub mod incoming;
pub mod ledger;
pub mod lesson;
pub mod link;
pub mod random;
pub mod rounds;
pub mod state;
pub mod status;
pub mod timers;

pub use established::Session;
pub use handshake::{Accepting, Dialling};
pub use ledger::{ChangeBatch, Ledger};
pub use link::Link;
pub use state::{BadState, NotAtRest, SessionState};
pub use status::{Counters, SessionStatus, TableStatus};

use crate::wire::definition::{Definition, Step};
use crate::wire::{DecodeError, ErrorCode, FrameError, KeyShape};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// What a session needs to know about a table as the peer defined it.
pub trait Layout {
    /// Which of our tables: an index from 0; our id on the wire is one more.
    fn table(&self) -> usize;
    /// How its keys travel.
    fn key_shape(&self) -> KeyShape;
    /// The values of an update, in wire order.
    fn steps(&self) -> &[Step];
    /// How many varints an update's values are, when they are nothing else (no dictionary): they
    /// are then checked by a quick look.
    fn varints(&self) -> Option<u32> {
        None
    }
}

/// What a session asks about our tables.
pub trait Tables {
    /// A table of ours as a peer defined it.
    type Layout: Layout;

    /// Finds the table a definition names and checks that it fits, or creates it where tables are
    /// learned. Called once for each definition that differs from the peer's last one for that id.
    ///
    /// # Errors
    /// Why the peer's updates for it are ignored; the session goes on (protocol.md 4.1).
    fn define(&mut self, definition: &Definition) -> Result<Arc<Self::Layout>, Refusal>;
}

/// Takes a session's valid updates in stream order.
pub trait Sink<L> {
    /// One update, fully checked: its values decode, its dictionary value is resolved.
    fn update(&mut self, update: Received<'_, L>);
}

/// A valid update. Offsets are into the bytes given to [`Session::handle_bytes`].
#[derive(Debug)]
pub struct Received<'a, L> {
    /// The table as the peer defined it last.
    pub layout: &'a Arc<L>,
    /// The update's id, implicit ones counted.
    pub uid: u32,
    /// Remaining lifetime in ms, in timed forms.
    pub expire_ms: Option<u32>,
    /// Canonical key (cut at the table's length and at a NUL).
    pub key: &'a [u8],
    /// Offset of `key`.
    pub key_at: usize,
    /// Values as encoded, up to the message's end.
    pub values: &'a [u8],
    /// Offset of `values`.
    pub values_at: usize,
    /// The `server_key` the update carries, resolved by the session's dictionary; `None` leaves the
    /// row's as it is (protocol.md 4.7).
    pub server_key: Option<Arc<[u8]>>,
}

/// Why a peer's definition is not followed.
///
/// *Effect:* its updates are ignored and never acked until it selects another table; the session
/// goes on, the refusal is counted and reported once a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No table of that name here.
    #[error("no such table here")]
    Unknown,
    /// Key type, key length or array sizes differ; says which.
    #[error("{0}")]
    Mismatch(String),
    /// Parameters behind the bitfield are missing or wrong.
    #[error("faulty parameters in the definition")]
    BadTail,
    /// More tables than one session may define, or than may be learned.
    #[error("too many tables")]
    TooMany,
}

/// What a session knows when it is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionParams {
    /// The other side is our own name: a process being replaced, or its successor.
    pub local: bool,
    /// Minor protocol version of the peer; 0 gets untimed lessons (protocol.md 2.3).
    pub minor: u8,
    /// `tune.bufsize`: longest message payload accepted, in bytes.
    pub bufsize: usize,
}

/// What a session wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes for the peer.
    Send(Bytes),
    /// Something for the shards or the coordinator.
    Event(Event),
}

/// What happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Shards may send changes from [`Ledger::confirmed`] on, marked with this epoch; batches of
    /// older epochs are dropped. Encoders with a dictionary start an empty one.
    PushStart {
        /// Counts from 1.
        epoch: u32,
    },
    /// Learning, teaching or closing begins: no changes may be sent until the next start.
    PushStop,
    /// Every shard teaches its partitions; a new number aborts the lesson before it. Encoders with
    /// a dictionary start an empty one.
    TeachStart {
        /// Counts from 1.
        lesson: u32,
        /// Updates carry remaining lifetimes (the peer speaks 2.1).
        timed: bool,
    },
    /// The lesson we learned has ended and all of it is applied.
    LessonEnd {
        /// The teacher was up to date.
        finished: bool,
        /// Updates received in it.
        updates: u64,
        /// From the assignment to the last update applied, in ms.
        duration_ms: u64,
    },
    /// The peer confirmed the lesson we taught.
    Taught {
        /// We were up to date.
        finished: bool,
        /// Entries sent.
        entries: u64,
        /// From the request to the confirmation, in ms.
        duration_ms: u64,
    },
    /// A heartbeat came: the link re-arms its reconnect timer.
    Heard,
    /// A definition is not followed. Once a table name and session.
    Refused {
        /// Table name as the peer wrote it, cut to 64 bytes.
        name: Vec<u8>,
        /// Why.
        refusal: Refusal,
    },
    /// Last output: write what is queued, then close.
    Close(CloseReason),
}

/// Why a session ended by its own decision.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// Nothing was received for 5 s (protocol.md 2.7).
    #[error("nothing received for {} s", crate::limits::SILENCE_MS / 1000)]
    Silence,
    /// The peer sent something that cannot be.
    #[error("{0}")]
    BadInput(SessionError),
    /// We are the old process: our successor has confirmed the lesson (protocol.md 6.4).
    #[error("tables handed over")]
    HandedOver,
}

/// Bytes that end a session.
///
/// *Effect:* the error message of [`SessionError::code`] is sent, then the session closes. Updates
/// before the fault were given to the sink and stay (protocol.md 7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("message {message} at byte {offset}: {fault}")]
pub struct SessionError {
    /// Number of the faulty message, from 1.
    pub message: u64,
    /// Offset of its first byte behind the handshake.
    pub offset: u64,
    /// What was wrong.
    pub fault: Fault,
}

impl SessionError {
    /// The error message to send.
    pub fn code(&self) -> ErrorCode {
        match self.fault {
            Fault::Frame(FrameError::TooLong { .. }) => ErrorCode::SizeLimit,
            _ => ErrorCode::Protocol,
        }
    }
}

/// What was wrong with a message.
///
/// *Effect:* see [`SessionError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Its header.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its payload.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
