//! One shard's rows of one table, found by key, with their lifetimes.
//!
//! It owns the rows, the index, the deadlines and the interned texts, and keeps the four in step.
//! Used by [`super::part`], which adds what rows mean to others (updates, changes). Rules: an
//! expired row is never found, walked or counted; when the table is full the soonest to expire goes
//! first.
//!
//! **The size limit.** `size` bounds the whole table, whose partitions live on several shards. Each
//! shard tells the others what it uses once a tick; here `others_used` is their sum as last told.
//! An insert that would exceed `size` sweeps what expired, then evicts one of our own rows
//! (`nopurge`: refuses). While we hold less than our fair share, it is the others who hold too
//! much: then it evicts nothing, or our newest rows would push each other out for ever. So, and
//! since the figures are a tick old, the shards together may exceed `size` for a moment;
//! [`Store::trim`] at the end of the tick takes back what each holds above its fair share. Tables
//! of one partition have one owner and are always exact.

#![forbid(unsafe_code)]

use super::expiry::{BLOCK, Deadlines, NEVER};
use super::index::{Index, IndexState};
use super::memory::{MemoryError, Region};
use super::rows::{RowStore, RowsState};
use super::schema::{self, CHANGE, DEADLINE, Schema};
use super::texts::Texts;
use crate::limits::EVICT_BLOCKS_MAX;
use crate::time::Millis;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// Rows in tables without `expire` keep when they were last touched, in units of 2^10 ms: 32 bits
/// last for a century.
const TOUCH_SHIFT: u32 = 10;

/// A new row that was not made.
///
/// *Effect:* the update is dropped and counted (and still acknowledged); `set table` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The table is full and `nopurge` is set.
    #[error("table is full")]
    Full,
    /// No memory, and nothing to evict.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The key's length is not the table's.
    #[error("key does not fit the table")]
    BadKey,
}

/// What has happened in a table part since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Rows made.
    pub inserts: u64,
    /// Rows that reached their deadline.
    pub expirations: u64,
    /// Rows that went early because the table was full.
    pub evictions: u64,
    /// New rows refused: `nopurge` table full, or no memory.
    pub refused_full: u64,
    /// Changes made here.
    pub updates_local: u64,
    /// Changes learned from peers.
    pub updates_remote: u64,
    /// `server_key` values not kept because there are too many different ones or one is too long.
    pub texts_refused: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Store {
    pub(super) rows: RowStore,
    pub(super) index: Index,
    deadlines: Deadlines,
    pub(super) texts: Texts,
    pub(super) counters: Counters,
    /// The table's `expire`; 0: rows never expire.
    pub(super) expire_ms: u32,
    nopurge: bool,
    size: u64,
    /// Our partitions and all, for the fair share of `size`.
    share: (u32, u32),
    others_used: u64,
}

/// A [`Store`] without its memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreState {
    rows: RowsState,
    index: IndexState,
    /// Moments of the blocks.
    deadlines: Vec<u64>,
    texts: Vec<Option<(Vec<u8>, u32)>>,
    counters: Counters,
}

/// What a store is made for.
#[derive(Clone, Copy, Debug)]
pub struct StoreSpec {
    /// The table's `expire`; 0: none.
    pub expire_ms: u32,
    /// Refuse instead of evicting.
    pub nopurge: bool,
    /// Most rows of the whole table.
    pub size: u64,
    /// Partitions of the table.
    pub partitions: u32,
    /// Of which ours.
    pub owned: u32,
    /// Most rows kept here.
    pub rows_max: u32,
}

impl Store {
    /// An empty store. Reserves address space, touches nothing.
    pub fn new(
        spec: StoreSpec,
        schema: Schema,
        hasher: super::route::KeyHasher,
    ) -> Result<Store, MemoryError> {
        Ok(Store {
            rows: RowStore::new(schema, hasher, spec.rows_max)?,
            index: Index::new(spec.partitions, u64::from(spec.rows_max))?,
            deadlines: Deadlines::default(),
            texts: Texts::default(),
            counters: Counters::default(),
            expire_ms: spec.expire_ms,
            nopurge: spec.nopurge,
            size: spec.size,
            share: (spec.owned, spec.partitions),
            others_used: 0,
        })
    }

