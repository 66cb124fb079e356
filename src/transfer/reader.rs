//! The sender's side: a checkpoint and the contents that it refers to, as a stream.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fsd_wire::Version;

use super::TransferError;
use super::format::{Counted, PartKind, StreamHead, check_file, preamble};
use crate::file_store::ImageError;
use crate::file_store::items::{FileItem, SESSION_ITEM_BYTES_MAX, session_item};
use crate::mapping::{Disk, MappedFile};
use crate::storage::{
    CheckpointHead, CheckpointReader, DirectoryIdentity, Position, SegmentId, SegmentReader, StorageError,
};

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where in the stream it begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
    /// The stream ends with it.
    pub is_last: bool,
}

impl Chunk {
    /// Where in the stream it ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// A store that is being sent. It needs nothing but the files that it has open: they may lose their names meanwhile. At
/// any time it holds one part of the stream, of which contents stay in the mapped file, and a block of the checkpoint.
pub struct StreamReader<D: Disk> {
    head: StreamHead,
    body: Body<D::File>,
    segments: BTreeMap<SegmentId, SegmentReader<D::File>>,
    counted: Counted,
    /// Where the next chunk begins.
    offset: u64,
    /// What was made of the stream and not given out yet.
    pending: VecDeque<Bytes>,
    /// The end is pending, or was given out.
    is_ended: bool,
    has_failed: bool,
}

impl<D: Disk> StreamReader<D> {
    /// Opens a checkpoint and every segment that it refers to. The checkpoint is read once from its beginning to its
    /// end, so that one that is damaged is refused before anything is sent. `identity` is whose it must be.
    ///
    /// # Errors
    /// If the checkpoint is damaged, or anything that it needs is not there.
    pub fn open(
        disk: &D,
        checkpoint: &str,
        identity: Option<&DirectoryIdentity>,
    ) -> Result<Self, TransferError> {
        let mut measured = Body::of(CheckpointReader::open(disk, checkpoint, identity)?);
        let body = Body::of(CheckpointReader::open(disk, checkpoint, identity)?);
        let of = body.checkpoint.head().clone();
        let mut segments = BTreeMap::new();
        for id in &of.segments {
            segments.insert(*id, SegmentReader::open(disk, *id, Some(&of.identity))?);
        }
        let head = stream_head(of, measured.contents_bytes()?);
        head.check().map_err(|what| body.error(what))?;
        Ok(Self {
            head,
            body,
            segments,
            counted: Counted::default(),
            offset: 0,
            pending: VecDeque::from([Bytes::copy_from_slice(&preamble())]),
            is_ended: false,
            has_failed: false,
        })
    }

    /// What is being sent.
    #[must_use]
    pub fn head(&self) -> &StreamHead {
        &self.head
    }

    /// The next `bytes_max` bytes of the stream, fewer only at its end. Behind the last chunk come empty ones.
    ///
    /// # Errors
    /// If what comes next is damaged or cannot be read: none of it is ever given out, and nothing more.
    ///
    /// # Panics
    /// If `bytes_max` is 0.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Chunk, TransferError> {
        assert!(bytes_max > 0, "a chunk of something");
        if self.has_failed {
            return Err(TransferError::Over);
        }
        let mut bytes = Vec::with_capacity(bytes_max);
        while bytes.len() < bytes_max {
            let Some(piece) = self.pending.front_mut() else {
                if self.is_ended {
                    break;
                }
                self.next_part().inspect_err(|_| self.has_failed = true)?;
                continue;
            };
            let now = piece.split_to(piece.len().min(bytes_max - bytes.len()));
            bytes.extend_from_slice(&now);
            if piece.is_empty() {
                self.pending.pop_front();
            }
        }
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        Ok(Chunk { offset, bytes: bytes.into(), is_last: self.is_ended && self.pending.is_empty() })
    }

    fn next_part(&mut self) -> Result<(), TransferError> {
        let kind = self.counted.next_kind((self.counted.parts > 0).then_some(&self.head));
        match kind {
            PartKind::Head => self.push(kind, vec![self.head.encode().into()], 0),
            PartKind::File => self.push_file()?,
            PartKind::Session => {
                let item = Bytes::copy_from_slice(self.body.session()?);
                self.push(kind, vec![item], 0);
            }
            PartKind::End => {
                self.body.finish()?;
                self.push(kind, vec![Bytes::copy_from_slice(&self.counted.end())], 0);
                self.is_ended = true;
            }
        }
        Ok(())
    }

