//! Full tables, tables cut over shards, large tables.

use super::*;

/// One of `nshards` parts of a table.
fn part_on(spec: &TableSpec, shard: u32, nshards: u32) -> TablePart {
    let place = Place::new(0, spec.size, nshards);
    TablePart::new(Arc::new(spec.clone()), hasher(), place, shard).unwrap()
}

fn sized(size: u64) -> TableSpec {
    TableSpec { size, ..spec(KeyType::Integer, 4, "gpc0,http_req_rate(10000)") }
}

fn learn_int(part: &mut TablePart, now: Millis, i: u32, left: Option<u32>) -> Applied {
    let rate = Value::Rate { age_ms: 10, curr: 1, prev: 2 };
    learn(part, now, &i.to_be_bytes(), left, &[Value::Int(i.into()), rate])
}

#[test]
fn the_soonest_to_expire_goes_first_even_after_refreshes() {
    let mut part = part_of(sized(1_000));
    for i in 0..1_000 {
        learn_int(&mut part, Millis(0), i, Some(10_000 + i * 7919 % 1000));
    }
    // Refresh all but multiples of 10: their old deadlines are what the tree knows.
    for i in (0..1_000).filter(|i| i % 10 != 0) {
        learn_int(&mut part, Millis(1), i, Some(60_000 + i));
    }
    let mut order: Vec<u32> = (0..1_000).step_by(10).collect();
    order.sort_by_key(|i| i * 7919 % 1000);
    for (n, gone) in order.iter().enumerate() {
        learn_int(&mut part, Millis(2), 5_000 + n as u32, None);
        assert_eq!(gpc0(&part, Millis(2), &gone.to_be_bytes()), None, "eviction {n}");
        assert_eq!(part.used(Millis(2)), 1_000);
    }
    learn_int(&mut part, Millis(3), 9_999, None);
    assert_eq!(gpc0(&part, Millis(3), &1u32.to_be_bytes()), None);
    assert_eq!(part.counters().evictions, 101);
}

#[test]
fn without_expire_the_least_recently_touched_goes() {
    let mut part = part_of(TableSpec { expire_ms: 0, ..sized(3) });
    for (second, i) in [(0, 1), (2, 2), (4, 3), (6, 1), (8, 4), (10, 5)] {
        learn_int(&mut part, Millis(second * 1024), i, None);
    }
    let left: Vec<Vec<u8>> = [1u32, 4, 5].iter().map(|i| i.to_be_bytes().to_vec()).collect();
    assert_eq!(keys(&part, Millis(20_000)), left);
}

#[test]
fn nopurge_refuses_until_something_expires() {
    let mut part = part_of(TableSpec { nopurge: true, ..sized(2) });
    assert_eq!(learn_int(&mut part, Millis(0), 1, Some(100)).applied, 1);
    assert_eq!(learn_int(&mut part, Millis(0), 2, Some(200)).applied, 1);
    let refused = Applied { applied: 0, refused: 1 };
    assert_eq!(learn_int(&mut part, Millis(50), 3, None), refused);
    assert_eq!(learn_int(&mut part, Millis(50), 2, Some(200)).applied, 1, "updates still work");
    let key = 3u32.to_be_bytes();
    let full = Err(SetError::Refused(Refused::Full));
    assert_eq!(set_gpc0(&mut part, Millis(99), &key, 1), full);
    assert_eq!(set_gpc0(&mut part, Millis(100), &key, 1), Ok(()));
    assert_eq!(part.counters().refused_full, 2);
    assert_eq!(part.counters().evictions, 0);
}

#[test]
fn parts_keep_the_table_within_its_size() {
    let spec = sized(70_000);
    let mut parts: Vec<TablePart> = (0..2).map(|s| part_on(&spec, s, 2)).collect();
    let place = parts[0].place();
    let mut most = 0;
    for tick in 0..40u32 {
        let now = Millis(u64::from(tick));
        let used: Vec<u64> = parts.iter().map(TablePart::used_estimate).collect();
        parts[0].set_others_used(used[1]);
        parts[1].set_others_used(used[0]);
        for i in 0..3_000 {
            let n = tick * 3_000 + i;
            let owner = place.owner(hasher().hash(&n.to_be_bytes()));
            learn_int(&mut parts[owner as usize], now, n, None);
        }
        let used: Vec<u64> = parts.iter().map(TablePart::used_estimate).collect();
        most = most.max(used[0] + used[1]);
        parts[0].set_others_used(used[1]);
        parts[1].set_others_used(used[0]);
        parts.iter_mut().for_each(|p| {
            p.trim(now, 10_000);
        });
        let total: u64 = parts.iter().map(TablePart::used_estimate).sum();
        assert!(total <= 70_000, "{total} after the tick");
    }
    assert!((70_000..=73_000).contains(&most), "{most}");
    let total: u64 = parts.iter().map(TablePart::used_estimate).sum();
    assert!(total > 69_000, "{total}: no more than necessary was evicted");
}

