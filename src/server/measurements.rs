//! What a node measures in its turns. Nothing is decided by any of it: a node that measured nothing would do the
//! same.

use fsd_wire::client::{NodeRole, Operation, Outcome, Refusal};
use fsd_wire::{Command, LogIndex, Operation as Change};

use super::Fault;
use super::node::Node;
use super::pending::Asked;
use crate::limits;
use crate::mapping::Disk;
use crate::metrics::{Histogram, Page, definitions};
use crate::raft::LogChange;
use crate::storage::CheckpointHead;

/// Reads a clock in microseconds, from any beginning.
pub type Stopwatch = Box<dyn Fn() -> u64>;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Read,
    Stat,
    List,
    Write,
    Cas,
    Delete,
    Status,
    /// A session was to be opened, kept alive or closed.
    Session,
    /// A backup was to be begun, or a piece of one fetched.
    Backup,
    /// A change of which not even that could be told.
    Malformed,
}

impl RequestKind {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Read, "read"),
        (Self::Stat, "stat"),
        (Self::List, "list"),
        (Self::Write, "write"),
        (Self::Cas, "cas"),
        (Self::Delete, "delete"),
        (Self::Status, "status"),
        (Self::Session, "session"),
        (Self::Backup, "backup"),
        (Self::Malformed, "malformed"),
    ];

    /// What an operation is about, as far as that can be told before its command was decoded.
    pub(super) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Read { .. } => Self::Read,
            Operation::Stat { .. } => Self::Stat,
            Operation::List { .. } => Self::List,
            Operation::Status | Operation::StorageStatus => Self::Status,
            Operation::OpenSession | Operation::KeepAlive { .. } | Operation::CloseSession { .. } => {
                Self::Session
            }
            Operation::BackupBegin | Operation::BackupChunk { .. } => Self::Backup,
            Operation::Change { .. } | Operation::SessionChange { .. } => Self::Malformed,
        }
    }

    pub(super) fn of_command(command: &Command) -> Self {
        match command.operation {
            Change::Write { .. } => Self::Write,
            Change::Cas { .. } => Self::Cas,
            Change::Delete | Change::DeleteIf { .. } => Self::Delete,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    NotFound,
    VersionMismatch,
    Conflict,
    InvalidName,
    TooLarge,
    BadRequest,
    NotLeader,
    NoLeader,
    Busy,
    Unknown,
    SessionGone,
    DiskFull,
}

impl Ending {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Done, "done"),
        (Self::NotFound, "not_found"),
        (Self::VersionMismatch, "version_mismatch"),
        (Self::Conflict, "conflict"),
        (Self::InvalidName, "invalid_name"),
        (Self::TooLarge, "too_large"),
        (Self::BadRequest, "bad_request"),
        (Self::NotLeader, "not_leader"),
        (Self::NoLeader, "no_leader"),
        (Self::Busy, "busy"),
        (Self::Unknown, "unknown"),
        (Self::SessionGone, "session_gone"),
        (Self::DiskFull, "disk_full"),
    ];

    fn of(outcome: &Outcome) -> Self {
        let Outcome::Refused(refusal) = outcome else { return Self::Done };
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::VersionMismatch { .. } => Self::VersionMismatch,
            Refusal::Conflict { .. } => Self::Conflict,
            Refusal::InvalidName { .. } => Self::InvalidName,
            Refusal::TooLarge { .. } => Self::TooLarge,
            Refusal::BadRequest { .. } => Self::BadRequest,
            Refusal::NotLeader { .. } => Self::NotLeader,
            Refusal::NoLeader => Self::NoLeader,
            Refusal::Busy => Self::Busy,
            Refusal::Unknown => Self::Unknown,
            Refusal::SessionGone => Self::SessionGone,
            Refusal::DiskFull { .. } => Self::DiskFull,
        }
    }

    /// Which of the three that a client tells apart.
    fn result(self) -> EndResult {
        match self {
            Self::Done => EndResult::Done,
            Self::Unknown => EndResult::Unknown,
            _ => EndResult::Refused,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndResult {
    Done,
    Refused,
    Unknown,
}

impl EndResult {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Done, "done"), (Self::Refused, "refused"), (Self::Unknown, "unknown")];
}

