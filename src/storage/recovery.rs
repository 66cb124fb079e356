//! What a node does with the files that it finds when it starts. `docs/disk-format.md` has the table; each row
//! of it is a test.

use std::io;

use fsd_wire::{Entry, EntryKind, Genesis, Incarnation, Life, LogIndex, Register, Term};

use super::checkpoints::{FoundCheckpoints, ImageSink};
use super::error::{Doing, StorageError};
use super::hard_state::{self, HARD_STATE_NAME, HardStateFile, StoredState};
use super::segment::{ACTIVATION_AT, NameKind, Position, RecordHead, file_name, parse_name};
use super::segmented_log::SegmentedLog;
use super::survey::{self, Survey, Visitor};
use super::{DirectoryIdentity, Recovered, Storage, restoring};
use crate::mapping::{Disk, MappedFile};
use crate::marks::mark;
use crate::mutants::mutant;
use crate::raft::{HardState, LogSummary};

/// Bytes that are stored again in one go.
const STORED_AGAIN_BYTES: usize = 4096;

/// See [`super::open`].
pub(super) fn open<D: Disk>(
    disk: D,
    identity: &DirectoryIdentity,
    segment_bytes: u64,
    random: &mut dyn FnMut() -> u64,
    sink: &mut dyn ImageSink,
) -> Result<Storage<D>, StorageError> {
    let stored = read_hard_state(&disk, identity)?;
    let mut checkpoints = FoundCheckpoints::find(&disk, Some(identity), sink)?;
    let (found, summary) = read_log(&disk, identity, stored.as_ref(), &mut checkpoints)?;
    let mut report = report(&disk, &found, &checkpoints);
    let state = match &stored {
        Some(stored) => {
            let life = stored.state.life.next(draw_u32(random));
            let (term, voted_for) = match summary.term_starts.last() {
                Some((_, term)) if mutant!("term-reset-at-start") => (*term, None),
                _ => (stored.state.term, stored.state.voted_for),
            };
            HardState { life, term, voted_for, ..stored.state.clone() }
        }
        None => new_state(random),
    };
    let is_torn = found.is_torn();
    let Survey { mut segments, contents, leftovers, table, end, proven, highest_id, .. } = found;
    // The temporary file of a hard state is not in the survey, which is about the log.
    let names = disk.list().doing(|| "read the data directory".to_owned())?;
    mark!(
        "recovery-removes-hard-state-in-the-making",
        names.iter().any(|name| name == hard_state::TEMPORARY_NAME)
    );
    let temporary = names.into_iter().filter(|name| name == hard_state::TEMPORARY_NAME);
    let leftovers = leftovers.into_iter().map(|leftover| leftover.name);
    let removed: Vec<String> = leftovers.chain(temporary).chain(checkpoints.others).collect();
    for name in &removed {
        disk.remove(name).doing(|| format!("remove {}", disk.describe(name)))?;
    }
    // The names, too, may be in memory only.
    disk.sync_directory().doing(|| "flush the data directory".to_owned())?;
    if let Some((last, sealed)) = segments.split_last_mut() {
        let path = disk.describe(&file_name(last.header.id));
        last.file.expect_stores().doing(|| format!("map {path}"))?;
        let is_in_last = proven.segment() == last.header.id;
        mark!("recovery-stores-whole-segment-again", !is_in_last);
        mark!("recovery-stores-again-behind-proven", is_in_last && proven < end);
        let from = if is_in_last { u64::from(proven.offset()) } else { ACTIVATION_AT };
        let from = if mutant!("memory-not-stored-again") { u64::from(end.offset()) } else { from };
        store_again(&mut last.file, from, u64::from(end.offset())).doing(|| format!("read {path}"))?;
        last.file.flush().doing(|| format!("flush {path}"))?;
        sealed.iter_mut().for_each(|segment| segment.file.seal());
    }
    let hard_state = match stored {
        Some(_) => HardStateFile::open(&disk, identity, &state, end)?,
        None => HardStateFile::create(&disk, identity, &state)?,
    };
    report.push(format!(
        "incarnation {:016x}, life {}, term {}",
        state.incarnation.0,
        state.life.count(),
        state.term
    ));
    let log = SegmentedLog::new(
        disk,
        identity,
        segment_bytes,
        segments,
        contents,
        table,
        end,
        is_torn,
        highest_id,
        random(),
    );
    let recovered = Recovered { state, log: summary, checkpoints: checkpoints.counting, report };
    Ok(Storage { log, hard_state, recovered })
}

/// Stores bytes that are there once more, so that the next flush surely brings them to the disk. A process that was
/// killed, or ended because a flush failed, may have left them in memory only, and in the second case the kernel
/// takes them for written: no flush would ever write them. What is told to the core as its log must be on the disk.
pub(super) fn store_again<F: MappedFile>(file: &mut F, from: u64, to: u64) -> io::Result<()> {
    let mut piece = [0; STORED_AGAIN_BYTES];
    let mut at = from;
    while at < to {
        let len = (to - at).min(STORED_AGAIN_BYTES as u64) as usize;
        file.copy_out(at, &mut piece[..len])?;
        file.store(at, &piece[..len]);
        at += len as u64;
    }
    Ok(())
}

fn draw_u32(random: &mut dyn FnMut() -> u64) -> u32 {
    random() as u32
}

fn new_state(random: &mut dyn FnMut() -> u64) -> HardState {
    // 0 would be read as "no incarnation" by a person; it is as unlikely as any other number.
    let incarnation = Incarnation(random().max(1));
    HardState {
        incarnation,
        life: Life::new(1, draw_u32(random)),
        term: Term(0),
        voted_for: None,
        cluster_id: None,
        met: Default::default(),
    }
}

