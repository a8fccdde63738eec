//! Several shards' rows, change logs and lessons, joined by real rings; the test plays the homes of
//! all sessions.

use crate::Millis;
use crate::engine::Doorbell;
use crate::engine::mesh::{MeshEnd, mesh};
use crate::session::{ChangeBatch, Ledger, Session, SessionParams};
use crate::shard::apply::{Router, Routing, SectionTables};
use crate::shard::flush::Flush;
use crate::shard::message::{Chunk, CreditKind, Message, PartTaught, Subscribe, Teach};
use crate::shard::scan::Lessons;
use crate::shard::{ConnKey, KeyFilter, Layout, Parts, Registry, Table};
use crate::table::{KeyHasher, LocalSet, TableSpec, definition_of, testing};
use crate::wire::dictionary::RxDictionary;
use crate::wire::frame::{self, Cut};
use crate::wire::update::{Value, decode_values, encode_head};
use crate::wire::{
    DataType, KeyShape, KeyType, Message as WireMessage, Update, UpdateForm, varint,
};
use bytes::Bytes;
use std::sync::Arc;

pub const T0: Millis = Millis(10_000_000);

pub struct One {
    pub parts: Parts,
    pub flush: Flush,
    pub lessons: Lessons,
    pub mesh: MeshEnd<Message>,
    pub router: Router,
}

/// What reached the homes, in order.
#[derive(Default)]
pub struct Arrived {
    pub changes: Vec<(ConnKey, ChangeBatch)>,
    pub chunks: Vec<Chunk>,
    pub parts: Vec<PartTaught>,
    pub applied: Vec<(ConnKey, u64)>,
}

pub struct Rig {
    pub registry: Arc<Registry>,
    pub shards: Vec<One>,
    pub now: Millis,
    pub arrived: Arrived,
}

/// A table of integer keys.
pub fn spec(name: &str, store: &str, size: u64) -> TableSpec {
    TableSpec {
        name: name.into(),
        wire_name: name.into(),
        size,
        ..testing::spec(KeyType::Integer, 4, store)
    }
}

/// A session at home on shard 0.
pub fn conn(slot: u32) -> ConnKey {
    ConnKey { shard: 0, slot, generation: 1 }
}

impl Rig {
    pub fn new(shards: usize, specs: Vec<TableSpec>) -> Rig {
        Rig::with(shards, specs, None)
    }

    pub fn with(shards: usize, specs: Vec<TableSpec>, at_once: Option<u32>) -> Rig {
        let hasher = KeyHasher::new([1, 2, 3, 4]);
        let registry = Registry::new(hasher, shards as u32, vec!["s".into()], None);
        for (index, spec) in specs.into_iter().enumerate() {
            registry.declare(Some((0, index)), spec);
        }
        let registry = Arc::new(registry);
        let bells = Arc::new((0..shards).map(|_| Doorbell::default()).collect());
        let ends = mesh(shards, &bells).into_iter().enumerate();
        let shards = ends
            .map(|(id, mesh)| One {
                parts: Parts::new(id, registry.clone()),
                flush: Flush::new(at_once),
                lessons: Lessons::new(at_once),
                mesh,
                router: Router::new(shards),
            })
            .collect();
        Rig { registry, shards, now: T0, arrived: Arrived::default() }
    }

    pub fn table(&self, index: usize) -> Arc<Table> {
        self.registry.get(index).unwrap()
    }

    pub fn owner(&self, table: usize, key: u32) -> usize {
        let hash = self.registry.hasher.hash(&key.to_be_bytes());
        self.table(table).place.owner(hash) as usize
    }

    /// `set table` for one key.
    pub fn set(&mut self, table: usize, key: u32, gpc0: i64) {
        let t = self.table(table);
        let key = key.to_be_bytes();
        let hash = self.registry.hasher.hash(&key);
        let shard = &mut self.shards[t.place.owner(hash) as usize];
        let others = t.used().saturating_sub(t.used_by(shard.parts.shard()));
        let part = shard.parts.part_mut(&t).unwrap();
        part.set_others_used(others);
        let set = LocalSet { data_type: DataType::GPC0, index: 0, value: gpc0 };
        part.set_local(self.now, &key, hash, &[set]).unwrap();
        shard.parts.touch(t.id);
        shard.flush.changed();
    }

    /// The first value of a row.
    pub fn get(&mut self, table: usize, key: u32) -> Option<u64> {
        let t = self.table(table);
        let bytes = key.to_be_bytes();
        let hash = self.registry.hasher.hash(&bytes);
        let shard = t.place.owner(hash) as usize;
        let entry = self.shards[shard].parts.get_mut(t.id)?.get(self.now, &bytes, hash)?;
        let (_, _, _, cell) = entry.cells().next()?;
        Some(match cell {
            crate::table::Cell::U32(v) => u64::from(v),
            other => panic!("{other:?}"),
        })
    }

