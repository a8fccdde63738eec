//! Reloads of whole nodes in virtual time: both halves of the hand-over, while updates flow.

use crate::solo::*;
use crate::world::World;
use std::collections::BTreeMap;
use stickring::session::Event;
use stickring::session::random::Random;

#[test]
fn updates_and_requests_wait_for_the_old_process_and_nothing_else_does() {
    for first in [update(1, "a", 1), REQUEST.to_vec()] {
        let mut s = Solo::new();
        s.session.hold();
        s.feed(&[HEARTBEAT, &define_str(4), &ack(4, 7), CONFIRM, FINISHED].concat());
        assert_eq!(s.take_sent(), CONFIRM);
        assert!(s.session.wants_read() && s.session.is_holding());
        s.take_events();
        s.feed(&[&first[..], &update(2, "b", 1), REQUEST].concat());
        assert!(!s.session.wants_read() && s.session.is_held());
        let seen = (s.got.len(), s.take_sent(), s.take_events());
        assert_eq!(seen, (0, vec![], vec![]), "neither applied nor acked nor taught");
        // However long it takes, the peer is not silent: we do not listen.
        s.pass(20_000);
        assert!(s.closed().is_none());
        assert!(s.take_sent().chunks(2).all(|m| m == HEARTBEAT), "we are not silent, either");
        s.session.handle_release(s.now);
        assert!(s.session.wants_read());
        s.feed(&[]);
        assert_eq!(acks_in(&s.take_sent()), [(4, 2)]);
        assert!(!s.got.is_empty());
        let start = Event::TeachStart { lesson: 1, timed: true };
        assert!(s.take_events().contains(&start), "what waited counts now");
        // From its release on it may be silent for as long as any other.
        s.pass(4_999);
        assert!(s.closed().is_none());
        s.pass(1);
        assert!(s.closed().is_some());
    }
}

/// What each key of a name must be in the end.
type Wanted = BTreeMap<(usize, String), u64>;

/// Names that write and are not reloaded, and one that is, at any moment and again and again: every
/// last value is there in the end, though nobody touches anything twice.
#[test]
fn reloads_lose_no_update_and_overwrite_no_newer_one() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        // A node that is not up to date asks a remote, and the lesson of a remote that lags behind
        // another one is older than what that one has sent: it is reloaded at any age beside one
        // remote, and beside two when it is up to date.
        let two = seed % 2 == 0;
        let names = if two { &["node", "x", "y"][..] } else { &["node", "x"] };
        let mut w = World::new(names, random.next_u64());
        w.run(16_000);
        let (mut current, mut wanted, mut value) = (0, Wanted::new(), 0);
        if !two {
            w.kill(current);
            current = w.start("node", false);
            w.run(random.below(16_000));
        }
        for _ in 0..60 {
            w.net.read_max = [1, 10, 60, 4_096][random.below(4) as usize];
            for _ in 0..random.below(6) {
                let who = 1 + random.below(names.len() as u64 - 1) as usize;
                let (table, key) = (random.below(2) as usize, random.below(12));
                let key = format!("{}-{key}", w.names[who]);
                value += 1;
                w.nodes[who].store.set(table, &key, value);
                wanted.insert((table, key), value);
                w.run(random.below(30));
            }
            if random.below(2) == 0 {
                current = w.reload(current);
                // At times the next one comes while this one learns, or before it could begin.
                for _ in 0..random.below(3) {
                    w.run(random.below(120));
                    current = w.reload(current);
                }
            }
            w.run(random.below(1_500));
        }
        w.net.read_max = 4_096;
        w.run(16_000);
        let log = &w.nodes[current].log;
        assert_eq!(w.alive().len(), names.len(), "seed {seed}: old processes have left");
        for ((table, key), value) in &wanted {
            let got = w.nodes[current].store.get(*table, key);
            assert_eq!(got, Some(*value), "seed {seed}: {key} {log:?}");
        }
        assert!(w.converged(), "seed {seed}");
    }
}

/// All members reload at once, in any order, within half a second.
#[test]
fn all_members_reload_at_once() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut w = World::new(&["a", "b", "c"], random.next_u64());
        w.run(12_000);
        for n in 0..60u64 {
            w.nodes[(n % 3) as usize].store.set(0, &format!("k{n}"), n + 1);
        }
        w.run(1_000);
        assert!(w.converged());
        w.net.read_max = 1 + random.below(200) as usize;
        let mut current = [0, 1, 2];
        for round in 0..3 {
            for node in &mut current {
                *node = w.reload(*node);
                w.run(random.below(170));
            }
            w.run(if round == 2 { 16_000 } else { random.below(3_000) });
        }
        assert_eq!(w.alive().len(), 3, "seed {seed}");
        for n in current {
            assert_eq!(w.nodes[n].store.contents().len(), 60, "seed {seed}: {:?}", w.nodes[n].log);
            assert!(w.nodes[n].section.up_to_date());
        }
        assert!(w.converged(), "seed {seed}");
    }
}

/// Killed at any moment of a hand-over: the new process keeps what it got and asks a remote, the
/// old one gives up in its time.
#[test]
fn kills_in_the_middle_of_a_hand_over() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut w = World::new(&["node", "x"], random.next_u64());
        w.run(12_000);
        (0..80u64).for_each(|n| w.nodes[1].store.set(0, &format!("k{n}"), n + 1));
        w.run(1_000);
        w.net.read_max = 1;
        let new = w.reload(0);
        let steps = random.below(3_000);
        for _ in 0..steps {
            for (node, pipe) in std::mem::take(&mut w.net.accepts) {
                w.nodes[node].accepted(pipe, &w.net);
            }
            for n in w.alive() {
                w.nodes[n].work(&mut w.net);
            }
        }
        let victims = [vec![0], vec![new], vec![0, new]][random.below(3) as usize].clone();
        victims.iter().for_each(|&n| w.kill(n));
        w.net.read_max = 4_096;
        w.run(14_000);
        assert!(!w.nodes[0].alive, "seed {seed}: {:?}", w.nodes[0].log);
        let last = match w.nodes[new].alive {
            true => new,
            false => w.start("node", false),
        };
        w.run(12_000);
        let log = &w.nodes[last].log;
        assert_eq!(w.nodes[last].store.contents().len(), 80, "seed {seed} {steps}: {log:?}");
        assert!(w.nodes[last].section.up_to_date() && w.converged(), "seed {seed}");
    }
}
