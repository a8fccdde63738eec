//! What one shard owns of one table, and the verbs on it.
//!
//! It owns the rows of the shard's partitions and the log of changes made here. Called only from
//! the owner shard's tick (design.md rule 2). Rules: learned updates overwrite and are not changes
//! (protocol.md 7.2, 7.5: they are taught, never pushed on); local changes are.

#![forbid(unsafe_code)]

use super::changes::{ChangeLog, Trimmed};
use super::entry::Entry;
use super::layout::{Field, RemoteLayout, Target};
use super::memory::{Backing, MemoryError};
use super::rate::Rate;
use super::route::{KeyHasher, Place};
use super::schema::{self, CHANGE, Schema, SchemaError};
use super::spec::TableSpec;
use super::store::{Counters, Refused, Store, StoreSpec};
use crate::limits::{CHANGES_MAX, PART_ROWS_MAX, SERVER_KEY_MAX};
use crate::time::Millis;
use crate::wire::update::{Value, decode_values};
use crate::wire::varint::Reader;
use crate::wire::{DataType, DecodeError, Kind, What};
use std::ops::ControlFlow;
use std::sync::Arc;
use thiserror::Error;

/// Index buckets are fetched this many updates ahead, ...
const BUCKETS_AHEAD: usize = 32;
/// ... and the rows that they name this many.
const ROWS_AHEAD: usize = 16;
/// Changed rows are fetched this many entries ahead.
const CHANGES_AHEAD: u64 = 8;
/// Rows beyond its share that a part of a cut table has room for: hashes spread unevenly.
const SLACK_ROWS: u64 = 65_536;

/// A table that cannot be made.
///
/// *Effect:* the process does not start, or the learned table is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// Its rows cannot be laid out.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// No room for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// An update from a peer, checked by its session.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoteUpdate<'u> {
    /// Canonical key.
    pub key: &'u [u8],
    /// The lifetime field of timed updates, as sent.
    pub expire_ms: Option<u32>,
    /// The values, as sent.
    pub values: &'u [u8],
    /// `server_key` as the session's dictionary resolved it; `None` leaves the row's.
    pub server_key: Option<&'u Arc<[u8]>>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Updates that are in the table now (or whose entry is over, as they say).
    pub applied: u64,
    /// New entries refused.
    pub refused: u64,
}

/// One `data.<type>[<index>] <value>` of a `set table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSet {
    /// The type.
    pub data_type: DataType,
    /// Element of an array; 0 for the others.
    pub index: u32,
    /// Taken modulo the column's width.
    pub value: i64,
}

/// A `set table` that stopped.
///
/// *Effect:* what came before stays set; the row is touched and pushed, unless it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// No new row could be made.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The table has no such column.
    #[error("Data type not stored in this table")]
    NotStored,
    /// The array is shorter.
    #[error("index out of range in this data array")]
    IndexOutOfRange,
}

/// Where a scan goes on. Starts at `Default`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ScanCursor(u32);

/// See the module's head.
#[derive(Debug)]
pub struct TablePart {
    spec: Arc<TableSpec>,
    place: Place,
    store: Store,
    changes: ChangeLog,
    id_base: u64,
}

impl TablePart {
    /// The part of a table that `shard` owns, empty.
    pub fn new(
        spec: Arc<TableSpec>,
        hasher: KeyHasher,
        place: Place,
        shard: u32,
    ) -> Result<Self, TableError> {
        let store = Store::new(store_spec(&spec, place, shard), Schema::new(&spec)?, hasher)?;
        Ok(TablePart::with(spec, place, shard, store, ChangeLog::new(CHANGES_MAX, 1)))
    }

    /// The part that has these rows and changes.
    pub(super) fn with(
        spec: Arc<TableSpec>,
        place: Place,
        shard: u32,
        store: Store,
        changes: ChangeLog,
    ) -> TablePart {
        let table = u64::from(place.local_id & 0xffff) + 1;
        let id_base = table << 44 | u64::from(shard & 0xfff) << 32;
        TablePart { spec, place, store, changes, id_base }
    }

    /// Rows and changes.
    pub(super) fn inside(&self) -> (&Store, &ChangeLog) {
        (&self.store, &self.changes)
    }

    /// The table.
    pub fn spec(&self) -> &Arc<TableSpec> {
        &self.spec
    }

