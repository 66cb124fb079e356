//! A data directory as it was at one moment, for whoever looks on while a node works in it: every file that counts is
//! open before the first is read, so that none is gone when its turn comes, and those that are there go together.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::hard_state::HARD_STATE_NAME;
use super::segment::{NameKind, parse_name};
use crate::mapping::{Disk, MappedFile};

/// How often the directory is looked at again because its names have changed meanwhile. A node changes them at every
/// checkpoint and every segment, which both take longer than one look.
const LOOKS_MAX: u32 = 100;

/// A directory of which the names stand still, and the files cannot be lost. It is only read.
pub struct StillDisk<D: Disk> {
    disk: D,
    names: Arc<Vec<String>>,
    files: Arc<BTreeMap<String, StillFile<D::File>>>,
}

impl<D: Disk> Clone for StillDisk<D> {
    fn clone(&self) -> Self {
        Self { disk: self.disk.clone(), names: Arc::clone(&self.names), files: Arc::clone(&self.files) }
    }
}

/// A file of a [`StillDisk`]. What a node appends to it shows.
#[derive(Debug)]
pub struct StillFile<F> {
    file: Arc<Mutex<F>>,
    len_bytes: u64,
}

impl<F> Clone for StillFile<F> {
    fn clone(&self) -> Self {
        Self { file: Arc::clone(&self.file), len_bytes: self.len_bytes }
    }
}

impl<D: Disk> StillDisk<D> {
    /// Opens what counts in a directory.
    ///
    /// # Errors
    /// If the directory or a file cannot be read.
    pub fn of(disk: &D) -> io::Result<Self> {
        let mut looks = 1;
        loop {
            let names = disk.list()?;
            let (files, gone) = open_all(disk, names.iter().filter(|name| counts(name)))?;
            let is_still = gone.is_empty() && disk.list()? == names;
            if is_still || looks == LOOKS_MAX {
                let names = names.into_iter().filter(|name| !gone.contains(name)).collect();
                return Ok(Self { disk: disk.clone(), names: Arc::new(names), files: Arc::new(files) });
            }
            looks += 1;
        }
    }

    /// Opens these files alone.
    ///
    /// # Errors
    /// If one is not there, or cannot be read; it is named.
    pub fn of_files(disk: &D, names: &[String]) -> Result<Self, (String, io::Error)> {
        let mut files = BTreeMap::new();
        for name in names {
            let opened = disk.open(name).map_err(|error| (name.clone(), error))?;
            files.insert(name.clone(), StillFile::of(opened));
        }
        let names = files.keys().cloned().collect();
        Ok(Self { disk: disk.clone(), names: Arc::new(names), files: Arc::new(files) })
    }
}

/// What is read of a directory. All else is looked at by its name alone.
fn counts(name: &str) -> bool {
    name == HARD_STATE_NAME || matches!(parse_name(name), NameKind::Segment(_) | NameKind::Checkpoint(_))
}

type Opened<F> = (BTreeMap<String, StillFile<F>>, Vec<String>);

