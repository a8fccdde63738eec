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
//! Tables are mapped, not copied: of a row only some bits beside it travel (`table::export`).

mod hold;
mod offer;
mod state;
mod take;

pub use hold::Hold;
pub use offer::{listen, offer};
pub use state::{ListenerState, NodeState};
pub use take::{Legacy, Takeover, take_over};

use crate::config::Config;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The first bytes of a question. The digits count the layouts of everything that is handed over,
/// memory of tables included: another one means another program.
const MAGIC: &[u8; 16] = b"stickring-inst-2";

/// What two processes must have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    version: String,
    shards: usize,
    localpeer: String,
    /// Tables with their sections and numbers.
    tables: Vec<String>,
    /// Sections and their peers.
    peers: Vec<String>,
    /// How tables are created from definitions.
    learned: String,
}

impl Shape {
    /// The shape of a process with this configuration and number of shards.
    pub fn of(config: &Config, shards: usize) -> Shape {
        let tables = config.tables.iter();
        let table = |t: &crate::config::TableDecl| {
            format!("{:?} of section {:?} as {}", t.spec, t.section, t.local_id)
        };
        let peers = config.peers.iter().flat_map(|section| {
            let (name, shards) = (&section.name, section.shards);
            let all = std::iter::once(&section.local).chain(&section.remotes);
            all.map(move |p| {
                let (address, source) = (&p.address, &p.source);
                format!(
                    "{name} shards {shards} peer {} {address:?} {source:?} {:?} {} {}",
                    p.name, p.source_interface, p.shard, p.disabled
                )
            })
        });
        Shape {
            version: crate::VERSION.to_string(),
            shards,
            localpeer: config.localpeer.clone(),
            tables: tables.map(table).collect(),
            peers: peers.collect(),
            learned: format!("{:?}", config.stickring.auto_tables),
        }
    }

    /// Why a process of this shape cannot go on for one of the `other`.
    fn differs_from(&self, other: &Shape) -> Option<String> {
        if self.version != other.version {
            return Some(format!("versions differ ({} and {})", self.version, other.version));
        }
        if self.shards != other.shards {
            return Some(format!("{} and {} shards", self.shards, other.shards));
        }
        let what = match () {
            () if self.localpeer != other.localpeer => "local peer's name",
            () if self.tables != other.tables => "tables",
            () if self.peers != other.peers => "peers",
            () if self.learned != other.learned => "auto-tables",
            () => return None,
        };
        Some(format!("configurations differ ({what})"))
    }
}

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
    entries: u64,
    sessions: usize,
}

fn hash(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}
