//! A part on its way to another process: its memory as it is, and a header with the rest.
//!
//! Used by the instant hand-over. Regions hold no pointers, so another mapping of them is the table
//! itself; what is kept beside them (live bits, deadlines of blocks, free places, runs, texts, the
//! change log) is small and travels as data. Nothing here depends on the number of rows but these:
//! some three bytes for a hundred rows. Rule: until the other process has said that the part is its
//! own nobody writes, and adopting only reads.

#![forbid(unsafe_code)]

use super::changes::ChangeLog;
use super::memory::MemoryError;
use super::part::{TablePart, store_spec};
use super::route::{KeyHasher, Place};
use super::schema::{Schema, SchemaError};
use super::spec::TableSpec;
use super::store::{Store, StoreState};
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// A part that cannot leave, or does not fit.
///
/// *Effect:* the instant hand-over is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// Its rows lie in memory that no other process can be given.
    #[error("its memory cannot be given away ('memory anonymous', or memfd was refused)")]
    Private,
    /// The header is not one, or not that of such a part.
    #[error("its header does not fit")]
    Header,
    /// The memory is not what the header says.
    #[error("the memory of its {0} is not what its header says")]
    Memory(&'static str),
    /// Rows like these cannot be laid out here.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The memory cannot be mapped.
    #[error(transparent)]
    Mapping(#[from] MemoryError),
}

/// What the header says of one region.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Piece {
    /// Bytes in use.
    len: usize,
    /// `Region::sample` of them.
    sample: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// By region, in the order of the descriptors.
    pieces: Vec<Piece>,
    store: StoreState,
    changes: ChangeLog,
}

impl TablePart {
    /// What another process makes the same part of: a header, and descriptors of memory. Nobody
    /// may write to the part while the other process may have it.
    pub fn export(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), ExportError> {
        let (store, changes) = self.inside();
        let (state, regions) = store.state();
        let fds = regions.iter().map(|r| r.share().ok_or(ExportError::Private));
        let fds = fds.collect::<Result<Vec<_>, _>>()?;
        let pieces = regions.iter().map(|r| Piece { len: r.len(), sample: r.sample() }).collect();
        let header = Header { pieces, store: state, changes: changes.clone() };
        let header = postcard::to_allocvec(&header).map_err(|_| ExportError::Header)?;
        Ok((header, fds))
    }

    /// The part that was exported, with the same rows, slots and changes. The memory is only read.
    pub fn adopt(
        spec: Arc<TableSpec>,
        hasher: KeyHasher,
        place: Place,
        shard: u32,
        (header, memory): (&[u8], Vec<OwnedFd>),
    ) -> Result<TablePart, ExportError> {
        let header: Header = postcard::from_bytes(header).map_err(|_| ExportError::Header)?;
        let Header { pieces, store, changes } = header;
        if pieces.len() != memory.len() || !changes.is_sound() {
            return Err(ExportError::Header);
        }
        let lens = pieces.iter().map(|piece| piece.len).zip(memory);
        let (wanted, schema) = (store_spec(&spec, place, shard), Schema::new(&spec)?);
        let store = Store::adopt(wanted, schema, hasher, store, lens);
        let store = store.ok_or(ExportError::Header)??;
        let (_, regions) = store.state();
        for (region, piece) in regions.iter().zip(&pieces) {
            if region.sample() != piece.sample {
                return Err(ExportError::Memory(region.name()));
            }
        }
        drop(regions);
        Ok(TablePart::with(spec, place, shard, store, changes))
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::super::testing::spec;
    use super::super::tests::{gpc0, hasher, keys, set_gpc0};
    use super::*;
    use crate::limits::CHANGES_MAX;
    use crate::time::Millis;
    use crate::wire::KeyType;
    use std::ops::ControlFlow;

    const NOW: Millis = Millis(1_000_000);

    fn part(spec: &Arc<TableSpec>) -> TablePart {
        TablePart::new(spec.clone(), hasher(), Place::new(0, spec.size, 1), 0).unwrap()
    }

    fn adopt(
        spec: &Arc<TableSpec>,
        (header, memory): (Vec<u8>, Vec<OwnedFd>),
    ) -> Result<TablePart, ExportError> {
        let place = Place::new(0, spec.size, 1);
        TablePart::adopt(spec.clone(), hasher(), place, 0, (&header, memory))
    }

    fn changed(part: &mut TablePart, from: u64) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        let walk = part.changes(NOW, from, usize::MAX, |position, entry| {
            all.push((position, entry.key().to_vec()));
            ControlFlow::Continue(())
        });
        walk.unwrap();
        all
    }

