//! Which tables exist. Shared by all shards; written when the node starts and when a table is
//! learned from a peer's definition, read on definitions: never on the per-update path.

use crate::limits::AUTO_TABLES_MAX;
use crate::session::Refusal;
use crate::table::{
    KeyHasher, Mismatch, Place, RemoteLayout, TableSpec, definition_of, spec_from_definition,
};
use crate::wire::message::encode_define;
use crate::wire::{Definition, KeyShape, Step};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One table as all shards see it; the rows are in each shard's own part.
#[derive(Debug)]
pub struct Table {
    /// Index among all tables of the node.
    pub id: usize,
    /// The peers section it belongs to; `None` for one that is only written to by others.
    pub section: Option<usize>,
    /// What it is.
    pub spec: Arc<TableSpec>,
    /// Index among the section's tables; our id on the wire is one more.
    pub index: usize,
    /// Our definition of it, as one frame.
    pub define: Bytes,
    /// Which shard owns which keys.
    pub place: Place,
    /// Created from a peer's definition.
    pub learned: bool,
    used: Vec<AtomicU64>,
}

impl Table {
    /// Entries all shards together hold, as last published.
    pub fn used(&self) -> u64 {
        self.used.iter().map(|u| u.load(Ordering::Relaxed)).sum()
    }

    /// What one shard has published.
    pub fn used_by(&self, shard: usize) -> u64 {
        self.used[shard].load(Ordering::Relaxed)
    }

    /// A shard's fair share of the table's size.
    pub fn share_of(&self, shard: usize) -> u64 {
        let (owned, all) = (self.place.owned_by(shard as u32), self.place.partitions.max(1));
        (u128::from(self.spec.size) * u128::from(owned) / u128::from(all)) as u64
    }

    /// Publishes one shard's count: one store a tick, never one an update.
    pub fn publish_used(&self, shard: usize, used: u64) {
        self.used[shard].store(used, Ordering::Relaxed);
    }
}

/// How one peer's updates of one table are applied: shared by its home and the owners.
#[derive(Debug)]
pub struct Layout {
    /// The table.
    pub table: Arc<Table>,
    /// From the peer's columns to ours.
    pub remote: RemoteLayout,
    /// The table that as-is values are written to as well (`write-to`).
    pub write_to: Option<(Arc<Table>, RemoteLayout)>,
}

impl crate::session::Layout for Layout {
    fn table(&self) -> usize {
        self.table.index
    }

    fn steps(&self) -> &[Step] {
        self.remote.steps()
    }

    fn key_shape(&self) -> KeyShape {
        self.remote.key_shape()
    }

    fn varints(&self) -> Option<u32> {
        self.remote.varints()
    }
}

/// See the module head.
#[derive(Debug)]
pub struct Registry {
    /// The one key hash, the same on every shard.
    pub hasher: KeyHasher,
    shards: u32,
    auto_size: Option<u64>,
    /// Of the sections.
    names: Vec<String>,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tables: Vec<Arc<Table>>,
    sections: Vec<Vec<Arc<Table>>>,
    learned: usize,
}

impl Registry {
    /// An empty registry for the sections of these names. With `auto_size`, unknown tables are
    /// created from definitions, for that many entries each.
    pub fn new(hasher: KeyHasher, shards: u32, names: Vec<String>, auto_size: Option<u64>) -> Self {
        let inner = Inner { sections: vec![Vec::new(); names.len()], ..Inner::default() };
        Registry { hasher, shards, auto_size, names, inner: RwLock::new(inner) }
    }

    /// Adds a declared table. `section`: the peers section and the table's index in it.
    pub fn declare(&self, section: Option<(usize, usize)>, spec: TableSpec) -> Arc<Table> {
        self.declare_as(None, section, spec)
    }

