//! The data: stick tables, cut into partitions, and the five verbs on them.
//!
//! It owns rows and nothing else: no sockets, no clock (`now` is passed in), no threads. A shard
//! holds one [`TablePart`] for each table and is the only one to call it; sessions use
//! [`RemoteLayout`] and [`KeyHasher`], the stats socket [`key`] and [`Entry`]. Rules: an expired
//! row is never shown, taught or counted; nothing grows without a limit; a row holds no pointer, so
//! that memory can be copied or handed over as it is.
//!
//! | verb | who |
//! |---|---|
//! | [`TablePart::apply`] | updates learned from peers |
//! | [`TablePart::set_local`] | changes made here |
//! | [`TablePart::changes`] | changed rows for those who follow |
//! | [`TablePart::scan`] | all rows, for lessons and `show table` |
//! | [`TablePart::expire`] | the end of rows, a little each tick |
//!
//! ```text
//! part ── store ─┬─ rows ──── memory (regions), blobs (long keys)
//!       │        ├─ index     hash -> slot, one line a lookup
//!       │        ├─ expiry    earliest deadline of each 64 rows
//!       │        └─ texts     interned server_key
//!       └─ changes            positions -> slots
//! schema: a row's bytes   layout: remote definition -> columns   encode: row -> message
//! route: key -> hash -> partition -> shard   rate: counters over a period   key: text <-> bytes
//! ```

mod blobs;
pub mod changes;
pub mod encode;
pub mod entry;
mod expiry;
pub mod export;
mod index;
pub mod key;
pub mod layout;
pub mod memory;
pub mod part;
pub mod rate;
pub mod route;
mod rows;
pub mod schema;
pub mod spec;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod texts;

pub use changes::Trimmed;
pub use encode::{EncodeError, Timing, encode_update};
pub use entry::{Cell, Entry};
pub use key::{InvalidKey, key_from_text, write_escaped, write_key_text};
pub use layout::{BadDefinition, Mismatch, RemoteLayout, definition_of, spec_from_definition};
pub use part::{Applied, LocalSet, RemoteUpdate, ScanCursor, SetError, TableError, TablePart};
pub use rate::Rate;
pub use route::{KeyHasher, Place, partition_of, peer_shard};
pub use spec::{ColumnSpec, TableSpec};
pub use store::{Counters, Refused};
