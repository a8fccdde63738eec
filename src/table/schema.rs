//! How a table's rows are laid out.
//!
//! Computed once from a [`TableSpec`]; pure. The row store, the layouts of remote definitions and
//! the encoder work from it. Rule: a row is fixed-width and holds no pointer.
//!
//! ```text
//! row:  deadline(4) change(4) key-slot columns...           4-byte words, native endian
//! key:  fixed  n <= 32    the bytes                         integer, ip, ipv6, short binary
//!       short  max <= 32  length(1) bytes(max)              short strings
//!       long   max > 32   length(4) bytes(32)               when the key is longer than that:
//!                         length(4) blob(4) first bytes(28) the key is in a blob
//! columns, ascending by type: i32/u32 4, u64 8, rate 12 (start, curr, prev), server_key 4 (id of
//! an interned text, 0 none); arrays n times.
//! ```

#![forbid(unsafe_code)]

use super::memory::LINE;
use super::rate::Rate;
use super::spec::{ColumnSpec, TableSpec};
use crate::limits::{ARRAY_ELEMENTS_MAX, KEY_INLINE_MAX, KEY_MAX};
use crate::wire::{DataType, KeyShape, KeyType, Kind};
use thiserror::Error;

/// Offset of the deadline: the tick at which the row expires, or when it was last touched.
pub const DEADLINE: usize = 0;
/// Offset of the low 32 bits of the row's position in the change log; 0: none.
pub const CHANGE: usize = 4;
/// Offset of the key slot.
pub const KEY: usize = 8;
/// Bytes of a long key that lie in the row, when they are all of it.
pub const LONG_INLINE: usize = KEY_INLINE_MAX as usize;

/// A table that cannot be stored.
///
/// *Effect:* the configuration is refused, or the definition ignored and counted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// Keys longer than [`KEY_MAX`].
    #[error("keys of {key_len} bytes exceed the limit of {KEY_MAX}")]
    KeyTooLong {
        /// As declared.
        key_len: u32,
    },
    /// A key length that does not fit its type.
    #[error("key length {key_len} is not that of type {}", key_type.name())]
    KeyLength {
        /// As declared.
        key_type: KeyType,
        /// As declared.
        key_len: u32,
    },
    /// Columns are not in ascending order, or one is there twice.
    #[error("data type {name} is out of order")]
    Order {
        /// The type.
        name: &'static str,
    },
    /// An array of no elements or of more than 100.
    #[error("{name} has {elements} elements (allowed: 1 to {ARRAY_ELEMENTS_MAX})")]
    Elements {
        /// The type.
        name: &'static str,
        /// As declared.
        elements: u32,
    },
}

/// Where and how a row keeps its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySlot {
    /// Always this many bytes.
    Fixed(usize),
    /// One byte of length, then up to this many bytes.
    Short(usize),
    /// See the module's picture.
    Long,
}

/// One stored type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The type.
    pub data_type: DataType,
    /// How one element is encoded.
    pub kind: Kind,
    /// 1 when it is not an array.
    pub elements: u32,
    /// Of a rate, in ms.
    pub period_ms: u32,
    /// Offset of the first element in the row.
    pub offset: usize,
    /// Bytes of one element.
    pub width: usize,
}

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Bytes from one row to the next.
    pub stride: usize,
    /// How keys lie in the row.
    pub key_slot: KeySlot,
    /// How keys travel.
    pub key_shape: KeyShape,
    /// Longest canonical key.
    pub key_max: usize,
    /// Ascending by type.
    pub columns: Vec<Column>,
    /// Offset of `server_key`, which counts references to its texts.
    pub server_key: Option<usize>,
    /// No update of this table is longer, `server_key` text aside.
    pub values_len_max: usize,
    by_type: [u8; DataType::COUNT],
}

const ABSENT: u8 = u8::MAX;

