//! Finding a row by its key's hash: flat buckets of one cache line each.
//!
//! One index serves all partitions a shard owns of a table; each partition has its own run of
//! buckets in the shared region and grows alone, so that no insert waits for a rehash of the whole
//! table. Used by [`super::store`] only. Rule: it holds slots and hash bits, no keys and no
//! pointers; a lookup reads one line in the common case.
//!
//! ```text
//! bucket: tags(12) overflow(2) unused(2) slots(12 x 4)      = 64 bytes
//! hash:   bits 58..64 partition | 40..48 tag (never 0) | 0..32 home bucket
//! ```
//!
//! An entry whose home is full lies in a later bucket, and every bucket it was pushed past counts
//! it in `overflow`: a search ends at a bucket that nothing was pushed past, and deletion leaves no
//! tombstones.

use super::memory::{LINE, Line, MemoryError, Region};
use super::route::partition_of;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};

/// Entries of a bucket.
const WIDTH: usize = 12;
/// Where `overflow` is.
const OVERFLOW: usize = 12;
/// Where the slots are.
const SLOTS: usize = 16;
/// A partition grows when its buckets hold more than this many entries on average.
const LOAD: usize = 10;
/// Buckets of a partition's first run, or twice as many.
const FIRST: usize = 8;
/// While growing, rows of the bucket this far ahead are fetched.
const LOOKAHEAD: usize = 4;
/// An overflow count that cannot be trusted any more, and so is never lowered.
const STUCK: u16 = u16::MAX;

/// What growing needs to know of rows.
pub trait Rows {
    /// Hash of the row's key.
    fn hash(&self, slot: u32) -> u64;
    /// Starts to fetch the row.
    fn prefetch(&self, slot: u32);
}

/// One partition's run of buckets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Run {
    /// First bucket, in lines of the region.
    start: usize,
    /// A power of two, or 0 before the first insert.
    buckets: usize,
    /// Entries.
    len: usize,
}

/// See the module's head.
#[derive(Debug)]
pub struct Index {
    region: Region,
    runs: Vec<Run>,
    /// Lines given out, freed runs included.
    used: usize,
    /// Freed runs by log2 of their buckets.
    free: Vec<Vec<usize>>,
    /// Runs that do not exceed this many buckets by it become four times as large.
    leap: usize,
}

/// [`Index`] without its memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexState {
    runs: Vec<Run>,
    used: usize,
    free: Vec<Vec<usize>>,
}

#[inline(always)]
fn tag(hash: u64) -> u8 {
    ((hash >> 40) as u8).max(1)
}

/// Bit `i` is set when tag `i` of the bucket is `tag`.
#[inline(always)]
fn matches(line: &Line, tag: u8) -> u32 {
    let b = &line.0;
    let lo = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    let hi = u64::from_le_bytes([b[8], b[9], b[10], b[11], 0, 0, 0, 0]);
    match_tags(lo, hi, tag) & ((1 << WIDTH) - 1)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn match_tags(lo: u64, hi: u64, tag: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    // SAFETY: these need nothing but SSE2, which every x86_64 processor has; they work on values.
    unsafe {
        let tags = _mm_set_epi64x(hi as i64, lo as i64);
        _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8))) as u32
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn match_tags(lo: u64, hi: u64, tag: u8) -> u32 {
    swar(lo, tag) | swar(hi, tag) << 8
}

/// Eight tags at once in a plain register: exact, one result bit a byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn swar(tags: u64, tag: u8) -> u32 {
    const LOW7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = tags ^ (0x0101_0101_0101_0101 * u64::from(tag));
    let zero = !(((x & LOW7) + LOW7) | x | LOW7);
    // One bit at the top of each equal byte; gather the eight into the low byte.
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[inline(always)]
fn overflow(line: &Line) -> u16 {
    u16::from_ne_bytes([line.0[OVERFLOW], line.0[OVERFLOW + 1]])
}

#[inline(always)]
fn set_overflow(line: &mut Line, n: u16) {
    line.0[OVERFLOW..OVERFLOW + 2].copy_from_slice(&n.to_ne_bytes());
}

