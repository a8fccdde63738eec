use super::{Rng, hex};
use crate::wire::varint::{MAX_LEN, Reader, begins_with, encode, len, to_array};
use crate::wire::{DecodeError, What};
use proptest::prelude::*;

/// protocol.md 1.2, in full.
const VECTORS: &[(u64, &str)] = &[
    (0, "00"),
    (239, "ef"),
    (240, "f0 00"),
    (2287, "ff 7f"),
    (2288, "f0 80 00"),
    (264_431, "ff ff 7f"),
    (264_432, "f0 80 80 00"),
    (33_818_863, "ff ff ff 7f"),
    (33_818_864, "f0 80 80 80 00"),
    (4_328_786_159, "ff ff ff ff 7f"),
    (4_328_786_160, "f0 80 80 80 80 00"),
    (554_084_600_047, "ff ff ff ff ff 7f"),
    (554_084_600_048, "f0 80 80 80 80 80 00"),
    (70_922_828_777_711, "ff ff ff ff ff ff 7f"),
    (70_922_828_777_712, "f0 80 80 80 80 80 80 00"),
    (9_078_122_083_518_703, "ff ff ff ff ff ff ff 7f"),
    (9_078_122_083_518_704, "f0 80 80 80 80 80 80 80 00"),
    (1_161_999_626_690_365_679, "ff ff ff ff ff ff ff ff 7f"),
    (1_161_999_626_690_365_680, "f0 80 80 80 80 80 80 80 80 00"),
    (1 << 63, "f0 f1 fe fe fe fe fe fe fe 06"),
    (u64::MAX, "ff f0 fe fe fe fe fe fe fe 0e"),
    (0x7fff_ffff, "ff f0 fe fe 3e"),
    (0x8000_0000, "f0 f1 fe fe 3e"),
    (0xffff_ffff, "ff f0 fe fe 7e"),
    (0x1234, "f4 94 01"),
    (1_000, "f8 2f"),
    (10_000, "f0 e2 03"),
    (30_000, "f0 c4 0d"),
    (60_000, "f0 97 1c"),
    (120_000, "f0 bd 39"),
    (600_000, "f0 ed a3 01"),
    (3_600_000, "f0 d9 dc 0c"),
    (2_073_600_000, "f0 f1 92 e5 3c"),
];

/// First value of each length class (protocol.md 1.1), from 1 byte to 10.
const CLASS_STARTS: [u64; 10] = [
    0,
    240,
    2_288,
    264_432,
    33_818_864,
    4_328_786_160,
    554_084_600_048,
    70_922_828_777_712,
    9_078_122_083_518_704,
    1_161_999_626_690_365_680,
];

fn encoded(v: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, v);
    out
}

fn decoded(bytes: &[u8]) -> Result<(u64, usize), DecodeError> {
    let mut r = Reader::new(bytes);
    r.varint(What::TableId).map(|v| (v, r.pos()))
}

/// An independent model: the class says the length, the offset within it is written 4 bits first
/// and then 7 bits a byte, lowest first.
fn model_encode(v: u64) -> Vec<u8> {
    let n = CLASS_STARTS.iter().rposition(|&start| v >= start).expect("0 is a start") + 1;
    if n == 1 {
        return vec![v as u8];
    }
    let mut offset = v - CLASS_STARTS[n - 1];
    let mut out = vec![0xf0 | (offset & 15) as u8];
    offset >>= 4;
    for i in 1..n {
        out.push((offset & 0x7f) as u8 | if i + 1 < n { 0x80 } else { 0 });
        offset >>= 7;
    }
    out
}

fn model_decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    if first < 0xf0 {
        return Some((u64::from(first), 1));
    }
    let n = 2 + bytes[1..].iter().position(|&b| b < 0x80)?;
    let start = *CLASS_STARTS.get(n - 1)?;
    let mut offset = u128::from(first & 15);
    for (i, b) in bytes[1..n].iter().enumerate() {
        offset |= u128::from(b & 0x7f) << (4 + 7 * i);
    }
    u64::try_from(u128::from(start) + offset).ok().map(|v| (v, n))
}

#[test]
fn vectors() {
    for &(v, text) in VECTORS {
        let bytes = hex(text);
        assert_eq!(encoded(v), bytes, "encode {v}");
        assert_eq!(decoded(&bytes), Ok((v, bytes.len())), "decode {text}");
        assert_eq!(len(v), bytes.len(), "len {v}");
        let (array, n) = to_array(v);
        assert_eq!(array[..n], bytes, "to_array {v}");
        assert_eq!(model_encode(v), bytes, "the model itself, {v}");
    }
}

#[test]
fn length_classes_begin_and_end_where_the_table_says() {
    for (i, &start) in CLASS_STARTS.iter().enumerate() {
        assert_eq!(len(start), i + 1);
        assert_eq!(encoded(start).len(), i + 1);
        if i > 0 {
            assert_eq!(len(start - 1), i);
            assert_eq!(encoded(start - 1).len(), i);
        }
    }
    assert_eq!(len(u64::MAX), MAX_LEN);
}

