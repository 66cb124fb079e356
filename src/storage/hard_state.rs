//! The hard state: what a node must remember besides its log. One file, `hard-state`, of two slots.
//!
//! A slot is one page of 4096 bytes, little-endian, the rest zero:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `fsd-hs1\n` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | CRC-32 of the page, these four bytes taken as zero |
//! | 16 | 8 | sequence number: the slot with the greater one is the present state |
//! | 24 | 8 | incarnation |
//! | 32 | 8 | life |
//! | 40 | 8 | current term |
//! | 48 | 4 | voted for; 0 for nobody |
//! | 52 | 4 | node |
//! | 56 | 16 | cluster id; 0 while none is known |
//! | 72 | 8 | where the log ended, flushed, when this life began |
//! | 80 | 2 | length of the cluster's name |
//! | 82 | 255 | cluster's name |
//! | 337 | 3 | zero |
//! | 340 | 4 | count of the nodes met |
//! | 344 | 20 each | node (4), first incarnation met (8), its highest life (8) |
//!
//! A store writes one slot, flushes, then writes the other with the next sequence number, and flushes: a crash
//! leaves at least one whole slot, and between two stores both slots say the same, so that one may rot.

use std::collections::BTreeMap;

use byteorder::{ByteOrder, LittleEndian};
use fsd_wire::{ClusterId, Incarnation, Life, NodeId, Term};

use super::error::{Doing, StorageError};
use super::recovery::store_again;
use super::{DirectoryIdentity, Position};
use crate::mapping::{Disk, MappedFile};
use crate::marks::mark;
use crate::mutants::mutant;
use crate::raft::HardState;

/// The name of the file.
pub const HARD_STATE_NAME: &str = "hard-state";
/// Its name while it is made.
pub(super) const TEMPORARY_NAME: &str = "hard-state.tmp";
/// The format version that this release writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"fsd-hs1\n";
const SLOT_BYTES: usize = 4096;
const SLOTS: u64 = 2;
/// Bytes of the file.
pub(super) const HARD_STATE_BYTES: u64 = SLOTS * SLOT_BYTES as u64;
const NAME_AT: usize = 82;
const MET_AT: usize = 344;
const MET_BYTES: usize = 20;
/// Nodes that one can have met: as many as the page has room for, more than any cluster has.
const MET_MAX: usize = (SLOT_BYTES - MET_AT) / MET_BYTES;

/// The hard state of a directory, as a slot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    /// Whose it is.
    pub identity: DirectoryIdentity,
    /// The core's part.
    pub state: HardState,
    /// Where the log ended, flushed, when this life began.
    pub log_end: Position,
}

/// One slot of the file, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It holds a state.
    Good {
        /// Its sequence number.
        sequence: u64,
        /// The state.
        stored: Box<StoredState>,
    },
    /// It is of another release.
    UnknownFormat(u32),
    /// It is not whole.
    Bad(&'static str),
}

/// Reads both slots.
///
/// # Errors
/// If the file cannot be read.
pub fn read_slots<F: MappedFile>(file: &F) -> std::io::Result<[Slot; 2]> {
    let mut slots = [Slot::Bad("the file ends before it"), Slot::Bad("the file ends before it")];
    for (n, slot) in slots.iter_mut().enumerate() {
        let offset = (n * SLOT_BYTES) as u64;
        if offset + SLOT_BYTES as u64 <= file.len_bytes() {
            let mut page = [0; SLOT_BYTES];
            file.copy_out(offset, &mut page)?;
            *slot = decode(&page);
        }
    }
    Ok(slots)
}

/// The hard state that the file's slots give, or what is wrong with them.
pub(super) fn choose(slots: &[Slot; 2], file: &str) -> Result<(u64, StoredState), StorageError> {
    let mut best: Option<(u64, &StoredState)> = None;
    for slot in slots {
        if let Slot::Good { sequence, stored } = slot
            && best.is_none_or(|(highest, _)| *sequence > highest)
        {
            best = Some((*sequence, stored));
        }
    }
    match (best, slots) {
        (Some((sequence, stored)), _) => {
            mark!("hard-state-first-slot-is-torn", !matches!(slots[0], Slot::Good { .. }));
            mark!("hard-state-second-slot-is-torn", !matches!(slots[1], Slot::Good { .. }));
            Ok((sequence, stored.clone()))
        }
        (None, [Slot::UnknownFormat(version), _] | [_, Slot::UnknownFormat(version)]) => {
            Err(StorageError::UnknownFormat { file: file.to_owned(), version: *version })
        }
        (None, [Slot::Bad(what), _]) => Err(StorageError::Damage {
            file: file.to_owned(),
            offset: 0,
            what: format!("neither of the two hard states is whole: {what}"),
        }),
        (None, [Slot::Good { .. }, _]) => unreachable!("a good slot is the best one"),
    }
}

