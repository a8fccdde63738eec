//! Keys too long to lie in their row.
//!
//! One region cut into pages, each page into places of one size class (powers of two from 64
//! bytes). A row keeps the place as one number and the length beside it, from which the class
//! follows. Used by [`super::store`]. Rule: no pointers; what is freed is used again by the next
//! key of its class.

#![forbid(unsafe_code)]

use super::memory::{MemoryError, Region};
use crate::limits::KEY_MAX;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};

/// Unit of a place's number, and the smallest class.
const UNIT: usize = 64;
/// Size of a page: the largest class, twice.
const PAGE: usize = 2 * KEY_MAX as usize;
const CLASSES: usize = (KEY_MAX as usize / UNIT).trailing_zeros() as usize + 1;

const _: () = assert!(KEY_MAX.is_power_of_two() && KEY_MAX as usize >= UNIT);

/// See the module's head.
#[derive(Debug)]
pub struct Blobs {
    region: Region,
    /// Bytes cut into pages.
    used: usize,
    /// Places free for use, by class.
    free: [Vec<u32>; CLASSES],
}

/// [`Blobs`] without its memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlobsState {
    used: usize,
    free: Vec<Vec<u32>>,
}

fn class(len: usize) -> usize {
    (len.next_power_of_two().max(UNIT) / UNIT).trailing_zeros() as usize
}

impl Blobs {
    /// For `rows` keys of at most `key_max` bytes.
    pub fn new(rows: u64, key_max: usize) -> Result<Blobs, MemoryError> {
        let region = Region::reserve("keys", Blobs::room(rows, key_max))?;
        Ok(Blobs { region, used: 0, free: Default::default() })
    }

    /// Bytes to reserve.
    fn room(rows: u64, key_max: usize) -> usize {
        let each = UNIT << class(key_max);
        // A place's number is 32 bits: 256 GiB, which bounds the reservation too.
        (rows as usize).saturating_mul(each).saturating_add(PAGE * CLASSES).min(UNIT << 32)
    }

    /// What another process needs beside the memory.
    pub fn state(&self) -> (BlobsState, &Region) {
        (BlobsState { used: self.used, free: self.free.to_vec() }, &self.region)
    }

    /// The keys of another process, in `memory`. `None`: the state is not one of such keys.
    pub fn adopt(
        rows: u64,
        key_max: usize,
        state: BlobsState,
        memory: (usize, OwnedFd),
    ) -> Option<Result<Blobs, MemoryError>> {
        let places = state.used / UNIT;
        let mut frees = state.free.iter().flatten();
        if state.used > memory.0 || frees.any(|&place| place as usize >= places) {
            return None;
        }
        let free = state.free.try_into().ok()?;
        let region = Region::adopt("keys", Blobs::room(rows, key_max), memory.0, memory.1);
        Some(region.map(|region| Blobs { region, used: state.used, free }))
    }

    /// Stores a key and returns its place.
    pub fn store(&mut self, key: &[u8]) -> Result<u32, MemoryError> {
        let class = class(key.len()).min(CLASSES - 1);
        if self.free[class].is_empty() {
            self.cut_page(class)?;
        }
        let place = self.free[class].pop().unwrap_or_default();
        let at = place as usize * UNIT;
        self.region.bytes_mut()[at..at + key.len()].copy_from_slice(key);
        Ok(place)
    }

    fn cut_page(&mut self, class: usize) -> Result<(), MemoryError> {
        let page = self.used;
        self.region.grow_to(page + PAGE)?;
        self.used = page + PAGE;
        let places = (page / UNIT..self.used / UNIT).step_by(1 << class);
        self.free[class].extend(places.rev().map(|p| p as u32));
        Ok(())
    }

    /// The key of `len` bytes at a place.
    #[inline]
    pub fn get(&self, place: u32, len: usize) -> &[u8] {
        let at = place as usize * UNIT;
        &self.region.bytes()[at..at + len]
    }

    /// Frees the place of a key of `len` bytes.
    pub fn free(&mut self, place: u32, len: usize) {
        self.free[class(len).min(CLASSES - 1)].push(place);
    }

    /// Forgets all keys and gives the memory back.
    pub fn clear(&mut self) {
        self.region.release(0..self.used);
        self.used = 0;
        self.free = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_come_back() {
        let mut blobs = Blobs::new(300, KEY_MAX as usize).unwrap();
        let key = |i: usize| vec![i as u8; 33 + i * 31 % (KEY_MAX as usize - 33)];
        let mut places: Vec<u32> = (0..300).map(|i| blobs.store(&key(i)).unwrap()).collect();
        for (i, p) in places.iter().enumerate() {
            assert_eq!(blobs.get(*p, key(i).len()), key(i));
        }
        let used = blobs.used;
        for (i, p) in places.iter().enumerate() {
            blobs.free(*p, key(i).len());
        }
        places = (0..300).map(|i| blobs.store(&key(i)).unwrap()).collect();
        assert_eq!(blobs.used, used, "freed places are used again");
        assert_eq!(blobs.get(places[7], key(7).len()), key(7));
        assert_eq!(blobs.store(&vec![1; KEY_MAX as usize]).map(|p| blobs.get(p, 1)[0]), Ok(1));
    }
}
