//! Work on files that takes longer than a turn may. The loop hands a [`Job`] over whole and gets [`Done`] back: on
//! another thread in the daemon, at some later moment in the simulator. No job sees the loop's state.

use std::io;

use super::checkpoint::{CheckpointHead, CheckpointWriter};
use super::segmented_log::{Spare, SpareRequest};
use crate::mapping::Disk;

/// Something to be done.
pub enum Job<D: Disk> {
    /// Make the log's next segment ready.
    Spare(SpareRequest),
    /// Begin a checkpoint.
    BeginCheckpoint(CheckpointHead),
    /// Go on with it.
    AppendToCheckpoint(CheckpointWriter<D>, Vec<u8>),
    /// Give it its name.
    FinishCheckpoint(CheckpointWriter<D>),
    /// Remove files that nothing refers to.
    Remove(Vec<String>),
}

/// What became of it.
pub enum Done<D: Disk> {
    /// See [`Job::Spare`].
    Spare(io::Result<Spare<D::File>>),
    /// See [`Job::BeginCheckpoint`] and [`Job::AppendToCheckpoint`].
    Checkpoint(io::Result<CheckpointWriter<D>>),
    /// See [`Job::FinishCheckpoint`].
    CheckpointFinished(io::Result<()>),
    /// See [`Job::Remove`].
    Removed(io::Result<()>),
}

impl<D: Disk> Job<D> {
    /// Does it.
    pub fn run(self, disk: &D) -> Done<D> {
        match self {
            Self::Spare(request) => Done::Spare(request.prepare(disk)),
            Self::BeginCheckpoint(head) => Done::Checkpoint(CheckpointWriter::create(disk, &head)),
            Self::AppendToCheckpoint(mut writer, block) => {
                Done::Checkpoint(writer.append(&block).map(|()| writer))
            }
            Self::FinishCheckpoint(writer) => Done::CheckpointFinished(writer.finish()),
            Self::Remove(names) => Done::Removed(remove_all(disk, &names)),
        }
    }
}

fn remove_all<D: Disk>(disk: &D, names: &[String]) -> io::Result<()> {
    names.iter().try_for_each(|name| match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}