    /// Where its partitions live.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.store.counters
    }

    /// Where its pages come from.
    pub fn backing(&self) -> Backing {
        self.store.rows.backing()
    }

    /// Bytes of rows and index in use.
    pub fn bytes(&self) -> usize {
        self.store.rows.bytes() + self.store.index.bytes()
    }

    /// Applies `n` updates behind one definition, in order. `hash(i)` is the hash of the key of
    /// `update(i)`: buckets, then rows, are fetched that many updates ahead, so that memory is
    /// never waited for with nothing else to do.
    pub fn apply<'u>(
        &mut self,
        now: Millis,
        layout: &RemoteLayout,
        n: usize,
        hash: impl Fn(usize) -> u64,
        update: impl Fn(usize) -> RemoteUpdate<'u>,
    ) -> Applied {
        let mut done = Applied::default();
        (0..n.min(BUCKETS_AHEAD)).for_each(|i| self.store.index.prefetch(hash(i)));
        (0..n.min(ROWS_AHEAD)).for_each(|i| self.store.prefetch_row(hash(i)));
        for i in 0..n {
            if i + BUCKETS_AHEAD < n {
                self.store.index.prefetch(hash(i + BUCKETS_AHEAD));
            }
            if i + ROWS_AHEAD < n {
                self.store.prefetch_row(hash(i + ROWS_AHEAD));
            }
            match self.apply_one(now, layout, hash(i), &update(i)) {
                Ok(()) => done.applied += 1,
                Err(_) => done.refused += 1,
            }
        }
        done
    }

    /// Applies one update by the rules of protocol.md 7.
    #[inline]
    fn apply_one(
        &mut self,
        now: Millis,
        layout: &RemoteLayout,
        hash: u64,
        u: &RemoteUpdate<'_>,
    ) -> Result<(), Refused> {
        let store = &mut self.store;
        let expires = store.expire_ms != 0;
        let left = if expires { layout.lifetime_ms(u.expire_ms, store.expire_ms) } else { 0 };
        if expires && left == 0 {
            if store.remove(now, u.key, hash) {
                store.counters.expirations += 1;
            }
            store.counters.updates_remote += 1;
            return Ok(());
        }
        let (slot, _) = store.upsert(now, u.key, hash)?;
        store.touch(now, slot, left);
        let row = store.rows.row_mut(slot);
        // The session has checked these values before; were they faulty after all, those before the
        // fault count, as in HAProxy.
        if let Some((fields, _)) = &layout.plain {
            let _ = write_plain(row, u.values, fields, now);
            store.counters.updates_remote += 1;
            return Ok(());
        }
        let _ = decode_values(u.values, layout.steps(), |step, element, value| {
            if let Some(target) = layout.targets[step] {
                write_value(row, target, element, value, now);
            }
        });
        if let (Some(at), Some(text)) = (layout.server_key, u.server_key) {
            if text.len() <= SERVER_KEY_MAX {
                store.set_text(slot, at, text);
            } else {
                store.counters.texts_refused += 1;
            }
        }
        store.counters.updates_remote += 1;
        Ok(())
    }

    /// A change made here: makes or refreshes the row, then sets values left to right, as `set
    /// table` does. The row becomes a change to push even when a later set fails. `server_key`
    /// cannot be set to a number and stays as it is.
    pub fn set_local(
        &mut self,
        now: Millis,
        key: &[u8],
        hash: u64,
        sets: &[LocalSet],
    ) -> Result<(), SetError> {
        let (slot, _) = self.store.upsert(now, key, hash)?;
        let expire_ms = self.store.expire_ms;
        self.store.touch(now, slot, expire_ms);
        self.record_change(slot);
        self.store.counters.updates_local += 1;
        sets.iter().try_for_each(|set| self.set_value(now, slot, set))
    }

    fn set_value(&mut self, now: Millis, slot: u32, set: &LocalSet) -> Result<(), SetError> {
        let c = *self.store.rows.schema.column(set.data_type).ok_or(SetError::NotStored)?;
        if set.index >= c.elements {
            return Err(SetError::IndexOutOfRange);
        }
        let at = c.offset + c.width * set.index as usize;
        let row = self.store.rows.row_mut(slot);
        match c.kind {
            Kind::I32 | Kind::U32 => schema::set_word(row, at, set.value as u32),
            Kind::U64 => schema::set_double(row, at, set.value as u64),
            Kind::Rate => schema::set_rate(row, at, Rate::set(now, set.value as u32)),
            Kind::Dict => {}
        }
        Ok(())
    }

    fn record_change(&mut self, slot: u32) {
        let store = &self.store;
        let mark = self.changes.record(slot, store.mark(slot), |s, m| store.has_mark(s, m));
        schema::set_word(self.store.rows.row_mut(slot), CHANGE, mark);
    }

    fn entry(&self, slot: u32) -> Entry<'_> {
        Entry { store: &self.store, slot, id_base: self.id_base }
    }

    /// The live entry with this key.
    pub fn get(&self, now: Millis, key: &[u8], hash: u64) -> Option<Entry<'_>> {
        self.store.find(now, key, hash).map(|slot| self.entry(slot))
    }

    /// The live entry with this [`Entry::id`], if this part has it.
    pub fn get_by_id(&self, now: Millis, id: u64) -> Option<Entry<'_>> {
        let slot = id as u32;
        let ours = id & !u64::from(u32::MAX) == self.id_base && self.store.rows.is_live(slot);
        (ours && self.store.left_ms(slot, now).is_some()).then(|| self.entry(slot))
    }

    /// Removes an entry; false when there is none. Peers are not told (protocol.md 7.7).
    pub fn remove(&mut self, now: Millis, key: &[u8], hash: u64) -> bool {
        self.store.remove(now, key, hash)
    }

    /// Removes all entries and gives their memory back. Returns how many rows there were.
    pub fn clear(&mut self) -> u64 {
        let count = self.store.count();
        self.store.clear();
        count
    }

    /// Removes the entries for which `doomed` says yes, looking at about `budget` rows. Returns how
    /// many went and where to go on; `None` there: done.
    pub fn clear_where(
        &mut self,
        now: Millis,
        from: ScanCursor,
        budget: usize,
        mut doomed: impl FnMut(&Entry<'_>) -> bool,
    ) -> (u64, Option<ScanCursor>) {
        let (mut gone, mut at) = (0, from.0);
        for _ in 0..budget {
            let Some(slot) = self.store.rows.next_live(at) else { return (gone, None) };
            at = slot + 1;
            if self.store.left_ms(slot, now).is_some() && doomed(&self.entry(slot)) {
                let hash = self.store.hash(slot);
                self.store.remove_slot(slot, hash);
                gone += 1;
            }
        }
        (gone, Some(ScanCursor(at)))
    }

    /// Walks live entries in storage order, at most `budget` rows. `Break` means the entry was not
    /// taken: the scan goes on with it. Returns where to go on; `None`: all seen. Entries that stay
    /// in the table during the whole scan are seen exactly once.
    pub fn scan(
        &self,
        now: Millis,
        from: ScanCursor,
        budget: usize,
        mut visit: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Option<ScanCursor> {
        let mut at = from.0;
        for _ in 0..budget {
            let slot = self.store.rows.next_live(at)?;
            if self.store.left_ms(slot, now).is_some() && visit(self.entry(slot)).is_break() {
                return Some(ScanCursor(slot));
            }
            at = slot + 1;
        }
        Some(ScanCursor(at))
    }

    /// Removes expired rows, looking at about `budget` rows. Call it every tick.
    pub fn expire(&mut self, now: Millis, budget: usize) -> usize {
        self.store.expire(now, budget)
    }

    /// The earliest moment at which [`TablePart::expire`] may have something to do.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.store.next_deadline()
    }

    /// Live entries, exactly: sweeps everything that is due first.
    pub fn used(&mut self, now: Millis) -> u64 {
        self.store.expire(now, usize::MAX);
        self.store.count()
    }

    /// Rows held; may count some that expired and were not swept yet. For the other shards.
    pub fn used_estimate(&self) -> u64 {
        self.store.count()
    }

    /// Tells what the other shards hold of this table, for the size limit (see [`super::store`]).
    pub fn set_others_used(&mut self, others: u64) {
        self.store.set_others_used(others);
    }

    /// Evicts what the table holds above its size beyond our fair share, at most `budget` rows.
    /// Call it at the end of a tick.
    pub fn trim(&mut self, now: Millis, budget: usize) -> usize {
        self.store.trim(now, budget)
    }

    /// Different `server_key` texts held.
    #[cfg(test)]
    pub(super) fn texts(&self) -> usize {
        self.store.texts.count()
    }

    /// Position the next change gets: a cursor here has seen every change.
    pub fn change_head(&self) -> u64 {
        self.changes.head()
    }

    /// The head, for a reader that takes the rows as they are now and will come back to this cursor
    /// for what changes after. Rows that wait unread below it are entered anew when they change.
    pub fn checkpoint(&mut self) -> u64 {
        let head = self.changes.head();
        self.changes.mark_read(head);
        head
    }

    /// The oldest cursor that misses nothing.
    pub fn change_base(&self) -> u64 {
        self.changes.base()
    }

    /// Walks changed entries from cursor `from` on, oldest first, at most about `budget` log
    /// entries. `Break` means the entry was not taken. Returns the next cursor. Error: the cursor
    /// is too old, the follower must be re-taught.
    pub fn changes(
        &mut self,
        now: Millis,
        from: u64,
        budget: usize,
        mut visit: impl FnMut(u64, Entry<'_>) -> ControlFlow<()>,
    ) -> Result<u64, Trimmed> {
        let mut at = self.changes.begin(from)?;
        let end = at.saturating_add(budget as u64).min(self.changes.head());
        while at < end {
            if let Some((slot, _)) = self.changes.entry(at + CHANGES_AHEAD) {
                self.store.rows.prefetch(slot);
            }
            if let Some((slot, mark)) = self.changes.entry(at) {
                let live =
                    self.store.has_mark(slot, mark) && self.store.left_ms(slot, now).is_some();
                if live && visit(at, self.entry(slot)).is_break() {
                    break;
                }
            }
            at += 1;
        }
        self.changes.mark_read(at);
        Ok(at)
    }

    /// No follower needs changes before `lowest`: they are forgotten.
    pub fn trim_changes(&mut self, lowest: u64) {
        self.changes.trim(lowest);
    }
}

/// What the store of `shard`'s part of a table is made for.
pub(super) fn store_spec(spec: &TableSpec, place: Place, shard: u32) -> StoreSpec {
    let owned = place.owned_by(shard);
    let share = match owned == place.partitions {
        true => u128::from(spec.size),
        false => {
            // Twice the share: how many keys fall to us is the hash's choice, not ours.
            let even = u128::from(spec.size) * u128::from(owned) / u128::from(place.partitions);
            (2 * even + u128::from(SLACK_ROWS)).min(u128::from(spec.size))
        }
    };
    StoreSpec {
        expire_ms: spec.expire_ms,
        nopurge: spec.nopurge,
        size: spec.size,
        partitions: place.partitions,
        owned,
        rows_max: share.clamp(1, u128::from(PART_ROWS_MAX)) as u32,
    }
}

/// Shard that made an [`Entry::id`].
pub fn shard_of_id(id: u64) -> u32 {
    (id >> 32) as u32 & 0xfff
}

/// Stores the values of an update of numbers alone: what [`decode_values`] and [`write_value`] do,
/// without a closure a value.
#[inline(always)]
fn write_plain(
    row: &mut [u8],
    values: &[u8],
    fields: &[Field],
    now: Millis,
) -> Result<(), DecodeError> {
    let mut r = Reader::new(values);
    let what = What::Value(0);
    for field in fields {
        if field.kind == Kind::Rate {
            let (age_ms, curr) = (r.varint(what)? as u32, r.varint(what)? as u32);
            let prev = r.varint(what)? as u32;
            if let Some(at) = field.at {
                schema::set_rate(row, at, Rate::from_wire(now, age_ms, curr, prev));
            }
            continue;
        }
        let v = r.varint(what)?;
        match (field.at, field.kind) {
            (Some(at), Kind::U64) => schema::set_double(row, at, v),
            (Some(at), _) => schema::set_word(row, at, v as u32),
            (None, _) => {}
        }
    }
    Ok(())
}

/// Stores one received value (protocol.md 7.2: it overwrites). Elements beyond our array are
/// dropped.
#[inline(always)]
fn write_value(row: &mut [u8], target: Target, element: u32, value: Value<'_>, now: Millis) {
    if element >= target.elements {
        return;
    }
    let at = target.offset + target.width * element as usize;
    match (target.kind, value) {
        (Kind::I32 | Kind::U32, Value::Int(v)) => schema::set_word(row, at, v as u32),
        (Kind::U64, Value::Int(v)) => schema::set_double(row, at, v),
        (Kind::Rate, Value::Rate { age_ms, curr, prev }) => {
            schema::set_rate(row, at, Rate::from_wire(now, age_ms, curr, prev));
        }
        // Dictionary values are resolved by the session; the others cannot be of another kind.
        _ => {}
    }
}