impl Schema {
    /// Lays out the rows of a table.
    pub fn new(spec: &TableSpec) -> Result<Schema, SchemaError> {
        let key_shape = KeyShape::of(spec.key_type, spec.key_len);
        let (key_slot, key_bytes, key_max) = key_slot(spec, key_shape)?;
        let mut offset = KEY + key_bytes;
        let mut columns = Vec::with_capacity(spec.columns.len());
        let mut by_type = [ABSENT; DataType::COUNT];
        let mut values_len_max = 0;
        let mut server_key = None;
        for c in &spec.columns {
            let kind = c.data_type.kind();
            check_column(c, columns.last())?;
            let (width, wire) = match kind {
                Kind::I32 => (4, 10),
                Kind::U32 => (4, 5),
                Kind::U64 => (8, 10),
                Kind::Rate => (12, 15),
                Kind::Dict => (4, 4),
            };
            if kind == Kind::Dict {
                server_key = Some(offset);
            }
            by_type[c.data_type.bit() as usize] = columns.len() as u8;
            let (data_type, elements, period_ms) = (c.data_type, c.elements, c.period_ms);
            columns.push(Column { data_type, kind, elements, period_ms, offset, width });
            offset += width * elements as usize;
            values_len_max += wire * elements as usize;
        }
        let stride = stride(offset);
        Ok(Schema {
            stride,
            key_slot,
            key_shape,
            key_max,
            columns,
            server_key,
            values_len_max,
            by_type,
        })
    }

    /// The column of a type, if the table stores it.
    #[inline]
    pub fn column(&self, data_type: DataType) -> Option<&Column> {
        self.columns.get(usize::from(self.by_type[data_type.bit() as usize]))
    }
}

fn key_slot(spec: &TableSpec, shape: KeyShape) -> Result<(KeySlot, usize, usize), SchemaError> {
    let TableSpec { key_type, key_len, .. } = *spec;
    let wrong = Err(SchemaError::KeyLength { key_type, key_len });
    match key_type {
        KeyType::Integer | KeyType::Ipv4 if key_len != 4 => return wrong,
        KeyType::Ipv6 if key_len != 16 => return wrong,
        _ if key_len == 0 => return wrong,
        _ if key_len > KEY_MAX => return Err(SchemaError::KeyTooLong { key_len }),
        _ => {}
    }
    let words = |n: usize| n.next_multiple_of(4);
    Ok(match shape {
        KeyShape::Fixed(n) if n <= LONG_INLINE => (KeySlot::Fixed(n), words(n), n),
        KeyShape::String { max } if max <= LONG_INLINE => {
            (KeySlot::Short(max), words(1 + max), max)
        }
        KeyShape::Fixed(max) | KeyShape::String { max } => (KeySlot::Long, 4 + LONG_INLINE, max),
    })
}

fn check_column(c: &ColumnSpec, before: Option<&Column>) -> Result<(), SchemaError> {
    let (name, elements) = (c.data_type.name(), c.elements);
    if before.is_some_and(|b| b.data_type >= c.data_type) {
        return Err(SchemaError::Order { name });
    }
    let allowed = if c.data_type.is_array() { 1..=ARRAY_ELEMENTS_MAX } else { 1..=1 };
    if !allowed.contains(&elements) {
        return Err(SchemaError::Elements { name, elements });
    }
    Ok(())
}

/// Rows that fit a line should not straddle two, if that costs little: the next power of two when
/// it is at most a fifth longer, else whole words.
fn stride(len: usize) -> usize {
    let len = len.next_multiple_of(4);
    let power = len.next_power_of_two();
    if power <= LINE && power <= len + len / 5 { power } else { len }
}