/// Counts since the process started.
pub(super) struct Measurements {
    stopwatch: Option<Stopwatch>,
    /// The time at which this turn is, as far as requests are concerned.
    pub(super) now_us: u64,
    pub(super) leader_changes: u64,
    flush_us: Histogram,
    flush_bytes: Histogram,
    flush_entries: Histogram,
    /// Appended since the last flush.
    unflushed_bytes: u64,
    unflushed_entries: u64,
    hard_state_us: Histogram,
    read_batch: Histogram,
    checkpoint_us: Histogram,
    /// When the checkpoint that is being made was begun.
    checkpoint_began_us: u64,
    requests: [[u64; Ending::ALL.len()]; RequestKind::ALL.len()],
    /// By kind and result.
    request_us: Vec<[Histogram; EndResult::ALL.len()]>,
}

impl Measurements {
    pub(super) fn new() -> Self {
        let request_us =
            || [(); EndResult::ALL.len()].map(|()| Histogram::new(&definitions::REQUEST_DURATION));
        Self {
            stopwatch: None,
            now_us: 0,
            leader_changes: 0,
            flush_us: Histogram::new(&definitions::FLUSH_DURATION),
            flush_bytes: Histogram::new(&definitions::FLUSH_BYTES),
            flush_entries: Histogram::new(&definitions::FLUSH_ENTRIES),
            unflushed_bytes: 0,
            unflushed_entries: 0,
            hard_state_us: Histogram::new(&definitions::HARD_STATE_DURATION),
            read_batch: Histogram::new(&definitions::READ_BATCH),
            checkpoint_us: Histogram::new(&definitions::CHECKPOINT_DURATION),
            checkpoint_began_us: 0,
            requests: Default::default(),
            request_us: RequestKind::ALL.iter().map(|_| request_us()).collect(),
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now_ms: u64) {
        self.now_us = match &self.stopwatch {
            Some(stopwatch) => stopwatch(),
            None => now_ms.saturating_mul(1000),
        };
    }

    /// A checkpoint of this node's own store is begun.
    pub(super) fn checkpoint_begins(&mut self) {
        self.checkpoint_began_us = self.read_stopwatch();
    }

    /// It is on the disk for good.
    pub(super) fn checkpoint_stands(&mut self) {
        let took_us = self.read_stopwatch().saturating_sub(self.checkpoint_began_us);
        self.checkpoint_us.record(took_us);
    }

    /// The time between two turns.
    fn read_stopwatch(&self) -> u64 {
        self.stopwatch.as_ref().map_or(self.now_us, |stopwatch| stopwatch())
    }

    /// Notes what was appended to the log.
    pub(super) fn appended(&mut self, changes: &[LogChange]) {
        for change in changes {
            if let LogChange::Append(entry) = change {
                self.unflushed_entries += 1;
                self.unflushed_bytes += entry.encoded_bytes() as u64;
            }
        }
    }

    /// Notes that one confirmation stands for so many reads.
    pub(super) fn read_round(&mut self, reads: usize) {
        self.read_batch.record(reads as u64);
    }

    /// Notes that a request was answered, and how.
    pub(super) fn answered(&mut self, asked: Asked, outcome: &Outcome) {
        let (kind, ending) = (asked.kind as usize, Ending::of(outcome));
        self.requests[kind][ending as usize] += 1;
        self.request_us[kind][ending.result() as usize].record(self.now_us.saturating_sub(asked.at_us));
    }

    /// Does something and measures how long it takes, by a clock that may not be there.
    fn time<T>(&mut self, act: impl FnOnce() -> T) -> (T, u64) {
        let Some(stopwatch) = &self.stopwatch else { return (act(), 0) };
        let before_us = stopwatch();
        let result = act();
        // Requests that are answered from here on have waited for it.
        self.now_us = stopwatch();
        (result, self.now_us.saturating_sub(before_us))
    }
}

impl<D: Disk> Node<D> {
    /// Measures by this clock from now on. A node that was given none knows the time of its turns alone: what
    /// happens within one takes none.
    pub fn measure_by(&mut self, stopwatch: Stopwatch) {
        self.measurements.stopwatch = Some(stopwatch);
    }

