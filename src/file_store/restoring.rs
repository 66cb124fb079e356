//! A store made out of an image. The image comes from a disk or from another node: whatever is in it, this ends in a
//! store that `apply` can go on with, or in an error.

use std::collections::BTreeMap;
use std::fmt;

use byteorder::{ByteOrder, LittleEndian};
use fsd_wire::{ClusterTimeMs, LogIndex, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, Sequence, SessionId, Version};

use super::image::{FILE_ITEM_BYTES, REPLY_BYTES, SESSION_ITEM_BYTES};
use super::live::LiveContents;
use super::sessions::{Reply, Session, Sessions};
use super::{ContentsAt, File, FileName, FileStore, ImageHead};
use crate::limits::{SESSION_REPLIES_BYTES_MAX, SESSION_WINDOW};

/// Why bytes are no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageError {
    /// Where in the items.
    pub at: u64,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image of the store: byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for ImageError {}

/// A store that is being made out of an image.
#[derive(Debug)]
pub struct Restoring {
    head: ImageHead,
    /// How many bytes were read as items.
    at: u64,
    /// The bytes behind them: an item of which the end has not come yet.
    rest: Vec<u8>,
    files: Vec<(FileName, File)>,
    directories: Directories,
    names_bytes: u64,
    live: LiveContents,
    sessions: Vec<(SessionId, Session)>,
}

impl FileStore {
    /// Begins to make a store out of an image.
    #[must_use]
    pub fn restore(head: &ImageHead) -> Restoring {
        Restoring {
            head: *head,
            at: 0,
            rest: Vec::new(),
            files: Vec::new(),
            directories: Directories::default(),
            names_bytes: 0,
            live: LiveContents::default(),
            sessions: Vec::new(),
        }
    }
}