#[inline(always)]
fn slot(line: &Line, i: usize) -> u32 {
    let b = &line.0[SLOTS + 4 * i..SLOTS + 4 * i + 4];
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

#[inline(always)]
fn set_slot(line: &mut Line, i: usize, slot: u32) {
    line.0[SLOTS + 4 * i..SLOTS + 4 * i + 4].copy_from_slice(&slot.to_ne_bytes());
}

impl Index {
    /// For `partitions` partitions and at most about `rows` entries in all.
    pub fn new(partitions: u32, rows: u64) -> Result<Index, MemoryError> {
        let region = Region::reserve("index", Index::room(partitions, rows))?;
        let runs = vec![Run::default(); partitions as usize];
        let leap = Index::leap(partitions, rows);
        Ok(Index { region, runs, used: 0, free: vec![], leap })
    }

    /// Bytes to reserve.
    fn room(partitions: u32, rows: u64) -> usize {
        // At most twice the entries in slots, once more in smaller runs they grew out of, and
        // slack.
        let lines = (rows as usize).saturating_mul(4) / LOAD + 128 * FIRST * partitions as usize;
        lines.saturating_mul(LINE)
    }

    fn leap(partitions: u32, rows: u64) -> usize {
        (rows as usize / LOAD / partitions.max(1) as usize).next_power_of_two() / 2
    }

    /// Buckets of a first run: those from which leaps lead to where they end.
    fn first(&self) -> usize {
        let doublings = self.leap.max(FIRST).trailing_zeros() - FIRST.trailing_zeros();
        FIRST << (doublings & 1)
    }

    /// What another process needs beside the memory.
    pub fn state(&self) -> (IndexState, &Region) {
        let (runs, used, free) = (self.runs.clone(), self.used, self.free.clone());
        (IndexState { runs, used, free }, &self.region)
    }

    /// The index of another process. `None`: the state is not one of such an index.
    pub fn adopt(
        partitions: u32,
        rows: u64,
        state: IndexState,
        (len, memory): (usize, OwnedFd),
    ) -> Option<Result<Index, MemoryError>> {
        let IndexState { runs, used, free } = state;
        let within = |start: usize, buckets: usize| {
            start.checked_add(buckets).is_some_and(|end| end <= used)
        };
        let sound = |run: &Run| {
            let sized = run.buckets == 0 || run.buckets.is_power_of_two();
            sized && within(run.start, run.buckets) && run.len <= run.buckets * WIDTH
        };
        let classes = free.iter().enumerate();
        let frees = |(class, runs): (usize, &Vec<usize>)| {
            class < 32 && runs.iter().all(|&start| within(start, 1 << class))
        };
        let whole = runs.len() == partitions as usize && used.checked_mul(LINE)? <= len;
        if !whole || !runs.iter().all(sound) || !classes.into_iter().all(frees) {
            return None;
        }
        let region = Region::adopt("index", Index::room(partitions, rows), len, memory);
        let leap = Index::leap(partitions, rows);
        Some(region.map(|region| Index { region, runs, used, free, leap }))
    }

    #[inline(always)]
    fn run(&self, hash: u64) -> (usize, Run) {
        let p = partition_of(hash, self.runs.len() as u32) as usize;
        (p, self.runs[p])
    }

    /// Starts to fetch the bucket a lookup of `hash` reads first.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        let (_, run) = self.run(hash);
        let home = hash as u32 as usize & run.buckets.saturating_sub(1);
        self.region.prefetch((run.start + home) * LINE);
    }

    /// A slot that probably has this hash, from its home bucket alone: for prefetching.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        let (_, run) = self.run(hash);
        if run.buckets == 0 {
            return None;
        }
        let line = self.region.line(run.start + (hash as u32 as usize & (run.buckets - 1)));
        let found = matches(line, tag(hash));
        (found != 0).then(|| slot(line, found.trailing_zeros() as usize))
    }

    /// The slot with this hash for which `is_it` says yes.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (_, run) = self.run(hash);
        if run.buckets == 0 {
            return None;
        }
        let mask = run.buckets - 1;
        let mut at = hash as u32 as usize & mask;
        for _ in 0..run.buckets {
            let line = self.region.line(run.start + at);
            let mut found = matches(line, tag(hash));
            while found != 0 {
                let slot = slot(line, found.trailing_zeros() as usize);
                if is_it(slot) {
                    return Some(slot);
                }
                found &= found - 1;
            }
            if overflow(line) == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Adds a slot that is not there yet. May grow its partition, and fails if that needs memory
    /// that cannot be had; nothing has changed then.
    #[inline]
    pub fn insert(&mut self, hash: u64, slot: u32, rows: &impl Rows) -> Result<(), MemoryError> {
        let (p, run) = self.run(hash);
        if run.len >= run.buckets * LOAD {
            self.grow(p, rows)?;
        }
        let run = &mut self.runs[p];
        run.len += 1;
        let run = *run;
        self.place(run, hash, slot);
        Ok(())
    }

    /// Puts an entry into the first free place from its home on. There is one: loads stay below 12.
    #[inline]
    fn place(&mut self, run: Run, hash: u64, slot: u32) {
        let mask = run.buckets - 1;
        let mut at = hash as u32 as usize & mask;
        loop {
            let line = self.region.line_mut(run.start + at);
            let free = matches(line, 0);
            if free != 0 {
                let i = free.trailing_zeros() as usize;
                line.0[i] = tag(hash);
                set_slot(line, i, slot);
                return;
            }
            let n = overflow(line);
            set_overflow(line, n.saturating_add(1));
            at = (at + 1) & mask;
        }
    }

    /// Takes a slot out; false when it is not there.
    pub fn remove(&mut self, hash: u64, gone: u32) -> bool {
        let (p, run) = self.run(hash);
        if run.buckets == 0 {
            return false;
        }
        let mask = run.buckets - 1;
        let home = hash as u32 as usize & mask;
        for distance in 0..run.buckets {
            let line = self.region.line_mut(run.start + ((home + distance) & mask));
            let mut found = matches(line, tag(hash));
            while found != 0 {
                let i = found.trailing_zeros() as usize;
                if slot(line, i) == gone {
                    line.0[i] = 0;
                    self.lower_overflow(run, home, distance);
                    self.runs[p].len -= 1;
                    return true;
                }
                found &= found - 1;
            }
            if overflow(line) == 0 {
                return false;
            }
        }
        false
    }

    /// An entry that had been pushed past `distance` buckets is gone.
    fn lower_overflow(&mut self, run: Run, home: usize, distance: usize) {
        for d in 0..distance {
            let line = self.region.line_mut(run.start + ((home + d) & (run.buckets - 1)));
            let n = overflow(line);
            if n != STUCK {
                set_overflow(line, n.saturating_sub(1));
            }
        }
    }

    /// Makes a partition's run twice as large, or four times while that is less than what a full
    /// table needs in the end. Rows are read again for their hashes, fetched a few buckets
    /// ahead.
    #[cold]
    fn grow(&mut self, p: usize, rows: &impl Rows) -> Result<(), MemoryError> {
        let old = self.runs[p];
        let factor = if old.buckets * 4 <= self.leap { 4 } else { 2 };
        let buckets = if old.buckets == 0 { self.first() } else { old.buckets * factor };
        let start = self.allocate(buckets)?;
        let new = Run { start, buckets, len: old.len };
        for at in 0..old.buckets + LOOKAHEAD {
            if at < old.buckets {
                let line = self.region.line(old.start + at);
                (0..WIDTH).filter(|&i| line.0[i] != 0).for_each(|i| rows.prefetch(slot(line, i)));
            }
            let Some(at) = at.checked_sub(LOOKAHEAD) else { continue };
            let line = *self.region.line(old.start + at);
            for i in (0..WIDTH).filter(|&i| line.0[i] != 0) {
                let slot = slot(&line, i);
                self.place(new, rows.hash(slot), slot);
            }
        }
        self.runs[p] = new;
        if old.buckets != 0 {
            self.free_run(old.start, old.buckets.trailing_zeros() as usize);
        }
        Ok(())
    }

    /// A run of empty buckets, `buckets` a power of two; it starts at a multiple of that.
    fn allocate(&mut self, buckets: usize) -> Result<usize, MemoryError> {
        let class = buckets.trailing_zeros() as usize;
        let larger = self.free.iter().enumerate().skip(class).find(|(_, runs)| !runs.is_empty());
        if let Some((found, _)) = larger
            && let Some(start) = self.free[found].pop()
        {
            // Too large: the upper halves stay free.
            (class..found).for_each(|half| self.free[half].push(start + (1 << half)));
            let bytes = start * LINE..(start + buckets) * LINE;
            self.region.bytes_mut()[bytes].fill(0);
            return Ok(start);
        }
        let start = self.used.next_multiple_of(buckets);
        let end = start + buckets;
        if end * LINE > self.region.len() {
            self.region.grow_ahead(end * LINE)?;
        }
        while self.used < start {
            // What alignment skips, in runs as large as they can be.
            let gap = self.used.trailing_zeros() as usize;
            self.free_run(self.used, gap);
            self.used += 1 << gap;
        }
        self.used = end;
        Ok(start)
    }

    /// Keeps 2^`class` buckets for other partitions that grow: two neighbours make a larger run.
    /// Their memory is not given back, or the huge pages they lie in would be broken up.
    fn free_run(&mut self, mut start: usize, mut class: usize) {
        loop {
            if self.free.len() <= class {
                self.free.resize(class + 1, Vec::new());
            }
            let neighbour = start ^ (1 << class);
            let Some(i) = self.free[class].iter().position(|&s| s == neighbour) else { break };
            self.free[class].swap_remove(i);
            start = start.min(neighbour);
            class += 1;
        }
        self.free[class].push(start);
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        self.region.release(0..self.used * LINE);
        self.used = 0;
        self.free.clear();
        self.runs.fill(Run::default());
    }

    /// Entries of all partitions.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.runs.iter().map(|r| r.len).sum()
    }

    /// Bytes of live buckets.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|r| r.buckets * LINE).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Rows that are nothing but their hashes.
    struct Hashes(HashMap<u32, u64>);

    impl Rows for Hashes {
        fn hash(&self, slot: u32) -> u64 {
            self.0[&slot]
        }
        fn prefetch(&self, _slot: u32) {}
    }

    #[test]
    fn both_ways_of_matching_agree() {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few different bytes, so that many are equal or differ by one bit.
            let lo = x & 0x8181_8181_0101_0101;
            let hi = (x >> 7) & 0x8080_0101;
            for tag in [0, 1, 0x80, 0x81] {
                let plain = (0..8).map(|i| u32::from((lo >> (8 * i)) as u8 == tag) << i);
                assert_eq!(swar(lo, tag), plain.sum::<u32>(), "{lo:x} {tag:x}");
                assert_eq!(match_tags(lo, hi, tag), swar(lo, tag) | swar(hi, tag) << 8);
            }
        }
    }

    #[test]
    fn equal_hashes_fill_many_buckets_and_leave_no_trace() {
        const N: u32 = if cfg!(miri) { 60 } else { 500 };
        let mut index = Index::new(1, 10_000).unwrap();
        let mut rows = Hashes(HashMap::new());
        for slot in 0..N {
            rows.0.insert(slot, 42);
            index.insert(42, slot, &rows).unwrap();
        }
        for slot in 0..N {
            assert_eq!(index.find(42, |s| s == slot), Some(slot));
        }
        for slot in (0..N).rev() {
            assert!(index.remove(42, slot));
            assert!(!index.remove(42, slot));
        }
        assert_eq!(index.entries(), 0);
        let run = index.runs[0];
        for b in 0..run.buckets {
            assert_eq!(overflow(index.region.line(run.start + b)), 0);
        }
    }

    const OPS_MAX: usize = if cfg!(miri) { 80 } else { 1500 };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn behaves_as_a_map(
            partitions in prop_oneof![Just(1u32), Just(64)],
            ops in proptest::collection::vec((any::<bool>(), 0u64..400), 1..OPS_MAX),
        ) {
            let mut index = Index::new(partitions, 1000).unwrap();
            let mut rows = Hashes(HashMap::new());
            // Hashes that collide often, in home and in tag, in all partitions.
            let hash = |k: u64| ((k % 64) << 58) | ((k % 3) << 40) | (k % 40);
            for (insert, key) in ops {
                let slot = key as u32;
                if insert && !rows.0.contains_key(&slot) {
                    rows.0.insert(slot, hash(key));
                    index.insert(hash(key), slot, &rows).unwrap();
                } else if !insert {
                    let there = rows.0.remove(&slot).is_some();
                    prop_assert_eq!(index.remove(hash(key), slot), there);
                }
            }
            prop_assert_eq!(index.entries(), rows.0.len());
            for key in 0..400u64 {
                let slot = key as u32;
                let expected = rows.0.contains_key(&slot).then_some(slot);
                prop_assert_eq!(index.find(hash(key), |s| s == slot), expected);
            }
            index.clear();
            prop_assert_eq!(index.find(hash(1), |_| true), None);
        }
    }
}
