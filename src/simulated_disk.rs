//! A disk in memory that can lose power: the twin of [`crate::mapping::FileDisk`], for tests and for the
//! simulation of whole clusters.
//!
//! It keeps two states of everything: what a running process sees, and what is surely on the medium. A flush
//! makes them equal for one file, [`Disk::sync_directory`] for the names. [`SimulatedDisk::crash`] gives the disk
//! as it may be found afterwards: of what was not flushed, each sector of 512 bytes is there or is not, each by
//! itself, and of the changes of names a first part happened and the rest did not.
//!
//! Operations are counted, so that a test can fail each one of them in turn, or cut the power before it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::mapping::{Disk, MappedFile};

/// What a power failure keeps or loses as a whole.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// What becomes of writes that were not flushed when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// All of them are there: the process was killed, the machine lives.
    Kept,
    /// None of them is there.
    Lost,
    /// Each sector by itself, drawn from a generator with this seed.
    Drawn(u64),
    /// As drawn, but where nothing had been stored before there may also be garbage, or what lay in another file, as if
    /// its place on the medium were used again.
    Garbled(u64),
    /// All changes of names, and all sectors but the one of this number, counted from 0 over all files.
    AllBut(usize),
    /// All changes of names, and none of the sectors but the one of this number.
    Only(usize),
}

#[derive(Debug, Default)]
struct State {
    /// Files by number: a name is only a reference to one.
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Files that were stored into since their last flush.
    unflushed: BTreeSet<u64>,
    /// Changes of names since the last flush of the directory.
    renamings: Vec<Renaming>,
    operations: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
    power_off_at: Option<u64>,
    is_off: bool,
    /// Bytes that all files together may have.
    capacity_bytes: Option<u64>,
    flushes: u64,
}

/// A file as a process sees it, with what is needed to tell what the medium holds. Copies share the bytes until
/// one of them is stored into: a crash of a disk with a hundred sealed segments copies none of them.
#[derive(Clone, Debug, Default)]
struct FileState {
    bytes: Arc<Vec<u8>>,
    /// The length that is there without doubt: a new one is only once it was flushed.
    durable_len: usize,
    /// What the medium holds of the sectors that were stored into since the last flush.
    unflushed: BTreeMap<usize, Box<[u8]>>,
    /// The same for sectors of which a flush failed: a process still sees what was stored, but as the kernel takes
    /// them for written, no later flush brings them to the medium unless they are stored into again.
    forgotten: BTreeMap<usize, Box<[u8]>>,
    /// Sectors that the medium has held since something was stored into them: no power failure makes garbage of what
    /// is there, be it zeros.
    written: Arc<BTreeSet<usize>>,
}

#[derive(Clone, Debug)]
enum Renaming {
    Set { name: String, file: u64 },
    Move { from: String, to: String },
    Remove { name: String },
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Move { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

impl State {
    /// Counts an operation that changes something; tells whether it is to be done.
    fn begin(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| self.operations >= at) {
            self.is_off = true;
        }
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        match self.fail_at {
            Some((at, kind)) if at == self.operations => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn file_of(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: Renaming) {
        change.apply(&mut self.names);
        self.renamings.push(change);
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.files[file].bytes.len() as u64).sum()
    }
}

impl SimulatedDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock has failed its test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it may be found when the power comes back. This disk itself stays as it is.
    #[must_use]
    pub fn crash(&self, unflushed: Unflushed) -> Self {
        let state = self.state();
        let mut random = fastrand::Rng::with_seed(match unflushed {
            Unflushed::Drawn(seed) | Unflushed::Garbled(seed) => seed,
            _ => 0,
        });
        let mut names = state.durable_names.clone();
        let kept = match unflushed {
            Unflushed::Kept | Unflushed::AllBut(_) | Unflushed::Only(_) => state.renamings.len(),
            Unflushed::Lost => 0,
            Unflushed::Drawn(_) | Unflushed::Garbled(_) => random.usize(..=state.renamings.len()),
        };
        for renaming in &state.renamings[..kept] {
            renaming.apply(&mut names);
        }
        let mut files = BTreeMap::new();
        let mut sectors_before = 0;
        for (name, number) in &names {
            let file = state.files.get(number).unwrap_or_else(|| panic!("no file behind {name}"));
            let found = match unflushed {
                Unflushed::Kept => Arc::clone(&file.bytes),
                Unflushed::Lost => file.durable(),
                Unflushed::Drawn(_) => file.after_crash(&mut random),
                Unflushed::Garbled(_) => {
                    let other = random.choice(state.files.values()).expect("there is at least this one");
                    file.garbled(other, &mut random)
                }
                Unflushed::AllBut(sector) => file.mixed(sector, sectors_before, false),
                Unflushed::Only(sector) => file.mixed(sector, sectors_before, true),
            };
            sectors_before += file.unflushed.len();
            files.insert(*number, file.found_as(found));
        }
        let found = State {
            files,
            next_file: state.next_file,
            durable_names: names.clone(),
            names,
            capacity_bytes: state.capacity_bytes,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(found)) }
    }

