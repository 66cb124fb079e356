//! What must hold of a whole cluster after every step, and a count of what happened in it.

use std::collections::BTreeSet;
use std::fmt;

use fsd_wire::peer::{AppendResult, PeerMessage};
use fsd_wire::snapshot::SnapshotState;
use fsd_wire::{EntryKind, LogIndex, NodeId, Register};

use super::{Cluster, MemoryLog, Node};
use crate::raft::electorate::Electorate;
use crate::raft::{LogChange, LogSummary, Raft, Role};

/// How much a schedule has tried.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Counts {
    pub(in super::super) leaders: u64,
    pub(in super::super) commits: u64,
    /// Entries of another leader that were taken back, and how often that happened.
    pub(in super::super) truncated: u64,
    pub(in super::super) truncations: u64,
    pub(in super::super) registrations: u64,
    pub(in super::super) reads: u64,
    pub(in super::super) crashes: u64,
    pub(in super::super) wipes: u64,
    pub(in super::super) copies: u64,
    pub(in super::super) lost: u64,
    pub(in super::super) repeated: u64,
    pub(in super::super) out_of_order: u64,
    pub(in super::super) transfers: u64,
    pub(in super::super) compactions: u64,
    /// Snapshots that were sent.
    pub(in super::super) snapshots: u64,
    pub(in super::super) installs: u64,
}

impl Counts {
    /// Whether anything went wrong from outside.
    pub(in super::super) fn faults(&self) -> u64 {
        self.crashes + self.wipes + self.copies + self.lost + self.repeated + self.out_of_order
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.leaders += other.leaders;
        self.commits += other.commits;
        self.truncated += other.truncated;
        self.truncations += other.truncations;
        self.registrations += other.registrations;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.wipes += other.wipes;
        self.copies += other.copies;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
        self.transfers += other.transfers;
        self.compactions += other.compactions;
        self.snapshots += other.snapshots;
        self.installs += other.installs;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} leaders, {} commits, {} truncations of {} entries, {} registrations, {} reads, {} transfers, \
             {} compactions, {} snapshots sent, {} installed; {} crashes, {} wipes, {} copies, {} messages lost, {} repeated, {} out of order",
            self.leaders,
            self.commits,
            self.truncations,
            self.truncated,
            self.registrations,
            self.reads,
            self.transfers,
            self.compactions,
            self.snapshots,
            self.installs,
            self.crashes,
            self.wipes,
            self.copies,
            self.lost,
            self.repeated,
            self.out_of_order,
        )
    }
}

impl Cluster {
    /// State-Machine Safety: an index is committed once, with one entry. And it is on a majority of disks; a
    /// disk that was wiped since counts, because it may have been asked before that.
    pub(super) fn note_commit(&mut self, id: NodeId, index: LogIndex) {
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref().unwrap();
        let term = raft.term();
        assert!(
            !raft.is_leader() || raft.term_at(index) == Some(term),
            "leader {id} of term {term} commits an entry of an earlier term at {index} by itself"
        );
        let mut known = self.committed.keys().next_back().map_or(node.log.base(), |index| index.0);
        for at in (node.log.base().max(node.noted.0) + 1)..=index.0 {
            let entry = node.log.get(LogIndex(at)).expect("committed entries are there");
            if let Some((other, _)) = self.committed.get(&LogIndex(at)) {
                assert_eq!(other, entry, "node {id} commits another entry at {at}");
                continue;
            }
            let holds = |disk: &MemoryLog| disk.get(LogIndex(at)) == Some(entry);
            let current = self.nodes.iter().filter(|(_, node)| holds(&node.disk)).map(|(id, _)| *id);
            let buried = self.buried.iter().filter(|(_, disk)| holds(disk)).map(|(id, _)| *id);
            let holders: BTreeSet<NodeId> = current.chain(buried).collect();
            assert!(
                holders.len() > self.nodes.len() / 2,
                "node {id} commits {at}, which only the disks of {holders:?} hold"
            );
            assert_eq!(at, known + 1, "commits in order");
            known = at;
            let before = at.checked_sub(1).and_then(|before| self.committed.get(&LogIndex(before)));
            assert!(
                before.is_none_or(|(before, _)| before.stamp <= entry.stamp),
                "cluster time goes back at {at}"
            );
            self.counts.commits += 1;
            self.counts.registrations += u64::from(entry.kind == EntryKind::Register);
            self.committed.insert(LogIndex(at), (entry.clone(), term));
        }
        self.nodes.get_mut(&id).unwrap().noted = index;
    }

