//! The one place that reads clocks.

use crate::Millis;
use rustix::time::{ClockId, clock_gettime};

/// The machine's clocks. A value, so that everything that needs time says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Monotonic time: what expiries and rates are measured with. The same in every process of the
    /// machine, so that rows can be handed over with their ticks.
    #[inline]
    pub fn now(self) -> Millis {
        let t = clock_gettime(ClockId::Monotonic);
        Millis(t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000)
    }

    /// The same clock in microseconds, to time short things.
    pub fn now_us(self) -> u64 {
        let t = clock_gettime(ClockId::Monotonic);
        t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000
    }

    /// Wall time in milliseconds since 1970, for dates shown to people.
    pub fn wall_ms(self) -> u64 {
        let t = clock_gettime(ClockId::Realtime);
        t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
    }
}
