//! How much the log can take. The core never appends an entry for which there is no room: whoever runs it says beforehand
//! what there is, and an entry that finds none is refused, or left with its leader, while nothing has happened yet. Once
//! it is in the log, there is no way back.
//!
//! * A leader refuses a proposal ([`super::ProposeError::Full`]), and puts registrations off.
//! * A follower takes the entries of a message up to the first that does not fit, and acknowledges no more. It says that it
//!   is full ([`Raft::lacks_room_for`] is what its caller tells the others), and is sent heartbeats alone until it is not.
//! * A node that could not even append the first entry of its term does not stand for election.
//!
//! A node whose room is low but not gone waits one election timeout longer before it stands: others have the first chance.

use std::collections::VecDeque;

use fsd_wire::{ENTRY_HEADER_BYTES, NodeId};

use super::{LogChange, Raft, Role};
use crate::limits::RECORD_OVERHEAD_BYTES;
use crate::marks::mark;

/// Segments with room for records, in the order in which the log fills them. A record lies in one of them, and what is
/// left of the one before stays empty.
#[derive(Clone, Debug)]
pub(super) struct LogRoom {
    rest_bytes: u64,
    ready: VecDeque<u64>,
    /// Bytes of the payload of a leader's entry for which there was none.
    lacking: Option<usize>,
}

impl Default for LogRoom {
    /// Without end: nobody has said otherwise.
    fn default() -> Self {
        Self { rest_bytes: u64::MAX, ready: VecDeque::new(), lacking: None }
    }
}

fn record_bytes(payload_bytes: usize) -> u64 {
    (RECORD_OVERHEAD_BYTES + ENTRY_HEADER_BYTES + payload_bytes) as u64
}

impl LogRoom {
    pub(super) fn fits(&self, payload_bytes: usize) -> bool {
        let bytes = record_bytes(payload_bytes);
        bytes <= self.rest_bytes || self.ready.iter().any(|ready| bytes <= *ready)
    }

    /// Whether all of these fit, one behind the other.
    fn fit(&self, payloads: impl Iterator<Item = usize>) -> bool {
        let (mut rest_bytes, mut ready) = (self.rest_bytes, self.ready.iter());
        for payload_bytes in payloads {
            let bytes = record_bytes(payload_bytes);
            while bytes > rest_bytes {
                let Some(next) = ready.next() else { return false };
                rest_bytes = *next;
            }
            rest_bytes -= bytes;
        }
        true
    }

    /// An entry takes its room.
    pub(super) fn take(&mut self, payload_bytes: usize) {
        let bytes = record_bytes(payload_bytes);
        while bytes > self.rest_bytes {
            let Some(next) = self.ready.pop_front() else {
                self.rest_bytes = 0;
                return;
            };
            self.rest_bytes = next;
        }
        self.rest_bytes -= bytes;
    }

    /// An entry of the leader's does not fit.
    pub(super) fn lack(&mut self, payload_bytes: usize) {
        self.lacking = Some(payload_bytes);
    }

    /// Whoever leads now may send other entries.
    pub(super) fn forget_what_it_lacked(&mut self) {
        self.lacking = None;
    }
}

impl Raft {
    /// What the log can take now without asking for more: so many bytes of records in its last segment, and in each of
    /// those that are ready behind it. What waits in [`super::Actions::store_log`] is still to be stored there.
    pub fn set_room(&mut self, rest_bytes: u64, ready: impl IntoIterator<Item = u64>) {
        self.room.rest_bytes = rest_bytes;
        self.room.ready.clear();
        self.room.ready.extend(ready);
        for change in &self.actions.store_log {
            if let LogChange::Append(entry) = change {
                self.room.take(entry.payload.len());
            }
        }
        if self.room.lacking.is_some_and(|payload_bytes| self.room.fits(payload_bytes)) {
            self.room.lacking = None;
        }
    }

    /// Whether entries with payloads of these lengths could be appended, one behind the other.
    #[must_use]
    pub fn has_room_for(&self, payloads: impl IntoIterator<Item = usize>) -> bool {
        self.room.fit(payloads.into_iter())
    }

    /// The length of the payload for which the last message of the leader found no room; nothing once there is some.
    #[must_use]
    pub fn lacks_room_for(&self) -> Option<usize> {
        self.room.lacking
    }

    /// Whether this node has little room left: others are then given the chance to stand before it.
    pub fn set_low(&mut self, is_low: bool) {
        self.is_low = is_low;
    }

    /// As leader: whether a follower has said that it takes no entries at present.
    pub fn set_peer_full(&mut self, node: NodeId, is_full: bool) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&node)
        {
            mark!("leader-lets-full-follower-be", is_full && !progress.is_full);
            progress.is_full = is_full;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(rest_bytes: u64, ready: &[u64]) -> LogRoom {
        LogRoom { rest_bytes, ready: ready.iter().copied().collect(), lacking: None }
    }

    #[test]
    fn a_record_lies_in_one_segment() {
        let one = record_bytes(100);
        assert!(room(one, &[]).fits(100) && !room(one - 1, &[]).fits(100));
        assert!(room(one - 1, &[one]).fits(100));
        assert!(!room(one - 1, &[one - 1]).fits(100), "halves of it are of no use");
        assert!(room(0, &[one - 1, one]).fits(100), "a segment that is too short is passed over");
    }

    #[test]
    fn what_is_asked_for_together_fits_as_it_is_taken() {
        let one = record_bytes(100);
        for (rest, ready) in
            [(0, vec![one]), (one, vec![one]), (2 * one - 1, vec![2 * one]), (3 * one, vec![])]
        {
            let mut room = room(rest, &ready);
            let mut taken = 0;
            while room.fits(100) {
                taken += 1;
                room.take(100);
            }
            let again = self::room(rest, &ready);
            assert!(again.fit(std::iter::repeat_n(100, taken)), "{rest} {ready:?}");
            assert!(!again.fit(std::iter::repeat_n(100, taken + 1)), "{rest} {ready:?}");
        }
    }
}