    /// Sectors that were stored into and not flushed, of the files that have names.
    #[must_use]
    pub fn unflushed_sectors(&self) -> usize {
        let state = self.state();
        state.names.values().map(|file| state.files[file].unflushed.len()).sum()
    }

    /// The names of the files with sectors that were stored into and not flushed.
    #[must_use]
    pub fn unflushed_files(&self) -> Vec<String> {
        let state = self.state();
        if state.unflushed.is_empty() {
            return Vec::new();
        }
        let named = state.names.iter().filter(|(_, file)| state.unflushed.contains(file));
        named.map(|(name, _)| name.clone()).collect()
    }

    /// Writes back, as a kernel may at any moment, about this share of the sectors that were not flushed. They
    /// are on the medium then as they are now, whatever is stored into them before the next flush.
    pub fn write_back(&self, share: f64, random: &mut fastrand::Rng) {
        for FileState { unflushed, written, .. } in self.state().files.values_mut() {
            for (sector, _) in unflushed.extract_if(.., |_, _| random.f64() < share) {
                Arc::make_mut(written).insert(sector);
            }
        }
    }

    /// Lets one byte of a file rot, on the medium and wherever it was read to.
    ///
    /// # Panics
    /// If there is no such file, or it is not that long.
    pub fn rot(&self, name: &str, offset: usize, mask: u8) {
        self.damage(name, offset, |byte| *byte ^= mask);
    }

    /// What was last written to the sector at `from` went to the one at `to` instead: there it is, and `from` is as it was before, zeros
    /// from `kept_bytes` on. A process that looks sees it, too.
    ///
    /// # Panics
    /// If there are no such files, they are not that long, or `to` is no sector's beginning.
    pub fn misdirect(&self, from: (&str, usize), to: (&str, usize), kept_bytes: usize) {
        let written = self.read(from.0).expect("the file is there");
        let written = &written[sector_range(from.1 / SECTOR_BYTES, written.len())];
        for (n, byte) in written.iter().enumerate() {
            self.damage(to.0, to.1 + n, |there| *there = *byte);
        }
        for n in kept_bytes..written.len() {
            self.damage(from.0, from.1 + n, |there| *there = 0);
        }
    }

    fn damage(&self, name: &str, offset: usize, change: impl Fn(&mut u8)) {
        let mut state = self.state();
        let number = state.names[name];
        let file = state.files.get_mut(&number).expect("what is named is there");
        change(&mut Arc::make_mut(&mut file.bytes)[offset]);
        for sectors in [&mut file.unflushed, &mut file.forgotten] {
            if let Some(before) = sectors.get_mut(&(offset / SECTOR_BYTES)) {
                change(&mut before[offset % SECTOR_BYTES]);
            }
        }
    }

    /// Operations so far that changed something, stores and flushes included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Flushes of files and of the directory so far.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Lets the operation of this number fail (the first is 1). A store cannot fail and is done. What a flush that
    /// failed was for is still seen, and is on the medium only once it was stored again.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.state().fail_at = Some((operation, kind));
    }

    /// Cuts the power before the operation of this number: neither it nor anything behind it happens.
    pub fn power_off_at(&self, operation: u64) {
        self.state().power_off_at = Some(operation);
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// The bytes of all files that have names.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Bounds the bytes that all files together may have; `u64::MAX` for no bound.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = Some(bytes);
    }

    /// The bytes of a file as a process sees them; nothing if there is no such file.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.names.get(name)?;
        Some(state.files[file].bytes.to_vec())
    }

    /// Puts a file there, durably, with these bytes, whatever the name stood for.
    pub fn write(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.next_file;
        state.next_file += 1;
        state.files.insert(number, FileState::durable_as(Arc::new(bytes)));
        state.names.insert(name.to_owned(), number);
        state.durable_names.insert(name.to_owned(), number);
    }

    /// Takes a name away, durably.
    pub fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

