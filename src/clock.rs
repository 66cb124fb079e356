//! The only place that reads a clock. Everything else is given the time.

use std::time::{Duration, Instant};

/// Time since the process started, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

// The room of the clock: what it reads is passed down as a value.
#[allow(clippy::disallowed_methods)]
impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    /// In microseconds: for measuring what is shorter than a turn. Nothing is decided by it.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros())
            .expect("a process does not run for ages of the world")
    }

    /// How long to wait until `deadline_ms`; `None` waits for ever. Rounded up, so that a wait ends when the
    /// deadline has come, not just before.
    pub(crate) fn until(&self, deadline_ms: Option<u64>) -> Option<Duration> {
        let deadline = Duration::from_millis(deadline_ms?);
        Some(deadline.saturating_sub(self.started.elapsed()))
    }
}
