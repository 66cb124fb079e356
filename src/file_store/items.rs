//! The items of an image ([`super::image`]) one by one, for whoever passes them on and makes no store of them.

use byteorder::{ByteOrder, LittleEndian};
use fsd_wire::{ClusterTimeMs, NAME_BYTES_MAX, Version};

use super::ContentsAt;
use super::image::{FILE_ITEM_BYTES, REPLY_BYTES, SESSION_ITEM_BYTES};
use crate::limits::SESSION_WINDOW;

/// Bytes of a file's item before the place of its contents.
const PLACE_AT: usize = FILE_ITEM_BYTES - PLACE_BYTES;
const PLACE_BYTES: usize = 8;

/// The longest item of a file without its place.
pub const FILE_ITEM_BYTES_MAX: usize = PLACE_AT + NAME_BYTES_MAX;
/// The longest item of a session.
pub const SESSION_ITEM_BYTES_MAX: usize =
    SESSION_ITEM_BYTES + SESSION_WINDOW as usize * (REPLY_BYTES + NAME_BYTES_MAX);

/// A file as an image has it, without the place of its contents: that is each node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileItem<'a> {
    /// The fields before the place.
    head: &'a [u8],
    name: &'a [u8],
}

impl<'a> FileItem<'a> {
    /// The item that an image goes on with, the place that it names, and how many bytes they take there; nothing if
    /// these bytes end before.
    #[must_use]
    pub fn of_image(bytes: &'a [u8]) -> Option<(Self, ContentsAt, usize)> {
        let (head, rest) = bytes.split_at_checked(PLACE_AT)?;
        let (place, rest) = rest.split_at_checked(PLACE_BYTES)?;
        let name = rest.get(..name_bytes(head))?;
        let item_bytes = FILE_ITEM_BYTES + name.len();
        Some((Self { head, name }, ContentsAt(LittleEndian::read_u64(place)), item_bytes))
    }

    /// The item that these bytes begin with, and what is behind it; nothing if they end before. Whether the fields make
    /// sense, only [`super::Restoring`] tells.
    #[must_use]
    pub fn without_place(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(PLACE_AT)?;
        let (name, rest) = rest.split_at_checked(name_bytes(head))?;
        Some((Self { head, name }, rest))
    }

    /// The item's bytes without a place.
    #[must_use]
    pub fn bytes_without_place(&self) -> Vec<u8> {
        [self.head, self.name].concat()
    }

    /// The item's bytes in an image with this place.
    #[must_use]
    pub fn bytes_with_place(&self, contents: ContentsAt) -> Vec<u8> {
        [self.head, &contents.0.to_le_bytes(), self.name].concat()
    }

    /// The file's name, as bytes.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        Version(LittleEndian::read_u64(&self.head[2..]))
    }

    /// The size of its contents.
    #[must_use]
    pub fn size_bytes(&self) -> u32 {
        LittleEndian::read_u32(&self.head[10..])
    }

    /// The CRC-32 of its contents.
    #[must_use]
    pub fn contents_crc(&self) -> u32 {
        LittleEndian::read_u32(&self.head[14..])
    }

    /// The cluster time from which on it is gone.
    #[must_use]
    pub fn due(&self) -> Option<ClusterTimeMs> {
        let due = LittleEndian::read_u64(&self.head[18..]);
        (due > 0).then_some(ClusterTimeMs(due))
    }
}

/// The bytes of the item of a session that an image goes on with; nothing if these bytes end before.
#[must_use]
pub fn session_item(bytes: &[u8]) -> Option<&[u8]> {
    let mut end = SESSION_ITEM_BYTES;
    let head = bytes.get(..end)?;
    for _ in 0..LittleEndian::read_u32(&head[SESSION_ITEM_BYTES - 4..]) {
        let reply = bytes.get(end..end + REPLY_BYTES)?;
        end += REPLY_BYTES + usize::from(LittleEndian::read_u16(&reply[REPLY_BYTES - 2..]));
    }
    bytes.get(..end)
}

fn name_bytes(head: &[u8]) -> usize {
    usize::from(LittleEndian::read_u16(head))
}
