//! How fast clients' requests are taken, where that is not as fast as they come: all clients together have an
//! [`Allowance`]. What is not taken waits in its socket, so that its client waits, too.

use std::collections::VecDeque;

use super::ConnectionId;
use crate::allowance::Allowance;
use crate::limits;

/// Whom it lets wait, and for how long.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    allowance: Allowance,
    is_set: bool,
    /// Clients that have something to say and wait.
    pub(super) held: VecDeque<ConnectionId>,
    /// Turns that let somebody wait.
    pub(super) turns: u64,
}

impl Pacer {
    /// From now on so much is taken, or all.
    pub(super) fn set(&mut self, now_ms: u64, bytes_per_ms: Option<u64>) {
        self.is_set = bytes_per_ms.is_some();
        self.allowance.set(now_ms, bytes_per_ms);
    }

    /// Bytes of requests that a turn may take. The last of them may be longer.
    pub(super) fn begin_turn(&mut self, now_ms: u64) -> usize {
        let left = self.allowance.left(now_ms).and_then(|left| usize::try_from(left).ok());
        left.unwrap_or(usize::MAX).min(limits::REQUEST_BYTES_PER_TURN_MAX)
    }

    /// So much was taken.
    pub(super) fn took(&mut self, bytes: usize) {
        self.allowance.took(bytes as u64);
    }

    /// Lets these clients wait.
    pub(super) fn hold(&mut self, held: VecDeque<ConnectionId>) {
        self.turns += u64::from(!held.is_empty());
        self.held = held;
    }

    /// How long nothing happens for who is held.
    pub(super) fn wait_ms(&self) -> Option<u64> {
        let is_anybody_held = self.is_set && !self.held.is_empty();
        is_anybody_held.then(|| self.allowance.wait_ms().max(1))
    }

    /// Bytes that are read from one connection in a turn.
    pub(super) fn connection_bytes(&self) -> usize {
        if self.is_set { limits::PACED_TURN_BYTES } else { limits::READ_BYTES_PER_TURN_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_held_is_taken_up_when_something_is_left() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.begin_turn(0), limits::REQUEST_BYTES_PER_TURN_MAX);
        pacer.set(0, Some(1000));
        let left = pacer.begin_turn(0);
        pacer.took(left + 20_000);
        pacer.hold(VecDeque::new());
        assert_eq!((pacer.wait_ms(), pacer.turns), (None, 0), "nobody waits");
        pacer.hold([ConnectionId::new(1, 1)].into());
        assert_eq!(pacer.wait_ms(), Some(21));
        assert_eq!((pacer.begin_turn(20), pacer.begin_turn(21)), (0, 1000));
        assert_eq!(pacer.wait_ms(), Some(1), "in the next turn");
        assert_eq!(pacer.turns, 1);
        pacer.set(21, None);
        assert_eq!(pacer.begin_turn(21), limits::REQUEST_BYTES_PER_TURN_MAX);
        assert_eq!(pacer.wait_ms(), None);
    }
}
