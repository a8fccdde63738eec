//! Local changes out: shared, filtered, bounded by credits, and never lost.

use super::rig::{Arrived, Got, Reader, Rig, conn, spec};
use crate::limits::{CATCH_UP_WAIT_MS, CHANGES_MAX, CHUNK_CREDITS};
use crate::shard::KeyFilter;
use crate::shard::flush::own_dictionary;
use crate::shard::message::{CreditKind, Message, Subscribe};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn keys(got: &[Got]) -> BTreeSet<u32> {
    got.iter().map(|g| g.key).collect()
}

#[test]
fn subscribers_at_the_same_place_share_the_bytes_of_every_table() {
    let specs = vec![spec("a", "gpc0", 1000), spec("b", "gpc0", 1000), spec("c", "gpc0", 1000)];
    let mut rig = Rig::new(2, specs);
    for slot in 0..10 {
        rig.subscribe(conn(slot), None, vec![]);
    }
    for table in 0..3 {
        (0..50).for_each(|key| rig.set(table, key, 7));
    }
    let Arrived { changes, .. } = rig.run();
    assert_eq!(changes.len(), 30);
    for table in 0..3 {
        let of_table: Vec<_> = changes.iter().filter(|(_, b)| b.table == table).collect();
        assert_eq!(of_table.len(), 10);
        let first = of_table[0].1.bytes.as_ptr();
        assert!(of_table.iter().all(|(_, b)| b.bytes.as_ptr() == first), "table {table}");
    }
    // A latecomer stands elsewhere and has everything all the same.
    (0..50).for_each(|key| rig.set(1, key, 8));
    rig.subscribe(conn(10), None, vec![]);
    let Arrived { changes, .. } = rig.run();
    let mut reader = Reader::new(&rig);
    assert_eq!(reader.changes(&changes, conn(10)).len(), 150);
    assert_eq!(reader.changes(&changes, conn(3)).len(), 50);
}

#[test]
fn every_key_goes_to_the_peers_of_its_shard_only() {
    let mut rig = Rig::new(2, vec![spec("a", "gpc0", 1000), spec("b", "gpc0", 100_000)]);
    for slot in 0..3 {
        rig.subscribe(conn(slot), Some(KeyFilter { shard: slot + 1, shards: 3 }), vec![]);
    }
    rig.subscribe(conn(3), None, vec![]);
    for key in 0..600 {
        rig.set((key % 2) as usize, key, 1);
    }
    let Arrived { changes, .. } = rig.run();
    let of = |slot| keys(&Reader::new(&rig).changes(&changes, conn(slot)));
    let parts = [of(0), of(1), of(2)];
    assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), 600, "none twice");
    assert_eq!(parts.iter().flatten().copied().collect::<BTreeSet<_>>(), of(3));
    assert!(parts.iter().all(|p| p.len() > 100));
}

#[test]
fn credits_bound_what_is_in_flight() {
    let mut rig = Rig::new(1, vec![spec("a", "gpc0", 60_000)]);
    (0..60_000).for_each(|key| rig.set(0, key, 1));
    rig.subscribe(conn(0), None, vec![]);
    rig.settle();
    assert_eq!(rig.arrived.changes.len(), CHUNK_CREDITS as usize);
    rig.credit(conn(0), 0, CreditKind::Changes);
    rig.settle();
    assert_eq!(rig.arrived.changes.len(), CHUNK_CREDITS as usize + 1);
    // Credits nobody owes change nothing, nor do those of a session that is gone.
    for _ in 0..100 {
        rig.credit(conn(7), 0, CreditKind::Changes);
    }
    rig.settle();
    assert_eq!(rig.arrived.changes.len(), CHUNK_CREDITS as usize + 1);
    let before = std::mem::take(&mut rig.arrived.changes);
    for _ in 0..100 {
        rig.credit(conn(0), 0, CreditKind::Changes);
    }
    rig.settle();
    assert!(rig.arrived.changes.len() <= CHUNK_CREDITS as usize);
    let mut all = before;
    all.append(&mut rig.arrived.changes);
    for _ in 0..all.len() {
        rig.credit(conn(0), 0, CreditKind::Changes);
    }
    all.extend(rig.run().changes);
    assert_eq!(keys(&Reader::new(&rig).changes(&all, conn(0))).len(), 60_000);
}