    /// Flushes the log, if there is anything to flush.
    pub(super) fn flush_log(&mut self) -> Result<LogIndex, Fault> {
        if !self.log.is_dirty() {
            return Ok(self.log.flush()?);
        }
        let log = &mut self.log;
        let measurements = &mut self.measurements;
        let (flushed, took_us) = measurements.time(|| log.flush());
        measurements.flush_us.record(took_us);
        measurements.flush_bytes.record(std::mem::take(&mut measurements.unflushed_bytes));
        measurements.flush_entries.record(std::mem::take(&mut measurements.unflushed_entries));
        Ok(flushed?)
    }

    /// Stores the hard state.
    pub(super) fn store_hard_state(&mut self, state: &crate::raft::HardState) -> Result<(), Fault> {
        let hard_state = &mut self.hard_state;
        let (stored, took_us) = self.measurements.time(|| hard_state.store(state));
        self.measurements.hard_state_us.record(took_us);
        Ok(stored?)
    }

    /// Writes what the node knows of itself.
    pub fn write_metrics(&self, page: &mut Page) {
        let measured = &self.measurements;
        page.family(&definitions::ROLE);
        for role in [NodeRole::Follower, NodeRole::PreCandidate, NodeRole::Candidate, NodeRole::Leader] {
            page.sample(&[("role", &role.to_string())], u64::from(role == self.raft.role()));
        }
        page.value(&definitions::TERM, self.raft.term().0);
        let leader = self.raft.leader_id().map_or(0, |leader| leader.0);
        page.value(&definitions::LEADER, u64::from(leader));
        page.value(&definitions::LEADER_CHANGES, measured.leader_changes);
        page.value(&definitions::COMMIT_INDEX, self.raft.commit_index().0);
        page.value(&definitions::APPLIED_INDEX, self.store.last_applied().0);
        page.value(&definitions::LAST_LOG_INDEX, self.log.last_index().0);
        page.family(&definitions::PEER_LAG);
        for (node, match_index) in self.raft.follower_match_indexes() {
            let lag = self.raft.last_index().0.saturating_sub(match_index.0);
            page.sample(&[("node", &node.to_string())], lag);
        }
        page.value(&definitions::UNCOMMITTED_BYTES, self.raft.uncommitted_bytes() as u64);
        page.value(&definitions::UNCOMMITTED_BYTES_MAX, limits::UNCOMMITTED_BYTES_MAX as u64);
        page.histogram(&definitions::FLUSH_DURATION, &measured.flush_us);
        page.histogram(&definitions::FLUSH_BYTES, &measured.flush_bytes);
        page.histogram(&definitions::FLUSH_ENTRIES, &measured.flush_entries);
        page.histogram(&definitions::HARD_STATE_DURATION, &measured.hard_state_us);
        page.histogram(&definitions::READ_BATCH, &measured.read_batch);
        page.value(&definitions::LOG_SEGMENTS, self.log.segment_count() as u64);
        page.value(&definitions::LAST_SEGMENT_USED, self.log.last_segment_used_bytes());
        self.write_storage_metrics(page);
        page.value(&definitions::FILES, self.store.len() as u64);
        page.value(&definitions::REVISION, self.store.revision().0);
        page.value(&definitions::SESSIONS, self.store.sessions() as u64);
        page.value(&definitions::SESSIONS_MAX, u64::from(limits::SESSIONS_MAX));
        page.value(&definitions::DISK_LOW, u64::from(self.is_low()));
        page.value(&definitions::DISK_RESERVE, self.reserve_bytes());
        self.write_request_metrics(page);
    }

    fn write_storage_metrics(&self, page: &mut Page) {
        let status = self.storage_status();
        page.value(&definitions::LOG_BYTES, status.log_bytes);
        page.value(&definitions::CONTENTS_SEGMENTS, self.log.contents_segments().count() as u64);
        page.value(&definitions::CONTENTS_BYTES, status.contents_bytes);
        page.value(&definitions::LIVE_BYTES, status.live_bytes);
        page.family(&definitions::DATA_BYTES);
        if status.total_bytes > 0 {
            page.sample(&[], status.total_bytes);
        }
        let checkpoints = self.housekeeping.checkpoints();
        page.value(&definitions::CHECKPOINTS, checkpoints.len() as u64);
        page.value(&definitions::CHECKPOINT_BYTES, status.checkpoint_bytes);
        page.value(&definitions::CHECKPOINT_INDEX, status.checkpoint_index.0);
        page.value(
            &definitions::CHECKPOINT_NEWEST_BYTES,
            checkpoints.last().map_or(0, CheckpointHead::file_bytes),
        );
        page.histogram(&definitions::CHECKPOINT_DURATION, &self.measurements.checkpoint_us);
    }

