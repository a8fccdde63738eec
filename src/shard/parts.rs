//! This shard's partitions of every table.
//!
//! Owned by the shard; the only place where rows are reached. A part is made when its table is
//! first used here.

use super::Sums;
use super::registry::{Registry, Table};
use crate::Millis;
use crate::limits::TICK_ROWS;
use crate::table::{TableError, TablePart};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use thiserror::Error;

/// Memory for a table's rows cannot be had.
///
/// *Effect:* the batch or command is refused and counted; other tables go on.
#[derive(Debug, Error)]
#[error("table '{table}': {source}")]
pub struct PartsError {
    /// Table name.
    pub table: String,
    /// Why.
    pub source: TableError,
}

/// A table's number, and what another process makes this shard's part of it of.
pub type PartExport = (usize, Vec<u8>, Vec<OwnedFd>);

/// See the module head.
pub struct Parts {
    shard: usize,
    registry: Arc<Registry>,
    parts: Vec<Option<TablePart>>,
    /// Tables changed in this tick.
    touched: Vec<usize>,
    /// Tables over their size of which others hold too much: (shard, table).
    crowded: Vec<(usize, usize)>,
}

impl Parts {
    /// Nothing yet.
    pub fn new(shard: usize, registry: Arc<Registry>) -> Parts {
        Parts { shard, registry, parts: Vec::new(), touched: Vec::new(), crowded: Vec::new() }
    }

    /// This shard's number.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// All tables.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// This shard's part of `table`, made now if it is the first time.
    pub fn part_mut(&mut self, table: &Table) -> Result<&mut TablePart, PartsError> {
        if self.parts.len() <= table.id {
            self.parts.resize_with(table.id + 1, || None);
        }
        match &mut self.parts[table.id] {
            Some(part) => Ok(part),
            slot => {
                let hasher = self.registry.hasher.clone();
                let shard = self.shard as u32;
                let part = TablePart::new(table.spec.clone(), hasher, table.place, shard)
                    .map_err(|source| PartsError { table: table.spec.name.clone(), source })?;
                Ok(slot.insert(part))
            }
        }
    }

    /// This shard's part of table `id`, if it has been used.
    pub fn get_mut(&mut self, id: usize) -> Option<&mut TablePart> {
        self.parts.get_mut(id)?.as_mut()
    }

    /// All parts for another process: table, header, memory. The parts stay as they are, and must
    /// not be touched while the other process may have them.
    pub fn export(&self) -> Result<Vec<PartExport>, String> {
        let parts = self.parts.iter().enumerate();
        let used = parts.filter_map(|(id, part)| part.as_ref().map(|part| (id, part)));
        used.map(|(id, part)| {
            let name = &part.spec().name;
            let (header, fds) = part.export().map_err(|e| format!("table '{name}': {e}"))?;
            Ok((id, header, fds))
        })
        .collect()
    }

    /// A part of another process becomes ours; nothing in it is touched yet.
    pub fn adopt(&mut self, id: usize, header: &[u8], fds: Vec<OwnedFd>) -> Result<(), String> {
        let table = self.registry.get(id).ok_or("a table that does not exist here")?;
        let (hasher, shard) = (self.registry.hasher.clone(), self.shard as u32);
        let part = TablePart::adopt(table.spec.clone(), hasher, table.place, shard, (header, fds))
            .map_err(|error| format!("table '{}': {error}", table.spec.name))?;
        if self.parts.len() <= id {
            self.parts.resize_with(id + 1, || None);
        }
        self.parts[id] = Some(part);
        self.touch(id);
        Ok(())
    }

    /// Remembers that table `id` has changed in this tick.
    pub fn touch(&mut self, id: usize) {
        if self.touched.last() != Some(&id) && !self.touched.contains(&id) {
            self.touched.push(id);
        }
    }

    /// Expires what is due, a bounded number of rows a table; true when more is left.
    pub fn expire(&mut self, now: Millis) -> bool {
        let mut more = false;
        for (id, part) in self.parts.iter_mut().enumerate() {
            let Some(part) = part else { continue };
            if part.next_deadline().is_none_or(|at| at > now) {
                continue;
            }
            part.expire(now, TICK_ROWS);
            more |= part.next_deadline().is_some_and(|at| at <= now);
            if !self.touched.contains(&id) {
                self.touched.push(id);
            }
        }
        more
    }

    /// The earliest moment at which [`Parts::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.parts.iter().flatten().filter_map(TablePart::next_deadline).min()
    }

    /// Memory, entries and evictions of all parts.
    pub fn sums(&mut self, now: Millis) -> Sums {
        let mut sums = Sums::default();
        for part in self.parts.iter_mut().flatten() {
            sums.bytes += part.bytes() as u64;
            sums.entries += part.used(now);
            sums.evictions += part.counters().evictions;
            sums.refused += part.counters().refused_full;
            sums.applied += part.counters().updates_remote;
        }
        sums
    }

    /// Ends a tick: publishes the sizes of touched tables and evicts what is over the limit
    /// together with the other shards. `all`: look at untouched tables too. True when more is left.
    pub fn settle(&mut self, now: Millis, all: bool) -> bool {
        let ids =
            if all { (0..self.parts.len()).collect() } else { std::mem::take(&mut self.touched) };
        self.touched.clear();
        let mut more = false;
        for id in ids {
            let Some(Some(part)) = self.parts.get_mut(id) else { continue };
            let Some(table) = self.registry.get(id) else { continue };
            let others = table.used().saturating_sub(table.used_by(self.shard));
            part.set_others_used(others);
            more |= part.trim(now, TICK_ROWS) == TICK_ROWS;
            table.publish_used(self.shard, part.used_estimate());
            if !table.spec.nopurge && table.used() > table.spec.size {
                let shards = (0..self.registry.shards()).filter(|&s| s != self.shard);
                let over = shards.filter(|&s| table.used_by(s) > table.share_of(s));
                self.crowded.extend(over.map(|shard| (shard, id)));
            }
        }
        more
    }

    /// Shards that must trim a table, since they may be asleep with more than their share of it.
    pub fn take_crowded(&mut self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.crowded)
    }
}
