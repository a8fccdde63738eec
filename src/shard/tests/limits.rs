//! A table's size over several shards.

use super::rig::{Rig, spec};
use crate::table::TableSpec;

fn held(rig: &mut Rig) -> Vec<u64> {
    let shards = rig.shards.iter_mut();
    shards.map(|s| s.parts.get_mut(0).map_or(0, |p| p.used_estimate())).collect()
}

#[test]
fn the_size_is_exact_once_all_shards_are_at_rest() {
    for shards in [1, 2, 3, 7] {
        let size = 70_000;
        let mut rig = Rig::new(shards, vec![spec("a", "gpc0", size)]);
        for first in (0..200_000u32).step_by(5_000) {
            let rows: Vec<_> = (first..first + 5_000).map(|key| (key, 1, None)).collect();
            rig.learn(0, &rows);
        }
        let held = held(&mut rig);
        assert_eq!(held.iter().sum::<u64>(), size, "{shards} shards: {held:?}");
        assert_eq!(rig.table(0).used(), size);
    }
}

/// One shard sleeps with the whole table; the other's rows come in all the same, and the sleeper is
/// woken to make room.
#[test]
fn a_shard_asleep_with_too_much_is_told() {
    let size = 70_000;
    let mut rig = Rig::new(2, vec![spec("a", "gpc0", size)]);
    let keys_of = |rig: &Rig, shard: usize, n: usize| -> Vec<u32> {
        (0..).filter(|&key| rig.owner(0, key) == shard).take(n).collect()
    };
    let (first, second) = (keys_of(&rig, 1, size as usize), keys_of(&rig, 0, 20_000));
    first.iter().for_each(|&key| rig.set(0, key, 1));
    rig.settle();
    assert_eq!(held(&mut rig), [0, size]);
    for keys in second.chunks(50) {
        keys.iter().for_each(|&key| rig.set(0, key, 1));
        rig.tick_one(0);
        // Shard 1 ticks only when its bell would ring.
        while rig.shards[1].mesh.has_work() {
            rig.tick_one(1);
        }
    }
    rig.settle();
    let held = held(&mut rig);
    assert_eq!(held.iter().sum::<u64>(), size, "{held:?}");
    assert!(held[0] > 10_000, "{held:?}");
}

#[test]
fn a_full_table_with_nopurge_asks_nobody_for_room() {
    let table = TableSpec { nopurge: true, ..spec("a", "gpc0", 70_000) };
    let mut rig = Rig::new(2, vec![table]);
    for first in (0..200_000u32).step_by(5_000) {
        let rows: Vec<_> = (first..first + 5_000).map(|key| (key, 1, None)).collect();
        rig.learn(0, &rows);
    }
    let sum: u64 = held(&mut rig).iter().sum();
    assert!((70_000..75_000).contains(&sum), "{sum}");
}
