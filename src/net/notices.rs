//! What is said about the clients' connections: enough to understand, not enough to fill a disk.

use std::fmt;

/// Lines in one period; what is over is counted.
const LINES_PER_PERIOD_MAX: u32 = 20;
/// Sweeps in a period.
const PERIOD_TICKS: u64 = 20;

/// A bounded voice.
#[derive(Debug, Default)]
pub(super) struct Notices {
    ticks: u64,
    said: u32,
    unsaid: u64,
}

impl Notices {
    /// Says something, unless too much was said lately.
    pub(super) fn say(&mut self, line: fmt::Arguments<'_>) {
        if self.admit() {
            log::info!("{line}");
        }
    }

    /// A sweep has passed.
    pub(super) fn tick(&mut self) {
        if let Some(unsaid) = self.end_of_period() {
            log::info!("{unsaid} more connections or requests of clients were turned away or closed");
        }
    }

    fn admit(&mut self) -> bool {
        let admitted = self.said < LINES_PER_PERIOD_MAX;
        if admitted {
            self.said += 1;
        } else {
            self.unsaid += 1;
        }
        admitted
    }

    /// At the end of a period: how much was not said in it, if anything.
    fn end_of_period(&mut self) -> Option<u64> {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(PERIOD_TICKS) {
            return None;
        }
        self.said = 0;
        Some(std::mem::take(&mut self.unsaid)).filter(|unsaid| *unsaid > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let mut notices = Notices::default();
        let admitted = (0..1000).filter(|_| notices.admit()).count();
        assert_eq!(admitted, LINES_PER_PERIOD_MAX as usize);
        let counts: Vec<u64> = (0..2 * PERIOD_TICKS).filter_map(|_| notices.end_of_period()).collect();
        assert_eq!(counts, [1000 - u64::from(LINES_PER_PERIOD_MAX)]);
        assert!(notices.admit());
    }
}