    fn push_file(&mut self) -> Result<(), TransferError> {
        let (item, place) = self.body.file()?;
        let Some(segment) = self.segments.get(&place.segment()) else {
            let name = String::from_utf8_lossy(item.name()).into_owned();
            let what =
                format!("the contents of {name:?} are in segment {}, which is not listed", place.segment());
            return Err(self.body.error(&what));
        };
        let (entry, entry_bytes) = segment.entry_at(place)?;
        check_file(&self.head, &item, &entry).map_err(|what| segment.damage(place, what.to_string()))?;
        let (item_bytes, contents_bytes) = (item.bytes_without_place(), u64::from(item.size_bytes()));
        self.push(PartKind::File, vec![item_bytes.into(), entry_bytes], contents_bytes);
        Ok(())
    }

    fn push(&mut self, kind: PartKind, payload: Vec<Bytes>, contents_bytes: u64) {
        let pieces: Vec<&[u8]> = payload.iter().map(|piece| &piece[..]).collect();
        let head = self.counted.part_head(kind, &pieces);
        self.counted.count(&head, contents_bytes);
        self.pending.push_back(Bytes::copy_from_slice(&head));
        self.pending.extend(payload);
    }
}

pub(super) fn stream_head(of: CheckpointHead, contents_bytes: u64) -> StreamHead {
    StreamHead {
        cluster: of.identity.cluster,
        genesis: of.genesis,
        entry: of.entry,
        stamp: of.stamp,
        revision: Version(of.revision),
        files: of.files,
        sessions: of.sessions,
        items_bytes: of.body_bytes,
        contents_bytes,
        registrations: of.registrations,
    }
}

/// The items of a checkpoint's body, one by one.
pub(super) struct Body<F> {
    pub(super) checkpoint: CheckpointReader<F>,
    /// What was read of the body, and how much of that was given out.
    bytes: Vec<u8>,
    used: usize,
    /// Where in the body `bytes` begin.
    at: u64,
}

impl<F: MappedFile> Body<F> {
    pub(super) fn of(checkpoint: CheckpointReader<F>) -> Self {
        Self { checkpoint, bytes: Vec::new(), used: 0, at: 0 }
    }

    /// Reads the whole body; the bytes that its files' contents have.
    fn contents_bytes(&mut self) -> Result<u64, TransferError> {
        let (files, sessions) = (self.checkpoint.head().files, self.checkpoint.head().sessions);
        let mut contents_bytes = 0;
        for _ in 0..files {
            contents_bytes += u64::from(self.file()?.0.size_bytes());
        }
        for _ in 0..sessions {
            self.session()?;
        }
        self.finish()?;
        Ok(contents_bytes)
    }

    pub(super) fn file(&mut self) -> Result<(FileItem<'_>, Position), TransferError> {
        let item = self.item(|bytes| FileItem::of_image(bytes).map(|(_, _, item_bytes)| item_bytes))?;
        let (item, contents, _) = FileItem::of_image(item).expect("an item that is whole");
        Ok((item, Position(contents.0)))
    }

    pub(super) fn session(&mut self) -> Result<&[u8], TransferError> {
        self.item(|bytes| session_item(bytes).map(<[u8]>::len))
    }

    /// The next item, of which this tells the length once it is all there.
    fn item(&mut self, item_bytes: impl Fn(&[u8]) -> Option<usize>) -> Result<&[u8], TransferError> {
        let len = loop {
            let bytes = &self.bytes[self.used..];
            match item_bytes(bytes) {
                Some(len) if len <= SESSION_ITEM_BYTES_MAX => break len,
                None if bytes.len() <= SESSION_ITEM_BYTES_MAX && self.read_on()? => {}
                _ => return Err(self.error("no whole item")),
            }
        };
        self.used += len;
        Ok(&self.bytes[self.used - len..self.used])
    }

    /// Makes sure that there is nothing behind the last item, and that the checkpoint is whole.
    pub(super) fn finish(&mut self) -> Result<(), TransferError> {
        if self.used < self.bytes.len() || self.read_on()? {
            return Err(self.error("more than files and sessions"));
        }
        Ok(())
    }

    /// Reads a block more; whether there was one.
    fn read_on(&mut self) -> Result<bool, StorageError> {
        self.bytes.drain(..self.used);
        self.at += self.used as u64;
        self.used = 0;
        let block = self.checkpoint.next_block()?;
        self.bytes.extend_from_slice(block.as_deref().unwrap_or_default());
        Ok(block.is_some())
    }

    fn error(&self, what: &str) -> TransferError {
        TransferError::Image(ImageError { at: self.at + self.used as u64, what: what.to_owned() })
    }
}
