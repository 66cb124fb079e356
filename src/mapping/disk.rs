//! What a data directory and its files must be able to do, for the real ones in [`crate::mapping`] and for those in memory in
//! [`crate::simulated_disk`].

use std::io;

use bytes::Bytes;

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
    /// anything after a power failure. What is stored is not to be read before it was written out or flushed.
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

    /// Removes a name. The room of a large file may take its time to come back, during this call.
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
