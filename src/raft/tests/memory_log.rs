//! A node's log, in memory or on a disk that is not there.

use std::convert::Infallible;

use fsd_wire::{ClusterTimeMs, Entry, EntryKind, Genesis, LogIndex, Register};

use crate::raft::{LogChange, LogSummary, LogView};

/// A log, of which the entries up to a base may not be there.
#[derive(Clone, Debug)]
pub(super) struct MemoryLog {
    /// What a checkpoint tells of the entries that are not there.
    pub(super) start: LogSummary,
    pub(super) entries: Vec<Entry>,
    /// The most entries that are read at once: small batches make more messages out of little.
    pub(super) batch: usize,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::beginning_at(LogSummary::default())
    }
}

impl MemoryLog {
    /// A log that consists of its base.
    pub(super) fn beginning_at(start: LogSummary) -> Self {
        assert!(start.term_starts.is_empty() && start.last_index == start.base.index);
        Self { start, entries: Vec::new(), batch: 8 }
    }

    /// The index of the base.
    pub(super) fn base(&self) -> u64 {
        self.start.base.index.0
    }

    pub(super) fn change(&mut self, change: &LogChange) {
        match change {
            LogChange::TruncateFrom(index) => {
                assert!(index.0 > self.base() && index.0 <= self.last_index().0, "truncation from {index}");
                self.entries.truncate((index.0 - self.base() - 1) as usize);
            }
            LogChange::Append(entry) => {
                assert_eq!(entry.index.0, self.last_index().0 + 1, "append without a gap");
                self.entries.push(entry.clone());
            }
        }
    }

    /// Forgets the entries up to `to`.
    pub(super) fn compact(&mut self, to: LogIndex) {
        let committed = self.start.committed.max(to);
        let whole = self.entries.clone();
        self.entries.truncate((to.0 - self.base()) as usize);
        let mut start = self.summary();
        if let Some(base) = self.entries.last() {
            start.base = base.id();
        }
        start.term_starts.clear();
        self.entries = whole.into_iter().filter(|entry| entry.index > to).collect();
        // Of three registrations of one node, the first no longer matters.
        let all = std::mem::take(&mut start.registrations);
        let later = |at: usize| all[at + 1..].iter().filter(|item| item.1 == all[at].1).count();
        start.registrations = (0..all.len()).filter(|at| later(*at) < 2).map(|at| all[at]).collect();
        self.start = LogSummary { committed, ..start };
    }

    pub(super) fn last_index(&self) -> LogIndex {
        LogIndex(self.base() + self.entries.len() as u64)
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        index.0.checked_sub(self.base() + 1).and_then(|at| self.entries.get(at as usize))
    }

    /// The stamp of the base or of an entry behind it.
    pub(super) fn stamp_at(&self, index: LogIndex) -> ClusterTimeMs {
        self.get(index).map_or(self.start.last_stamp, |entry| entry.stamp)
    }

    pub(super) fn summary(&self) -> LogSummary {
        let mut summary = LogSummary { last_index: self.last_index(), ..self.start.clone() };
        for entry in &self.entries {
            if summary.term_starts.last().is_none_or(|run| run.1 < entry.term) {
                summary.term_starts.push((entry.index, entry.term));
            }
            summary.last_stamp = entry.stamp;
            if entry.kind == EntryKind::Genesis {
                let genesis = Genesis::decode(&entry.payload).unwrap();
                summary.genesis = Some(genesis.cluster_id);
                let members = genesis.incarnations.iter();
                summary.registrations.extend(members.map(|(node, inc)| (entry.index, *node, *inc)));
            }
            if entry.kind == EntryKind::Register {
                let register = Register::decode(&entry.payload).unwrap();
                summary.registrations.push((entry.index, register.node, register.incarnation));
            }
        }
        summary
    }
}

impl LogView for MemoryLog {
    type Error = Infallible;

    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Infallible> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        for index in first.0..=last.0 {
            let entry = self.get(LogIndex(index)).expect("asked for what is there").clone();
            bytes += entry.encoded_bytes();
            if !out.is_empty() && (out.len() >= count_max.min(self.batch) || bytes > bytes_max) {
                break;
            }
            out.push(entry);
        }
        Ok(out)
    }
}