    /// What another process needs beside the memory, which is that of rows, keys and index.
    pub fn state(&self) -> (StoreState, Vec<&Region>) {
        let (rows, mut regions) = self.rows.state();
        let (index, region) = self.index.state();
        regions.push(region);
        let deadlines = self.deadlines.leaves().to_vec();
        let (texts, counters) = (self.texts.state(), self.counters);
        (StoreState { rows, index, deadlines, texts, counters }, regions)
    }

    /// The rows of another process. `None`: the state is not one of such rows.
    pub fn adopt(
        spec: StoreSpec,
        schema: Schema,
        hasher: super::route::KeyHasher,
        state: StoreState,
        mut memory: impl Iterator<Item = (usize, OwnedFd)>,
    ) -> Option<Result<Store, MemoryError>> {
        let rows = match RowStore::adopt(schema, hasher, spec.rows_max, state.rows, &mut memory)? {
            Ok(rows) => rows,
            Err(error) => return Some(Err(error)),
        };
        let last = memory.next()?;
        let index = Index::adopt(spec.partitions, u64::from(spec.rows_max), state.index, last)?;
        if state.deadlines.len() != rows.blocks() || memory.next().is_some() {
            return None;
        }
        Some(index.map(|index| Store {
            rows,
            index,
            deadlines: Deadlines::over(state.deadlines),
            texts: Texts::adopt(state.texts),
            counters: state.counters,
            expire_ms: spec.expire_ms,
            nopurge: spec.nopurge,
            size: spec.size,
            share: (spec.owned, spec.partitions),
            others_used: 0,
        }))
    }

    /// Rows held, expired ones not swept yet included.
    pub fn count(&self) -> u64 {
        self.rows.count()
    }

    /// What the other shards hold of this table.
    pub fn set_others_used(&mut self, others: u64) {
        self.others_used = others;
    }

    /// When the row expires (or was last touched, in a table without `expire`) on the whole clock.
    #[inline]
    fn deadline(&self, row: &[u8], now: Millis) -> u64 {
        let word = schema::word(row, DEADLINE);
        if self.expire_ms == 0 {
            return u64::from(word) << TOUCH_SHIFT;
        }
        now.0.saturating_add_signed(i64::from(word.wrapping_sub(now.tick()) as i32))
    }

    /// Milliseconds the row has left; `None` when it is over. Tables without `expire`: always 0
    /// left.
    #[inline]
    pub fn left_ms(&self, slot: u32, now: Millis) -> Option<u32> {
        if self.expire_ms == 0 {
            return Some(0);
        }
        let left = schema::word(self.rows.row(slot), DEADLINE).wrapping_sub(now.tick()) as i32;
        (left > 0).then_some(left as u32)
    }

    /// Starts to fetch the row that probably has this hash, if there is one.
    #[inline(always)]
    pub fn prefetch_row(&self, hash: u64) {
        if let Some(slot) = self.index.candidate(hash) {
            self.rows.prefetch(slot);
        }
    }

    /// The live row with this key.
    #[inline]
    pub fn find(&self, now: Millis, key: &[u8], hash: u64) -> Option<u32> {
        let slot = self.index.find(hash, |slot| self.rows.key_is(slot, key))?;
        self.left_ms(slot, now).map(|_| slot)
    }

    /// The row with this key, made if there is none, and whether it was made. Its deadline must be
    /// set by [`Store::touch`] right after.
    #[inline]
    pub fn upsert(&mut self, now: Millis, key: &[u8], hash: u64) -> Result<(u32, bool), Refused> {
        if let Some(slot) = self.index.find(hash, |slot| self.rows.key_is(slot, key)) {
            if self.left_ms(slot, now).is_some() {
                return Ok((slot, false));
            }
            self.remove_slot(slot, hash);
            self.counters.expirations += 1;
        }
        let made = self.insert(now, key, hash);
        if made.is_err() {
            self.counters.refused_full += 1;
        }
        made.map(|slot| (slot, true))
    }

