//! The rows of one table part: fixed-width slots in one region, with their keys.
//!
//! It owns the row memory, the list of free slots, which slots live, and long keys. Used by
//! [`super::store`], which keeps index, deadlines and texts in step with it. Rule: a slot is a
//! `u32` that stays valid until its row is freed; free slots are linked through their first word.

#![forbid(unsafe_code)]

use super::blobs::{Blobs, BlobsState};
use super::expiry::BLOCK;
use super::index;
use super::memory::{Backing, MemoryError, Region};
use super::route::KeyHasher;
use super::schema::{self, KEY, KeySlot, LONG_INLINE, Schema};
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};

/// No slot.
const NIL: u32 = u32::MAX;
/// Bytes of a long key beside its blob.
const PREFIX: usize = LONG_INLINE - 4;

/// See the module's head.
#[derive(Debug)]
pub struct RowStore {
    pub(super) schema: Schema,
    pub(super) hasher: KeyHasher,
    region: Region,
    blobs: Option<Blobs>,
    /// One bit a slot, one word a block.
    live: Vec<u64>,
    /// Slots ever used.
    high: u32,
    free: u32,
    live_count: u64,
    max: u32,
}

/// [`RowStore`] without its memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowsState {
    stride: usize,
    max: u32,
    live: Vec<u64>,
    high: u32,
    free: u32,
    live_count: u64,
    blobs: Option<BlobsState>,
}

impl RowStore {
    /// Bytes to reserve for `max` rows.
    fn room(schema: &Schema, max: u32) -> usize {
        (max as usize).next_multiple_of(BLOCK).saturating_mul(schema.stride)
    }

    /// What another process needs beside the memory, of rows and of long keys.
    pub fn state(&self) -> (RowsState, Vec<&Region>) {
        let (blobs, keys) = self.blobs.as_ref().map(Blobs::state).unzip();
        let state = RowsState {
            stride: self.schema.stride,
            max: self.max,
            live: self.live.clone(),
            high: self.high,
            free: self.free,
            live_count: self.live_count,
            blobs,
        };
        (state, [&self.region].into_iter().chain(keys).collect())
    }

    /// The rows of another process; `memory` as [`RowStore::state`] has it, with lengths. `None`:
    /// the state is not one of such rows.
    pub fn adopt(
        schema: Schema,
        hasher: KeyHasher,
        max: u32,
        state: RowsState,
        memory: &mut impl Iterator<Item = (usize, OwnedFd)>,
    ) -> Option<Result<Self, MemoryError>> {
        let (len, rows) = memory.next()?;
        let RowsState { stride, live, high, free, live_count, .. } = state;
        let same = (stride, state.max) == (schema.stride, max);
        let whole = high <= max
            && live.len() == (high as usize).div_ceil(BLOCK)
            && len >= high as usize * stride
            && (free < high || free == NIL)
            && live.iter().map(|bits| u64::from(bits.count_ones())).sum::<u64>() == live_count;
        if !same || !whole {
            return None;
        }
        let blobs = match (schema.key_slot, state.blobs) {
            (KeySlot::Long, Some(blobs)) => {
                match Blobs::adopt(u64::from(max), schema.key_max, blobs, memory.next()?)? {
                    Ok(blobs) => Some(blobs),
                    Err(error) => return Some(Err(error)),
                }
            }
            (KeySlot::Long, None) | (_, Some(_)) => return None,
            (_, None) => None,
        };
        let region = Region::adopt("rows", RowStore::room(&schema, max), len, rows);
        Some(region.map(|region| RowStore {
            schema,
            hasher,
            region,
            blobs,
            live,
            high,
            free,
            live_count,
            max,
        }))
    }

