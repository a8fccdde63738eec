//! The instant hand-over: another stickring process goes on with our memory, listening sockets and
//! sessions, as they are.
//!
//! The new process asks the old one over a unix socket under the old one's pid. The old one stops
//! all its sockets between two bytes ([`crate::shard::handover`]) and sends everything. What comes
//! in meanwhile stays in the sockets. The new one builds everything without touching any of it,
//! and then takes the token, of which there is one: whoever takes it is the owner. Until then the
//! old one may take it back and goes on as if nothing had happened, which it does when the new one
//! dies, says no, or takes too long; afterwards it touches nothing and leaves. Whoever dies at
//! whatever step, there are never two owners; who dies as the owner leaves none. Rule: any doubt
//! is a no, and the hand-over by the protocol follows (`super::handover`).
//!
//! | step | old | new |
//! |---|---|---|
//! | 1 | | asks: versions, and the shape of its configuration |
//! | 2 | compares, freezes, exports | |
//! | 3 | sends token, state, descriptors | receives, checks, builds |
//! | 4 | | takes the token, says so, goes to work |
//! | 5 | leaves (exit 0), or takes the token back and goes on | |
//!
//! A reload mostly happens because the configuration has changed: which differences are no doubt
//! says `shape.rs`.
//!
//! Tables are mapped, not copied: of a row only some bits beside it travel (`table::export`).

mod hold;
mod offer;
mod shape;
mod state;
mod take;

pub use hold::{Hold, frozen};
pub use offer::{listen, offer};
use shape::Shape;
pub use state::{ListenerState, NodeState};
pub use take::{Legacy, Takeover, take_over};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The first bytes of a question. The digits count the layouts of everything that is handed over,
/// memory of tables included: another one means another program.
const MAGIC: &[u8; 16] = b"stickring-inst-4";

/// The old process's answer.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    No(String),
    /// Descriptors follow: the token, the state, listening sockets, then each shard's.
    Yes {
        state_len: u64,
        state_hash: u64,
        fds: usize,
    },
}

/// Everything but descriptors.
#[derive(Serialize, Deserialize)]
struct Bundle {
    /// When the old process began to freeze.
    since: crate::Millis,
    seeds: [u64; 4],
    node: NodeState,
    listeners: Vec<ListenerState>,
    /// Each shard's state and number of descriptors.
    shards: Vec<(Bytes, usize)>,
    sessions: usize,
}

fn hash(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}
