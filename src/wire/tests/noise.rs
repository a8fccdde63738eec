//! A million random and mutated byte strings through every decoder: none may panic, and what is
//! accepted must be consistent.

use super::{Rng, definition_of, hex};
use crate::limits::BUFSIZE_DEFAULT;
use crate::wire::dictionary::RxDictionary;
use crate::wire::hello::{parse_hello, parse_status};
use crate::wire::update::{decode_values, encode_value};
use crate::wire::varint::Reader;
use crate::wire::{
    Cut, DataType, Definition, KeyShape, KeyType, Message, Step, Update, UpdateForm, Value, What,
    frame,
};

const ROUNDS: usize = 1_000_000;

/// What mutations start from: one of each message, and a hello.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "00 00",
        "00 04",
        "01 01",
        "0a 82 1a 07 05 74 5f 61 72 72 06 09 f0 f1 fe 6e f0 d9 dc 0c 16 03 17 02 18 02 f0 e2 03",
        "0a 82 0e 09 03 77 65 62 06 15 f1 f1 fe 00 f0 bd 39",
        "0a 80 0d 00 00 00 01 02 6b 31 01 04 01 02 73 31",
        "0a 81 06 02 6b 33 01 01 01",
        "0a 85 11 00 00 00 01 00 00 65 51 05 68 65 6c 6c 6f 04 fc 03",
        "0a 86 0c 00 00 66 b0 05 77 6f 72 6c 64 00 01",
        "0a 80 18 00 00 00 01 02 61 62 00 0b 00 03 00 f0 a6 f9 fe 7e 00 00 f6 cc 00 06 00",
        "0a 83 01 4d",
        "0a 84 0e f5 f1 fe fe be fe fe fe fe 0e 00 00 00 08",
        "0a 90 02 01 02",
        "03 c8 03 01 02 03",
    ]
    .map(hex)
    .into();
    seeds.push(b"HAProxyS 2.1\nhap\ntester 1 1\n".to_vec());
    seeds.push(b"200\n".to_vec());
    seeds
}

