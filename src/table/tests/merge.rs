//! What a received update does to an entry, type by type (protocol.md 7.2, 7.3), and what is sent.

use super::*;
use crate::wire::dictionary::{RxDictionary, TxDictionary};
use crate::wire::{Cut, Definition, Kind, Message, Tail, Update, frame};
use proptest::prelude::*;

const ALL: &str = "server_id,gpt0,gpc0,gpc0_rate(10000),conn_cnt,conn_rate(3000),conn_cur,sess_cnt,\
    sess_rate(4000),http_req_cnt,http_req_rate(5000),http_err_cnt,http_err_rate(6000),bytes_in_cnt,\
    bytes_in_rate(7000),bytes_out_cnt,bytes_out_rate(8000),gpc1,gpc1_rate(9000),server_key,\
    http_fail_cnt,http_fail_rate(11000),gpt(3),gpc(2),gpc_rate(2,10000),glitch_cnt,\
    glitch_rate(12000)";

fn all() -> TableSpec {
    spec(KeyType::Ipv4, 4, ALL)
}

/// A value for element `i` of a type, different each time `round` is, and what it becomes in a row.
fn sample(t: DataType, i: u32, round: u64, now: Millis) -> (Value<'static>, Cell<'static>) {
    let n = u64::from(t.bit()) * 1000 + u64::from(i) * 100 + round;
    match t.kind() {
        Kind::I32 => (Value::Int(-(n as i64) as u64), Cell::I32(-(n as i32))),
        Kind::U32 => (Value::Int(n + (7 << 32)), Cell::U32(n as u32)),
        Kind::U64 => (Value::Int(n << 40), Cell::U64(n << 40)),
        Kind::Rate => {
            let (age_ms, curr, prev) = (n as u32 * 2, n as u32 + 1, n as u32 + 2);
            let rate = Rate { start: now.tick() - age_ms, curr, prev };
            (Value::Rate { age_ms, curr, prev }, Cell::Rate(rate))
        }
        Kind::Dict => (Value::Dict(DictValue::Text { id: 1, text: b"srv-1" }), Cell::Dict(None)),
    }
}

fn update_of(spec: &TableSpec, round: u64, now: Millis) -> Vec<Value<'static>> {
    let columns = spec.columns.iter();
    columns.flat_map(|c| (0..c.elements).map(|i| sample(c.data_type, i, round, now).0)).collect()
}

#[test]
fn all_27_types_overwrite() {
    let now = Millis(1_000_000);
    for recv_only in [false, true] {
        let table = TableSpec { recv_only, ..all() };
        let mut part = part_of(table.clone());
        for round in 0..3 {
            let sent = update_of(&table, round, now);
            let done = learn(&mut part, now, &[10, 0, 0, 1], None, &sent);
            assert_eq!(done, Applied { applied: 1, refused: 0 });
            let entry = part.get(now, &[10, 0, 0, 1], hasher().hash(&[10, 0, 0, 1])).unwrap();
            let mut seen = 0;
            for (t, i, period_ms, cell) in entry.cells() {
                seen += 1;
                let expected = sample(t, i, round, now).1;
                match cell {
                    Cell::Dict(text) => assert_eq!(text.map(|t| &t[..]), Some(&b"srv-1"[..])),
                    Cell::U32(n) if t == DataType::CONN_CUR && !recv_only => assert_eq!(n, 0),
                    _ => assert_eq!(cell, expected, "{} {i}", t.name()),
                }
                assert_eq!(period_ms != 0, t.is_rate());
                assert_eq!(entry.cell(t, i), Some(cell));
            }
            assert_eq!(seen, 27 + 2 + 1 + 1);
            assert_eq!(entry.cell(DataType::GPT, 3), None);
            assert_eq!(entry.cell(DataType::GPC0, 1), None);
        }
        assert_eq!(part.counters().updates_remote, 3);
        assert_eq!(part.counters().inserts, 1);
    }
}

