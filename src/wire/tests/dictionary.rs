use super::hex;
use crate::limits::{DICTIONARY_SLOTS, SERVER_KEY_MAX};
use crate::wire::DictValue;
use crate::wire::dictionary::{RxDictionary, TxDictionary};
use std::sync::Arc;

fn text(s: &str) -> Arc<[u8]> {
    Arc::from(s.as_bytes())
}

fn sent(tx: &mut TxDictionary, s: &str) -> Vec<u8> {
    let mut out = Vec::new();
    tx.encode(&mut out, &text(s));
    out
}

/// The id of a wire value, and whether the text came with it. Ids up to 128 are one byte.
fn id_of(bytes: &[u8]) -> (u8, bool) {
    (bytes[1], bytes.len() > 2)
}

/// As in the capture `dictionary_shards_misc`: 140 servers in a row.
#[test]
fn slots_are_given_round_robin() {
    let mut tx = TxDictionary::default();
    for i in 0..140u32 {
        let bytes = sent(&mut tx, &format!("n{i}"));
        assert_eq!(id_of(&bytes), ((i % 128 + 1) as u8, true));
        let want = match i {
            0 => "04 01 02 6e 30",
            1 => "04 02 02 6e 31",
            126 => "06 7f 04 6e 31 32 36",
            127 => "06 80 04 6e 31 32 37",
            128 => "06 01 04 6e 31 32 38",
            129 => "06 02 04 6e 31 32 39",
            139 => "06 0c 04 6e 31 33 39",
            _ => continue,
        };
        assert_eq!(bytes, hex(want));
    }
    assert_eq!(id_of(&sent(&mut tx, "n128")), (1, false), "the newer text of slot 1");
    assert_eq!(id_of(&sent(&mut tx, "n12")), (13, false), "slot 13 still has its first text");
    assert_eq!(id_of(&sent(&mut tx, "n0")), (13, true), "n0 was overwritten, and is next in turn");
    assert_eq!(id_of(&sent(&mut tx, "n12")), (14, true));
    assert_eq!(tx.slots().count(), 128);
    assert_eq!(tx.slots().next(), Some((1, b"n128".as_slice())));
    assert_eq!(tx.slots().last(), Some((128, b"n127".as_slice())));
}

#[test]
fn a_hit_does_not_move_a_slot() {
    let mut tx = TxDictionary::with_ids(1..3);
    assert_eq!(sent(&mut tx, "a"), hex("03 01 01 61"));
    assert_eq!(sent(&mut tx, "b"), hex("03 02 01 62"));
    assert_eq!(sent(&mut tx, "a"), hex("01 01"));
    assert_eq!(
        id_of(&sent(&mut tx, "c")),
        (1, true),
        "a was used last, and goes first all the same"
    );
    assert_eq!(id_of(&sent(&mut tx, "b")), (2, false));
    assert_eq!(id_of(&sent(&mut tx, "a")), (2, true));
    assert_eq!(id_of(&sent(&mut tx, "c")), (1, false));
}

#[test]
fn ranges_of_ids_stay_apart() {
    let mut parts: Vec<_> =
        [1..33, 33..65, 65..97, 97..129].into_iter().map(TxDictionary::with_ids).collect();
    for round in 0..5 {
        for (p, tx) in parts.iter_mut().enumerate() {
            for i in 0..32 {
                let bytes = sent(tx, &format!("{round}-{p}-{i}"));
                assert_eq!(id_of(&bytes), ((p * 32 + i + 1) as u8, true));
            }
        }
    }
    assert_eq!(parts[3].slots().last().unwrap().0, 128);
    let mut one = TxDictionary::with_ids(128..129);
    assert_eq!(id_of(&sent(&mut one, "a")), (128, true));
    assert_eq!(id_of(&sent(&mut one, "a")), (128, false));
    assert_eq!(id_of(&sent(&mut one, "b")), (128, true));
    assert_eq!(id_of(&sent(&mut one, "a")), (128, true));
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "such ranges must be refused")]
fn impossible_ranges_are_refused() {
    for ids in [0..5, 5..5, 6..5, 1..130, 0..0, 129..130] {
        let made = std::panic::catch_unwind(|| TxDictionary::with_ids(ids.clone()));
        assert!(made.is_err(), "{ids:?}");
    }
}

/// HAProxy before 3.5-dev4 overflows its buffer re-teaching a long name.
#[test]
fn long_texts_go_out_as_no_value() {
    let mut tx = TxDictionary::new();
    let longest = "x".repeat(SERVER_KEY_MAX);
    assert_eq!(id_of(&sent(&mut tx, "a")), (1, true));
    assert_eq!(sent(&mut tx, &"x".repeat(SERVER_KEY_MAX + 1)), [0]);
    let bytes = sent(&mut tx, &longest);
    // L = id (1) + length (2) + 255, in two bytes itself: no slot was lost to the longer one.
    assert_eq!(bytes[..5], hex("f2 01 02 ff 00"));
    assert_eq!(bytes.len(), 5 + SERVER_KEY_MAX);
}

#[test]
fn receiving() {
    let mut rx = RxDictionary::default();
    assert_eq!(rx.slots().count(), DICTIONARY_SLOTS);
    assert_eq!(rx.resolve(DictValue::None), None);
    assert_eq!(rx.resolve(DictValue::Id(7)), None, "nobody filled it: the row keeps its value");
    let get = |rx: &mut RxDictionary, id| rx.resolve(DictValue::Id(id)).map(|t| t.to_vec());
    let first = rx.resolve(DictValue::Text { id: 7, text: b"s1" }).unwrap();
    assert_eq!(get(&mut rx, 7), Some(b"s1".to_vec()));
    let again = rx.resolve(DictValue::Text { id: 7, text: b"s1" }).unwrap();
    assert!(Arc::ptr_eq(&first, &again), "the same text is not copied again");
    rx.resolve(DictValue::Text { id: 7, text: b"s2" });
    assert_eq!(get(&mut rx, 7), Some(b"s2".to_vec()), "replaced");
    assert_eq!(first[..], b"s1"[..], "who holds the old text keeps it");
    rx.resolve(DictValue::Text { id: 1, text: b"first" });
    rx.resolve(DictValue::Text { id: 128, text: b"last" });
    let filled: Vec<_> =
        rx.slots().enumerate().filter_map(|(i, s)| s.map(|s| (i + 1, s.to_vec()))).collect();
    assert_eq!(filled, [(1, b"first".to_vec()), (7, b"s2".to_vec()), (128, b"last".to_vec())]);
}
