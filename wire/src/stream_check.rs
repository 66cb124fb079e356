//! Reads the stream of a store ([`crate::store_stream`]) and makes nothing of it: order, lengths, CRCs and counts are
//! checked, so that what passes is what its sender gave out. Whether the items make up a store, only
//! who makes one of them can tell.

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::store_stream::{
    Counted, FILE_ITEM_HEAD_BYTES, FILE_SIZE_AT, PART_HEAD_BYTES, PREAMBLE_BYTES, PartKind, StreamError,
    StreamHead, StreamProblem, check_preamble, claimed,
};

/// A stream that is being checked. It holds one part at a time.
#[derive(Debug, Default)]
pub struct StreamCheck {
    /// Where the next bytes begin.
    offset: u64,
    /// What has come of the next part, or of the preamble.
    pending: Vec<u8>,
    is_begun: bool,
    is_whole: bool,
    head: Option<StreamHead>,
    counted: Counted,
}

impl StreamCheck {
    /// Begins with the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the stream is of, once that is known.
    #[must_use]
    pub fn head(&self) -> Option<&StreamHead> {
        self.head.as_ref()
    }

    /// What has come so far, whole parts only.
    #[must_use]
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Bytes that were taken.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes, which may be cut anywhere.
    ///
    /// # Errors
    /// If they are not those of a stream. What comes behind that is not to be looked at.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            if self.is_whole {
                return Err(self.here(StreamProblem::Trailing));
            }
            let (now, later) = bytes.split_at(self.missing()?.min(bytes.len()));
            self.pending.extend_from_slice(now);
            self.offset += now.len() as u64;
            bytes = later;
            if self.missing()? == 0 {
                let whole = Bytes::from(std::mem::take(&mut self.pending));
                let at = self.offset - whole.len() as u64;
                self.take_whole(&whole).map_err(|what| what.of(self.counted.parts, at))?;
            }
        }
        Ok(())
    }

    /// That was all.
    ///
    /// # Errors
    /// If it was cut short.
    pub fn finish(self) -> Result<StreamHead, StreamError> {
        match self.head {
            Some(head) if self.is_whole => Ok(head),
            _ => Err(StreamProblem::CutShort.of(self.counted.parts, self.offset)),
        }
    }

    fn next_kind(&self) -> PartKind {
        self.counted.next_kind(self.head.as_ref())
    }

    /// How many bytes are missing of what comes next, as far as can be told.
    fn missing(&self) -> Result<usize, StreamError> {
        let needed = match self.pending.get(..PART_HEAD_BYTES) {
            _ if !self.is_begun => PREAMBLE_BYTES,
            None => PART_HEAD_BYTES,
            Some(head) => {
                PART_HEAD_BYTES + claimed(head, self.next_kind()).map_err(|what| self.here(what))?
            }
        };
        Ok(needed - self.pending.len())
    }

    fn take_whole(&mut self, whole: &Bytes) -> Result<(), StreamProblem> {
        if !self.is_begun {
            self.is_begun = true;
            return check_preamble(whole);
        }
        let (kind, payload) = (self.next_kind(), whole.slice(PART_HEAD_BYTES..));
        let head = self.counted.part_head(kind, &[&payload]);
        if whole[..PART_HEAD_BYTES] != head {
            return Err(StreamProblem::Crc);
        }
        let mut contents_bytes = 0;
        match (kind, &self.head) {
            (PartKind::Head, _) => self.head = Some(StreamHead::decode(payload)?),
            (PartKind::File, _) => {
                let item = payload.get(..FILE_ITEM_HEAD_BYTES);
                let item = item.ok_or(StreamProblem::OtherEntry("there is none"))?;
                contents_bytes = u64::from(LittleEndian::read_u32(&item[FILE_SIZE_AT..]));
            }
            (PartKind::End, Some(of)) => {
                self.counted.check_end(of, &payload)?;
                self.is_whole = true;
                return Ok(());
            }
            (PartKind::Session, _) | (PartKind::End, None) => {}
        }
        self.counted.count(&head, contents_bytes);
        Ok(())
    }

    fn here(&self, what: StreamProblem) -> StreamError {
        what.of(self.counted.parts, self.offset - self.pending.len() as u64)
    }
}
