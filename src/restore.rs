//! `fsd --restore FILE -c CONF`: makes the data directory of a node out of a backup, for a new cluster that goes on with the
//! files of the old one, versions and expiries included.
//!
//! The command is run for each node of the new cluster, or for a majority at least, with the same backup. The nodes do
//! not know of each other then, and still all of them must come to the same cluster.
//!
//! # How a restored cluster elects
//!
//! The new log begins behind a base, the entry of the backup, which counts as committed. Who may vote follows from the
//! registrations ([`crate::raft`], `electorate`), and those of the backup name data directories of the old cluster, none
//! of which is here. So they are replaced, and everything that is put in their place is **derived** from the backup and the
//! configuration:
//!
//! * An id, which is a hash over what the backup is of, its bytes, the name of the new cluster and its members. Any two
//!   directories that agree in all of this agree in the id, and others differ.
//! * The id is the new **cluster id**. Nodes of the old cluster know another one, and refuse and are refused; so do
//!   directories that were restored from another backup, or for other members.
//! * The **incarnation** of each member is a hash over the id and the member. All of them are registered at index 1, as
//!   by a genesis: all restored directories confirm each other from the start. A majority of them elects as any cluster does that
//!   was stopped and started again: all their logs end with the same committed entry, in whose term they begin, and nobody has voted in a
//!   later one.
//!
//! This is safe because nothing is claimed that is not so. Whoever has a derived incarnation has the base on its disk, and a
//! directory never has one but by being restored whole. Until it is started it has promised nothing; it may be started
//! early, late or never, like a disk that was in a drawer.
//!
//! * *A member that was not restored* begins empty, with an incarnation that it draws. No log confirms it, so neither what
//!   it acknowledges nor its vote counts for anything in the restored cluster; it hears of the cluster id, waits, is sent the store, and is
//!   proposed and confirmed in place of the incarnation that never came (`electorate`, rules 5 to 7). Should that one come after all,
//!   it is as any disk that was replaced.
//! * *Fewer than a majority restored* elect nobody: they are not enough, and the others' votes do not count. And if the
//!   others are a majority, and meet each other before they meet a restored node, they begin a new, empty cluster.
//! * *A directory that is restored once more* while its cluster goes on has the incarnation that it had, and no memory of
//!   what it promised. Its life tells: it is counted from 0 again, and a peer that met the first one recognises an old copy, which then takes
//!   part as a new incarnation. What `electorate` says of old copies holds: one that was started more
//!   often, before it reached anybody, than the first one ever was, cannot be recognised. A node that lost its directory
//!   is to begin empty, not to be restored again.
//! * *All are restored once more* from the same backup, for the same members: to the nodes that is the same cluster. None of the
//!   directories of the first time may be used again.

use std::fmt;
use std::io::{self, Read};

use fsd_wire::store_stream::StreamHead;
use fsd_wire::{ClusterId, Incarnation, Life, LogIndex, NodeId, Term};

use crate::config::Member;
use crate::file_store::FileStore;
use crate::limits;
use crate::mapping::Disk;
use crate::raft::HardState;
use crate::storage::segment::{RECORDS_AT, SegmentHeader};
use crate::storage::{
    CheckpointHead, CheckpointWriter, DirectoryIdentity, Position, Restoration, SegmentId, StorageError,
};
use crate::transfer::{Progress, Received, StreamError, StreamProblem, StreamWriter, TransferError};

/// Bytes of the backup that are read at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// For whom a backup is restored.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Whose the directory becomes.
    pub identity: &'a DirectoryIdentity,
    /// The members of the new cluster, in the order of their ids.
    pub members: &'a [Member],
    /// The size of a segment.
    pub segment_bytes: u64,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the backup was of.
    pub head: StreamHead,
    /// The cluster's id from now on.
    pub cluster_id: ClusterId,
}

