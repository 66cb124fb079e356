//! How fast clients' requests are taken, where that is not as fast as they come: so many bytes in each millisecond, all
//! clients together. What is not taken waits in its socket, so that its client waits, too.

use std::collections::VecDeque;

use super::ConnectionId;
use crate::limits;

/// A request may be larger than what may be taken now; then the next ones wait for it, but no longer than this.
const DEBT_MS_MAX: u64 = 50;
/// What was not used does not add up for longer than this.
const CREDIT_MS_MAX: u64 = 10;

/// Whom it lets wait, and for how long.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    bytes_per_ms: Option<u64>,
    /// What may be taken; less than nothing where more was.
    credit_bytes: i64,
    credited_ms: u64,
    /// Clients that have something to say and wait.
    pub(super) held: VecDeque<ConnectionId>,
    /// Turns that did not take all.
    pub(super) turns: u64,
}

impl Pacer {
    /// From now on so much is taken, or all.
    pub(super) fn set(&mut self, now_ms: u64, bytes_per_ms: Option<u64>) {
        if self.bytes_per_ms.is_none() {
            (self.credit_bytes, self.credited_ms) = (0, now_ms);
        }
        self.bytes_per_ms = bytes_per_ms;
    }

    /// Bytes of requests that a turn may take. The last of them may be longer.
    pub(super) fn begin_turn(&mut self, now_ms: u64) -> usize {
        let Some(bytes_per_ms) = self.bytes_per_ms else { return limits::REQUEST_BYTES_PER_TURN_MAX };
        self.turns += 1;
        let passed_ms = now_ms.saturating_sub(self.credited_ms);
        self.credited_ms = self.credited_ms.max(now_ms);
        let credit_bytes = self.credit_bytes.saturating_add((passed_ms * bytes_per_ms) as i64);
        self.credit_bytes = credit_bytes.min((bytes_per_ms * CREDIT_MS_MAX) as i64);
        usize::try_from(self.credit_bytes).unwrap_or(0).min(limits::REQUEST_BYTES_PER_TURN_MAX)
    }

    /// So much was taken.
    pub(super) fn took(&mut self, bytes: usize) {
        if let Some(bytes_per_ms) = self.bytes_per_ms {
            let debt_bytes_max = (bytes_per_ms * DEBT_MS_MAX) as i64;
            self.credit_bytes = (self.credit_bytes - bytes as i64).max(-debt_bytes_max);
        }
    }

    /// How long nothing happens for who is held.
    pub(super) fn wait_ms(&self) -> Option<u64> {
        let bytes_per_ms = self.bytes_per_ms.filter(|_| !self.held.is_empty())?;
        Some(self.credit_bytes.min(0).unsigned_abs() / bytes_per_ms + 1)
    }

    /// Bytes that are read from one connection in a turn.
    pub(super) fn connection_bytes(&self) -> usize {
        if self.bytes_per_ms.is_some() { limits::PACED_TURN_BYTES } else { limits::READ_BYTES_PER_TURN_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_is_taken_in_each_millisecond() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.begin_turn(5), limits::REQUEST_BYTES_PER_TURN_MAX);
        pacer.took(1_000_000);
        pacer.set(5, Some(1000));
        let mut taken = 0;
        for now_ms in 5..1005 {
            while pacer.begin_turn(now_ms) > 0 {
                pacer.took(300);
                taken += 300;
            }
        }
        assert!((999_000..=1_000_000).contains(&taken), "{taken}");
        assert!(pacer.turns >= 1000);
        pacer.set(1005, None);
        assert_eq!(pacer.begin_turn(1005), limits::REQUEST_BYTES_PER_TURN_MAX);
    }

    #[test]
    fn a_large_request_is_taken_and_the_next_ones_wait_for_it() {
        let mut pacer = Pacer::default();
        pacer.set(0, Some(1000));
        assert_eq!(pacer.begin_turn(0), 0);
        assert_eq!(pacer.begin_turn(1), 1000);
        pacer.took(21_000);
        pacer.held.push_back(ConnectionId::new(1, 1));
        assert_eq!(pacer.wait_ms(), Some(21));
        assert_eq!((pacer.begin_turn(21), pacer.begin_turn(22)), (0, 1000));
        // But not for as long as it takes, however large it was.
        pacer.took(16_000_000);
        assert_eq!(pacer.wait_ms(), Some(DEBT_MS_MAX + 1));
    }

    #[test]
    fn what_is_not_used_is_lost() {
        let mut pacer = Pacer::default();
        pacer.set(0, Some(1000));
        assert_eq!(pacer.begin_turn(1_000_000), 1000 * CREDIT_MS_MAX as usize);
        assert_eq!(pacer.wait_ms(), None, "nobody waits");
    }
}