    #[test]
    fn another_process_goes_on_with_the_very_rows() {
        for (key_type, key_len) in
            [(KeyType::Ipv4, 4), (KeyType::String, 17), (KeyType::Binary, 200)]
        {
            let mut spec = spec(key_type, key_len, "gpc0,server_key");
            spec.size = 200_000;
            let spec = Arc::new(spec);
            let mut old = part(&spec);
            let key = |i: u32| match key_type {
                KeyType::Ipv4 => i.to_be_bytes().to_vec(),
                KeyType::String => format!("key {i}").into_bytes(),
                _ => format!("{i:0200}").into_bytes(),
            };
            for i in 0..30_000 {
                set_gpc0(&mut old, NOW, &key(i), i64::from(i)).unwrap();
            }
            for i in (0..30_000).step_by(3) {
                old.remove(NOW, &key(i), hasher().hash(&key(i)));
            }
            let before = (keys(&old, NOW), old.used(NOW), old.bytes());
            let mut new = adopt(&spec, old.export().unwrap()).unwrap();
            assert_eq!((keys(&new, NOW), new.used(NOW), new.bytes()), before);
            assert_eq!(new.next_deadline(), old.next_deadline());
            assert_eq!(
                (new.change_head(), new.change_base()),
                (old.change_head(), old.change_base())
            );
            assert_eq!(changed(&mut new, 1), changed(&mut old, 1));
            drop(old);
            // New rows, freed slots, growth and expiry go on.
            for i in 30_000..60_000 {
                set_gpc0(&mut new, NOW, &key(i), i64::from(i)).unwrap();
            }
            assert_eq!(gpc0(&new, NOW, &key(40_000)), Some(40_000));
            assert_eq!(gpc0(&new, NOW, &key(29_999)), Some(29_999));
            assert_eq!(gpc0(&new, NOW, &key(0)), None);
            let later = NOW.plus(u64::from(spec.expire_ms) + 1);
            assert_eq!(new.used(later), 0);
        }
    }

    #[test]
    fn what_was_written_on_one_side_is_seen_on_the_other() {
        let spec = Arc::new(spec(KeyType::Ipv4, 4, "gpc0"));
        let mut old = part(&spec);
        set_gpc0(&mut old, NOW, &[1; 4], 1).unwrap();
        let mut new = adopt(&spec, old.export().unwrap()).unwrap();
        set_gpc0(&mut new, NOW, &[1; 4], 2).unwrap();
        assert_eq!(gpc0(&old, NOW, &[1; 4]), Some(2), "it is the same memory, not a copy");
    }

    #[test]
    fn whatever_does_not_fit_is_refused() {
        let spec = Arc::new(spec(KeyType::Ipv4, 4, "gpc0"));
        let mut old = part(&spec);
        for i in 0..1_000u32 {
            set_gpc0(&mut old, NOW, &i.to_be_bytes(), 1).unwrap();
        }
        let (header, _) = old.export().unwrap();
        let memory = || old.export().unwrap().1;
        assert!(adopt(&spec, (header.clone(), memory())).is_ok());
        // Damaged headers of every length and with any byte changed never end the process.
        for len in 0..header.len() {
            let short = adopt(&spec, (header[..len].to_vec(), memory()));
            assert_eq!(short.map(drop), Err(ExportError::Header), "cut at {len}");
        }
        for at in 0..header.len() {
            let mut wrong = header.clone();
            wrong[at] ^= 0x41;
            if let Ok(part) = adopt(&spec, (wrong, memory())) {
                part.get(NOW, &[0; 4], hasher().hash(&[0; 4]));
            }
        }
        // Memory missing, in the wrong order, of another table, or cut short.
        let mut less = memory();
        less.pop();
        assert_eq!(adopt(&spec, (header.clone(), less)).map(drop), Err(ExportError::Header));
        let mut turned = memory();
        turned.reverse();
        assert!(adopt(&spec, (header.clone(), turned)).is_err());
        let other = part(&spec).export().unwrap().1;
        assert!(adopt(&spec, (header.clone(), other)).is_err());
        let cut = memory();
        let short = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::ALLOW_SEALING);
        let cut = [short.unwrap()].into_iter().chain(cut.into_iter().skip(1)).collect();
        assert!(matches!(adopt(&spec, (header, cut)), Err(ExportError::Mapping(_))));
    }

    #[test]
    fn the_log_keeps_what_a_follower_has_not_seen() {
        let spec = Arc::new(spec(KeyType::Integer, 4, "gpc0"));
        let mut old = part(&spec);
        (0..10u32).for_each(|i| set_gpc0(&mut old, NOW, &i.to_be_bytes(), 1).unwrap());
        let seen = old.change_head();
        assert_eq!(changed(&mut old, 1).len(), 10, "a follower reads along");
        (5..8u32).for_each(|i| set_gpc0(&mut old, NOW, &i.to_be_bytes(), 2).unwrap());
        let mut new = adopt(&spec, old.export().unwrap()).unwrap();
        let missed: Vec<_> = changed(&mut new, seen).into_iter().map(|(_, key)| key[3]).collect();
        assert_eq!(missed, [5, 6, 7]);
        assert!(new.change_head() < CHANGES_MAX as u64);
    }
}
