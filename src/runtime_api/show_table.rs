//! `show table [<table> [data.<type> <op> <n>]{0,4} | key <key> | ptr 0x<n>]`.
//!
//! Parsed on the coordinator, run on every shard that owns a part of the table (or only on the key's
//! owner). Rule: a dump is made of bounded pieces, so that no table stops a shard or fills a socket.

use super::command::{Command, Context};
use super::error::CliError;
use super::row::{Row, selected, write_row};
use super::select::{Select, is_data, parse_filters, parse_key, parse_pointer, word};
use crate::config::CliLevel;
use crate::table::spec::TableSpec;
use crate::time::Millis;

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
    /// True when the header is printed first and entries follow. Otherwise (a key, a pointer) nothing
    /// is printed before the entry is found.
    pub fn is_dump(&self) -> bool {
        matches!(self.select, Select::All | Select::Filters(_))
    }

    /// Appends the entry's line if it is one of those meant.
    pub fn write(
        &self,
        spec: &TableSpec,
        row: &impl Row,
        shard: u32,
        now: Millis,
        out: &mut Vec<u8>,
    ) -> bool {
        let meant = selected(spec, &self.select, row, now);
        if meant {
            write_row(spec, row, shard, now, out);
        }
        meant
    }
}

/// Parses the words behind `show table`.
pub(super) fn parse(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Command, CliError> {
    let Some(name) = words.first() else { return Ok(Command::ShowTables) };
    let (table, spec) = cx.tables.find(name).ok_or(CliError::NoSuchTable)?;
    let rest = &words[1..];
    let select = match word(rest, 0) {
        b"" if rest.is_empty() => Select::All,
        b"key" => parse_key(spec, rest)?,
        b"ptr" => parse_pointer(rest)?,
        data if is_data(data) => parse_filters(spec, rest, 3)?,
        _ => return Err(CliError::ShowTableUsage),
    };
    let dump = cx.level >= CliLevel::Operator;
    let query = Query { table, select, dump };
    if !dump && !query.is_dump() {
        return Err(CliError::PermissionDenied);
    }
    Ok(Command::ShowTable(query))
}
