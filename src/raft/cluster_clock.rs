//! Cluster time (DESIGN section 5): the leader's monotonic clock, continued from the last stamp in the log, or from what
//! the leader before told last in a sign of life.
//!
//! So a new leader's time is behind by no more than a heartbeat and an election, however long nothing was written.
//! It is never ahead: each leader's clock runs from a time that had come when it was elected.

use fsd_wire::ClusterTimeMs;

use crate::mutants::mutant;

/// Runs while this node leads; stands still at the highest stamp seen while it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterClock {
    /// The highest stamp that was ever in this node's log, or that a leader told. A truncation does not take it back: time that was
    /// told once may be told again, but never an earlier one.
    last: ClusterTimeMs,
    /// The leader's monotonic clock and the cluster time at one moment.
    anchor: Option<(u64, ClusterTimeMs)>,
}

impl ClusterClock {
    pub(super) fn new(last: ClusterTimeMs) -> Self {
        Self { last, anchor: None }
    }

    /// A stamp was seen in an entry, or a leader told its time.
    pub(super) fn note(&mut self, stamp: ClusterTimeMs) {
        self.last = self.last.max(stamp);
    }

    pub(super) fn last(&self) -> ClusterTimeMs {
        self.last
    }

    /// This node leads from now on: time goes on where the log ends.
    pub(super) fn start(&mut self, now_ms: u64) {
        self.anchor = Some((now_ms, self.last));
    }

    /// This node no longer leads.
    pub(super) fn stop(&mut self) {
        self.anchor = None;
    }

    pub(super) fn now(&self, now_ms: u64) -> ClusterTimeMs {
        match self.anchor {
            Some((then_ms, _)) if mutant!("stamp-goes-back") => ClusterTimeMs(now_ms.saturating_sub(then_ms)),
            Some((then_ms, base)) => {
                let passed_ms = now_ms.saturating_sub(then_ms);
                self.last.max(ClusterTimeMs(base.0.saturating_add(passed_ms)))
            }
            None => self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_still_without_a_leader_and_never_goes_backwards() {
        let mut clock = ClusterClock::new(ClusterTimeMs(700));
        assert_eq!(clock.now(1_000_000), ClusterTimeMs(700));
        clock.start(1_000_000);
        assert_eq!(clock.now(1_000_250), ClusterTimeMs(950));
        // A monotonic clock that is read a little late, or a stamp from a leader that was ahead.
        assert_eq!(clock.now(999_000), ClusterTimeMs(700));
        clock.note(ClusterTimeMs(2000));
        assert_eq!(clock.now(1_000_250), ClusterTimeMs(2000));
        clock.stop();
        clock.note(ClusterTimeMs(10));
        assert_eq!(clock.now(9_000_000), ClusterTimeMs(2000));
        clock.start(5);
        assert_eq!(clock.now(6), ClusterTimeMs(2001));
    }

    #[test]
    fn stays_at_the_end_of_its_range() {
        let mut clock = ClusterClock::new(ClusterTimeMs(u64::MAX - 1));
        clock.start(0);
        assert_eq!(clock.now(10), ClusterTimeMs(u64::MAX));
    }
}
