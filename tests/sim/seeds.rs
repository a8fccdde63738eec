//! Whole nodes: the ways they meet, and seeded runs full of faults.

use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use stickring::session::random::Random;

#[test]
fn two_nodes_meet_learn_and_push() {
    for read_max in [1, 7, 4_096] {
        let mut w = World::new(&["a", "b"], 1);
        w.net.read_max = read_max;
        w.nodes[0].store.set(0, "k", 7);
        w.run(12_000);
        assert_eq!(w.nodes[0].sessions(), ["b"]);
        assert_eq!(w.nodes[1].sessions(), ["a"]);
        assert!(w.nodes.iter().all(|n| n.section.up_to_date()));
        assert_eq!(w.nodes[1].store.get(0, "k"), Some(7));
        w.nodes[1].store.set(1, "x", 9);
        w.nodes[0].store.set(0, "k", 8);
        w.settle();
        assert_eq!(w.nodes[0].store.get(1, "x"), Some(9), "pushed without waiting for anything");
        assert!(w.converged());
        // Everything is acked, and nothing comes back to who wrote it.
        for (n, peer) in [(0, "b"), (1, "a")] {
            let session = w.nodes[n].session(peer).expect("up");
            assert_eq!(session.status().unacked_batches, 0);
            assert_eq!(session.counters().acks_garbage, 0);
        }
        let sent = w.nodes[0].session("b").unwrap().counters().updates_out;
        let ups = w.nodes[0].logged("up b");
        w.run(60_000);
        assert_eq!(w.nodes[0].session("b").unwrap().counters().updates_out, sent);
        assert_eq!(w.nodes[0].logged("up b"), ups, "one session for all that time");
    }
}

#[test]
fn dialling_each_other_at_once_ends_in_one_session() {
    for seed in 0..200 {
        let mut w = World::new(&["a", "b"], seed);
        w.net.read_max = 1 + (seed % 40) as usize;
        w.run(12_000);
        assert_eq!(w.nodes[0].sessions(), ["b"], "seed {seed}: {:?}", w.nodes[0].log);
        assert_eq!(w.nodes[1].sessions(), ["a"], "seed {seed}");
        assert_eq!(w.net.live_pipes().len(), 1);
    }
}

#[test]
fn a_restarted_node_learns_everything_again() {
    for seed in 0..20 {
        let mut w = World::new(&["a", "b", "c"], seed);
        w.run(12_000);
        for n in 0..50u64 {
            w.nodes[(n % 3) as usize].store.set((n % 2) as usize, &format!("k{n}"), n + 1);
        }
        w.run(1_000);
        assert!(w.converged());
        w.kill(0);
        w.run(3_000);
        let a = w.start("a", false);
        w.run(15_000);
        assert!(w.converged(), "seed {seed}");
        assert_eq!(w.nodes[a].store.contents().len(), 50);
        assert!(w.nodes[a].section.up_to_date());
        assert!(w.nodes[a].log.iter().any(|l| l.starts_with("learned") && l.contains("true")));
        w.nodes[a].store.set(0, "after", 1);
        w.nodes[1].store.set(0, "also", 2);
        w.run(1_000);
        assert!(w.converged());
    }
}

#[test]
fn a_reload_hands_everything_over() {
    for seed in 0..20 {
        let mut w = World::new(&["a", "b"], seed);
        w.net.read_max = 50;
        w.run(12_000);
        (0..100u64).for_each(|n| w.nodes[0].store.set(0, &format!("k{n}"), n));
        w.run(100);
        w.kill(1);
        let new = w.reload(0);
        w.run(3_000);
        assert!(!w.nodes[0].alive, "the old process has ended: {:?}", w.nodes[0].log);
        assert_eq!(w.nodes[0].logged("taught a true 100"), 1);
        assert_eq!(w.nodes[new].store.contents(), w.nodes[0].store.contents());
        assert!(w.nodes[new].section.up_to_date());
        assert_eq!(w.nodes[new].section.flags() & 0xff00_0003, 0x1100_0003);
    }
}

#[test]
fn when_the_old_process_dies_a_remote_teaches() {
    for seed in 0..20 {
        let mut w = World::new(&["a", "b"], seed);
        w.net.read_max = 20;
        w.run(12_000);
        (0..100u64).for_each(|n| w.nodes[0].store.set(0, &format!("k{n}"), n));
        w.run(1_000);
        let new = w.reload(0);
        w.kill(0);
        w.run(4_000);
        assert!(!w.nodes[new].section.up_to_date());
        w.run(4_000);
        assert!(w.nodes[new].section.up_to_date(), "{:?}", w.nodes[new].log);
        assert_eq!(w.nodes[new].logged("learned b true 100"), 1, "{:?}", w.nodes[new].log);
    }
}

