//! What the core knows of the log: the term of each entry, as runs of equal terms, and the few entries that
//! the core itself acts on. Payloads stay on the disk.

use fsd_wire::{
    ClusterId, Entry, EntryId, EntryKind, Genesis, Incarnation, LogIndex, NodeId, Register, Term,
};

use super::LogSummary;
use crate::marks::mark;

/// Terms and registrations of the log, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RaftLog {
    /// The first index of each run of equal terms; both rise.
    runs: Vec<(LogIndex, Term)>,
    last_index: LogIndex,
    /// Everything up to here is flushed.
    durable_index: LogIndex,
    registrations: Vec<(LogIndex, NodeId, Incarnation)>,
    genesis: Option<ClusterId>,
}

impl RaftLog {
    /// What recovery found, all of which is durable.
    pub(super) fn new(summary: LogSummary) -> Self {
        let log = Self {
            runs: summary.term_starts,
            last_index: summary.last_index,
            durable_index: summary.last_index,
            registrations: summary.registrations,
            genesis: summary.genesis,
        };
        assert!(log.runs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "runs of terms: {:?}", log.runs);
        assert_eq!(log.runs.is_empty(), log.last_index == LogIndex(0), "an empty log has no terms");
        assert!(log.runs.last().is_none_or(|run| run.0 <= log.last_index), "a term begins behind the log");
        log
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The index of the first entry; that of the one to come if there is none.
    pub(super) fn first_index(&self) -> LogIndex {
        self.runs.first().map_or(self.last_index.next(), |run| run.0)
    }

    pub(super) fn last_index(&self) -> LogIndex {
        self.last_index
    }

    pub(super) fn durable_index(&self) -> LogIndex {
        self.durable_index
    }

    /// The last entry, as section 5.4.1 compares logs.
    pub(super) fn last_id(&self) -> EntryId {
        EntryId { term: self.runs.last().map_or(Term(0), |run| run.1), index: self.last_index }
    }

    pub(super) fn registrations(&self) -> &[(LogIndex, NodeId, Incarnation)] {
        &self.registrations
    }

    pub(super) fn genesis(&self) -> Option<ClusterId> {
        self.genesis
    }

    pub(super) fn runs(&self) -> &[(LogIndex, Term)] {
        &self.runs
    }

    /// The term of the entry at `index`: 0 before the first entry of all, nothing where this log has none.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex(0) {
            return Some(Term(0));
        }
        if index > self.last_index {
            return None;
        }
        self.run_at(index).map(|run| run.1)
    }

    /// The first index of the term that the entry at `index` has.
    pub(super) fn first_index_of_term_at(&self, index: LogIndex) -> Option<LogIndex> {
        self.run_at(index).map(|run| run.0)
    }

    /// The last index of `term`, if this log has it.
    pub(super) fn last_index_of_term(&self, term: Term) -> Option<LogIndex> {
        let at = self.runs.binary_search_by_key(&term, |run| run.1).ok()?;
        Some(self.runs.get(at + 1).map_or(self.last_index, |next| next.0.previous()))
    }

    fn run_at(&self, index: LogIndex) -> Option<&(LogIndex, Term)> {
        let behind = self.runs.partition_point(|run| run.0 <= index);
        self.runs[..behind].last()
    }

    /// Adds an entry that was checked with [`entry_is_sound`]. Returns whether it registers anybody.
    pub(super) fn append(&mut self, entry: &Entry) -> bool {
        assert_eq!(entry.index, self.last_index.next(), "a gap in the log");
        let last_term = self.last_id().term;
        assert!(entry.term >= last_term, "term {} behind term {last_term}", entry.term);
        if entry.term > last_term {
            self.runs.push((entry.index, entry.term));
        }
        self.last_index = entry.index;
        let registered = self.registrations.len();
        match entry.kind {
            EntryKind::Genesis => {
                let genesis = Genesis::decode(&entry.payload).expect("checked before it is appended");
                self.genesis = Some(genesis.cluster_id);
                let members = genesis.incarnations.into_iter();
                self.registrations.extend(members.map(|(node, inc)| (entry.index, node, inc)));
            }
            EntryKind::Register => {
                let register = Register::decode(&entry.payload).expect("checked before it is appended");
                self.registrations.push((entry.index, register.node, register.incarnation));
            }
            EntryKind::Noop | EntryKind::Tick | EntryKind::Command | EntryKind::Session => {}
        }
        self.registrations.len() > registered
    }

    /// Removes the entry at `from` and all behind it.
    pub(super) fn truncate_from(&mut self, from: LogIndex) {
        assert!(from >= self.first_index() && from <= self.last_index, "truncation at {from}");
        mark!("log-truncates-registration", self.registrations.last().is_some_and(|item| item.0 >= from));
        mark!("log-truncates-what-was-flushed", self.durable_index >= from);
        mark!("log-truncates-whole-terms", self.runs.last().is_some_and(|run| run.0 > from));
        self.runs.truncate(self.runs.partition_point(|run| run.0 < from));
        self.registrations.truncate(self.registrations.partition_point(|item| item.0 < from));
        self.last_index = from.previous();
        self.durable_index = self.durable_index.min(self.last_index);
        if from == LogIndex(1) {
            mark!("log-truncates-genesis");
            self.genesis = None;
        }
    }

    /// Everything up to `index` is flushed.
    pub(super) fn set_durable(&mut self, index: LogIndex) {
        self.durable_index = self.durable_index.max(index.min(self.last_index));
    }
}