    fn insert(&mut self, now: Millis, key: &[u8], hash: u64) -> Result<u32, Refused> {
        if !self.rows.accepts(key) {
            return Err(Refused::BadKey);
        }
        if self.count() + self.others_used >= self.size {
            self.make_room(now)?;
        }
        let mut slot = self.rows.insert(key);
        if slot.is_err() && !self.nopurge && self.evict(now) {
            slot = self.rows.insert(key);
        }
        let slot = slot?;
        if let Err(e) = self.index.insert(hash, slot, &self.rows) {
            self.rows.remove(slot);
            return Err(e.into());
        }
        self.deadlines.grow_to(self.rows.blocks());
        self.counters.inserts += 1;
        // Not due before `touch` says when: a row made now is never swept by accident.
        let word = match self.expire_ms {
            0 => (now.0 >> TOUCH_SHIFT) as u32,
            ms => now.tick().wrapping_add(ms),
        };
        schema::set_word(self.rows.row_mut(slot), DEADLINE, word);
        let deadline = self.deadline(self.rows.row(slot), now);
        self.deadlines.lower(slot as usize / BLOCK, deadline);
        Ok(slot)
    }

    #[cold]
    fn make_room(&mut self, now: Millis) -> Result<(), Refused> {
        for _ in 0..EVICT_BLOCKS_MAX {
            if self.expire(now, 1) > 0 {
                return Ok(());
            }
            if self.next_deadline().is_none_or(|d| d > now) {
                break;
            }
        }
        if self.nopurge {
            return Err(Refused::Full);
        }
        if self.count() >= self.fair_share() {
            self.evict(now);
        }
        Ok(())
    }

    /// Gives a row `left_ms` from now (ignored in tables without `expire`).
    #[inline]
    pub fn touch(&mut self, now: Millis, slot: u32, left_ms: u32) {
        let expires = self.expire_ms != 0;
        let row = self.rows.row_mut(slot);
        if !expires {
            schema::set_word(row, DEADLINE, (now.0 >> TOUCH_SHIFT) as u32);
            return;
        }
        let new = now.tick().wrapping_add(left_ms);
        let old = schema::word(row, DEADLINE);
        schema::set_word(row, DEADLINE, new);
        // Later is put right lazily; only earlier must be known at once.
        if (new.wrapping_sub(old) as i32) < 0 {
            self.deadlines.lower(slot as usize / BLOCK, now.0 + u64::from(left_ms));
        }
    }

    /// Removes the row with this key, if it lives.
    pub fn remove(&mut self, now: Millis, key: &[u8], hash: u64) -> bool {
        let Some(slot) = self.index.find(hash, |slot| self.rows.key_is(slot, key)) else {
            return false;
        };
        let lived = self.left_ms(slot, now).is_some();
        self.remove_slot(slot, hash);
        self.counters.expirations += u64::from(!lived);
        lived
    }

    /// Removes a row, whose key has this hash.
    pub fn remove_slot(&mut self, slot: u32, hash: u64) {
        self.index.remove(hash, slot);
        if let Some(at) = self.rows.schema.server_key {
            self.texts.release(schema::word(self.rows.row(slot), at));
        }
        self.rows.remove(slot);
    }

    /// Hash of a row's key.
    pub fn hash(&self, slot: u32) -> u64 {
        self.rows.hasher.hash(self.rows.key(slot))
    }

    /// Removes the expired rows of a block and sets the block's moment right. Returns how many
    /// went.
    fn sweep(&mut self, block: usize, now: Millis) -> usize {
        let mut doomed = [(0u32, 0u64); BLOCK];
        let mut n = 0;
        let mut next = NEVER;
        let mut bits = self.rows.live_in(block);
        while bits != 0 {
            let slot = (block * BLOCK) as u32 + bits.trailing_zeros();
            bits &= bits - 1;
            let deadline = self.deadline(self.rows.row(slot), now);
            if deadline <= now.0 {
                doomed[n] = (slot, self.hash(slot));
                self.index.prefetch(doomed[n].1);
                n += 1;
            } else {
                next = next.min(deadline);
            }
        }
        for &(slot, hash) in &doomed[..n] {
            self.remove_slot(slot, hash);
        }
        self.deadlines.set(block, next);
        self.counters.expirations += n as u64;
        n
    }

