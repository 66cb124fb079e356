//! The bound on what all clients together make the node hold: commands that have begun to come, requests that are
//! not answered, replies that are not taken.
//!
//! Nothing here waits for room. What would go over the bound is refused as busy and let go of at once, so that
//! two clients can never wait for each other's room: a request that was taken is answered or its time runs out, and
//! what is held for a client that neither sends nor takes goes with its connection at its deadline.

use bytes::Bytes;
use fsd_wire::client::{ClientRequest, Operation};

use crate::limits;

/// A queue of a connection keeps room for so many when it is empty; one that grew further gives its memory back.
pub(super) const QUEUE_KEPT_MAX: usize = 16;

/// A gauge and its bound, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    held_bytes: usize,
    bytes_max: usize,
}

impl Budget {
    /// Nothing is held.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held_bytes: 0, bytes_max }
    }

    /// One connection holds `after` bytes now, and held `before` when it was last counted.
    ///
    /// # Panics
    /// If it was not counted so.
    pub(super) fn recount(&mut self, before: usize, after: usize) {
        assert!(before <= self.held_bytes, "{before} of {} bytes are given back", self.held_bytes);
        self.held_bytes = self.held_bytes - before + after;
    }

    /// Whether something of this size that is counted already must be let go of. Large things may use three
    /// quarters of the bound: behind them there is room for small ones.
    pub(super) fn is_over(&self, size_bytes: usize) -> bool {
        self.held_bytes > self.bound(size_bytes)
    }

    /// Whether there is room for something of this size that is not counted yet.
    pub(super) fn has_room(&self, size_bytes: usize) -> bool {
        self.held_bytes + size_bytes <= self.bound(size_bytes)
    }

    /// What is held.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The replies of one connection that are not taken: a quarter of the bound, but at least one of the largest.
    pub(super) fn output_bytes_max(&self, max_file_bytes: u64) -> usize {
        let largest =
            usize::try_from(max_file_bytes).expect("it is bounded") + limits::REQUEST_OVERHEAD_BYTES;
        (self.bytes_max / 4).max(largest)
    }

    fn bound(&self, size_bytes: usize) -> usize {
        if size_bytes > limits::SMALL_BYTES_MAX {
            self.bytes_max - self.bytes_max / 4
        } else {
            self.bytes_max
        }
    }
}

/// What a request that was taken counts for until it is answered: itself, and what the node keeps beside it.
pub(super) fn held_by_request(request: &ClientRequest) -> usize {
    let bytes = match &request.operation {
        Operation::Read { name } | Operation::Stat { name } => name.len(),
        Operation::Change { command } | Operation::SessionChange { command, .. } => command.len(),
        Operation::List { prefix, after, .. } => prefix.len() + after.len(),
        Operation::Status
        | Operation::StorageStatus
        | Operation::OpenSession
        | Operation::KeepAlive { .. }
        | Operation::CloseSession { .. }
        | Operation::BackupBegin
        | Operation::BackupChunk { .. } => 0,
    };
    limits::REQUEST_OVERHEAD_BYTES + bytes
}

/// What pieces of output count for until they are written. Slices of the mapped log count in full, although they
/// hold no memory of their own: a client that does not take them keeps the log's pages in use.
pub(super) fn held_by_pieces(pieces: &[Bytes]) -> usize {
    pieces.iter().map(|piece| piece.len() + limits::PIECE_OVERHEAD_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn large_things_leave_a_quarter_to_small_ones() {
        let mut budget = Budget::new(8 * MIB);
        assert!(budget.has_room(6 * MIB) && !budget.has_room(6 * MIB + 1));
        budget.recount(0, 6 * MIB);
        assert!(!budget.is_over(MIB));
        budget.recount(0, 1);
        assert!(budget.is_over(MIB) && !budget.is_over(1));
        assert!(!budget.has_room(MIB) && budget.has_room(1));
        budget.recount(0, 2 * MIB);
        assert!(budget.is_over(1) && !budget.has_room(0));
        budget.recount(6 * MIB, 0);
        budget.recount(2 * MIB, 1);
        budget.recount(1, 0);
        assert_eq!(budget.held_bytes(), 1);
    }

    #[test]
    fn one_connection_may_always_have_the_largest_reply() {
        let budget = Budget::new(8 * MIB);
        assert_eq!(budget.output_bytes_max(1), 2 * MIB);
        assert!(budget.output_bytes_max(3 * MIB as u64) > 3 * MIB);
    }

    #[test]
    #[should_panic(expected = "are given back")]
    fn what_was_not_counted_is_not_given_back() {
        Budget::new(MIB).recount(1, 0);
    }
}
