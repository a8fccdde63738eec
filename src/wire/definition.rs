//! Table definitions (protocol.md 4.1).

use super::data_type::DataType;
use super::error::{DecodeError, What};
use super::varint::{self, Reader};

/// Parameters of one array or rate type behind a definition's bitfield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The type they belong to.
    pub data_type: DataType,
    /// Elements of an array type; 1 for the others (nothing is on the wire then).
    pub elements: u32,
    /// Period of a rate in ms; 0 for the others (nothing is on the wire then).
    pub period_ms: u32,
}

/// What follows the bitfield: all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing (HAProxy before 1.6, or a minimal peer).
    Absent,
    /// Expiry and the parameters of every known array or rate type, ascending.
    Present {
        /// The sender's `expire` in ms; 0: no expiration. Informative: receivers use their own.
        expire_ms: u32,
        /// One for each known type that has any.
        parameters: Vec<Parameter>,
    },
    /// Missing parameters or a wrong type number. HAProxy ignores such a definition and every
    /// update behind it, and keeps the session.
    Bad,
}

/// A definition as received or sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The sender's id for the table. HAProxy truncates to 32 bits and acks sign-extended.
    pub id: i32,
    /// Table name: the proxy's, or `/` and the name for a table of a peers section.
    pub name: Vec<u8>,
    /// Key type number, which may be unknown.
    pub key_type: u64,
    /// Key length: 4, 16, `len`+1 for strings, `len` for binary.
    pub key_len: u32,
    /// Data types as sent, unknown bits included.
    pub data_types: u64,
    /// Expiry and parameters.
    pub tail: Tail,
}

/// One type of a table's updates, in wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The type.
    pub data_type: DataType,
    /// How many values of it follow each other; 1 when it is not an array.
    pub elements: u32,
}

impl Definition {
    /// Decodes a DEFINE payload. Errors are protocol errors (`01 00`); a faulty tail is not one: it
    /// gives [`Tail::Bad`]. Bytes behind the tail are ignored, as HAProxy does.
    pub fn decode(payload: &[u8]) -> Result<Definition, DecodeError> {
        let mut r = Reader::new(payload);
        let id = r.varint(What::TableId)? as u32 as i32;
        let name_len = r.varint(What::NameLength)?;
        if name_len == 0 {
            return Err(DecodeError::EmptyName);
        }
        let name_len = usize::try_from(name_len).unwrap_or(usize::MAX);
        let name = r.bytes(name_len, What::Name)?.to_vec();
        let key_type = r.varint(What::KeyType)?;
        let key_len = r.varint(What::KeyLen)? as u32;
        let data_types = r.varint(What::DataTypes)?;
        let tail = if r.is_empty() {
            Tail::Absent
        } else {
            decode_tail(&mut r, data_types).unwrap_or(Tail::Bad)
        };
        Ok(Definition { id, name, key_type, key_len, data_types, tail })
    }

    /// Appends the payload. Decoding it gives the same definition, but for [`Tail::Bad`], which is
    /// written as if absent. The bytes are those that were decoded when the sender followed the
    /// rules of protocol.md 4.1 (fields within 32 bits, ids sign-extended, nothing behind the
    /// tail).
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::encode(out, i64::from(self.id) as u64);
        varint::encode(out, self.name.len() as u64);
        out.extend_from_slice(&self.name);
        varint::encode(out, self.key_type);
        varint::encode(out, u64::from(self.key_len));
        varint::encode(out, self.data_types);
        let Tail::Present { expire_ms, parameters } = &self.tail else { return };
        varint::encode(out, u64::from(*expire_ms));
        for p in parameters {
            varint::encode(out, u64::from(p.data_type.bit()));
            if p.data_type.is_array() {
                varint::encode(out, u64::from(p.elements));
            }
            if p.data_type.is_rate() {
                varint::encode(out, u64::from(p.period_ms));
            }
        }
    }

    /// False when updates behind this definition cannot be read: the tail is faulty, or it is
    /// absent while an array needs its number of elements. HAProxy then ignores the definition and
    /// every update behind it, without an ack, and keeps the session (protocol.md 4.1).
    pub fn is_usable(&self) -> bool {
        match self.tail {
            Tail::Present { .. } => true,
            Tail::Absent => !DataType::of_bits(self.data_types).any(DataType::is_array),
            Tail::Bad => false,
        }
    }

    /// The values of an update behind this definition, up to the first unknown bit: from there on
    /// sizes are unknown and the rest of each update is skipped (protocol.md 4.4). Meaningless when
    /// the definition is not [usable](Definition::is_usable).
    pub fn steps(&self) -> Vec<Step> {
        let parameters: &[Parameter] = match &self.tail {
            Tail::Present { parameters, .. } => parameters,
            _ => &[],
        };
        let unknown = self.data_types & !DataType::KNOWN_MASK;
        let known_prefix =
            if unknown == 0 { u64::MAX } else { (1 << unknown.trailing_zeros()) - 1 };
        DataType::of_bits(self.data_types & known_prefix)
            .map(|data_type| {
                let of_type = parameters.iter().find(|p| p.data_type == data_type);
                Step { data_type, elements: of_type.map_or(1, |p| p.elements) }
            })
            .collect()
    }

    /// Parameters of `data_type`, if the tail has them.
    pub fn parameter(&self, data_type: DataType) -> Option<Parameter> {
        match &self.tail {
            Tail::Present { parameters, .. } => {
                parameters.iter().find(|p| p.data_type == data_type).copied()
            }
            _ => None,
        }
    }
}

/// Reads the tail; any error means it is faulty as a whole.
fn decode_tail(r: &mut Reader<'_>, data_types: u64) -> Result<Tail, DecodeError> {
    let expire_ms = r.varint(What::Tail)? as u32;
    let mut parameters = Vec::new();
    for data_type in DataType::of_bits(data_types).filter(|t| t.has_parameters()) {
        let number = r.varint(What::Tail)?;
        if number != u64::from(data_type.bit()) {
            return Ok(Tail::Bad);
        }
        let elements = if data_type.is_array() { r.varint(What::Tail)? as u32 } else { 1 };
        let period_ms = if data_type.is_rate() { r.varint(What::Tail)? as u32 } else { 0 };
        parameters.push(Parameter { data_type, elements, period_ms });
    }
    Ok(Tail::Present { expire_ms, parameters })
}
