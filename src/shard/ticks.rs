//! How long a shard's ticks took: what `show info` says about them. Owned and filled by the shard.

use crate::limits::TICK_US_MAX;

/// How long ticks took, in µs. A long one delays every session of the shard.
pub(super) struct Ticks {
    pub(super) histogram: hdrhistogram::Histogram<u64>,
    pub(super) sum_us: u64,
}

impl Ticks {
    pub(super) fn new() -> Ticks {
        let histogram = hdrhistogram::Histogram::new_with_bounds(1, TICK_US_MAX, 2);
        Ticks { histogram: histogram.expect("constant bounds, tested"), sum_us: 0 }
    }

    pub(super) fn record(&mut self, us: u64) {
        self.histogram.saturating_record(us);
        self.sum_us += us;
    }
}