    pub fn subscribe(&mut self, conn: ConnKey, filter: Option<KeyFilter>, from: Vec<u64>) {
        for shard in 0..self.shards.len() {
            let wish =
                Subscribe { conn, epoch: 1, section: 0, from: from.clone(), filter, timed: true };
            self.shards[0].mesh.send(shard, Message::Subscribe(Box::new(wish)));
        }
    }

    pub fn teach(&mut self, conn: ConnKey, lesson: u32) {
        for shard in 0..self.shards.len() {
            let wish = Teach { conn, lesson, section: 0, timed: true, filter: None };
            self.shards[0].mesh.send(shard, Message::Teach(Box::new(wish)));
        }
    }

    pub fn credit(&mut self, conn: ConnKey, shard: usize, kind: CreditKind) {
        self.shards[0].mesh.send(shard, Message::Credit { conn, kind });
    }

    /// One tick of every shard. True when one of them has more to do at once.
    pub fn tick(&mut self) -> bool {
        let mut more = false;
        for id in 0..self.shards.len() {
            more |= self.tick_one(id);
        }
        more
    }

    pub fn tick_one(&mut self, id: usize) -> bool {
        let (now, shards) = (self.now, self.shards.len());
        let one = &mut self.shards[id];
        let mut more = false;
        while let Some(message) = one.mesh.receive() {
            more = true;
            match message {
                Message::Apply(batch) => {
                    one.parts.apply(&batch, now).unwrap();
                    let (conn, round) = (batch.conn, batch.round);
                    let home = usize::from(conn.shard);
                    one.mesh.send(home, Message::Applied { conn, round });
                }
                Message::Applied { conn, round } => self.arrived.applied.push((conn, round)),
                Message::Subscribe(wish) => one.flush.subscribe(*wish, id, shards, now),
                Message::Unsubscribe(conn) => one.flush.unsubscribe(conn),
                Message::Changes(conn, batch) => self.arrived.changes.push((conn, *batch)),
                Message::Crowded(table) => one.parts.touch(table),
                Message::Teach(wish) => one.lessons.start(*wish, &mut one.parts, shards),
                Message::StopTeaching(conn) => one.lessons.stop(conn),
                Message::Chunk(chunk) => self.arrived.chunks.push(*chunk),
                Message::PartTaught(part) => self.arrived.parts.push(*part),
                Message::Credit { conn, kind: CreditKind::Changes } => one.flush.credit(conn),
                Message::Credit { conn, kind: CreditKind::Lesson } => one.lessons.credit(conn),
            }
        }
        more |= one.lessons.run(&mut one.parts, &mut one.mesh, now);
        more |= one.flush.run(&mut one.parts, &mut one.mesh, now);
        more |= one.parts.settle(now, false);
        for (shard, table) in one.parts.take_crowded() {
            one.mesh.send(shard, Message::Crowded(table));
        }
        one.mesh.flush();
        more
    }

    /// Ticks until nobody has anything to do; credits stay where they are.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.tick() && !self.shards.iter().any(|s| s.mesh.has_work()) {
                return;
            }
        }
        panic!("never at rest");
    }

    /// Ticks to the end and gives every credit back as if all was written at once. Returns
    /// everything that came.
    pub fn run(&mut self) -> Arrived {
        let mut all = Arrived::default();
        loop {
            self.settle();
            let got = std::mem::take(&mut self.arrived);
            let over = got.changes.is_empty() && got.chunks.is_empty();
            for (conn, batch) in &got.changes {
                self.credit(*conn, batch.source, CreditKind::Changes);
            }
            for chunk in &got.chunks {
                self.credit(chunk.conn, usize::from(chunk.owner), CreditKind::Lesson);
            }
            all.changes.extend(got.changes);
            all.chunks.extend(got.chunks);
            all.parts.extend(got.parts);
            all.applied.extend(got.applied);
            if over {
                return all;
            }
        }
    }

    /// A session's bytes, given to it at home on shard 0 and on to the owners, as the glue does.
    pub fn receive(&mut self, session: &mut Session<Layout>, bytes: &[u8]) -> usize {
        let registry = self.registry.clone();
        let mut tables = SectionTables { registry: &registry, section: 0 };
        let mut routing = Routing { router: &mut self.shards[0].router, registry: &registry };
        let used = session.handle_bytes(bytes, self.now, &mut tables, &mut routing);
        let used = used.unwrap_or(bytes.len());
        let round = session.close_round().unwrap_or(0);
        let bytes = Bytes::copy_from_slice(bytes);
        for (owner, batch) in self.shards[0].router.take(conn(9), round, &bytes) {
            self.shards[0].mesh.send(owner, Message::Apply(batch));
        }
        while session.poll_output().is_some() {}
        used
    }

    /// Updates of a peer for one table, applied.
    pub fn learn(&mut self, table: usize, updates: &[(u32, u64, Option<&str>)]) {
        let bytes = self.updates(table, updates);
        assert_eq!(self.receive(&mut session(), &bytes), bytes.len());
        self.settle();
    }

    /// A definition and updates as a peer would write them: (key, gpc0, server key).
    pub fn updates(&self, table: usize, updates: &[(u32, u64, Option<&str>)]) -> Vec<u8> {
        let spec = self.table(table).spec.clone();
        let mut out = Vec::new();
        crate::wire::message::encode_define(&mut out, &definition_of(&spec, table as i32 + 7));
        let kind = UpdateForm { explicit_id: true, timed: false }.kind();
        let mut dictionary = crate::wire::dictionary::TxDictionary::new();
        for (n, (key, gpc0, text)) in updates.iter().enumerate() {
            frame::build(&mut out, frame::class::TABLE, kind, |out| {
                let uid = Some(n as u32 + 1);
                encode_head(out, uid, None, KeyShape::Fixed(4), &key.to_be_bytes());
                varint::encode(out, *gpc0);
                if let Some(text) = text {
                    dictionary.encode(out, &Arc::from(text.as_bytes()));
                }
            });
        }
        out
    }
}