#[test]
fn a_missing_byte_is_named() {
    for &(_, text) in VECTORS {
        let bytes = hex(text);
        for cut in 0..bytes.len() {
            let what = What::TableId;
            assert_eq!(decoded(&bytes[..cut]), Err(DecodeError::Truncated { what, offset: cut }));
        }
    }
}

#[test]
fn a_failed_read_does_not_move_the_cursor() {
    let bytes = hex("05 f0 80");
    let mut r = Reader::new(&bytes);
    assert_eq!(r.varint(What::TableId), Ok(5));
    assert!(r.varint(What::Name).is_err());
    assert_eq!(r.pos(), 1);
    assert!(r.bytes(3, What::Key).is_err());
    assert!(r.u32_be(What::UpdateId).is_err());
    assert_eq!(r.rest(), [0xf0, 0x80]);
    assert_eq!(
        r.bytes(usize::MAX, What::Key),
        Err(DecodeError::Truncated { what: What::Key, offset: 1 })
    );
}

#[test]
fn nothing_follows_the_largest_value() {
    let overflow = Err(DecodeError::Overflow { what: What::TableId, offset: 0 });
    assert_eq!(decoded(&hex("f0 f0 fe fe fe fe fe fe fe 0e")), Ok((u64::MAX - 15, 10)));
    assert_eq!(decoded(&hex("f0 f1 fe fe fe fe fe fe fe 0e")), overflow, "2^64");
    assert_eq!(decoded(&hex("ff f0 fe fe fe fe fe fe fe 0f")), overflow);
    assert_eq!(decoded(&hex("ff ff ff ff ff ff ff ff ff 7f")), overflow);
    assert_eq!(decoded(&hex("f0 80 80 80 80 80 80 80 80 80 00")), overflow, "11 bytes");
    assert_eq!(decoded(&[0xff; 64]), overflow);
    let mut endless = vec![0x80; 10_000];
    endless[0] = 0xf0;
    assert_eq!(decoded(&endless), overflow);
}

#[test]
fn every_value_near_a_boundary_agrees_with_the_model() {
    for start in CLASS_STARTS.into_iter().chain([u64::MAX, 1 << 31, 1 << 32, 1 << 63]) {
        for v in start.saturating_sub(300)..=start.saturating_add(300) {
            let bytes = encoded(v);
            assert_eq!(bytes, model_encode(v));
            assert_eq!(decoded(&bytes), Ok((v, bytes.len())));
            assert_eq!(len(v), bytes.len());
        }
    }
}

#[test]
fn all_two_and_three_byte_strings_agree_with_the_model() {
    for n in 0..=0xff_ffffu32 {
        let bytes = n.to_be_bytes();
        // Every fourth only: the low bits of the last byte change nothing in the path taken.
        if n % 4 == 0 {
            assert_eq!(decoded(&bytes[1..]).ok(), model_decode(&bytes[1..]), "{bytes:x?}");
        }
    }
}

#[test]
fn random_bytes_agree_with_the_model() {
    let mut rng = Rng(1);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..200_000 {
        let n = rng.below(13);
        let mut bytes = rng.bytes(n);
        // Long codes are rare in noise: mostly force the first byte and the continuation bits.
        if rng.below(4) > 0 {
            bytes.iter_mut().for_each(|b| *b |= 0x80);
            bytes.iter_mut().take(1).for_each(|b| *b |= 0xf0);
            bytes.iter_mut().last().into_iter().for_each(|b| *b &= 0x7f);
        }
        let got = decoded(&bytes).ok();
        assert_eq!(got, model_decode(&bytes), "{bytes:x?}");
        match got {
            Some((v, n)) => {
                assert_eq!(encoded(v), bytes[..n], "bijective");
                accepted += 1;
            }
            None => refused += 1,
        }
    }
    assert!(accepted > 20_000 && refused > 20_000, "{accepted} {refused}");
}

proptest! {
    #[test]
    fn round_trip(v: u64, shift in 0u32..64, behind: Vec<u8>) {
        let v = v >> shift;
        let mut bytes = encoded(v);
        let n = bytes.len();
        prop_assert_eq!(len(v), n);
        prop_assert_eq!(&bytes, &model_encode(v));
        bytes.extend_from_slice(&behind);
        prop_assert_eq!(decoded(&bytes), Ok((v, n)));
    }
}

proptest! {
    /// The quick look is right whenever it says yes, and says yes to all but the longest.
    #[test]
    fn the_quick_look_agrees_with_the_exact_one(
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), 0xf0u8..], 0..60),
        values in proptest::collection::vec((any::<u64>(), 5u32..64), 0..8),
        n in 0u32..8,
    ) {
        let exact = |bytes: &[u8]| {
            let mut r = Reader::new(bytes);
            (0..n).all(|_| r.varint(What::Key).is_ok())
        };
        prop_assert!(!begins_with(&noise, n) || exact(&noise));
        let mut bytes = Vec::new();
        values.iter().for_each(|&(v, shift)| encode(&mut bytes, v >> shift));
        prop_assert_eq!(begins_with(&bytes, n), exact(&bytes));
    }
}