/// Why a backup was not restored. The directory is as it was, unless the disk failed.
#[derive(Debug)]
pub enum RestoreError {
    /// The backup cannot be read.
    Input(io::Error),
    /// It is damaged, or none; or the directory's disk fails.
    Transfer(TransferError),
    /// It is one that nothing can begin with.
    Unfit(&'static str),
    /// The directory cannot be used, or its disk fails.
    Storage(StorageError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => write!(f, "cannot read the backup: {error}"),
            Self::Transfer(TransferError::Stream(StreamError {
                at,
                what: what @ (StreamProblem::CutShort | StreamProblem::Trailing),
                ..
            })) => write!(f, "not a whole backup: {what}, at byte {at}"),
            Self::Transfer(TransferError::Stream(error)) => {
                write!(f, "not a whole backup: part {} at byte {}: {}", error.part, error.at, error.what)
            }
            Self::Transfer(error) => error.fmt(f),
            Self::Unfit(what) => write!(f, "the backup cannot be restored: {what}"),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<TransferError> for RestoreError {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

impl From<StorageError> for RestoreError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Makes a data directory of a backup. `watch` is told how many bytes of it were taken.
///
/// # Errors
/// If the directory is not empty, or the backup is not whole; then the directory is as it was. Or if the disk fails.
pub fn restore<D: Disk>(
    disk: &D,
    recipient: &Recipient<'_>,
    random: &mut dyn FnMut() -> u64,
    backup: &mut impl Read,
    watch: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let restoration = Restoration::begin(disk)?;
    let mut directory = Directory { disk, recipient, random, last_id: 0 };
    match directory.fill(backup, watch) {
        Ok((restored, state)) => {
            restoration.finish(recipient.identity, &state)?;
            Ok(restored)
        }
        Err(error) => {
            // The first error is the one to tell. Where this fails, too, what is left is a restoration without an end.
            let _ = restoration.give_up();
            Err(error)
        }
    }
}

/// A directory that is being filled.
struct Directory<'a, D> {
    disk: &'a D,
    recipient: &'a Recipient<'a>,
    random: &'a mut dyn FnMut() -> u64,
    /// The last segment id that was given out.
    last_id: u32,
}

impl<D: Disk> Directory<'_, D> {
    /// Makes all but the hard state.
    fn fill(
        &mut self,
        backup: &mut impl Read,
        watch: &mut dyn FnMut(u64),
    ) -> Result<(Restored, HardState), RestoreError> {
        let (received, crc) = self.receive(backup, watch)?;
        let Received { head, mut store, .. } = received;
        if head.entry.index == LogIndex(0) || head.entry.term == Term(0) {
            return Err(RestoreError::Unfit("it is of a log without an entry"));
        }
        let id = Id::derive(&head, crc, self.recipient);
        self.write_checkpoint(&head, &mut store, &id)?;
        let state = HardState {
            incarnation: id.incarnation(self.recipient.identity.node),
            life: Life::new(0, (self.random)() as u32),
            term: head.entry.term,
            voted_for: None,
            cluster_id: Some(id.cluster_id()),
            met: Default::default(),
        };
        Ok((Restored { head, cluster_id: id.cluster_id() }, state))
    }

    /// Reads the backup to its end, with the CRC of all its bytes.
    fn receive(
        &mut self,
        backup: &mut impl Read,
        watch: &mut dyn FnMut(u64),
    ) -> Result<(Received<D::File>, u32), RestoreError> {
        let mut writer = StreamWriter::begin(self.disk, None);
        let mut crc = crc32fast::Hasher::new();
        let mut whole = None;
        let mut piece = vec![0; PIECE_BYTES];
        let mut header = None;
        loop {
            let count = match backup.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(RestoreError::Input(error)),
            };
            crc.update(&piece[..count]);
            let (mut at, end) = (writer.next_offset(), writer.next_offset() + count as u64);
            if whole.is_some() {
                return Err(stream_error(StreamProblem::Trailing, at));
            }
            while whole.is_none() && at < end {
                if header.is_none() {
                    header = Some(self.segment_header());
                }
                let rest = &piece[count - (end - at) as usize..count];
                match writer.feed(at, rest, &mut header)? {
                    Progress::More { next_offset } => at = next_offset,
                    Progress::Whole(received) => whole = Some(*received),
                }
            }
            watch(end);
        }
        let received = whole.ok_or_else(|| stream_error(StreamProblem::CutShort, writer.next_offset()))?;
        Ok((received, crc.finalize()))
    }

    fn segment_header(&mut self) -> SegmentHeader {
        self.last_id += 1;
        SegmentHeader {
            id: SegmentId(self.last_id),
            salt: (self.random)(),
            len_bytes: self.recipient.segment_bytes,
            identity: self.recipient.identity.clone(),
        }
    }

    /// Writes the checkpoint of the store, behind which the log begins.
    fn write_checkpoint(
        &mut self,
        of: &StreamHead,
        store: &mut FileStore,
        id: &Id,
    ) -> Result<(), RestoreError> {
        let segments = store.live_segments().map(|(segment, _)| SegmentId(segment)).collect();
        let image = store.begin_image();
        let member = |member: &Member| (LogIndex(1), member.node, id.incarnation(member.node));
        let head = CheckpointHead {
            salt: (self.random)(),
            identity: self.recipient.identity.clone(),
            entry: of.entry,
            stamp: of.stamp,
            log_end: Position::new(SegmentId(self.last_id + 1), RECORDS_AT),
            genesis: Some(id.cluster_id()),
            registrations: self.recipient.members.iter().map(member).collect(),
            segments,
            revision: image.revision.0,
            files: image.files,
            sessions: image.sessions,
            body_bytes: image.items_bytes,
            begins_anew: true,
        };
        let failed = |source| {
            let doing = format!("write {}", self.disk.describe(&head.name()));
            RestoreError::Storage(StorageError::Io { doing, source })
        };
        let mut writer = CheckpointWriter::create(self.disk, &head).map_err(failed)?;
        let mut more = head.files + head.sessions > 0;
        while more {
            let mut slice = Vec::new();
            more = store.image_slice(limits::IMAGE_SLICE_BYTES, &mut slice);
            writer.append(&slice).map_err(failed)?;
        }
        writer.finish().map_err(failed)
    }
}

fn stream_error(what: StreamProblem, at: u64) -> RestoreError {
    RestoreError::Transfer(TransferError::Stream(what.of(0, at)))
}

/// What a restored cluster derives its identities from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id(u128);

impl Id {
    fn derive(head: &StreamHead, crc: u32, recipient: &Recipient<'_>) -> Self {
        let mut hash = Hash::new("restored cluster");
        hash.add(&head.encode());
        hash.add(&crc.to_le_bytes());
        hash.add(recipient.identity.cluster.as_bytes());
        for member in recipient.members {
            hash.add(&member.node.0.to_le_bytes());
            hash.add(member.peer.to_string().as_bytes());
        }
        Self(hash.finish())
    }

    fn cluster_id(self) -> ClusterId {
        ClusterId(self.0)
    }

    fn incarnation(self, node: NodeId) -> Incarnation {
        let mut hash = Hash::new("incarnation");
        hash.add(&self.0.to_le_bytes());
        hash.add(&node.0.to_le_bytes());
        let hashed = hash.finish();
        Incarnation(((hashed >> 64) as u64 ^ hashed as u64).max(1))
    }
}

/// FNV-1a of 128 bits: nobody is to be kept from finding two backups of one hash, but no two are to have one by chance. It must
/// be the same in every release: nodes may be restored by different ones.
struct Hash(u128);

impl Hash {
    fn new(purpose: &str) -> Self {
        let mut hash = Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        hash.add(purpose.as_bytes());
        hash
    }

    /// Adds bytes and where they end.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    /// Spreads the last bytes, too, over all bits. Never 0, which stands for "none".
    fn finish(mut self) -> u128 {
        self.add(&[0; 16]);
        self.0.max(1)
    }
}

#[cfg(test)]
mod tests;
