//! When entries end (protocol.md 7.4), to the millisecond.

use super::*;

#[test]
fn an_entry_ends_exactly_at_its_deadline() {
    for origin in [0, (1u64 << 32) - 1_000, 1 << 40] {
        let now = Millis(origin);
        let mut part = part_of(spec(KeyType::Ipv4, 4, "gpc0"));
        learn(&mut part, now, &[1; 4], Some(2_000), &[Value::Int(7)]);
        assert_eq!(gpc0(&part, now.plus(1_999), &[1; 4]), Some(7));
        assert_eq!(gpc0(&part, now.plus(2_000), &[1; 4]), None);
        assert_eq!(keys(&part, now.plus(1_999)).len(), 1);
        assert_eq!(keys(&part, now.plus(2_000)).len(), 0);
        assert_eq!(part.next_deadline(), Some(now.plus(2_000)));
        assert_eq!(part.expire(now.plus(1_999), 1000), 0);
        assert_eq!(part.used_estimate(), 1);
        assert_eq!(part.used(now.plus(2_000)), 0);
        assert_eq!(part.counters().expirations, 1);
        assert_eq!(part.next_deadline(), None);
    }
}

#[test]
fn an_expired_entry_comes_back_empty() {
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpc0,gpc1"));
    let sent = [Value::Int(7), Value::Int(8)];
    learn(&mut part, Millis(0), &[1; 4], Some(10), &sent);
    set_gpc0(&mut part, Millis(10), &[1; 4], 1).unwrap();
    let entry = part.get(Millis(10), &[1; 4], hasher().hash(&[1; 4])).unwrap();
    assert_eq!(entry.cell(DataType::GPC1, 0), Some(Cell::U32(0)));
    assert_eq!((part.counters().expirations, part.counters().inserts), (1, 2));
}

#[test]
fn updates_lengthen_and_shorten() {
    let (now, key) = (Millis(1_000), [1; 4]);
    let mut part = part_of(spec(KeyType::Ipv4, 4, "gpc0"));
    let left = |part: &TablePart, now| {
        part.get(now, &key, hasher().hash(&key)).map(|e| e.expires_in_ms(now))
    };
    for (sent, expected) in [
        (None, Some(3_600_000)),
        (Some(5_000), Some(5_000)),
        (Some(10_000), Some(10_000)),
        (Some(0x7fff_ffff), Some(3_600_000)),
        (Some(1), Some(1)),
        (Some(0), None),
        (Some(5_000), Some(5_000)),
        (Some(0x8000_0000), None),
        (Some(0xffff_ffff), None),
    ] {
        let done = learn(&mut part, now, &key, sent, &[Value::Int(1)]);
        assert_eq!(done.applied, 1);
        assert_eq!(left(&part, now), expected, "{sent:?}");
    }
    assert_eq!(part.counters().expirations, 2, "an update that ends an entry counts as its end");
}

#[test]
fn tables_without_expire_keep_everything() {
    let mut table = spec(KeyType::Ipv4, 4, "gpc0");
    table.expire_ms = 0;
    let mut part = part_of(table);
    for (i, sent) in [(1, None), (2, Some(0)), (3, Some(1)), (4, Some(u32::MAX))] {
        learn(&mut part, Millis(50), &[i; 4], sent, &[Value::Int(1)]);
    }
    let year = Millis(365 * 86_400_000);
    assert_eq!((part.expire(year, 1000), part.used(year), part.next_deadline()), (0, 4, None));
    let entry = part.get(year, &[1; 4], hasher().hash(&[1; 4])).unwrap();
    assert_eq!(entry.expires_in_ms(year), 0);
}

#[test]
fn the_longest_expire_is_24_days() {
    let mut table = spec(KeyType::Ipv4, 4, "gpc0");
    table.expire_ms = crate::limits::EXPIRE_MAX_MS;
    let mut part = part_of(table);
    let now = Millis((1 << 32) - 5);
    learn(&mut part, now, &[1; 4], Some(5), &[Value::Int(1)]);
    learn(&mut part, now, &[2; 4], None, &[Value::Int(2)]);
    let end = now.plus(u64::from(crate::limits::EXPIRE_MAX_MS));
    assert_eq!(part.used(now.plus(5)), 1);
    assert_eq!(gpc0(&part, Millis(end.0 - 1), &[2; 4]), Some(2));
    assert_eq!((gpc0(&part, end, &[2; 4]), part.used(end)), (None, 0));
}

#[test]
fn sweeping_is_bounded_and_gets_everything() {
    let mut table = spec(KeyType::Integer, 4, "gpc0");
    table.size = 100_000;
    let mut part = part_of(table);
    for i in 0..20_000u32 {
        let left = 1_000 + i.wrapping_mul(7919) % 10_000;
        learn(&mut part, Millis(0), &i.to_be_bytes(), Some(left), &[Value::Int(1)]);
    }
    for now in (0..=11_000).step_by(500).map(Millis) {
        let mut calls = 0;
        while part.next_deadline().is_some_and(|d| d <= now) {
            assert!(part.expire(now, 640) <= 640 + 64);
            calls += 1;
            assert!(calls < 100, "no progress");
        }
        let live =
            (0..20_000u32).filter(|i| u64::from(1_000 + i.wrapping_mul(7919) % 10_000) > now.0);
        assert_eq!(part.used_estimate(), live.count() as u64);
    }
    assert_eq!(part.counters().expirations, 20_000);
}
