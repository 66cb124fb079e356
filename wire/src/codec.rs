//! Reading and writing the fields of messages. All integers are little-endian.

use byteorder::{ByteOrder, LittleEndian};
use bytes::{Buf, Bytes};

use crate::error::DecodeError;

/// The greatest term and index that is accepted from others. None comes near it by itself, and what is beyond
/// could not be counted on from: whoever takes it up would fail at the end of the 64-bit range.
pub const COUNTER_MAX: u64 = u64::MAX - u32::MAX as u64;

/// Takes fields off the front of a message's bytes; it cannot run past their end.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// A reader over the whole of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// How many bytes are still unread.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `len` bytes, shared with the input, not copied.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.bytes.len() {
            return Err(DecodeError::Truncated { wanted: len, left: self.bytes.len() });
        }
        Ok(self.bytes.split_to(len))
    }

    /// All that is left.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.fixed::<1>().map(|bytes| bytes[0])
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed::<2>().map(|bytes| LittleEndian::read_u16(&bytes))
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.fixed::<4>().map(|bytes| LittleEndian::read_u32(&bytes))
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.fixed::<8>().map(|bytes| LittleEndian::read_u64(&bytes))
    }

    /// The next sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        self.fixed::<16>().map(|bytes| LittleEndian::read_u128(&bytes))
    }

    /// A term, an index, or another number that only ever grows by one: at most [`COUNTER_MAX`].
    pub fn counter(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        match self.u64()? {
            value @ ..=COUNTER_MAX => Ok(value),
            value => Err(DecodeError::BadValue { field, value }),
        }
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::BadValue { field, value: u64::from(other) }),
        }
    }

    /// A 16-bit length and as many bytes of UTF-8, at most `max_bytes`.
    pub fn text(&mut self, field: &'static str, max_bytes: usize) -> Result<String, DecodeError> {
        let len = usize::from(self.u16()?);
        if len > max_bytes {
            return Err(DecodeError::TooLong { field, len, max: max_bytes });
        }
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// A 32-bit count of items of at least `item_bytes_min` bytes each: refused when the rest of the message
    /// cannot hold them, so that nothing is allocated for a count that lies.
    pub fn count(&mut self, field: &'static str, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.remaining() / item_bytes_min {
            return Err(DecodeError::TooLong { field, len: count, max: self.remaining() / item_bytes_min });
        }
        Ok(count)
    }

    /// Refuses bytes after the last field.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { left: self.bytes.len() }) }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        if self.bytes.len() < N {
            return Err(DecodeError::Truncated { wanted: N, left: self.bytes.len() });
        }
        let mut out = [0; N];
        self.bytes.copy_to_slice(&mut out);
        Ok(out)
    }
}

/// Bytes from here on are shared with the message instead of copied into it: below, a copy is cheaper than
/// another piece for the socket to gather.
pub(crate) const SHARE_BYTES_MIN: usize = 4096;

/// Puts fields at the end of a growing message.
#[derive(Debug, Default)]
pub struct Writer {
    /// Finished pieces, in their order.
    pieces: Vec<Bytes>,
    /// The piece that grows.
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The pieces of which the message consists, in their order.
    #[must_use]
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        if !self.bytes.is_empty() {
            self.pieces.push(self.bytes.into());
        }
        self.pieces
    }

    /// The message in one piece.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        if self.pieces.is_empty() { self.bytes } else { self.into_pieces().concat() }
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes, shared with the caller when they are many.
    pub fn shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.raw(bytes);
            return;
        }
        if !self.bytes.is_empty() {
            self.pieces.push(std::mem::take(&mut self.bytes).into());
        }
        self.pieces.push(bytes.clone());
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Appends a 16-bit length and the text.
    ///
    /// # Panics
    /// If the text is longer than 65,535 bytes: every text that fsd sends has a bound far below.
    pub fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("texts on the wire are bounded"));
        self.raw(text.as_bytes());
    }

    /// Appends a text for a person, cut at `max_bytes`: such a text may quote what somebody sent, and a reply
    /// must not become unreadable because it explains at length.
    pub fn reason(&mut self, text: &str, max_bytes: usize) {
        self.text(&text[..text.floor_char_boundary(max_bytes)]);
    }

    /// Appends a 32-bit count.
    ///
    /// # Panics
    /// If the count does not fit, which no bounded list reaches.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("lists on the wire are bounded"));
    }
}
