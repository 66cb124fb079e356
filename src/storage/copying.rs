//! Copying what is live out of segments of which little is, into a kept segment: piece by piece, on whichever thread.

use std::collections::BTreeMap;

use super::error::{Doing, StorageError};
use super::kept::{Kept, KeptWriter, kept_bytes, kept_names};
use super::segment::{Position, SegmentHeader, SegmentId, file_name};
use super::segment_reader::SegmentReader;
use crate::mapping::Disk;

/// A kept segment that is to be made, or is being made, of records that lie elsewhere. Each of them has a `T` by which
/// its owner knows it.
pub struct Copying<D: Disk, T> {
    header: SegmentHeader,
    wanted: Vec<(Position, T)>,
    sources: BTreeMap<SegmentId, SegmentReader<D::File>>,
    /// Once it is begun.
    writer: Option<KeptWriter<D>>,
    /// Where the first of the records are now.
    places: Vec<Position>,
}

/// What came of a piece of the work.
pub enum Copied<D: Disk, T> {
    /// There is more to copy.
    More(Box<Copying<D, T>>),
    /// The segment is flushed and has its name.
    Whole(Kept<D::File>, Vec<Moved<T>>),
}

/// A record that is in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved<T> {
    /// By which its owner knows it.
    pub what: T,
    /// Where it is.
    pub from: Position,
    /// Where it is, too.
    pub to: Position,
}

impl<D: Disk, T> Copying<D, T> {
    /// The segment's length will be what the records need; that of `header` does not matter.
    #[must_use]
    pub fn new(header: SegmentHeader, wanted: Vec<(Position, T)>) -> Self {
        Self { header, wanted, sources: BTreeMap::new(), writer: None, places: Vec::new() }
    }

    /// The names that the segment's file has: while it is made, and then.
    #[must_use]
    pub fn names(&self) -> [String; 2] {
        kept_names(self.header.id)
    }

    /// Copies records of about `bytes_max` bytes. They are read against their CRCs: nothing that is damaged gets a
    /// new one.
    ///
    /// # Errors
    /// If a record is damaged, the disk has no space, or it fails. What is there of the segment is of no use then.
    pub fn step(mut self: Box<Self>, disk: &D, bytes_max: usize) -> Result<Copied<D, T>, StorageError> {
        let id = self.header.id;
        let doing = || format!("copy contents to {}", disk.describe(&file_name(id)));
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let len_bytes = self.open_sources(disk)?;
                self.header.len_bytes = len_bytes;
                KeptWriter::create(disk, self.header.clone()).doing(doing)?
            }
        };
        let mut bytes = 0;
        while self.places.len() < self.wanted.len() && bytes < bytes_max {
            let (position, _) = self.wanted[self.places.len()];
            let (entry, encoded) = self.sources[&position.segment()].entry_at(position)?;
            bytes += encoded.len();
            let place = writer.add(&entry).doing(doing)?;
            self.places.push(place);
        }
        if self.places.len() < self.wanted.len() {
            self.writer = Some(writer);
            return Ok(Copied::More(self));
        }
        let kept = writer.finish().doing(doing)?;
        let moved = self.wanted.into_iter().zip(self.places);
        Ok(Copied::Whole(kept, moved.map(|((from, what), to)| Moved { what, from, to }).collect()))
    }

    /// Opens the segments that the records lie in, and sorts these by their places: they are read one behind the other.
    /// Returns the length of the segment that they fill.
    fn open_sources(&mut self, disk: &D) -> Result<u64, StorageError> {
        self.wanted.sort_unstable_by_key(|(position, _)| *position);
        let mut payloads = Vec::with_capacity(self.wanted.len());
        for (position, _) in &self.wanted {
            let id = position.segment();
            if !self.sources.contains_key(&id) {
                self.sources.insert(id, SegmentReader::open(disk, id, Some(&self.header.identity))?);
            }
            payloads.push(self.sources[&id].payload_bytes(*position)?);
        }
        Ok(kept_bytes(payloads.into_iter()))
    }
}
