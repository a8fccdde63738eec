use super::{Rng, definition_of, hex};
use crate::wire::dictionary::{RxDictionary, TxDictionary};
use crate::wire::update::{cut_string, decode_values, encode_head, encode_i32, encode_value};
use crate::wire::{
    DataType, DecodeError, DictValue, KeyShape, KeyType, Kind, Step, Update, UpdateForm, Value,
    What, varint,
};
use proptest::prelude::*;
use std::sync::Arc;

const FORMS: [UpdateForm; 4] = [
    UpdateForm { explicit_id: true, timed: false },
    UpdateForm { explicit_id: false, timed: false },
    UpdateForm { explicit_id: true, timed: true },
    UpdateForm { explicit_id: false, timed: true },
];

const KEYS: [(KeyType, u32); 8] = [
    (KeyType::Integer, 4),
    (KeyType::Ipv4, 4),
    (KeyType::Ipv6, 16),
    (KeyType::String, 32),
    (KeyType::String, 2),
    (KeyType::String, 500),
    (KeyType::Binary, 1),
    (KeyType::Binary, 300),
];

/// All values of an update as `(type, element, value)`.
fn values_of<'a>(
    bytes: &'a [u8],
    steps: &[Step],
) -> Result<Vec<(DataType, u32, Value<'a>)>, DecodeError> {
    let mut seen = Vec::new();
    decode_values(bytes, steps, |step, element, value| {
        seen.push((steps[step].data_type, element, value));
    })?;
    Ok(seen)
}

/// One random value of a type, as a sender would have it.
fn random_value<'a>(rng: &mut Rng, t: DataType, text: &'a [u8]) -> Value<'a> {
    match t.kind() {
        Kind::I32 => Value::Int(i64::from(rng.magnitude() as u32 as i32) as u64),
        Kind::U32 => Value::Int(u64::from(rng.magnitude() as u32)),
        Kind::U64 => Value::Int(rng.magnitude()),
        Kind::Rate => Value::Rate {
            age_ms: rng.magnitude() as u32,
            curr: rng.magnitude() as u32,
            prev: rng.magnitude() as u32,
        },
        Kind::Dict => Value::Dict(match rng.below(3) {
            0 => DictValue::None,
            1 => DictValue::Id(1 + rng.below(128) as u8),
            _ => DictValue::Text { id: 1 + rng.below(128) as u8, text },
        }),
    }
}

fn random_key(rng: &mut Rng, shape: KeyShape) -> Vec<u8> {
    match shape {
        KeyShape::Fixed(n) => rng.bytes(n),
        KeyShape::String { max } => {
            let n = rng.below(max + 1);
            rng.bytes(n).into_iter().map(|b| b.max(1)).collect()
        }
    }
}

/// Encodes an update of `steps` with random values and checks that decoding gives them back.
fn round_trip(rng: &mut Rng, form: UpdateForm, shape: KeyShape, steps: &[Step]) {
    let text = b"some-server/with a name".as_slice();
    let uid = form.explicit_id.then(|| rng.magnitude() as u32);
    let expire_ms = form.timed.then(|| rng.magnitude() as u32);
    let key = random_key(rng, shape);
    let mut want = Vec::new();
    for step in steps {
        for element in 0..step.elements {
            want.push((step.data_type, element, random_value(rng, step.data_type, text)));
        }
    }
    let mut bytes = Vec::new();
    encode_head(&mut bytes, uid, expire_ms, shape, &key);
    let head = bytes.len();
    want.iter().for_each(|(_, _, v)| encode_value(&mut bytes, *v));
    let end = bytes.len();
    for behind in [0, 5] {
        // Bytes behind the values are ignored: the protocol's way to be extended.
        bytes.truncate(end);
        bytes.extend_from_slice(&rng.bytes(behind));
        let u = Update::decode(form, &bytes, shape).unwrap();
        assert_eq!((u.uid, u.expire_ms, u.key), (uid, expire_ms, &key[..]));
        assert_eq!(u.values, &bytes[head..]);
        assert_eq!(values_of(u.values, steps), Ok(want.clone()));
    }
    // No prefix of the values is mistaken for all of them.
    for n in [end - 1, head + (end - head) / 2, head] {
        if n < end && n >= head {
            assert!(values_of(&bytes[head..n], steps).is_err(), "{n} of {head}..{end}");
        }
    }
}

#[test]
fn every_type_alone_with_every_key() {
    let mut rng = Rng(11);
    for t in DataType::all() {
        for (key_type, key_len) in KEYS {
            let steps = definition_of(key_type as u64, key_len, t.mask(), 3).steps();
            assert_eq!(steps.len(), 1);
            for form in FORMS {
                for _ in 0..20 {
                    round_trip(&mut rng, form, KeyShape::of(key_type, key_len), &steps);
                }
            }
        }
    }
}