impl FileState {
    /// A file of which all is on the medium.
    fn durable_as(bytes: Arc<Vec<u8>>) -> Self {
        Self { durable_len: bytes.len(), bytes, ..Self::default() }
    }

    /// The same file with these bytes on the medium, behind a power failure.
    fn found_as(&self, bytes: Arc<Vec<u8>>) -> Self {
        let mut found = Self { written: Arc::clone(&self.written), ..Self::durable_as(bytes) };
        let kept = self.unflushed.keys().filter(|sector| {
            found.bytes[sector_range(**sector, found.bytes.len())].iter().any(|byte| *byte != 0)
        });
        Arc::make_mut(&mut found.written).extend(kept);
        found
    }

    fn store(&mut self, range: Range<usize>, bytes: &[u8]) {
        let len = self.bytes.len();
        for sector in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
            let before = self.forgotten.remove(&sector);
            let as_seen = &self.bytes[sector_range(sector, len)];
            self.unflushed.entry(sector).or_insert_with(|| before.unwrap_or_else(|| as_seen.into()));
        }
        Arc::make_mut(&mut self.bytes)[range].copy_from_slice(bytes);
    }

    fn flush(&mut self) {
        self.durable_len = self.bytes.len();
        let flushed = std::mem::take(&mut self.unflushed).into_keys();
        Arc::make_mut(&mut self.written).extend(flushed);
    }

    fn fail_flush(&mut self) {
        self.forgotten.append(&mut self.unflushed);
    }

    /// As on the medium.
    fn durable(&self) -> Arc<Vec<u8>> {
        self.with(|_| false, self.durable_len)
    }

    /// In this length, with the unflushed sectors that `is_there` picks and what the medium holds of the others.
    fn with(&self, mut is_there: impl FnMut(usize) -> bool, len: usize) -> Arc<Vec<u8>> {
        let mut bytes = Arc::clone(&self.bytes);
        let lost = self.unflushed.iter().filter(|(sector, _)| !is_there(**sector));
        for (sector, before) in lost.chain(&self.forgotten) {
            Arc::make_mut(&mut bytes)[sector_range(*sector, self.bytes.len())].copy_from_slice(before);
        }
        if bytes.len() != len {
            Arc::make_mut(&mut bytes).resize(len, 0);
        }
        bytes
    }

    /// Of what was not flushed, each sector by itself is there or not.
    fn after_crash(&self, random: &mut fastrand::Rng) -> Arc<Vec<u8>> {
        let mut len = self.bytes.len();
        if self.durable_len != len {
            // The new length may be there, or the old one, or one in between.
            let between = random.usize(self.durable_len..=len);
            len = *random.choice(&[self.durable_len, between, len]).expect("three to choose from");
        }
        let keep_share = random.f64();
        self.with(|_| random.f64() < keep_share, len)
    }

    /// As after a crash; some of the sectors into which nothing was stored before hold garbage, or some of another file.
    fn garbled(&self, other: &Self, random: &mut fastrand::Rng) -> Arc<Vec<u8>> {
        let mut bytes = self.after_crash(random);
        for sector in self.unflushed.keys().filter(|sector| !self.written.contains(sector)) {
            let range = sector_range(*sector, bytes.len());
            match random.u32(..8) {
                0 => Arc::make_mut(&mut bytes)[range].fill_with(|| random.u8(..)),
                1 => {
                    let stale = random.usize(..=other.bytes.len() / SECTOR_BYTES);
                    let stale = &other.bytes[sector_range(stale, other.bytes.len())];
                    let garbled = &mut Arc::make_mut(&mut bytes)[range];
                    let len = stale.len().min(garbled.len());
                    garbled[..len].copy_from_slice(&stale[..len]);
                }
                _ => {}
            }
        }
        bytes
    }

    /// The file in its present length, with all of the unflushed sectors but one, or only that one, should it be
    /// one of this file's.
    fn mixed(&self, sector: usize, sectors_before: usize, only: bool) -> Arc<Vec<u8>> {
        let own = sector.checked_sub(sectors_before).and_then(|place| self.unflushed.keys().nth(place));
        let is_it = |sector: usize| own == Some(&sector);
        self.with(|sector| is_it(sector) == only, self.bytes.len())
    }
}

