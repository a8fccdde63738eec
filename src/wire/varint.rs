//! HAProxy's variable-length integers, 1 to 10 bytes (protocol.md 1).
//!
//! Below 240 one byte. Else 4 bits in the first byte and 7 in each next one, with a bias that makes
//! the code bijective: there are no overlong forms, so decode then encode gives the same bytes.

use super::error::{DecodeError, What};

/// Longest encoding of a `u64`.
pub const MAX_LEN: usize = 10;
/// Where the last of [`MAX_LEN`] bytes is added.
const LAST_SHIFT: u32 = 4 + 7 * (MAX_LEN as u32 - 2);

/// Appends `v`. Never fails; writes [`len`]`(v)` bytes.
#[inline(always)]
pub fn encode(out: &mut Vec<u8>, v: u64) {
    if v < 240 {
        out.push(v as u8);
    } else {
        encode_long(out, v);
    }
}

#[inline]
fn encode_long(out: &mut Vec<u8>, v: u64) {
    let (bytes, n) = to_array(v);
    out.extend_from_slice(&bytes[..n]);
}

/// The encoding of `v` and how many bytes of it count.
#[inline]
pub fn to_array(mut v: u64) -> ([u8; MAX_LEN], usize) {
    let mut bytes = [0u8; MAX_LEN];
    if v < 240 {
        bytes[0] = v as u8;
        return (bytes, 1);
    }
    bytes[0] = v as u8 | 0xf0;
    v = (v - 240) >> 4;
    let mut n = 1;
    while v >= 128 {
        bytes[n] = v as u8 | 0x80;
        v = (v - 128) >> 7;
        n += 1;
    }
    bytes[n] = v as u8;
    (bytes, n + 1)
}

/// How many bytes [`encode`] writes for `v`.
pub fn len(mut v: u64) -> usize {
    if v < 240 {
        return 1;
    }
    v = (v - 240) >> 4;
    let mut n = 2;
    while v >= 128 {
        v = (v - 128) >> 7;
        n += 1;
    }
    n
}

/// True when `bytes` begin with `n` varints that are all shorter than [`MAX_LEN`], so that none can
/// overflow: a quick look that spares most updates an exact one. False says nothing.
#[inline]
pub fn begins_with(bytes: &[u8], n: u32) -> bool {
    let mut at = 0;
    for _ in 0..n {
        match bytes.get(at) {
            Some(&b) if b < 0xf0 => at += 1,
            Some(_) => {
                let rest = &bytes[at + 1..];
                let Some(more) = rest.iter().take(MAX_LEN - 2).position(|&b| b < 0x80) else {
                    return false;
                };
                at += more + 2;
            }
            None => return false,
        }
    }
    true
}

/// A cursor over one message's bytes. Every read is checked; an error names what and where.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[inline(always)]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, pos: 0 }
    }

    /// Offset of the next byte.
    #[inline(always)]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// What has not been read yet.
    #[inline(always)]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos..]
    }

    /// True when everything was read.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.pos == self.bytes.len()
    }

    /// One varint. Errors: the bytes end inside it, or it does not fit 64 bits (HAProxy never sends
    /// such a thing and has no bound of its own there).
    #[inline(always)]
    pub fn varint(&mut self, what: What) -> Result<u64, DecodeError> {
        match self.bytes.get(self.pos) {
            Some(&b) if b < 0xf0 => {
                self.pos += 1;
                Ok(u64::from(b))
            }
            Some(_) => self.varint_long(what),
            None => Err(DecodeError::Truncated { what, offset: self.pos }),
        }
    }

    fn varint_long(&mut self, what: What) -> Result<u64, DecodeError> {
        let start = self.pos;
        let mut v = u64::from(self.bytes[start]);
        let mut shift = 4u32;
        let mut at = start + 1;
        loop {
            let Some(&b) = self.bytes.get(at) else {
                return Err(DecodeError::Truncated { what, offset: at });
            };
            at += 1;
            // The full byte is added, its high bit too: that is the bias. Only a tenth byte can
            // lose bits, and there is no eleventh.
            let part = u64::from(b).checked_shl(shift).unwrap_or(0);
            let exact = shift <= LAST_SHIFT && part >> shift == u64::from(b);
            v = match v.checked_add(part) {
                Some(sum) if exact => sum,
                _ => return Err(DecodeError::Overflow { what, offset: start }),
            };
            if b < 0x80 {
                self.pos = at;
                return Ok(v);
            }
            shift += 7;
        }
    }

    /// A 4-byte big-endian integer.
    #[inline(always)]
    pub fn u32_be(&mut self, what: What) -> Result<u32, DecodeError> {
        let b = self.bytes(4, what)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The next `n` bytes.
    #[inline(always)]
    pub fn bytes(&mut self, n: usize, what: What) -> Result<&'a [u8], DecodeError> {
        match self.rest().get(..n) {
            Some(b) => {
                self.pos += n;
                Ok(b)
            }
            None => Err(DecodeError::Truncated { what, offset: self.pos }),
        }
    }
}
