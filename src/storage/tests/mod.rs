//! Tests of the whole room on simulated and real disks.

// They put files where a person or another process might.
#![allow(clippy::disallowed_methods)]

mod base;
mod checkpoint;
mod copying;
mod crash;
mod failed_flush;
mod golden;
mod model;
mod recovery_table;
mod running;

use bytes::Bytes;
use fsd_wire::{ClusterTimeMs, Entry, EntryKind, LogIndex, NodeId, Payload, Term};

use super::{DirectoryIdentity, Storage, StorageError, open};
use crate::mapping::Disk;
use crate::raft::{HardState, LogChange};
use crate::simulated_disk::SimulatedDisk;

/// Small, so that a few records fill one.
const SEGMENT_BYTES: u64 = 8192;

fn identity() -> DirectoryIdentity {
    DirectoryIdentity { cluster: "demo".to_owned(), node: NodeId(3) }
}

/// Opens with a generator that every call seeds anew, as no real one would be: salts repeat between lives only
/// if the code does not draw them from what it is given.
fn open_with<D: Disk>(disk: &D, seed: u64) -> Result<Storage<D>, StorageError> {
    let mut random = fastrand::Rng::with_seed(seed);
    open(disk.clone(), &identity(), SEGMENT_BYTES, &mut || random.u64(..))
}

fn open_ok(disk: &SimulatedDisk) -> Storage<SimulatedDisk> {
    open_with(disk, 7).unwrap_or_else(|error| panic!("the directory must open: {error}"))
}

fn open_error(disk: &SimulatedDisk) -> StorageError {
    match open_with(disk, 7) {
        Ok(storage) => panic!("the directory must not open, but did: {:?}", storage.recovered.report),
        Err(error) => error,
    }
}

/// An entry whose payload is told by its index and term, so that no two are alike.
fn entry(index: u64, term: u64, payload_bytes: usize) -> Entry {
    let mut random = fastrand::Rng::with_seed(index << 32 | term);
    let payload: Vec<u8> = (0..payload_bytes).map(|_| random.u8(..)).collect();
    Entry {
        index: LogIndex(index),
        term: Term(term),
        stamp: ClusterTimeMs(1000 * term),
        kind: EntryKind::Command,
        payload: Payload::from(Bytes::from(payload)),
    }
}

fn append(index: u64, term: u64, payload_bytes: usize) -> LogChange {
    LogChange::Append(entry(index, term, payload_bytes))
}

/// All entries, read back one by one.
fn entries<D: Disk>(storage: &Storage<D>) -> Vec<Entry> {
    (1..=storage.log.last_index().0)
        .map(|index| storage.log.entry(LogIndex(index)).expect("every entry can be read"))
        .collect()
}

/// What a directory may hold after a power failure: the log as of the last flush, or with any first part of what
/// was appended since; the hard state that was stored last, or the one whose store did not end.
#[derive(Clone, Debug, Default)]
struct Model {
    log: Vec<Entry>,
    possible_logs: Vec<Vec<Entry>>,
    possible_states: Vec<Option<HardState>>,
}

impl Model {
    fn new() -> Self {
        Self { log: Vec::new(), possible_logs: vec![Vec::new()], possible_states: vec![None] }
    }

    /// Before the changes are appended.
    fn will_append(&mut self, changes: &[LogChange]) {
        for change in changes {
            match change {
                LogChange::TruncateFrom(index) => self.log.truncate(index.0 as usize - 1),
                LogChange::Append(entry) => {
                    self.log.push(entry.clone());
                    self.possible_logs.push(self.log.clone());
                }
            }
        }
    }

    /// After a flush that succeeded.
    fn flushed(&mut self) {
        self.possible_logs = vec![self.log.clone()];
    }

    fn will_store(&mut self, state: &HardState) {
        self.possible_states.push(Some(state.clone()));
    }

    /// After a store that succeeded.
    fn stored(&mut self) {
        self.possible_states.drain(..self.possible_states.len() - 1);
    }

    /// Compares what recovery found with what may be there, and takes it for what is.
    fn recovered<D: Disk>(&mut self, storage: &Storage<D>) {
        let found = entries(storage);
        assert!(self.possible_logs.contains(&found), "no possible log: {:?}", ids(&found));
        assert_eq!(storage.recovered.log.last_index.0, found.len() as u64);
        let mut term_starts = Vec::new();
        for entry in &found {
            if term_starts.last().is_none_or(|(_, term)| *term != entry.term) {
                term_starts.push((entry.index, entry.term));
            }
        }
        assert_eq!(storage.recovered.log.term_starts, term_starts);
        assert_eq!(
            storage.recovered.log.last_stamp,
            found.last().map_or(ClusterTimeMs(0), |entry| entry.stamp)
        );
        let state = &storage.recovered.state;
        let follows = |before: &Option<HardState>| match before {
            None => state.life.count() == 1 && state.term == Term(0),
            Some(before) => {
                *state == HardState { life: state.life, ..before.clone() }
                    && state.life.count() >= before.life.count()
            }
        };
        assert!(self.possible_states.iter().any(follows), "no possible state: {state:?}");
        self.log = found;
        self.flushed();
        self.possible_states = vec![Some(state.clone())];
    }
}

fn ids(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
}