    /// For at most `max` rows.
    pub fn new(schema: Schema, hasher: KeyHasher, max: u32) -> Result<Self, MemoryError> {
        let region = Region::reserve("rows", RowStore::room(&schema, max))?;
        let blobs = match schema.key_slot {
            KeySlot::Long => Some(Blobs::new(u64::from(max), schema.key_max)?),
            _ => None,
        };
        let live = Vec::new();
        Ok(RowStore { schema, hasher, region, blobs, live, high: 0, free: NIL, live_count: 0, max })
    }

    /// Rows that live, expired ones not swept yet included.
    #[inline]
    pub fn count(&self) -> u64 {
        self.live_count
    }

    /// Blocks that have ever held a row.
    #[inline]
    pub fn blocks(&self) -> usize {
        self.live.len()
    }

    /// Live slots of a block, one bit each.
    #[inline]
    pub fn live_in(&self, block: usize) -> u64 {
        self.live.get(block).copied().unwrap_or(0)
    }

    /// True while there is a row in `slot`.
    #[inline]
    pub fn is_live(&self, slot: u32) -> bool {
        self.live_in(slot as usize / BLOCK) >> (slot as usize % BLOCK) & 1 != 0
    }

    /// Where the rows' pages come from.
    pub fn backing(&self) -> Backing {
        self.region.backing()
    }

    /// Bytes of row memory in use, long keys aside.
    pub fn bytes(&self) -> usize {
        self.high as usize * self.schema.stride
    }

    /// A row's bytes. Panics for slots never used: slots come from the index or from live bits.
    #[inline(always)]
    pub fn row(&self, slot: u32) -> &[u8] {
        let at = slot as usize * self.schema.stride;
        &self.region.bytes()[at..at + self.schema.stride]
    }

    /// A row's bytes, for writing.
    #[inline(always)]
    pub fn row_mut(&mut self, slot: u32) -> &mut [u8] {
        let stride = self.schema.stride;
        let at = slot as usize * stride;
        &mut self.region.bytes_mut()[at..at + stride]
    }

    /// Starts to fetch the slot the next new row will get.
    #[inline(always)]
    pub fn prefetch(&self, slot: u32) {
        self.region.prefetch(slot as usize * self.schema.stride);
    }

    /// A new row with this key and all else zero.
    pub fn insert(&mut self, key: &[u8]) -> Result<u32, MemoryError> {
        let blob = match &mut self.blobs {
            Some(blobs) if key.len() > LONG_INLINE => blobs.store(key)?,
            _ => 0,
        };
        let slot = match self.take_slot() {
            Ok(slot) => slot,
            Err(e) => {
                self.free_blob(key.len(), blob);
                return Err(e);
            }
        };
        let slot_kind = self.schema.key_slot;
        let row = self.row_mut(slot);
        write_key(row, slot_kind, key, blob);
        self.live[slot as usize / BLOCK] |= 1 << (slot as usize % BLOCK);
        self.live_count += 1;
        Ok(slot)
    }

    /// A slot whose bytes are all zero, as fresh memory is.
    fn take_slot(&mut self) -> Result<u32, MemoryError> {
        if self.free != NIL {
            let slot = self.free;
            self.free = schema::word(self.row(slot), 0);
            self.row_mut(slot).fill(0);
            return Ok(slot);
        }
        let end = (self.high as usize + 1) * self.schema.stride;
        if self.high >= self.max {
            return Err(MemoryError::Full { name: "rows", bytes: self.bytes() });
        }
        if end > self.region.len() {
            self.region.grow_ahead(end)?;
        }
        if (self.high as usize).is_multiple_of(BLOCK) {
            self.live.push(0);
        }
        self.high += 1;
        Ok(self.high - 1)
    }

    /// Frees a live row's slot and key.
    pub fn remove(&mut self, slot: u32) {
        if let (Some((place, len)), Some(blobs)) = (self.blob_of(slot), &mut self.blobs) {
            blobs.free(place, len);
        }
        let free = self.free;
        schema::set_word(self.row_mut(slot), 0, free);
        self.free = slot;
        self.live[slot as usize / BLOCK] &= !(1 << (slot as usize % BLOCK));
        self.live_count -= 1;
    }

