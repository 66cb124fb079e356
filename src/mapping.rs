//! Mapped files, and the directory that they lie in: the only room with `unsafe` code, and the only one that
//! touches the data directory. [`crate::simulated_disk`] is its twin in memory.
//!
//! Stores go into the mapping and one `fdatasync` makes them durable. Two things keep that cheap: a file is
//! filled with zeros before it is used, so that a flush changes no metadata, and it is filled by writes of 4 KiB,
//! so that the page cache holds it in small folios (a store into a folio of a megabyte costs a megabyte of
//! writing at the next flush).
//!
//! A page of a mapping that the disk cannot read ends the process with SIGBUS. That is the intended outcome of a
//! failing disk: it is never survived.

#![allow(unsafe_code)]
// The room of the files: everyone else goes through `Disk`.
#![allow(clippy::disallowed_methods)]

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A directory of mapped files, by name. What changes names is durable after [`Disk::sync_directory`], what
/// changes bytes after [`MappedFile::flush`]; before, a power failure may keep or lose each of them.
pub trait Disk: Clone + Send + 'static {
    /// The files in it.
    type File: MappedFile;

    /// The names in the directory, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of zeros, in place of one that has this name.
    ///
    /// # Errors
    /// If it cannot be made whole; then there is no file of this name.
    fn create(&self, name: &str, len_bytes: u64) -> io::Result<Self::File>;

    /// Makes a file all of which is stored once and then only read, in place of one that has this name. Its room is
    /// reserved, so that no store meets a full disk, but nothing is written: until it was stored into and flushed it may hold
    /// anything after a power failure.
    ///
    /// # Errors
    /// If it cannot be made whole; then there is no file of this name.
    fn create_unfilled(&self, name: &str, len_bytes: u64) -> io::Result<Self::File>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// If it is not, or cannot be opened.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of a file that had it.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all changes of names durable.
    ///
    /// # Errors
    /// If the flush failed.
    fn sync_directory(&self) -> io::Result<()>;

    /// The bytes of all files in the directory, whoever made them.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn used_bytes(&self) -> io::Result<u64>;

    /// How many bytes of files may still be made.
    ///
    /// # Errors
    /// If the system does not tell.
    fn room_bytes(&self) -> io::Result<u64>;

    /// How to call the file in a message to a person.
    fn describe(&self, name: &str) -> String;
}

/// Lets this process have as many files open as the system allows at most: whoever looks at a directory has all its files
/// open at once. Where that is not enough, opening one fails and says so.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// A file of fixed length whose bytes are at hand.
pub trait MappedFile: Send + 'static {
    /// Its length.
    fn len_bytes(&self) -> u64;

    /// Puts bytes into it; they are durable after the next flush, and may be at any time before.
    ///
    /// # Panics
    /// If the range is outside the file, or the file was opened for reading or sealed.
    fn store(&mut self, offset: u64, bytes: &[u8]);

    /// Copies bytes out of it.
    ///
    /// # Errors
    /// If they cannot be read.
    ///
    /// # Panics
    /// If the range is outside the file.
    fn copy_out(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// A range that is never stored into again, without copying it where that can be had.
    ///
    /// # Errors
    /// If it cannot be read.
    ///
    /// # Panics
    /// If the range is outside the file.
    fn slice(&self, offset: u64, len_bytes: usize) -> io::Result<Bytes>;

    /// Makes everything stored so far durable.
    ///
    /// # Errors
    /// If the flush failed: what was stored since the last one may be lost, whatever a second flush says.
    fn flush(&mut self) -> io::Result<()>;

    /// Has the device write what was stored in a range, and waits for it, so that later flushes find less to do. That makes
    /// nothing durable, and costs a third of what [`Self::flush`] does: no metadata is written, and no cache is emptied.
    ///
    /// # Errors
    /// If it could not be written: what was stored since the last flush may be lost.
    fn write_out(&mut self, offset: u64, len_bytes: u64) -> io::Result<()>;

    /// Stores will follow, scattered over time: reading ahead of what is asked for would make them dear.
    ///
    /// # Errors
    /// If the system refuses the advice.
    fn expect_stores(&mut self) -> io::Result<()>;

    /// No store and no flush will follow: gives back what only those need.
    fn seal(&mut self);
}

