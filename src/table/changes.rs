//! The change log: which rows were changed here, in order, for those who follow.
//!
//! An append-only sequence of slots with 64-bit positions. It owns the slots; each row keeps the
//! low 32 bits of its newest position ([`super::schema::CHANGE`]). Used by [`super::part`];
//! sessions hold cursors, which are positions. Rules: an entry is live iff its row's mark is that
//! entry's position (rows are read when sent, so the newest value wins); a row that is pending and
//! that nobody has read yet is not entered again; the log is bounded, and says from where on
//! nothing is missing.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use thiserror::Error;

/// An entry that belongs to no row: positions whose low 32 bits are 0 are skipped with it, since a
/// row's mark of 0 means none.
const HOLE: u32 = u32::MAX;

/// A cursor points before the oldest change that is still known.
///
/// *Effect:* the follower is re-taught everything, and goes on from the head it had before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("changes before position {base} are forgotten")]
pub struct Trimmed {
    /// The oldest cursor that misses nothing.
    pub base: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeLog {
    slots: VecDeque<u32>,
    /// Position of the first of `slots`.
    start: u64,
    /// No live entry below this was dropped. At most `start`.
    complete_from: u64,
    /// Somebody has read all before this.
    read_to: u64,
    limit: usize,
}

impl ChangeLog {
    /// An empty log that remembers at most `limit` changes; the first position is `first` (at least
    /// 1).
    pub fn new(limit: usize, first: u64) -> Self {
        let first = first.max(1);
        ChangeLog {
            slots: VecDeque::new(),
            start: first,
            complete_from: first,
            read_to: first,
            limit: limit.max(1),
        }
    }

    /// False for what no log can be: it comes from another process.
    pub fn is_sound(&self) -> bool {
        let head = self.start.checked_add(self.slots.len() as u64);
        let ordered = self.start >= 1 && self.complete_from <= self.start;
        ordered && self.limit >= 1 && head.is_some_and(|head| self.read_to <= head)
    }

