//! A node's tables as plain maps, with change logs by source as shards keep them.

use crate::model::Got;
use crate::solo::define;
use bytes::Bytes;
use std::collections::BTreeMap;
use stickring::session::ChangeBatch;
use stickring::wire::frame;
use stickring::wire::varint;

/// Shards of a node.
pub const SOURCES: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    value: u64,
    uid: u32,
    /// Source and position of its last local change; learned rows have none.
    at: Option<(usize, u64)>,
}

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<Vec<u8>, Row>,
    logs: [Vec<Vec<u8>>; SOURCES],
    uid: u32,
}

/// See the module's head.
#[derive(Debug)]
pub struct Store {
    tables: Vec<Table>,
}

impl Store {
    /// Ids start anywhere, often just before they wrap.
    pub fn new(tables: usize, seed: u64) -> Store {
        let start = if seed.is_multiple_of(2) { u32::MAX - 10 } else { 0 };
        let table = |_| Table { uid: start, ..Table::default() };
        Store { tables: (0..tables).map(table).collect() }
    }

    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// A local change.
    pub fn set(&mut self, table: usize, key: &str, value: u64) {
        let t = &mut self.tables[table];
        t.uid = t.uid.wrapping_add(1);
        let source = key.bytes().map(usize::from).sum::<usize>() % SOURCES;
        let at = Some((source, t.logs[source].len() as u64));
        t.logs[source].push(key.into());
        t.rows.insert(key.into(), Row { value, uid: t.uid, at });
    }

    /// A peer's update: the last one wins. A local change not pushed yet stays in its log.
    pub fn learned(&mut self, got: Got) {
        let t = &mut self.tables[got.table];
        let value = got.ints[0];
        match t.rows.get_mut(&got.key) {
            Some(row) => row.value = value,
            None => {
                t.uid = t.uid.wrapping_add(1);
                let uid = t.uid.wrapping_add(1 << 31);
                t.rows.insert(got.key, Row { value, uid, at: None });
            }
        }
    }

    /// Changes of a source from a position on.
    pub fn batch(
        &self,
        table: usize,
        source: usize,
        epoch: u32,
        from: u64,
        max: usize,
    ) -> Option<ChangeBatch> {
        let t = &self.tables[table];
        let log = &t.logs[source];
        let start = usize::try_from(from).ok().filter(|&n| n < log.len())?;
        let end = (start + max).min(log.len());
        let mut bytes = Vec::new();
        let mut uids = Vec::new();
        for (n, key) in log[start..end].iter().enumerate() {
            let row = &t.rows[key];
            if row.at == Some((source, (start + n) as u64)) {
                encode(&mut bytes, 0x80, row, key);
                uids.push(row.uid);
            }
        }
        Some(ChangeBatch {
            table,
            source,
            epoch,
            define: self.define(table),
            bytes: bytes.into(),
            updates: uids.len() as u32,
            first_uid: uids.first().copied().unwrap_or(0),
            last_uid: uids.last().copied().unwrap_or(0),
            end: end as u64,
        })
    }

    fn define(&self, table: usize) -> Bytes {
        define(table as i64 + 1, format!("t{table}").as_bytes(), 6, 17, 4).into()
    }

    /// One row of a lesson, with its DEFINE.
    pub fn chunk(&self, table: usize, key: &[u8], timed: bool) -> Bytes {
        let mut bytes = self.define(table).to_vec();
        let row = &self.tables[table].rows[key];
        encode(&mut bytes, if timed { 0x85 } else { 0x80 }, row, key);
        bytes.into()
    }

    /// Where the logs end now.
    pub fn tails(&self) -> Vec<(usize, usize, u64)> {
        let tails = |(t, table): (usize, &Table)| {
            let ends: Vec<u64> = table.logs.iter().map(|l| l.len() as u64).collect();
            (0..SOURCES).map(move |s| (t, s, ends[s])).collect::<Vec<_>>()
        };
        self.tables.iter().enumerate().flat_map(tails).collect()
    }

    /// All rows there are.
    pub fn keys(&self) -> Vec<(usize, Vec<u8>)> {
        let tables = self.tables.iter().enumerate();
        tables.flat_map(|(t, table)| table.rows.keys().map(move |k| (t, k.clone()))).collect()
    }

    /// Table, key and value of all rows.
    pub fn contents(&self) -> BTreeMap<(usize, Vec<u8>), u64> {
        let tables = self.tables.iter().enumerate();
        tables
            .flat_map(|(t, table)| table.rows.iter().map(move |(k, r)| ((t, k.clone()), r.value)))
            .collect()
    }

    pub fn get(&self, table: usize, key: &str) -> Option<u64> {
        self.tables[table].rows.get(key.as_bytes()).map(|r| r.value)
    }
}

/// An update with an explicit id and one value.
fn encode(out: &mut Vec<u8>, kind: u8, row: &Row, key: &[u8]) {
    frame::build(out, 10, kind, |out| {
        out.extend_from_slice(&row.uid.to_be_bytes());
        if kind == 0x85 {
            out.extend_from_slice(&20_000u32.to_be_bytes());
        }
        varint::encode(out, key.len() as u64);
        out.extend_from_slice(key);
        varint::encode(out, row.value);
    });
}