#[test]
fn types_the_peer_does_not_have_stay() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpt0,gpc0,conn_cnt"));
    learn(&mut part, now, &[1; 4], None, &[Value::Int(1), Value::Int(2), Value::Int(3)]);
    let theirs = spec(KeyType::Ipv4, 4, "gpc0,gpc1");
    let layout = RemoteLayout::new(&definition_of(&theirs, 9), part.spec()).unwrap();
    let sent = [Value::Int(20), Value::Int(99)];
    learn_by(&mut part, now, &[1; 4], None, &sent, &layout);
    let entry = part.get(now, &[1; 4], hasher().hash(&[1; 4])).unwrap();
    let cells: Vec<Cell<'_>> = entry.cells().map(|c| c.3).collect();
    assert_eq!(cells, [Cell::U32(1), Cell::U32(20), Cell::U32(3)]);
}

#[test]
fn unknown_types_end_an_update() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpc0,glitch_cnt"));
    let theirs = Definition {
        data_types: 1 << 2 | 1 << 40,
        ..definition_of(&spec(KeyType::Ipv4, 4, "gpc0"), 9)
    };
    let layout = RemoteLayout::new(&theirs, part.spec()).unwrap();
    let sent = [Value::Int(20), Value::Int(99), Value::Int(77)];
    let done = learn_by(&mut part, now, &[1; 4], None, &sent, &layout);
    assert_eq!((done.applied, gpc0(&part, now, &[1; 4])), (1, Some(20)));
}

#[test]
fn longer_arrays_are_cut_and_shorter_ones_leave_the_rest() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpt(3)"));
    for (elements, sent, expected) in
        [(5, &[1, 2, 3, 4, 5][..], [1, 2, 3]), (2, &[8, 9], [8, 9, 3]), (3, &[4, 5, 6], [4, 5, 6])]
    {
        let theirs = spec(KeyType::Ipv4, 4, &format!("gpt({elements})"));
        let layout = RemoteLayout::new(&definition_of(&theirs, 1), part.spec()).unwrap();
        let sent: Vec<Value<'_>> = sent.iter().map(|&n| Value::Int(n)).collect();
        learn_by(&mut part, now, &[1; 4], None, &sent, &layout);
        let entry = part.get(now, &[1; 4], hasher().hash(&[1; 4])).unwrap();
        assert_eq!(entry.cells().map(|c| c.3).collect::<Vec<_>>(), expected.map(Cell::U32));
    }
}

#[test]
fn a_server_key_stays_until_another_comes() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "server_key"));
    let text = |part: &TablePart| {
        let entry = part.get(now, &[1; 4], hasher().hash(&[1; 4])).unwrap();
        match entry.cell(DataType::SERVER_KEY, 0) {
            Some(Cell::Dict(text)) => text.map(|t| t.to_vec()),
            other => panic!("{other:?}"),
        }
    };
    let none = [Value::Dict(DictValue::None)];
    let named = |text| [Value::Dict(DictValue::Text { id: 3, text })];
    learn(&mut part, now, &[1; 4], None, &none);
    assert_eq!(text(&part), None);
    learn(&mut part, now, &[1; 4], None, &named(b"s1"));
    learn(&mut part, now, &[1; 4], None, &none);
    // An id nobody filled resolves to no text.
    learn(&mut part, now, &[1; 4], None, &[Value::Dict(DictValue::Id(9))]);
    assert_eq!(text(&part), Some(b"s1".to_vec()));
    learn(&mut part, now, &[1; 4], None, &named(b"s2"));
    learn(&mut part, now, &[1; 4], None, &named(&[b'x'; 256]));
    assert_eq!(text(&part), Some(b"s2".to_vec()), "a name of 256 bytes is not kept");
    assert_eq!(part.counters().texts_refused, 1);
    assert_eq!(part.texts(), 1);
    learn(&mut part, now, &[2; 4], Some(10), &named(b"s3"));
    learn(&mut part, now, &[3; 4], None, &named(b"s3"));
    part.remove(now, &[3; 4], hasher().hash(&[3; 4]));
    assert_eq!(part.texts(), 2);
    part.expire(now.plus(10), 100);
    assert_eq!(part.texts(), 1, "texts go with their last row");
    part.clear();
    assert_eq!(part.texts(), 0);
}

