//! A data directory, or some files of it, with all that is wrong in it.

use std::collections::HashSet;

use fsd::mapping::Disk;
use fsd::storage::inspect::{
    CheckpointUse, InspectedCheckpoint, Inspection, inspect_directory, inspect_files,
};
use fsd::storage::{CheckpointHead, StorageError};
use fsd::transfer::{check_contents, check_image};

/// What was found.
pub(crate) struct Look<D: Disk> {
    pub(crate) inspection: Inspection<D>,
    /// All that must not be, each once.
    pub(crate) problems: Vec<StorageError>,
}

impl<D: Disk> Look<D> {
    /// Looks at a whole directory: each checkpoint that counts must make a store, and have its contents.
    pub(crate) fn at_directory(disk: &D) -> Result<Self, StorageError> {
        Self::of(inspect_directory(disk)?)
    }

    /// Looks at these files alone.
    pub(crate) fn at_files(disk: &D, names: &[String]) -> Result<Self, StorageError> {
        Self::of(inspect_files(disk, names)?)
    }

    fn of(mut inspection: Inspection<D>) -> Result<Self, StorageError> {
        let mut problems = Problems::default();
        problems.extend(std::mem::take(&mut inspection.problems));
        for InspectedCheckpoint { name, used, .. } in
            inspection.checkpoints.iter().filter(|checkpoint| checkpoint.is_whole)
        {
            if !matches!(used, CheckpointUse::None(_)) {
                problems.extend(check_image(&inspection.disk, name)?);
            }
            if matches!(used, CheckpointUse::Newest | CheckpointUse::Older) {
                problems.extend(check_contents(&inspection.disk, name)?);
            }
        }
        Ok(Self { inspection, problems: problems.list })
    }

    /// The checkpoints that count, the newest first.
    pub(crate) fn checkpoints(&self) -> impl Iterator<Item = &CheckpointHead> {
        let counts = |checkpoint: &&InspectedCheckpoint| {
            checkpoint.is_whole && matches!(checkpoint.used, CheckpointUse::Newest | CheckpointUse::Older)
        };
        self.inspection
            .checkpoints
            .iter()
            .rev()
            .filter(counts)
            .filter_map(|checkpoint| checkpoint.head.as_ref())
    }
}

/// Two checkpoints, and the log, may name the same place: it is told once.
#[derive(Default)]
struct Problems {
    list: Vec<StorageError>,
    places: HashSet<(String, u64)>,
}

impl Problems {
    fn extend(&mut self, problems: Vec<StorageError>) {
        for problem in problems {
            let place = match &problem {
                StorageError::Damage { file, offset, .. } => Some((file.clone(), *offset)),
                StorageError::MissingSegment { file, .. } => Some((file.clone(), 0)),
                _ => None,
            };
            if place.is_none_or(|place| self.places.insert(place)) {
                self.list.push(problem);
            }
        }
    }
}