pub(super) fn read_hard_state<D: Disk>(
    disk: &D,
    identity: &DirectoryIdentity,
) -> Result<Option<StoredState>, StorageError> {
    let path = disk.describe(HARD_STATE_NAME);
    let names = disk.list().doing(|| "read the data directory".to_owned())?;
    restoring::check_finished(disk, &names)?;
    if !names.iter().any(|name| name == HARD_STATE_NAME) {
        // The hard state is there before the first segment is begun.
        let is_later =
            |name: &&String| matches!(parse_name(name), NameKind::Segment(_) | NameKind::Checkpoint(_));
        let segment = names.iter().find(is_later);
        return match segment {
            None => Ok(None),
            Some(name) => Err(StorageError::MissingHardState { file: path, beside: disk.describe(name) }),
        };
    }
    let file = disk.open(HARD_STATE_NAME).doing(|| format!("open {path}"))?;
    let slots = hard_state::read_slots(&file).doing(|| format!("read {path}"))?;
    let (_, stored) = hard_state::choose(&slots, &path)?;
    if stored.identity != *identity {
        let (found, expected) = (stored.identity, identity.clone());
        return Err(StorageError::WrongDirectory { file: path, found, expected });
    }
    Ok(Some(stored))
}

pub(super) fn read_log<D: Disk>(
    disk: &D,
    identity: &DirectoryIdentity,
    stored: Option<&StoredState>,
    checkpoints: &mut FoundCheckpoints,
) -> Result<(Survey<D::File>, LogSummary), StorageError> {
    let log_end = stored.map_or(Position::default(), |stored| stored.log_end);
    let mut summarizer = Summarizer { disk, summary: checkpoints.summary() };
    let known = checkpoints.known(log_end);
    let surveyed = survey::survey(disk, Some(identity), &known, &mut summarizer);
    // An older checkpoint, or none, is as good if the log behind it reaches as far as the damaged one did.
    let reaches = |index: LogIndex| surveyed.as_ref().is_ok_and(|found| found.table.last.index >= index);
    if let Some(n) = checkpoints.damaged.iter().position(|(index, _)| !reaches(*index)) {
        return Err(checkpoints.damaged.swap_remove(n).1);
    }
    let found = surveyed?;
    Ok((found, summarizer.summary))
}

/// Gathers what the core needs to know of the log, and lets no problem pass.
struct Summarizer<'a, D> {
    disk: &'a D,
    summary: LogSummary,
}

impl<D: Disk> Visitor<D::File> for Summarizer<'_, D> {
    fn record(&mut self, head: &RecordHead, entry: &Entry) -> Result<(), StorageError> {
        let index = head.id.index;
        let summary = &mut self.summary;
        if index <= summary.last_index && !mutant!("superseded-come-back") {
            mark!("recovery-finds-superseded");
            truncate(summary, index);
        }
        let is_new_term = summary.term_starts.last().is_none_or(|(_, term)| *term != head.id.term);
        if is_new_term {
            summary.term_starts.push((index, head.id.term));
        }
        summary.last_index = index;
        summary.last_stamp = head.stamp;
        let registered = match entry.kind {
            EntryKind::Genesis => Genesis::decode(&entry.payload).map(|genesis| {
                summary.genesis = Some(genesis.cluster_id);
                let incarnations = genesis.incarnations.into_iter();
                summary
                    .registrations
                    .extend(incarnations.map(|(node, incarnation)| (index, node, incarnation)));
            }),
            EntryKind::Register => Register::decode(&entry.payload).map(|register| {
                summary.registrations.push((index, register.node, register.incarnation));
            }),
            EntryKind::Noop | EntryKind::Tick | EntryKind::Command | EntryKind::Session => Ok(()),
        };
        registered.map_err(|error| StorageError::Damage {
            file: self.disk.describe(&file_name(head.position.segment())),
            offset: u64::from(head.position.offset()),
            what: error.to_string(),
        })
    }

    fn problem(&mut self, error: StorageError) -> Result<(), StorageError> {
        Err(error)
    }
}

/// Takes back what entries from `first` on contributed. The caller sets the last index and stamp.
fn truncate(summary: &mut LogSummary, first: LogIndex) {
    summary.term_starts.retain(|(index, _)| *index < first);
    summary.registrations.retain(|(index, _, _)| *index < first);
    if first == LogIndex(1) {
        summary.genesis = None;
    }
}

/// The findings in words, a line each.
fn report<D: Disk>(disk: &D, found: &Survey<D::File>, checkpoints: &FoundCheckpoints) -> Vec<String> {
    let last = &found.table.last;
    let superseded = found.records - (last.index.0 - found.table.base().entry.index.0);
    let mut lines = Vec::new();
    for (_, damaged) in &checkpoints.damaged {
        lines.push(format!("a checkpoint does not count: {damaged}"));
    }
    if let Some(newest) = checkpoints.counting.last() {
        lines.push(format!(
            "checkpoint: {} files and {} sessions as of entry {}; the log begins behind entry {}",
            newest.files,
            newest.sessions,
            newest.entry.index,
            found.table.base().entry.index
        ));
    }
    lines.push(format!(
        "log: {} segments, {} entries, the last of term {}, {superseded} superseded records",
        found.segments.len(),
        last.index,
        last.term
    ));
    for torn in &found.torn {
        let file = disk.describe(&file_name(torn.position.segment()));
        let offset = torn.position.offset();
        lines.push(format!("{file}: torn tail cut at offset {offset}: {}", torn.what));
    }
    for leftover in &found.leftovers {
        lines.push(format!("{}: does not count: {}", disk.describe(&leftover.name), leftover.why));
    }
    lines
}