/// The file of the hard state, open for stores.
pub struct HardStateFile<D: Disk> {
    file: D::File,
    path: String,
    identity: DirectoryIdentity,
    log_end: Position,
    sequence: u64,
    /// The slot that the next store writes first: never the only good one.
    next_slot: u64,
    failed: bool,
}

impl<D: Disk> HardStateFile<D> {
    /// Opens the file that is there and stores `state` in it.
    pub(super) fn open(
        disk: &D,
        identity: &DirectoryIdentity,
        state: &HardState,
        log_end: Position,
    ) -> Result<Self, StorageError> {
        let path = disk.describe(HARD_STATE_NAME);
        let mut file = disk.open(HARD_STATE_NAME).doing(|| format!("open {path}"))?;
        let slots = read_slots(&file).doing(|| format!("read {path}"))?;
        let (sequence, _) = choose(&slots, &path)?;
        let present = slots.iter().position(|slot| match slot {
            Slot::Good { sequence: found, .. } => *found == sequence,
            _ => false,
        });
        let present = present.expect("the chosen slot is one of the two") as u64;
        mark!("hard-state-first-slot-counts", present == 0);
        // It may be in memory only, if the process before this one ended in the flush of it: it must be on the disk
        // before the other slot is stored, or a power failure could tear both. If the other slot is not whole,
        // this one was flushed before that was begun, and is left alone.
        if matches!(slots[1 - present as usize], Slot::Good { .. }) {
            let (from, to) = (present * SLOT_BYTES as u64, (present + 1) * SLOT_BYTES as u64);
            store_again(&mut file, from, to).doing(|| format!("read {path}"))?;
            file.flush().doing(|| format!("flush {path}"))?;
        }
        let (identity, next_slot) = (identity.clone(), 1 - present);
        let mut opened = Self { file, path, identity, log_end, sequence, next_slot, failed: false };
        opened.store(state)?;
        Ok(opened)
    }

    /// Makes the file, with `state` in both slots, durably.
    pub(super) fn create(
        disk: &D,
        identity: &DirectoryIdentity,
        state: &HardState,
    ) -> Result<Self, StorageError> {
        let path = disk.describe(HARD_STATE_NAME);
        let file = disk.create(TEMPORARY_NAME, HARD_STATE_BYTES).doing(|| format!("create {path}"))?;
        Self::make(disk, file, TEMPORARY_NAME, identity, state)
    }

    /// Makes a file of zeros that has another name the hard state, with `state` in both slots, durably.
    pub(super) fn make(
        disk: &D,
        file: D::File,
        temporary_name: &str,
        identity: &DirectoryIdentity,
        state: &HardState,
    ) -> Result<Self, StorageError> {
        let path = disk.describe(HARD_STATE_NAME);
        let mut made = Self {
            file,
            path,
            identity: identity.clone(),
            log_end: Position::default(),
            sequence: 0,
            next_slot: 0,
            failed: false,
        };
        made.store(state)?;
        disk.rename(temporary_name, HARD_STATE_NAME).doing(|| format!("create {}", made.path))?;
        disk.sync_directory().doing(|| format!("flush the directory of {}", made.path))?;
        Ok(made)
    }

    /// Makes `state` the hard state; it is durable when this returns.
    ///
    /// # Errors
    /// If a flush fails; after that every store fails.
    ///
    /// # Panics
    /// If more nodes were met than any cluster has.
    pub fn store(&mut self, state: &HardState) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Failed);
        }
        let stored =
            StoredState { identity: self.identity.clone(), state: state.clone(), log_end: self.log_end };
        for _ in 0..SLOTS {
            self.sequence += 1;
            self.file.store(self.next_slot * SLOT_BYTES as u64, &encode(self.sequence, &stored));
            let flushed = if mutant!("hard-state-not-flushed") { Ok(()) } else { self.file.flush() };
            if let Err(source) = flushed
                && !mutant!("failed-hard-state-ignored")
            {
                mark!("hard-state-flush-fails");
                self.failed = true;
                return Err(StorageError::Io { doing: format!("flush {}", self.path), source });
            }
            self.next_slot = if mutant!("hard-state-one-slot") { self.next_slot } else { 1 - self.next_slot };
        }
        Ok(())
    }
}

