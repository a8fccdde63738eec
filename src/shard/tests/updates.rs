//! Updates in: to the right owner, whatever comes.

use super::rig::{Rig, conn, session, spec};
use crate::engine::{Doorbell, Engine};
use crate::limits::EVENT_SLOTS;
use crate::session::random::Random;
use crate::shard::message::{Batch, Message, Subscribe};
use crate::shard::{Control, Layout, Parts, Registry, Shard, ShardEvent, ShardParams};
use crate::table::{KeyHasher, LocalSet, RemoteLayout, TableSpec};
use crate::wire::DataType;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc;

#[test]
fn what_is_written_to_another_table_goes_to_that_tables_owner() {
    // Small tables have one owner each, and these two have different ones.
    let source = TableSpec { write_to: Some("b".into()), ..spec("a", "gpt0,gpc0", 1000) };
    let mut rig = Rig::new(2, vec![source, spec("b", "gpt0", 1000)]);
    assert_ne!(rig.owner(0, 1), rig.owner(1, 1));
    let mut bytes = Vec::new();
    let definition = crate::table::definition_of(&rig.table(0).spec, 5);
    crate::wire::message::encode_define(&mut bytes, &definition);
    for key in 0u8..100 {
        bytes.extend([10, 0x80, 10, 0, 0, 0, key + 1, 0, 0, 0, key, key, 9]);
    }
    assert_eq!(rig.receive(&mut session(), &bytes), bytes.len());
    rig.settle();
    for key in 0..100 {
        assert_eq!(rig.get(0, key), Some(u64::from(key)), "key {key}");
        assert_eq!(rig.get(1, key), Some(u64::from(key)), "key {key}, written to");
    }
}

#[test]
fn each_update_reaches_its_owner_and_only_that() {
    for shards in [1, 2, 3, 64] {
        let mut rig = Rig::new(shards, vec![spec("a", "gpc0", 100_000)]);
        let rows: Vec<_> = (0..3_000).map(|key| (key, u64::from(key) + 1, None)).collect();
        rig.learn(0, &rows);
        assert!((0..3_000).all(|key| rig.get(0, key) == Some(u64::from(key) + 1)));
        let counts = rig.shards.iter_mut().filter_map(|s| s.parts.get_mut(0));
        assert_eq!(counts.map(|p| p.used_estimate()).sum::<u64>(), 3_000);
        let owners: std::collections::BTreeSet<_> = (0..3_000).map(|k| rig.owner(0, k)).collect();
        assert_eq!(rig.arrived.applied.len(), owners.len(), "one answer an owner");
    }
}

#[test]
fn a_table_without_memory_costs_no_other_table_its_updates() {
    let bad = TableSpec {
        key_len: 10_000,
        ..crate::table::testing::spec(crate::wire::KeyType::Binary, 4, "gpc0")
    };
    let good = spec("good", "gpc0", 1000);
    let registry = Registry::new(KeyHasher::new([1; 4]), 1, vec!["s".into()], None);
    registry
        .declare(Some((0, 0)), TableSpec { wire_name: "bad".into(), name: "bad".into(), ..bad });
    registry.declare(Some((0, 1)), good.clone());
    let registry = Arc::new(registry);
    let mut parts = Parts::new(0, registry.clone());
    // Both are read the same way, so that the runs differ in their tables only.
    let definition = crate::table::definition_of(&good, 1);
    let run = |id| {
        let remote = RemoteLayout::new(&definition, &good).unwrap();
        let table = registry.get(id).unwrap();
        let layout = Arc::new(Layout { table, remote, write_to: None });
        crate::shard::message::Run { layout, second: false, count: 1 }
    };
    let item = crate::shard::message::Item {
        hash: registry.hasher.hash(&[0, 0, 0, 1]),
        key_at: 0,
        key_len: 4,
        values_at: 4,
        values_len: 1,
        expire_ms: 0,
        timed: false,
        server_key: 0,
    };
    let batch = Batch {
        conn: conn(0),
        round: 1,
        bytes: Bytes::from_static(&[0, 0, 0, 1, 42]),
        runs: vec![run(0), run(1)],
        items: vec![item; 2],
        strings: Vec::new(),
    };
    let error = parts.apply(&batch, super::rig::T0).unwrap_err();
    assert_eq!(error.table, "bad");
    let part = parts.get_mut(1).expect("the good table was used");
    assert!(part.get(super::rig::T0, &[0, 0, 0, 1], item.hash).is_some());
}

/// Any bytes, through the session and on to the tables: no panic, whatever the ranges say.
#[test]
fn mutated_streams_never_bring_a_shard_down() {
    let strings = TableSpec {
        name: "s".into(),
        wire_name: "s".into(),
        ..crate::table::testing::spec(
            crate::wire::KeyType::String,
            9,
            "server_id,gpc0,gpc0_rate(1000),server_key,gpt(3)",
        )
    };
    let mut rig = Rig::new(3, vec![spec("a", "gpc0,server_key", 100_000), strings]);
    let rows: Vec<_> = (0..40).map(|key| (key, u64::from(key), Some("name"))).collect();
    let mut good = rig.updates(0, &rows);
    let definition = crate::table::definition_of(&rig.table(1).spec, 3);
    crate::wire::message::encode_define(&mut good, &definition);
    for key in [&b"abc"[..], b"", b"\0x", b"longer than the table's keys"] {
        let values = [1, 2, 3, 4, 5, 6, 1, 3, b'a', b'b', b'c', 7, 8, 9];
        let len = 4 + 1 + key.len() + values.len();
        good.extend([10, 0x80, len as u8, 0, 0, 0, 9, key.len() as u8]);
        good.extend(key);
        good.extend(values);
    }
    assert_eq!(rig.receive(&mut session(), &good), good.len());
    let mut random = Random::new(7);
    for _ in 0..3_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.next_u64() as u8,
                1 => drop(bytes.drain(at..(at + 3).min(bytes.len()))),
                _ => bytes.insert(at, random.next_u64() as u8),
            }
        }
        rig.receive(&mut session(), &bytes);
        rig.settle();
    }
}

