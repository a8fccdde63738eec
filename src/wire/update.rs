//! Updates: id, lifetime, key and values (protocol.md 3.4, 4.3 to 4.7).

use super::data_type::{DataType, KeyType, Kind};
use super::definition::Step;
use super::dictionary;
use super::error::{DecodeError, What};
use super::message::UpdateForm;
use super::varint::{self, Reader};

/// How a table's keys travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// Exactly this many bytes (integer, ip, ipv6, binary).
    Fixed(usize),
    /// A length and that many bytes, of which at most `max` are kept, up to a NUL.
    String {
        /// The table's key length minus one.
        max: usize,
    },
}

impl KeyShape {
    /// The shape of keys of a table with this type and key length.
    pub fn of(key_type: KeyType, key_len: u32) -> KeyShape {
        match key_type {
            KeyType::String => KeyShape::String { max: (key_len as usize).saturating_sub(1) },
            _ => KeyShape::Fixed(key_len as usize),
        }
    }
}

/// An update's parts, borrowed from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// Present in the explicit forms.
    pub uid: Option<u32>,
    /// Remaining lifetime in ms as sent, present in the timed forms. HAProxy reads it as signed.
    pub expire_ms: Option<u32>,
    /// Canonical key: what the table compares. Strings are cut at the table's length and at a NUL.
    pub key: &'a [u8],
    /// The values, to be read with [`decode_values`].
    pub values: &'a [u8],
}

impl<'a> Update<'a> {
    /// Splits a payload. Errors are protocol errors.
    #[inline]
    pub fn decode(
        form: UpdateForm,
        payload: &'a [u8],
        shape: KeyShape,
    ) -> Result<Update<'a>, DecodeError> {
        let mut r = Reader::new(payload);
        let uid = if form.explicit_id { Some(r.u32_be(What::UpdateId)?) } else { None };
        let expire_ms = if form.timed { Some(r.u32_be(What::Expire)?) } else { None };
        let key = match shape {
            KeyShape::Fixed(n) => r.bytes(n, What::Key)?,
            KeyShape::String { max } => {
                let len = r.varint(What::KeyLength)?;
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let bytes = r.bytes(len, What::Key)?;
                cut_string(bytes, max)
            }
        };
        Ok(Update { uid, expire_ms, key, values: r.rest() })
    }
}

/// The part of a string that is a key: at most `max` bytes, up to a NUL.
pub fn cut_string(bytes: &[u8], max: usize) -> &[u8] {
    let kept = &bytes[..bytes.len().min(max)];
    &kept[..kept.iter().position(|&b| b == 0).unwrap_or(kept.len())]
}

/// One decoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integers, as the varint says; the receiver truncates to its column's width.
    Int(u64),
    /// A rate counter: milliseconds since its period began (mod 2^32), and two counts.
    Rate {
        /// `now - start of the current period` on the sender; may exceed the period.
        age_ms: u32,
        /// Events of the current period.
        curr: u32,
        /// Events of the previous period.
        prev: u32,
    },
    /// A dictionary value.
    Dict(DictValue<'a>),
}

/// A `server_key` as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DictValue<'a> {
    /// No value; the receiver keeps what it has.
    None,
    /// A string sent before under this id (1..=128).
    Id(u8),
    /// A string and the id it gets from now on.
    Text {
        /// 1..=128.
        id: u8,
        /// Without NUL.
        text: &'a [u8],
    },
}

/// Reads the values of an update in wire order and hands each to `visit(step, element, value)`.
/// Bytes behind the last known type are ignored. On error, values before it were visited.
#[inline]
pub fn decode_values<'a>(
    values: &'a [u8],
    steps: &[Step],
    mut visit: impl FnMut(usize, u32, Value<'a>),
) -> Result<(), DecodeError> {
    let mut r = Reader::new(values);
    for (i, step) in steps.iter().enumerate() {
        for element in 0..step.elements {
            let value = decode_value(&mut r, step.data_type)?;
            visit(i, element, value);
        }
    }
    Ok(())
}

/// Reads one value of `data_type`.
#[inline(always)]
pub fn decode_value<'a>(r: &mut Reader<'a>, data_type: DataType) -> Result<Value<'a>, DecodeError> {
    let what = What::Value(data_type.bit() as u8);
    Ok(match data_type.kind() {
        Kind::I32 | Kind::U32 | Kind::U64 => Value::Int(r.varint(what)?),
        Kind::Rate => Value::Rate {
            age_ms: r.varint(what)? as u32,
            curr: r.varint(what)? as u32,
            prev: r.varint(what)? as u32,
        },
        Kind::Dict => Value::Dict(dictionary::decode(r)?),
    })
}

/// Appends the part of a payload before the values. `key` is canonical; fixed-width keys must have
/// the table's width.
#[inline]
pub fn encode_head(
    out: &mut Vec<u8>,
    uid: Option<u32>,
    expire_ms: Option<u32>,
    shape: KeyShape,
    key: &[u8],
) {
    if let Some(uid) = uid {
        out.extend_from_slice(&uid.to_be_bytes());
    }
    if let Some(expire_ms) = expire_ms {
        out.extend_from_slice(&expire_ms.to_be_bytes());
    }
    match shape {
        KeyShape::Fixed(n) => debug_assert_eq!(n, key.len()),
        KeyShape::String { .. } => varint::encode(out, key.len() as u64),
    }
    out.extend_from_slice(key);
}

/// Appends an `i32` value: sign-extended to 64 bits first (protocol.md 1.3).
#[inline]
pub fn encode_i32(out: &mut Vec<u8>, v: i32) {
    varint::encode(out, i64::from(v) as u64);
}

/// Appends a rate.
#[inline]
pub fn encode_rate(out: &mut Vec<u8>, age_ms: u32, curr: u32, prev: u32) {
    varint::encode(out, u64::from(age_ms));
    varint::encode(out, u64::from(curr));
    varint::encode(out, u64::from(prev));
}

/// Appends a value exactly as it was decoded.
pub fn encode_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Int(v) => varint::encode(out, v),
        Value::Rate { age_ms, curr, prev } => encode_rate(out, age_ms, curr, prev),
        Value::Dict(DictValue::None) => varint::encode(out, 0),
        Value::Dict(DictValue::Id(id)) => {
            varint::encode(out, varint::len(u64::from(id)) as u64);
            varint::encode(out, u64::from(id));
        }
        Value::Dict(DictValue::Text { id, text }) => {
            let id_len = varint::len(u64::from(id));
            let len = id_len + varint::len(text.len() as u64) + text.len();
            varint::encode(out, len as u64);
            varint::encode(out, u64::from(id));
            varint::encode(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }
}
