//! `set table <table> key <key> [data.<type> <n>]*`, or `ptr 0x<n>` instead of the key.
//!
//! Parsed on the coordinator, run on the shard that owns the key. Rule, HAProxy's: values are
//! applied from left to right, and those before a wrong word stay; the entry is created or
//! refreshed even then. It is a local change: every peer gets it. Binary keys are hexadecimal (ours
//! alone).

use super::column::{Column, integer};
use super::command::{Command, Context};
use super::error::CliError;
use super::select::{Select, is_data, parse_key, parse_pointer, word};
use crate::table::{KeyHasher, LocalSet, SetError, TablePart, TableSpec};
use crate::time::Millis;
use crate::wire::Kind;

/// A parsed `set table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTable {
    /// Number of the table, as [`super::Tables::find`] gave it.
    pub table: usize,
    /// The entry to create or change: a key, or a pointer that must exist.
    pub target: Target,
    /// Values to store, in this order.
    pub values: Vec<LocalSet>,
    /// What to answer once `values` are stored, if not success.
    pub error: Option<CliError>,
}

/// The entry `set table` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By its canonical key.
    Key(Vec<u8>),
    /// As `show table` printed it.
    Pointer(u64),
}

/// Stores the values in the shard's part of the table and gives the reply. `Target::Pointer` is
/// looked up in this part only: [`CliError::NoEntryAtPointer`] may mean that another shard has it.
pub fn run(set: &SetTable, part: &mut TablePart, now: Millis, hasher: &KeyHasher) -> Reply {
    let key = match &set.target {
        Target::Key(key) => key.clone(),
        Target::Pointer(id) => {
            let entry = part.get_by_id(now, *id).ok_or(CliError::NoEntryAtPointer)?;
            entry.key().to_vec()
        }
    };
    match part.set_local(now, &key, hasher.hash(&key), &set.values) {
        Ok(()) => set.error.clone().map_or(Ok(()), Err),
        Err(SetError::Refused(_)) => Err(CliError::TableFull),
        Err(SetError::NotStored) => Err(CliError::NotStored),
        Err(SetError::IndexOutOfRange) => Err(CliError::IndexRange),
    }
}

/// What `set table` answers.
pub type Reply = Result<(), CliError>;

/// Parses the words behind `set table`. `Ok(None)`: nothing to do and an empty reply.
///
/// HAProxy 2.6 to 3.2 take `set table <table>` without a key for `clear table <table>` and empty
/// the table; with us it does nothing.
pub(super) fn parse(words: &[Vec<u8>], cx: &Context<'_>) -> Result<Option<Command>, CliError> {
    let name = words.first().ok_or(CliError::SetTableUsage)?;
    let (table, spec) = cx.tables.find(name).ok_or(CliError::NoSuchTable)?;
    cx.operator()?;
    let rest = &words[1..];
    let select = match word(rest, 0) {
        b"" if rest.is_empty() => return Ok(None),
        b"key" => parse_key(&spec, rest)?,
        b"ptr" => parse_pointer(rest)?,
        data if is_data(data) => return Err(CliError::ContentLookup),
        _ => return Err(CliError::SetTableUsage),
    };
    let target = match select {
        Select::Pointer(pointer) => Target::Pointer(pointer),
        Select::Key(key) => Target::Key(key),
        Select::All | Select::Filters(_) => return Err(CliError::ContentLookup),
    };
    let (values, error) = parse_values(&spec, &rest[2..]);
    Ok(Some(Command::SetTable(SetTable { table, target, values, error })))
}

fn parse_values(spec: &TableSpec, words: &[Vec<u8>]) -> (Vec<LocalSet>, Option<CliError>) {
    let mut values = Vec::new();
    for pair in words.chunks(2) {
        match parse_value(spec, &pair[0], word(pair, 1)) {
            // HAProxy takes a number for a dictionary column and does nothing with it.
            Ok(value) if value.data_type.kind() == Kind::Dict => {}
            Ok(value) => values.push(value),
            Err(error) => return (values, Some(error)),
        }
    }
    (values, None)
}

fn parse_value(spec: &TableSpec, name: &[u8], value: &[u8]) -> Result<LocalSet, CliError> {
    let name = name.strip_prefix(b"data.").ok_or(CliError::DataExpected)?;
    let column = Column::parse(name).ok_or(CliError::UnknownType)?;
    let stored = column.of(spec).ok_or(CliError::NotStored)?;
    let value = integer(value).ok_or(CliError::StoreValue)?;
    if column.index >= stored.elements {
        return Err(CliError::IndexRange);
    }
    Ok(LocalSet { data_type: column.data_type, index: column.index, value })
}
