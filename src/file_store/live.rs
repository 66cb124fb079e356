//! How much of each segment of the log is still the contents of files: what tells which segment is worth cleaning.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{ContentsAt, File, FileName, FileStore};

/// What the record of a file takes in the log besides name and contents: the record's head, the command's, and what a
/// change in a session has before it. (One outside of sessions takes a little less.)
pub const RECORD_OVERHEAD_BYTES: u64 = 64 + 19 + 25;
/// Records begin at multiples of this.
const RECORD_ALIGNMENT: u64 = 8;

/// Files whose contents lie somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// How many.
    pub files: u64,
    /// What they take there: contents, names, [`RECORD_OVERHEAD_BYTES`] each, and what fills a record up.
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

impl FileStore {
    /// Of the next `count` files, in the order of their names and behind the one that was looked at last, hands those
    /// to `take` whose contents lie in one of `segments`. The last one that was looked at; none if there are no more.
    pub fn files_in(
        &self,
        segments: &BTreeSet<u32>,
        after: Option<&FileName>,
        count: usize,
        mut take: impl FnMut(&FileName, &File),
    ) -> Option<FileName> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (name, file) in self.files.range::<FileName, _>((begin, Bound::Unbounded)).take(count) {
            if segments.contains(&file.contents.segment()) {
                take(name, file);
            }
            last = Some(name);
        }
        last.cloned()
    }
}

impl ContentsAt {
    /// The segment that they lie in.
    #[must_use]
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What the record of a file takes, at most.
pub fn record_bytes(name: &FileName, file: &File) -> u64 {
    let bytes = u64::from(file.size_bytes) + name.as_str().len() as u64 + RECORD_OVERHEAD_BYTES;
    bytes.next_multiple_of(RECORD_ALIGNMENT)
}