    fn write_request_metrics(&self, page: &mut Page) {
        let measured = &self.measurements;
        page.family(&definitions::REQUESTS);
        for (kind, kind_name) in RequestKind::ALL {
            for (ending, ending_name) in Ending::ALL {
                let labels = [("kind", kind_name), ("outcome", ending_name)];
                page.sample(&labels, measured.requests[kind as usize][ending as usize]);
            }
        }
        page.family(&definitions::REQUEST_DURATION);
        for (kind, kind_name) in RequestKind::ALL {
            for (result, result_name) in EndResult::ALL {
                let labels = [("kind", kind_name), ("result", result_name)];
                page.buckets(&labels, &measured.request_us[kind as usize][result as usize]);
            }
        }
        page.family(&definitions::REQUESTS_WAITING);
        page.sample(&[("kind", "change")], self.pending.changes() as u64);
        page.sample(&[("kind", "read")], self.pending.reads() as u64);
        page.value(&definitions::READS_WAITING_MAX, limits::READS_WAITING_MAX as u64);
        page.value(&definitions::FORWARDED_CHANGES, self.changes_passed_on() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_in_the_order_of_their_kinds() {
        assert!(RequestKind::ALL.iter().enumerate().all(|(n, (kind, _))| *kind as usize == n));
        assert!(Ending::ALL.iter().enumerate().all(|(n, (ending, _))| *ending as usize == n));
        assert!(EndResult::ALL.iter().enumerate().all(|(n, (result, _))| *result as usize == n));
    }

    #[test]
    fn a_request_counts_by_kind_and_outcome_and_its_time_by_result() {
        let mut measured = Measurements::new();
        measured.begin_turn(5);
        let asked = Asked { kind: RequestKind::Cas, at_us: 2_000 };
        for refusal in [Refusal::NotFound, Refusal::Busy, Refusal::Unknown] {
            measured.answered(asked, &Outcome::Refused(refusal));
        }
        let row = &measured.requests[RequestKind::Cas as usize];
        let counted: Vec<&str> = Ending::ALL
            .iter()
            .filter(|(ending, _)| row[*ending as usize] == 1)
            .map(|(_, name)| *name)
            .collect();
        assert_eq!(counted, ["not_found", "busy", "unknown"]);
        let times = &measured.request_us[RequestKind::Cas as usize];
        let sums = [EndResult::Done, EndResult::Refused, EndResult::Unknown].map(|r| times[r as usize].sum());
        assert_eq!(sums, [0, 6_000, 3_000]);
    }

    #[test]
    fn a_checkpoint_takes_the_time_from_its_beginning_to_its_name() {
        let mut measured = Measurements::new();
        let ticks = std::rc::Rc::new(std::cell::Cell::new(5_000));
        let clock = std::rc::Rc::clone(&ticks);
        measured.stopwatch = Some(Box::new(move || clock.get()));
        measured.checkpoint_begins();
        ticks.set(12_000);
        measured.checkpoint_stands();
        assert_eq!((measured.checkpoint_us.count(), measured.checkpoint_us.sum()), (1, 7_000));
    }

    #[test]
    fn without_a_stopwatch_a_turn_takes_no_time_and_with_one_what_it_says() {
        let mut measured = Measurements::new();
        measured.begin_turn(7);
        assert_eq!(measured.time(|| "done"), ("done", 0));
        assert_eq!(measured.now_us, 7_000);
        let ticks = std::cell::Cell::new(0);
        measured.stopwatch = Some(Box::new(move || {
            ticks.set(ticks.get() + 10);
            ticks.get()
        }));
        measured.begin_turn(8);
        assert_eq!(measured.time(|| ()), ((), 10));
        assert_eq!(measured.now_us, 30);
    }
}
