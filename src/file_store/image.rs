//! An image of the whole store, as of the entry that was applied last when it was begun. It is given out in slices as a
//! row of items, while the store goes on changing ([`super::imaged_map`]), and [`super::Restoring`] makes a store
//! of it again. A checkpoint holds one, and so does what a node sends to one that is too far behind.
//!
//! First the files come in the byte order of their names, then the sessions in the order of theirs; how many there are
//! of each is in the image's head. All integers are little-endian.
//!
//! A file:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 2 | length of the name |
//! | 2 | 8 | version |
//! | 10 | 4 | size of the contents |
//! | 14 | 4 | CRC-32 of the contents |
//! | 18 | 8 | cluster time from which on it is gone; 0 for never |
//! | 26 | 8 | where the contents lie, as a position in the log of the node that took the image |
//! | 34 | | name |
//!
//! A session:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | the session |
//! | 8 | 8 | how long it lives without a sign of life |
//! | 16 | 8 | cluster time at which it ends |
//! | 24 | 8 | index of the last entry that was of it |
//! | 32 | 8 | sequence number up to which its client needs no reply |
//! | 40 | 4 | count of the replies, which follow in the order of their numbers |
//! | 44 | | replies |
//!
//! A reply:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | sequence number of the change |
//! | 8 | 1 | 1 changed, 2 not found, 3 version mismatch, 4 conflict |
//! | 9 | 8 | version that the change took, or that was there; else 0 |
//! | 17 | 2 | length of the name of the file that was in the way; 0 if none was |
//! | 19 | | its name |

use fsd_wire::{ClusterTimeMs, LogIndex, Sequence, SessionId, Version};

use super::sessions::{Reply, Session, Sessions};
use super::{File, FileName, FileStore};
use crate::limits::SESSION_REPLY_BYTES;

/// Bytes of a file's item before the name.
pub(super) const FILE_ITEM_BYTES: usize = 34;
/// Bytes of a session's item before the replies.
pub(super) const SESSION_ITEM_BYTES: usize = 44;
/// Bytes of a reply before the name.
pub(super) const REPLY_BYTES: usize = 19;

/// What an image is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHead {
    /// The entry as of which the store was.
    pub last_applied: LogIndex,
    /// The stamp of that entry.
    pub cluster_time: ClusterTimeMs,
    /// The revision counter.
    pub revision: Version,
    /// How many files there were.
    pub files: u64,
    /// How many sessions.
    pub sessions: u64,
    /// The bytes of all items.
    pub items_bytes: u64,
}

/// What comes next of an image that is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Files,
    Sessions,
}

impl FileStore {
    /// What an image that was begun now would be of.
    #[must_use]
    pub fn image_head(&self) -> ImageHead {
        let files_bytes = (self.files.len() * FILE_ITEM_BYTES) as u64 + self.names_bytes;
        ImageHead {
            last_applied: self.last_applied,
            cluster_time: self.cluster_time,
            revision: self.revision,
            files: self.files.len() as u64,
            sessions: self.sessions.len() as u64,
            items_bytes: files_bytes + self.sessions.items_bytes(),
        }
    }

    /// Begins an image of the store as it is now. Costs the same however much there is.
    ///
    /// # Panics
    /// If one is being taken already.
    pub fn begin_image(&mut self) -> ImageHead {
        assert!(self.image.is_none(), "an image is being taken already");
        self.files.begin_image();
        self.sessions.sessions.begin_image();
        self.image = Some(Stage::Files);
        self.image_head()
    }

    /// Appends the image's next items to `out`: about `bytes_max` bytes of them, an item more where they do not come
    /// out even, and fewer where much that lay ahead was made only since. Whether there are more to come; if not, the
    /// image has ended.
    ///
    /// # Panics
    /// If no image is being taken, or `bytes_max` is 0.
    pub fn image_slice(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        assert!(bytes_max > 0, "a slice of something");
        let stage = self.image.expect("an image is being taken");
        let end = out.len() + bytes_max;
        if stage == Stage::Files {
            if self.files.image_slice(bytes_max, |name, file| encode_file(name, file, out)) {
                return true;
            }
            self.image = Some(Stage::Sessions);
        }
        let room = end.saturating_sub(out.len());
        let has_more =
            self.sessions.sessions.image_slice(room, |id, session| encode_session(*id, session, out));
        if !has_more {
            self.image = None;
        }
        has_more
    }

    /// Whether an image is being taken.
    #[must_use]
    pub fn is_taking_image(&self) -> bool {
        self.image.is_some()
    }

    /// Gives up the image that is being taken, if there is one.
    pub fn drop_image(&mut self) {
        self.files.drop_image();
        self.sessions.sessions.drop_image();
        self.image = None;
    }
}

impl Sessions {
    /// The bytes of the items of all sessions.
    fn items_bytes(&self) -> u64 {
        let names_bytes = self.replies_bytes - self.replies * SESSION_REPLY_BYTES;
        (self.sessions.len() * SESSION_ITEM_BYTES + self.replies * REPLY_BYTES + names_bytes) as u64
    }
}

/// Appends a file; tells how many bytes it takes.
fn encode_file(name: &FileName, file: &File, out: &mut Vec<u8>) -> usize {
    let name = name.as_str().as_bytes();
    let mut head = [0; FILE_ITEM_BYTES];
    head[..2].copy_from_slice(&(name.len() as u16).to_le_bytes());
    head[2..10].copy_from_slice(&file.version.0.to_le_bytes());
    head[10..14].copy_from_slice(&file.size_bytes.to_le_bytes());
    head[14..18].copy_from_slice(&file.contents_crc.to_le_bytes());
    head[18..26].copy_from_slice(&file.due.map_or(0, |due| due.0).to_le_bytes());
    head[26..].copy_from_slice(&file.contents.0.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(name);
    FILE_ITEM_BYTES + name.len()
}

/// Appends a session with its replies; tells how many bytes it takes.
fn encode_session(id: SessionId, session: &Session, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    let Session { idle_ms, due, used, acknowledged, replies } = session;
    for number in [id.0, *idle_ms, due.0, used.0, acknowledged.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(replies.len() as u32).to_le_bytes());
    for (sequence, reply) in replies {
        encode_reply(*sequence, reply, out);
    }
    out.len() - begin
}

fn encode_reply(sequence: Sequence, reply: &Reply, out: &mut Vec<u8>) {
    let (code, version, with) = reply.parts();
    out.extend_from_slice(&sequence.0.to_le_bytes());
    out.push(code);
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&(with.len() as u16).to_le_bytes());
    out.extend_from_slice(with.as_bytes());
}