    /// Election Safety and Leader Completeness, as soon as a node leads.
    pub(super) fn check_leadership(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &node.raft else { return };
        let term = raft.is_leader().then(|| raft.term());
        let elected = term.filter(|_| node.was_leader != term);
        node.was_leader = term;
        let Some(term) = elected else { return };
        self.counts.leaders += 1;
        let leader = (id, raft.identity().incarnation);
        let first = *self.leaders.entry(term).or_insert(leader);
        assert_eq!(first, leader, "two leaders in term {term}");
        for (index, (entry, committed_in)) in self.committed.iter().rev() {
            if *committed_in >= term || *index < raft.base().index {
                continue;
            }
            let own = raft.term_at(*index);
            assert_eq!(own, Some(entry.term), "leader {id} of term {term} lacks {index}");
        }
    }

    /// What a node and its disks say is the same when its turn is over.
    pub(super) fn check_cluster(&mut self, id: NodeId) {
        self.check_leadership(id);
        let node = &self.nodes[&id];
        let Some(raft) = &node.raft else { return };
        assert_eq!(&node.state, raft.hard_state(), "node {id} has not stored its state");
        assert!(node.unflushed.is_empty() && node.log.last_index() == raft.last_index());
        self.check_matches(raft);
        if self.steps.is_multiple_of(16) {
            let summary = node.log.summary();
            assert_eq!(raft.log.registrations(), summary.registrations, "registrations of node {id}");
            assert_eq!(raft.log.runs(), summary.term_starts, "terms of node {id}");
            assert_eq!(raft.log.genesis(), summary.genesis, "genesis of node {id}");
            self.check_base(raft);
        }
        if self.steps.is_multiple_of(64) && !self.two_clusters {
            self.check_log_matching();
        }
    }

    /// What is forgotten was committed, and nobody's standing was forgotten with it.
    fn check_base(&self, raft: &Raft) {
        let (id, base) = (raft.config.node, raft.base());
        let Some((entry, _)) = self.committed.get(&base.index) else { return };
        assert_eq!(entry.id(), base, "base of node {id}");
        if self.committed.contains_key(&LogIndex(1)) && !self.two_clusters {
            let forgotten = MemoryLog {
                entries: self.committed.range(..=base.index).map(|(_, (entry, _))| entry.clone()).collect(),
                ..MemoryLog::default()
            };
            let mut registrations = forgotten.summary().registrations;
            registrations.extend(raft.log.registrations().iter().filter(|item| item.0 > base.index));
            let recounted = Electorate::new(&raft.config.members, &registrations);
            assert_eq!(raft.electorate, recounted, "standings at node {id}, by the whole log");
        }
    }

    /// A snapshot is of what was committed, and takes nothing back that was.
    pub(super) fn check_install(&self, id: NodeId, summary: &LogSummary) {
        let (base, log) = (summary.base, &self.nodes[&id].log);
        if let Some((entry, _)) = self.committed.get(&base.index) {
            assert_eq!(entry.id(), base, "a snapshot of something else");
        }
        let term = self.nodes[&id].raft.as_ref().map_or(fsd_wire::Term(0), Raft::term);
        for (index, (entry, committed_in)) in self.committed.range(base.index.next()..) {
            let takes_back = term >= *committed_in && log.get(*index) == Some(entry);
            assert!(!takes_back, "node {id} gives {index} up for a snapshot as of {base:?}");
        }
    }

    /// What a leader believes to be on a follower's disk is there, as long as that is in the leader's term.
    fn check_matches(&self, raft: &Raft) {
        let Role::Leader(leader) = &raft.role else { return };
        let own = &self.nodes[&raft.config.node];
        for (id, progress) in &leader.progress {
            let node = &self.nodes[id];
            let index = progress.match_index;
            let same_disk = progress.incarnation == Some(node.state.incarnation);
            if !same_disk || node.state.term != raft.term() || index.0 <= own.log.base() {
                continue;
            }
            let believed = own.log.get(index);
            // A copy that was restored has the incarnation of the disk that it replaces, until a peer objects.
            let holds = |disk: &MemoryLog| index.0 <= disk.base() || disk.get(index) == believed;
            let held_before = self.buried.iter().any(|(of, disk)| of == id && holds(disk));
            assert!(held_before || holds(&node.disk), "node {id} was believed to hold {index}");
        }
    }

