//! Bounded single-producer single-consumer rings from every shard to every other.
//!
//! Each shard owns its row of producers and its column of consumers. A full ring is not an error:
//! the sender keeps the message in its own outbox, and what fills outboxes is bounded by credits.

use super::Doorbell;
use crate::limits::RING_SLOTS;
use std::collections::VecDeque;
use std::sync::Arc;

/// One shard's ends of the mesh.
pub struct MeshEnd<T> {
    me: usize,
    out: Vec<Option<rtrb::Producer<T>>>,
    inbox: Vec<Option<rtrb::Consumer<T>>>,
    waiting: Vec<VecDeque<T>>,
    rang: Vec<bool>,
    bells: Arc<Vec<Doorbell>>,
    /// Whose ring is looked at first, in turn.
    next: usize,
    sent: u64,
    received: u64,
}

/// Makes the ends for `shards` shards.
pub fn mesh<T>(shards: usize, bells: &Arc<Vec<Doorbell>>) -> Vec<MeshEnd<T>> {
    let mut ends: Vec<MeshEnd<T>> = (0..shards)
        .map(|me| MeshEnd {
            me,
            out: (0..shards).map(|_| None).collect(),
            inbox: (0..shards).map(|_| None).collect(),
            waiting: (0..shards).map(|_| VecDeque::new()).collect(),
            rang: vec![false; shards],
            bells: bells.clone(),
            next: 0,
            sent: 0,
            received: 0,
        })
        .collect();
    for source in 0..shards {
        for target in (0..shards).filter(|&t| t != source) {
            let (producer, consumer) = rtrb::RingBuffer::new(RING_SLOTS);
            ends[source].out[target] = Some(producer);
            ends[target].inbox[source] = Some(consumer);
        }
    }
    ends
}

impl<T> MeshEnd<T> {
    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.out.len()
    }

    /// Queues `message` for `target`, which may be this shard itself. Bells ring at
    /// [`MeshEnd::flush`].
    pub fn send(&mut self, target: usize, message: T) {
        self.rang[target] = true;
        self.sent += 1;
        if target == self.me || !self.waiting[target].is_empty() {
            self.waiting[target].push_back(message);
            return;
        }
        let Some(ring) = self.out[target].as_mut() else { return };
        if let Err(rtrb::PushError::Full(message)) = ring.push(message) {
            self.waiting[target].push_back(message);
        }
    }

    /// Takes the next message from anyone, in turn: one who sends a lot drowns out nobody.
    pub fn receive(&mut self) -> Option<T> {
        if let Some(message) = self.waiting[self.me].pop_front() {
            self.received += 1;
            return Some(message);
        }
        let shards = self.inbox.len();
        for source in (self.next..shards).chain(0..self.next) {
            let Some(ring) = self.inbox[source].as_mut() else { continue };
            if let Ok(message) = ring.pop() {
                self.next = (source + 1) % shards;
                // The sender may be waiting for room.
                self.rang[source] |= ring.slots() == 0;
                self.received += 1;
                return Some(message);
            }
        }
        None
    }

    /// Moves what waited for room into the rings, and rings each shard that got something, once.
    pub fn flush(&mut self) {
        for target in (0..self.out.len()).filter(|&t| t != self.me) {
            let Some(ring) = self.out[target].as_mut() else { continue };
            while ring.slots() > 0 {
                let Some(message) = self.waiting[target].pop_front() else { break };
                if let Err(rtrb::PushError::Full(message)) = ring.push(message) {
                    self.waiting[target].push_front(message);
                    break;
                }
                self.rang[target] = true;
            }
            if std::mem::take(&mut self.rang[target]) {
                self.bells[target].ring();
            }
        }
    }

    /// Messages sent and received since the start: when the sums over all shards are equal and stay
    /// so, none is on its way.
    pub fn traffic(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// True when [`MeshEnd::receive`] would give something, or messages of ours have room now.
    pub fn has_work(&self) -> bool {
        !self.waiting[self.me].is_empty()
            || self.inbox.iter().flatten().any(|ring| ring.slots() > 0)
            || (0..self.out.len()).any(|t| {
                !self.waiting[t].is_empty() && self.out[t].as_ref().is_some_and(|r| r.slots() > 0)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_through_a_full_ring() {
        let bells = Arc::new(vec![Doorbell::default(), Doorbell::default()]);
        let mut ends = mesh::<usize>(2, &bells);
        let count = RING_SLOTS * 3;
        (0..count).for_each(|i| ends[0].send(1, i));
        let mut got = Vec::new();
        while got.len() < count {
            while let Some(i) = ends[1].receive() {
                got.push(i);
            }
            ends[0].flush();
        }
        assert_eq!(got, (0..count).collect::<Vec<_>>());
        assert!(!ends[0].has_work() && !ends[1].has_work());
    }

    #[test]
    fn nobody_is_drowned_out() {
        let bells = Arc::new((0..3).map(|_| Doorbell::default()).collect());
        let mut ends = mesh::<usize>(3, &bells);
        for _ in 0..500 {
            ends[0].send(2, 0);
        }
        ends[1].send(2, 1);
        let early: Vec<_> = (0..3).filter_map(|_| ends[2].receive()).collect();
        assert!(early.contains(&1), "{early:?}");
    }

    #[test]
    fn a_shard_can_write_to_itself() {
        let bells = Arc::new(vec![Doorbell::default()]);
        let mut ends = mesh::<u8>(1, &bells);
        ends[0].send(0, 7);
        assert!(ends[0].has_work());
        assert_eq!(ends[0].receive(), Some(7));
        assert_eq!(ends[0].receive(), None);
    }
}
