//! The receiver's side: kept segments and a store, made out of a stream.

use std::io;
use std::iter;

use bytes::Bytes;
use fsd_wire::codec::Reader;
use fsd_wire::{Entry, NAME_BYTES_MAX};

use super::TransferError;
use super::format::{
    Counted, PART_HEAD_BYTES, PREAMBLE_BYTES, PartKind, StreamHead, StreamProblem, check_file,
    check_preamble, claimed, image_head,
};
use crate::file_store::items::FileItem;
use crate::file_store::{ContentsAt, FileStore, Restoring};
use crate::mapping::Disk;
use crate::storage::kept::{Kept, KeptWriter, kept_bytes, kept_names};
use crate::storage::segment::SegmentHeader;
use crate::storage::{SegmentId, StorageError};

/// More than a file's record takes besides name and contents: the heads of record, session's change and command.
const RECORD_OVERHEAD_BYTES_MAX: u64 = 256;

/// What became of the bytes.
#[derive(Debug)]
pub enum Progress<F> {
    /// There is more to come.
    More {
        /// Where it begins. That is before the end of the bytes that were given if the header was used up on the way: a new
        /// one is needed, and the rest again.
        next_offset: u64,
    },
    /// That was all.
    Whole(Box<Received<F>>),
}

/// A store that was received whole.
#[derive(Debug)]
pub struct Received<F> {
    /// What it is as of.
    pub head: StreamHead,
    /// The store.
    pub store: FileStore,
    /// Where the contents of its files are; flushed, and under their names.
    pub kept: Vec<Kept<F>>,
}

impl<F> Received<F> {
    /// The names of those files, should nobody want them.
    pub fn kept_names(&self) -> impl Iterator<Item = String> {
        self.kept.iter().map(Kept::name)
    }
}

/// A store that is being received. Until it is whole it leaves nothing that counts: files with temporary names, and
/// kept segments to which nothing refers. The next start removes both; [`StreamWriter::abandon`], or an error, does so at once.
pub struct StreamWriter<D: Disk> {
    disk: D,
    cluster: Option<String>,
    /// Where the next bytes begin.
    offset: u64,
    /// The beginning of the next part, or of the stream.
    pending: Vec<u8>,
    is_begun: bool,
    counted: Counted,
    restoring: Option<(StreamHead, Restoring)>,
    /// A file that has no place yet.
    waiting: Option<Waiting>,
    present: Option<KeptWriter<D>>,
    kept: Vec<Kept<D::File>>,
    /// All segments that were begun, as long as the store is not whole.
    begun: Vec<SegmentId>,
    is_over: bool,
}

/// A file that was found to be what its entry made of it.
struct Waiting {
    /// The payload of its part, which the item begins.
    payload: Bytes,
    entry: Entry,
    /// Where its part is.
    part: u64,
    at: u64,
}

impl<D: Disk> StreamWriter<D> {
    /// Begins with the first byte of a stream, which must be of a store of this cluster, if one is named.
    #[must_use]
    pub fn begin(disk: &D, cluster: Option<&str>) -> Self {
        Self {
            disk: disk.clone(),
            cluster: cluster.map(str::to_owned),
            offset: 0,
            pending: Vec::new(),
            is_begun: false,
            counted: Counted::default(),
            restoring: None,
            waiting: None,
            present: None,
            kept: Vec::new(),
            begun: Vec::new(),
            is_over: false,
        }
    }

    /// What is being received, once that is known.
    #[must_use]
    pub fn head(&self) -> Option<&StreamHead> {
        self.restoring.as_ref().map(|(head, _)| head)
    }

    /// Where the next bytes begin.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes, which begin at `offset` of the stream and may be cut anywhere. A segment that is needed
    /// takes its header from `fresh`, and changes its length where that is needed.
    ///
    /// # Errors
    /// If they are not the next ones; then nothing was done. Or if they are no stream, or the disk fails: then nothing
    /// more is taken, and what was made is removed as far as that can be done.
    ///
    /// # Panics
    /// If a header was needed the last time, and there is none.
    pub fn feed(
        &mut self,
        offset: u64,
        bytes: &[u8],
        fresh: &mut Option<SegmentHeader>,
    ) -> Result<Progress<D::File>, TransferError> {
        if self.is_over {
            return Err(TransferError::Over);
        }
        if offset != self.offset {
            return Err(TransferError::WrongOffset { expected: self.offset, found: offset });
        }
        assert!(self.waiting.is_none() || fresh.is_some(), "no header for the next segment");
        let fed = self.take(bytes, fresh);
        self.is_over = !matches!(fed, Ok(Progress::More { .. }));
        if fed.is_err() {
            // A sender may try again and again. What cannot be removed now, the next start removes.
            let _ = self.remove_begun();
        }
        fed
    }