#[test]
fn a_teacher_that_dies_is_followed_by_another() {
    for seed in 0..30 {
        let mut w = World::new(&["a", "b", "c"], seed);
        w.run(12_000);
        (0..200u64).for_each(|n| w.nodes[1].store.set(0, &format!("k{n}"), n));
        w.run(1_000);
        w.kill(0);
        w.net.read_max = 1;
        let a = w.start("a", false);
        // Until the lesson is under way.
        let mut teacher = None;
        for _ in 0..60_000 {
            w.net.now = w.net.now.plus(1);
            w.nodes[a].timeouts(&mut w.net);
            for (node, pipe) in std::mem::take(&mut w.net.accepts) {
                w.nodes[node].accepted(pipe, &w.net);
            }
            for n in w.alive() {
                w.nodes[n].work(&mut w.net);
            }
            if w.nodes[a].store.contents().len() > 20 {
                teacher = w.nodes[a].section.learning_from();
                break;
            }
        }
        assert!(teacher.is_some(), "seed {seed}");
        let taught_by_b = w.nodes[a].session("b").is_some_and(|s| s.status().learn == "PROCESSING");
        w.kill(if taught_by_b { 1 } else { 2 });
        w.net.read_max = 4_096;
        w.run(8_000);
        assert!(w.nodes[a].section.up_to_date(), "seed {seed}: {:?}", w.nodes[a].log);
        assert_eq!(w.nodes[a].store.contents().len(), 200, "seed {seed}: {:?}", w.nodes[a].log);
    }
}

#[test]
fn only_what_was_missed_is_pushed_after_a_partition() {
    let mut w = World::new(&["a", "b"], 3);
    w.run(12_000);
    (0..500u64).for_each(|n| w.nodes[0].store.set(0, &format!("k{n}"), n));
    w.run(1_000);
    assert!(w.converged());
    w.block(0, 1, true);
    w.run(2_000);
    (0..30u64).for_each(|n| w.nodes[0].store.set(0, &format!("k{n}"), n + 1_000));
    (0..20u64).for_each(|n| w.nodes[1].store.set(1, &format!("k{n}"), n));
    w.run(20_000);
    assert!(w.nodes.iter().all(|n| n.sessions().is_empty()), "given up for silence");
    assert_eq!(w.nodes[0].logged("down b Silence"), 1);
    w.block(0, 1, false);
    w.run(7_000);
    assert!(w.converged());
    let counters = |w: &World, n: usize, peer| *w.nodes[n].session(peer).unwrap().counters();
    assert_eq!(counters(&w, 0, "b").updates_out, 30);
    assert_eq!(counters(&w, 1, "a").updates_out, 20);
    assert_eq!(counters(&w, 1, "a").entries_taught, 0, "nobody asks for a lesson again");
}

/// The first connection breaks at every byte of handshake, lesson, pushes and acks.
#[test]
fn cut_at_every_byte() {
    let start = || {
        let mut w = World::new(&["a", "b"], 5);
        (0..8u64).for_each(|n| w.nodes[0].store.set(0, &format!("k{n}"), n + 1));
        w
    };
    let talk = |w: &mut World| {
        w.run(7_000);
        (0..8u64).for_each(|n| w.nodes[1].store.set(1, &format!("x{n}"), n + 1));
        w.run(500);
    };
    let mut whole = start();
    talk(&mut whole);
    assert!(whole.converged() && whole.net.delivered > 400, "{}", whole.net.delivered);
    for at in 0..whole.net.delivered {
        for read_max in [1, 4_096] {
            let mut w = start();
            w.net.read_max = read_max;
            w.net.cut_at = Some(at);
            talk(&mut w);
            assert_eq!(w.net.cut_at, None, "it was cut");
            w.run(10_000);
            assert!(w.converged(), "cut at {at}");
            assert_eq!(w.nodes[0].store.contents().len(), 16);
            assert!(w.nodes.iter().all(|n| n.section.up_to_date()), "cut at {at}");
            assert_eq!(w.net.live_pipes().len(), 1);
        }
    }
}

/// Keys each name has written, with the last value.
type Written = BTreeMap<(usize, usize, String), u64>;

/// One seeded run: faults, then quiet; returns what must be the same in a second run.
fn run(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let names = &["a", "b", "c", "d"][..2 + random.below(3) as usize];
    let mut w = World::new(names, random.next_u64());
    let mut current: Vec<usize> = (0..names.len()).collect();
    let mut written = Written::new();
    let mut value = 0;
    for _ in 0..60 {
        w.net.read_max = [1, 3, 50, 4_096, 65_536][random.below(5) as usize];
        for &n in &current {
            w.nodes[n].lazy = random.below(2) == 0;
        }
        fault(&mut w, &mut random, &mut current);
        for _ in 0..random.below(6) {
            let who = random.below(names.len() as u64) as usize;
            let (table, key) = (random.below(2) as usize, random.below(12));
            let key = format!("{}-{key}", names[who]);
            value += 1;
            let node = &mut w.nodes[current[who]];
            if node.alive && node.handover.is_none() {
                node.store.set(table, &key, value);
                written.insert((who, table, key), value);
            }
        }
        w.run(random.below(4_000));
        check(&w, value);
    }
    heal(&mut w, &current, names.len(), &mut written);
    let state = |n: &usize| (w.nodes[*n].name.clone(), w.nodes[*n].sessions().join(" "));
    let states: Vec<_> = current.iter().map(state).collect();
    assert!(w.converged(), "seed {seed}: {states:?}");
    for ((_, table, key), value) in &written {
        assert_eq!(w.nodes[current[0]].store.get(*table, key), Some(*value), "seed {seed} {key}");
    }
    (w.net.hash, w.net.delivered)
}