    /// Removes expired rows, looking at about `budget` rows. Returns how many went.
    pub fn expire(&mut self, now: Millis, budget: usize) -> usize {
        let (mut gone, mut looked) = (0, 0);
        while self.expire_ms != 0 && looked < budget && self.deadlines.earliest() <= now.0 {
            let Some((block, _)) = self.deadlines.earliest_block() else { break };
            gone += self.sweep(block, now);
            looked += BLOCK;
        }
        gone
    }

    /// The earliest moment at which [`Store::expire`] may have something to do.
    pub fn next_deadline(&self) -> Option<Millis> {
        let earliest = self.deadlines.earliest();
        (self.expire_ms != 0 && earliest != NEVER).then_some(Millis(earliest))
    }

    /// Removes the row that expires soonest (in tables without `expire`: that was touched least
    /// recently, to a second or so). Exact, unless more than `EVICT_BLOCKS_MAX` blocks turn out to
    /// have been refreshed since they were looked at last: then the soonest of those. False when
    /// there is no row.
    fn evict(&mut self, now: Millis) -> bool {
        let mut best = (NEVER, 0);
        for _ in 0..EVICT_BLOCKS_MAX {
            let Some((block, moment)) = self.deadlines.earliest_block() else { break };
            if moment >= best.0 {
                break;
            }
            let first = self.soonest_in(block, now);
            self.deadlines.set(block, first.0);
            best = best.min(first);
        }
        let (deadline, slot) = best;
        if deadline == NEVER {
            return false;
        }
        let hash = self.hash(slot);
        self.remove_slot(slot, hash);
        let block = slot as usize / BLOCK;
        let next = self.soonest_in(block, now).0;
        self.deadlines.set(block, next);
        self.counters.evictions += 1;
        true
    }

    /// The earliest deadline of a block, and its row.
    fn soonest_in(&self, block: usize, now: Millis) -> (u64, u32) {
        let mut best = (NEVER, 0);
        let mut bits = self.rows.live_in(block);
        while bits != 0 {
            let slot = (block * BLOCK) as u32 + bits.trailing_zeros();
            bits &= bits - 1;
            best = best.min((self.deadline(self.rows.row(slot), now), slot));
        }
        best
    }

    /// Evicts what the table holds above its size, as far as we hold more than our fair share; at
    /// most `budget` rows. Returns how many went.
    pub fn trim(&mut self, now: Millis, budget: usize) -> usize {
        if self.nopurge || self.count() + self.others_used <= self.size {
            return 0;
        }
        let excess = self.count() + self.others_used - self.size;
        let ours = excess.min(self.count().saturating_sub(self.fair_share())).min(budget as u64);
        (0..ours).take_while(|_| self.evict(now)).count()
    }

    /// Rows of the table's size that fall to our partitions.
    fn fair_share(&self) -> u64 {
        let (owned, all) = (u128::from(self.share.0), u128::from(self.share.1.max(1)));
        (u128::from(self.size) * owned / all) as u64
    }

    /// Removes all rows and gives their memory back.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.index.clear();
        self.deadlines.clear();
        self.texts.clear();
    }

    /// The row's mark in the change log.
    #[inline]
    pub fn mark(&self, slot: u32) -> u32 {
        schema::word(self.rows.row(slot), CHANGE)
    }

    /// True while there is a row in `slot` with this mark.
    #[inline]
    pub fn has_mark(&self, slot: u32, mark: u32) -> bool {
        self.rows.is_live(slot) && self.mark(slot) == mark
    }

    /// Sets a row's `server_key`. Texts that are too long or too many are dropped and counted; the
    /// row then keeps what it had.
    pub fn set_text(&mut self, slot: u32, at: usize, text: &Arc<[u8]>) {
        let old = schema::word(self.rows.row(slot), at);
        if self.texts.get(old).is_some_and(|t| Arc::ptr_eq(t, text)) {
            return;
        }
        match self.texts.acquire(text) {
            Some(number) => {
                schema::set_word(self.rows.row_mut(slot), at, number);
                self.texts.release(old);
            }
            None => self.counters.texts_refused += 1,
        }
    }
}
