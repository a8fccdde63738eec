//! Rate counters: events in the current and the previous period (protocol.md 4.5).
//!
//! Plain values; a row stores one as three 32-bit words. Called by whoever reads, changes, sends or
//! receives a rate column. Rule: all times are ticks (milliseconds modulo 2^32), starts are even.

#![forbid(unsafe_code)]

use crate::time::Millis;

/// A counter's state, as it lies in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Tick at which the current period began; even.
    pub start: u32,
    /// Events of the current period.
    pub curr: u32,
    /// Events of the period before.
    pub prev: u32,
}

impl Rate {
    /// Milliseconds since the period began. A start a little in the future (at most one period: the
    /// peer's clock ran while the message travelled) counts as now.
    #[inline]
    fn elapsed(self, now: Millis, period_ms: u32) -> u64 {
        let e = now.tick().wrapping_sub(self.start);
        if e.wrapping_neg() <= period_ms { 0 } else { u64::from(e) }
    }

    /// Events of the last `period_ms`, the previous period counted by the part of it still in the
    /// window. A last single event does not fade within its window. 0 when the period is 0.
    pub fn read(self, now: Millis, period_ms: u32) -> u64 {
        let period = u64::from(period_ms);
        if period == 0 {
            return 0;
        }
        let e = self.elapsed(now, period_ms);
        let (curr, past, left) = if e <= period {
            (u64::from(self.curr), u64::from(self.prev), period - e)
        } else if e <= 2 * period {
            (0, u64::from(self.curr), 2 * period - e)
        } else {
            return 0;
        };
        if curr == 0 && past <= 1 {
            return past;
        }
        // At most 2^32 * 2^32 + 2^32 * 2^32: 65 bits in theory, hence the wide product.
        ((u128::from(past) * u128::from(left) + u128::from(curr) * u128::from(period))
            / u128::from(period)) as u64
    }

    /// Counts `n` events, turning the period first when it is over.
    pub fn add(&mut self, now: Millis, period_ms: u32, n: u32) {
        let e = self.elapsed(now, period_ms);
        let period = u64::from(period_ms);
        if e < period {
            self.curr = self.curr.wrapping_add(n);
            return;
        }
        self.prev = self.curr;
        self.curr = n;
        self.start = self.start.wrapping_add(period_ms);
        if e - period >= period {
            self.prev = 0;
            self.start = now.tick();
        }
        self.start &= !1;
    }

    /// `n` events, all of the current period, which begins now: what `set table` does.
    pub fn set(now: Millis, n: u32) -> Rate {
        Rate { start: now.tick() & !1, curr: n, prev: 0 }
    }

    /// A counter as received. The start is rounded down to an even tick, as HAProxy does.
    #[inline]
    pub fn from_wire(now: Millis, age_ms: u32, curr: u32, prev: u32) -> Rate {
        Rate { start: now.tick().wrapping_sub(age_ms) & !1, curr, prev }
    }

    /// Age to send: not rotated, so it may exceed the period.
    #[inline]
    pub fn age_ms(self, now: Millis) -> u32 {
        now.tick().wrapping_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_example() {
        // protocol.md 4.5: period 10 000, age 1501, curr 10, prev 20 is shown as 26.
        let now = Millis(1_000_000);
        let r = Rate::from_wire(now, 1501, 10, 20);
        assert_eq!(r.read(now, 10_000), 26);
        assert_eq!(r.age_ms(now), 1502, "the start is rounded down to an even tick");
        assert_eq!(
            Rate::from_wire(Millis(1_000_001), 1501, 10, 20).age_ms(Millis(1_000_001)),
            1501
        );
    }

    #[test]
    fn reading_over_three_periods() {
        let r = Rate { start: 0, curr: 100, prev: 50 };
        let read = |t| r.read(Millis(t), 1000);
        assert_eq!(read(0), 150);
        assert_eq!(read(500), 125);
        assert_eq!(read(1000), 100);
        assert_eq!(read(1500), 50);
        assert_eq!(read(2000), 0);
        assert_eq!(read(5000), 0);
        let one = Rate { start: 0, curr: 1, prev: 0 };
        assert_eq!(one.read(Millis(1999), 1000), 1, "a last single event does not fade");
        assert_eq!(one.read(Millis(2000), 1000), 1);
        assert_eq!(one.read(Millis(2001), 1000), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let r = Rate { start: 0, curr: u32::MAX, prev: u32::MAX };
        assert_eq!(r.read(Millis(0), u32::MAX), 2 * u64::from(u32::MAX));
        assert_eq!(r.read(Millis(7), 0), 0);
        let mut full = Rate { start: 0, curr: u32::MAX, prev: 0 };
        full.add(Millis(1), 10, 2);
        assert_eq!(full.curr, 1);
    }

    #[test]
    fn a_never_used_counter_sends_the_clock_as_its_age() {
        let now = Millis((1 << 32) + 4_178_877_155);
        assert_eq!(Rate::default().age_ms(now), 4_178_877_155);
        let back = Rate::from_wire(Millis(77), Rate::default().age_ms(now), 0, 0);
        assert_eq!(back.read(Millis(77), 10_000), 0);
    }

    #[test]
    fn a_start_slightly_ahead_counts_as_now() {
        let r = Rate { start: 1002, curr: 4, prev: 6 };
        assert_eq!(r.read(Millis(1000), 100), 10);
        let far = Rate { start: 9000, curr: 4, prev: 6 };
        assert_eq!(far.read(Millis(1000), 100), 0);
    }

    /// The straightforward counter: every event by time, counted per period since the start.
    struct Model {
        start: u64,
        curr: u64,
        prev: u64,
    }

    impl Model {
        fn roll(&mut self, now: u64, period: u64) {
            while now >= self.start + period {
                (self.prev, self.curr) = (self.curr, 0);
                if now - self.start >= 2 * period {
                    (self.prev, self.start) = (0, now & !1);
                    return;
                }
                self.start = (self.start + period) & !1;
            }
        }
    }

    proptest! {
        #[test]
        fn add_and_read_follow_the_model(
            origin in prop_oneof![Just(0u64), Just((1u64 << 32) - 5_000), 0..1u64 << 33],
            period in (1u32..5_000).prop_map(|p| p * 2),
            steps in proptest::collection::vec((0u64..12_000, 1u32..100), 1..40),
        ) {
            let mut now = origin & !1;
            let mut rate = Rate::set(Millis(now), 0);
            let p = u64::from(period);
            let mut model = Model { start: now, curr: 0, prev: 0 };
            for (advance, n) in steps {
                now += advance;
                rate.add(Millis(now), period, n);
                model.roll(now, p);
                model.curr += u64::from(n);
                prop_assert_eq!((rate.curr as u64, rate.prev as u64), (model.curr, model.prev));
                prop_assert_eq!(rate.start, model.start as u32);
                let e = now - model.start;
                let past = model.prev * (p - e.min(p)) + model.curr * p;
                prop_assert_eq!(rate.read(Millis(now), period), past / p);
            }
        }

        #[test]
        fn the_wire_keeps_what_is_read(
            now in 0..1u64 << 34, there in 0..1u64 << 34, start_back in 0u32..60_000,
            curr: u32, prev: u32, period in 1u32..100_000,
        ) {
            let (now, there) = (Millis(now & !1), Millis(there & !1));
            let start = now.tick().wrapping_sub(start_back) & !1;
            let sent = Rate { start, curr, prev };
            let received = Rate::from_wire(there, sent.age_ms(now), curr, prev);
            prop_assert_eq!(received.read(there, period), sent.read(now, period));
        }
    }
}
