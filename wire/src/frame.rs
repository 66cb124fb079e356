//! One frame format for peers and clients.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `fsd1` read as a little-endian number |
//! | 4 | 2 | protocol version |
//! | 6 | 2 | message kind |
//! | 8 | 4 | length of the body in bytes |
//! | 12 | 4 | CRC-32 of bytes 0 to 11: the length is trusted only if this matches |
//! | 16 | 4 | CRC-32 of bytes 0 to 11 and the body |
//! | 20 | | body |
//!
//! The header has a CRC of its own because a damaged length would otherwise stall the stream: the receiver
//! would wait for bytes that never come. The frame's CRC leaves that field out: a CRC over bytes and their own
//! CRC is the same number whatever the bytes are, so it would no longer tie the body to its header.

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::codec::SHARE_BYTES_MIN;
use crate::error::FrameError;
use crate::receive_buffer::ReceiveBuffer;

/// `fsd1`, the first four bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"fsd1");
/// The protocol version that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 20;

const HEADER_CRC_AT: usize = 12;
const FRAME_CRC_AT: usize = 16;

/// A frame whose CRCs matched; the body is not yet a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which message the body claims to be.
    pub kind: u16,
    /// The message's bytes, shared with the receive buffer.
    pub body: Bytes,
}

/// Cuts a stream of bytes, fed in any pieces, into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: ReceiveBuffer,
    body_bytes_max: u32,
    /// Bytes of a frame that was given up which have not come yet.
    skipped_bytes_left: usize,
    error: Option<FrameError>,
}

/// What a header says once its own CRC has matched.
struct Header {
    kind: u16,
    frame_bytes: usize,
    /// CRC-32 of the bytes before the header's CRC: the frame's CRC goes on from here.
    crc: u32,
}

impl FrameDecoder {
    /// A decoder that refuses bodies of more than `body_bytes_max` bytes.
    #[must_use]
    pub fn new(body_bytes_max: u32) -> Self {
        Self { buffer: ReceiveBuffer::new(), body_bytes_max, skipped_bytes_left: 0, error: None }
    }

