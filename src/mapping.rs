//! Mapped files, and the directory that they lie in: the only room with `unsafe` code, and the only one that
//! touches the data directory. [`crate::simulated_disk`] is its twin in memory.
//!
//! Stores go into the mapping and one `fdatasync` makes them durable. Two things keep that cheap: a file is
//! filled with zeros before it is used, so that a flush changes no metadata, and it is filled by writes of 4 KiB,
//! so that the page cache holds it in small folios (a store into a folio of a megabyte costs a megabyte of
//! writing at the next flush).
//!
//! A file that is stored once, from its beginning to its end, is not filled, and its bytes are written in large pieces: a
//! store into a mapping that has no pages yet makes the system read ahead, and where nothing was written that is to fill
//! megabytes with zeros, for ten milliseconds in which nothing else gets that processor, not even other threads' flushes.
//!
//! A large file is removed piece by piece: where a file system tells the device what is free, or has much to write about
//! it, everybody's flushes wait for the whole of a file that is given back at once, for ten milliseconds and more. Before it is
//! shortened, it is certain that its name does not come back.
//!
//! A page of a mapping that the disk cannot read ends the process with SIGBUS. That is the intended outcome of a
//! failing disk: it is never survived.

#![allow(unsafe_code)]
// The room of the files: everyone else goes through `Disk`.
#![allow(clippy::disallowed_methods)]

mod disk;
mod mappings;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use disk::{Disk, MappedFile};
use mappings::{HeldMappings, Mappings};

/// Lets this process have as many files open as the system allows at most: whoever looks at a directory has all its files
/// open at once. Where that is not enough, opening one fails and says so.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Files are filled in pieces of this size; see the head of this file.
const FILL_BYTES: usize = 4096;

/// Whoever stores much has it written out each time that there is so much of it: the log's own flushes, on the same device,
/// never wait behind more.
pub const WRITE_OUT_BYTES: u64 = 256 * 1024;

