//! A node's monotonic clock: it drifts against the others, and begins anywhere. There is no wall clock: fsd reads
//! none.

/// A rate of this is that of the simulated time itself.
pub(crate) const TRUE_RATE: u64 = 1000;

/// A clock that runs at its own rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriftingClock {
    since_us: u64,
    base_us: u64,
    rate: u64,
}

impl DriftingClock {
    /// A clock that shows `base_ms` now.
    pub(crate) fn new(now_us: u64, base_ms: u64) -> Self {
        Self { since_us: now_us, base_us: base_ms * 1000, rate: TRUE_RATE }
    }

    /// Goes on at another rate, without a jump.
    pub(crate) fn set_rate(&mut self, now_us: u64, rate: u64) {
        self.base_us = self.local_us(now_us);
        self.since_us = now_us;
        self.rate = rate;
    }

    /// What it shows.
    pub(crate) fn now_ms(&self, now_us: u64) -> u64 {
        self.local_us(now_us) / 1000
    }

    /// When it will show `local_ms`; at once if it does already.
    pub(crate) fn when_us(&self, now_us: u64, local_ms: u64) -> u64 {
        let wanted_us = local_ms.saturating_mul(1000).saturating_sub(self.base_us);
        let passed_us = u128::from(wanted_us) * u128::from(TRUE_RATE);
        let passed_us = u64::try_from(passed_us.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX);
        self.since_us.saturating_add(passed_us).max(now_us)
    }

    fn local_us(&self, now_us: u64) -> u64 {
        self.base_us + (now_us - self.since_us) * self.rate / TRUE_RATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_the_first_moment_at_which_the_clock_shows_it() {
        for rate in [500, 999, TRUE_RATE, 1001, 2000] {
            let mut clock = DriftingClock::new(1_000, 77);
            clock.set_rate(50_123, rate);
            for local_ms in 80..400 {
                let at_us = clock.when_us(50_123, local_ms);
                assert!(clock.now_ms(at_us) >= local_ms);
                assert!(at_us == 50_123 || clock.now_ms(at_us - 1) < local_ms, "{rate} {local_ms}");
            }
        }
    }
}