/// Changes, cuts, doubles or splices a seed.
fn mutate(rng: &mut Rng, seeds: &[Vec<u8>], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&seeds[rng.below(seeds.len())]);
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(out.len().max(1));
        match rng.below(8) {
            0 => out.truncate(at),
            1 => out.extend_from_slice(&seeds[rng.below(seeds.len())]),
            2 => out.insert(at.min(out.len()), rng.next() as u8),
            3 if !out.is_empty() => drop(out.remove(at)),
            4 if !out.is_empty() => out[at] = [0, 1, 0x7f, 0x80, 0xef, 0xf0, 0xff][rng.below(7)],
            _ if !out.is_empty() => out[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
}

/// One table of each shape, so that values are read in every way.
fn tables() -> Vec<(KeyShape, Vec<Step>)> {
    let web = DataType::SERVER_ID.mask() | DataType::SERVER_KEY.mask();
    let arrays = DataType::GPT.mask() | DataType::GPC.mask() | DataType::GPC_RATE.mask();
    [
        (KeyType::String, 17, 0b110),
        (KeyType::String, 21, web),
        (KeyType::String, 9, arrays),
        (KeyType::Ipv4, 4, DataType::KNOWN_MASK),
        (KeyType::Ipv6, 16, 1 << 40 | 4),
        (KeyType::Binary, 8, 0),
    ]
    .map(|(key_type, key_len, data_types)| {
        let steps = definition_of(key_type as u64, key_len, data_types, 3).steps();
        (KeyShape::of(key_type, key_len), steps)
    })
    .into()
}

#[derive(Default)]
struct Seen {
    frames: usize,
    definitions: usize,
    updates: usize,
    values: usize,
    errors: usize,
    hellos: usize,
}

fn through_values(
    u: &Update<'_>,
    steps: &[Step],
    rx: &mut RxDictionary,
    seen: &mut Seen,
    again: &mut Vec<u8>,
) {
    again.clear();
    let mut exact = true;
    let result = decode_values(u.values, steps, |_, _, value| {
        seen.values += 1;
        encode_value(again, value);
        // Rates are cut to 32 bits and names at a NUL; everything else comes back as it was.
        exact &= matches!(value, Value::Int(_));
        if let Value::Dict(d) = value {
            let text = rx.resolve(d);
            assert!(text.is_none_or(|t| !t.contains(&0)));
        }
    });
    match result {
        Ok(()) if exact => assert!(u.values.starts_with(again)),
        Ok(()) => {}
        Err(_) => seen.errors += 1,
    }
}

fn through_message(
    message: Message<'_>,
    tables: &[(KeyShape, Vec<Step>)],
    rx: &mut RxDictionary,
    seen: &mut Seen,
    again: &mut Vec<u8>,
) {
    match message {
        Message::Define(payload) => match Definition::decode(payload) {
            Ok(d) => {
                seen.definitions += 1;
                let (usable, steps) = (d.is_usable(), d.steps());
                assert!(steps.len() <= DataType::COUNT);
                again.clear();
                d.encode(again);
                if usable {
                    assert_eq!(Definition::decode(again).as_ref(), Ok(&d));
                }
            }
            Err(_) => seen.errors += 1,
        },
        Message::Update(form, payload) => {
            for (shape, steps) in tables {
                match Update::decode(form, payload, *shape) {
                    Ok(u) => {
                        seen.updates += 1;
                        through_values(&u, steps, rx, seen, again);
                    }
                    Err(_) => seen.errors += 1,
                }
            }
        }
        _ => {}
    }
}

fn through_everything(
    bytes: &[u8],
    tables: &[(KeyShape, Vec<Step>)],
    rx: &mut RxDictionary,
    seen: &mut Seen,
    again: &mut Vec<u8>,
) {
    let mut at = 0;
    while let Ok(Cut::Frame(f)) = frame::cut(&bytes[at..], BUFSIZE_DEFAULT) {
        assert!(f.len >= 2 && at + f.len <= bytes.len());
        seen.frames += 1;
        match Message::of(&f) {
            Ok(message) => through_message(message, tables, rx, seen, again),
            Err(_) => seen.errors += 1,
        }
        at += f.len;
    }
    // The payload decoders get the bare bytes too, without a frame that fits them.
    for message in [
        Message::Define(bytes),
        Message::Update(UpdateForm { explicit_id: false, timed: false }, bytes),
        Message::Update(UpdateForm { explicit_id: true, timed: true }, bytes),
    ] {
        through_message(message, tables, rx, seen, again);
    }
    if let Ok(Some((_, n))) = parse_hello(bytes, b"hap", 64) {
        assert!(n <= bytes.len());
        seen.hellos += 1;
    }
    if let Ok(Some((_, n))) = parse_status(bytes) {
        assert_eq!(bytes[n - 1], b'\n');
    }
    let mut r = Reader::new(bytes);
    while r.varint(What::Name).is_ok() {}
    assert!(r.pos() <= bytes.len());
}

#[test]
fn nothing_panics() {
    let mut rng = Rng(0x5eed);
    let (seeds, tables) = (seeds(), tables());
    let (mut seen, mut rx) = (Seen::default(), RxDictionary::default());
    let (mut bytes, mut again) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 4 == 0 {
            let n = rng.below(48);
            bytes.clear();
            bytes.extend((0..n).map(|_| rng.next() as u8));
            // Half of the noise looks like a table message.
            if n > 2 && round % 8 == 0 {
                bytes[0] = 10;
                bytes[1] = 0x80 + bytes[1] % 8;
                bytes[2] = (n - 3) as u8;
            }
        } else {
            mutate(&mut rng, &seeds, &mut bytes);
        }
        through_everything(&bytes, &tables, &mut rx, &mut seen, &mut again);
    }
    // Noise that never gets past the first check would test nothing.
    assert!(seen.frames > ROUNDS / 2, "{} frames", seen.frames);
    assert!(seen.definitions > 50_000, "{} definitions", seen.definitions);
    assert!(seen.updates > ROUNDS && seen.values > ROUNDS, "{} {}", seen.updates, seen.values);
    assert!(seen.errors > ROUNDS, "{} errors", seen.errors);
    assert!(seen.hellos > 1_000, "{} hellos", seen.hellos);
}