impl Restoring {
    /// Takes the next bytes of the image's items, cut anywhere.
    ///
    /// # Errors
    /// If they are no items, or not the next ones.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut used = 0;
        let added = loop {
            match self.add_item(&rest[used..]) {
                Ok(None) => break Ok(()),
                Ok(Some(item_bytes)) => {
                    used += item_bytes;
                    self.at += item_bytes as u64;
                }
                Err(what) => break Err(ImageError { at: self.at, what }),
            }
        };
        rest.drain(..used);
        self.rest = rest;
        added
    }

    /// The store.
    ///
    /// # Errors
    /// If the image is not whole, or its items are not what its head says.
    pub fn finish(self) -> Result<FileStore, ImageError> {
        let Self { head, at, rest, files, names_bytes, live, sessions, .. } = self;
        let failed = |what: String| Err(ImageError { at, what });
        if !rest.is_empty() {
            return failed(format!("{} bytes of an item that is not whole", rest.len()));
        }
        let found = (files.len() as u64, sessions.len() as u64, at);
        if found != (head.files, head.sessions, head.items_bytes) {
            return failed(format!("(files, sessions, bytes) are {found:?} and not as in {head:?}"));
        }
        if head.revision.0 > head.last_applied.0 {
            return failed(format!("revision {} as of entry {}", head.revision, head.last_applied));
        }
        let with_due = files.iter().filter_map(|(name, file)| Some((file.due?, name.clone())));
        let mut due: Vec<(ClusterTimeMs, FileName)> = with_due.collect();
        // Names that are due at the same time stay in their order, and need not be compared.
        due.sort_by_key(|(due, _)| *due);
        let sessions: Sessions = sessions.into_iter().collect();
        if sessions.replies_bytes > SESSION_REPLIES_BYTES_MAX {
            return failed(format!("replies that count {} bytes", sessions.replies_bytes));
        }
        Ok(FileStore {
            files: files.into_iter().collect(),
            names_bytes,
            due: due.into_iter().collect(),
            live,
            sessions,
            revision: head.revision,
            last_applied: head.last_applied,
            cluster_time: head.cluster_time,
            image: None,
        })
    }

    /// Takes the first item of these bytes; tells how many it has, or nothing if its end is not there yet.
    fn add_item(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let mut fields = Fields(bytes);
        let added = if (self.files.len() as u64) < self.head.files {
            self.add_file(&mut fields)?
        } else if (self.sessions.len() as u64) < self.head.sessions {
            self.add_session(&mut fields)?
        } else if !bytes.is_empty() {
            return Err("more than files and sessions".to_owned());
        } else {
            None
        };
        Ok(added.map(|()| bytes.len() - fields.0.len()))
    }

    fn add_file(&mut self, fields: &mut Fields) -> Result<Option<()>, String> {
        let Some(item) = fields.take(FILE_ITEM_BYTES) else { return Ok(None) };
        let name_bytes = usize::from(LittleEndian::read_u16(item));
        if name_bytes > NAME_BYTES_MAX {
            return Err(format!("a name of {name_bytes} bytes"));
        }
        let Some(name) = fields.take(name_bytes) else { return Ok(None) };
        let name = std::str::from_utf8(name).map_err(|_| "a name that is not UTF-8".to_owned())?;
        let due = ClusterTimeMs(LittleEndian::read_u64(&item[18..]));
        let file = File {
            version: Version(LittleEndian::read_u64(&item[2..])),
            size_bytes: LittleEndian::read_u32(&item[10..]),
            contents_crc: LittleEndian::read_u32(&item[14..]),
            due: (due.0 > 0).then_some(due),
            contents: ContentsAt(LittleEndian::read_u64(&item[26..])),
        };
        self.check_version(file.version)?;
        if file.size_bytes as usize > PAYLOAD_BYTES_MAX {
            return Err(format!("contents of {} bytes", file.size_bytes));
        }
        if file.due.is_some_and(|due| due < self.head.cluster_time) {
            return Err(format!("a file that was due at {due}"));
        }
        let last = self.files.last().map_or("", |(name, _)| name.as_str());
        self.directories.check_next(last, name)?;
        let name = FileName::parse(name).map_err(|error| error.to_string())?;
        self.names_bytes += name_bytes as u64;
        self.live.add(&name, &file);
        self.files.push((name, file));
        Ok(Some(()))
    }

    fn add_session(&mut self, fields: &mut Fields) -> Result<Option<()>, String> {
        let Some(item) = fields.take(SESSION_ITEM_BYTES) else { return Ok(None) };
        let id = SessionId(LittleEndian::read_u64(item));
        let mut session = Session {
            idle_ms: LittleEndian::read_u64(&item[8..]),
            due: ClusterTimeMs(LittleEndian::read_u64(&item[16..])),
            used: LogIndex(LittleEndian::read_u64(&item[24..])),
            acknowledged: Sequence(LittleEndian::read_u64(&item[32..])),
            replies: BTreeMap::new(),
        };
        self.check_session(id, &session)?;
        let replies = LittleEndian::read_u32(&item[40..]);
        if u64::from(replies) > SESSION_WINDOW {
            return Err(format!("a session with {replies} replies"));
        }
        let mut last = session.acknowledged;
        for _ in 0..replies {
            let Some((sequence, reply)) = self.reply(fields)? else { return Ok(None) };
            if sequence <= last || sequence.0 - session.acknowledged.0 > SESSION_WINDOW {
                return Err(format!("reply {sequence} behind {last} of session {id}"));
            }
            last = sequence;
            session.replies.insert(sequence, reply);
        }
        self.sessions.push((id, session));
        Ok(Some(()))
    }

    fn check_session(&self, id: SessionId, session: &Session) -> Result<(), String> {
        let ImageHead { last_applied, cluster_time, .. } = self.head;
        if id <= self.sessions.last().map_or(SessionId(0), |(last, _)| *last) {
            return Err(format!("session {id} out of its order"));
        }
        if session.used.0 < id.0 || session.used > last_applied {
            return Err(format!("session {id} was used by entry {}", session.used));
        }
        let due_max = cluster_time.0.saturating_add(session.idle_ms);
        if session.due < cluster_time || session.due.0 > due_max || session.idle_ms == 0 {
            return Err(format!("session {id} lives {} ms and ends at {}", session.idle_ms, session.due));
        }
        Ok(())
    }

    fn reply(&self, fields: &mut Fields) -> Result<Option<(Sequence, Reply)>, String> {
        let Some(item) = fields.take(REPLY_BYTES) else { return Ok(None) };
        let with_bytes = usize::from(LittleEndian::read_u16(&item[17..]));
        if with_bytes > NAME_BYTES_MAX {
            return Err(format!("a name of {with_bytes} bytes"));
        }
        let Some(with) = fields.take(with_bytes) else { return Ok(None) };
        let with = std::str::from_utf8(with).map_err(|_| "a name that is not UTF-8".to_owned())?;
        let sequence = Sequence(LittleEndian::read_u64(item));
        let version = Version(LittleEndian::read_u64(&item[9..]));
        let reply = match (item[8], version, with) {
            (1, _, "") => Reply::Changed(version),
            (2, Version(0), "") => Reply::NotFound,
            (3, _, "") => Reply::VersionMismatch(version),
            (4, Version(0), _) => Reply::Conflict(with.into()),
            (code, ..) => return Err(format!("a reply of kind {code} with version {version} and {with:?}")),
        };
        match &reply {
            Reply::Changed(version) => self.check_version(*version)?,
            Reply::VersionMismatch(Version(0)) | Reply::NotFound => {}
            Reply::VersionMismatch(version) => self.check_version(*version)?,
            Reply::Conflict(with) => drop(FileName::parse(with).map_err(|error| error.to_string())?),
        }
        Ok(Some((sequence, reply)))
    }

    fn check_version(&self, version: Version) -> Result<(), String> {
        if version == Version(0) || version > self.head.revision {
            return Err(format!("version {version} as of revision {}", self.head.revision));
        }
        Ok(())
    }
}

/// Takes fields off the front of bytes of which the end may not have come yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Holds that names come in their order, and that none is a directory of another. With `a` before `a/b`, `a-b` may
/// lie between the two: so of the names before, those are remembered that the last one begins with. They all are
/// beginnings of it, and their lengths tell which.
#[derive(Debug, Default)]
struct Directories {
    lengths: Vec<usize>,
}

impl Directories {
    fn check_next(&mut self, last: &str, name: &str) -> Result<(), String> {
        let (last, bytes) = (last.as_bytes(), name.as_bytes());
        let equal = last.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        if last[equal..] >= bytes[equal..] {
            return Err(format!("{name} out of its order"));
        }
        while self.lengths.last().is_some_and(|length| *length > equal) {
            self.lengths.pop();
        }
        let mut slashes = (0..bytes.len().min(equal + 1)).filter(|at| bytes[*at] == b'/');
        if let Some(at) = slashes.find(|at| self.lengths.binary_search(at).is_ok()) {
            return Err(format!("{name} below a file, {}", &name[..at]));
        }
        self.lengths.push(bytes.len());
        Ok(())
    }
}
