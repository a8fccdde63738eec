//! `clear table <table> [data.<type> <op> <n>]{0,4} | key <key> | ptr 0x<n>`.
//!
//! Parsed on the coordinator, run on every shard that owns a part of the table. Rule, HAProxy's:
//! without anything behind the name every entry goes; no peer is told.

use super::command::{Command, Context};
use super::error::CliError;
use super::row::selected;
use super::select::{Select, is_data, parse_filters, parse_key, parse_pointer, word};
use crate::table::{Entry, KeyHasher, ScanCursor, TablePart};
use crate::time::Millis;

/// A parsed `clear table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearTable {
    /// Number of the table, as [`super::Tables::find`] gave it.
    pub table: usize,
    /// The entries to remove.
    pub select: Select,
}

/// Where a removal goes on in a shard's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This part is done; so many entries went with this call.
    Done(u64),
    /// Call again with this cursor; so many entries went with this call.
    More(u64, ScanCursor),
}

impl ClearTable {
    /// Removes from one part, looking at about `budget` rows. Start with `ScanCursor::default()`.
    ///
    /// A [`Select::Key`] need only be run on the key's owner; a [`Select::Pointer`] that no part
    /// knows (`Done(0)` from all) is answered with [`CliError::NoEntryAtPointer`].
    pub fn run(
        &self,
        part: &mut TablePart,
        from: ScanCursor,
        budget: usize,
        now: Millis,
        hasher: &KeyHasher,
    ) -> Progress {
        let spec = part.spec().clone();
        match &self.select {
            Select::All => Progress::Done(part.clear()),
            Select::Key(key) => Progress::Done(part.remove(now, key, hasher.hash(key)).into()),
            Select::Pointer(id) => {
                let key = part.get_by_id(now, *id).map(|entry| entry.key().to_vec());
                let gone = key.is_some_and(|key| part.remove(now, &key, hasher.hash(&key)));
                Progress::Done(gone.into())
            }
            Select::Filters(_) => {
                let doomed = |entry: &Entry<'_>| selected(&spec, &self.select, entry, now);
                match part.clear_where(now, from, budget, doomed) {
                    (gone, None) => Progress::Done(gone),
                    (gone, Some(cursor)) => Progress::More(gone, cursor),
                }
            }
        }
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
        b"key" => parse_key(&spec, rest)?,
        b"ptr" => parse_pointer(rest)?,
        data if is_data(data) => parse_filters(&spec, rest, 3)?,
        _ => return Err(CliError::ClearTableUsage),
    };
    Ok(Command::ClearTable(ClearTable { table, select }))
}