#[test]
fn random_sets_of_types() {
    let mut rng = Rng(12);
    for i in 0..3000 {
        let data_types = if i == 0 { DataType::KNOWN_MASK } else { rng.next() & rng.next() };
        let (key_type, key_len) = KEYS[rng.below(KEYS.len())];
        let elements = 1 + rng.below(if i % 50 == 0 { 100 } else { 5 }) as u32;
        let steps = definition_of(key_type as u64, key_len, data_types, elements).steps();
        let form = FORMS[i % 4];
        round_trip(&mut rng, form, KeyShape::of(key_type, key_len), &steps);
    }
}

#[test]
fn minus_one_is_ten_bytes() {
    let mut out = Vec::new();
    encode_i32(&mut out, -1);
    assert_eq!(out, hex("ff f0 fe fe fe fe fe fe fe 0e"));
    for v in [0, 1, 239, 240, i32::MAX, i32::MIN, -1, -2, -240] {
        out.clear();
        encode_i32(&mut out, v);
        assert_eq!(out.len(), if v < 0 { 10 } else { varint::len(v as u64) });
        let steps = [Step { data_type: DataType::SERVER_ID, elements: 1 }];
        let seen = values_of(&out, &steps).unwrap();
        let [(_, 0, Value::Int(got))] = seen[..] else { panic!("{seen:?}") };
        assert_eq!(got as i32, v);
    }
}

#[test]
fn rates_wrap_to_32_bits() {
    let steps = [Step { data_type: DataType::from_name("conn_rate").unwrap(), elements: 1 }];
    let bytes = hex("ff ed 8a c5 7b 0a 14");
    let rate = Value::Rate { age_ms: 4_179_124_175, curr: 10, prev: 20 };
    assert_eq!(values_of(&bytes, &steps).unwrap()[0].2, rate);
    let mut bytes = Vec::new();
    for v in [(1u64 << 32) + 5, 1 << 40, (7 << 32) | 9] {
        varint::encode(&mut bytes, v);
    }
    let rate = Value::Rate { age_ms: 5, curr: 0, prev: 9 };
    assert_eq!(values_of(&bytes, &steps).unwrap()[0].2, rate);
}

#[test]
fn keys_are_made_canonical() {
    let form = FORMS[1];
    let string = |bytes: &[u8], max| {
        Update::decode(form, bytes, KeyShape::String { max })
            .map(|u| (u.key.to_vec(), u.values.to_vec()))
    };
    let ok = |key: &[u8], values: &[u8]| Ok((key.to_vec(), values.to_vec()));
    assert_eq!(string(b"\x03abc\x09", 16), ok(b"abc", b"\x09"));
    assert_eq!(string(b"\x03abc\x09", 3), ok(b"abc", b"\x09"));
    assert_eq!(string(b"\x03abc\x09", 2), ok(b"ab", b"\x09"), "cut, and the rest skipped");
    assert_eq!(string(b"\x03abc\x09", 0), ok(b"", b"\x09"));
    assert_eq!(string(b"\x05ab\0cd\x09", 16), ok(b"ab", b"\x09"), "ends at a NUL");
    assert_eq!(string(b"\x01\0", 16), ok(b"", b""));
    assert_eq!(string(b"\0", 16), ok(b"", b""));
    let truncated = |what, offset| Err(DecodeError::Truncated { what, offset });
    assert_eq!(string(b"\x10abc", 16), truncated(What::Key, 1));
    assert_eq!(string(b"\x10abc", 2), truncated(What::Key, 1), "even when the kept part is there");
    assert_eq!(string(b"", 16), truncated(What::KeyLength, 0));
    assert_eq!(string(b"\xf0", 16), truncated(What::KeyLength, 1));
    let huge = hex("ff f0 fe fe fe fe fe fe fe 0e 61");
    assert_eq!(string(&huge, 16), truncated(What::Key, 10));
    // 19 bytes into a key of 16: as the capture shows.
    let long = b"\x130123456789abcdefXYZ\x09\x09";
    assert_eq!(string(long, 16), ok(b"0123456789abcdef", b"\x09\x09"));
    assert_eq!(cut_string(b"ab\0", 2), b"ab");

    let fixed = |bytes: &[u8], n| {
        Update::decode(form, bytes, KeyShape::Fixed(n)).map(|u| (u.key.to_vec(), u.values.to_vec()))
    };
    assert_eq!(fixed(b"k1\0\0\x07", 4), ok(b"k1\0\0", b"\x07"), "binary keys keep their padding");
    assert_eq!(fixed(b"k1\0", 4), truncated(What::Key, 0));
    assert_eq!(fixed(b"", 0), ok(b"", b""));
}

