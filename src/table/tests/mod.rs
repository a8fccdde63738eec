//! Tests of table parts as a whole, through their public verbs.

mod lifetimes;
mod limits;
mod merge;
mod model;

use super::testing::spec;
use super::*;
use crate::Millis;
use crate::wire::{DataType, DictValue, KeyType, Value, update};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A table part that owns all of its table.
pub fn part_of(spec: TableSpec) -> TablePart {
    let place = Place::new(0, spec.size, 1);
    TablePart::new(Arc::new(spec), hasher(), place, 0).expect("a legal table")
}

/// The hash of all tests.
pub fn hasher() -> KeyHasher {
    KeyHasher::new([1, 2, 3, 4])
}

/// Values as a peer sends them.
pub fn values(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|&v| update::encode_value(&mut out, v));
    out
}

/// Applies one update of a peer whose table is like ours.
pub fn learn(
    part: &mut TablePart,
    now: Millis,
    key: &[u8],
    expire_ms: Option<u32>,
    sent: &[Value<'_>],
) -> Applied {
    let spec = part.spec().clone();
    let layout = RemoteLayout::new(&definition_of(&spec, 1), &spec).expect("the same table");
    learn_by(part, now, key, expire_ms, sent, &layout)
}

/// Applies one update behind another definition.
pub fn learn_by(
    part: &mut TablePart,
    now: Millis,
    key: &[u8],
    expire_ms: Option<u32>,
    sent: &[Value<'_>],
    layout: &RemoteLayout,
) -> Applied {
    let bytes = values(sent);
    let text: Option<Arc<[u8]>> = sent.iter().find_map(|v| match v {
        Value::Dict(DictValue::Text { text, .. }) => Some((*text).into()),
        _ => None,
    });
    let hash = hasher().hash(key);
    part.apply(
        now,
        layout,
        1,
        |_| hash,
        |_| RemoteUpdate { key, expire_ms, values: &bytes, server_key: text.as_ref() },
    )
}

/// `set table key ... data.gpc0 n`.
pub fn set_gpc0(part: &mut TablePart, now: Millis, key: &[u8], n: i64) -> Result<(), SetError> {
    let set = LocalSet { data_type: DataType::GPC0, index: 0, value: n };
    part.set_local(now, key, hasher().hash(key), &[set])
}

/// The `gpc0` of a live entry.
pub fn gpc0(part: &TablePart, now: Millis, key: &[u8]) -> Option<u32> {
    let entry = part.get(now, key, hasher().hash(key))?;
    match entry.cell(DataType::GPC0, 0) {
        Some(Cell::U32(n)) => Some(n),
        other => panic!("gpc0 is {other:?}"),
    }
}

/// Keys of all live entries, a few rows at a time.
pub fn keys(part: &TablePart, now: Millis) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut cursor = Some(ScanCursor::default());
    while let Some(from) = cursor {
        cursor = part.scan(now, from, 7, |e| {
            all.push(e.key().to_vec());
            ControlFlow::Continue(())
        });
    }
    all.sort();
    all
}

/// Changed keys from a cursor on, and the next cursor.
pub fn changed(
    part: &mut TablePart,
    now: Millis,
    from: u64,
) -> Result<(Vec<Vec<u8>>, u64), Trimmed> {
    let mut all = Vec::new();
    let next = part.changes(now, from, usize::MAX, |_, e| {
        all.push(e.key().to_vec());
        ControlFlow::Continue(())
    })?;
    Ok((all, next))
}
