//! Keys: canonical bytes, from text and to text.
//!
//! A canonical key is what travels and what the index compares (protocol.md 4.3): integers and
//! addresses in network order, strings without NUL and at most the table's length, binary keys
//! padded with zeros. Pure; used by the stats socket and the logs. Conversions are those of HAProxy
//! 3.2's `set table` and `show table`, observed byte by byte.

#![forbid(unsafe_code)]

use super::spec::TableSpec;
use crate::wire::{KeyType, update::cut_string};
use std::net::{Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Text that is no key of the table's type.
///
/// *Effect:* the command answers `Invalid key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("Invalid key")]
pub struct InvalidKey;

/// The canonical key that `text` means in a table.
///
/// * integer: optional sign and leading digits, clamped to 64 bits, then modulo 2^32; no digits
///   mean 0;
/// * ip: an address, `/...` ignored; IPv6 when it embeds an IPv4 (`::ffff:a.b.c.d`, `::a.b.c.d`,
///   6to4);
/// * ipv6: an address; IPv4 becomes `::ffff:a.b.c.d`;
/// * string: cut to the table's length;
/// * binary: hexadecimal (ours alone: HAProxy refuses binary keys here), cut or zero padded.
pub fn key_from_text(spec: &TableSpec, text: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let len = spec.key_len as usize;
    match spec.key_type {
        KeyType::Integer => Ok((parse_integer(text) as u32).to_be_bytes().to_vec()),
        KeyType::Ipv4 => {
            let v4 = parse_v4(text).or_else(|| v4_within(parse_v6(text)?));
            Ok(v4.ok_or(InvalidKey)?.octets().to_vec())
        }
        KeyType::Ipv6 => {
            let v6 = parse_v6(text).or_else(|| Some(parse_v4(text)?.to_ipv6_mapped()));
            Ok(v6.ok_or(InvalidKey)?.octets().to_vec())
        }
        KeyType::String => Ok(cut_string(text, len.saturating_sub(1)).to_vec()),
        KeyType::Binary => {
            let mut key = parse_hex(text).ok_or(InvalidKey)?;
            key.resize(len, 0);
            Ok(key)
        }
    }
}

/// Appends a key as `show table` prints it. Keys of the wrong length for their type are shown in
/// hex.
pub fn write_key_text(key_type: KeyType, key: &[u8], out: &mut Vec<u8>) {
    match (key_type, key.len()) {
        (KeyType::Integer, 4) => {
            let n = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
            out.extend_from_slice(n.to_string().as_bytes());
        }
        (KeyType::Ipv4, 4) => {
            let a = Ipv4Addr::new(key[0], key[1], key[2], key[3]);
            out.extend_from_slice(a.to_string().as_bytes());
        }
        (KeyType::Ipv6, 16) => {
            let mut octets = [0; 16];
            octets.copy_from_slice(key);
            write_v6(Ipv6Addr::from(octets), out);
        }
        (KeyType::String, _) => write_escaped(key, out),
        _ => key.iter().for_each(|&b| write_hex(b, out)),
    }
}

/// Appends text with blanks, `=`, `\` and everything unprintable escaped.
pub fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    for &b in text {
        match b {
            b' ' | b'=' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1b => out.extend_from_slice(b"\\e"),
            0x21..=0x7e => out.push(b),
            _ => {
                out.extend_from_slice(b"\\x");
                write_hex(b, out);
            }
        }
    }
}

fn write_hex(b: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
}

/// As the C library prints it: also `::a.b.c.d` in dotted form, which Rust does not.
fn write_v6(a: Ipv6Addr, out: &mut Vec<u8>) {
    match a.segments() {
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 => {
            let [b0, b1, b2, b3] = [(hi >> 8) as u8, hi as u8, (lo >> 8) as u8, lo as u8];
            out.extend_from_slice(b"::");
            out.extend_from_slice(Ipv4Addr::new(b0, b1, b2, b3).to_string().as_bytes());
        }
        _ => out.extend_from_slice(a.to_string().as_bytes()),
    }
}

fn parse_integer(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let digits = digits.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0i64, |n, b| {
        let digit = i64::from(b - b'0');
        let n = n.saturating_mul(10);
        if negative { n.saturating_sub(digit) } else { n.saturating_add(digit) }
    })
}