    /// The same; `number` says which shard owns what of it, as in the process that had its rows.
    pub fn declare_as(
        &self,
        number: Option<u32>,
        section: Option<(usize, usize)>,
        spec: TableSpec,
    ) -> Arc<Table> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let number = number.unwrap_or(inner.tables.len() as u32);
        self.add(&mut inner, section, spec, number, false)
    }

    fn add(
        &self,
        inner: &mut Inner,
        section: Option<(usize, usize)>,
        spec: TableSpec,
        number: u32,
        learned: bool,
    ) -> Arc<Table> {
        let id = inner.tables.len();
        let index = section.map_or(0, |(_, index)| index);
        let mut define = Vec::new();
        encode_define(&mut define, &definition_of(&spec, index as i32 + 1));
        let table = Arc::new(Table {
            id,
            section: section.map(|(section, _)| section),
            index,
            define: Bytes::from(define),
            place: Place::new(number, spec.size, self.shards),
            spec: Arc::new(spec),
            learned,
            used: (0..self.shards).map(|_| AtomicU64::new(0)).collect(),
        });
        inner.tables.push(table.clone());
        if let Some((section, _)) = section {
            inner.sections[section].push(table.clone());
            inner.sections[section].sort_by_key(|t| t.index);
        }
        table
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards as usize
    }

    /// All tables in order of declaration.
    pub fn all(&self) -> Vec<Arc<Table>> {
        self.read().tables.clone()
    }

    /// Table number `id`.
    pub fn get(&self, id: usize) -> Option<Arc<Table>> {
        self.read().tables.get(id).cloned()
    }

    /// The table called `name` on the stats socket.
    pub fn by_name(&self, name: &str) -> Option<Arc<Table>> {
        self.read().tables.iter().find(|t| t.spec.name == name).cloned()
    }

    /// Tables of a section in order of their wire ids.
    pub fn of_section(&self, section: usize) -> Vec<Arc<Table>> {
        self.read().sections.get(section).cloned().unwrap_or_default()
    }

    /// Number of peers sections.
    pub fn sections(&self) -> usize {
        self.names.len()
    }

    /// Number of tables of a section.
    pub fn section_len(&self, section: usize) -> usize {
        self.read().sections.get(section).map_or(0, Vec::len)
    }

    /// The table a peer's definition selects, and how to read its updates.
    pub fn define(&self, section: usize, definition: &Definition) -> Result<Layout, Refusal> {
        let table = match self.by_wire_name(section, &definition.name) {
            Some(table) => table,
            None => self.learn(section, definition)?,
        };
        let remote = RemoteLayout::new(definition, &table.spec).map_err(refusal)?;
        let target = table.spec.write_to.as_deref().and_then(|name| self.by_name(name));
        let write_to = target.and_then(|target| {
            let layout = RemoteLayout::write_to(definition, &table.spec, &target.spec).ok()?;
            Some((target, layout))
        });
        Ok(Layout { table, remote, write_to })
    }

    fn by_wire_name(&self, section: usize, name: &[u8]) -> Option<Arc<Table>> {
        let inner = self.read();
        inner.sections[section].iter().find(|t| t.spec.wire_name.as_bytes() == name).cloned()
    }

    fn learn(&self, section: usize, definition: &Definition) -> Result<Arc<Table>, Refusal> {
        let size = self.auto_size.ok_or(Refusal::Unknown)?;
        let mut spec = spec_from_definition(definition, &self.names[section], size)
            .map_err(|error| Refusal::Mismatch(error.to_string()))?;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let known = inner.sections[section].iter().find(|t| t.spec.wire_name == spec.wire_name);
        if let Some(table) = known {
            return Ok(table.clone());
        }
        if inner.learned >= AUTO_TABLES_MAX {
            return Err(Refusal::TooMany);
        }
        if inner.tables.iter().any(|t| t.spec.name == spec.name) {
            // Another section has one of this name: the stats socket needs distinct names.
            spec.name = format!("{}@{}", spec.name, section + 1);
        }
        inner.learned += 1;
        let index = inner.sections[section].len();
        let number = inner.tables.len() as u32;
        Ok(self.add(&mut inner, Some((section, index)), spec, number, true))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session's word for a table that differs.
fn refusal(mismatch: Mismatch) -> Refusal {
    match mismatch {
        Mismatch::BadTail => Refusal::BadTail,
        other => Refusal::Mismatch(other.to_string()),
    }
}
