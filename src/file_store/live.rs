//! How much of each segment of the log is still the contents of files: what tells which segment is worth cleaning.

use std::collections::BTreeMap;

use super::{ContentsAt, File, FileName};

/// What the record of a file takes in the log besides name and contents: the record's head and the command's. (What a
/// session's change has in addition, and what fills a record up to a multiple of 8, is not counted.)
pub const RECORD_OVERHEAD_BYTES: u64 = 64 + 19;

/// Files whose contents lie somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// How many.
    pub files: u64,
    /// What they take there: contents, names, and [`RECORD_OVERHEAD_BYTES`] each.
    pub bytes: u64,
}

impl Live {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.files -= 1;
        self.bytes -= bytes;
    }
}

/// Of all segments, what is live in them. It is this node's own affair: no other has its files at the same places.
#[derive(Clone, Debug, Default)]
pub(super) struct LiveContents {
    segments: BTreeMap<u32, Live>,
    total: Live,
}

impl LiveContents {
    pub(super) fn add(&mut self, name: &FileName, file: &File) {
        let bytes = record_bytes(name, file);
        self.segments.entry(file.contents.segment()).or_default().add(bytes);
        self.total.add(bytes);
    }

    pub(super) fn remove(&mut self, name: &FileName, file: &File) {
        let bytes = record_bytes(name, file);
        let segment = file.contents.segment();
        let live = self.segments.get_mut(&segment).expect("a segment with contents is known");
        live.remove(bytes);
        if live.files == 0 {
            self.segments.remove(&segment);
        }
        self.total.remove(bytes);
    }

    pub(super) fn of(&self, segment: u32) -> Live {
        self.segments.get(&segment).copied().unwrap_or_default()
    }

    pub(super) fn total(&self) -> Live {
        self.total
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = (u32, Live)> {
        self.segments.iter().map(|(segment, live)| (*segment, *live))
    }
}

impl ContentsAt {
    /// The segment that they lie in.
    #[must_use]
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

fn record_bytes(name: &FileName, file: &File) -> u64 {
    u64::from(file.size_bytes) + name.as_str().len() as u64 + RECORD_OVERHEAD_BYTES
}