type Control0 = mpsc::Sender<Control>;
type Events0 = mpsc::Receiver<ShardEvent>;

/// A whole shard, number 1 of 2; the test has the other end of its rings.
fn shard(
    specs: Vec<TableSpec>,
    event_slots: usize,
) -> (Shard, crate::engine::mesh::MeshEnd<Message>, Control0, Events0) {
    let registry = Registry::new(KeyHasher::new([1; 4]), 2, vec!["s".into()], None);
    for (index, spec) in specs.into_iter().enumerate() {
        registry.declare(Some((0, index)), spec);
    }
    let bells = Arc::new(vec![Doorbell::default(), Doorbell::default()]);
    let mut ends = crate::engine::mesh::mesh(2, &bells);
    let mesh = ends.pop().unwrap();
    let (control_tx, control) = mpsc::channel(16);
    let (events, events_rx) = mpsc::channel(event_slots);
    let shard = Shard::new(ShardParams {
        id: 1,
        engine: Engine::Epoll,
        registry: Arc::new(registry),
        mesh,
        bells,
        control,
        events,
        updates_at_once: None,
        up_to_date: Arc::new(vec![AtomicBool::new(true)]),
        waits: Arc::new(vec![AtomicBool::new(false)]),
        inherited: None,
    });
    (shard, ends.pop().unwrap(), control_tx, events_rx)
}

#[test]
fn what_the_stats_socket_sets_is_pushed_in_the_same_tick_and_what_it_clears_is_not() {
    let (mut shard, mut home, control, _events) = shard(vec![spec("a", "gpc0", 100_000)], 16);
    let wish =
        Subscribe { conn: conn(0), epoch: 1, section: 0, from: vec![], filter: None, timed: true };
    home.send(1, Message::Subscribe(Box::new(wish)));
    let now = super::rig::T0;
    shard.tick(now);
    let set = |shard: &mut Shard, now| {
        let table = shard.parts.registry().get(0).unwrap();
        let hasher = shard.parts.registry().hasher.clone();
        let keys = (0..1_000u32).map(u32::to_be_bytes);
        for key in keys.filter(|k| table.place.owner(hasher.hash(k)) == 1) {
            let sets = [LocalSet { data_type: DataType::GPC0, index: 0, value: 3 }];
            let part = shard.parts.part_mut(&table).unwrap();
            part.set_local(now, &key, hasher.hash(&key), &sets).unwrap();
        }
        shard.parts.touch(0);
    };
    control.try_send(Control::Run(Box::new(set))).ok().unwrap();
    shard.tick(now);
    let Some(Message::Changes(_, batch)) = home.receive() else { panic!("nothing is pushed") };
    assert!(batch.updates > 300, "{}", batch.updates);
    let table = shard.parts.registry().get(0).unwrap();
    assert_eq!(table.used_by(1), u64::from(batch.updates), "the others know the size at once");
    let clear = |shard: &mut Shard, _| {
        shard.parts.get_mut(0).unwrap().clear();
        shard.parts.touch(0);
    };
    control.try_send(Control::Run(Box::new(clear))).ok().unwrap();
    shard.tick(now);
    assert_eq!(table.used_by(1), 0);
    if let Some(Message::Changes(_, batch)) = home.receive() {
        assert_eq!(batch.updates, 0);
    }
}

#[test]
fn news_that_has_no_room_waits_and_is_bounded() {
    let (mut shard, _home, _control, mut events) = shard(vec![], 1);
    let now = super::rig::T0;
    shard.event(ShardEvent::Teaching(1));
    let ended = ShardEvent::LessonEnd { id: 2, finished: true, updates: 0, duration_ms: 0 };
    shard.event(ended);
    shard.tick(now);
    let again =
        shard.next_deadline(now).expect("an idle shard comes back to what it could not say");
    assert!(again.since(now) <= 100);
    assert!(matches!(events.try_recv(), Ok(ShardEvent::Teaching(1))));
    shard.tick(again);
    assert!(matches!(events.try_recv(), Ok(ShardEvent::LessonEnd { id: 2, .. })));
    assert_eq!(shard.next_deadline(again), None);
    for _ in 0..EVENT_SLOTS * 3 {
        shard.event(ShardEvent::Heard(7));
    }
    shard.event(ShardEvent::LessonEnd { id: 3, finished: true, updates: 0, duration_ms: 0 });
    assert_eq!(shard.unsent.len(), EVENT_SLOTS + 1);
    assert!(matches!(shard.unsent.back(), Some(ShardEvent::LessonEnd { id: 3, .. })));
}
