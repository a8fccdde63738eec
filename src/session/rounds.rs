//! Rounds: what was received waits here until the shards have applied it.
//!
//! A round is everything one pass over received bytes gave: the ids to ack, confirmations to send,
//! a lesson's end. Shards may finish rounds in any order; they are released in order, so that an
//! ack means that everything before it is applied. Owned by the established session. Bounded by
//! [`SESSION_ROUNDS_MAX`]: the session is not read while that many are open.

use crate::limits::SESSION_ROUNDS_MAX;
use std::collections::VecDeque;

/// What one pass over received bytes leaves to be done once it is applied.
#[derive(Debug, Default)]
pub struct Round {
    /// (our table, last id received in it).
    pub acks: Vec<(usize, u32)>,
    /// CONFIRMs to send.
    pub confirms: u32,
    /// Our lesson ends with this round; true: the teacher was up to date.
    pub lesson_end: Option<bool>,
    /// Updates given to the sink.
    pub updates: u64,
    applied: bool,
}

impl Round {
    /// True when nothing waits for this round.
    pub fn is_empty(&self) -> bool {
        self.updates == 0 && self.acks.is_empty() && self.confirms == 0 && self.lesson_end.is_none()
    }
}

/// Rounds in order.
#[derive(Debug, Default)]
pub struct Rounds {
    open: VecDeque<Round>,
    /// Number of the oldest open round.
    first: u64,
}

impl Rounds {
    /// None are open, and the next one is number `first`.
    pub fn starting_at(first: u64) -> Rounds {
        Rounds { first, ..Rounds::default() }
    }

    /// The number of the next round.
    pub fn next(&self) -> u64 {
        self.first + self.open.len() as u64
    }

    /// Adds a round and gives its number.
    pub fn push(&mut self, round: Round) -> u64 {
        self.open.push_back(round);
        self.first + self.open.len() as u64 - 1
    }

    /// Marks a round applied. Numbers that are not open are ignored.
    pub fn applied(&mut self, number: u64) {
        let at = number.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        if let Some(round) = at.and_then(|n| self.open.get_mut(n)) {
            round.applied = true;
        }
    }

    /// The oldest round, if it is applied.
    pub fn release(&mut self) -> Option<Round> {
        if !self.open.front()?.applied {
            return None;
        }
        self.first += 1;
        self.open.pop_front()
    }

    /// Rounds not released yet.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when no round is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// True when no more should be received for now.
    pub fn is_full(&self) -> bool {
        self.open.len() >= SESSION_ROUNDS_MAX
    }
}
