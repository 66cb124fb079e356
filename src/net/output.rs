//! What waits to be written to a socket: pieces in their order, large ones shared with the log's mapping.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use bytes::{Buf, Bytes};

use super::budget::QUEUE_KEPT_MAX;
use crate::limits;

/// Pieces gathered into one system call.
const SLICES_PER_WRITE: usize = 64;

/// A queue of pieces.
#[derive(Debug, Default)]
pub(super) struct Output {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Output {
    /// Appends pieces.
    pub(super) fn push(&mut self, pieces: impl IntoIterator<Item = Bytes>) {
        for piece in pieces {
            if !piece.is_empty() {
                self.bytes += piece.len();
                self.pieces.push_back(piece);
            }
        }
    }

    /// Bytes not yet written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it counts for: the bytes, and the memory around each piece.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes + self.pieces.len() * limits::PIECE_OVERHEAD_BYTES
    }

    /// Whether all is written.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Writes until all is written (`true`), or until the socket takes no more or the budget is spent (`false`).
    pub(super) fn write_to(&mut self, socket: &mut impl Write, budget_bytes: usize) -> io::Result<Progress> {
        let mut spent_bytes = 0;
        while !self.pieces.is_empty() {
            if spent_bytes >= budget_bytes {
                return Ok(Progress::BudgetSpent);
            }
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let count = self.pieces.len().min(SLICES_PER_WRITE);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    spent_bytes += written;
                    self.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::Done)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while written > 0 {
            let piece = self.pieces.front_mut().expect("no more can be written than there was");
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.pieces.capacity() > QUEUE_KEPT_MAX {
            self.pieces = VecDeque::new();
        }
    }
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Everything is written.
    Done,
    /// The socket takes no more until it says so.
    Blocked,
    /// There is more, and the socket may take it: go on in the next turn.
    BudgetSpent,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `step` bytes a call, and blocks once `room` is used up.
    struct Narrow {
        taken: Vec<u8>,
        step: usize,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.step).min(self.room);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_leave_in_order_however_the_socket_cuts_them() {
        for step in 1..7 {
            let mut output = Output::default();
            output.push(["abc", "", "defgh", "i"].map(|piece| Bytes::from_static(piece.as_bytes())));
            assert_eq!(output.bytes(), 9);
            let mut socket = Narrow { taken: Vec::new(), step, room: 5 };
            assert_eq!(output.write_to(&mut socket, usize::MAX).unwrap(), Progress::Blocked);
            assert_eq!(output.bytes(), 4);
            socket.room = 100;
            assert_eq!(output.write_to(&mut socket, usize::MAX).unwrap(), Progress::Done);
            assert_eq!(socket.taken, b"abcdefghi");
            assert!(output.is_empty());
        }
    }

    #[test]
    fn a_budget_ends_a_write_that_could_go_on() {
        let mut output = Output::default();
        output.push([Bytes::from(vec![1; 100])]);
        let mut socket = Narrow { taken: Vec::new(), step: 10, room: 1000 };
        assert_eq!(output.write_to(&mut socket, 25).unwrap(), Progress::BudgetSpent);
        assert_eq!(socket.taken.len(), 30);
    }
}