    /// Promises that a message makes are on the disk before it leaves.
    pub(super) fn check_promise(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        let node = &self.nodes[&from];
        let (term, candidate) = match message {
            PeerMessage::AppendEntriesReply(reply) => {
                if let AppendResult::Matched { match_index } = reply.result {
                    let held = node.disk.last_index();
                    assert!(match_index <= held, "node {from} acknowledges {match_index}, but holds {held}");
                }
                return;
            }
            PeerMessage::InstallSnapshotReply(reply) => {
                if matches!(reply.state, SnapshotState::Installed | SnapshotState::HasIt) {
                    let (index, held) = (reply.entry.index, node.disk.last_index());
                    assert!(index <= held, "node {from} says that it has {index}, but holds {held}");
                }
                return;
            }
            PeerMessage::RequestVote(request) if !request.pre_vote => (request.term, from),
            PeerMessage::RequestVoteReply(reply) if reply.vote_granted && !reply.pre_vote => {
                (reply.election_term, to)
            }
            _ => return,
        };
        let voter = (from, node.state.incarnation, term);
        let first = *self.votes.entry(voter).or_insert(candidate);
        assert_eq!(first, candidate, "node {from} votes twice in term {term}");
        let stored = (node.state.term, node.state.voted_for);
        assert!(
            stored.0 > term || stored == (term, Some(candidate)),
            "node {from} votes for {candidate} in term {term}, but has stored {stored:?}"
        );
    }

    /// What is committed is never taken back by a node that has it, once it has come to the term in which it was
    /// committed. One that still follows an earlier leader may: its copy was not counted.
    pub(super) fn check_change(&mut self, id: NodeId, change: &LogChange) {
        let LogChange::TruncateFrom(from) = change else { return };
        let log = &self.nodes[&id].log;
        let term = self.nodes[&id].raft.as_ref().map_or(fsd_wire::Term(0), crate::raft::Raft::term);
        self.counts.truncations += 1;
        self.counts.truncated += log.last_index().0 + 1 - from.0;
        for (index, (entry, committed_in)) in self.committed.range(*from..) {
            let takes_back = term >= *committed_in && log.get(*index) == Some(entry);
            assert!(!takes_back, "node {id} takes back {index}, which was committed in term {committed_in}");
        }
    }

    /// Log Matching: logs with one equal entry are equal up to it.
    pub(in super::super) fn check_log_matching(&self) {
        let logs: Vec<_> = self.nodes.values().map(|node| &node.log).collect();
        for (at, a) in logs.iter().enumerate() {
            for b in &logs[at + 1..] {
                // What is below a base is committed, and so is the base itself.
                let mut equal = false;
                for left in a.entries.iter().rev() {
                    let Some(right) = b.get(left.index) else { continue };
                    equal |= left.id() == right.id();
                    assert!(!equal || left == right, "logs differ at {}", left.index);
                }
            }
        }
    }

    /// Everything that was ever acknowledged is in every log, and the logs are the same.
    pub(super) fn check_nothing_is_lost(&self) {
        let mut first: Option<&Node> = None;
        for (id, node) in &self.nodes {
            for (index, (entry, _)) in &self.committed {
                if index.0 > node.log.base() {
                    assert_eq!(node.log.get(*index), Some(entry), "node {id} has lost {index}");
                }
            }
            let like = *first.get_or_insert(node);
            assert_eq!(node.log.last_index(), like.log.last_index(), "node {id}'s log has another length");
        }
    }

    /// Whether what a node holds can be relied upon, as far as is committed: its incarnation is confirmed.
    pub(in super::super) fn is_sound(&self, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        let mut registered = Vec::new();
        for (entry, _) in self.committed.values() {
            match entry.kind {
                EntryKind::Genesis => {
                    let genesis = fsd_wire::Genesis::decode(&entry.payload).unwrap();
                    // Once there is as good as twice elsewhere.
                    let own = genesis.incarnations.into_iter().filter(|item| item.0 == id);
                    registered.extend(own.flat_map(|(_, incarnation)| [incarnation, incarnation]));
                }
                EntryKind::Register => {
                    let register = Register::decode(&entry.payload).unwrap();
                    registered.extend((register.node == id).then_some(register.incarnation));
                }
                EntryKind::Noop | EntryKind::Tick | EntryKind::Command | EntryKind::Session => {}
            }
        }
        let own = node.state.incarnation;
        let confirmed = registered.len() >= 2 && registered.iter().rev().take(2).all(|item| *item == own);
        confirmed && node.state.cluster_id.is_some() && !self.restored.contains(&own)
    }

    /// The last tick of this leader's own term: a read must see what fell due by it.
    pub(super) fn last_tick(&self, id: NodeId) -> LogIndex {
        let node = &self.nodes[&id];
        let Some(raft) = node.raft.as_ref().filter(|raft| raft.is_leader()) else { return LogIndex(0) };
        let of_term = node.log.entries.iter().rev().take_while(|entry| entry.term == raft.term());
        of_term
            .filter(|entry| entry.kind == EntryKind::Tick)
            .map(|entry| entry.index)
            .next()
            .unwrap_or_default()
    }
}
