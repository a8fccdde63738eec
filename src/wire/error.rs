//! What can be wrong with a message's bytes.

use thiserror::Error;

/// The field that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Update id (4 bytes).
    UpdateId,
    /// Remaining lifetime of a timed update (4 bytes).
    Expire,
    /// Length of a string key.
    KeyLength,
    /// The key.
    Key,
    /// A data value, by its type number.
    Value(u8),
    /// A dictionary value (`server_key`).
    Dictionary,
    /// Table id of a definition, switch or ack.
    TableId,
    /// Length of a table's name.
    NameLength,
    /// A table's name.
    Name,
    /// Key type of a definition.
    KeyType,
    /// Key length of a definition.
    KeyLen,
    /// Data type bitfield of a definition.
    DataTypes,
    /// Optional parameters behind a definition's bitfield.
    Tail,
}

/// A message that cannot be what it says.
///
/// *Effect:* the session sends `01 00` and closes; updates already applied stay (protocol.md 7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("message ends inside {what:?} at byte {offset}")]
    Truncated {
        /// The field.
        what: What,
        /// Offset in the payload where bytes were missing.
        offset: usize,
    },
    /// A varint does not fit 64 bits.
    #[error("integer of {what:?} at byte {offset} does not fit 64 bits")]
    Overflow {
        /// The field.
        what: What,
        /// Offset in the payload where it starts.
        offset: usize,
    },
    /// A table name of no bytes.
    #[error("empty table name")]
    EmptyName,
    /// A dictionary id outside 1..=128, or lengths that cross each other.
    #[error("bad dictionary value at byte {offset}")]
    BadDictionary {
        /// Offset in the payload.
        offset: usize,
    },
}