/// A removed file gives its room back in pieces of this size.
const GIVEN_BACK_BYTES: u64 = 4 * 1024 * 1024;

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
    mappings: Mappings,
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
        let directory =
            Directory { path: path.to_owned(), handle, lock: Some(lock), mappings: Mappings::default() };
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
        let directory =
            Directory { path: path.to_owned(), handle, lock: None, mappings: Mappings::default() };
        Ok(Self { shared: Arc::new(directory) })
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
            FileOfDisk::map(file, &mut self.shared.mappings.hold())
        });
        if made.is_err() {
            // What is left of it is of no use and holds space that is short. If even this fails, the next
            // start removes it.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    /// Gives the room of a removed file back piece by piece, if it is large, unless somebody still has the file.
    fn give_back(&self, file: &File, mut mappings: HeldMappings<'_>) -> io::Result<()> {
        let found = file.metadata()?;
        // It may have another name, as in a copy of the directory that is made of links.
        if !found.is_file() || found.nlink() > 0 {
            return Ok(());
        }
        let is_mapped = mappings.forget(found.ino());
        drop(mappings);
        // Whoever reads a directory locks its files.
        if is_mapped || found.len() <= GIVEN_BACK_BYTES || file.try_lock().is_err() {
            return Ok(());
        }
        // Should the power fail and the name come back, the file must be whole.
        self.sync_directory()?;
        for left in (0..found.len().div_ceil(GIVEN_BACK_BYTES)).rev() {
            file.set_len(left * GIVEN_BACK_BYTES)?;
            // Without it, the file system would put the pieces together again.
            file.sync_all()?;
        }
        Ok(())
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
        let mut file = self.make(name, |file| reserve(file, len_bytes))?;
        file.unwritten = Some(Unwritten::default());
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<FileOfDisk> {
        let path = self.shared.path.join(name);
        if self.is_read_only() {
            return FileOfDisk::open_read_only(&path);
        }
        // Between its opening and its mapping, nobody finds out that it is not mapped.
        let mut mappings = self.shared.mappings.hold();
        FileOfDisk::map(OpenOptions::new().read(true).write(true).open(path)?, &mut mappings)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.refuse_if_read_only()?;
        std::fs::rename(self.shared.path.join(from), self.shared.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.refuse_if_read_only()?;
        let path = self.shared.path.join(name);
        let mappings = self.shared.mappings.hold();
        let file = OpenOptions::new().write(true).open(&path);
        std::fs::remove_file(path)?;
        // The name is gone, and with it the file: how its room comes back is a matter of speed alone.
        let _ = file.and_then(|file| self.give_back(&file, mappings));
        Ok(())
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
    /// If it is one that is stored from its beginning to its end.
    unwritten: Option<Unwritten>,
}

/// What was stored into a file and is still to be written.
#[derive(Debug, Default)]
struct Unwritten {
    /// Where it belongs. Everything before is written.
    from: u64,
    bytes: Vec<u8>,
}

impl Unwritten {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let range = (offset - self.from) as usize..(offset - self.from) as usize + bytes.len();
        // What is between two stores is zeros, as it was.
        self.bytes.resize(self.bytes.len().max(range.end), 0);
        self.bytes[range].copy_from_slice(bytes);
    }

    fn write(&mut self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes, self.from)?;
        self.from += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

#[derive(Debug)]
enum Access {
    /// Mapped; without its file once it is sealed.
    Mapped { map: Arc<MmapRaw>, file: Option<File> },
    /// Read piece by piece: others may change the file meanwhile.
    Read { file: File, len_bytes: u64 },
}

impl FileOfDisk {
    fn map(file: File, mappings: &mut HeldMappings<'_>) -> io::Result<Self> {
        let found = file.metadata()?;
        if found.len() == 0 {
            // The system maps no empty file; nothing of ours is empty.
            return Ok(Self::of(Access::Read { file, len_bytes: 0 }));
        }
        let map = Arc::new(MmapOptions::new().map_raw(&file)?);
        mappings.add(found.ino(), &map);
        Ok(Self::of(Access::Mapped { map, file: Some(file) }))
    }

    fn of(access: Access) -> Self {
        Self { access, unwritten: None }
    }

    /// Opens a file for reading only. While it is open, it keeps its length.
    fn open_read_only(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // It fails where files cannot be locked, where none is shortened either, and for one that was removed.
        let _ = file.try_lock_shared();
        let found = file.metadata()?;
        if found.nlink() == 0 {
            // It was removed meanwhile, and may be shortened.
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self::of(Access::Read { file, len_bytes: found.len() }))
    }

    fn check_range(&self, offset: u64, len: usize) {
        let end = offset.checked_add(len as u64);
        let file_len = self.len_bytes();
        assert!(end.is_some_and(|end| end <= file_len), "{len} bytes at {offset} in a file of {file_len}");
    }

    fn check_readable(&self, offset: u64, len: usize) {
        self.check_range(offset, len);
        let unwritten = self.unwritten.as_ref().filter(|unwritten| !unwritten.bytes.is_empty());
        let is_written = unwritten.is_none_or(|unwritten| offset + len as u64 <= unwritten.from);
        assert!(is_written, "{len} bytes at {offset} are read, which are still to be written");
    }

    /// The file, for what was stored to be made durable, all of which is written now.
    fn written(&mut self) -> io::Result<&File> {
        let Access::Mapped { file: Some(file), .. } = &self.access else {
            panic!("a flush of a file that is only read");
        };
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.write(file)?;
        }
        Ok(file)
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
        if let Some(unwritten) = &mut self.unwritten {
            if offset >= unwritten.from {
                return unwritten.put(offset, bytes);
            }
            assert!(offset + bytes.len() as u64 <= unwritten.from, "a store over the end of what is written");
        }
        // SAFETY: the range lies inside the mapping (checked above), which is writable. `bytes` cannot overlap
        // it: slices of the mapping are only handed out for ranges that are never stored into again. No
        // reference into the range exists for the same reason, and `&mut self` excludes a second store.
        unsafe {
            let target = map.as_mut_ptr().add(offset as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    fn copy_out(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_readable(offset, out.len());
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
        self.check_readable(offset, len_bytes);
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
        self.written()?.sync_data()
    }

    fn write_out(&mut self, offset: u64, len_bytes: u64) -> io::Result<()> {
        write_out(self.written()?, offset, len_bytes)
    }

    fn expect_stores(&mut self) -> io::Result<()> {
        match &self.access {
            Access::Mapped { map, .. } => map.advise(Advice::Random),
            Access::Read { .. } => Ok(()),
        }
    }

    fn seal(&mut self) {
        let unwritten = self.unwritten.take();
        assert!(unwritten.is_none_or(|unwritten| unwritten.bytes.is_empty()), "sealed before it was written");
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
    fn what_is_stored_once_is_there_when_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        let mut file = disk.create_unfilled("file", 20_000).unwrap();
        file.store(0, b"head");
        file.store(10, &[1; 5000]);
        file.store(2, b"over");
        file.write_out(0, 5010).unwrap();
        // Behind what is written, before it, and with nothing between.
        file.store(6000, &[2; 10]);
        file.store(3, b"back");
        file.store(6010, &[3; 5]);
        assert_eq!(file.slice(0, 10).unwrap(), b"heoback\0\0\0"[..]);
        file.flush().unwrap();
        file.seal();
        let mut expected = vec![0; 20_000];
        expected[..7].copy_from_slice(b"heoback");
        expected[10..5010].fill(1);
        expected[6000..6010].fill(2);
        expected[6010..6015].fill(3);
        assert_eq!(file.slice(0, 20_000).unwrap(), expected);
        drop(file);
        assert_eq!(disk.open("file").unwrap().slice(0, 20_000).unwrap(), expected);
    }

    #[test]
    #[should_panic(expected = "which are still to be written")]
    fn nothing_is_read_that_is_still_to_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        let mut file = disk.create_unfilled("file", 100).unwrap();
        file.store(0, b"head");
        let _ = file.slice(3, 1);
    }

    #[test]
    fn a_removed_file_gives_its_room_back_unless_somebody_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = FileDisk::lock(directory.path()).unwrap();
        let len_bytes = 2 * GIVEN_BACK_BYTES + 5;
        let left_of_removed = |name: &str| {
            let file = File::open(directory.path().join(name)).unwrap();
            disk.remove(name).unwrap();
            file.metadata().unwrap().len()
        };
        let mut file = disk.create("mapped", len_bytes).unwrap();
        file.store(len_bytes - 1, b"!");
        let slice = file.slice(len_bytes - 1, 1).unwrap();
        drop(file);
        let again = disk.open("mapped").unwrap();
        drop(again);
        assert_eq!((left_of_removed("mapped"), &slice[..]), (len_bytes, &b"!"[..]));

        disk.create("linked", len_bytes).unwrap();
        std::fs::hard_link(directory.path().join("linked"), directory.path().join("link")).unwrap();
        assert_eq!(left_of_removed("linked"), len_bytes);

        let reader = FileDisk::read_only(directory.path()).unwrap().open("link").unwrap();
        assert_eq!(left_of_removed("link"), len_bytes);
        assert_eq!(reader.slice(len_bytes - 1, 1).unwrap(), [0][..]);

        disk.create("file", len_bytes).unwrap();
        assert_eq!(left_of_removed("file"), 0);
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