    /// Position the next change gets. A cursor here has seen everything.
    #[inline]
    pub fn head(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    /// The oldest cursor that misses nothing.
    pub fn base(&self) -> u64 {
        self.complete_from
    }

    /// Entries remembered, dead ones included.
    pub fn entries(&self) -> usize {
        self.slots.len()
    }

    /// Full position of a row's mark, if its entry is still in the log.
    fn position(&self, slot: u32, mark: u32) -> Option<u64> {
        if mark == 0 {
            return None;
        }
        let last = self.head() - 1;
        let position = last.checked_sub(u64::from((last as u32).wrapping_sub(mark)))?;
        let at = position.checked_sub(self.start)?;
        (self.slots.get(at as usize) == Some(&slot)).then_some(position)
    }

    /// True while the row with this mark has a change that can still be read.
    pub fn is_pending(&self, slot: u32, mark: u32) -> bool {
        self.position(slot, mark).is_some()
    }

    /// Row `slot`, whose mark is `mark`, was changed. Returns its mark from now on. `alive(slot,
    /// mark)` tells whether a row exists with that mark; it is asked about at most three old
    /// entries.
    pub fn record(&mut self, slot: u32, mark: u32, alive: impl Fn(u32, u32) -> bool) -> u32 {
        if self.position(slot, mark).is_some_and(|p| p >= self.read_to) {
            return mark;
        }
        if self.head() as u32 == 0 {
            self.slots.push_back(HOLE);
        }
        let mark_now = self.head() as u32;
        self.slots.push_back(slot);
        self.drop_oldest(|s, m| alive(s, m) && (s, m) != (slot, mark));
        mark_now
    }

    /// Keeps the log within its limit, and lets go of up to two dead entries at its start.
    fn drop_oldest(&mut self, alive: impl Fn(u32, u32) -> bool) {
        for _ in 0..2 {
            let Some(&first) = self.slots.front() else { return };
            let dead = self.slots.len() > 1 && !alive(first, self.start as u32);
            if !dead && self.slots.len() <= self.limit {
                return;
            }
            self.slots.pop_front();
            self.start += 1;
            if !dead {
                self.complete_from = self.start;
            }
        }
    }

    /// Nobody needs changes before `lowest`: forgets them.
    pub fn trim(&mut self, lowest: u64) {
        let lowest = lowest.min(self.head());
        if lowest > self.start {
            self.slots.drain(..(lowest - self.start) as usize);
            self.start = lowest;
        }
        self.complete_from = self.complete_from.max(lowest);
        self.read_to = self.read_to.max(self.complete_from);
    }

    /// Where reading from cursor `from` begins, or why it cannot.
    pub fn begin(&self, from: u64) -> Result<u64, Trimmed> {
        if from < self.complete_from {
            return Err(Trimmed { base: self.complete_from });
        }
        Ok(from.max(self.start).min(self.head()))
    }

    /// Slot and mark of the entry at `position`; `None` at the head or for a skipped position.
    #[inline]
    pub fn entry(&self, position: u64) -> Option<(u32, u32)> {
        let at = position.checked_sub(self.start)?;
        let slot = *self.slots.get(at as usize)?;
        (slot != HOLE).then_some((slot, position as u32))
    }

    /// Somebody has read everything before `cursor`: rows entered before it are entered anew when
    /// they change again.
    pub fn mark_read(&mut self, cursor: u64) {
        self.read_to = self.read_to.max(cursor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Marks of rows, as rows keep them.
    type Marks = HashMap<u32, u32>;

    fn change(log: &mut ChangeLog, marks: &mut Marks, slot: u32) {
        let mark = marks.get(&slot).copied().unwrap_or(0);
        let new = log.record(slot, mark, |s, m| marks.get(&s) == Some(&m));
        assert_ne!(new, 0);
        marks.insert(slot, new);
    }

    fn read(log: &mut ChangeLog, marks: &Marks, from: u64) -> Result<Vec<u32>, Trimmed> {
        let begin = log.begin(from)?;
        let live = (begin..log.head())
            .filter_map(|p| log.entry(p))
            .filter(|(s, m)| marks.get(s) == Some(m))
            .map(|(s, _)| s)
            .collect();
        log.mark_read(log.head());
        Ok(live)
    }

    #[test]
    fn a_row_joins_once_until_somebody_has_read_it() {
        let (mut log, mut marks) = (ChangeLog::new(100, 1), Marks::new());
        for slot in [5, 6, 5, 5, 6] {
            change(&mut log, &mut marks, slot);
        }
        assert_eq!(log.entries(), 2);
        let cursor = log.head();
        assert_eq!(read(&mut log, &marks, 1), Ok(vec![5, 6]));
        change(&mut log, &mut marks, 5);
        assert_eq!(read(&mut log, &marks, cursor), Ok(vec![5]));
        assert_eq!(read(&mut log, &marks, 1), Ok(vec![6, 5]), "the older entry of 5 is dead");
    }

    #[test]
    fn a_cursor_below_what_is_known_must_start_over() {
        let (mut log, mut marks) = (ChangeLog::new(3, 1), Marks::new());
        for slot in 0..5 {
            change(&mut log, &mut marks, slot);
        }
        assert_eq!((log.entries(), log.base(), log.head()), (3, 3, 6));
        assert_eq!(read(&mut log, &marks, 2), Err(Trimmed { base: 3 }));
        assert_eq!(read(&mut log, &marks, 3), Ok(vec![2, 3, 4]));
        log.trim(5);
        assert_eq!(read(&mut log, &marks, 4), Err(Trimmed { base: 5 }));
        assert_eq!(read(&mut log, &marks, 5), Ok(vec![4]));
        log.trim(1000);
        assert_eq!((log.entries(), log.base(), log.head()), (0, 6, 6));
        assert_eq!(read(&mut log, &marks, 6), Ok(vec![]));
        assert_eq!(read(&mut log, &marks, 7), Ok(vec![]), "a cursor ahead reads nothing");
    }

    #[test]
    fn dropping_dead_entries_does_not_cut_anyone_off() {
        let (mut log, mut marks) = (ChangeLog::new(1000, 1), Marks::new());
        for _ in 0..500 {
            change(&mut log, &mut marks, 7);
            let head = log.head();
            log.mark_read(head);
        }
        assert!(log.entries() <= 2, "{}", log.entries());
        assert_eq!(log.base(), 1);
        assert_eq!(read(&mut log, &marks, 1), Ok(vec![7]));
    }

    #[test]
    fn marks_survive_the_32_bit_wrap() {
        let first = (1u64 << 32) - 3;
        let (mut log, mut marks) = (ChangeLog::new(100, first), Marks::new());
        for slot in 0..6 {
            change(&mut log, &mut marks, slot);
        }
        assert_eq!(log.head(), first + 7, "one position is skipped");
        assert!(marks.values().all(|&m| m != 0));
        for slot in 0..6 {
            change(&mut log, &mut marks, slot);
        }
        assert_eq!(log.head(), first + 7, "all are pending still");
        assert_eq!(read(&mut log, &marks, first), Ok(vec![0, 1, 2, 3, 4, 5]));
        // A mark from a whole turn ago is not taken for a new one.
        let old = *marks.get(&0).unwrap();
        let mut later = ChangeLog::new(100, first + (1 << 32));
        assert_ne!(later.record(9, 0, |_, _| true), 0);
        assert!(!later.is_pending(0, old));
    }

    proptest! {
        /// Followers that read at any pace miss no change: what they have seen last of a row is at
        /// least as new as the row, unless they are told to start over.
        #[test]
        fn nobody_misses_a_change(
            limit in 1usize..60,
            near_wrap: bool,
            ops in proptest::collection::vec((0u8..8, 0u32..12), 1..400),
        ) {
            let first = if near_wrap { (1u64 << 32) - 40 } else { 1 };
            let (mut log, mut marks) = (ChangeLog::new(limit, first), Marks::new());
            let mut version: HashMap<u32, u32> = HashMap::new();
            let mut followers = vec![(first, HashMap::<u32, u32>::new()); 3];
            for (what, n) in ops {
                match what {
                    0..=3 => {
                        change(&mut log, &mut marks, n);
                        *version.entry(n).or_default() += 1;
                    }
                    4 => {
                        // The row goes; a new one in its place has no mark.
                        marks.remove(&n);
                        version.remove(&n);
                    }
                    5 => {
                        let lowest = followers.iter().map(|f| f.0).min().unwrap();
                        log.trim(lowest);
                    }
                    _ => {
                        let (cursor, seen) = &mut followers[n as usize % 3];
                        match log.begin(*cursor) {
                            Err(Trimmed { base }) => {
                                prop_assert!(*cursor < base);
                                *seen = version.clone();
                                *cursor = log.head();
                            }
                            Ok(begin) => {
                                // A few at a time.
                                let end = (begin + u64::from(n)).min(log.head());
                                for p in begin..end {
                                    let Some((s, m)) = log.entry(p) else { continue };
                                    if marks.get(&s) == Some(&m) {
                                        seen.insert(s, version[&s]);
                                    }
                                }
                                *cursor = end;
                            }
                        }
                        let cursor = *cursor;
                        log.mark_read(cursor);
                    }
                }
                prop_assert!(log.entries() <= limit + 2);
                for (cursor, seen) in &followers {
                    if *cursor == log.head() && log.begin(*cursor).is_ok() {
                        for (slot, v) in &version {
                            prop_assert_eq!(seen.get(slot), Some(v));
                        }
                    }
                }
            }
        }
    }
}
