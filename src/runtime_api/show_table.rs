//! `show table [<table> [data.<type> <op> <n>]{0,4} | key <key> | ptr 0x<n>]`.
//!
//! Parsed on the coordinator, run on every shard that owns a part of the table (or only on the
//! key's owner). Rule: a dump is made of bounded pieces, so that no table stops a shard or fills a
//! socket.

use super::command::{Command, Context};
use super::error::CliError;
use super::row::{selected, write_row};
use super::select::{Select, is_data, parse_filters, parse_key, parse_pointer, word};
use crate::config::CliLevel;
use crate::table::{Entry, KeyHasher, ScanCursor, TablePart, TableSpec, peer_shard};
use crate::time::Millis;
use std::ops::ControlFlow;

/// A parsed `show table <table> …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Number of the table, as [`super::Tables::find`] gave it.
    pub table: usize,
    /// The entries meant.
    pub select: Select,
    /// False at level `user`: the header is followed by [`NOT_DUMPED`] instead of entries.
    pub dump: bool,
}

/// What stands for the entries when the level is too low, and there are any.
pub const NOT_DUMPED: &str = "# contents not dumped due to insufficient privileges\n";

impl Query {
    /// True when the header is printed first and entries follow. Otherwise (a key, a pointer)
    /// nothing is printed before the entry is found.
    pub fn is_dump(&self) -> bool {
        matches!(self.select, Select::All | Select::Filters(_))
    }

    /// Appends lines from one part until `out` holds `budget_bytes` or about `budget_rows` were
    /// looked at. Returns where to go on; `None`: this part is done. Start with
    /// `ScanCursor::default()`.
    ///
    /// A key need only be asked from its owner. For a key or a pointer, no line from any part means
    /// that there is none: the reply is empty, or [`CliError::NoEntryAtPointer`].
    pub fn run(
        &self,
        part: &TablePart,
        from: ScanCursor,
        budget: Budget,
        cx: &Dump<'_>,
        out: &mut Vec<u8>,
    ) -> Option<ScanCursor> {
        let (spec, now) = (part.spec(), cx.now);
        let one = match &self.select {
            Select::All | Select::Filters(_) if !self.dump => return None,
            Select::All | Select::Filters(_) => {
                return part.scan(now, from, budget.rows, |entry| {
                    if out.len() >= budget.bytes {
                        return ControlFlow::Break(());
                    }
                    if selected(spec, &self.select, &entry, now) {
                        write_row(spec, &entry, cx.peer_shard(spec, &entry), now, out);
                    }
                    ControlFlow::Continue(())
                });
            }
            Select::Key(key) => part.get(now, key, cx.hasher.hash(key)),
            Select::Pointer(id) => part.get_by_id(now, *id),
        };
        if let Some(entry) = one {
            write_row(spec, &entry, cx.peer_shard(spec, &entry), now, out);
        }
        None
    }
}

/// How much one call of [`Query::run`] may do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Rows looked at.
    pub rows: usize,
    /// Length of the output at which it stops (one line more at most).
    pub bytes: usize,
}

/// What a dump needs besides the query.
pub struct Dump<'a> {
    /// The moment for rates and lifetimes.
    pub now: Millis,
    /// The node's key hash.
    pub hasher: &'a KeyHasher,
    /// `shards` of the table's peers section, 0 when it has none.
    pub shards: u32,
}

impl Dump<'_> {
    fn peer_shard(&self, spec: &TableSpec, entry: &Entry<'_>) -> u32 {
        peer_shard(entry.key(), spec.key_type, &spec.name, self.shards)
    }
}

/// Parses the words behind `show table`.
pub(super) fn parse(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Command, CliError> {
    let Some(name) = words.first() else { return Ok(Command::ShowTables) };
    let (table, spec) = cx.tables.find(name).ok_or(CliError::NoSuchTable)?;
    let rest = &words[1..];
    let select = match word(rest, 0) {
        b"" if rest.is_empty() => Select::All,
        b"key" => parse_key(&spec, rest)?,
        b"ptr" => parse_pointer(rest)?,
        data if is_data(data) => parse_filters(&spec, rest, 3)?,
        _ => return Err(CliError::ShowTableUsage),
    };
    let dump = cx.level >= CliLevel::Operator;
    let query = Query { table, select, dump };
    if !dump && !query.is_dump() {
        return Err(CliError::PermissionDenied);
    }
    Ok(Command::ShowTable(query))
}
