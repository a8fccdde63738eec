//! Where a session is in learning and teaching (protocol.md 6.2).
//!
//! Plain states; the established session moves them. Rule: nothing is pushed on the fly and no ack
//! of the peer counts while one of them is under way.

use crate::limits::LESSON_STALL_MS;
use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// Learning from this peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Learn {
    /// The section has not chosen this session.
    #[default]
    NotAssigned,
    /// RESYNC_REQ is sent (or the old process teaches by itself): updates are not acked.
    Processing {
        /// When the section assigned it.
        since: Millis,
        /// Updates received in it.
        updates: u64,
        /// When the last of them came.
        progress: Millis,
    },
    /// FINISHED or PARTIAL came; not everything is applied yet.
    Ended {
        /// When the section assigned it.
        since: Millis,
        /// Updates received in it.
        updates: u64,
    },
}

impl Learn {
    /// When a teacher that has sent nothing more is found wanting.
    pub fn stalls_at(&self) -> Option<Millis> {
        match self {
            Learn::Processing { progress, .. } => Some(progress.plus(LESSON_STALL_MS)),
            _ => None,
        }
    }

    /// As `show peers` prints it.
    pub fn name(&self) -> &'static str {
        match self {
            Learn::NotAssigned => "NOTASSIGNED",
            Learn::Processing { .. } => "PROCESSING",
            Learn::Ended { .. } => "FINISHED",
        }
    }
}

/// Where shards stood when a lesson began: (table, source, position in its change log).
pub type Tails = Vec<(usize, usize, u64)>;

/// Teaching this peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Teach {
    /// Nobody asked, or the last lesson is confirmed.
    #[default]
    None,
    /// Shards send their chunks.
    Teaching {
        /// Its number.
        lesson: u32,
        /// When it was asked for.
        since: Millis,
        /// Entries sent so far.
        entries: u64,
    },
    /// FINISHED or PARTIAL is sent; CONFIRM is awaited.
    Ended {
        /// When it was asked for.
        since: Millis,
        /// Entries sent.
        entries: u64,
        /// We were up to date.
        finished: bool,
        /// Where pushing goes on once it is confirmed.
        tails: Tails,
    },
}

impl Teach {
    /// For `show peers`.
    pub fn name(&self) -> &'static str {
        match self {
            Teach::None => "NONE",
            Teach::Teaching { .. } => "TEACHING",
            Teach::Ended { .. } => "FINISHED",
        }
    }
}