    /// Refuses bodies of more than `body_bytes_max` bytes from the next frame on: who is not known yet may send
    /// no more than a hello.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: u32) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Appends received bytes; after an error they are dropped.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.error.is_none() {
            self.buffer.feed(bytes);
        }
    }

    /// Lets `read` put bytes straight behind those already received, so that contents are not copied on
    /// their way in. Returns what `read` returned: the count of bytes, 0 at the end of the stream. After an
    /// error the bytes are dropped.
    ///
    /// # Panics
    /// If `read` claims more bytes than it had room for.
    pub fn feed_from<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        if self.error.is_some() {
            return read(&mut [0; 4096]);
        }
        self.buffer.feed_from(read)
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// The first broken rule, from then on for ever.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.parse() {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.buffer.clear();
                self.error = Some(error);
                Err(error)
            }
        }
    }

    /// Gives up the frame that has begun, for a receiver that has no room for it: what has come of it is dropped,
    /// and so will be what comes, unjudged. The frames behind it are not touched. Returns the first bytes of its
    /// body, by which its sender can be told. `None` if these have not come yet: then nothing is given up.
    ///
    /// # Panics
    /// If the frame is there as a whole: the caller takes frames before it gives one up.
    pub fn skip_frame<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.error.is_some() || self.skipped_bytes_left > 0 {
            return None;
        }
        let frame_bytes = self.parse_header().ok()??.frame_bytes;
        assert!(self.buffer.len() < frame_bytes, "a whole frame is taken, not given up");
        let begin = self.buffer.get(HEADER_BYTES..HEADER_BYTES + N)?.try_into().expect("so many bytes");
        self.skipped_bytes_left = frame_bytes - self.buffer.len();
        self.buffer.clear();
        Some(begin)
    }

    /// How many received bytes wait for the rest of their frame.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// How much memory these bytes hold.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.buffer.allocated_bytes()
    }

    /// Whether a frame has begun and is not at its end, one that was given up included.
    #[must_use]
    pub fn is_amid_frame(&self) -> bool {
        self.skipped_bytes_left > 0 || !self.buffer.is_empty()
    }

    fn parse(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.skipped_bytes_left > 0 {
            let skipped = self.skipped_bytes_left.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skipped_bytes_left -= skipped;
            if self.skipped_bytes_left > 0 {
                return Ok(None);
            }
        }
        let Some(header) = self.parse_header()? else { return Ok(None) };
        if self.buffer.len() < header.frame_bytes {
            return Ok(None);
        }
        let mut crc = crc32fast::Hasher::new_with_initial(header.crc);
        crc.update(&self.buffer[HEADER_BYTES..header.frame_bytes]);
        if LittleEndian::read_u32(&self.buffer[FRAME_CRC_AT..]) != crc.finalize() {
            return Err(FrameError::BodyCrc);
        }
        let body = self.buffer.split_to(header.frame_bytes).slice(HEADER_BYTES..);
        Ok(Some(Frame { kind: header.kind, body }))
    }

    /// Judges what has come of a header as early as it can be judged: a stream of something else is refused at
    /// its first byte, not after twenty, which it may never send.
    fn parse_header(&self) -> Result<Option<Header>, FrameError> {
        let begun = self.buffer.len().min(4);
        if self.buffer[..begun] != MAGIC.to_le_bytes()[..begun] {
            let mut found = [0; 4];
            found[..begun].copy_from_slice(&self.buffer[..begun]);
            return Err(FrameError::BadMagic { found: u32::from_le_bytes(found) });
        }
        if self.buffer.len() < FRAME_CRC_AT {
            return Ok(None);
        }
        let header = &self.buffer[..FRAME_CRC_AT];
        let version = LittleEndian::read_u16(&header[4..]);
        let kind = LittleEndian::read_u16(&header[6..]);
        let len = LittleEndian::read_u32(&header[8..]);
        let crc = crc32fast::hash(&header[..HEADER_CRC_AT]);
        // Before the version: a damaged version is damage, not a newer sender.
        if LittleEndian::read_u32(&header[HEADER_CRC_AT..]) != crc {
            return Err(FrameError::HeaderCrc);
        }
        if version != PROTOCOL_VERSION {
            return Err(FrameError::UnsupportedVersion { version });
        }
        if len > self.body_bytes_max {
            return Err(FrameError::BodyTooLong { len, max: self.body_bytes_max });
        }
        Ok(Some(Header { kind, frame_bytes: HEADER_BYTES + len as usize, crc }))
    }
}

/// Puts the header before a body that is given in pieces.
///
/// # Panics
/// If the body is longer than 32 bits can say: every message has a bound far below.
#[must_use]
pub fn seal(kind: u16, mut body: Vec<Bytes>) -> Vec<Bytes> {
    let len: usize = body.iter().map(Bytes::len).sum();
    let mut header = [0; HEADER_BYTES];
    LittleEndian::write_u32(&mut header[0..], MAGIC);
    LittleEndian::write_u16(&mut header[4..], PROTOCOL_VERSION);
    LittleEndian::write_u16(&mut header[6..], kind);
    LittleEndian::write_u32(&mut header[8..], u32::try_from(len).expect("frames are bounded"));
    let header_crc = crc32fast::hash(&header[..HEADER_CRC_AT]);
    LittleEndian::write_u32(&mut header[HEADER_CRC_AT..], header_crc);
    let mut crc = crc32fast::Hasher::new_with_initial(header_crc);
    for piece in &body {
        crc.update(piece);
    }
    LittleEndian::write_u32(&mut header[FRAME_CRC_AT..], crc.finalize());
    // Most bodies begin with a few small fields: header and fields then leave in one piece.
    match body.first_mut() {
        Some(piece) if piece.len() < SHARE_BYTES_MIN => {
            *piece = [&header[..], &piece[..]].concat().into();
        }
        _ => body.insert(0, Bytes::copy_from_slice(&header)),
    }
    body
}

#[cfg(test)]
mod tests;