/// Word at `at` of a row.
#[inline(always)]
pub fn word(row: &[u8], at: usize) -> u32 {
    let b = &row[at..at + 4];
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

/// Stores a word.
#[inline(always)]
pub fn set_word(row: &mut [u8], at: usize, v: u32) {
    row[at..at + 4].copy_from_slice(&v.to_ne_bytes());
}

/// Two words as one number.
#[inline(always)]
pub fn double(row: &[u8], at: usize) -> u64 {
    u64::from(word(row, at)) | u64::from(word(row, at + 4)) << 32
}

/// Stores a number in two words.
#[inline(always)]
pub fn set_double(row: &mut [u8], at: usize, v: u64) {
    set_word(row, at, v as u32);
    set_word(row, at + 4, (v >> 32) as u32);
}

/// Rate at `at` of a row.
#[inline(always)]
pub fn rate(row: &[u8], at: usize) -> Rate {
    Rate { start: word(row, at), curr: word(row, at + 4), prev: word(row, at + 8) }
}

/// Stores a rate.
#[inline(always)]
pub fn set_rate(row: &mut [u8], at: usize, r: Rate) {
    set_word(row, at, r.start);
    set_word(row, at + 4, r.curr);
    set_word(row, at + 8, r.prev);
}

#[cfg(test)]
mod tests {
    use super::super::testing::spec;
    use super::*;

    #[test]
    fn a_small_table_has_rows_of_half_a_line() {
        let s = Schema::new(&spec(KeyType::Ipv4, 4, "gpc0,http_req_rate(10000)")).unwrap();
        assert_eq!(s.stride, 32);
        assert_eq!(s.key_slot, KeySlot::Fixed(4));
        let offsets: Vec<_> = s.columns.iter().map(|c| (c.data_type.name(), c.offset)).collect();
        assert_eq!(offsets, [("gpc0", 12), ("http_req_rate", 16)]);
        assert!(s.column(DataType::GPT0).is_none());
        assert_eq!(s.column(DataType::GPC0).unwrap().offset, 12);
    }

    #[test]
    fn key_slots_by_type_and_length() {
        let slot = |t, len| Schema::new(&spec(t, len, "gpc0")).map(|s| (s.key_slot, s.key_max));
        assert_eq!(slot(KeyType::Ipv6, 16), Ok((KeySlot::Fixed(16), 16)));
        assert_eq!(slot(KeyType::Binary, 32), Ok((KeySlot::Fixed(32), 32)));
        assert_eq!(slot(KeyType::Binary, 33), Ok((KeySlot::Long, 33)));
        assert_eq!(slot(KeyType::String, 33), Ok((KeySlot::Short(32), 32)));
        assert_eq!(slot(KeyType::String, 34), Ok((KeySlot::Long, 33)));
        assert_eq!(slot(KeyType::String, 1), Ok((KeySlot::Short(0), 0)));
        for (t, len) in [(KeyType::Ipv4, 5), (KeyType::Ipv6, 4), (KeyType::String, 0)] {
            assert_eq!(slot(t, len), Err(SchemaError::KeyLength { key_type: t, key_len: len }));
        }
        let too_long = SchemaError::KeyTooLong { key_len: KEY_MAX + 1 };
        assert_eq!(slot(KeyType::String, KEY_MAX + 1), Err(too_long));
    }

    #[test]
    fn every_table_s_longest_update_can_be_sent() {
        let all: Vec<String> = DataType::all()
            .map(|t| match (t.is_array(), t.is_rate()) {
                (true, true) => format!("{}(100,10000)", t.name()),
                (true, false) => format!("{}(100)", t.name()),
                (false, true) => format!("{}(10000)", t.name()),
                _ => t.name().to_owned(),
            })
            .collect();
        let s = Schema::new(&spec(KeyType::String, KEY_MAX, &all.join(","))).unwrap();
        assert_eq!(s.columns.len(), 27);
        let text = crate::limits::SERVER_KEY_MAX;
        let longest = 8 + 3 + s.key_max + s.values_len_max + text;
        assert!(longest <= crate::limits::MESSAGE_SENT_MAX, "{longest}");
    }

    #[test]
    fn faulty_columns_are_refused() {
        let mut bad = spec(KeyType::Ipv4, 4, "gpc0,gpt0");
        assert!(Schema::new(&bad).is_ok(), "the helper sorts");
        bad.columns.swap(0, 1);
        assert_eq!(Schema::new(&bad).unwrap_err(), SchemaError::Order { name: "gpt0" });
        let mut bad = spec(KeyType::Ipv4, 4, "gpt(100)");
        assert!(Schema::new(&bad).is_ok());
        bad.columns[0].elements = 101;
        let error = SchemaError::Elements { name: "gpt", elements: 101 };
        assert_eq!(Schema::new(&bad).unwrap_err(), error);
    }

    #[test]
    fn rows_keep_what_is_stored() {
        let mut row = [0u8; 24];
        set_double(&mut row, 4, 0x0123_4567_89ab_cdef);
        let r = Rate { start: 8, curr: 9, prev: 10 };
        set_rate(&mut row, 12, r);
        assert_eq!((double(&row, 4), rate(&row, 12), word(&row, 0)), (0x0123_4567_89ab_cdef, r, 0));
    }
}
