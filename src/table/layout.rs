//! Remote definitions and our tables: how a peer's values map to our columns, and back.
//!
//! Pure. Sessions make a [`RemoteLayout`] for each definition they accept and share it with the
//! shards that apply its updates. Rule: what does not match exactly is refused as HAProxy refuses
//! it (protocol.md 4.1), what we do not store is decoded and dropped.

#![forbid(unsafe_code)]

use super::schema::{Schema, SchemaError};
use super::spec::{ColumnSpec, TableSpec};
use crate::limits::{EXPIRE_MAX_MS, TABLE_NAME_MAX};
use crate::wire::{DataType, Definition, KeyShape, KeyType, Kind, Parameter, Step, Tail};
use thiserror::Error;

/// A definition that does not fit our table of that name.
///
/// *Effect:* the definition and every update behind it are ignored, not acknowledged, and counted;
/// the session stays.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Other kind of keys.
    #[error("key type {theirs} differs from ours ({ours}, {})", KeyType::name(*.ours_name))]
    KeyType {
        /// As sent.
        theirs: u64,
        /// Ours, as numbered on the wire.
        ours: u64,
        /// Ours.
        ours_name: KeyType,
    },
    /// Other length of keys.
    #[error("key length {theirs} differs from ours ({ours})")]
    KeyLength {
        /// As sent.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// An array type whose number of elements is not said.
    #[error("no number of elements for {name}")]
    ArrayWithoutTail {
        /// The type.
        name: &'static str,
    },
    /// Parameters behind the bitfield are missing or in disorder.
    #[error("faulty parameters behind the data types")]
    BadTail,
    /// Our own table cannot be laid out (refused at start already).
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// A definition from which no table can be made.
///
/// *Effect:* as [`Mismatch`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadDefinition {
    /// Not printable ASCII without blanks, too long, or nothing behind the `/`.
    #[error("unusable table name")]
    Name,
    /// A number that is no key type.
    #[error("unknown key type {0}")]
    KeyType(u64),
    /// A rate whose period is not said, or is 0.
    #[error("no period for {0}")]
    NoPeriod(&'static str),
    /// Parameters do not fit.
    #[error(transparent)]
    Parameters(#[from] Mismatch),
    /// Cannot be stored.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Where a step's values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub kind: Kind,
    pub elements: u32,
    pub offset: usize,
    pub width: usize,
}

/// One value of an update whose values are all numbers, arrays spelled out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub kind: Kind,
    /// Where it goes; `None`: it is dropped.
    pub at: Option<usize>,
}

/// Updates with more values than this are decoded the general way.
const FIELDS_MAX: usize = 64;

/// How updates behind a remote definition map to a local table. See the module's head.
#[derive(Clone, Debug)]
pub struct RemoteLayout {
    steps: Vec<Step>,
    key_shape: KeyShape,
    /// One a step; `None`: decoded and dropped.
    pub(super) targets: Vec<Option<Target>>,
    /// Offset of `server_key`, when it is among the targets.
    pub(super) server_key: Option<usize>,
    /// The same as steps and targets for updates of numbers alone, ready to be walked; the number
    /// of varints they are.
    pub(super) plain: Option<(Vec<Field>, u32)>,
    /// The sender's entries never expire, so that a remaining lifetime of 0 says nothing.
    never_expires_there: bool,
}

impl RemoteLayout {
    /// The layout for a definition that named this table.
    pub fn new(def: &Definition, spec: &TableSpec) -> Result<Self, Mismatch> {
        check_key(def, spec)?;
        check_tail(def)?;
        let stored = |t: DataType| t != DataType::CONN_CUR || spec.recv_only;
        Ok(Self::map(def, &Schema::new(spec)?, stored))
    }

    /// The layout for writing updates of `source` into its `write-to` table as well (protocol.md
    /// 7.3): only values that mean the same anywhere are copied: `server_id`, `gpt0`, `server_key`,
    /// `gpt`.
    pub fn write_to(
        def: &Definition,
        source: &TableSpec,
        target: &TableSpec,
    ) -> Result<Self, Mismatch> {
        check_key(def, source)?;
        check_key(def, target)?;
        check_tail(def)?;
        const AS_IS: [DataType; 4] =
            [DataType::SERVER_ID, DataType::GPT0, DataType::SERVER_KEY, DataType::GPT];
        Ok(Self::map(def, &Schema::new(target)?, |t| AS_IS.contains(&t)))
    }

    fn map(def: &Definition, schema: &Schema, stored: impl Fn(DataType) -> bool) -> Self {
        let steps = def.steps();
        let target = |step: &Step| {
            let c = schema.column(step.data_type).filter(|_| stored(step.data_type))?;
            let (kind, elements, offset, width) = (c.kind, c.elements, c.offset, c.width);
            Some(Target { kind, elements, offset, width })
        };
        let targets: Vec<Option<Target>> = steps.iter().map(target).collect();
        let server_key = targets.iter().flatten().find(|t| t.kind == Kind::Dict).map(|t| t.offset);
        let plain = plain(&steps, &targets);
        RemoteLayout {
            plain,
            steps,
            key_shape: schema.key_shape,
            targets,
            server_key,
            never_expires_there: matches!(def.tail, Tail::Present { expire_ms: 0, .. }),
        }
    }

    /// What the values are, in wire order, up to the first type we do not know.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many varints an update's values are, when they are all numbers.
    pub fn varints(&self) -> Option<u32> {
        self.plain.as_ref().map(|(_, varints)| *varints)
    }

    /// How keys travel.
    pub fn key_shape(&self) -> KeyShape {
        self.key_shape
    }

    /// True when updates carry `server_key` values that we store.
    pub fn stores_server_key(&self) -> bool {
        self.server_key.is_some()
    }

    /// Lifetime of an updated entry in a table with `expire` of `expire_ms` (not 0); 0 means it is
    /// over. `sent` is the field of timed updates, a signed number (protocol.md 7.4).
    #[inline]
    pub(super) fn lifetime_ms(&self, sent: Option<u32>, expire_ms: u32) -> u32 {
        match sent {
            None => expire_ms,
            Some(0) if self.never_expires_there => expire_ms,
            Some(ms) if ms > i32::MAX as u32 => 0,
            Some(ms) => ms.min(expire_ms),
        }
    }
}

/// See [`RemoteLayout::plain`].
fn plain(steps: &[Step], targets: &[Option<Target>]) -> Option<(Vec<Field>, u32)> {
    let mut fields = Vec::new();
    let mut varints = 0;
    for (step, target) in steps.iter().zip(targets) {
        let kind = step.data_type.kind();
        if kind == Kind::Dict || step.elements as usize > FIELDS_MAX - fields.len() {
            return None;
        }
        varints += step.elements * if kind == Kind::Rate { 3 } else { 1 };
        fields.extend((0..step.elements).map(|i| {
            let kept = target.filter(|t| i < t.elements);
            Field { kind, at: kept.map(|t| t.offset + t.width * i as usize) }
        }));
    }
    Some((fields, varints))
}

fn check_key(def: &Definition, spec: &TableSpec) -> Result<(), Mismatch> {
    if KeyType::from_wire(def.key_type) != Some(spec.key_type) {
        return Err(Mismatch::KeyType {
            theirs: def.key_type,
            ours: spec.key_type as u64,
            ours_name: spec.key_type,
        });
    }
    if def.key_len != spec.key_len {
        return Err(Mismatch::KeyLength { theirs: def.key_len, ours: spec.key_len });
    }
    Ok(())
}

fn check_tail(def: &Definition) -> Result<(), Mismatch> {
    match def.tail {
        Tail::Present { .. } => Ok(()),
        Tail::Bad => Err(Mismatch::BadTail),
        Tail::Absent => match DataType::of_bits(def.data_types).find(|t| t.is_array()) {
            Some(t) => Err(Mismatch::ArrayWithoutTail { name: t.name() }),
            None => Ok(()),
        },
    }
}

/// The definition we send for a table, as HAProxy writes it: always with its tail.
pub fn definition_of(spec: &TableSpec, id: i32) -> Definition {
    let parameters = spec.columns.iter().filter(|c| c.data_type.has_parameters());
    Definition {
        id,
        name: spec.wire_name.clone().into_bytes(),
        key_type: spec.key_type as u64,
        key_len: spec.key_len,
        data_types: spec.data_types(),
        tail: Tail::Present {
            expire_ms: spec.expire_ms,
            parameters: parameters
                .map(|c| Parameter {
                    data_type: c.data_type,
                    elements: c.elements,
                    period_ms: c.period_ms,
                })
                .collect(),
        },
    }
}

/// A table made from the first definition a peer of `section` sends, for at most `size` entries.
/// Types we do not know are left out; a definition without its tail gives a table that does not
/// expire.
pub fn spec_from_definition(
    def: &Definition,
    section: &str,
    size: u64,
) -> Result<TableSpec, BadDefinition> {
    let (name, wire_name) = names(&def.name, section)?;
    check_tail(def)?;
    let key_type = KeyType::from_wire(def.key_type).ok_or(BadDefinition::KeyType(def.key_type))?;
    let mut columns = Vec::new();
    for Step { data_type, elements } in def.steps() {
        let period_ms = def.parameter(data_type).map_or(0, |p| p.period_ms);
        if data_type.is_rate() && period_ms == 0 {
            return Err(BadDefinition::NoPeriod(data_type.name()));
        }
        columns.push(ColumnSpec { data_type, elements, period_ms });
    }
    let expire_ms = match def.tail {
        Tail::Present { expire_ms, .. } => expire_ms.min(EXPIRE_MAX_MS),
        _ => 0,
    };
    let spec = TableSpec {
        name,
        wire_name,
        key_type,
        key_len: def.key_len,
        size,
        expire_ms,
        nopurge: false,
        columns,
        recv_only: false,
        write_to: None,
        brates_factor: 1,
        srvkey_addr: false,
    };
    Schema::new(&spec)?;
    Ok(spec)
}

/// Local and wire name of a learned table: `/t` is table `t` of the peers section.
fn names(wire: &[u8], section: &str) -> Result<(String, String), BadDefinition> {
    let printable = wire.iter().all(|b| (0x21..=0x7e).contains(b));
    let wire = std::str::from_utf8(wire).ok().filter(|w| printable && w.len() <= TABLE_NAME_MAX);
    let wire = wire.filter(|w| !w.is_empty() && *w != "/").ok_or(BadDefinition::Name)?;
    let name = match wire.strip_prefix('/') {
        Some(table) => format!("{section}/{table}"),
        None => wire.to_owned(),
    };
    Ok((name, wire.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::spec;
    use super::*;

    fn def(spec: &TableSpec) -> Definition {
        definition_of(spec, 3)
    }

    #[test]
    fn our_definitions_are_haproxy_s() {
        // protocol.md 9.2, t_arr.
        let mut t = spec(KeyType::String, 9, "gpt(3),gpc(2),gpc_rate(2,10000)");
        t.wire_name = "t_arr".to_owned();
        let mut bytes = Vec::new();
        definition_of(&t, 7).encode(&mut bytes);
        let captured: [u8; 26] = [
            0x07, 0x05, 0x74, 0x5f, 0x61, 0x72, 0x72, 0x06, 0x09, 0xf0, 0xf1, 0xfe, 0x6e, 0xf0,
            0xd9, 0xdc, 0x0c, 0x16, 0x03, 0x17, 0x02, 0x18, 0x02, 0xf0, 0xe2, 0x03,
        ];
        assert_eq!(bytes, captured);
    }

    #[test]
    fn steps_find_their_columns() {
        let ours = spec(KeyType::Ipv4, 4, "gpc0,http_req_rate(10000),conn_cur");
        let theirs = spec(KeyType::Ipv4, 4, "gpt0,gpc0,conn_cur,http_req_rate(1)");
        let layout = RemoteLayout::new(&def(&theirs), &ours).unwrap();
        let mapped: Vec<_> = layout.targets.iter().map(|t| t.map(|t| t.offset)).collect();
        assert_eq!(mapped, [None, Some(12), None, Some(20)], "conn_cur is local");
        assert_eq!(layout.steps().len(), 4);
        let recv_only = TableSpec { recv_only: true, ..ours };
        let layout = RemoteLayout::new(&def(&theirs), &recv_only).unwrap();
        assert_eq!(layout.targets[2].map(|t| t.offset), Some(16));
    }

    #[test]
    fn differences_are_told_apart() {
        let ours = spec(KeyType::Ipv4, 4, "gpc0,gpt(2)");
        let mut d = def(&ours);
        d.key_type = 2;
        let error = RemoteLayout::new(&d, &ours).unwrap_err();
        assert_eq!(error.to_string(), "key type 2 differs from ours (4, ip)");
        let mut d = def(&ours);
        d.key_len = 16;
        let error = RemoteLayout::new(&d, &ours).unwrap_err();
        assert_eq!(error, Mismatch::KeyLength { theirs: 16, ours: 4 });
        let mut d = def(&ours);
        d.tail = Tail::Absent;
        let error = RemoteLayout::new(&d, &ours).unwrap_err();
        assert_eq!(error, Mismatch::ArrayWithoutTail { name: "gpt" });
        d.tail = Tail::Bad;
        assert_eq!(RemoteLayout::new(&d, &ours).unwrap_err(), Mismatch::BadTail);
        let rates = spec(KeyType::Ipv4, 4, "gpc0_rate(10)");
        let mut d = def(&rates);
        d.tail = Tail::Absent;
        assert!(RemoteLayout::new(&d, &ours).is_ok(), "rates need no tail");
    }

    #[test]
    fn write_to_copies_only_what_means_the_same_anywhere() {
        let all = "server_id,gpt0,gpc0,server_key,gpt(2)";
        let (source, target) = (spec(KeyType::Ipv4, 4, all), spec(KeyType::Ipv4, 4, all));
        let layout = RemoteLayout::write_to(&def(&source), &source, &target).unwrap();
        let kept: Vec<bool> = layout.targets.iter().map(Option::is_some).collect();
        assert_eq!(kept, [true, true, false, true, true]);
        assert!(layout.stores_server_key());
        let other = spec(KeyType::Ipv6, 16, all);
        assert!(RemoteLayout::write_to(&def(&source), &source, &other).is_err());
    }

    #[test]
    fn lifetimes() {
        let mut t = spec(KeyType::Ipv4, 4, "gpc0");
        let layout = RemoteLayout::new(&def(&t), &t).unwrap();
        for (sent, left) in [
            (None, 30_000),
            (Some(0), 0),
            (Some(1), 1),
            (Some(30_001), 30_000),
            (Some(0x7fff_ffff), 30_000),
            (Some(0x8000_0000), 0),
            (Some(u32::MAX), 0),
        ] {
            assert_eq!(layout.lifetime_ms(sent, 30_000), left, "{sent:?}");
        }
        t.expire_ms = 0;
        let layout = RemoteLayout::new(&def(&t), &t).unwrap();
        assert_eq!(layout.lifetime_ms(Some(0), 30_000), 30_000, "never expires there");
    }

    #[test]
    fn tables_are_learned_from_definitions() {
        let mut t = spec(KeyType::String, 33, "gpt(3),gpc_rate(2,10000),server_key");
        (t.name, t.wire_name) = ("sec/x".to_owned(), "/x".to_owned());
        t.size = 77;
        assert_eq!(spec_from_definition(&def(&t), "sec", 77), Ok(t.clone()));
        let mut d = def(&t);
        d.data_types |= 1 << 40;
        assert_eq!(spec_from_definition(&d, "sec", 77), Ok(t.clone()), "unknown types left out");
        let learn = |d: &Definition| spec_from_definition(d, "sec", 77).unwrap_err();
        for name in [&b"/"[..], b"a b", b"\xff", b"a\nb", &[b'x'; TABLE_NAME_MAX + 1]] {
            d.name = name.to_vec();
            assert_eq!(learn(&d), BadDefinition::Name);
        }
        let mut d = def(&t);
        d.key_type = 9;
        assert_eq!(learn(&d), BadDefinition::KeyType(9));
        let mut d = def(&spec(KeyType::Ipv4, 4, "gpc0_rate(5)"));
        d.tail = Tail::Absent;
        assert_eq!(learn(&d), BadDefinition::NoPeriod("gpc0_rate"));
        d.tail = Tail::Bad;
        assert_eq!(learn(&d), BadDefinition::Parameters(Mismatch::BadTail));
        d = def(&spec(KeyType::Ipv4, 4, "gpc0"));
        d.key_len = 5;
        assert!(matches!(learn(&d), BadDefinition::Schema(_)));
    }
}