/// Four decimal numbers, leading zeros allowed and meaningless.
fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let text = text.split(|&b| b == b'/').next()?;
    let mut octets = [0u8; 4];
    let mut parts = text.split(|&b| b == b'.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 10 || !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        *octet = u8::try_from(parse_integer(part)).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn parse_v6(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The IPv4 address an IPv6 one stands for.
fn v4_within(a: Ipv6Addr) -> Option<Ipv4Addr> {
    match a.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, hi, lo] | [0x2002, hi, lo, ..] => {
            Some(Ipv4Addr::from(u32::from(hi) << 16 | u32::from(lo)))
        }
        _ => None,
    }
}

fn parse_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::spec;
    use super::*;

    fn round(key_type: KeyType, len: u32, text: &[u8]) -> String {
        match key_from_text(&spec(key_type, len, ""), text) {
            Err(InvalidKey) => "Invalid key".to_owned(),
            Ok(key) => {
                let mut out = Vec::new();
                write_key_text(key_type, &key, &mut out);
                String::from_utf8(out).expect("always printable")
            }
        }
    }

    /// Each pair seen with HAProxy 3.2.
    #[test]
    fn integers() {
        for (text, shown) in [
            ("abc", "0"),
            ("12abc", "12"),
            ("-2", "4294967294"),
            ("0x10", "0"),
            ("4294967297", "1"),
            ("99999999999999999999", "4294967295"),
            ("-99999999999999999999", "0"),
            ("9223372036854775807", "4294967295"),
            ("+5", "5"),
            ("1.5", "1"),
        ] {
            assert_eq!(round(KeyType::Integer, 4, text.as_bytes()), shown, "{text}");
        }
    }

    /// Each pair seen with HAProxy 3.2.
    #[test]
    fn addresses() {
        for (text, v4, v6) in [
            ("127.1", "Invalid key", "Invalid key"),
            ("1.2.3.4", "1.2.3.4", "::ffff:1.2.3.4"),
            ("1.2.3.4/24", "1.2.3.4", "::ffff:1.2.3.4"),
            ("010.1.1.1", "10.1.1.1", "::ffff:10.1.1.1"),
            ("::ffff:1.2.3.4", "1.2.3.4", "::ffff:1.2.3.4"),
            ("::1.2.3.4", "1.2.3.4", "::1.2.3.4"),
            ("2002:102:304::", "1.2.3.4", "2002:102:304::"),
            ("::", "0.0.0.0", "::"),
            ("2001:DB8:0:0::1", "Invalid key", "2001:db8::1"),
            ("64:ff9b::1.2.3.4", "Invalid key", "64:ff9b::102:304"),
            ("1:0:0:2:0:0:0:3", "Invalid key", "1:0:0:2::3"),
            ("1:0:2:3:4:5:6:7", "Invalid key", "1:0:2:3:4:5:6:7"),
            ("256.1.1.1", "Invalid key", "Invalid key"),
            ("1.2.3", "Invalid key", "Invalid key"),
            ("fe80::1%lo", "Invalid key", "Invalid key"),
            ("localhost", "Invalid key", "Invalid key"),
            ("", "Invalid key", "Invalid key"),
        ] {
            assert_eq!(round(KeyType::Ipv4, 4, text.as_bytes()), v4, "{text} in ip");
            assert_eq!(round(KeyType::Ipv6, 16, text.as_bytes()), v6, "{text} in ipv6");
        }
        assert_eq!(round(KeyType::Ipv6, 16, b"::1"), "::1");
    }

    /// All 255 byte values were seen with HAProxy 2.6 and 3.2, tab and newline apart.
    #[test]
    fn strings_are_cut_and_escaped() {
        assert_eq!(round(KeyType::String, 17, b"12345678901234567890"), "1234567890123456");
        assert_eq!(round(KeyType::String, 17, b"a b=c\\d\"e'f"), "a\\ b\\=c\\\\d\"e'f");
        assert_eq!(round(KeyType::String, 17, b"\x01\x0b\r\x1b\x7f"), "\\x01\\x0B\\r\\e\\x7F");
        assert_eq!(round(KeyType::String, 17, "é".as_bytes()), "\\xC3\\xA9");
        assert_eq!(round(KeyType::String, 17, b"a\0b"), "a");
        assert_eq!(round(KeyType::String, 1, b"abc"), "");
    }

    #[test]
    fn binaries_are_hexadecimal() {
        assert_eq!(round(KeyType::Binary, 8, b"6465616462656566"), "6465616462656566");
        assert_eq!(round(KeyType::Binary, 4, b"dead"), "DEAD0000");
        assert_eq!(round(KeyType::Binary, 2, b"DEADBEEF"), "DEAD");
        assert_eq!(round(KeyType::Binary, 2, b"dea"), "Invalid key");
        assert_eq!(round(KeyType::Binary, 2, b"xy"), "Invalid key");
    }
}