    /// Forgets all rows and gives the memory back.
    pub fn clear(&mut self) {
        self.region.release(0..self.bytes());
        if let Some(blobs) = &mut self.blobs {
            blobs.clear();
        }
        self.live.clear();
        (self.high, self.free, self.live_count) = (0, NIL, 0);
    }

    fn free_blob(&mut self, len: usize, place: u32) {
        if let (Some(blobs), true) = (&mut self.blobs, len > LONG_INLINE) {
            blobs.free(place, len);
        }
    }

    /// Place and length of a row's long key.
    fn blob_of(&self, slot: u32) -> Option<(u32, usize)> {
        let row = self.row(slot);
        let len = match self.schema.key_slot {
            KeySlot::Long => schema::word(row, KEY) as usize,
            _ => return None,
        };
        (len > LONG_INLINE).then(|| (schema::word(row, KEY + 4), len))
    }

    /// A row's canonical key.
    #[inline]
    pub fn key(&self, slot: u32) -> &[u8] {
        let row = self.row(slot);
        match self.schema.key_slot {
            KeySlot::Fixed(n) => &row[KEY..KEY + n],
            KeySlot::Short(_) => &row[KEY + 1..KEY + 1 + usize::from(row[KEY])],
            KeySlot::Long => match (self.blob_of(slot), &self.blobs) {
                (Some((place, len)), Some(blobs)) => blobs.get(place, len),
                _ => &row[KEY + 4..KEY + 4 + schema::word(row, KEY) as usize],
            },
        }
    }

    /// True when the row has this key.
    #[inline(always)]
    pub fn key_is(&self, slot: u32, key: &[u8]) -> bool {
        let row = self.row(slot);
        match (self.schema.key_slot, key) {
            // The common lengths as plain comparisons.
            (KeySlot::Fixed(4), &[a, b, c, d]) => row[KEY..KEY + 4] == [a, b, c, d],
            (KeySlot::Fixed(n), _) => &row[KEY..KEY + n] == key,
            (KeySlot::Short(_), _) => {
                usize::from(row[KEY]) == key.len() && &row[KEY + 1..KEY + 1 + key.len()] == key
            }
            (KeySlot::Long, _) => self.long_key_is(row, slot, key),
        }
    }

    fn long_key_is(&self, row: &[u8], slot: u32, key: &[u8]) -> bool {
        if schema::word(row, KEY) as usize != key.len() {
            return false;
        }
        let prefix_is_it =
            key.len() <= LONG_INLINE || row[KEY + 8..KEY + 8 + PREFIX] == key[..PREFIX];
        prefix_is_it && self.key(slot) == key
    }

    /// True when `key` is one that a row of this table can have.
    #[inline]
    pub fn accepts(&self, key: &[u8]) -> bool {
        match self.schema.key_shape {
            crate::wire::KeyShape::Fixed(n) => key.len() == n,
            crate::wire::KeyShape::String { max } => key.len() <= max,
        }
    }

    /// Next live slot at or after `from`.
    #[inline]
    pub fn next_live(&self, from: u32) -> Option<u32> {
        let mut block = from as usize / BLOCK;
        let mut bits = self.live_in(block) & (u64::MAX << (from as usize % BLOCK));
        while bits == 0 {
            block += 1;
            bits = *self.live.get(block)?;
        }
        Some((block * BLOCK) as u32 + bits.trailing_zeros())
    }
}

fn write_key(row: &mut [u8], slot: KeySlot, key: &[u8], blob: u32) {
    match slot {
        KeySlot::Fixed(n) => row[KEY..KEY + n].copy_from_slice(key),
        KeySlot::Short(_) => {
            row[KEY] = key.len() as u8;
            row[KEY + 1..KEY + 1 + key.len()].copy_from_slice(key);
        }
        KeySlot::Long => {
            schema::set_word(row, KEY, key.len() as u32);
            if key.len() > LONG_INLINE {
                schema::set_word(row, KEY + 4, blob);
                row[KEY + 8..KEY + 8 + PREFIX].copy_from_slice(&key[..PREFIX]);
            } else {
                row[KEY + 4..KEY + 4 + key.len()].copy_from_slice(key);
            }
        }
    }
}