fn fault(w: &mut World, random: &mut Random, current: &mut [usize]) {
    let who = random.below(current.len() as u64) as usize;
    let other = random.below(current.len() as u64) as usize;
    match random.below(12) {
        0 => {
            w.kill(current[who]);
            if random.below(2) == 0 {
                w.run(random.below(8_000));
            }
            current[who] = w.start(&w.nodes[current[who]].name.clone(), false);
        }
        1 => {
            let old = current[who];
            current[who] = w.reload(old);
            if random.below(4) == 0 {
                w.run(random.below(50));
                w.kill(old);
            }
        }
        2..=4 => {
            let live = w.net.live_pipes();
            if let Some(&pipe) = live.get(random.below(live.len().max(1) as u64) as usize) {
                w.net.cut(pipe);
            }
        }
        5 | 6 if who != other => w.block(current[who], current[other], true),
        7 | 8 => w.net.blocked.clear(),
        _ => {}
    }
}

/// What must hold at every moment.
fn check(w: &World, newest: u64) {
    for node in w.nodes.iter().filter(|n| n.alive) {
        let mut peers = BTreeSet::new();
        for peer in node.sessions() {
            assert!(peers.insert(peer), "{} has two sessions with {peer}", node.name);
            let session = node.session(peer).unwrap();
            let status = session.status();
            assert!(status.rounds <= stickring::limits::SESSION_ROUNDS_MAX);
            assert_eq!(session.counters().acks_garbage, 0);
        }
        for value in node.store.contents().values() {
            assert!((1..=newest).contains(value), "a value nobody wrote");
        }
    }
}

/// No more faults: every name's owner touches its keys again, and all must agree within 15 s.
fn heal(w: &mut World, current: &[usize], names: usize, written: &mut Written) {
    w.net.blocked.clear();
    w.net.read_max = 4_096;
    w.run(16_000);
    for &n in current {
        assert!(w.nodes[n].section.up_to_date(), "{:?}", w.nodes[n].log);
        assert_eq!(w.nodes[n].sessions().len(), names - 1, "{:?}", w.nodes[n].log);
    }
    for ((who, table, key), value) in written.iter_mut() {
        *value += 1;
        w.nodes[current[*who]].store.set(*table, key, *value);
    }
    w.run(1_000);
}

#[test]
fn seeded_runs_full_of_faults_converge() {
    let runs = std::env::var("SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for seed in 0..runs {
        run(seed);
    }
}

/// Cuts and partitions alone lose nothing: what was not acked is sent again, nothing is touched
/// twice.
#[test]
fn cuts_and_partitions_lose_no_change() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let names = &["a", "b", "c"][..2 + random.below(2) as usize];
        let mut w = World::new(names, random.next_u64());
        w.run(16_000);
        let mut value = 0;
        for _ in 0..60 {
            w.net.read_max = [1, 10, 60, 4_096][random.below(4) as usize];
            for node in &mut w.nodes {
                node.lazy = random.below(2) == 0;
            }
            for _ in 0..random.below(30) {
                let who = random.below(names.len() as u64) as usize;
                let key = format!("{}-{}", names[who], random.below(40));
                value += 1;
                w.nodes[who].store.set(random.below(2) as usize, &key, value);
            }
            // Some of it is under way when the pipe breaks.
            for _ in 0..random.below(6) {
                let who = random.below(names.len() as u64) as usize;
                w.nodes[who].work(&mut w.net);
            }
            let live = w.net.live_pipes();
            if let Some(&pipe) = live.get(random.below(live.len().max(1) as u64) as usize) {
                w.net.cut(pipe);
            }
            let (a, b) = (random.below(2) as usize, 1);
            w.block(a, (a + b) % names.len(), random.below(3) == 0);
            w.run(random.below(3_000));
            check(&w, value);
        }
        w.net.blocked.clear();
        w.net.read_max = 4_096;
        w.run(15_000);
        assert!(w.converged(), "seed {seed}");
        for node in &w.nodes {
            for peer in node.sessions() {
                let session = node.session(peer).unwrap();
                assert_eq!(session.status().unacked_batches, 0, "seed {seed}");
                assert_eq!(session.counters().entries_taught, 0, "seed {seed}: no lesson needed");
            }
        }
    }
}

#[test]
fn one_seed_one_run() {
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed));
    }
}