fn encode(sequence: u64, stored: &StoredState) -> [u8; SLOT_BYTES] {
    let StoredState { identity, state, log_end } = stored;
    let mut page = [0; SLOT_BYTES];
    page[..8].copy_from_slice(MAGIC);
    LittleEndian::write_u32(&mut page[8..], FORMAT_VERSION);
    LittleEndian::write_u64(&mut page[16..], sequence);
    LittleEndian::write_u64(&mut page[24..], state.incarnation.0);
    LittleEndian::write_u64(&mut page[32..], state.life.0);
    LittleEndian::write_u64(&mut page[40..], state.term.0);
    LittleEndian::write_u32(&mut page[48..], state.voted_for.map_or(0, |node| node.0));
    LittleEndian::write_u32(&mut page[52..], identity.node.0);
    LittleEndian::write_u128(&mut page[56..], state.cluster_id.map_or(0, |id| id.0));
    LittleEndian::write_u64(&mut page[72..], log_end.0);
    let name = identity.cluster.as_bytes();
    LittleEndian::write_u16(&mut page[80..], name.len() as u16);
    page[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    assert!(state.met.len() <= MET_MAX, "{} nodes met", state.met.len());
    LittleEndian::write_u32(&mut page[340..], state.met.len() as u32);
    for (n, (node, (incarnation, life))) in state.met.iter().enumerate() {
        let at = MET_AT + n * MET_BYTES;
        LittleEndian::write_u32(&mut page[at..], node.0);
        LittleEndian::write_u64(&mut page[at + 4..], incarnation.0);
        LittleEndian::write_u64(&mut page[at + 12..], life.0);
    }
    let crc = page_crc(&page);
    LittleEndian::write_u32(&mut page[12..], crc);
    page
}

fn page_crc(page: &[u8; SLOT_BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&page[..12]);
    crc.update(&[0; 4]);
    crc.update(&page[16..]);
    crc.finalize()
}

fn decode(page: &[u8; SLOT_BYTES]) -> Slot {
    if &page[..8] != MAGIC {
        return Slot::Bad("no hard state");
    }
    let version = LittleEndian::read_u32(&page[8..]);
    if version != FORMAT_VERSION {
        return Slot::UnknownFormat(version);
    }
    if LittleEndian::read_u32(&page[12..]) != page_crc(page) {
        return Slot::Bad("CRC mismatch");
    }
    let name_len = usize::from(LittleEndian::read_u16(&page[80..]));
    let met_count = LittleEndian::read_u32(&page[340..]) as usize;
    if name_len > fsd_wire::hello::CLUSTER_NAME_BYTES_MAX || met_count > MET_MAX {
        return Slot::Bad("a length over its bound");
    }
    let Ok(cluster) = std::str::from_utf8(&page[NAME_AT..NAME_AT + name_len]) else {
        return Slot::Bad("the cluster's name is not UTF-8");
    };
    let mut met = BTreeMap::new();
    for item in page[MET_AT..].chunks_exact(MET_BYTES).take(met_count) {
        let incarnation = Incarnation(LittleEndian::read_u64(&item[4..]));
        let life = Life(LittleEndian::read_u64(&item[12..]));
        met.insert(NodeId(LittleEndian::read_u32(item)), (incarnation, life));
    }
    let voted_for = LittleEndian::read_u32(&page[48..]);
    let cluster_id = LittleEndian::read_u128(&page[56..]);
    let state = HardState {
        incarnation: Incarnation(LittleEndian::read_u64(&page[24..])),
        life: Life(LittleEndian::read_u64(&page[32..])),
        term: Term(LittleEndian::read_u64(&page[40..])),
        voted_for: (voted_for != 0).then_some(NodeId(voted_for)),
        cluster_id: (cluster_id != 0).then_some(ClusterId(cluster_id)),
        met,
    };
    let node = NodeId(LittleEndian::read_u32(&page[52..]));
    Slot::Good {
        sequence: LittleEndian::read_u64(&page[16..]),
        stored: Box::new(StoredState {
            identity: DirectoryIdentity { cluster: cluster.to_owned(), node },
            state,
            log_end: Position(LittleEndian::read_u64(&page[72..])),
        }),
    }
}
