//! The file store as a checkpoint holds it.

use crate::file_store::{FileStore, ImageHead, Restoring};
use crate::storage::{CheckpointHead, ImageSink};

/// Makes a file store of what recovery reads; an empty one if there is no checkpoint.
#[derive(Default)]
pub struct StoreImage {
    restoring: Option<Restoring>,
    store: Option<FileStore>,
}

impl StoreImage {
    /// The store.
    #[must_use]
    pub fn into_store(self) -> FileStore {
        self.store.unwrap_or_default()
    }
}

impl ImageSink for StoreImage {
    fn begin(&mut self, head: &CheckpointHead) {
        self.store = None;
        self.restoring = Some(FileStore::restore(&ImageHead {
            last_applied: head.entry.index,
            cluster_time: head.stamp,
            revision: fsd_wire::Version(head.revision),
            files: head.files,
            sessions: head.sessions,
            items_bytes: head.body_bytes,
        }));
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let restoring = self.restoring.as_mut().expect("a checkpoint was begun");
        restoring.add(bytes).map_err(|error| error.to_string())
    }

    fn finish(&mut self) -> Result<(), String> {
        let restoring = self.restoring.take().expect("a checkpoint was begun");
        self.store = Some(restoring.finish().map_err(|error| error.to_string())?);
        Ok(())
    }
}
