//! A data directory that is made out of a backup: nothing counts before all does.
//!
//! The first file is `hard-state.restoring`, durable before any other is begun, and the last step gives it the name `hard-state`.
//! As long as it has the first name, the directory is neither an empty one nor a node's: no node starts on it, and
//! only another restoration takes it, which begins anew. What comes in between (kept segments, a checkpoint) is flushed and has
//! its name by then.

use super::DirectoryIdentity;
use super::error::{Doing, StorageError};
use super::hard_state::{HARD_STATE_BYTES, HARD_STATE_NAME, HardStateFile};
use super::segment::{NameKind, parse_name};
use crate::mapping::{Disk, LOCK_NAME};
use crate::raft::HardState;

/// The name of the hard state while its directory is being restored.
pub(super) const RESTORING_NAME: &str = "hard-state.restoring";

/// A directory that is being restored, and that nobody else may use meanwhile.
pub struct Restoration<D: Disk> {
    disk: D,
    hard_state: D::File,
}

impl<D: Disk> Restoration<D> {
    /// Begins it. The directory must be empty, but for its lock and what another restoration left that came to no end: that goes.
    ///
    /// # Errors
    /// If there is anything else in it, which is not touched then, or the disk fails.
    pub fn begin(disk: &D) -> Result<Self, StorageError> {
        let names = disk.list().doing(|| "read the data directory".to_owned())?;
        let names: Vec<String> = names.into_iter().filter(|name| name != LOCK_NAME).collect();
        let is_unfinished = names.iter().any(|name| name == RESTORING_NAME);
        let others: Vec<&String> =
            names.iter().filter(|name| !(is_unfinished && is_of_restoration(name))).collect();
        if let Some(first) = others.first() {
            return Err(StorageError::NotEmpty { file: disk.describe(first), files: others.len() });
        }
        for name in names.iter().filter(|name| *name != RESTORING_NAME) {
            disk.remove(name).doing(|| format!("remove {}", disk.describe(name)))?;
        }
        sync(disk)?;
        let path = disk.describe(RESTORING_NAME);
        let hard_state = disk.create(RESTORING_NAME, HARD_STATE_BYTES).doing(|| format!("create {path}"))?;
        sync(disk)?;
        Ok(Self { disk: disk.clone(), hard_state })
    }

    /// Makes it the directory of a node with this hard state. All else that it needs is durable.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(self, identity: &DirectoryIdentity, state: &HardState) -> Result<(), StorageError> {
        HardStateFile::make(&self.disk, self.hard_state, RESTORING_NAME, identity, state).map(drop)
    }

    /// Gives it up: what else was made in it is removed already, and it is an empty directory again.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    pub fn give_up(self) -> Result<(), StorageError> {
        let names = self.disk.list().doing(|| "read the data directory".to_owned())?;
        for name in names.iter().filter(|name| is_of_restoration(name) && *name != RESTORING_NAME) {
            self.disk.remove(name).doing(|| format!("remove {}", self.disk.describe(name)))?;
        }
        sync(&self.disk)?;
        self.disk
            .remove(RESTORING_NAME)
            .doing(|| format!("remove {}", self.disk.describe(RESTORING_NAME)))?;
        sync(&self.disk)
    }
}

/// Whether a file of this name may be a restoration's.
fn is_of_restoration(name: &str) -> bool {
    let is_of_log =
        matches!(parse_name(name), NameKind::Segment(_) | NameKind::Checkpoint(_) | NameKind::Temporary);
    name == RESTORING_NAME || is_of_log
}

/// Refuses a directory in which a restoration came to no end.
pub(super) fn check_finished<D: Disk>(disk: &D, names: &[String]) -> Result<(), StorageError> {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(RESTORING_NAME) && !has(HARD_STATE_NAME) {
        return Err(StorageError::UnfinishedRestoration { file: disk.describe(RESTORING_NAME) });
    }
    Ok(())
}

fn sync<D: Disk>(disk: &D) -> Result<(), StorageError> {
    disk.sync_directory().doing(|| "flush the data directory".to_owned())
}
