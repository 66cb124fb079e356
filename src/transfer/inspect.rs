//! A checkpoint as it lies in a data directory, for a person: its files one by one, and whether their contents are where
//! it says.

use std::collections::BTreeMap;
use std::io;

use fsd_wire::Version;

use super::TransferError;
use super::format::check_file;
use super::reader::{Body, stream_head};
use crate::file_store::items::FileItem;
use crate::file_store::{FileStore, ImageError, ImageHead, Restoring};
use crate::mapping::{Disk, MappedFile};
use crate::storage::{
    CheckpointHead, CheckpointReader, Position, SegmentId, SegmentReader, StorageError, segment,
};

/// The items of a checkpoint, in their order: first all files, then all sessions.
pub struct CheckpointItems<F> {
    body: Body<F>,
    path: String,
    head: CheckpointHead,
    files_left: u64,
    sessions_left: u64,
}

impl<F: MappedFile> CheckpointItems<F> {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// If it is damaged as far as that, or cannot be read.
    pub fn open<D: Disk<File = F>>(disk: &D, name: &str) -> Result<Self, StorageError> {
        let checkpoint = CheckpointReader::open(disk, name, None)?;
        let head = checkpoint.head().clone();
        let (files_left, sessions_left) = (head.files, head.sessions);
        Ok(Self { body: Body::of(checkpoint), path: disk.describe(name), head, files_left, sessions_left })
    }

    /// What the checkpoint is of.
    #[must_use]
    pub fn head(&self) -> &CheckpointHead {
        &self.head
    }

    /// The next file, and where its contents lie; nothing behind the last.
    ///
    /// # Errors
    /// If the checkpoint is damaged there, or cannot be read.
    pub fn next_file(&mut self) -> Result<Option<(FileItem<'_>, Position)>, StorageError> {
        if self.files_left == 0 {
            return Ok(None);
        }
        self.files_left -= 1;
        let (path, head) = (&self.path, &self.head);
        self.body.file().map(Some).map_err(|error| located(path, head, error))
    }

    /// The bytes of the next session; nothing behind the last. All files come before.
    ///
    /// # Errors
    /// As [`Self::next_file`].
    pub fn next_session(&mut self) -> Result<Option<&[u8]>, StorageError> {
        if self.files_left > 0 || self.sessions_left == 0 {
            return Ok(None);
        }
        self.sessions_left -= 1;
        let (path, head) = (&self.path, &self.head);
        self.body.session().map(Some).map_err(|error| located(path, head, error))
    }
}

/// The same error, with the file and the place where it lies.
fn located(path: &str, head: &CheckpointHead, error: TransferError) -> StorageError {
    match error {
        TransferError::Storage(error) => error,
        TransferError::Image(ImageError { at, what }) => {
            StorageError::Damage { file: path.to_owned(), offset: head.body_offset(at), what }
        }
        other => StorageError::Damage { file: path.to_owned(), offset: 0, what: other.to_string() },
    }
}

/// Checks that a start could make a store of a checkpoint; gives what is wrong. One of which the bytes themselves are
/// damaged is checked up to there, and that is not told again.
///
/// # Errors
/// If it cannot be read.
pub fn check_image<D: Disk>(disk: &D, name: &str) -> Result<Vec<StorageError>, StorageError> {
    let mut problems = Vec::new();
    unless_damaged(restore(disk, name, &mut problems))?;
    Ok(problems)
}

/// Checks that the contents of each file lie where a checkpoint says, in a whole record, with that name, size, CRC and
/// expiry; gives what is wrong. One of which the bytes themselves are damaged is checked up to there, and that is not
/// told again.
///
/// # Errors
/// If anything cannot be read.
pub fn check_contents<D: Disk>(disk: &D, name: &str) -> Result<Vec<StorageError>, StorageError> {
    let mut problems = Vec::new();
    unless_damaged(check_files(disk, name, &mut problems))?;
    Ok(problems)
}

fn unless_damaged(checked: Result<(), StorageError>) -> Result<(), StorageError> {
    match checked {
        Err(StorageError::Damage { .. } | StorageError::UnknownFormat { .. }) => Ok(()),
        checked => checked,
    }
}

