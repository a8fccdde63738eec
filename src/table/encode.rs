//! A row as an update message.
//!
//! Pure; called by the shards when they push changes and teach. Rule: ids are always explicit
//! (HAProxy 3.3 and later acknowledge implicit ones byte-swapped, protocol.md 5.4), values go in
//! ascending bit order, and what cannot be sent leaves the output as it was.

#![forbid(unsafe_code)]

use super::entry::{Cell, Entry};
use super::schema;
use crate::limits::{MESSAGE_SENT_MAX, SERVER_KEY_MAX};
use crate::time::Millis;
use crate::wire::dictionary::TxDictionary;
use crate::wire::{KeyShape, Kind, UpdateForm, frame, update, varint};
use thiserror::Error;

/// Whether an update says how long its entry has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Changes as they happen: the receiver starts the table's whole `expire`.
    Untimed,
    /// Lessons to peers of protocol 2.1.
    Timed,
}

/// A row that cannot be sent.
///
/// *Effect:* it is skipped and counted; the lesson or the push goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The message might exceed what every HAProxy takes.
    #[error("update of up to {len} bytes exceeds the limit of {MESSAGE_SENT_MAX}")]
    TooLong {
        /// Longest it could be.
        len: usize,
    },
    /// HAProxy before 3.5-dev4 overflows on long names when it teaches them on.
    #[error("server key of {len} bytes exceeds the limit of {SERVER_KEY_MAX}")]
    ServerKeyTooLong {
        /// Its length.
        len: usize,
    },
}

/// Appends the whole message (0x80 or 0x85) for a row. On error nothing is appended and the
/// dictionary is unchanged.
pub fn encode_update(
    entry: &Entry<'_>,
    uid: u32,
    timing: Timing,
    now: Millis,
    dictionary: &mut TxDictionary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let (schema, key) = (entry.schema(), entry.key());
    let mut longest = 8 + varint::MAX_LEN + key.len() + schema.values_len_max;
    if let Some(text) = server_key(entry) {
        if text.len() > SERVER_KEY_MAX {
            return Err(EncodeError::ServerKeyTooLong { len: text.len() });
        }
        longest += text.len();
    }
    if longest > MESSAGE_SENT_MAX {
        return Err(EncodeError::TooLong { len: longest });
    }
    let timed = timing == Timing::Timed;
    let kind = UpdateForm { explicit_id: true, timed }.kind();
    let left = timed.then(|| entry.expires_in_ms(now));
    if longest <= SHORT_PAYLOAD && schema.server_key.is_none() {
        encode_short(entry, kind, uid, left, now, out);
    } else {
        encode_any(entry, kind, uid, left, now, dictionary, out);
    }
    Ok(())
}

/// Any row whose message is not too long.
fn encode_any(
    entry: &Entry<'_>,
    kind: u8,
    uid: u32,
    left: Option<u32>,
    now: Millis,
    dictionary: &mut TxDictionary,
    out: &mut Vec<u8>,
) {
    frame::build(out, frame::class::TABLE, kind, |out| {
        update::encode_head(out, Some(uid), left, entry.schema().key_shape, entry.key());
        for (_, _, _, cell) in entry.cells() {
            encode_cell(cell, now, dictionary, out);
        }
    });
}

/// Longest payload whose length is one byte.
const SHORT_PAYLOAD: usize = 239;

/// A message under construction on the stack. The size is a power of two so that a masked index
/// needs no check; what is written never reaches it.
struct Short {
    bytes: [u8; 256],
    at: usize,
}

impl Short {
    #[inline(always)]
    fn byte(&mut self, b: u8) {
        self.bytes[self.at & 0xff] = b;
        self.at += 1;
    }

