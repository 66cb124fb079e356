//! What the core knows of the log: the term of each entry, as runs of equal terms, and the few entries that
//! the core itself acts on. Payloads stay on the disk.

use std::collections::BTreeMap;

use fsd_wire::{
    ClusterId, ClusterTimeMs, Entry, EntryId, EntryKind, Genesis, Incarnation, LogIndex, NodeId, Register,
    Term,
};

use super::LogSummary;
use crate::marks::mark;
use crate::mutants::mutant;

/// Terms and registrations of the log, in memory. What lies before its **base** was committed, applied and forgotten:
/// of it are left the base's own term, the cluster's id, and the registrations that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RaftLog {
    /// The entry before the first one; zeros if nothing was forgotten.
    base: EntryId,
    /// The first index of each run of equal terms behind the base; both rise.
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
        let LogSummary { base, term_starts, last_index, mut registrations, genesis, .. } = summary;
        forget_registrations(&mut registrations, base.index);
        let durable_index = last_index;
        let log = Self { base, runs: term_starts, last_index, durable_index, registrations, genesis };
        assert_eq!(base.index == LogIndex(0), base.term == Term(0), "the base is an entry, or before all");
        assert!(log.runs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "runs of terms: {:?}", log.runs);
        assert_eq!(log.runs.is_empty(), last_index == base.index, "a log has terms behind its base, or ends");
        assert!(
            log.runs.first().is_none_or(|run| run.0 == base.index.next() && run.1 >= base.term),
            "the log behind {base:?} begins with {:?}",
            log.runs.first()
        );
        assert!(log.runs.last().is_none_or(|run| run.0 <= last_index), "a term begins behind the log");
        log
    }

    /// Whether there never was an entry. A log that was compacted to its end is not empty.
    pub(super) fn is_empty(&self) -> bool {
        self.last_index == LogIndex(0)
    }

    pub(super) fn base(&self) -> EntryId {
        self.base
    }

    /// The index of the first entry that is there, or of the one to come if there is none.
    pub(super) fn first_index(&self) -> LogIndex {
        self.base.index.next()
    }

    pub(super) fn last_index(&self) -> LogIndex {
        self.last_index
    }

    pub(super) fn durable_index(&self) -> LogIndex {
        self.durable_index
    }

    /// The last entry, as section 5.4.1 compares logs.
    pub(super) fn last_id(&self) -> EntryId {
        EntryId { term: self.runs.last().map_or(self.base.term, |run| run.1), index: self.last_index }
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

    /// The term of the entry at `index`, the base among them: 0 before the first entry of all, nothing where this log
    /// has none, or none any more.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index > self.last_index {
            return None;
        }
        self.run_at(index).map(|run| run.1)
    }

    /// The first index of the term that the entry at `index` has, as far back as this log still knows it.
    pub(super) fn first_index_of_term_at(&self, index: LogIndex) -> Option<LogIndex> {
        if index == self.base.index {
            return Some(index);
        }
        self.run_at(index).map(|run| run.0)
    }

    /// The last index of `term`, if this log is known to have it.
    pub(super) fn last_index_of_term(&self, term: Term) -> Option<LogIndex> {
        match self.runs.binary_search_by_key(&term, |run| run.1) {
            Ok(at) => Some(self.runs.get(at + 1).map_or(self.last_index, |next| next.0.previous())),
            Err(_) => (term == self.base.term).then_some(self.base.index),
        }
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
        if entry.term > last_term || self.runs.is_empty() {
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

    /// Forgets the entries up to `to`, which are applied and flushed.
    pub(super) fn compact(&mut self, to: LogIndex) {
        assert!(to >= self.base.index && to <= self.durable_index, "compaction to {to}");
        let term = self.term_at(to).expect("an entry that is there");
        let ends_behind = self.runs.partition_point(|run| run.0 <= to);
        self.runs.drain(..ends_behind);
        if to < self.last_index && self.runs.first().is_none_or(|run| run.0 > to.next()) {
            self.runs.insert(0, (to.next(), term));
        }
        self.base = EntryId { term, index: to };
        forget_registrations(&mut self.registrations, to);
    }

    /// What is left to be known of a log that ends with the entry at `index`, and of which only that one is there.
    pub(super) fn summary_at(&self, index: LogIndex, last_stamp: ClusterTimeMs) -> Option<LogSummary> {
        let base = EntryId { term: self.term_at(index)?, index };
        let mut registrations = self.registrations.clone();
        registrations.truncate(registrations.partition_point(|item| item.0 <= index));
        forget_registrations(&mut registrations, index);
        let genesis = self.genesis.filter(|_| index > LogIndex(0));
        let (committed, last_index, term_starts) = (index, index, Vec::new());
        Some(LogSummary { base, committed, term_starts, last_index, last_stamp, registrations, genesis })
    }

    /// Everything up to `index` is flushed.
    pub(super) fn set_durable(&mut self, index: LogIndex) {
        self.durable_index = self.durable_index.max(index.min(self.last_index));
    }
}

/// Of the registrations up to `base`, keeps what the standing of each node follows from: its last two. The last alone
/// would not tell one that is confirmed from one that is only proposed, nor the first ever from a replacement.
fn forget_registrations(registrations: &mut Vec<(LogIndex, NodeId, Incarnation)>, base: LogIndex) {
    let kept = if mutant!("confirmation-compacted-away") { 1 } else { 2 };
    let behind = registrations.partition_point(|item| item.0 <= base);
    let mut later: BTreeMap<NodeId, usize> = BTreeMap::new();
    for at in (0..behind).rev() {
        let count = later.entry(registrations[at].1).or_default();
        *count += 1;
        if *count > kept {
            registrations.remove(at);
        }
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
    use fsd_wire::Payload;

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
    fn a_log_with_a_base_says_nothing_of_what_was_before() {
        for base in [1u64 << 32, (1 << 63) - 2] {
            let base = EntryId { term: Term(2), index: LogIndex(base) };
            let first = base.index.next();
            let term_starts = vec![(first, Term(3))];
            let last_index = LogIndex(first.0 + 2);
            let log = RaftLog::new(LogSummary { base, term_starts, last_index, ..LogSummary::default() });
            let terms = [0, base.index.0 - 1, base.index.0, first.0, first.0 + 2, first.0 + 3]
                .map(|index| log.term_at(LogIndex(index)).map(|term| term.0));
            assert_eq!(terms, [None, None, Some(2), Some(3), Some(3), None]);
            assert_eq!(log.first_index(), first);
            assert_eq!(log.first_index_of_term_at(base.index), Some(base.index));
            assert_eq!(log.first_index_of_term_at(base.index.previous()), None);
            assert_eq!(log.last_index_of_term(Term(2)), Some(base.index));
            assert_eq!(log.last_index_of_term(Term(1)), None);
        }
    }

    #[test]
    fn a_log_that_ends_with_its_base_is_not_empty() {
        let mut log = log(&[(1, 1), (4, 2)], 9);
        log.compact(LogIndex(9));
        assert!(!log.is_empty() && log.runs().is_empty());
        assert_eq!(log.last_id(), EntryId { term: Term(2), index: LogIndex(9) });
        assert_eq!(log.durable_index(), LogIndex(9));
        // An entry of the same term begins a run all the same: the one of before is forgotten.
        log.append(&noop(10, 2));
        assert_eq!(log.runs(), &[(LogIndex(10), Term(2))]);
        log.truncate_from(LogIndex(10));
        assert_eq!(log.last_id(), EntryId { term: Term(2), index: LogIndex(9) });
    }

    #[test]
    #[should_panic(expected = "truncation at 5")]
    fn the_base_is_never_truncated() {
        let mut log = log(&[(1, 1)], 9);
        log.compact(LogIndex(5));
        log.truncate_from(LogIndex(5));
    }

    #[test]
    fn appends_truncations_and_compactions_follow_a_plain_list() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut log, mut list, mut base) = (log(&[], 0), vec![0u64], 0);
            for _ in 0..60 {
                let last = list.len() as u64 - 1;
                if random.u32(..4) == 0 && last > base {
                    let from = random.u64(base + 1..=last);
                    log.truncate_from(LogIndex(from));
                    list.truncate(from as usize);
                } else if random.u32(..8) == 0 {
                    base = random.u64(base..=last);
                    log.set_durable(LogIndex(last));
                    log.compact(LogIndex(base));
                } else {
                    let term = list[last as usize].max(1) + random.u64(..3) / 2;
                    log.append(&noop(last + 1, term));
                    list.push(term);
                }
                for (index, term) in (0..).zip(&list) {
                    let expected = (index >= base).then_some(Term(*term));
                    assert_eq!(log.term_at(LogIndex(index)), expected);
                }
                let runs = (base + 1..list.len() as u64)
                    .filter(|index| *index == base + 1 || list[*index as usize] > list[*index as usize - 1]);
                let runs: Vec<_> = runs.map(|index| (LogIndex(index), Term(list[index as usize]))).collect();
                assert_eq!(log.runs(), runs);
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