#[test]
fn write_to_makes_entries_in_the_other_table() {
    let now = Millis(5_000);
    let source = spec(KeyType::Ipv4, 4, "gpt0,gpc0");
    let mut target = part_of(spec(KeyType::Ipv4, 4, "gpt0,gpc0,conn_cnt"));
    let def = definition_of(&source, 1);
    let layout = RemoteLayout::write_to(&def, &source, target.spec()).unwrap();
    set_gpc0(&mut target, now, &[1; 4], 5).unwrap();
    let sent = [Value::Int(7), Value::Int(8)];
    learn_by(&mut target, now, &[1; 4], None, &sent, &layout);
    learn_by(&mut target, now, &[2; 4], None, &sent, &layout);
    for (key, counter) in [([1; 4], 5), ([2; 4], 0)] {
        let entry = target.get(now, &key, hasher().hash(&key)).unwrap();
        let cells: Vec<Cell<'_>> = entry.cells().map(|c| c.3).collect();
        assert_eq!(cells, [Cell::U32(7), Cell::U32(counter), Cell::U32(0)]);
    }
}

#[test]
fn local_sets_go_left_to_right_and_stay_when_one_fails() {
    let now = Millis(777_777);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "server_id,gpc0,gpc0_rate(10000),bytes_in_cnt"));
    let key = [1; 4];
    let hash = hasher().hash(&key);
    let set = |name: &str, index, value| LocalSet {
        data_type: DataType::from_name(name).unwrap(),
        index,
        value,
    };
    let sets = [
        set("gpc0", 0, 99_999_999_999),
        set("server_id", 0, -5),
        set("gpc0_rate", 0, 7),
        set("bytes_in_cnt", 0, -1),
        set("gpc0", 1, 1),
        set("gpc0", 0, 2),
    ];
    assert_eq!(part.set_local(now, &key, hash, &sets), Err(SetError::IndexOutOfRange));
    let entry = part.get(now, &key, hash).unwrap();
    let rate = Cell::Rate(Rate { start: 777_776, curr: 7, prev: 0 });
    let cells: Vec<Cell<'_>> = entry.cells().map(|c| c.3).collect();
    let expected = [Cell::I32(-5), Cell::U32(1_215_752_191), rate, Cell::U64(u64::MAX)];
    assert_eq!(cells, expected);
    assert_eq!(entry.cell(DataType::from_bit(3).unwrap(), 0).unwrap().number(now, 10_000), 7);
    assert_eq!(part.set_local(now, &key, hash, &[set("gpc1", 0, 1)]), Err(SetError::NotStored));
    assert_eq!(changed(&mut part, now, 1).unwrap().0, [key.to_vec()]);
    assert_eq!(part.counters().updates_local, 2);
    let refused = part.set_local(now, &[1; 5], 3, &[]);
    assert_eq!(refused, Err(SetError::Refused(Refused::BadKey)));
}

#[test]
fn learned_changes_are_not_pushed_until_touched_here() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpc0"));
    learn(&mut part, now, &[1; 4], None, &[Value::Int(7)]);
    assert_eq!(changed(&mut part, now, 1), Ok((vec![], 1)));
    set_gpc0(&mut part, now, &[1; 4], 8).unwrap();
    assert_eq!(changed(&mut part, now, 1), Ok((vec![vec![1; 4]], 2)));
    learn(&mut part, now, &[1; 4], None, &[Value::Int(9)]);
    assert_eq!(changed(&mut part, now, 2), Ok((vec![], 2)));
    assert_eq!(changed(&mut part, now, 1), Ok((vec![vec![1; 4]], 2)), "read again with 9");
    set_gpc0(&mut part, now, &[1; 4], 10).unwrap();
    part.remove(now, &[1; 4], hasher().hash(&[1; 4]));
    assert_eq!(changed(&mut part, now, 2), Ok((vec![], 3)), "nothing tells of deletions");
}

