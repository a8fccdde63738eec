//! One row as others see it: key, lifetime and values.
//!
//! Borrowed from a [`super::TablePart`]; read-only. Used by the stats socket, the encoder and
//! filters.

#![forbid(unsafe_code)]

use super::rate::Rate;
use super::schema::{self, Schema};
use super::store::Store;
use crate::time::Millis;
use crate::wire::{DataType, Kind};
use std::sync::Arc;

/// See the module's head.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub(super) store: &'a Store,
    pub(super) slot: u32,
    pub(super) id_base: u64,
}

/// A value as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// `server_id`.
    I32(i32),
    /// Counters and tags.
    U32(u32),
    /// Bytes.
    U64(u64),
    /// Not rotated: read it with [`Rate::read`].
    Rate(Rate),
    /// `server_key`, if set.
    Dict(Option<&'a Arc<[u8]>>),
}

impl Cell<'_> {
    /// The number that filters compare and `show table` prints; 0 for texts. Rates are read at
    /// `now` over their column's period.
    pub fn number(&self, now: Millis, period_ms: u32) -> i64 {
        match *self {
            Cell::I32(v) => i64::from(v),
            Cell::U32(v) => i64::from(v),
            Cell::U64(v) => v as i64,
            Cell::Rate(r) => r.read(now, period_ms) as i64,
            Cell::Dict(_) => 0,
        }
    }
}

impl<'a> Entry<'a> {
    /// Canonical key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.store.rows.key(self.slot)
    }

    /// Hash of the key.
    pub fn hash(&self) -> u64 {
        self.store.hash(self.slot)
    }

    /// A number for the row, unique in the process and unchanged while the row lives: what `show
    /// table` prints as its pointer, and `ptr` finds again ([`super::TablePart::get_by_id`]).
    pub fn id(&self) -> u64 {
        self.id_base | u64::from(self.slot)
    }

    /// Milliseconds left; 0 in tables without `expire`.
    #[inline]
    pub fn expires_in_ms(&self, now: Millis) -> u32 {
        self.store.left_ms(self.slot, now).unwrap_or(0)
    }

    /// Value of a type; `index` is 0 for those that are no arrays. `None`: not stored, or no such
    /// element.
    pub fn cell(&self, data_type: DataType, index: u32) -> Option<Cell<'a>> {
        let c = self.schema().column(data_type).filter(|c| index < c.elements)?;
        Some(self.cell_at(c.kind, c.offset + c.width * index as usize))
    }

    /// All values in wire order, as (type, element, period in ms, value).
    pub fn cells(&self) -> impl Iterator<Item = (DataType, u32, u32, Cell<'a>)> + use<'a> {
        let entry = *self;
        entry.store.rows.schema.columns.iter().flat_map(move |c| {
            (0..c.elements).map(move |i| {
                let cell = entry.cell_at(c.kind, c.offset + c.width * i as usize);
                (c.data_type, i, c.period_ms, cell)
            })
        })
    }

    pub(super) fn schema(&self) -> &'a Schema {
        &self.store.rows.schema
    }

    #[inline(always)]
    pub(super) fn row(&self) -> &'a [u8] {
        self.store.rows.row(self.slot)
    }

    #[inline(always)]
    fn cell_at(&self, kind: Kind, at: usize) -> Cell<'a> {
        let row = self.row();
        match kind {
            Kind::I32 => Cell::I32(schema::word(row, at) as i32),
            Kind::U32 => Cell::U32(schema::word(row, at)),
            Kind::U64 => Cell::U64(schema::double(row, at)),
            Kind::Rate => Cell::Rate(schema::rate(row, at)),
            Kind::Dict => Cell::Dict(self.store.texts.get(schema::word(row, at))),
        }
    }
}
