//! The stream of a store ([`fsd_wire::store_stream`]) and what only who has the store can check of it.

use fsd_wire::{ClusterTimeMs, Entry, Operation};

use crate::file_store::items::{self, FileItem};
use crate::file_store::{ImageError, ImageHead};

pub use fsd_wire::store_stream::*;

const _: () = assert!(FILE_ITEM_HEAD_BYTES + fsd_wire::NAME_BYTES_MAX == items::FILE_ITEM_BYTES_MAX);
const _: () = assert!(SESSION_ITEM_BYTES_MAX == items::SESSION_ITEM_BYTES_MAX);

/// What the image that comes is of.
#[must_use]
pub fn image_head(head: &StreamHead) -> ImageHead {
    ImageHead {
        last_applied: head.entry.index,
        cluster_time: head.stamp,
        revision: head.revision,
        files: head.files,
        sessions: head.sessions,
        items_bytes: head.items_bytes,
    }
}

impl From<ImageError> for StreamProblem {
    fn from(error: ImageError) -> Self {
        Self::Image { at: error.at, what: error.what }
    }
}

/// Checks that a file is what this entry made of it, in a store as of `head`.
pub(super) fn check_file(head: &StreamHead, item: &FileItem<'_>, entry: &Entry) -> Result<(), StreamProblem> {
    let other = |what| Err(StreamProblem::OtherEntry(what));
    if entry.index > head.entry.index || entry.term > head.entry.term || entry.stamp > head.stamp {
        return other("the entry is later than the store");
    }
    let Some(command) = entry.command()? else { return other("the entry changes no file") };
    let (Operation::Write { expiry_seconds } | Operation::Cas { expiry_seconds, .. }) = command.operation
    else {
        return other("the entry removes a file");
    };
    if command.name.as_bytes() != item.name() {
        return other("name");
    }
    if command.contents.len() != item.size_bytes() as usize {
        return other("size");
    }
    if crc32fast::hash(&command.contents) != item.contents_crc() {
        return other("CRC of the contents");
    }
    let lives_ms = expiry_seconds.saturating_mul(1000);
    let due = (expiry_seconds > 0).then(|| ClusterTimeMs(entry.stamp.0.saturating_add(lives_ms)));
    if due != item.due() {
        return other("expiry");
    }
    if item.version().0 > entry.index.0 {
        return other("version");
    }
    Ok(())
}