/// The bytes of a sector in a file of this length; none if it lies behind the end.
fn sector_range(sector: usize, len_bytes: usize) -> Range<usize> {
    let start = (sector * SECTOR_BYTES).min(len_bytes);
    start..(start + SECTOR_BYTES).min(len_bytes)
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len_bytes: u64) -> io::Result<SimulatedFile> {
        let mut state = self.state();
        state.begin()?;
        let capacity = state.capacity_bytes.filter(|capacity| *capacity != u64::MAX);
        if capacity.is_some_and(|capacity| state.used_bytes() + len_bytes > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = state.next_file;
        state.next_file += 1;
        let file = FileState { bytes: Arc::new(vec![0; len_bytes as usize]), ..FileState::default() };
        state.files.insert(number, file);
        state.change_names(Renaming::Set { name: name.to_owned(), file: number });
        Ok(SimulatedFile { disk: self.clone(), number, len_bytes, is_sealed: false })
    }

    fn create_unfilled(&self, name: &str, len_bytes: u64) -> io::Result<SimulatedFile> {
        // No different here: what was not flushed since the file was made may be zeros, or garbage where it is asked for.
        self.create(name, len_bytes)
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        let state = self.state();
        let number = state.file_of(name)?;
        let len_bytes = state.files[&number].bytes.len() as u64;
        Ok(SimulatedFile { disk: self.clone(), number, len_bytes, is_sealed: false })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.file_of(from)?;
        state.change_names(Renaming::Move { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.file_of(name)?;
        state.change_names(Renaming::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.flushes += 1;
        let State { renamings, durable_names, .. } = &mut *state;
        renamings.drain(..).for_each(|renaming| renaming.apply(durable_names));
        Ok(())
    }

    fn used_bytes(&self) -> io::Result<u64> {
        Ok(self.state().used_bytes())
    }

    fn room_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity_bytes.unwrap_or(u64::MAX).saturating_sub(state.used_bytes()))
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// A file of a [`SimulatedDisk`].
#[derive(Debug)]
pub struct SimulatedFile {
    disk: SimulatedDisk,
    number: u64,
    len_bytes: u64,
    is_sealed: bool,
}

impl SimulatedFile {
    fn range(&self, offset: u64, len: usize) -> Range<usize> {
        let end = offset.checked_add(len as u64);
        assert!(
            end.is_some_and(|end| end <= self.len_bytes),
            "{len} bytes at {offset} of {}",
            self.len_bytes
        );
        offset as usize..offset as usize + len
    }
}

impl MappedFile for SimulatedFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn store(&mut self, offset: u64, bytes: &[u8]) {
        assert!(!self.is_sealed, "a store into a sealed file");
        let range = self.range(offset, bytes.len());
        let mut state = self.disk.state();
        // A store into memory cannot fail; without power it is not done.
        if state.begin().is_err() && state.is_off {
            return;
        }
        let file = state.files.get_mut(&self.number).expect("an open file is kept");
        file.store(range, bytes);
        state.unflushed.insert(self.number);
    }

    fn copy_out(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, out.len());
        out.copy_from_slice(&self.disk.state().files[&self.number].bytes[range]);
        Ok(())
    }

    fn slice(&self, offset: u64, len_bytes: usize) -> io::Result<Bytes> {
        let range = self.range(offset, len_bytes);
        Ok(Bytes::copy_from_slice(&self.disk.state().files[&self.number].bytes[range]))
    }

    fn flush(&mut self) -> io::Result<()> {
        assert!(!self.is_sealed, "a flush of a sealed file");
        let mut state = self.disk.state();
        let begun = state.begin();
        let is_off = state.is_off;
        let file = state.files.get_mut(&self.number).expect("an open file is kept");
        if begun.is_err() {
            if !is_off {
                file.fail_flush();
            }
            return begun;
        }
        file.flush();
        if file.forgotten.is_empty() {
            state.unflushed.remove(&self.number);
        }
        state.flushes += 1;
        Ok(())
    }

    /// Promises nothing, but may fail.
    fn write_out(&mut self, offset: u64, len_bytes: u64) -> io::Result<()> {
        assert!(!self.is_sealed, "a flush of a sealed file");
        self.range(offset, len_bytes as usize);
        let mut state = self.disk.state();
        let begun = state.begin();
        if begun.is_err() && !state.is_off {
            state.files.get_mut(&self.number).expect("an open file is kept").fail_flush();
        }
        begun
    }

    fn expect_stores(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn seal(&mut self) {
        self.is_sealed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(disk: &SimulatedDisk, len_bytes: u64) -> SimulatedFile {
        let mut file = disk.create("file", len_bytes).unwrap();
        file.flush().unwrap();
        disk.sync_directory().unwrap();
        file
    }

    #[test]
    fn what_was_flushed_is_kept_and_the_rest_goes_by_sectors() {
        let disk = SimulatedDisk::new();
        let mut file = file_of(&disk, 4 * SECTOR_BYTES as u64);
        file.store(0, &[1; SECTOR_BYTES]);
        file.flush().unwrap();
        file.store(SECTOR_BYTES as u64, &[2; 3 * SECTOR_BYTES]);
        let sectors = |fate| -> Vec<u8> {
            let bytes = disk.crash(fate).read("file").unwrap();
            assert!(bytes.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
        };
        assert_eq!(sectors(Unflushed::Kept), [1, 2, 2, 2]);
        assert_eq!(sectors(Unflushed::Lost), [1, 0, 0, 0]);
        let drawn: BTreeSet<Vec<u8>> = (0..200).map(|seed| sectors(Unflushed::Drawn(seed))).collect();
        assert_eq!(drawn.len(), 8, "every mixture of three sectors: {drawn:?}");
        assert_eq!(sectors(Unflushed::Drawn(5)), sectors(Unflushed::Drawn(5)));
        assert_eq!(disk.unflushed_sectors(), 3);
        assert_eq!(
            [0, 1, 2].map(|n| sectors(Unflushed::AllBut(n))),
            [[1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0]]
        );
        assert_eq!(
            [0, 1, 2].map(|n| sectors(Unflushed::Only(n))),
            [[1, 2, 0, 0], [1, 0, 2, 0], [1, 0, 0, 2]]
        );
    }

    #[test]
    fn what_was_flushed_is_never_garbled_be_it_zeros() {
        let disk = SimulatedDisk::new();
        let mut file = file_of(&disk, 2 * SECTOR_BYTES as u64);
        file.store(0, &[0; 5]);
        file.flush().unwrap();
        file.store(5, &[7; SECTOR_BYTES]);
        let found = |seed| disk.crash(Unflushed::Garbled(seed)).read("file").unwrap();
        assert!((0..200).map(found).all(|bytes| bytes[..5] == [0; 5]));
        let is_garbage = |bytes: &Vec<u8>| !matches!(bytes[SECTOR_BYTES], 0 | 7);
        assert!(
            (0..200).map(found).any(|bytes| is_garbage(&bytes)),
            "the second sector was never written before"
        );
    }

    #[test]
    fn names_are_durable_when_the_directory_was_flushed() {
        let disk = SimulatedDisk::new();
        file_of(&disk, 10);
        disk.rename("file", "other").unwrap();
        disk.create("third", 10).unwrap();
        let names = |fate| disk.crash(fate).list().unwrap();
        assert_eq!(names(Unflushed::Lost), ["file"]);
        assert_eq!(names(Unflushed::Kept), ["other", "third"]);
        let drawn: BTreeSet<Vec<String>> = (0..100).map(|seed| names(Unflushed::Drawn(seed))).collect();
        assert_eq!(drawn.len(), 3, "none, the first, or both: {drawn:?}");
    }

    #[test]
    fn nothing_happens_without_power() {
        let disk = SimulatedDisk::new();
        let mut file = file_of(&disk, 10);
        disk.power_off_at(disk.operations() + 2);
        file.store(0, &[1]);
        file.store(1, &[2]);
        assert!(disk.is_off() && file.flush().is_err() && disk.remove("file").is_err());
        assert_eq!(disk.crash(Unflushed::Kept).read("file").unwrap()[..2], [1, 0]);
    }
}
