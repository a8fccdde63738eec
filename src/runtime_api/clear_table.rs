//! `clear table <table> [data.<type> <op> <n>]{0,4} | key <key> | ptr 0x<n>`.
//!
//! Parsed on the coordinator, run on every shard that owns a part of the table. Rule, HAProxy's:
//! without anything behind the name every entry goes; no peer is told.

use super::command::{Command, Context};
use super::error::CliError;
use super::row::{Row, selected};
use super::select::{Select, is_data, parse_filters, parse_key, parse_pointer, word};
use crate::table::spec::TableSpec;
use crate::time::Millis;

/// A parsed `clear table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearTable {
    /// Number of the table, as [`super::Tables::find`] gave it.
    pub table: usize,
    /// The entries to remove.
    pub select: Select,
}

impl ClearTable {
    /// True when the entry is to go.
    pub fn means(&self, spec: &TableSpec, row: &impl Row, now: Millis) -> bool {
        selected(spec, &self.select, row, now)
    }
}

/// Parses the words behind `clear table`.
pub(super) fn parse(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Command, CliError> {
    let name = words.first().ok_or(CliError::ClearTableUsage)?;
    let (table, spec) = cx.tables.find(name).ok_or(CliError::NoSuchTable)?;
    cx.operator()?;
    let rest = &words[1..];
    let select = match word(rest, 0) {
        b"" if rest.is_empty() => Select::All,
        b"key" => parse_key(spec, rest)?,
        b"ptr" => parse_pointer(rest)?,
        data if is_data(data) => parse_filters(spec, rest, 3)?,
        _ => return Err(CliError::ClearTableUsage),
    };
    Ok(Command::ClearTable(ClearTable { table, select }))
}
