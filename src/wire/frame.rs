//! Cutting a byte stream into messages, and building them (protocol.md 3.1, 3.4).

use super::varint;
use crate::limits::LENGTH_VARINT_MAX;
use thiserror::Error;

/// First byte of a message.
pub mod class {
    /// Resync and heartbeat.
    pub const CONTROL: u8 = 0;
    /// The sender is about to close.
    pub const ERROR: u8 = 1;
    /// Definitions, updates, acks.
    pub const TABLE: u8 = 10;
    /// Receiving it is a protocol error.
    pub const RESERVED: u8 = 255;
}

/// Longest header: class, type, length.
pub const HEADER_MAX: usize = 2 + LENGTH_VARINT_MAX;

/// One message, borrowed from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// See [`class`].
    pub class: u8,
    /// Type; a payload follows when it is at least 0x80.
    pub kind: u8,
    /// Empty for two-byte messages.
    pub payload: &'a [u8],
    /// Bytes of the whole message, header and all.
    pub len: usize,
}

/// What [`cut`] found at the start of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A whole message.
    Frame(Frame<'a>),
    /// The message is not complete; at least this many bytes (from its start) are needed to say
    /// more.
    NeedMore(usize),
}

/// A header that makes the stream unusable.
///
/// *Effect:* the session sends the error message named by each variant and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length does not end within 5 bytes. Answer `01 00`.
    #[error("message length does not end within {LENGTH_VARINT_MAX} bytes")]
    EndlessLength,
    /// Longer than a buffer. Answer `01 01`.
    #[error("message of {len} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Announced payload length.
        len: u64,
        /// `tune.bufsize`.
        limit: usize,
    },
    /// Class 255. Answer `01 00`.
    #[error("reserved message class 255")]
    ReservedClass,
}

/// Cuts the message at the start of `bytes`; payloads of more than `limit` bytes are refused.
///
/// Total and stateless: call again from the same start when more bytes have come. A buffer of
/// `limit` plus [`HEADER_MAX`] bytes holds any message that is not refused.
#[inline]
pub fn cut(bytes: &[u8], limit: usize) -> Result<Cut<'_>, FrameError> {
    let (Some(&class), Some(&kind)) = (bytes.first(), bytes.get(1)) else {
        return Ok(Cut::NeedMore(2));
    };
    if class == class::RESERVED {
        return Err(FrameError::ReservedClass);
    }
    if kind < 0x80 {
        return Ok(Cut::Frame(Frame { class, kind, payload: &[], len: 2 }));
    }
    let Some(&first) = bytes.get(2) else { return Ok(Cut::NeedMore(3)) };
    let (length, header) = if first < 0xf0 {
        (u64::from(first), 3)
    } else {
        let window = &bytes[2..bytes.len().min(2 + LENGTH_VARINT_MAX)];
        let mut reader = varint::Reader::new(window);
        match reader.varint(super::What::Name) {
            Ok(v) => (v, 2 + reader.pos()),
            Err(_) if window.len() < LENGTH_VARINT_MAX => {
                return Ok(Cut::NeedMore(bytes.len() + 1));
            }
            Err(_) => return Err(FrameError::EndlessLength),
        }
    };
    if length > limit as u64 {
        return Err(FrameError::TooLong { len: length, limit });
    }
    let len = header + length as usize;
    match bytes.get(header..len) {
        Some(payload) => Ok(Cut::Frame(Frame { class, kind, payload, len })),
        None => Ok(Cut::NeedMore(len)),
    }
}

/// Appends a message whose payload is written by `body`; the length is put before it afterwards.
/// Returns the payload's length.
#[inline]
pub fn build(out: &mut Vec<u8>, class: u8, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> usize {
    debug_assert!(kind >= 0x80, "types below 0x80 have no payload");
    out.extend_from_slice(&[class, kind, 0]);
    let start = out.len();
    body(out);
    let len = out.len() - start;
    if len < 240 {
        out[start - 1] = len as u8;
    } else {
        widen_length(out, start, len);
    }
    len
}

/// Makes room for a length of more than one byte before the payload at `start`.
#[cold]
fn widen_length(out: &mut Vec<u8>, start: usize, len: usize) {
    let (length, n) = varint::to_array(len as u64);
    out.splice(start - 1..start, length[..n].iter().copied());
}
