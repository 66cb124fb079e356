//! A node's log, in memory or on a disk that is not there.

use std::convert::Infallible;

use fsd_wire::{Entry, EntryKind, Genesis, LogIndex, Register};

use crate::raft::{LogChange, LogSummary, LogView};

/// A log of which the entries up to `base` are not there.
#[derive(Clone, Debug)]
pub(super) struct MemoryLog {
    pub(super) base: u64,
    pub(super) entries: Vec<Entry>,
    /// The most entries that are read at once: small batches make more messages out of little.
    pub(super) batch: usize,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self { base: 0, entries: Vec::new(), batch: 8 }
    }
}

impl MemoryLog {
    pub(super) fn change(&mut self, change: &LogChange) {
        match change {
            LogChange::TruncateFrom(index) => {
                assert!(index.0 > self.base && index.0 <= self.last_index().0, "truncation from {index}");
                self.entries.truncate((index.0 - self.base - 1) as usize);
            }
            LogChange::Append(entry) => {
                assert_eq!(entry.index.0, self.last_index().0 + 1, "append without a gap");
                self.entries.push(entry.clone());
            }
        }
    }

    pub(super) fn last_index(&self) -> LogIndex {
        LogIndex(self.base + self.entries.len() as u64)
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        index.0.checked_sub(self.base + 1).and_then(|at| self.entries.get(at as usize))
    }

    pub(super) fn summary(&self) -> LogSummary {
        let mut summary = LogSummary { last_index: self.last_index(), ..LogSummary::default() };
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