#[test]
fn a_change_that_does_not_fit_is_offered_again() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpc0"));
    (1..=5).for_each(|i| set_gpc0(&mut part, now, &[i; 4], 1).unwrap());
    let mut seen = Vec::new();
    let mut take = |part: &mut TablePart, from, room: usize| {
        let mut left = room;
        part.changes(now, from, 100, |position, e| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            seen.push((position, e.key()[0]));
            ControlFlow::Continue(())
        })
    };
    assert_eq!(take(&mut part, 1, 2), Ok(3));
    assert_eq!(take(&mut part, 3, 100), Ok(6));
    assert_eq!(seen, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
}

/// Sends a whole table as one node and learns it as another: everything but `conn_cur` arrives.
#[test]
fn what_is_sent_is_what_arrives() {
    let now = Millis(1_000_000);
    for (key_type, key_len) in [(KeyType::Ipv4, 4), (KeyType::String, 200), (KeyType::Binary, 40)] {
        let table = TableSpec { key_type, key_len, recv_only: true, ..all() };
        let (mut from, mut to) = (part_of(table.clone()), part_of(table.clone()));
        let key = |i: u8| match key_type {
            KeyType::String => vec![b'a' + i % 26; usize::from(i) * 2 % 199],
            _ => vec![i; key_len as usize],
        };
        for i in 0..100u8 {
            let sent = update_of(&table, u64::from(i), now);
            learn(&mut from, now, &key(i), Some(1000 + u32::from(i)), &sent);
        }
        let (mut tx, mut rx) = (TxDictionary::new(), RxDictionary::default());
        let mut stream = Vec::new();
        from.scan(now, ScanCursor::default(), 1000, |e| {
            encode_update(&e, 7, Timing::Timed, now, &mut tx, &mut stream).unwrap();
            ControlFlow::Continue(())
        });
        let def = definition_of(&table, 1);
        let layout = RemoteLayout::new(&def, &table).unwrap();
        let mut rest = &stream[..];
        while let Cut::Frame(f) = frame::cut(rest, 16_384).unwrap() {
            rest = &rest[f.len..];
            let Message::Update(form, payload) = Message::of(&f).unwrap() else { panic!("{f:?}") };
            let u = Update::decode(form, payload, layout.key_shape()).unwrap();
            assert_eq!(u.uid, Some(7));
            let mut text = None;
            update::decode_values(u.values, layout.steps(), |_, _, v| {
                if let Value::Dict(d) = v {
                    text = rx.resolve(d);
                }
            })
            .unwrap();
            let (key, hash) = (u.key, hasher().hash(u.key));
            let (expire_ms, values, server_key) = (u.expire_ms, u.values, text.as_ref());
            let update = RemoteUpdate { key, expire_ms, values, server_key };
            assert_eq!(to.apply(now, &layout, 1, |_| hash, |_| update).applied, 1);
        }
        assert!(rest.is_empty());
        assert_eq!(keys(&from, now), keys(&to, now));
        for key in keys(&from, now) {
            let (a, b) = (from.get(now, &key, hasher().hash(&key)).unwrap(), {
                to.get(now, &key, hasher().hash(&key)).unwrap()
            });
            assert_eq!(a.expires_in_ms(now), b.expires_in_ms(now));
            assert!(a.cells().eq(b.cells()), "{key:?}");
        }
    }
}

