//! Random sequences of everything, against a map and a sorted list.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What an entry is, naively.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    deadline: u64,
    gpc0: u32,
    changed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Learn with this much left, or untimed.
    Learn(u16, Option<u32>, u32),
    Set(u16, u32),
    Remove(u16),
    Advance(u64),
    Expire(usize),
    ClearOdd,
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let left = prop_oneof![Just(None), (1u32..12_000).prop_map(Some), Just(Some(0))];
    prop_oneof![
        10 => (0u16..120, left, any::<u32>()).prop_map(|(k, l, n)| Op::Learn(k, l, n)),
        6 => (0u16..120, any::<u32>()).prop_map(|(k, n)| Op::Set(k, n)),
        2 => (0u16..120).prop_map(Op::Remove),
        4 => (0u64..4_000).prop_map(Op::Advance),
        2 => (0usize..300).prop_map(Op::Expire),
        1 => Just(Op::ClearOdd),
        1 => prop_oneof![9 => Just(Op::Expire(1000)), 1 => Just(Op::Clear)],
    ]
}

const EXPIRE: u32 = 10_000;

struct Model {
    rows: BTreeMap<Vec<u8>, Row>,
    size: usize,
    nopurge: bool,
}

impl Model {
    fn live(&self, now: u64) -> Vec<Vec<u8>> {
        self.rows.iter().filter(|(_, r)| r.deadline > now).map(|(k, _)| k.clone()).collect()
    }

    /// Makes room for one more; false when there is none to be had. `kept` says which keys the real
    /// table kept: among rows that expire at the same moment any may go.
    fn make_room(&mut self, now: u64, kept: &[Vec<u8>]) -> bool {
        self.rows.retain(|_, r| r.deadline > now);
        if self.rows.len() < self.size {
            return true;
        }
        if self.nopurge {
            return false;
        }
        let soonest = self.rows.values().map(|r| r.deadline).min().expect("a full table");
        let gone = self.rows.iter().find(|(k, r)| r.deadline == soonest && !kept.contains(k));
        let gone = gone.map(|(k, _)| k.clone()).expect("one of the soonest to expire was evicted");
        self.rows.remove(&gone);
        true
    }

    /// The row an update writes to, or `None` when the table refuses it.
    fn upsert(&mut self, now: u64, key: &[u8], kept: &[Vec<u8>]) -> Option<&mut Row> {
        let live = self.rows.get(key).is_some_and(|r| r.deadline > now);
        if !live {
            self.rows.remove(key);
            if !self.make_room(now, kept) {
                return None;
            }
            let fresh = Row { deadline: 0, gpc0: 0, changed: false };
            self.rows.insert(key.to_vec(), fresh);
        }
        self.rows.get_mut(key)
    }
}

fn check(part: &TablePart, model: &Model, now: Millis) -> Result<(), TestCaseError> {
    prop_assert_eq!(keys(part, now), model.live(now.0));
    for (key, row) in &model.rows {
        let entry = part.get(now, key, hasher().hash(key));
        if row.deadline <= now.0 {
            prop_assert!(entry.is_none());
            continue;
        }
        let entry = entry.expect("a live entry is found");
        prop_assert_eq!(u64::from(entry.expires_in_ms(now)), row.deadline - now.0);
        prop_assert_eq!(entry.cell(DataType::GPC0, 0), Some(Cell::U32(row.gpc0)));
        prop_assert_eq!(part.get_by_id(now, entry.id()).map(|e| e.key()), Some(&key[..]));
    }
    Ok(())
}

fn run(table: TableSpec, origin: u64, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let (size, nopurge) = (table.size as usize, table.nopurge);
    let text = table.key_type == KeyType::String;
    let mut part = part_of(table);
    let mut model = Model { rows: BTreeMap::new(), size, nopurge };
    let mut now = Millis(origin);
    // Strings of very different lengths, so that inline and long keys mix.
    let key = |k: u16| match text {
        true => format!("{k}:{}", "x".repeat(usize::from(k) % 9 * 11)).into_bytes(),
        false => u32::from(k).to_be_bytes().to_vec(),
    };
    for op in ops {
        match op {
            Op::Learn(k, left, n) => {
                let done = learn(&mut part, now, &key(k), left, &[Value::Int(n.into())]);
                if left == Some(0) {
                    model.rows.remove(&key(k));
                } else {
                    let kept = keys(&part, now);
                    let row = model.upsert(now.0, &key(k), &kept);
                    prop_assert_eq!(done.applied == 1, row.is_some());
                    if let Some(row) = row {
                        row.deadline = now.0 + u64::from(left.unwrap_or(EXPIRE).min(EXPIRE));
                        row.gpc0 = n;
                    }
                }
            }
            Op::Set(k, n) => {
                let done = set_gpc0(&mut part, now, &key(k), n.into());
                let kept = keys(&part, now);
                let row = model.upsert(now.0, &key(k), &kept);
                prop_assert_eq!(done.is_ok(), row.is_some());
                if let Some(row) = row {
                    *row = Row { deadline: now.0 + u64::from(EXPIRE), gpc0: n, changed: true };
                }
            }
            Op::Remove(k) => {
                let there = model.rows.remove(&key(k)).is_some_and(|r| r.deadline > now.0);
                prop_assert_eq!(part.remove(now, &key(k), hasher().hash(&key(k))), there);
            }
            Op::Advance(ms) => now = now.plus(ms),
            Op::Expire(budget) => {
                part.expire(now, budget);
            }
            Op::ClearOdd => {
                let mut cursor = Some(ScanCursor::default());
                while let Some(from) = cursor {
                    let odd = |e: &Entry<'_>| e.key().last().is_some_and(|b| b % 2 == 1);
                    cursor = part.clear_where(now, from, 5, odd).1;
                }
                model.rows.retain(|k, r| r.deadline <= now.0 || k.last().unwrap() % 2 == 0);
            }
            Op::Clear => {
                part.clear();
                model.rows.clear();
            }
        }
        check(&part, &model, now)?;
    }
    prop_assert_eq!(part.used(now), model.live(now.0).len() as u64);
    let (mut pending, _) = changed(&mut part, now, 1).expect("nothing was trimmed");
    pending.sort();
    let live = model.rows.iter().filter(|(_, r)| r.deadline > now.0 && r.changed);
    prop_assert_eq!(pending, live.map(|(k, _)| k.clone()).collect::<Vec<_>>());
    if let Some(next) = part.next_deadline() {
        prop_assert!(next > now);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]
    #[test]
    fn parts_behave_as_the_model(
        size in prop_oneof![Just(10u64), Just(70), Just(1000), Just(100_000)],
        nopurge: bool,
        text: bool,
        origin in prop_oneof![Just(0u64), Just((1u64 << 32) - 20_000), Just(1u64 << 31)],
        ops in proptest::collection::vec(op(), 1..160),
    ) {
        let (key_type, key_len) =
            if text { (KeyType::String, 120) } else { (KeyType::Integer, 4) };
        let mut table = spec(key_type, key_len, "gpc0");
        (table.size, table.nopurge, table.expire_ms) = (size, nopurge, EXPIRE);
        run(table, origin, ops)?;
    }
}
