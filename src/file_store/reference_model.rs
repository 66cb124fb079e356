//! The file store once more, so simply that it is obviously right: what the real one and whole clusters are
//! compared with. It keeps the contents, and looks at every file for everything.

use bytes::Bytes;
use fsd_wire::client::Refusal;
use fsd_wire::{ClusterTimeMs, Command, Entry, EntryKind, Operation, Version};

use super::Applied;

/// A file of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The cluster time from which on it is gone.
    pub due: Option<ClusterTimeMs>,
    /// Its contents.
    pub contents: Bytes,
}

/// The model: its files in no particular order, and the revision counter.
#[derive(Clone, Debug, Default)]
pub struct ReferenceModel {
    files: Vec<ModelFile>,
    revision: u64,
}

impl ReferenceModel {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an entry.
    ///
    /// # Panics
    /// If the entry's command does not decode.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        self.files.retain(|file| file.due.is_none_or(|due| due > entry.stamp));
        if entry.kind != EntryKind::Command {
            return Applied::Nothing;
        }
        let command = Command::decode(&entry.payload).expect("the model is fed good commands");
        if let Some(refusal) = self.refusal(&command) {
            return Applied::Refused(refusal);
        }
        self.revision += 1;
        self.files.retain(|file| file.name != command.name);
        if let Operation::Write { expiry_seconds } | Operation::Cas { expiry_seconds, .. } = command.operation
        {
            // 128 bits cannot overflow here; a time that is beyond 64 bits becomes the last one.
            let due = u128::from(entry.stamp.0) + 1000 * u128::from(expiry_seconds);
            let due = ClusterTimeMs(u64::try_from(due).unwrap_or(u64::MAX));
            self.files.push(ModelFile {
                name: command.name,
                version: self.revision(),
                due: (expiry_seconds > 0).then_some(due),
                contents: command.contents,
            });
        }
        Applied::Changed { version: self.revision() }
    }

    /// The file of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ModelFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// All files, in byte order of their names.
    #[must_use]
    pub fn files(&self) -> Vec<&ModelFile> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        files
    }

    /// When the next file is due.
    #[must_use]
    pub fn next_due(&self) -> Option<ClusterTimeMs> {
        self.files.iter().filter_map(|file| file.due).min()
    }

    /// The version of the last successful change.
    #[must_use]
    pub fn revision(&self) -> Version {
        Version(self.revision)
    }

    fn refusal(&self, command: &Command) -> Option<Refusal> {
        let present = self.get(&command.name).map_or(Version(0), |file| file.version);
        let exists = present > Version(0);
        match command.operation {
            Operation::Delete | Operation::DeleteIf { .. } if !exists => return Some(Refusal::NotFound),
            Operation::Cas { expected, .. } | Operation::DeleteIf { expected } if expected != present => {
                return Some(Refusal::VersionMismatch { present });
            }
            Operation::Delete | Operation::DeleteIf { .. } => return None,
            Operation::Write { .. } | Operation::Cas { .. } => {}
        }
        let is_below = |below: &str, above: &str| below.starts_with(&format!("{above}/"));
        self.files()
            .into_iter()
            .find(|file| is_below(&file.name, &command.name) || is_below(&command.name, &file.name))
            .map(|file| Refusal::Conflict { with: file.name.clone() })
    }
}
