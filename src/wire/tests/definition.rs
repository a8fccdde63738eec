use super::{definition_of, hex};
use crate::wire::message::encode_define;
use crate::wire::{
    Cut, DataType, DecodeError, Definition, KeyShape, KeyType, Kind, Parameter, Tail, Update,
    UpdateForm, What, frame, update,
};
use proptest::prelude::*;

fn payload(text: &str) -> Vec<u8> {
    let bytes = hex(text);
    match frame::cut(&bytes, 16_384) {
        Ok(Cut::Frame(f)) if f.len == bytes.len() && f.kind == 0x82 => f.payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn encoded(definition: &Definition) -> Vec<u8> {
    let mut out = Vec::new();
    definition.encode(&mut out);
    out
}

fn truncated(what: What, offset: usize) -> Result<Definition, DecodeError> {
    Err(DecodeError::Truncated { what, offset })
}

/// protocol.md 4.4, in full: bit, name, encoding, array, period.
#[test]
fn the_data_type_table() {
    use Kind::*;
    let want = [
        ("server_id", I32),
        ("gpt0", U32),
        ("gpc0", U32),
        ("gpc0_rate", Rate),
        ("conn_cnt", U32),
        ("conn_rate", Rate),
        ("conn_cur", U32),
        ("sess_cnt", U32),
        ("sess_rate", Rate),
        ("http_req_cnt", U32),
        ("http_req_rate", Rate),
        ("http_err_cnt", U32),
        ("http_err_rate", Rate),
        ("bytes_in_cnt", U64),
        ("bytes_in_rate", Rate),
        ("bytes_out_cnt", U64),
        ("bytes_out_rate", Rate),
        ("gpc1", U32),
        ("gpc1_rate", Rate),
        ("server_key", Dict),
        ("http_fail_cnt", U32),
        ("http_fail_rate", Rate),
        ("gpt", U32),
        ("gpc", U32),
        ("gpc_rate", Rate),
        ("glitch_cnt", U32),
        ("glitch_rate", Rate),
    ];
    assert_eq!(want.len(), DataType::COUNT);
    for (bit, (name, kind)) in want.into_iter().enumerate() {
        let t = DataType::from_bit(bit as u32).unwrap();
        assert_eq!((t.bit() as usize, t.name(), t.kind()), (bit, name, kind));
        assert_eq!(t.mask(), 1 << bit);
        assert_eq!(t.is_array(), (22..=24).contains(&bit));
        assert_eq!(t.is_rate(), name.ends_with("_rate"));
        assert_eq!(t.has_parameters(), t.is_array() || t.is_rate());
        assert_eq!(DataType::from_name(name), Some(t));
    }
    assert_eq!(DataType::from_bit(27), None);
    assert_eq!(DataType::from_name("server_name"), Some(DataType::SERVER_KEY));
    assert_eq!(DataType::from_name("gpc2"), None);
    assert_eq!(DataType::KNOWN_MASK, 0x7ff_ffff);
    let named = [
        (DataType::SERVER_ID, "server_id"),
        (DataType::GPT0, "gpt0"),
        (DataType::GPC0, "gpc0"),
        (DataType::CONN_CUR, "conn_cur"),
        (DataType::GPC1, "gpc1"),
        (DataType::SERVER_KEY, "server_key"),
        (DataType::GPT, "gpt"),
        (DataType::GPC, "gpc"),
        (DataType::GPC_RATE, "gpc_rate"),
    ];
    assert!(named.iter().all(|(t, name)| t.name() == *name));
}

#[test]
fn key_types() {
    use KeyType::*;
    for (n, t, name) in [
        (2, Integer, "integer"),
        (4, Ipv4, "ip"),
        (5, Ipv6, "ipv6"),
        (6, String, "string"),
        (7, Binary, "binary"),
    ] {
        assert_eq!(KeyType::from_wire(n), Some(t));
        assert_eq!((t as u64, t.name()), (n, name));
    }
    assert!([0, 1, 3, 8, 9, 255, 1 << 32].iter().all(|&n| KeyType::from_wire(n).is_none()));
    assert_eq!(KeyShape::of(String, 17), KeyShape::String { max: 16 });
    assert_eq!(KeyShape::of(String, 0), KeyShape::String { max: 0 });
    assert_eq!(KeyShape::of(Binary, 8), KeyShape::Fixed(8));
    assert_eq!(KeyShape::of(Ipv6, 16), KeyShape::Fixed(16));
}

/// The definitions of protocol.md 9.2.
#[test]
fn annotated_examples() {
    let cases = [
        ("0a 82 0d 03 05 74 5f 69 70 36 05 10 04 f0 97 1c", 3, "t_ip6", 5, 16, 4, 60_000),
        ("0a 82 0d 04 05 74 5f 73 74 72 06 11 06 f0 c4 0d", 4, "t_str", 6, 17, 6, 30_000),
        (
            "0a 82 0f 05 05 74 5f 69 6e 74 02 04 04 f0 f1 92 e5 3c",
            5,
            "t_int",
            2,
            4,
            4,
            2_073_600_000,
        ),
        ("0a 82 0b 06 05 74 5f 62 69 6e 07 08 04 00", 6, "t_bin", 7, 8, 4, 0),
        (
            "0a 82 11 08 08 74 5f 6e 6f 64 61 74 61 04 04 00 f0 d9 dc 0c",
            8,
            "t_nodata",
            4,
            4,
            0,
            3_600_000,
        ),
        ("0a 82 0e 01 05 2f 74 5f 70 70 04 04 04 f0 d9 dc 0c", 1, "/t_pp", 4, 4, 4, 3_600_000),
        ("0a 82 0e 09 03 77 65 62 06 15 f1 f1 fe 00 f0 bd 39", 9, "web", 6, 21, 0x80001, 120_000),
        (
            "0a 82 10 0b 08 74 5f 73 74 72 64 65 66 06 20 04 f0 97 1c",
            11,
            "t_strdef",
            6,
            32,
            4,
            60_000,
        ),
    ];
    for (text, id, name, key_type, key_len, data_types, expire_ms) in cases {
        let want = Definition {
            id,
            name: name.into(),
            key_type,
            key_len,
            data_types,
            tail: Tail::Present { expire_ms, parameters: vec![] },
        };
        assert_eq!(Definition::decode(&payload(text)), Ok(want.clone()), "{name}");
        let mut out = Vec::new();
        encode_define(&mut out, &want);
        assert_eq!(out, hex(text), "{name}");
        assert!(want.is_usable());
    }
}

#[test]
fn parameters() {
    let text = "0a 82 39 02 04 74 5f 69 70 04 04 ff f0 fe 8c 02 f0 ed a3 01 03 f0 e2 03 \
                05 f8 ac 00 08 f0 eb 00 0a f8 a9 01 0c f0 e8 01 0e f8 a6 02 10 f0 e5 02 \
                12 f8 a3 03 15 f8 a0 04 1a f0 df 04";
    let d = Definition::decode(&payload(text)).unwrap();
    assert_eq!((d.id, &d.name[..], d.data_types), (2, &b"t_ip"[..], 0x637_ffff));
    let Tail::Present { expire_ms, parameters } = &d.tail else { panic!() };
    assert_eq!(*expire_ms, 600_000);
    let periods: Vec<_> =
        parameters.iter().map(|p| (p.data_type.bit(), p.elements, p.period_ms / 1000)).collect();
    let want =
        [3, 5, 8, 10, 12, 14, 16, 18, 21, 26].into_iter().zip([10, 3, 4, 5, 6, 7, 8, 9, 11, 12]);
    assert_eq!(periods, want.map(|(bit, s)| (bit, 1, s)).collect::<Vec<_>>());
    assert_eq!(encoded(&d), payload(text));
    assert_eq!(d.steps().len(), 0x637_ffffu32.count_ones() as usize);

    let text =
        "0a 82 1a 07 05 74 5f 61 72 72 06 09 f0 f1 fe 6e f0 d9 dc 0c 16 03 17 02 18 02 f0 e2 03";
    let d = Definition::decode(&payload(text)).unwrap();
    let steps: Vec<_> = d.steps().iter().map(|s| (s.data_type.name(), s.elements)).collect();
    assert_eq!(steps, [("gpt", 3), ("gpc", 2), ("gpc_rate", 2)]);
    let gpc_rate = Parameter { data_type: DataType::GPC_RATE, elements: 2, period_ms: 10_000 };
    assert_eq!(d.parameter(DataType::GPC_RATE), Some(gpc_rate));
    assert_eq!(d.parameter(DataType::GPT0), None);
    assert_eq!(encoded(&d), payload(text));
}

/// Every prefix of a definition: a protocol error up to the bitfield, then no tail, then a bad one.
#[test]
fn truncated_at_every_byte() {
    let text =
        "0a 82 1a 07 05 74 5f 61 72 72 06 09 f0 f1 fe 6e f0 d9 dc 0c 16 03 17 02 18 02 f0 e2 03";
    let bytes = payload(text);
    let field_at = |n: usize| match n {
        0 => (What::TableId, 0),
        1 => (What::NameLength, 1),
        2..7 => (What::Name, 2),
        7 => (What::KeyType, 7),
        8 => (What::KeyLen, 8),
        9..13 => (What::DataTypes, n),
        _ => unreachable!(),
    };
    for n in 0..bytes.len() {
        let got = Definition::decode(&bytes[..n]);
        match n {
            0..13 => {
                let (what, offset) = field_at(n);
                assert_eq!(got, truncated(what, offset), "{n} bytes");
            }
            13 => {
                let d = got.unwrap();
                assert_eq!(d.tail, Tail::Absent);
                assert!(!d.is_usable(), "an array needs its number of elements");
            }
            _ => {
                let d = got.unwrap();
                assert_eq!(d.tail, Tail::Bad, "{n} bytes");
                assert!(!d.is_usable());
                assert_eq!((d.id, &d.name[..]), (7, &b"t_arr"[..]), "the rest is known");
            }
        }
    }
    assert!(Definition::decode(&bytes).unwrap().is_usable());
}

/// What the capture `definition_tail_variants` tried: which definitions HAProxy took.
#[test]
fn tail_variants() {
    let with = |data_types: u64, tail: &str| {
        let mut d = definition_of(4, 4, data_types, 1);
        d.tail = Tail::Absent;
        let bytes = [encoded(&d), hex(tail)].concat();
        Definition::decode(&bytes).unwrap()
    };
    let (rate, array) = (1 << 3, 1 << 22);
    assert_eq!(with(rate, "f0 ed a3 01").tail, Tail::Bad, "expire but no parameters");
    assert_eq!(with(rate, "f0 ed a3 01 05 f0 e2 03").tail, Tail::Bad, "wrong type prefix");
    assert_eq!(with(rate, "f0 ed").tail, Tail::Bad, "expire cut short");
    assert!(with(rate, "f0 ed a3 01 03 01").is_usable(), "other period");
    assert!(with(rate, "").is_usable(), "rates need no tail");
    assert!(!with(array, "").is_usable(), "arrays do");
    assert_eq!(with(array, "00 16 05").steps()[0].elements, 5);
    assert_eq!(with(array, "00 16 02").steps()[0].elements, 2);
    assert!(with(rate | 1 << 40, "00 03 05 28 99 99").is_usable(), "unknown ones lie behind");
    assert!(with(0, "00 de ad be ef").is_usable(), "bytes behind the tail are ignored");
}

#[test]
fn ids() {
    for (text, id) in [("00", 0), ("4d", 77), ("ff f0 fe fe 3e", i32::MAX)] {
        let bytes = [hex(text), hex("01 74 04 04 04")].concat();
        let d = Definition::decode(&bytes).unwrap();
        assert_eq!(d.id, id);
        assert_eq!(encoded(&d), bytes);
    }
    // 2^31+5, sign-extended or not, is the same table; we write it as HAProxy acks it.
    let negative = 0x8000_0005u32 as i32;
    let plain = [hex("f5 f1 fe fe 3e"), hex("01 74 04 04 04")].concat();
    let extended = [hex("f5 f1 fe fe be fe fe fe fe 0e"), hex("01 74 04 04 04")].concat();
    assert_eq!(Definition::decode(&plain).unwrap().id, negative);
    assert_eq!(Definition::decode(&extended).unwrap().id, negative);
    assert_eq!(encoded(&Definition::decode(&plain).unwrap()), extended);
}

#[test]
fn names_need_a_byte_and_something_behind() {
    assert_eq!(Definition::decode(&hex("03 00 04 04 04")), Err(DecodeError::EmptyName));
    assert_eq!(Definition::decode(&hex("03 00")), Err(DecodeError::EmptyName));
    assert_eq!(Definition::decode(&hex("03 28 61 62 63")), truncated(What::Name, 2));
    assert_eq!(Definition::decode(&hex("03 03 61 62 63")), truncated(What::KeyType, 5));
    let huge = hex("03 ff f0 fe fe fe fe fe fe fe 0e 61");
    assert_eq!(Definition::decode(&huge), truncated(What::Name, 11));
    let overflow = hex("ff ff ff ff ff ff ff ff ff 7f 01 61 04 04 04");
    let want = DecodeError::Overflow { what: What::TableId, offset: 0 };
    assert_eq!(Definition::decode(&overflow), Err(want));
}

/// An unknown bit hides every value behind it, and only those.
#[test]
fn steps_stop_at_the_first_unknown_bit() {
    for bit in DataType::COUNT..64 {
        let d = definition_of(2, 4, 0b111 | 1 << 26 | 1 << bit, 1);
        let bits: Vec<_> = d.steps().iter().map(|s| s.data_type.bit()).collect();
        assert_eq!(bits, [0, 1, 2, 26], "unknown bit {bit}");
    }
    let d = definition_of(2, 4, u64::MAX, 3);
    assert_eq!(d.steps().len(), DataType::COUNT);
    assert_eq!(Definition::decode(&encoded(&d)), Ok(d));
}

/// Observed: with bit 40 in the bitfield and junk behind the known values the update was taken.
#[test]
fn values_behind_an_unknown_bit_are_dropped() {
    let text = "0a 82 13 4d 05 74 5f 73 74 72 06 11 f2 f1 fe fe fe fe 00 f0 c4 0d";
    let d = Definition::decode(&payload(text)).unwrap();
    let steps = d.steps();
    let bytes = hex("00 00 0a 02 03 68 69 62 2b ff e1 03 de ad");
    let form = UpdateForm { explicit_id: true, timed: false };
    let shape = KeyShape::of(KeyType::String, d.key_len);
    let u = Update::decode(form, &bytes, shape).unwrap();
    let mut seen = Vec::new();
    update::decode_values(u.values, &steps, |step, element, value| {
        seen.push((steps[step].data_type.name(), element, value));
    })
    .unwrap();
    assert_eq!((u.uid, u.key), (Some(0xa02), &b"hib"[..]));
    assert_eq!(seen, [("gpt0", 0, crate::wire::Value::Int(43))]);
}

prop_compose! {
    fn any_definition()(
        id in 1..=i32::MAX,
        name in proptest::collection::vec(1u8.., 1..300),
        key_type in prop_oneof![4 => 2u64..8, 1 => any::<u64>()],
        key_len: u32,
        data_types in prop_oneof![1u64..1 << 27, any::<u64>(), Just(0)],
        expire_ms: u32,
        numbers in proptest::collection::vec((0u32.., 0u32..), 27),
        absent in proptest::bool::weighted(0.1),
    ) -> Definition {
        let parameters = DataType::of_bits(data_types)
            .filter(|t| t.has_parameters())
            .zip(numbers)
            .map(|(data_type, (elements, period_ms))| Parameter {
                data_type,
                elements: if data_type.is_array() { elements } else { 1 },
                period_ms: if data_type.is_rate() { period_ms } else { 0 },
            })
            .collect();
        let tail = if absent { Tail::Absent } else { Tail::Present { expire_ms, parameters } };
        Definition { id, name, key_type, key_len, data_types, tail }
    }
}

proptest! {
    #[test]
    fn round_trip(d in any_definition(), behind: Vec<u8>) {
        let mut bytes = encoded(&d);
        prop_assert_eq!(Definition::decode(&bytes), Ok(d.clone()));
        if d.tail != Tail::Absent {
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(Definition::decode(&bytes), Ok(d));
        }
    }
}
