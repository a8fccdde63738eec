//! A row as an update message.
//!
//! Pure; called by the shards when they push changes and teach. Rule: ids are always explicit
//! (HAProxy 3.3 and later acknowledge implicit ones byte-swapped, protocol.md 5.4), values go in
//! ascending bit order, and what cannot be sent leaves the output as it was.

#![forbid(unsafe_code)]

use super::entry::{Cell, Entry};
use crate::limits::{MESSAGE_SENT_MAX, SERVER_KEY_MAX};
use crate::time::Millis;
use crate::wire::dictionary::TxDictionary;
use crate::wire::{UpdateForm, frame, update, varint};
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
    frame::build(out, frame::class::TABLE, kind, |out| {
        update::encode_head(out, Some(uid), left, schema.key_shape, key);
        for (_, _, _, cell) in entry.cells() {
            encode_cell(cell, now, dictionary, out);
        }
    });
    Ok(())
}

fn server_key<'a>(entry: &Entry<'a>) -> Option<&'a [u8]> {
    let at = entry.schema().server_key?;
    let number = super::schema::word(entry.row(), at);
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