    /// The names that files of this stream may have so far.
    pub fn kept_names(&self) -> impl Iterator<Item = String> {
        self.begun.iter().flat_map(|id| kept_names(*id))
    }

    /// Gives it up, and its room back.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    pub fn abandon(mut self) -> io::Result<()> {
        self.remove_begun()
    }

    fn remove_begun(&mut self) -> io::Result<()> {
        // A file that is open keeps its room.
        self.present = None;
        self.kept.clear();
        for name in self.kept_names() {
            match self.disk.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.begun.clear();
        Ok(())
    }

    fn take(
        &mut self,
        mut bytes: &[u8],
        fresh: &mut Option<SegmentHeader>,
    ) -> Result<Progress<D::File>, TransferError> {
        while self.store_waiting(fresh)? {
            let missing = self.missing()?;
            if missing > 0 && bytes.is_empty() {
                break;
            }
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.pending.extend_from_slice(now);
            self.offset += now.len() as u64;
            bytes = later;
            if now.len() < missing || self.missing()? > 0 {
                continue;
            }
            let whole = Bytes::from(std::mem::take(&mut self.pending));
            if !self.is_begun {
                check_preamble(&whole).map_err(|what| what.of(0, 0))?;
                self.is_begun = true;
            } else if self.next_kind() == PartKind::End {
                return self.take_end(&whole, bytes.is_empty());
            } else {
                self.take_part(&whole)?;
            }
        }
        Ok(Progress::More { next_offset: self.offset })
    }

    /// How many bytes are missing of what comes next, as far as can be told.
    fn missing(&self) -> Result<usize, TransferError> {
        let needed = match self.pending.get(..PART_HEAD_BYTES) {
            _ if !self.is_begun => PREAMBLE_BYTES,
            None => PART_HEAD_BYTES,
            Some(head) => {
                PART_HEAD_BYTES + claimed(head, self.next_kind()).map_err(|what| self.here(what))?
            }
        };
        Ok(needed - self.pending.len())
    }

    fn next_kind(&self) -> PartKind {
        self.counted.next_kind(self.head())
    }

    fn take_part(&mut self, part: &Bytes) -> Result<(), TransferError> {
        let at = self.offset - part.len() as u64;
        let taken = self.take_payload(self.next_kind(), part, at);
        taken.map_err(|what| what.of(self.counted.parts, at).into())
    }

    fn take_payload(&mut self, kind: PartKind, part: &Bytes, at: u64) -> Result<(), StreamProblem> {
        let head = self.check_crc(kind, part)?;
        let payload = part.slice(PART_HEAD_BYTES..);
        let mut contents_bytes = 0;
        match &mut self.restoring {
            None => {
                let head = StreamHead::decode(payload)?;
                if self.cluster.as_ref().is_some_and(|cluster| *cluster != head.cluster) {
                    return Err(StreamProblem::OtherCluster(head.cluster));
                }
                let restoring = FileStore::restore(&image_head(&head));
                self.restoring = Some((head, restoring));
            }
            Some((_, restoring)) if kind == PartKind::Session => restoring.add(&payload)?,
            Some((head, _)) => {
                let Some((item, entry_bytes)) = FileItem::without_place(&payload) else {
                    return Err(StreamProblem::OtherEntry("there is none"));
                };
                let mut reader = Reader::new(payload.slice_ref(entry_bytes));
                let entry = Entry::decode(&mut reader)?;
                reader.finish()?;
                check_file(head, &item, &entry)?;
                contents_bytes = u64::from(item.size_bytes());
                if contents_bytes > head.contents_bytes.saturating_sub(self.counted.contents_bytes) {
                    return Err(StreamProblem::OtherEnd("contents are more bytes than by the head"));
                }
                self.waiting = Some(Waiting { payload, entry, part: self.counted.parts, at });
            }
        }
        self.counted.count(&head, contents_bytes);
        Ok(())
    }

    fn check_crc(&self, kind: PartKind, part: &Bytes) -> Result<[u8; PART_HEAD_BYTES], StreamProblem> {
        let head = self.counted.part_head(kind, &[&part[PART_HEAD_BYTES..]]);
        if part[..PART_HEAD_BYTES] == head { Ok(head) } else { Err(StreamProblem::Crc) }
    }

    /// Gives the file that has none its place; whether there is none left that waits.
    fn store_waiting(&mut self, fresh: &mut Option<SegmentHeader>) -> Result<bool, TransferError> {
        let Some(Waiting { entry, .. }) = &self.waiting else { return Ok(true) };
        let payload_bytes = entry.payload.len();
        if self.present.as_ref().is_none_or(|present| !present.fits(payload_bytes)) {
            let Some(header) = fresh.take() else { return Ok(false) };
            self.roll(header, payload_bytes)?;
        }
        let Waiting { payload, entry, part, at } = self.waiting.take().expect("one waits");
        let present = self.present.as_mut().expect("the roll made one");
        let position = present.add(&entry).map_err(failed(&self.disk, &self.begun, "write"))?;
        let (item, _) = FileItem::without_place(&payload).expect("it was found there");
        let (_, restoring) = self.restoring.as_mut().expect("a file comes behind the head");
        let added = restoring.add(&item.bytes_with_place(ContentsAt(position.0)));
        added.map_err(|error| StreamProblem::from(error).of(part, at))?;
        Ok(true)
    }

    /// Goes on in a new segment: of the length that its header says, longer if the next record needs it, and shorter if
    /// all that is to come does not.
    fn roll(&mut self, mut header: SegmentHeader, payload_bytes: usize) -> Result<(), TransferError> {
        self.finish_present()?;
        let head = self.head().expect("a file comes behind the head");
        let files_left = head.files - self.counted.files + 1;
        let contents_left = head.contents_bytes - self.counted.contents_bytes;
        let others = files_left.saturating_mul(NAME_BYTES_MAX as u64 + RECORD_OVERHEAD_BYTES_MAX);
        let all = others.saturating_add(contents_left).saturating_add(payload_bytes as u64);
        let all = usize::try_from(all.min(header.len_bytes)).expect("a segment is mapped");
        let longest = kept_bytes(iter::once(all));
        header.len_bytes = header.len_bytes.min(longest).max(kept_bytes(iter::once(payload_bytes)));
        self.begun.push(header.id);
        let made = KeptWriter::create(&self.disk, header);
        self.present = Some(made.map_err(failed(&self.disk, &self.begun, "make"))?);
        Ok(())
    }

    fn finish_present(&mut self) -> Result<(), TransferError> {
        if let Some(present) = self.present.take() {
            let finished = present.finish().map_err(failed(&self.disk, &self.begun, "finish"));
            self.kept.push(finished?);
        }
        Ok(())
    }

    fn take_end(&mut self, part: &Bytes, is_last: bool) -> Result<Progress<D::File>, TransferError> {
        let at = self.offset - part.len() as u64;
        let (head, restoring) = self.restoring.take().expect("an end comes behind the head");
        let store = self.finish_store(&head, restoring, part, is_last);
        let store = store.map_err(|what| what.of(self.counted.parts, at))?;
        self.finish_present()?;
        // From here on they are the receiver's business.
        self.begun.clear();
        let kept = std::mem::take(&mut self.kept);
        Ok(Progress::Whole(Box::new(Received { head, store, kept })))
    }

    fn finish_store(
        &self,
        head: &StreamHead,
        restoring: Restoring,
        end: &Bytes,
        is_last: bool,
    ) -> Result<FileStore, StreamProblem> {
        self.check_crc(PartKind::End, end)?;
        self.counted.check_end(head, &end[PART_HEAD_BYTES..])?;
        if !is_last {
            return Err(StreamProblem::Trailing);
        }
        Ok(restoring.finish()?)
    }

    fn here(&self, what: StreamProblem) -> TransferError {
        what.of(self.counted.parts, self.offset - self.pending.len() as u64).into()
    }
}

/// Says what was being done to the last segment that was begun.
fn failed<D: Disk>(disk: &D, begun: &[SegmentId], doing: &str) -> impl FnOnce(io::Error) -> TransferError {
    move |source| {
        let [name, _] = kept_names(*begun.last().expect("one was begun"));
        StorageError::Io { doing: format!("{doing} {}", disk.describe(&name)), source }.into()
    }
}