#[test]
fn truncated_heads() {
    let bytes = hex("00 00 05 00 00 00 03 e8 02 74 31 00 01");
    let shape = KeyShape::String { max: 16 };
    let cases = [
        (0..4, What::UpdateId, 0),
        (4..8, What::Expire, 4),
        (8..9, What::KeyLength, 8),
        (9..11, What::Key, 9),
    ];
    for (lengths, what, offset) in cases {
        for n in lengths {
            let got = Update::decode(FORMS[2], &bytes[..n], shape);
            assert_eq!(got, Err(DecodeError::Truncated { what, offset }), "{n} bytes");
        }
    }
    let u = Update::decode(FORMS[2], &bytes, shape).unwrap();
    let want = Update { uid: Some(0x500), expire_ms: Some(1000), key: b"t1", values: &[0, 1] };
    assert_eq!(u, want);
}

/// Values before an error were visited; the error says which value and where.
#[test]
fn an_error_names_the_value() {
    let steps = definition_of(2, 4, 0b1110, 1).steps();
    let mut seen = 0;
    let got = decode_values(&hex("05 06 f0 e2"), &steps, |_, _, _| seen += 1);
    assert_eq!(got, Err(DecodeError::Truncated { what: What::Value(3), offset: 4 }));
    assert_eq!(seen, 2);
    assert_eq!(got.unwrap_err().to_string(), "message ends inside Value(3) at byte 4");
}

/// A definition may promise four billion elements; the bytes end the loop.
#[test]
fn absurd_arrays_end_with_the_bytes() {
    let mut d = definition_of(2, 4, DataType::GPT.mask(), u32::MAX);
    let steps = d.steps();
    let mut seen = 0u64;
    let bytes = vec![1; 16_384];
    assert!(decode_values(&bytes, &steps, |_, _, _| seen += 1).is_err());
    assert_eq!(seen, 16_384);
    d = definition_of(2, 4, DataType::GPT.mask() | DataType::GPC.mask(), 0);
    assert_eq!(values_of(&[], &d.steps()), Ok(vec![]));
}

#[test]
fn dictionary_values_on_the_wire() {
    let steps = [Step { data_type: DataType::SERVER_KEY, elements: 1 }];
    let one = |text: &str| values_of(&hex(text), &steps).map(|v| format!("{:?}", v[0].2));
    let show = |v: DictValue<'_>| Ok(format!("{:?}", Value::Dict(v)));
    assert_eq!(one("00"), show(DictValue::None));
    assert_eq!(one("01 01"), show(DictValue::Id(1)));
    assert_eq!(one("01 80"), show(DictValue::Id(128)));
    let text = b"srv-two".as_slice();
    assert_eq!(one("09 01 07 73 72 76 2d 74 77 6f"), show(DictValue::Text { id: 1, text }));
    assert_eq!(one("06 80 04 6e 31 32 37"), show(DictValue::Text { id: 128, text: b"n127" }));
    assert_eq!(one("02 05 00"), show(DictValue::Text { id: 5, text: b"" }));
    assert_eq!(
        one("05 05 03 61 00 62"),
        show(DictValue::Text { id: 5, text: b"a" }),
        "NUL ends it"
    );
    for bad in [
        "01 00",                               // id 0
        "01 81",                               // id 129
        "04 81 02 73 31",                      // id 129 with text
        "02 f0 10",                            // a large id
        "02 f0 80",                            // the id crosses L
        "03 01 02 73",                         // the text crosses L
        "02 01 f0",                            // the text's length crosses L
        "05 01 02 73 31 00",                   // L is longer than what it holds
        "0a 01 ff f0 fe fe fe fe fe fe fe 0e", // an absurd text length, itself cut by L
    ] {
        let want = Err(DecodeError::BadDictionary { offset: 0 });
        let bytes = [bad, " 73 31 00 00 00"].concat();
        assert_eq!(one(&bytes), want, "{bad}");
    }
    for short in ["", "01", "04 01 02 73", "f0", "ff f0 fe fe fe fe fe fe fe 0e"] {
        assert!(matches!(one(short), Err(DecodeError::Truncated { what: What::Dictionary, .. })));
    }
}

proptest! {
    #[test]
    fn through_both_caches(names in proptest::collection::vec(0u16..300, 1..600)) {
        let mut tx = TxDictionary::new();
        let mut rx = RxDictionary::default();
        let steps = [Step { data_type: DataType::SERVER_KEY, elements: 1 }];
        for n in names {
            let text: Arc<[u8]> = Arc::from(format!("server-{n}").as_bytes());
            let mut bytes = Vec::new();
            tx.encode(&mut bytes, &text);
            let mut got = None;
            decode_values(&bytes, &steps, |_, _, value| {
                let Value::Dict(d) = value else { panic!() };
                let mut again = Vec::new();
                encode_value(&mut again, value);
                assert_eq!(again, bytes);
                got = rx.resolve(d);
            }).unwrap();
            prop_assert_eq!(got, Some(text));
        }
    }
}
