//! When rows expire: a tree of earliest deadlines over blocks of 64 rows.
//!
//! Rows keep their own deadline; this keeps, for each block of 64 neighbouring rows, a moment at or
//! before the earliest of them, and above that the minimum of 16 such, and so on to one root. It
//! owns nothing else. Used by [`super::store`]. Rule: a leaf is never later than any deadline in
//! its block, so that the root says when there may be work at all.
//!
//! Touching a row to a later deadline changes nothing here: the leaf is then early, and is put
//! right when it comes due and its 64 rows, neighbours in memory, are read. This takes the place of
//! a wheel with links in the rows: no link to follow (a cache miss each), four bytes less a row,
//! and the soonest to expire is found exactly.

#![forbid(unsafe_code)]

/// Rows of a block.
pub const BLOCK: usize = 64;
/// Children of a node: 16 deadlines are two cache lines.
const FAN: usize = 16;
/// The deadline of a block without rows.
pub const NEVER: u64 = u64::MAX;

/// See the module's head. Deadlines are [`crate::Millis`] as plain numbers.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    /// Level 0: one entry a block. Level n+1: the minimum of each 16 of level n. The last has one.
    levels: Vec<Vec<u64>>,
}

impl Deadlines {
    /// The blocks' moments.
    pub fn leaves(&self) -> &[u64] {
        self.levels.first().map_or(&[], |leaves| leaves)
    }

    /// A tree over these blocks.
    pub fn over(leaves: Vec<u64>) -> Deadlines {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let least = |part: &[u64]| part.iter().copied().min().unwrap_or(NEVER);
            let above = level.chunks(FAN).map(least).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        if !level.is_empty() {
            levels.push(level);
        }
        Deadlines { levels }
    }

    /// Makes room for blocks 0 to `blocks`-1; new ones have no deadline.
    #[inline]
    pub fn grow_to(&mut self, blocks: usize) {
        if self.levels.first().is_none_or(|leaves| leaves.len() < blocks) {
            self.grow(blocks);
        }
    }

    #[cold]
    fn grow(&mut self, blocks: usize) {
        let mut level = 0;
        let mut need = blocks;
        while need > 0 {
            if self.levels.len() == level {
                // A new root: over what there was before.
                let first = match level.checked_sub(1) {
                    Some(below) => self.levels[below].iter().take(FAN).min().copied(),
                    None => None,
                };
                self.levels.push(Vec::from_iter(first));
            }
            let entries = &mut self.levels[level];
            if entries.len() < need {
                entries.resize(need, NEVER);
            }
            if entries.len() == 1 {
                return;
            }
            need = entries.len().div_ceil(FAN);
            level += 1;
        }
    }

    /// The block's moment.
    #[cfg(test)]
    fn of(&self, block: usize) -> u64 {
        self.levels[0][block]
    }

    /// A row of `block` expires at `deadline`: makes its moment that early, if it is later.
    #[inline]
    pub fn lower(&mut self, block: usize, deadline: u64) {
        let mut at = block;
        for level in &mut self.levels {
            if level[at] <= deadline {
                return;
            }
            level[at] = deadline;
            at /= FAN;
        }
    }

    /// Sets a block's moment, earlier or later.
    pub fn set(&mut self, block: usize, deadline: u64) {
        let mut at = block;
        let mut value = deadline;
        for i in 0..self.levels.len() {
            let old = std::mem::replace(&mut self.levels[i][at], value);
            if old == value {
                return;
            }
            at /= FAN;
            if self.levels.len() > i + 1 {
                let from = at * FAN;
                let to = (from + FAN).min(self.levels[i].len());
                value = self.levels[i][from..to].iter().copied().min().unwrap_or(NEVER);
            }
        }
    }

    /// The earliest moment of all; [`NEVER`] when there is none.
    #[inline]
    pub fn earliest(&self) -> u64 {
        self.levels.last().and_then(|l| l.first()).copied().unwrap_or(NEVER)
    }

    /// A block with the earliest moment, and that moment.
    pub fn earliest_block(&self) -> Option<(usize, u64)> {
        let earliest = self.earliest();
        if earliest == NEVER {
            return None;
        }
        let mut at = 0;
        for level in self.levels.iter().rev().skip(1) {
            let from = at * FAN;
            let to = (from + FAN).min(level.len());
            at = from + level[from..to].iter().position(|&d| d == earliest)?;
        }
        Some((at, earliest))
    }

    /// Forgets all blocks.
    pub fn clear(&mut self) {
        self.levels.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_has_no_deadline() {
        let mut d = Deadlines::default();
        assert_eq!((d.earliest(), d.earliest_block()), (NEVER, None));
        d.grow_to(1);
        assert_eq!((d.earliest(), d.earliest_block()), (NEVER, None));
        d.lower(0, 5);
        assert_eq!(d.earliest_block(), Some((0, 5)));
    }

    proptest! {
        #[test]
        fn the_root_is_the_minimum(
            ops in proptest::collection::vec((0usize..700, 0u64..1000, any::<bool>()), 1..300),
        ) {
            let mut tree = Deadlines::default();
            let mut plain: Vec<u64> = Vec::new();
            for (block, deadline, set) in ops {
                if block >= plain.len() {
                    plain.resize(block + 1, NEVER);
                    tree.grow_to(block + 1);
                }
                if set {
                    plain[block] = if deadline > 900 { NEVER } else { deadline };
                    tree.set(block, plain[block]);
                } else {
                    plain[block] = plain[block].min(deadline);
                    tree.lower(block, deadline);
                }
                let least = plain.iter().copied().min().unwrap();
                prop_assert_eq!(tree.earliest(), least);
                match tree.earliest_block() {
                    None => prop_assert_eq!(least, NEVER),
                    Some((b, d)) => prop_assert_eq!((plain[b], d), (least, least)),
                }
                prop_assert_eq!(tree.of(block), plain[block]);
            }
        }
    }
}