/// Files are filled in pieces of this size; see the head of this file.
const FILL_BYTES: usize = 4096;

/// Whoever stores much has it written out each time that there is so much of it: the log's own flushes, on the same device,
/// never wait behind more.
pub const WRITE_OUT_BYTES: u64 = 256 * 1024;

/// The name of the file whose lock says that a process uses the directory.
pub const LOCK_NAME: &str = "lock";
/// As much of the lock file as is read back for a message.
const LOCK_TEXT_BYTES_MAX: u64 = 1024;

/// A directory of the real file system.
#[derive(Clone, Debug)]
pub struct FileDisk {
    shared: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Open on the directory itself, for its flush.
    handle: File,
    /// Holds the lock while it is open; absent when the directory is only read.
    lock: Option<File>,
}

/// What a file system has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// What this process may still use.
    pub free_bytes: u64,
    /// All of it.
    pub size_bytes: u64,
}

/// Why a directory cannot be had for this process alone.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// What that process wrote into the lock file.
        holder: String,
    },
    /// It cannot be made, opened or locked.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl FileDisk {
    /// Makes the directory if it is missing and locks it for this process. Also gives what the lock file said
    /// before; [`FileDisk::sign_lock`] replaces it.
    ///
    /// # Errors
    /// If another process holds the lock, or the directory cannot be used.
    pub fn lock(path: &Path) -> Result<(Self, String), LockError> {
        create_directory(path)?;
        let handle = File::open(path)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_NAME))?;
        let locked = lock.try_lock();
        let mut text = String::new();
        // A lock file that is not text tells nothing; the lock itself does not depend on it.
        let _ = Read::by_ref(&mut lock).take(LOCK_TEXT_BYTES_MAX).read_to_string(&mut text);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { holder: text.trim().to_owned() }),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let directory = Directory { path: path.to_owned(), handle, lock: Some(lock) };
        Ok((Self { shared: Arc::new(directory) }, text.trim().to_owned()))
    }

    /// The room of the file system that the directory lies on.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn room(&self) -> io::Result<DiskRoom> {
        let told = rustix::fs::fstatvfs(&self.shared.handle)?;
        Ok(DiskRoom {
            free_bytes: told.f_bavail.saturating_mul(told.f_frsize),
            size_bytes: told.f_blocks.saturating_mul(told.f_frsize),
        })
    }

    /// Writes into the lock file who holds it.
    ///
    /// # Errors
    /// If it cannot be written.
    ///
    /// # Panics
    /// If the directory was opened for reading.
    pub fn sign_lock(&self, text: &str) -> io::Result<()> {
        let mut lock = self.shared.lock.as_ref().expect("the directory is locked");
        lock.set_len(0)?;
        lock.write_all_at(text.as_bytes(), 0)?;
        lock.flush()
    }

    /// Opens a directory for reading, whoever holds its lock. Nothing in it is changed: its files are read, not
    /// mapped, so that a file that changes or shrinks meanwhile does no harm.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        let handle = File::open(path)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { shared: Arc::new(Directory { path: path.to_owned(), handle, lock: None }) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn is_read_only(&self) -> bool {
        self.shared.lock.is_none()
    }

    /// Makes a file, and gives it its length with `lengthen`.
    fn make(&self, name: &str, lengthen: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<FileOfDisk> {
        self.refuse_if_read_only()?;
        let path = self.shared.path.join(name);
        let made = create_file(&path).and_then(|mut file| {
            lengthen(&mut file)?;
            FileOfDisk::map(file)
        });
        if made.is_err() {
            // What is left of it is of no use and holds space that is short. If even this fails, the next
            // start removes it.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    fn refuse_if_read_only(&self) -> io::Result<()> {
        if self.is_read_only() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

impl Disk for FileDisk {
    type File = FileOfDisk;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in self.shared.path.read_dir()? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = item?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<FileOfDisk> {
        self.make(name, |file| fill(file, len_bytes))
    }

    fn create_unfilled(&self, name: &str, len_bytes: u64) -> io::Result<FileOfDisk> {
        self.make(name, |file| reserve(file, len_bytes))
    }

    fn open(&self, name: &str) -> io::Result<FileOfDisk> {
        let path = self.shared.path.join(name);
        if self.is_read_only() {
            return FileOfDisk::open_read_only(&path);
        }
        FileOfDisk::map(OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.refuse_if_read_only()?;
        std::fs::rename(self.shared.path.join(from), self.shared.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.refuse_if_read_only()?;
        std::fs::remove_file(self.shared.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.refuse_if_read_only()?;
        self.shared.handle.sync_all()
    }

    fn used_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for item in self.shared.path.read_dir()? {
            match item?.metadata() {
                Ok(found) if found.is_file() => bytes += found.len(),
                Ok(_) => {}
                // Another thread has removed it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    fn room_bytes(&self) -> io::Result<u64> {
        Ok(self.room()?.free_bytes)
    }

    fn describe(&self, name: &str) -> String {
        self.shared.path.join(name).display().to_string()
    }
}

/// Makes a directory and those above it, each durable in the one that it is in.
fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let parent = match path.parent() {
        None => return Err(io::ErrorKind::NotFound.into()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    create_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes zeros up to this length.
fn fill(file: &mut File, len_bytes: u64) -> io::Result<()> {
    let zeros = [0; FILL_BYTES];
    let mut left = len_bytes;
    while left > 0 {
        let len = left.min(FILL_BYTES as u64);
        file.write_all(&zeros[..len as usize])?;
        left -= len;
        if left.is_multiple_of(WRITE_OUT_BYTES) && len_bytes - left >= WRITE_OUT_BYTES {
            write_out(file, len_bytes - left - WRITE_OUT_BYTES, WRITE_OUT_BYTES)?;
        }
    }
    Ok(())
}

/// Reserves room up to this length; a file system that cannot do that has zeros written to it.
fn reserve(file: &mut File, len_bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, len_bytes) {
        Err(Errno::OPNOTSUPP) => fill(file, len_bytes),
        reserved => Ok(reserved?),
    }
}

/// Has the device write a range, and waits for it; see [`MappedFile::write_out`].
#[cfg(target_os = "linux")]
fn write_out(file: &File, offset: u64, len_bytes: u64) -> io::Result<()> {
    let all =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // A length of 0 would mean all of the file.
    if len_bytes == 0 {
        return Ok(());
    }
    // SAFETY: the call takes a descriptor, which `file` keeps open, and numbers; it touches no memory of this process.
    let failed = unsafe { libc::sync_file_range(file.as_raw_fd(), offset as i64, len_bytes as i64, all) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn write_out(file: &File, _offset: u64, _len_bytes: u64) -> io::Result<()> {
    file.sync_data()
}

/// A file of a [`FileDisk`].
#[derive(Debug)]
pub struct FileOfDisk {
    access: Access,
}

#[derive(Debug)]
enum Access {
    /// Mapped; without its file once it is sealed.
    Mapped { map: Arc<MmapRaw>, file: Option<File> },
    /// Read piece by piece: others may change the file meanwhile.
    Read { file: File, len_bytes: u64 },
}

impl FileOfDisk {
    fn map(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        if len == 0 {
            // The system maps no empty file; nothing of ours is empty.
            return Ok(Self { access: Access::Read { file, len_bytes: 0 } });
        }
        let map = Arc::new(MmapOptions::new().map_raw(&file)?);
        Ok(Self { access: Access::Mapped { map, file: Some(file) } })
    }

    /// Opens a file for reading, as [`FileDisk::read_only`] does.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len_bytes = file.metadata()?.len();
        Ok(Self { access: Access::Read { file, len_bytes } })
    }

    fn check_range(&self, offset: u64, len: usize) {
        let end = offset.checked_add(len as u64);
        let file_len = self.len_bytes();
        assert!(end.is_some_and(|end| end <= file_len), "{len} bytes at {offset} in a file of {file_len}");
    }
}

/// A range of a mapping, which it keeps alive.
struct Range {
    map: Arc<MmapRaw>,
    offset: usize,
    len: usize,
}

impl AsRef<[u8]> for Range {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range was checked against the mapping's length, which never changes; the mapping lives as
        // long as `self`. `MappedFile::slice` is only for ranges that are never stored into again, and the lock
        // on the directory keeps every other fsd from storing into or shortening the file, so the bytes do not
        // change under the shared reference.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.offset), self.len) }
    }
}

impl MappedFile for FileOfDisk {
    fn len_bytes(&self) -> u64 {
        match &self.access {
            Access::Mapped { map, .. } => map.len() as u64,
            Access::Read { len_bytes, .. } => *len_bytes,
        }
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) {
        self.check_range(offset, bytes.len());
        let Access::Mapped { map, file: Some(_) } = &self.access else {
            panic!("a store into a file that is only read");
        };
        // SAFETY: the range lies inside the mapping (checked above), which is writable. `bytes` cannot overlap
        // it: slices of the mapping are only handed out for ranges that are never stored into again. No
        // reference into the range exists for the same reason, and `&mut self` excludes a second store.
        unsafe {
            let target = map.as_mut_ptr().add(offset as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    fn copy_out(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len());
        match &self.access {
            // SAFETY: the range lies inside the mapping (checked above), `out` is memory of its own, and a store
            // at the same time is excluded because it needs `&mut self`.
            Access::Mapped { map, .. } => unsafe {
                let source = map.as_ptr().add(offset as usize);
                std::ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len());
            },
            Access::Read { file, .. } => file.read_exact_at(out, offset)?,
        }
        Ok(())
    }

    fn slice(&self, offset: u64, len_bytes: usize) -> io::Result<Bytes> {
        self.check_range(offset, len_bytes);
        match &self.access {
            Access::Mapped { map, .. } => {
                Ok(Bytes::from_owner(Range { map: Arc::clone(map), offset: offset as usize, len: len_bytes }))
            }
            Access::Read { file, .. } => {
                let mut bytes = vec![0; len_bytes];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.access {
            Access::Mapped { file: Some(file), .. } => file.sync_data(),
            _ => panic!("a flush of a file that is only read"),
        }
    }

    fn write_out(&mut self, offset: u64, len_bytes: u64) -> io::Result<()> {
        match &self.access {
            Access::Mapped { file: Some(file), .. } => write_out(file, offset, len_bytes),
            _ => panic!("writing out a file that is only read"),
        }
    }

    fn expect_stores(&mut self) -> io::Result<()> {
        match &self.access {
            Access::Mapped { map, .. } => map.advise(Advice::Random),
            Access::Read { .. } => Ok(()),
        }
    }

    fn seal(&mut self) {
        if let Access::Mapped { file, map } = &mut self.access {
            *file = None;
            // Only speed depends on it.
            let _ = map.advise(Advice::Normal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_outlives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        let mut file = disk.create("file", 10_000).unwrap();
        file.store(5000, b"contents");
        file.flush().unwrap();
        let slice = file.slice(5000, 8).unwrap();
        // A later store beside it and the end of the file's handle change nothing.
        file.store(5008, b"more");
        file.seal();
        drop(file);
        disk.remove("file").unwrap();
        assert_eq!(slice, b"contents"[..]);
    }

    #[test]
    fn a_file_is_opened_as_it_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        let mut file = disk.create("file", 10_000).unwrap();
        file.store(9_999, &[7]);
        file.flush().unwrap();
        drop(file);
        for disk in [disk, FileDisk::read_only(directory.path()).unwrap()] {
            let file = disk.open("file").unwrap();
            let mut out = [1; 3];
            file.copy_out(9_997, &mut out).unwrap();
            assert_eq!((file.len_bytes(), out), (10_000, [0, 0, 7]));
            assert_eq!(file.slice(9_999, 1).unwrap(), [7][..]);
        }
    }

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        disk.sign_lock("seven b").unwrap();
        disk.create("a", 10_000).unwrap();
        disk.create_unfilled("b", 5000).unwrap();
        std::fs::create_dir(directory.path().join("not a file")).unwrap();
        assert_eq!(disk.used_bytes().unwrap(), 15_007);
    }

    #[test]
    #[should_panic(expected = "in a file of 100")]
    fn no_store_goes_over_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        disk.create("file", 100).unwrap().store(93, &[0; 8]);
    }
}