    #[inline(always)]
    fn slice(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// As [`varint::encode`].
    #[inline(always)]
    fn varint(&mut self, mut v: u64) {
        if v < 240 {
            return self.byte(v as u8);
        }
        self.byte(v as u8 | 0xf0);
        v = (v - 240) >> 4;
        while v >= 128 {
            self.byte(v as u8 | 0x80);
            v = (v - 128) >> 7;
        }
        self.byte(v as u8);
    }
}

/// The same bytes as the general way, for rows whose message is short and has no name in it: most
/// rows of most tables. One copy into `out` at the end, one look at the row.
fn encode_short(
    entry: &Entry<'_>,
    kind: u8,
    uid: u32,
    left: Option<u32>,
    now: Millis,
    out: &mut Vec<u8>,
) {
    let (schema, row, key) = (entry.schema(), entry.row(), entry.key());
    let mut short = Short { bytes: [0; 256], at: 3 };
    short.bytes[0] = frame::class::TABLE;
    short.bytes[1] = kind;
    short.slice(&uid.to_be_bytes());
    if let Some(left) = left {
        short.slice(&left.to_be_bytes());
    }
    if let KeyShape::String { .. } = schema.key_shape {
        short.varint(key.len() as u64);
    }
    short.slice(key);
    for column in &schema.columns {
        let mut at = column.offset;
        for _ in 0..column.elements {
            match column.kind {
                Kind::I32 => short.varint(i64::from(schema::word(row, at) as i32) as u64),
                Kind::U32 => short.varint(u64::from(schema::word(row, at))),
                Kind::U64 => short.varint(schema::double(row, at)),
                Kind::Rate => {
                    let rate = schema::rate(row, at);
                    short.varint(u64::from(rate.age_ms(now)));
                    short.varint(u64::from(rate.curr));
                    short.varint(u64::from(rate.prev));
                }
                // Not here: the caller has asked the schema.
                Kind::Dict => short.byte(0),
            }
            at += column.width;
        }
    }
    short.bytes[2] = (short.at - 3) as u8;
    out.extend_from_slice(&short.bytes[..short.at]);
}

fn server_key<'a>(entry: &Entry<'a>) -> Option<&'a [u8]> {
    let at = entry.schema().server_key?;
    let number = schema::word(entry.row(), at);
    entry.store.texts.get(number).map(|text| &text[..])
}

#[inline]
fn encode_cell(cell: Cell<'_>, now: Millis, dictionary: &mut TxDictionary, out: &mut Vec<u8>) {
    match cell {
        Cell::I32(v) => update::encode_i32(out, v),
        Cell::U32(v) => varint::encode(out, u64::from(v)),
        Cell::U64(v) => varint::encode(out, v),
        Cell::Rate(r) => update::encode_rate(out, r.age_ms(now), r.curr, r.prev),
        Cell::Dict(Some(text)) => dictionary.encode(out, text),
        Cell::Dict(None) => varint::encode(out, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::table::{KeyHasher, LocalSet, Place, ScanCursor, TablePart};
    use crate::wire::{DataType, KeyType};
    use std::ops::ControlFlow;
    use std::sync::Arc;

    /// Every kind of value and key at every magnitude: both ways write the same bytes.
    #[test]
    fn the_short_way_writes_what_the_general_way_does() {
        let store = "server_id,gpt0,gpc0,gpc0_rate(9000),conn_cnt,bytes_in_cnt,glitch_rate(500)";
        let arrays = "gpt(3),gpc(2),gpc_rate(2,1000)";
        let mut compared = 0;
        for (key_type, len) in
            [(KeyType::Ipv4, 4), (KeyType::Ipv6, 16), (KeyType::String, 33), (KeyType::Binary, 9)]
        {
            for store in [store, arrays, "gpc0,http_req_rate(10000)", ""] {
                let spec = Arc::new(testing::spec(key_type, len, store));
                let hasher = KeyHasher::new([1, 2, 3, 4]);
                let place = Place::new(0, spec.size, 1);
                let mut part = TablePart::new(spec.clone(), hasher.clone(), place, 0).unwrap();
                fill(&mut part, &hasher, &spec);
                part.scan(Millis(9_000_000_123), ScanCursor::default(), usize::MAX, |entry| {
                    compare(&entry);
                    compared += 1;
                    ControlFlow::Continue(())
                });
            }
        }
        assert_eq!(compared, 4 * 4 * 66);
    }

    fn fill(part: &mut TablePart, hasher: &KeyHasher, spec: &crate::table::TableSpec) {
        for n in 0..66u32 {
            let value = if n == 65 { -1 } else { (1i64 << (n % 63)) - i64::from(n & 1) };
            let mut key = n.to_be_bytes().repeat(8)[..(spec.key_len as usize).min(32)].to_vec();
            if spec.key_type == KeyType::String {
                key = format!("key-{n}").into_bytes();
            }
            let sets: Vec<LocalSet> = spec
                .columns
                .iter()
                .flat_map(|c| (0..c.elements).map(move |index| (c.data_type, index)))
                .map(|(data_type, index)| LocalSet { data_type, index, value })
                .collect();
            let now = Millis(9_000_000_000 - u64::from(n));
            part.set_local(now, &key, hasher.hash(&key), &sets).unwrap();
        }
    }

    fn compare(entry: &Entry<'_>) {
        let now = Millis(9_000_000_123);
        for left in [None, Some(0), Some(239), Some(u32::MAX)] {
            let (mut short, mut any) = (b"x".to_vec(), b"x".to_vec());
            assert!(entry.schema().values_len_max < SHORT_PAYLOAD);
            encode_short(entry, 0x85, 0xfedc_ba98, left, now, &mut short);
            let mut none = TxDictionary::new();
            encode_any(entry, 0x85, 0xfedc_ba98, left, now, &mut none, &mut any);
            assert_eq!(short, any);
            assert!(entry.schema().column(DataType::SERVER_KEY).is_none());
        }
    }
}
