//! Work on files that takes longer than a turn may. The loop hands a [`Job`] over whole and gets [`Done`] back: on
//! another thread in the daemon, at some later moment in the simulator. No job sees the loop's state.

use std::io;

use bytes::Bytes;
use fsd_wire::NodeId;

use crate::file_store::FileName;
use crate::limits;
use crate::mapping::Disk;
use crate::storage::segment::SegmentHeader;
use crate::storage::{
    CheckpointHead, CheckpointWriter, Copied, Copying, NamelessCheckpoint, Spare, SpareRequest, StorageError,
};
use crate::transfer::{Chunk, Progress, StreamReader, StreamWriter, TransferError};

/// A chunk that was read, with what reads the next one unless it was the last.
pub type ChunkRead<D> = Result<(Option<Box<StreamReader<D>>>, Chunk), TransferError>;
/// How far a stream has come with a chunk, and what takes the next one.
pub type ChunkWritten<D> = Result<(Box<StreamWriter<D>>, Progress<<D as Disk>::File>), TransferError>;

/// How far the copying of live contents has come.
pub type CopiedContents<D> = Result<Copied<D, FileName>, StorageError>;

/// What was mapped, or is large, and of no use any more: letting it go takes time.
pub type Unused = Box<dyn Send>;

/// Something to be done.
pub enum Job<D: Disk> {
    /// Make the log's next segment ready.
    Spare(SpareRequest),
    /// Begin a checkpoint.
    BeginCheckpoint(CheckpointHead),
    /// Go on with it.
    AppendToCheckpoint(CheckpointWriter<D>, Vec<u8>),
    /// End it, but for its name.
    CompleteCheckpoint(CheckpointWriter<D>),
    /// End it, and give it its name.
    FinishCheckpoint(CheckpointWriter<D>),
    /// Copy a piece of so many bytes of what is live out of segments that are being cleaned.
    Copy(Box<Copying<D, FileName>>, usize),
    /// Let go of what is of no use any more, and remove files that nothing refers to.
    Remove(Vec<Unused>, Vec<String>),
    /// Find out how much room is left.
    AskRoom,
    /// Begin to read the state as of a checkpoint, for a node: the stream of this number.
    OpenStream(NodeId, u64, CheckpointHead, usize),
    /// Read the next chunk, of so many bytes at most.
    ReadStream(NodeId, u64, Box<StreamReader<D>>, usize),
    /// Write a chunk that came from another node, as part of the stream of this number.
    WriteStream(u64, Box<StreamWriter<D>>, u64, Bytes, SegmentHeader),
    /// Begin to read the state as of a checkpoint, for the backup of this number.
    OpenBackup(u64, CheckpointHead),
    /// Read its next piece.
    ReadBackup(u64, Box<StreamReader<D>>),
}

/// Jobs that are done one behind the other. Those of one lane never wait for those of another: the log needs its next
/// segment soon, streams are long and many, and no space comes back without checkpoints and cleaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The log's segments.
    Segments,
    /// Stores on their way to other nodes, from them, and to clients.
    Streams,
    /// All else.
    Housekeeping,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Segments, Self::Streams, Self::Housekeeping];
}

/// What became of it.
pub enum Done<D: Disk> {
    /// See [`Job::Spare`].
    Spare(io::Result<Spare<D::File>>),
    /// See [`Job::BeginCheckpoint`] and [`Job::AppendToCheckpoint`].
    Checkpoint(io::Result<CheckpointWriter<D>>),
    /// See [`Job::CompleteCheckpoint`].
    CheckpointCompleted(io::Result<NamelessCheckpoint<D>>),
    /// See [`Job::FinishCheckpoint`].
    CheckpointFinished(io::Result<()>),
    /// See [`Job::Copy`].
    Copied(CopiedContents<D>),
    /// See [`Job::Remove`].
    Removed(io::Result<()>),
    /// See [`Job::AskRoom`]: in bytes.
    Room(io::Result<u64>),
    /// See [`Job::OpenStream`] and [`Job::ReadStream`].
    Read(NodeId, u64, ChunkRead<D>),
    /// See [`Job::WriteStream`]; with the chunk, of which some may be left.
    Written(u64, ChunkWritten<D>, u64, Bytes),
    /// See [`Job::OpenBackup`] and [`Job::ReadBackup`].
    BackupRead(u64, ChunkRead<D>),
}

impl<D: Disk> Job<D> {
    /// Behind which others it is done.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Spare(..) => Lane::Segments,
            Self::OpenStream(..)
            | Self::ReadStream(..)
            | Self::WriteStream(..)
            | Self::OpenBackup(..)
            | Self::ReadBackup(..) => Lane::Streams,
            _ => Lane::Housekeeping,
        }
    }

    /// Does it.
    pub fn run(self, disk: &D) -> Done<D> {
        match self {
            Self::Spare(request) => Done::Spare(request.prepare(disk)),
            Self::BeginCheckpoint(head) => Done::Checkpoint(CheckpointWriter::create(disk, &head)),
            Self::AppendToCheckpoint(mut writer, block) => {
                Done::Checkpoint(writer.append(&block).map(|()| writer))
            }
            Self::CompleteCheckpoint(writer) => Done::CheckpointCompleted(writer.complete()),
            Self::FinishCheckpoint(writer) => Done::CheckpointFinished(writer.finish()),
            Self::Copy(copying, bytes) => Done::Copied(copying.step(disk, bytes)),
            Self::Remove(unused, names) => {
                drop(unused);
                Done::Removed(remove_all(disk, &names))
            }
            Self::AskRoom => Done::Room(disk.room_bytes()),
            Self::OpenStream(node, number, head, bytes_max) => {
                Done::Read(node, number, open_stream(disk, &head, bytes_max))
            }
            Self::OpenBackup(number, head) => {
                Done::BackupRead(number, open_stream(disk, &head, limits::BACKUP_CHUNK_BYTES))
            }
            Self::ReadBackup(number, reader) => {
                Done::BackupRead(number, read_chunk(reader, limits::BACKUP_CHUNK_BYTES))
            }
            Self::ReadStream(node, number, reader, bytes_max) => {
                Done::Read(node, number, read_chunk(reader, bytes_max))
            }
            Self::WriteStream(number, mut writer, offset, bytes, header) => {
                let progress = writer.feed(offset, &bytes, &mut Some(header));
                Done::Written(number, progress.map(|progress| (writer, progress)), offset, bytes)
            }
        }
    }
}

fn open_stream<D: Disk>(disk: &D, head: &CheckpointHead, bytes_max: usize) -> ChunkRead<D> {
    let reader = StreamReader::open(disk, &head.name(), Some(&head.identity))?;
    read_chunk(Box::new(reader), bytes_max)
}

fn read_chunk<D: Disk>(mut reader: Box<StreamReader<D>>, bytes_max: usize) -> ChunkRead<D> {
    let chunk = reader.next_chunk(bytes_max)?;
    // It has much mapped: it goes here, not in the loop.
    let reader = Some(reader).filter(|_| !chunk.is_last);
    Ok((reader, chunk))
}

fn remove_all<D: Disk>(disk: &D, names: &[String]) -> io::Result<()> {
    names.iter().try_for_each(|name| match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}
