//! Tables small enough to be obviously right: what a session needs of them, and nothing else.

use std::sync::Arc;
use stickring::session::{Layout, Received, Refusal, Sink, Tables};
use stickring::wire::definition::{Definition, Step};
use stickring::wire::update::decode_values;
use stickring::wire::{KeyShape, KeyType, Value};

/// A table as a peer defined it.
#[derive(Debug)]
pub struct ModelLayout {
    pub table: usize,
    pub shape: KeyShape,
    pub steps: Vec<Step>,
}

impl Layout for ModelLayout {
    fn table(&self) -> usize {
        self.table
    }
    fn key_shape(&self) -> KeyShape {
        self.shape
    }
    fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Our tables: name, key type, key length. The index is the table's number.
#[derive(Clone, Debug)]
pub struct ModelTables {
    pub known: Vec<(Vec<u8>, KeyType, u32)>,
    /// How often a definition was looked at.
    pub asked: usize,
}

impl ModelTables {
    /// The tables of the captures, at the index of their id there minus one.
    pub fn captured() -> ModelTables {
        let t = |name: &str, key, len| (name.as_bytes().to_vec(), key, len);
        ModelTables {
            known: vec![
                t("/t_pp", KeyType::Ipv4, 4),
                t("t_ip", KeyType::Ipv4, 4),
                t("t_ip6", KeyType::Ipv6, 16),
                t("t_str", KeyType::String, 17),
                t("t_int", KeyType::Integer, 4),
                t("t_bin", KeyType::Binary, 8),
                t("t_arr", KeyType::String, 9),
                t("t_nodata", KeyType::Ipv4, 4),
                t("web", KeyType::String, 21),
                t("t_noexp", KeyType::Ipv4, 4),
                t("t_strdef", KeyType::String, 32),
            ],
            asked: 0,
        }
    }

    /// `n` string tables called t0, t1, ...
    pub fn numbered(n: usize) -> ModelTables {
        let known = (0..n).map(|i| (format!("t{i}").into_bytes(), KeyType::String, 17));
        ModelTables { known: known.collect(), asked: 0 }
    }
}

impl Tables for ModelTables {
    type Layout = ModelLayout;

    fn define(&mut self, d: &Definition) -> Result<Arc<ModelLayout>, Refusal> {
        self.asked += 1;
        let table = self.known.iter().position(|(name, ..)| *name == d.name);
        let table = table.ok_or(Refusal::Unknown)?;
        let (_, key_type, key_len) = self.known[table];
        if KeyType::from_wire(d.key_type) != Some(key_type) || d.key_len != key_len {
            return Err(Refusal::Mismatch("key differs".into()));
        }
        let shape = KeyShape::of(key_type, key_len);
        Ok(Arc::new(ModelLayout { table, shape, steps: d.steps() }))
    }
}

/// An update as it came out of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub table: usize,
    pub uid: u32,
    pub expire_ms: Option<u32>,
    pub key: Vec<u8>,
    pub ints: Vec<u64>,
    pub server_key: Option<Vec<u8>>,
}

/// Collects updates, checking that the offsets say where they are.
pub struct Collect<'a> {
    pub bytes: &'a [u8],
    pub got: &'a mut Vec<Got>,
}

impl Sink<ModelLayout> for Collect<'_> {
    fn update(&mut self, u: Received<'_, ModelLayout>) {
        assert_eq!(u.key, &self.bytes[u.key_at..u.key_at + u.key.len()]);
        assert_eq!(u.values, &self.bytes[u.values_at..u.values_at + u.values.len()]);
        let mut ints = Vec::new();
        decode_values(u.values, &u.layout.steps, |_, _, v| {
            if let Value::Int(v) = v {
                ints.push(v);
            }
        })
        .expect("a valid update's values decode");
        self.got.push(Got {
            table: u.layout.table,
            uid: u.uid,
            expire_ms: u.expire_ms,
            key: u.key.to_vec(),
            ints,
            server_key: u.server_key.map(|k| k.to_vec()),
        });
    }
}