/// Opens all that are still there, and tells which are not.
fn open_all<'a, D: Disk>(disk: &D, names: impl Iterator<Item = &'a String>) -> io::Result<Opened<D::File>> {
    let (mut files, mut gone) = (BTreeMap::new(), Vec::new());
    for name in names {
        match disk.open(name) {
            Ok(file) => drop(files.insert(name.clone(), StillFile::of(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(name.clone()),
            Err(error) => return Err(error),
        }
    }
    Ok((files, gone))
}

impl<F: MappedFile> StillFile<F> {
    fn of(file: F) -> Self {
        Self { len_bytes: file.len_bytes(), file: Arc::new(Mutex::new(file)) }
    }

    fn lock(&self) -> MutexGuard<'_, F> {
        // A reader that panicked has changed nothing.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl<D: Disk> Disk for StillDisk<D> {
    type File = StillFile<D::File>;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.to_vec())
    }

    fn create(&self, _name: &str, _len_bytes: u64) -> io::Result<Self::File> {
        refuse()
    }

    fn create_unfilled(&self, _name: &str, _len_bytes: u64) -> io::Result<Self::File> {
        refuse()
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        refuse()
    }

    fn sync_directory(&self) -> io::Result<()> {
        refuse()
    }

    fn used_bytes(&self) -> io::Result<u64> {
        self.disk.used_bytes()
    }

    fn room_bytes(&self) -> io::Result<u64> {
        self.disk.room_bytes()
    }

    fn describe(&self, name: &str) -> String {
        self.disk.describe(name)
    }
}

impl<F: MappedFile> MappedFile for StillFile<F> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn store(&mut self, _offset: u64, _bytes: &[u8]) {
        panic!("a store into a file that is only looked at");
    }

    fn copy_out(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lock().copy_out(offset, out)
    }

    fn slice(&self, offset: u64, len_bytes: usize) -> io::Result<Bytes> {
        self.lock().slice(offset, len_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        refuse()
    }

    fn write_out(&mut self, _offset: u64, _len_bytes: u64) -> io::Result<()> {
        refuse()
    }

    fn expect_stores(&mut self) -> io::Result<()> {
        refuse()
    }

    fn seal(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated_disk::SimulatedDisk;
    use crate::storage::segment::{SegmentId, checkpoint_name, file_name};
    use fsd_wire::LogIndex;

    type Step = fn(&SimulatedDisk);

    /// A disk on which a node works on between any two looks at it.
    #[derive(Clone)]
    struct Busy {
        disk: SimulatedDisk,
        /// What happens before the looks to come, the last of these first.
        to_come: Arc<Mutex<Vec<Step>>>,
    }

    impl Busy {
        fn work(&self) {
            if let Some(step) = self.to_come.lock().unwrap().pop() {
                step(&self.disk);
            }
        }
    }

    impl Disk for Busy {
        type File = <SimulatedDisk as Disk>::File;

        fn list(&self) -> io::Result<Vec<String>> {
            self.work();
            self.disk.list()
        }

        fn create(&self, _name: &str, _len_bytes: u64) -> io::Result<Self::File> {
            refuse()
        }

        fn create_unfilled(&self, _name: &str, _len_bytes: u64) -> io::Result<Self::File> {
            refuse()
        }

        fn open(&self, name: &str) -> io::Result<Self::File> {
            self.work();
            self.disk.open(name)
        }

        fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
            refuse()
        }

        fn remove(&self, _name: &str) -> io::Result<()> {
            refuse()
        }

        fn sync_directory(&self) -> io::Result<()> {
            refuse()
        }

        fn room_bytes(&self) -> io::Result<u64> {
            self.disk.room_bytes()
        }

        fn used_bytes(&self) -> io::Result<u64> {
            Ok(self.disk.used_bytes())
        }

        fn describe(&self, name: &str) -> String {
            name.to_owned()
        }
    }

    fn older() -> String {
        checkpoint_name(LogIndex(1))
    }

    fn newer() -> String {
        checkpoint_name(LogIndex(2))
    }

    fn write(disk: &SimulatedDisk, name: &str) {
        disk.write(name, vec![7; 100]);
    }

    #[test]
    fn files_that_go_while_they_are_opened_are_looked_for_again() {
        let disk = SimulatedDisk::new();
        write(&disk, &older());
        write(&disk, &file_name(SegmentId(1)));
        write(&disk, "lock");
        // The newer checkpoint stands when the names were read; the older one and its segment go while the files are
        // opened.
        let steps: [Step; 3] = [
            |_| {},
            |disk| write(disk, &newer()),
            |disk| {
                disk.remove(&older()).unwrap();
                disk.remove(&file_name(SegmentId(1))).unwrap();
            },
        ];
        let to_come = Arc::new(Mutex::new(steps.into_iter().rev().collect()));
        let still = StillDisk::of(&Busy { disk: disk.clone(), to_come }).unwrap();
        assert_eq!(still.list().unwrap(), [newer(), "lock".to_owned()]);
        assert!(still.open(&newer()).is_ok());
        assert_eq!(still.open("lock").unwrap_err().kind(), io::ErrorKind::NotFound, "it is none of ours");
        assert_eq!(still.open(&older()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_open_is_not_lost_and_nothing_is_changed() {
        let disk = SimulatedDisk::new();
        write(&disk, &older());
        let mut still = StillDisk::of(&disk).unwrap();
        disk.remove(&older()).unwrap();
        write(&disk, &newer());
        assert_eq!(still.list().unwrap(), [older()]);
        let file = still.open(&older()).unwrap();
        assert_eq!((file.len_bytes(), &file.slice(90, 10).unwrap()[..]), (100, &[7; 10][..]));
        assert!(still.create("a", 1).is_err() && still.rename(&older(), "b").is_err());
        assert!(still.remove(&older()).is_err() && still.sync_directory().is_err());
        still = StillDisk::of_files(&disk, &[newer()]).unwrap();
        assert_eq!(still.list().unwrap(), [newer()]);
        let gone = StillDisk::of_files(&disk, &[newer(), older()]).err().unwrap();
        assert_eq!((gone.0, gone.1.kind()), (older(), io::ErrorKind::NotFound));
    }
}
