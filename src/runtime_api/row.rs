//! One entry as `show table` prints it, and as filters see it.
//!
//! Pure; called by [`super::show_table`] and [`super::clear_table`] on a shard, for each entry.
//! Rule: byte for byte HAProxy 3.2's line; data in ascending type order; what a peer sent (keys,
//! server names) is escaped, so that no entry can break the framing.

use super::select::{Filter, Select};
use crate::table::{Cell, ColumnSpec, Entry, TableSpec, write_escaped, write_key_text};
use crate::time::Millis;
use crate::wire::{DataType, Kind};
use std::io::Write;

/// What is asked of an entry.
pub trait Row {
    /// Its canonical key.
    fn key(&self) -> &[u8];
    /// The number it is shown under, the same as long as it lives and no other entry's.
    fn pointer(&self) -> u64;
    /// Its remaining lifetime in ms; 0 in tables without expiry.
    fn expires_in_ms(&self, now: Millis) -> u32;
    /// A counter, tag or rate, rates evaluated at `now`. `None`: not stored, or past the end.
    fn number(&self, column: &ColumnSpec, index: u32, now: Millis) -> Option<i64>;
    /// The value of a dictionary column, when it is set.
    fn name(&self, data_type: DataType) -> Option<&[u8]>;
}

impl Row for Entry<'_> {
    fn key(&self) -> &[u8] {
        Entry::key(self)
    }

    fn pointer(&self) -> u64 {
        self.id()
    }

    fn expires_in_ms(&self, now: Millis) -> u32 {
        Entry::expires_in_ms(self, now)
    }

    fn number(&self, column: &ColumnSpec, index: u32, now: Millis) -> Option<i64> {
        Some(self.cell(column.data_type, index)?.number(now, column.period_ms))
    }

    fn name(&self, data_type: DataType) -> Option<&[u8]> {
        match self.cell(data_type, 0)? {
            Cell::Dict(name) => name.map(|name| name.as_ref()),
            _ => None,
        }
    }
}

/// The first line of a dump or of a table in the list.
pub fn write_header(spec: &TableSpec, used: u64, out: &mut Vec<u8>) {
    let (name, key_type, size) = (&spec.name, spec.key_type.name(), spec.size);
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, "# table: {name}, type: {key_type}, size:{size}, used:{used}");
}

/// The entry's line. `shard` is its part in a section with `shards`, 0 elsewhere.
pub fn write_row(spec: &TableSpec, row: &impl Row, shard: u32, now: Millis, out: &mut Vec<u8>) {
    let _ = write!(out, "{:#x}: key=", row.pointer());
    write_key_text(spec.key_type, row.key(), out);
    let _ = write!(out, " use=0 exp={} shard={shard}", row.expires_in_ms(now));
    for column in &spec.columns {
        for index in 0..column.elements {
            write_name(column, index, out);
            write_value(spec, row, column, index, now, out);
        }
    }
    out.push(b'\n');
}

/// ` gpc0=`, ` gpc0_rate(10000)=`; arrays carry the index in front of the first underscore.
fn write_name(column: &ColumnSpec, index: u32, out: &mut Vec<u8>) {
    let name = column.data_type.name();
    let _ = if column.data_type.is_array() {
        let (head, tail) = name.split_at(name.find('_').unwrap_or(name.len()));
        write!(out, " {head}{index}{tail}")
    } else {
        write!(out, " {name}")
    };
    let _ = match column.data_type.kind() {
        Kind::Rate => write!(out, "({})=", column.period_ms),
        _ => write!(out, "="),
    };
}

fn write_value(
    spec: &TableSpec,
    row: &impl Row,
    column: &ColumnSpec,
    index: u32,
    now: Millis,
    out: &mut Vec<u8>,
) {
    if column.data_type.kind() == Kind::Dict {
        match row.name(column.data_type) {
            None => out.push(b'-'),
            Some(name) => write_escaped(name, out),
        }
        return;
    }
    let value = shown_number(spec, row, column, index, now).unwrap_or(0);
    let _ = match column.data_type.kind() {
        Kind::I32 => write!(out, "{value}"),
        _ => write!(out, "{}", value as u64),
    };
}

/// The value as printed and compared: rates of bytes are multiplied by the table's `brates-factor`.
fn shown_number(
    spec: &TableSpec,
    row: &impl Row,
    column: &ColumnSpec,
    index: u32,
    now: Millis,
) -> Option<i64> {
    let value = row.number(column, index, now)?;
    let name = column.data_type.name();
    let scaled = column.data_type.is_rate() && name.starts_with("bytes_");
    let factor = if scaled { i64::from(spec.brates_factor.max(1)) } else { 1 };
    Some(value.wrapping_mul(factor))
}

/// True when the entry is one of those meant. [`Select::Key`] compares keys; callers look it up.
pub fn selected(spec: &TableSpec, select: &Select, row: &impl Row, now: Millis) -> bool {
    match select {
        Select::All => true,
        Select::Key(key) => row.key() == key,
        Select::Pointer(pointer) => row.pointer() == *pointer,
        Select::Filters(filters) => filters.iter().all(|f| passes(spec, f, row, now)),
    }
}

fn passes(spec: &TableSpec, filter: &Filter, row: &impl Row, now: Millis) -> bool {
    let Some(column) = filter.column.of(spec) else { return false };
    if filter.column.index >= column.elements {
        return false;
    }
    if column.data_type.kind() == Kind::Dict {
        // HAProxy reads a dictionary column as 0 here.
        return filter.op.holds(0, filter.value);
    }
    shown_number(spec, row, column, filter.column.index, now)
        .is_some_and(|value| filter.op.holds(value, filter.value))
}