pub fn session() -> Session<Layout> {
    let params = SessionParams { local: false, minor: 1, bufsize: 16_384 };
    Session::new(params, Ledger::default(), T0)
}

/// An update as the peer reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub table: usize,
    pub uid: u32,
    pub timed: bool,
    pub key: u32,
    pub gpc0: u64,
    pub server_key: Option<String>,
}

/// The other end of a session: definitions and dictionary as a peer keeps them.
pub struct Reader {
    rig_specs: Vec<Arc<TableSpec>>,
    dictionary: RxDictionary,
    pub defined: Vec<usize>,
    /// Ids that came with a text.
    pub ids: Vec<u8>,
    current: Option<usize>,
}

impl Reader {
    pub fn new(rig: &Rig) -> Reader {
        Reader {
            rig_specs: rig.registry.all().iter().map(|t| t.spec.clone()).collect(),
            dictionary: RxDictionary::default(),
            defined: Vec::new(),
            ids: Vec::new(),
            current: None,
        }
    }

    pub fn changes(&mut self, changes: &[(ConnKey, ChangeBatch)], conn: ConnKey) -> Vec<Got> {
        let mut all = Vec::new();
        for (_, batch) in changes.iter().filter(|(c, _)| *c == conn) {
            self.read(&batch.define);
            let got = self.read(&batch.bytes);
            assert_eq!(got.len(), batch.updates as usize);
            if let (Some(first), Some(last)) = (got.first(), got.last()) {
                assert_eq!((first.uid, last.uid), (batch.first_uid, batch.last_uid));
            }
            all.extend(got);
        }
        all
    }

    pub fn chunks(&mut self, chunks: &[Chunk]) -> Vec<Got> {
        let mut all = Vec::new();
        for chunk in chunks {
            let got = self.read(&chunk.bytes);
            assert_eq!(got.len() as u64, chunk.entries);
            all.extend(got);
        }
        all
    }

    pub fn read(&mut self, mut bytes: &[u8]) -> Vec<Got> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let Ok(Cut::Frame(frame)) = frame::cut(bytes, 16_384) else { panic!("cut short") };
            bytes = &bytes[frame.len..];
            match WireMessage::of(&frame).unwrap() {
                WireMessage::Define(payload) => {
                    let definition = crate::wire::Definition::decode(payload).unwrap();
                    self.current = Some(definition.id as usize - 1);
                    self.defined.push(definition.id as usize - 1);
                }
                WireMessage::Update(form, payload) => all.push(self.update(form, payload)),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    fn update(&mut self, form: UpdateForm, payload: &[u8]) -> Got {
        let table = self.current.expect("a definition comes first");
        let steps = definition_of(&self.rig_specs[table], 1).steps();
        let update = Update::decode(form, payload, KeyShape::Fixed(4)).unwrap();
        let (mut gpc0, mut server_key) = (0, None);
        decode_values(update.values, &steps, |_, _, value| match value {
            Value::Int(v) => gpc0 = v,
            Value::Dict(v) => {
                if let crate::wire::update::DictValue::Text { id, .. } = v {
                    self.ids.push(id);
                }
                let text = self.dictionary.resolve(v);
                server_key = text.map(|t| String::from_utf8(t.to_vec()).unwrap());
            }
            Value::Rate { .. } => {}
        })
        .unwrap();
        let key = u32::from_be_bytes(update.key.try_into().unwrap());
        let uid = update.uid.expect("ids are explicit");
        Got { table, uid, timed: form.timed, key, gpc0, server_key }
    }
}