/// The others are to trim then: rows of ours would only push each other out.
#[test]
fn below_its_fair_share_a_part_of_a_full_table_evicts_nothing() {
    let spec = sized(70_000);
    let mut part = part_on(&spec, 0, 2);
    part.set_others_used(70_000);
    let mut keys = 0..;
    while part.used_estimate() < 35_000 {
        learn_int(&mut part, Millis(0), keys.next().unwrap(), None);
    }
    assert_eq!((part.counters().evictions, part.trim(Millis(0), 100)), (0, 0));
    for key in keys.take(10) {
        learn_int(&mut part, Millis(0), key, None);
    }
    assert_eq!((part.used(Millis(0)), part.counters().evictions), (35_000, 10));
}

#[test]
fn a_million_rows_grow_without_loss() {
    let n = if cfg!(miri) { 1_000 } else { 1_000_000u32 };
    let mut part = part_of(sized(2_000_000));
    let layout = RemoteLayout::new(&definition_of(part.spec(), 1), part.spec()).unwrap();
    let rate = Value::Rate { age_ms: 10, curr: 1, prev: 2 };
    let sent = values(&[Value::Int(5), rate]);
    let key = |i: u32| i.wrapping_mul(0x9e37_79b9).to_be_bytes();
    let hasher = hasher();
    for first in (0..n).step_by(500) {
        let keys: Vec<[u8; 4]> = (first..first + 500).map(key).collect();
        let hash = |i: usize| hasher.hash(&keys[i]);
        let done = part.apply(Millis(7), &layout, keys.len(), hash, |i| RemoteUpdate {
            key: &keys[i],
            values: &sent,
            ..RemoteUpdate::default()
        });
        assert_eq!(done.applied, 500);
    }
    assert_eq!(part.used(Millis(7)), u64::from(n));
    for i in (0..n).step_by(97) {
        assert_eq!(gpc0(&part, Millis(7), &key(i)), Some(5));
    }
    let each = part.bytes() as f64 / f64::from(n);
    assert!(cfg!(miri) || each < 48.0, "{each} bytes a row");
    let mut seen = 0;
    let end = part.scan(Millis(7), ScanCursor::default(), usize::MAX, |_| {
        seen += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((seen, end), (n, None));
    assert_eq!(part.clear(), u64::from(n));
    assert_eq!((part.used(Millis(7)), part.bytes()), (0, 0));
    learn_int(&mut part, Millis(7), 1, None);
    assert_eq!(part.used(Millis(7)), 1);
}

#[test]
fn impossible_tables_are_errors() {
    let make = |spec: TableSpec| {
        let place = Place::new(0, spec.size, 1);
        TablePart::new(Arc::new(spec), hasher(), place, 0).map(|_| ())
    };
    assert_eq!(make(sized(0)), Ok(()), "a size of 0 holds one row at a time at most");
    let long = TableSpec { key_type: KeyType::String, key_len: 1 << 20, ..sized(10) };
    assert!(matches!(make(long), Err(TableError::Schema(_))));
    // 2^31 rows of 3 KiB: more address space than there may be, but never a panic.
    let wide = spec(KeyType::Integer, 4, "gpt(100),gpc(100),gpc_rate(100,1000)");
    let _ = make(TableSpec { size: u64::MAX, ..wide });
}

#[test]
fn ids_tell_their_shard_and_outlive_nothing() {
    let spec = sized(70_000);
    let mut part = part_on(&spec, 1, 2);
    set_gpc0(&mut part, Millis(0), &[1; 4], 3).unwrap();
    let id = part.get(Millis(0), &[1; 4], hasher().hash(&[1; 4])).unwrap().id();
    assert_eq!(part::shard_of_id(id), 1);
    assert!(part.get_by_id(Millis(0), id).is_some());
    assert!(part.get_by_id(Millis(0), id + 1).is_none());
    assert!(part.get_by_id(Millis(0), id ^ 1 << 44).is_none(), "another table's");
    part.remove(Millis(0), &[1; 4], hasher().hash(&[1; 4]));
    assert!(part.get_by_id(Millis(0), id).is_none());
}