/// Whether an entry is one that a leader can have made: the first one is the genesis, no other is, and what
/// the core reads of it can be read.
pub(super) fn entry_is_sound(entry: &Entry) -> bool {
    match entry.kind {
        EntryKind::Genesis => entry.index == LogIndex(1) && Genesis::decode(&entry.payload).is_ok(),
        EntryKind::Register => entry.index > LogIndex(1) && Register::decode(&entry.payload).is_ok(),
        EntryKind::Noop | EntryKind::Tick | EntryKind::Command | EntryKind::Session => {
            entry.index > LogIndex(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fsd_wire::{ClusterTimeMs, Payload};

    use super::*;

    fn log(runs: &[(u64, u64)], last_index: u64) -> RaftLog {
        let term_starts = runs.iter().map(|(index, term)| (LogIndex(*index), Term(*term))).collect();
        RaftLog::new(LogSummary { term_starts, last_index: LogIndex(last_index), ..LogSummary::default() })
    }

    fn entry(index: u64, term: u64, kind: EntryKind, payload: Payload) -> Entry {
        Entry { index: LogIndex(index), term: Term(term), stamp: ClusterTimeMs(0), kind, payload }
    }

    fn noop(index: u64, term: u64) -> Entry {
        entry(index, term, EntryKind::Noop, Payload::default())
    }

    fn genesis(id: u128) -> Entry {
        let genesis = Genesis { cluster_id: ClusterId(id), incarnations: vec![(NodeId(1), Incarnation(5))] };
        entry(1, 1, EntryKind::Genesis, genesis.encode())
    }

    #[test]
    fn terms_are_found_at_every_index() {
        let log = log(&[(1, 1), (4, 2), (5, 7)], 9);
        let terms: Vec<_> = (0..=10).map(|index| log.term_at(LogIndex(index)).map(|term| term.0)).collect();
        let expected = [0, 1, 1, 1, 2, 7, 7, 7, 7, 7].map(Some).into_iter().chain([None]).collect::<Vec<_>>();
        assert_eq!(terms, expected);
        assert_eq!(log.first_index_of_term_at(LogIndex(8)), Some(LogIndex(5)));
        assert_eq!(log.first_index_of_term_at(LogIndex(4)), Some(LogIndex(4)));
        assert_eq!(log.last_index_of_term(Term(1)), Some(LogIndex(3)));
        assert_eq!(log.last_index_of_term(Term(2)), Some(LogIndex(4)));
        assert_eq!(log.last_index_of_term(Term(7)), Some(LogIndex(9)));
        assert_eq!(log.last_index_of_term(Term(3)), None);
    }

    #[test]
    fn a_log_that_begins_late_says_nothing_of_what_was_before() {
        for first in [1u64 << 32, (1 << 63) - 1] {
            let log = log(&[(first, 3)], first + 2);
            assert_eq!(log.term_at(LogIndex(first - 1)), None);
            assert_eq!(log.term_at(LogIndex(first)), Some(Term(3)));
            assert_eq!(log.term_at(LogIndex(first + 3)), None);
            assert_eq!(log.first_index(), LogIndex(first));
        }
    }

    #[test]
    fn appends_and_truncations_follow_a_plain_list() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut log, mut list) = (log(&[], 0), vec![0u64]);
            for _ in 0..60 {
                let last = list.len() as u64 - 1;
                if random.u32(..4) == 0 && last > 0 {
                    let from = random.u64(1..=last);
                    log.truncate_from(LogIndex(from));
                    list.truncate(from as usize);
                } else {
                    let term = list[last as usize].max(1) + random.u64(..3) / 2;
                    log.append(&noop(last + 1, term));
                    list.push(term);
                }
                for (index, term) in list.iter().enumerate() {
                    assert_eq!(log.term_at(LogIndex(index as u64)), Some(Term(*term)));
                }
                assert_eq!(log.term_at(LogIndex(list.len() as u64)), None);
                assert_eq!(log.last_id().term, Term(*list.last().unwrap()));
            }
        }
    }

    #[test]
    fn registrations_go_with_their_entries() {
        let mut log = log(&[], 0);
        assert!(log.append(&genesis(77)));
        assert!(!log.append(&noop(2, 1)));
        let register = Register { node: NodeId(2), incarnation: Incarnation(8) };
        assert!(log.append(&entry(3, 1, EntryKind::Register, register.encode())));
        assert_eq!(log.registrations().len(), 2);
        log.truncate_from(LogIndex(3));
        assert_eq!(log.registrations(), &[(LogIndex(1), NodeId(1), Incarnation(5))]);
        assert_eq!(log.genesis(), Some(ClusterId(77)));
        log.truncate_from(LogIndex(1));
        assert!(log.is_empty() && log.registrations().is_empty() && log.genesis().is_none());
        log.append(&genesis(78));
        assert_eq!(log.genesis(), Some(ClusterId(78)));
    }

    #[test]
    fn what_was_flushed_and_then_truncated_is_not_durable() {
        let mut log = log(&[(1, 1)], 5);
        assert_eq!(log.durable_index(), LogIndex(5), "recovery found it on the disk");
        log.append(&noop(6, 2));
        assert_eq!(log.durable_index(), LogIndex(5));
        log.set_durable(LogIndex(9));
        assert_eq!(log.durable_index(), LogIndex(6), "no more than there is");
        log.truncate_from(LogIndex(4));
        log.append(&noop(4, 3));
        assert_eq!(log.durable_index(), LogIndex(3));
    }

    #[test]
    fn entries_that_no_leader_makes_are_recognised() {
        assert!(entry_is_sound(&genesis(1)) && entry_is_sound(&noop(2, 1)));
        assert!(!entry_is_sound(&noop(1, 1)), "the first entry is the genesis");
        let broken = Payload::from(Bytes::from_static(b"?"));
        assert!(!entry_is_sound(&entry(1, 1, EntryKind::Genesis, broken.clone())));
        assert!(!entry_is_sound(&entry(2, 1, EntryKind::Genesis, genesis(1).payload)));
        assert!(!entry_is_sound(&entry(2, 1, EntryKind::Register, broken)));
    }

    #[test]
    #[should_panic(expected = "a gap in the log")]
    fn a_gap_is_a_broken_program() {
        log(&[(1, 1)], 5).append(&noop(7, 1));
    }
}