impl index::Rows for RowStore {
    fn hash(&self, slot: u32) -> u64 {
        self.hasher.hash(self.key(slot))
    }

    fn prefetch(&self, slot: u32) {
        RowStore::prefetch(self, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::spec;
    use super::*;
    use crate::wire::KeyType;

    fn rows(key_type: KeyType, key_len: u32, max: u32) -> RowStore {
        let schema = Schema::new(&spec(key_type, key_len, "gpc0")).unwrap();
        RowStore::new(schema, KeyHasher::new([1; 4]), max).unwrap()
    }

    #[test]
    fn keys_of_every_shape_are_kept() {
        for (key_type, key_len) in [
            (KeyType::Ipv4, 4),
            (KeyType::Ipv6, 16),
            (KeyType::Binary, 5),
            (KeyType::Binary, 32),
            (KeyType::Binary, 33),
            (KeyType::Binary, 300),
            (KeyType::String, 17),
            (KeyType::String, 33),
            (KeyType::String, 34),
            (KeyType::String, 8000),
        ] {
            let mut store = rows(key_type, key_len, 500);
            let max = store.schema.key_max;
            let key = |i: usize| {
                let len = if key_type == KeyType::String { i * 7 % (max + 1) } else { max };
                let mut key = vec![b'a'; len];
                let id = (i as u32).to_be_bytes();
                let n = len.min(4);
                key[len - n..].copy_from_slice(&id[4 - n..]);
                key
            };
            let slots: Vec<u32> = (0..300).map(|i| store.insert(&key(i)).unwrap()).collect();
            for (i, &slot) in slots.iter().enumerate() {
                assert_eq!(store.key(slot), key(i));
                assert!(store.accepts(&key(i)) && store.key_is(slot, &key(i)));
                let other = key((i + 1) % 300);
                assert_eq!(store.key_is(slot, &other), other == key(i));
            }
            slots.iter().step_by(2).for_each(|&s| store.remove(s));
            assert_eq!(store.count(), 150);
            let again: Vec<u32> = (0..150).map(|i| store.insert(&key(i)).unwrap()).collect();
            assert_eq!(store.blocks(), 300usize.div_ceil(BLOCK), "freed slots are used again");
            assert_eq!(store.key(again[3]), key(3));
            assert_eq!(store.key(slots[1]), key(1));
        }
    }

    #[test]
    fn live_slots_are_walked_in_order() {
        let mut store = rows(KeyType::Ipv4, 4, 1000);
        let slots: Vec<u32> =
            (0..200u32).map(|i| store.insert(&i.to_be_bytes()).unwrap()).collect();
        slots.iter().filter(|s| *s % 3 != 0).for_each(|&s| store.remove(s));
        let mut walked = Vec::new();
        let mut at = 0;
        while let Some(slot) = store.next_live(at) {
            walked.push(slot);
            at = slot + 1;
        }
        assert_eq!(walked, (0..200).step_by(3).collect::<Vec<_>>());
        store.clear();
        assert_eq!((store.next_live(0), store.count(), store.is_live(3)), (None, 0, false));
        assert_eq!(store.insert(&[0; 4]).map(|s| store.row(s)[8..].iter().max()), Ok(Some(&0)));
    }

    #[test]
    fn more_rows_than_declared_are_refused() {
        let mut store = rows(KeyType::Ipv4, 4, 2);
        store.insert(&[1; 4]).unwrap();
        store.insert(&[2; 4]).unwrap();
        assert!(matches!(store.insert(&[3; 4]), Err(MemoryError::Full { .. })));
        store.remove(0);
        assert_eq!(store.insert(&[3; 4]), Ok(0));
    }
}
