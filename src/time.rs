//! Time as the core sees it: a number the caller passes in. `engine/clock.rs` reads the real clock.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds on the machine's monotonic clock. Never wall time, never negative.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// The clock modulo 2^32, as HAProxy's ticks are: rates and row expiries are kept in this form.
    #[inline(always)]
    pub fn tick(self) -> u32 {
        self.0 as u32
    }

    /// `self + ms`, stopping at the end of time instead of wrapping.
    #[inline]
    pub fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[inline]
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}