#[test]
fn bytes_of_a_real_update() {
    // protocol.md 9.3: t_str uid 1, key "hello", gpt0 4, gpc0 300.
    let now = Millis(9_000);
    let mut part = part_of(spec(KeyType::String, 17, "gpt0,gpc0"));
    learn(&mut part, now, b"hello", None, &[Value::Int(4), Value::Int(300)]);
    let entry = part.get(now, b"hello", hasher().hash(b"hello")).unwrap();
    let (mut tx, mut out) = (TxDictionary::new(), Vec::new());
    encode_update(&entry, 1, Timing::Untimed, now, &mut tx, &mut out).unwrap();
    assert_eq!(out, b"\x0a\x80\x0d\0\0\0\x01\x05hello\x04\xfc\x03");
    // 9.4: the same with 25 937 ms left.
    out.clear();
    let later = now.plus(3_600_000 - 25_937);
    encode_update(&entry, 1, Timing::Timed, later, &mut tx, &mut out).unwrap();
    assert_eq!(out, b"\x0a\x85\x11\0\0\0\x01\0\0\x65\x51\x05hello\x04\xfc\x03");
}

#[test]
fn the_whole_batch_is_applied_in_order() {
    let now = Millis(5_000);
    let mut part = part_of(spec(KeyType::Integer, 4, "gpc0"));
    let def = Definition { tail: Tail::Absent, ..definition_of(part.spec(), 1) };
    let layout = RemoteLayout::new(&def, part.spec()).unwrap();
    // 300 updates of 100 keys: the last of each counts.
    let keys: Vec<[u8; 4]> = (0..300u32).map(|i| (i % 100).to_be_bytes()).collect();
    let sent: Vec<Vec<u8>> = (0..300).map(|i| values(&[Value::Int(i)])).collect();
    let hash = |i: usize| hasher().hash(&keys[i]);
    let done = part.apply(now, &layout, 300, hash, |i| RemoteUpdate {
        key: &keys[i],
        values: &sent[i],
        ..RemoteUpdate::default()
    });
    assert_eq!((done.applied, part.used(now)), (300, 100));
    for i in 0..100u32 {
        assert_eq!(gpc0(&part, now, &i.to_be_bytes()), Some(200 + i));
    }
    assert_eq!(
        part.apply(now, &layout, 0, |_| unreachable!(), |_| unreachable!()),
        Applied::default()
    );
}

proptest! {
    /// Updates of numbers alone are decoded by a shorter way: it stores what the general one does,
    /// whatever the bytes.
    #[test]
    fn the_short_way_stores_what_the_general_one_does(
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..200], 0..80),
        elements in 1u32..6,
        recv_only: bool,
    ) {
        let now = Millis(1_000_000);
        let mut table = spec(KeyType::Ipv4, 4, &ALL.replace("server_key,", ""));
        table.recv_only = recv_only;
        let mut definition = definition_of(&table, 1);
        if let Tail::Present { parameters, .. } = &mut definition.tail {
            let arrays = parameters.iter_mut().filter(|p| p.data_type.is_array());
            arrays.for_each(|p| p.elements = elements);
        }
        let short = RemoteLayout::new(&definition, &table).unwrap();
        prop_assert!(short.plain.is_some());
        let mut general = short.clone();
        general.plain = None;
        let mut parts = [part_of(table.clone()), part_of(table)];
        let (key, hash) = ([10, 0, 0, 1], hasher().hash(&[10, 0, 0, 1]));
        for (part, layout) in parts.iter_mut().zip([&short, &general]) {
            let update = RemoteUpdate { key: &key, values: &noise, ..RemoteUpdate::default() };
            part.apply(now, layout, 1, |_| hash, |_| update);
        }
        let [a, b] = &parts;
        let cells = |part: &TablePart| -> Vec<String> {
            let entry = part.get(now, &key, hash).unwrap();
            entry.cells().map(|cell| format!("{cell:?}")).collect()
        };
        prop_assert_eq!(cells(a), cells(b));
    }
}
