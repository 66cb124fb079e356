//! Received bytes that wait to be understood.

use std::ops::Deref;

use bytes::{Buf, Bytes, BytesMut};

/// The buffer grows with what has arrived: a claimed length, however large, never makes it allocate more for
/// one read than this or twice what the last read brought.
const GROWTH_BYTES_MIN: usize = 4 * 1024;
const GROWTH_BYTES_MAX: usize = 256 * 1024;
/// Memory that is kept alive is at most this many times the bytes for whose sake it is: neither a small request
/// nor the first bytes of the next one may hold on to all that was read together with them.
const SLACK_FACTOR_MAX: usize = 8;

/// A buffer into which a socket is read and off whose front messages are split, large ones without copying.
/// It dereferences to the bytes that wait.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: BytesMut,
    /// The size of the allocation that `bytes` lies in, what was already split off its front included.
    allocated_bytes: usize,
    growth_bytes: usize,
}

impl ReceiveBuffer {
    /// An empty buffer, which holds no memory.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: BytesMut::new(), allocated_bytes: 0, growth_bytes: GROWTH_BYTES_MIN }
    }

    /// Appends received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.grow(|buffer| buffer.extend_from_slice(bytes));
    }

    /// Lets `read` put bytes straight behind those already received, so that contents are not copied on
    /// their way in. Returns what `read` returned: the count of bytes, 0 at the end of the stream.
    ///
    /// # Panics
    /// If `read` claims more bytes than it had room for.
    pub fn feed_from<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        let len = self.bytes.len();
        let room_end = len + self.growth_bytes;
        self.grow(|bytes| bytes.resize(room_end, 0));
        let result = read(&mut self.bytes[len..]);
        let count = *result.as_ref().unwrap_or(&0);
        assert!(count <= self.growth_bytes, "{count} bytes were read into {}", self.growth_bytes);
        self.bytes.truncate(len + count);
        self.shrink();
        if result.is_ok() {
            self.growth_bytes = if count == self.growth_bytes {
                (self.growth_bytes * 2).min(GROWTH_BYTES_MAX)
            } else {
                (count * 2).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX).min(self.growth_bytes)
            };
        }
        result
    }

    /// Takes the first `count` bytes: shared with the buffer, unless they are a small part of it.
    ///
    /// # Panics
    /// If fewer wait.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Bytes {
        let front = if count * SLACK_FACTOR_MAX < self.allocated_bytes {
            let front = Bytes::copy_from_slice(&self.bytes[..count]);
            self.bytes.advance(count);
            front
        } else {
            self.bytes.split_to(count).freeze()
        };
        self.shrink();
        front
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// If fewer wait.
    pub fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.shrink();
    }

    /// Drops all that waits.
    pub fn clear(&mut self) {
        self.bytes = BytesMut::new();
        self.allocated_bytes = 0;
    }

    /// How much memory the waiting bytes keep alive.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    fn grow(&mut self, append: impl FnOnce(&mut BytesMut)) {
        let before = self.bytes.as_ptr();
        append(&mut self.bytes);
        let capacity = self.bytes.capacity();
        // In the same place it is the same allocation, of which `capacity` leaves out what was split off.
        let stayed = self.bytes.as_ptr() == before;
        self.allocated_bytes = if stayed { self.allocated_bytes.max(capacity) } else { capacity };
    }

    /// An idle connection holds no memory, also when the read before it fell idle brought nothing; one that
    /// waits for the rest of a message holds little more than what it waits with. What was split off lives as
    /// long as its slices.
    fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.clear();
        } else if self.allocated_bytes > (self.bytes.len() * SLACK_FACTOR_MAX).max(GROWTH_BYTES_MIN) {
            self.bytes = BytesMut::from(&self.bytes[..]);
            self.allocated_bytes = self.bytes.capacity();
        }
    }
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A socket with `available` bytes to read.
    fn read_up_to(available: usize) -> impl FnOnce(&mut [u8]) -> Result<usize, Infallible> {
        move |room| {
            let count = available.min(room.len());
            room[..count].fill(b'x');
            Ok(count)
        }
    }

    #[test]
    fn a_buffer_that_holds_no_bytes_holds_no_memory() {
        let mut buffer = ReceiveBuffer::new();
        assert_eq!(buffer.feed_from(|_| Err::<usize, _>("would block")), Err("would block"));
        assert_eq!(buffer.bytes.capacity(), 0);
        assert_eq!(buffer.feed_from(read_up_to(0)), Ok(0));
        assert_eq!(buffer.bytes.capacity(), 0);
        assert_eq!(buffer.feed_from(read_up_to(100)), Ok(100));
        buffer.advance(100);
        assert_eq!(buffer.bytes.capacity(), 0);
        buffer.feed(b"abc");
        assert_eq!(&buffer.split_to(3)[..], b"abc");
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn the_room_for_a_read_follows_what_reads_bring() {
        let mut buffer = ReceiveBuffer::new();
        let mut rooms = Vec::new();
        for _ in 0..9 {
            rooms.push(buffer.feed_from(read_up_to(usize::MAX)).unwrap());
        }
        assert_eq!(rooms[..3], [4096, 8192, 16384]);
        assert_eq!(rooms[6..], [GROWTH_BYTES_MAX; 3]);
        assert_eq!(buffer.feed_from(read_up_to(10)), Ok(10));
        assert_eq!(buffer.growth_bytes, GROWTH_BYTES_MIN);
        assert_eq!(buffer.len(), rooms.iter().sum::<usize>() + 10);
    }

    #[test]
    fn a_failed_read_leaves_the_waiting_bytes_alone() {
        let mut buffer = ReceiveBuffer::new();
        buffer.feed(b"abc");
        let result = buffer.feed_from(|room| {
            room.fill(b'z');
            Err("broken")
        });
        assert_eq!(result, Err("broken"));
        assert_eq!(&buffer[..], b"abc");
    }

    fn fill(buffer: &mut ReceiveBuffer, mut bytes: usize) {
        while bytes > 0 {
            bytes -= buffer.feed_from(read_up_to(bytes)).unwrap();
        }
    }

    #[test]
    fn large_contents_are_not_copied() {
        let mut buffer = ReceiveBuffer::new();
        fill(&mut buffer, 1024 * 1024);
        let at = buffer.as_ptr();
        assert_eq!(buffer.split_to(1024 * 1024).as_ptr(), at);
    }

    #[test]
    fn a_small_message_does_not_keep_a_large_buffer_alive() {
        let mut buffer = ReceiveBuffer::new();
        fill(&mut buffer, 256 * 1024);
        // Alone with its bytes: were they shared with the buffer, it would not be.
        assert!(buffer.split_to(60).is_unique());
        assert_eq!(buffer.len(), 256 * 1024 - 60);
    }

    #[test]
    fn the_beginning_of_a_message_does_not_keep_those_before_it_alive() {
        let mut buffer = ReceiveBuffer::new();
        fill(&mut buffer, 1024 * 1024 + 10);
        let large = buffer.split_to(1024 * 1024);
        assert!(large.is_unique());
        assert!(buffer.allocated_bytes() <= GROWTH_BYTES_MIN);
        assert_eq!(&buffer[..], [b'x'; 10]);
    }

    #[test]
    fn what_is_held_stays_in_proportion_to_what_waits() {
        let mut buffer = ReceiveBuffer::new();
        let bounded = |buffer: &ReceiveBuffer| {
            let bound = (SLACK_FACTOR_MAX * buffer.len()).max(2 * GROWTH_BYTES_MIN);
            assert!(buffer.bytes.capacity() <= buffer.allocated_bytes(), "at {}", buffer.len());
            assert!(buffer.allocated_bytes() <= bound, "{} over {bound}", buffer.allocated_bytes());
        };
        for count in [60, 1000, 40_000] {
            fill(&mut buffer, 1024 * 1024);
            while buffer.len() > count {
                let _ = buffer.split_to(count);
                bounded(&buffer);
            }
            // The room of a read is large after large reads, and this one brings little.
            fill(&mut buffer, 300_000);
            buffer.advance(buffer.len() - 1);
            bounded(&buffer);
            buffer.feed_from(read_up_to(5)).unwrap();
            bounded(&buffer);
        }
    }
}
