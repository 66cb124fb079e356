//! Which files of a directory this process has mapped: none of them may be shortened, as reading what a file has no more ends
//! the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use memmap2::MmapRaw;

/// The mappings of a directory's files, by the files' inodes.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    by_inode: Mutex<BTreeMap<u64, Vec<Weak<MmapRaw>>>>,
}

/// Meanwhile nobody maps a file of the directory.
pub(super) struct HeldMappings<'a> {
    by_inode: MutexGuard<'a, BTreeMap<u64, Vec<Weak<MmapRaw>>>>,
}

impl Mappings {
    /// Keeps others from mapping a file.
    pub(super) fn hold(&self) -> HeldMappings<'_> {
        HeldMappings { by_inode: self.by_inode.lock().expect("no holder panics") }
    }
}

impl HeldMappings<'_> {
    /// A file was mapped.
    pub(super) fn add(&mut self, inode: u64, map: &Arc<MmapRaw>) {
        let maps = self.by_inode.entry(inode).or_default();
        maps.retain(|map| map.strong_count() > 0);
        maps.push(Arc::downgrade(map));
    }

    /// Forgets a file that has no name any more, and tells whether it is still mapped.
    pub(super) fn forget(&mut self, inode: u64) -> bool {
        let maps = self.by_inode.remove(&inode).unwrap_or_default();
        maps.iter().any(|map| map.strong_count() > 0)
    }
}
