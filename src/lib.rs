//! stickring: a HAProxy peers node.
//!
//! It joins `peers` sections beside unmodified HAProxy processes, holds their stick tables and
//! gives them back fast. This file is the map; each module's head says what it is, what it owns,
//! who calls it and which rule it keeps.
//!
//! # Layers
//!
//! | layer | modules | may touch |
//! |---|---|---|
//! | core | [`wire`] [`session`] [`resync`] [`table`] [`config`] [`runtime_api`] | bytes, values, `now`: no sockets, no clock, no threads |
//! | one thread's work | [`shard`] | the core, and the engine's handles |
//! | whole-node duties | [`coordinator`] | accept, dial, handshakes, section state, signals |
//! | Linux | [`engine`] | the only module that names tokio-uring |
//! | who stays | [`master`] | starts and replaces the processes that do all this (`-W`) |
//! | words for people | [`observe`] | log lines, counters |
//!
//! # The two walks
//!
//! **In.** bytes -> [`wire::frame`] cuts frames in place -> [`session`] checks them and follows
//! definitions -> [`table::route`] hashes the key once -> a batch for each owner shard (shared
//! buffer and offsets) -> the owner's tick applies it -> "applied" back -> the session's ledger ->
//! ack.
//!
//! **Out.** a local change joins its partition's change log once -> end of tick: the shard encodes
//! changed rows back to back -> shared `Bytes` to each session's home -> one `writev` -> the peer's
//! ack moves the ledger; after a reconnect, resend from the first unconfirmed position (rows are
//! read again).
//!
//! # A reload
//!
//! `-sf PIDS`: [`coordinator::instant`] asks the old process for everything it has; its shards stop
//! between two bytes and export their sessions ([`shard`], `handover.rs`) and tables
//! ([`table`], `export.rs`). Other remote peers and tables are no hindrance. Any
//! doubt, and `coordinator::handover` teaches by the peers protocol instead, with the timers of
//! [`resync::handover`].
//!
//! # Words
//!
//! *peer* another node; *session* one connection to it; *lesson* a full resync (teach, learn);
//! *partition* a slice of one table; *shard* a thread; *batch* updates that travel together;
//! *ledger* ids sent and acked; *home* the shard a session's socket lives on.

pub mod cli;
pub mod config;
pub mod coordinator;
pub mod engine;
pub mod limits;
pub mod master;
pub mod observe;
pub mod resync;
pub mod runtime_api;
pub mod session;
pub mod shard;
pub mod table;
pub mod time;
pub mod wire;

pub use time::Millis;

/// This version, as `-v` and `show version` print it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// When this version was made.
pub const RELEASE_DATE: &str = "2026/11/20";
