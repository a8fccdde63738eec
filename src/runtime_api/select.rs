//! Which entries of a table a command means: all, those that pass filters, one key, one pointer.
//!
//! Pure; shared by `show table`, `set table` and `clear table`. Rule: words are looked at in
//! HAProxy 3.2's order, so that of several mistakes the same one is named.

use super::column::{Column, integer};
use super::error::CliError;
use crate::limits::CLI_FILTERS_MAX;
use crate::table::key_from_text;
use crate::table::spec::TableSpec;

/// The entries meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// All of them.
    All,
    /// Those for which every filter holds; 1 to [`CLI_FILTERS_MAX`].
    Filters(Vec<Filter>),
    /// The one with this canonical key.
    Key(Vec<u8>),
    /// The one shown under this pointer.
    Pointer(u64),
}

/// `data.<type> <op> <number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is compared. An index past the end never matches.
    pub column: Column,
    /// How.
    pub op: Op,
    /// With what.
    pub value: i64,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `eq`
    Eq,
    /// `ne`
    Ne,
    /// `le`
    Le,
    /// `ge`
    Ge,
    /// `lt`
    Lt,
    /// `gt`
    Gt,
}

impl Op {
    fn parse(word: &[u8]) -> Option<Op> {
        Some(match word {
            b"eq" => Op::Eq,
            b"ne" => Op::Ne,
            b"le" => Op::Le,
            b"ge" => Op::Ge,
            b"lt" => Op::Lt,
            b"gt" => Op::Gt,
            _ => return None,
        })
    }

    /// Whether `left <op> right`.
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Op::Eq => left == right,
            Op::Ne => left != right,
            Op::Le => left <= right,
            Op::Ge => left >= right,
            Op::Lt => left < right,
            Op::Gt => left > right,
        }
    }
}

/// True when the word starts a value or a filter.
pub(super) fn is_data(word: &[u8]) -> bool {
    word.starts_with(b"data.")
}

/// The word at `at`, empty when there is none.
pub(super) fn word(words: &[Vec<u8>], at: usize) -> &[u8] {
    words.get(at).map_or(&[], Vec::as_slice)
}

/// Parses `key <key>`, the words being those behind the table's name.
pub(super) fn parse_key(spec: &TableSpec, words: &[Vec<u8>]) -> Result<Select, CliError> {
    let text = words.get(1).ok_or(CliError::KeyExpected)?;
    Ok(Select::Key(key_from_text(spec, text).map_err(|_| CliError::InvalidKey)?))
}

/// Parses `ptr 0x<hex>`.
pub(super) fn parse_pointer(words: &[Vec<u8>]) -> Result<Select, CliError> {
    let digits = word(words, 1).strip_prefix(b"0x").ok_or(CliError::PointerExpected)?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(CliError::MalformedPointer);
    }
    let number = digits.iter().try_fold(0u64, |n, &b| {
        (n >> 60 == 0).then(|| n << 4 | u64::from((b as char).to_digit(16).unwrap_or(0)))
    });
    number.map(Select::Pointer).ok_or(CliError::NoEntryAtPointer)
}

/// Parses `data.<type> <op> <number>` up to four times. `before` words of the command stand in
/// front.
pub(super) fn parse_filters(
    spec: &TableSpec,
    words: &[Vec<u8>],
    before: usize,
) -> Result<Select, CliError> {
    let mut filters = Vec::new();
    for (i, entry) in words.chunks(3).take(CLI_FILTERS_MAX).enumerate() {
        let n = i + 1;
        let name = entry[0].strip_prefix(b"data.");
        let column = name.and_then(Column::parse).ok_or(CliError::FilterUnknownType(n))?;
        column.of(spec).ok_or(CliError::FilterNotStored(n))?;
        let op = Op::parse(word(entry, 1)).ok_or(CliError::FilterOperator(n))?;
        let value = integer(word(entry, 2)).ok_or(CliError::FilterValue(n))?;
        filters.push(Filter { column, op, value });
    }
    let read = 3 * CLI_FILTERS_MAX;
    if words.len() > read {
        let after = String::from_utf8_lossy(&words[read - 1]).into_owned();
        return Err(CliError::FilterExtra { position: before + read + 1, after });
    }
    Ok(Select::Filters(filters))
}
