//! Sessions that become data and sessions again, at random moments of whole conversations: nothing
//! of what they say or do may differ from those that do not.

use crate::world::World;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stickring::session::random::Random;
use stickring::session::{BadState, Counters, Session, SessionState};

/// The way of a value to another process.
pub fn copy<T: Serialize + DeserializeOwned>(value: &T) -> T {
    postcard::from_bytes(&postcard::to_allocvec(value).unwrap()).unwrap()
}

/// Everything that can be seen of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    logs: Vec<Vec<String>>,
    contents: Vec<String>,
    counters: Vec<Counters>,
    statuses: Vec<String>,
}

/// Three nodes that meet, learn, push, lose each other and restart.
fn conversation(seed: u64, reborn: bool) -> (Seen, u32) {
    let mut w = World::new(&["a", "b", "c"], seed);
    let mut random = Random::new(seed ^ 77);
    let set_reborn = |w: &mut World| {
        for (i, node) in w.nodes.iter_mut().enumerate() {
            if reborn && node.reborn.is_none() {
                node.reborn = Some(Random::new(seed * 31 + i as u64));
            }
            node.lazy = seed % 3 == 1;
        }
    };
    set_reborn(&mut w);
    w.net.read_max = 1 + random.below(300) as usize;
    for step in 0..40u64 {
        for _ in 0..random.below(12) {
            let (node, table) = (random.below(3) as usize, random.below(2) as usize);
            w.nodes[node].store.set(table, &format!("k{}", random.below(60)), step);
        }
        match random.below(12) {
            0 => {
                let pipes = w.net.live_pipes();
                if let Some(&pipe) = pipes.get(random.below(pipes.len().max(1) as u64) as usize) {
                    w.net.close(pipe, (step % 2) as usize);
                }
            }
            1 => {
                w.reload(0);
                set_reborn(&mut w);
            }
            _ => {}
        }
        w.run(random.below(2_500));
    }
    w.run(30_000);
    let sessions = || w.nodes.iter().flat_map(|n| n.sessions().into_iter().map(move |p| (n, p)));
    let seen = Seen {
        logs: w.nodes.iter().map(|n| n.log.clone()).collect(),
        contents: w.nodes.iter().map(|n| format!("{:?}", n.store.contents())).collect(),
        counters: sessions().map(|(n, p)| *n.session(p).unwrap().counters()).collect(),
        statuses: sessions()
            .map(|(n, p)| format!("{:?}", n.session(p).unwrap().status()))
            .collect(),
    };
    (seen, w.nodes.iter().map(|n| n.rebirths).sum())
}

#[test]
fn a_conversation_does_not_notice_that_a_process_was_replaced() {
    let mut rebirths = 0;
    for seed in 0..60 {
        let (plain, none) = conversation(seed, false);
        let (reborn, some) = conversation(seed, true);
        assert_eq!(plain, reborn, "seed {seed}");
        assert_eq!(none, 0);
        rebirths += some;
    }
    assert!(rebirths > 20_000, "{rebirths}");
}

/// A session's state as another process would read it: cut short or changed, it is refused or
/// makes a session, and never anything else.
#[test]
fn damaged_states_cost_the_hand_over_and_nothing_else() {
    let mut w = World::new(&["a", "b"], 3);
    (0..50u64).for_each(|n| w.nodes[0].store.set((n % 2) as usize, &format!("k{n}"), n));
    w.run(12_000);
    w.nodes[0].store.set(0, "k", 8);
    w.run(50);
    let state = w.nodes[1].session("a").unwrap().export().unwrap();
    let bytes = postcard::to_allocvec(&state).unwrap();
    let mut tables = crate::model::ModelTables::numbered(2);
    let mut read = |bytes: &[u8]| -> Result<(), Option<BadState>> {
        let state: SessionState = postcard::from_bytes(bytes).map_err(|_| None)?;
        let session = Session::import(state, &mut tables).map_err(Some)?;
        // What it says of itself must not panic either.
        let _ = session.status();
        Ok(())
    };
    assert_eq!(read(&bytes), Ok(()));
    for cut in 0..bytes.len() {
        assert!(read(&bytes[..cut]).is_err(), "{cut}");
    }
    let mut random = Random::new(9);
    let mut refused = 0;
    for _ in 0..5_000 {
        let mut damaged = bytes.clone();
        let at = random.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << random.below(8);
        refused += u32::from(read(&damaged).is_err());
    }
    assert!(refused > 100, "{refused}");
}
