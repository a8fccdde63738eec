//! Lessons out: everything once, in turn, and nothing lost that changes meanwhile.

use super::rig::{Arrived, Reader, Rig, conn, spec};
use crate::limits::CHUNK_CREDITS;
use crate::session::Ledger;
use crate::shard::message::{CreditKind, Message};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn every_definition_is_taught_and_those_of_empty_tables_once() {
    for shards in [1, 2, 3, 64] {
        let specs = vec![
            spec("empty", "gpc0", 1000),
            spec("large-empty", "gpc0", 1_000_000),
            spec("small", "gpc0", 1000),
            spec("large", "gpc0", 1_000_000),
            spec("nothing-stored", "", 1000),
        ];
        let mut rig = Rig::new(shards, specs);
        (0..100).for_each(|key| rig.set(2, key, 1));
        (0..5_000).for_each(|key| rig.set(3, key, 1));
        rig.teach(conn(0), 1);
        let Arrived { chunks, parts, .. } = rig.run();
        let mut reader = Reader::new(&rig);
        let got = reader.chunks(&chunks);
        let keys: BTreeSet<_> = got.iter().map(|g| (g.table, g.key)).collect();
        assert_eq!((got.len(), keys.len()), (5_100, 5_100), "{shards} shards");
        for empty in [0, 1, 4] {
            let times = reader.defined.iter().filter(|t| **t == empty).count();
            assert_eq!(times, 1, "table {empty}, {shards} shards");
        }
        assert!(reader.defined.contains(&2) && reader.defined.contains(&3));
        let owners: BTreeSet<u16> = parts.iter().map(|p| p.owner).collect();
        assert_eq!((parts.len(), owners.len()), (shards, shards));
        assert!(got.iter().all(|g| g.timed && g.uid == 0));
    }
}

/// The rows nobody has read yet are the hard ones: they wait in the log from before the lesson.
#[test]
fn what_changes_during_a_lesson_is_pushed_after_it() {
    for read_before in [false, true] {
        let mut rig = Rig::new(2, vec![spec("a", "gpc0", 100_000)]);
        (0..1_000).for_each(|key| rig.set(0, key, 1));
        if read_before {
            rig.subscribe(conn(5), None, vec![]);
            rig.run();
        }
        rig.teach(conn(0), 1);
        rig.settle();
        let chunks = std::mem::take(&mut rig.arrived.chunks);
        assert_eq!(Reader::new(&rig).chunks(&chunks).len(), 1_000, "all is taught");
        (0..1_000).step_by(3).for_each(|key| rig.set(0, key, 2));
        rig.set(0, 5_000, 3);
        let parts = rig.run().parts;
        // CONFIRM came: the ledger moves to the tails, pushing begins there.
        let mut ledger = Ledger::default();
        for part in &parts {
            for (table, tail) in part.tails.iter().enumerate() {
                ledger.confirm(table, usize::from(part.owner), *tail);
            }
        }
        for shard in 0..2 {
            let wish = crate::shard::message::Subscribe {
                conn: conn(0),
                epoch: 2,
                section: 0,
                from: vec![ledger.confirmed(0, shard)],
                filter: None,
                timed: true,
            };
            rig.shards[0].mesh.send(shard, Message::Subscribe(Box::new(wish)));
        }
        let changes = rig.run().changes;
        let got = Reader::new(&rig).changes(&changes, conn(0));
        let latest: BTreeMap<u32, u64> = got.iter().map(|g| (g.key, g.gpc0)).collect();
        let mut wanted: BTreeMap<u32, u64> = (0..1_000).step_by(3).map(|key| (key, 2)).collect();
        wanted.insert(5_000, 3);
        assert_eq!(latest, wanted, "read before: {read_before}");
    }
}

#[test]
fn a_learner_that_does_not_read_costs_a_few_chunks_and_keeps_nobody_waiting() {
    let mut rig = Rig::new(1, vec![spec("a", "gpc0", 60_000)]);
    (0..60_000).for_each(|key| rig.set(0, key, 1));
    for slot in 0..20 {
        rig.teach(conn(slot), 1);
    }
    // Eight read at once, which is all that a tick has time for; the others must get their turn.
    let mut chunks: BTreeMap<u32, usize> = BTreeMap::new();
    for _ in 0..15 {
        rig.tick();
        for chunk in std::mem::take(&mut rig.arrived.chunks) {
            *chunks.entry(chunk.conn.slot).or_default() += 1;
            if chunk.conn.slot < 8 {
                rig.credit(chunk.conn, 0, CreditKind::Lesson);
            }
        }
        assert!(rig.arrived.parts.is_empty());
    }
    for slot in 8..20 {
        let sent = chunks.get(&slot).copied().unwrap_or(0);
        assert!((1..=CHUNK_CREDITS as usize).contains(&sent), "learner {slot}: {sent}");
    }
    // However long it takes, no more than the credits.
    (0..500).for_each(|_| {
        rig.tick();
    });
    for chunk in &rig.arrived.chunks {
        *chunks.entry(chunk.conn.slot).or_default() += 1;
    }
    assert!((8..20).all(|slot| chunks[&slot] == CHUNK_CREDITS as usize));
}

#[test]
fn a_new_lesson_replaces_the_old_one_and_the_end_of_a_session_ends_it() {
    let mut rig = Rig::new(2, vec![spec("a", "gpc0", 100_000)]);
    (0..90_000).for_each(|key| rig.set(0, key, 1));
    rig.teach(conn(0), 1);
    rig.settle();
    rig.arrived.chunks.clear();
    rig.teach(conn(0), 2);
    let Arrived { chunks, parts, .. } = rig.run();
    assert!(chunks.iter().all(|c| c.lesson == 2));
    assert!(parts.len() == 2 && parts.iter().all(|p| p.lesson == 2));
    assert_eq!(Reader::new(&rig).chunks(&chunks).len(), 90_000);
    rig.teach(conn(0), 3);
    rig.settle();
    rig.arrived.chunks.clear();
    for shard in 0..2 {
        rig.shards[0].mesh.send(shard, Message::StopTeaching(conn(0)));
        rig.credit(conn(0), shard, CreditKind::Lesson);
    }
    let Arrived { chunks, parts, .. } = rig.run();
    assert!(chunks.is_empty() && parts.is_empty());
}