#[test]
fn ids_are_unique_in_a_table_and_ascend_in_each_source() {
    for shards in [1, 2, 3, 64] {
        let mut rig = Rig::new(shards, vec![spec("a", "gpc0", 100_000)]);
        rig.subscribe(conn(0), None, vec![]);
        let mut all = Vec::new();
        for round in 0..3 {
            (0..2_000).for_each(|key| rig.set(0, key, round));
            all.extend(rig.run().changes);
        }
        let got = Reader::new(&rig).changes(&all, conn(0));
        assert_eq!(got.len(), 6_000, "{shards} shards");
        let ids: BTreeSet<u32> = got.iter().map(|g| g.uid).collect();
        assert_eq!(ids.len(), got.len(), "{shards} shards: an id twice");
        let mut last: BTreeMap<usize, u32> = BTreeMap::new();
        for g in &got {
            let source = g.uid as usize % shards;
            assert_eq!(source, rig.owner(0, g.key));
            assert!(last.insert(source, g.uid).is_none_or(|before| before < g.uid));
        }
        assert!(all.iter().all(|(_, b)| b.last_uid as usize % shards == b.source));
    }
}

#[test]
fn at_most_so_many_updates_at_once() {
    let mut rig = Rig::with(2, vec![spec("a", "gpc0", 100_000)], Some(50));
    rig.subscribe(conn(0), None, vec![]);
    rig.teach(conn(1), 1);
    (0..1_000).for_each(|key| rig.set(0, key, 1));
    let Arrived { changes, chunks, .. } = rig.run();
    assert!(changes.iter().all(|(_, b)| b.updates <= 50));
    assert!(chunks.iter().all(|c| c.entries <= 50));
    assert_eq!(Reader::new(&rig).changes(&changes, conn(0)).len(), 1_000);
}

/// Fills a table beyond what the log remembers. Changes cost about 1 µs each.
fn outgrow(rig: &mut Rig) -> u32 {
    let rows = CHANGES_MAX as u32 + 5_000;
    (0..rows).for_each(|key| rig.set(0, key, 1));
    rows
}

/// A peer that has confirmed nothing asks for a lesson at once, most of the time: for a moment it
/// is not sent the whole table unasked.
fn wait_for_its_wish(rig: &mut Rig) {
    rig.settle();
    let sent = rig.arrived.changes.iter().filter(|(_, batch)| batch.table == 0).count();
    assert_eq!(sent, 0, "too early");
    let due = rig.shards[0].flush.next_deadline().unwrap();
    assert_eq!(due, rig.now.plus(CATCH_UP_WAIT_MS));
    rig.now = due;
}

#[test]
fn who_was_away_for_too_long_gets_the_whole_table() {
    let mut rig = Rig::new(1, vec![spec("a", "gpc0", 2_000_000), spec("b", "gpc0", 1000)]);
    let rows = outgrow(&mut rig);
    (0..10).for_each(|key| rig.set(1, key, 1));
    rig.subscribe(conn(0), None, vec![]);
    wait_for_its_wish(&mut rig);
    rig.settle();
    let mut all = std::mem::take(&mut rig.arrived.changes);
    // Some rows have been sent and change again before the rest has: rows that still wait unread in
    // the log.
    let early = Reader::new(&rig).changes(&all, conn(0));
    let waiting = early.iter().filter(|g| g.table == 0 && g.key > 6_000);
    let changed: Vec<u32> = waiting.map(|g| g.key).take(9).collect();
    assert_eq!(changed.len(), 9);
    changed.iter().for_each(|&key| rig.set(0, key, 2));
    let sources: Vec<usize> = all.iter().map(|(_, b)| b.source).collect();
    sources.iter().for_each(|&s| rig.credit(conn(0), s, CreditKind::Changes));
    all.extend(rig.run().changes);
    let mut latest = BTreeMap::new();
    for got in Reader::new(&rig).changes(&all, conn(0)) {
        latest.insert((got.table, got.key), got.gpc0);
    }
    assert_eq!(latest.len(), rows as usize + 10, "every row of both tables");
    for key in changed {
        assert_eq!(latest[&(0, key)], 2, "key {key} changed while the table was sent");
    }
    let head = rig.shards[0].parts.get_mut(0).unwrap().change_head();
    let ends = all.iter().filter(|(_, b)| b.table == 0).map(|(_, b)| b.end);
    assert_eq!(ends.max(), Some(head), "the last ack confirms everything");
}

