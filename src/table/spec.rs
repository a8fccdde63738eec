//! What a stick table is, as configuration or a peer's first definition says it.
//!
//! Built by [`crate::config`] (from `table` and `stick-table` lines) or from a definition when
//! tables are learned. Immutable afterwards and shared by every shard.

#![forbid(unsafe_code)]

use crate::wire::{DataType, KeyType};

/// One stored data type with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The type.
    pub data_type: DataType,
    /// Elements of an array type; 1 for the others.
    pub elements: u32,
    /// Period of a rate in ms; 0 for the others.
    pub period_ms: u32,
}

/// A stick table as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// As `show table` names it: the proxy's name, or `<section>/<table>` for one of a peers
    /// section.
    pub name: String,
    /// As definitions name it: the proxy's name, or `/<table>` (protocol.md 4.1).
    pub wire_name: String,
    /// Type of the keys.
    pub key_type: KeyType,
    /// Key length as definitions carry it: 4, 16, `len`+1 for strings (32 when unsized), `len` for
    /// binary.
    pub key_len: u32,
    /// Most entries the table may hold.
    pub size: u64,
    /// Lifetime of an untouched entry; 0 means entries never expire.
    pub expire_ms: u32,
    /// When full, refuse new entries instead of evicting the soonest to expire.
    pub nopurge: bool,
    /// Stored types in ascending bit order, each once.
    pub columns: Vec<ColumnSpec>,
    /// Values that are local to each node (`conn_cur`) are learned all the same (HAProxy >= 3.2).
    pub recv_only: bool,
    /// Table (by `name`) into which as-is types of received updates are written too (>= 2.9).
    pub write_to: Option<String>,
    /// Divisor of `bytes_*_rate` counters, 1 when unset (>= 3.1). Not on the wire.
    pub brates_factor: u32,
    /// `srvkey addr` instead of the default `srvkey name`. Only the proxies that stick use it.
    pub srvkey_addr: bool,
}

impl TableSpec {
    /// Stored types as a definition's bitfield.
    pub fn data_types(&self) -> u64 {
        self.columns.iter().fold(0, |bits, c| bits | c.data_type.mask())
    }
}