fn restore<D: Disk>(disk: &D, name: &str, problems: &mut Vec<StorageError>) -> Result<(), StorageError> {
    let mut reader = CheckpointReader::open(disk, name, None)?;
    let head = reader.head().clone();
    let mut damage = |ImageError { at, what }| {
        problems.push(StorageError::Damage { file: disk.describe(name), offset: head.body_offset(at), what });
    };
    let mut restoring = restoring(&head);
    while let Some(block) = reader.next_block()? {
        if let Err(error) = restoring.add(&block) {
            damage(error);
            return Ok(());
        }
    }
    restoring.finish().map(drop).unwrap_or_else(damage);
    Ok(())
}

fn restoring(head: &CheckpointHead) -> Restoring {
    FileStore::restore(&ImageHead {
        last_applied: head.entry.index,
        cluster_time: head.stamp,
        revision: Version(head.revision),
        files: head.files,
        sessions: head.sessions,
        items_bytes: head.body_bytes,
    })
}

fn check_files<D: Disk>(disk: &D, name: &str, problems: &mut Vec<StorageError>) -> Result<(), StorageError> {
    let mut items = CheckpointItems::open(disk, name)?;
    let head = items.head().clone();
    let mut segments =
        Segments { disk, checkpoint: disk.describe(name), head: &head, opened: BTreeMap::new() };
    let stream = stream_head(head.clone(), 0);
    while let Some((item, place)) = items.next_file()? {
        let Some(segment) = segments.of(place, &item, problems)? else { continue };
        let checked = segment.entry_at(place).and_then(|(entry, _)| {
            check_file(&stream, &item, &entry).map_err(|what| segment.damage(place, what.to_string()))
        });
        match checked {
            Err(StorageError::Damage { file, offset, what }) => {
                let (name, checkpoint) = (String::from_utf8_lossy(item.name()), &segments.checkpoint);
                let what = format!("{what}: the contents of {name:?}, by {checkpoint}");
                problems.push(StorageError::Damage { file, offset, what });
            }
            checked => checked?,
        }
    }
    Ok(())
}

/// The segments that a checkpoint refers to; what is wrong with one of them is told once.
struct Segments<'a, D: Disk> {
    disk: &'a D,
    /// Who refers to them.
    checkpoint: String,
    head: &'a CheckpointHead,
    opened: BTreeMap<SegmentId, Option<SegmentReader<D::File>>>,
}

impl<D: Disk> Segments<'_, D> {
    /// The segment in which the contents of a file lie, if it is one that they can lie in.
    fn of(
        &mut self,
        place: Position,
        item: &FileItem<'_>,
        problems: &mut Vec<StorageError>,
    ) -> Result<Option<&SegmentReader<D::File>>, StorageError> {
        let id = place.segment();
        if !self.opened.contains_key(&id) {
            let opened = self.open(id, item, problems)?;
            self.opened.insert(id, opened);
        }
        Ok(self.opened[&id].as_ref())
    }

    fn open(
        &self,
        id: SegmentId,
        item: &FileItem<'_>,
        problems: &mut Vec<StorageError>,
    ) -> Result<Option<SegmentReader<D::File>>, StorageError> {
        if self.head.segments.binary_search(&id).is_err() {
            let name = String::from_utf8_lossy(item.name());
            let what = format!("the contents of {name:?} are in segment {id}, which its table does not have");
            let (file, offset) = (self.checkpoint.clone(), self.head.body_offset(0));
            problems.push(StorageError::Damage { file, offset, what });
        }
        match SegmentReader::open(self.disk, id, Some(&self.head.identity)) {
            Ok(reader) => return Ok(Some(reader)),
            Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let file = self.disk.describe(&segment::file_name(id));
                problems.push(StorageError::MissingSegment { file, named_by: self.checkpoint.clone() });
            }
            Err(error @ StorageError::Io { .. }) => return Err(error),
            Err(error) => problems.push(error),
        }
        Ok(None)
    }
}