#[test]
fn a_log_that_overflows_again_meanwhile_loses_nothing() {
    let mut rig = Rig::new(1, vec![spec("a", "gpc0", 2_000_000)]);
    let rows = outgrow(&mut rig);
    // Another peer reads along, so that rows are entered anew each time they change.
    rig.subscribe(conn(0), None, vec![]);
    wait_for_its_wish(&mut rig);
    rig.settle();
    let mut all = std::mem::take(&mut rig.arrived.changes);
    let sent = Reader::new(&rig).changes(&all, conn(0));
    let changed = sent[0].key;
    rig.set(0, changed, 2);
    for key in (0..rows).filter(|&k| k != changed) {
        rig.set(0, key, 3);
    }
    let log = rig.shards[0].parts.get_mut(0).unwrap();
    assert!(log.change_base() > u64::from(rows), "the change of {changed} is forgotten");
    for _ in 0..all.len() {
        rig.credit(conn(0), 0, CreditKind::Changes);
    }
    all.extend(rig.run().changes);
    let mut latest = BTreeMap::new();
    for got in Reader::new(&rig).changes(&all, conn(0)) {
        latest.insert(got.key, got.gpc0);
    }
    assert_eq!(latest[&changed], 2);
    assert!(latest.iter().all(|(&key, &v)| v == 3 || key == changed));
}

#[test]
fn a_peer_of_version_2_0_is_never_sent_lifetimes() {
    for timed in [true, false] {
        let mut rig = Rig::new(1, vec![spec("a", "gpc0", 2_000_000)]);
        outgrow(&mut rig);
        let conn = conn(0);
        let wish = Subscribe { conn, epoch: 1, section: 0, from: vec![], filter: None, timed };
        rig.shards[0].mesh.send(0, Message::Subscribe(Box::new(wish)));
        wait_for_its_wish(&mut rig);
        rig.settle();
        let got = Reader::new(&rig).changes(&rig.arrived.changes, conn);
        assert!(!got.is_empty() && got.iter().all(|g| g.timed == timed));
    }
}

#[test]
fn names_are_numbered_for_each_session_in_ranges_that_never_meet() {
    let mut rig = Rig::new(3, vec![spec("a", "gpc0,server_key", 100_000)]);
    let names: Vec<String> = (0..200).map(|n| format!("server-{n}")).collect();
    let rows: Vec<(u32, u64, Option<&str>)> =
        (0..1_000).map(|key| (key, 1, Some(&*names[key as usize % 200]))).collect();
    rig.learn(0, &rows);
    rig.subscribe(conn(0), None, vec![]);
    (0..1_000).for_each(|key| rig.set(0, key, 5));
    let first = rig.run().changes;
    rig.subscribe(conn(1), None, vec![]);
    let second = rig.run().changes;
    for (changes, conn) in [(first, conn(0)), (second, conn(1))] {
        let mut reader = Reader::new(&rig);
        let got = reader.changes(&changes, conn);
        assert_eq!(got.len(), 1_000);
        for g in got {
            assert_eq!(g.server_key.as_deref(), Some(&*names[g.key as usize % 200]));
        }
        assert!(reader.ids.iter().all(|id| (1..=128).contains(id)));
    }
    // The same names in a lesson.
    rig.teach(conn(2), 1);
    let mut reader = Reader::new(&rig);
    for g in reader.chunks(&rig.run().chunks) {
        assert_eq!(g.server_key.as_deref(), Some(&*names[g.key as usize % 200]));
    }
    assert!(reader.ids.len() >= 200);
}

#[test]
fn dictionary_ranges_are_disjoint_for_any_number_of_shards() {
    for shards in 1..=crate::limits::SHARDS_MAX {
        let mut seen = BTreeSet::new();
        for shard in 0..shards {
            let mut dictionary = own_dictionary(shard, shards);
            for n in 0..200 {
                dictionary.encode(&mut Vec::new(), &Arc::from(format!("{n}").as_bytes()));
            }
            for (id, _) in dictionary.slots() {
                assert!((1..=128).contains(&id));
                assert!(seen.insert(id), "id {id} twice with {shards} shards");
            }
        }
        assert!(seen.len() > 64, "{shards} shards use {} ids", seen.len());
    }
}
