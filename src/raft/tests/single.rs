//! One node, with the rest of the cluster played by the test. Also used by `tests/raft_paper.rs`.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use fsd_wire::client::NodeRole;
use fsd_wire::peer::{
    AppendEntries, AppendEntriesReply, AppendResult, PeerMessage, RequestVote, RequestVoteReply,
};
use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, SnapshotState};
use fsd_wire::{
    ClusterId, ClusterTimeMs, Entry, EntryId, EntryKind, Genesis, Incarnation, Life, LogIndex, NodeId,
    Payload, Term,
};

use super::raft::{
    Actions, Config, HardState, Input, LogChange, LogSummary, LogView, PeerRead, Raft, ReplicationBounds,
    Timer, invariants,
};

pub(crate) const HEARTBEAT_MS: u64 = 100;
pub(crate) const ELECTION_MS: u64 = 1000;
pub(crate) const ME: NodeId = NodeId(1);

/// The incarnation of a node, unless a test says otherwise.
pub(crate) fn incarnation_of(node: NodeId) -> Incarnation {
    Incarnation(u64::from(node.0) * 1000)
}

pub(crate) fn id(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: LogIndex(index) }
}

/// An entry as the leader of `term` in a cluster of `count` nodes would make it.
pub(crate) fn entry(count: u32, term: u64, index: u64) -> Entry {
    let genesis = Genesis {
        cluster_id: ClusterId(1),
        incarnations: (1..=count).map(|node| (NodeId(node), incarnation_of(NodeId(node)))).collect(),
    };
    let (kind, payload) = match index {
        1 => (EntryKind::Genesis, genesis.encode()),
        _ => (EntryKind::Command, Payload::from(Bytes::from(format!("{term}.{index}")))),
    };
    Entry { index: LogIndex(index), term: Term(term), stamp: ClusterTimeMs(index), kind, payload }
}

/// Entries with these terms, the first at index 1.
pub(crate) fn entries(count: u32, terms: &[u64]) -> Vec<Entry> {
    (1..).zip(terms).map(|(index, term)| entry(count, *term, index)).collect()
}

pub(crate) fn summary(entries: &[Entry]) -> LogSummary {
    let mut summary = LogSummary::default();
    for entry in entries {
        summary.last_index = entry.index;
        summary.last_stamp = entry.stamp;
        if summary.term_starts.last().is_none_or(|run| run.1 < entry.term) {
            summary.term_starts.push((entry.index, entry.term));
        }
        if let (EntryKind::Genesis, Ok(genesis)) = (entry.kind, Genesis::decode(&entry.payload)) {
            summary.genesis = Some(genesis.cluster_id);
            let members = genesis.incarnations.into_iter();
            summary.registrations.extend(members.map(|(node, incarnation)| (entry.index, node, incarnation)));
        }
    }
    summary
}

/// What the node has done since it was asked last.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) sent: Vec<(NodeId, PeerMessage)>,
    pub(crate) promised: Vec<(NodeId, PeerMessage)>,
    pub(crate) stored: Option<HardState>,
    pub(crate) changes: Vec<LogChange>,
    pub(crate) reads_ready: Vec<(u64, LogIndex)>,
    pub(crate) reads_lost: Vec<u64>,
    pub(crate) times_told: Vec<ClusterTimeMs>,
    pub(crate) peer_reads_ready: Vec<PeerRead>,
}

impl Done {
    fn take(&mut self, actions: Actions) {
        self.sent.extend(actions.send);
        self.promised.extend(actions.send_when_durable);
        self.stored = actions.store_state.or(self.stored.take());
        self.changes.extend(actions.store_log);
        self.reads_ready.extend(actions.reads_ready.iter().map(|read| (read.id, read.index)));
        self.times_told.extend(actions.reads_ready.iter().filter_map(|read| read.cluster_time));
        self.peer_reads_ready.extend(actions.peer_reads_ready);
        self.reads_lost.extend(actions.reads_lost);
    }

    pub(crate) fn appends(&self) -> Vec<(NodeId, AppendEntries)> {
        let append = |(to, message): &(NodeId, PeerMessage)| match message {
            PeerMessage::AppendEntries(request) => Some((*to, request.clone())),
            _ => None,
        };
        self.sent.iter().filter_map(append).collect()
    }

    pub(crate) fn appends_to(&self, node: u32) -> Vec<AppendEntries> {
        self.appends().into_iter().filter(|item| item.0 == NodeId(node)).map(|item| item.1).collect()
    }

    pub(crate) fn vote_requests(&self) -> Vec<RequestVote> {
        let request = |(_, message): &(NodeId, PeerMessage)| match message {
            PeerMessage::RequestVote(request) => Some(*request),
            _ => None,
        };
        self.sent.iter().filter_map(request).collect()
    }

    /// The one answer to a vote request.
    pub(crate) fn vote_reply(&self) -> RequestVoteReply {
        let all: Vec<_> = self.sent.iter().chain(&self.promised).collect();
        match all[..] {
            [(_, PeerMessage::RequestVoteReply(reply))] => *reply,
            _ => panic!("not one vote reply: {all:?}"),
        }
    }

    /// The one answer to an AppendEntries.
    pub(crate) fn append_reply(&self) -> AppendEntriesReply {
        match self.promised[..] {
            [(_, PeerMessage::AppendEntriesReply(reply))] => reply,
            _ => panic!("not one append reply: {:?}", self.promised),
        }
    }
}

pub(crate) struct Single {
    pub(crate) raft: Raft,
    pub(crate) log: Vec<Entry>,
    pub(crate) now_ms: u64,
    pub(crate) count: u32,
}

struct View<'a>(&'a [Entry]);

impl LogView for View<'_> {
    type Error = Infallible;

    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        count_max: usize,
        _bytes_max: usize,
    ) -> Result<Vec<Entry>, Infallible> {
        let wanted = self.0.iter().filter(|entry| entry.index >= first && entry.index <= last);
        Ok(wanted.take(count_max).cloned().collect())
    }
}

impl Single {
    /// Node 1 of `count`, with a log of these terms, in the last of them, having met everybody.
    pub(crate) fn new(count: u32, terms: &[u64]) -> Self {
        let log = entries(count, terms);
        Self::with_log(count, log, terms.last().copied().unwrap_or(0))
    }

    pub(crate) fn with_log(count: u32, log: Vec<Entry>, term: u64) -> Self {
        let summary = summary(&log);
        Self::with_summary(count, log, summary, term)
    }

    pub(crate) fn with_summary(count: u32, log: Vec<Entry>, summary: LogSummary, term: u64) -> Self {
        let nodes = (1..=count).map(NodeId);
        let met = nodes.clone().skip(1).map(|node| (node, (incarnation_of(node), Life::new(1, 0)))).collect();
        let state = HardState {
            incarnation: incarnation_of(ME),
            life: Life::new(1, 0),
            term: Term(term),
            voted_for: None,
            cluster_id: summary.genesis,
            met,
        };
        Self::with_state(count, log, summary, state)
    }

    pub(crate) fn with_state(count: u32, log: Vec<Entry>, summary: LogSummary, state: HardState) -> Self {
        let config = Config {
            node: ME,
            members: (1..=count).map(NodeId).collect(),
            heartbeat_ms: HEARTBEAT_MS,
            election_timeout_ms: ELECTION_MS,
            replication: ReplicationBounds::default(),
            seed: 7,
            new_cluster_id: ClusterId(1),
        };
        let met: BTreeMap<_, _> = state.met.clone();
        let raft = Raft::new(config, state, summary, 0);
        let mut single = Self { raft, log, now_ms: 0, count };
        for (node, (incarnation, life)) in met {
            single.step(Input::Met { node, incarnation, life, cluster_id: None });
        }
        single.turn();
        single
    }

    /// Node 1 of `count` as [`Self::new`] makes it, but everything up to `base` is compacted and committed.
    pub(crate) fn with_base(count: u32, terms: &[u64], base: u64) -> Self {
        let log = entries(count, terms);
        let (forgotten, kept) = log.split_at(base as usize);
        let mut whole = summary(&log);
        whole.base = forgotten.last().map_or(EntryId::default(), Entry::id);
        whole.term_starts = summary(kept).term_starts;
        Self::with_summary(count, kept.to_vec(), whole, terms.last().copied().unwrap_or(0))
    }

    pub(crate) fn step(&mut self, input: Input) {
        let before = self.raft.clone();
        self.raft.step(self.now_ms, input);
        invariants::check(&self.raft).unwrap();
        invariants::check_step(&before, &self.raft).unwrap();
    }

    /// The rest of a turn, up to the flush, which is left to [`Self::flush`].
    pub(crate) fn turn(&mut self) -> Done {
        let mut done = Done::default();
        done.take(self.raft.take_actions());
        for change in &done.changes {
            match change {
                LogChange::TruncateFrom(index) => self.log.retain(|entry| entry.index < *index),
                LogChange::Append(entry) => self.log.push(entry.clone()),
            }
        }
        let Ok(()) = self.raft.replicate(self.now_ms, &View(&self.log));
        done.take(self.raft.take_actions());
        done
    }

    pub(crate) fn flush(&mut self) -> Done {
        let last_index = self.log.last().map_or(self.raft.last_index(), |entry| entry.index);
        self.step(Input::LogDurable { last_index });
        self.turn()
    }

    pub(crate) fn input(&mut self, input: Input) -> Done {
        self.step(input);
        self.turn()
    }

    pub(crate) fn receive(&mut self, from: u32, message: PeerMessage) -> Done {
        self.input(Input::Receive { from: NodeId(from), message })
    }

    pub(crate) fn propose(&mut self) -> EntryId {
        let payload = Payload::from(Bytes::from_static(b"x"));
        self.raft.propose(self.now_ms, payload).unwrap()
    }

    /// The election alarm goes off, long after anything was heard.
    pub(crate) fn time_out(&mut self) -> Done {
        self.now_ms += 3 * ELECTION_MS;
        self.input(Input::Timeout(Timer::Election))
    }

    pub(crate) fn vote(&mut self, from: u32, election_term: u64, pre_vote: bool, vote_granted: bool) -> Done {
        let reply = RequestVoteReply {
            term: Term(if pre_vote { election_term - 1 } else { election_term }),
            election_term: Term(election_term),
            incarnation: incarnation_of(NodeId(from)),
            pre_vote,
            vote_granted,
        };
        self.receive(from, PeerMessage::RequestVoteReply(reply))
    }

    /// Becomes a candidate, with the PreVotes of all others.
    pub(crate) fn stand(&mut self) -> Done {
        let mut done = self.time_out();
        let term = self.raft.term().0 + 1;
        for node in 2..=self.count {
            if self.raft.role() == NodeRole::PreCandidate {
                done = self.vote(node, term, true, true);
            }
        }
        done
    }

    /// Becomes the leader, with the votes of all others, and flushes its no-op.
    pub(crate) fn lead(&mut self) -> Done {
        let mut done = self.stand();
        let term = self.raft.term().0;
        for node in 2..=self.count {
            if self.raft.role() == NodeRole::Candidate {
                done = self.vote(node, term, false, true);
            }
        }
        assert!(self.raft.is_leader());
        done
    }

    pub(crate) fn append_request(&self, term: u64, prev_log: EntryId, entries: Vec<Entry>) -> AppendEntries {
        let leader_id = NodeId(2);
        let (leader_commit, cluster_time) = (LogIndex(0), ClusterTimeMs(0));
        AppendEntries {
            term: Term(term),
            leader_id,
            prev_log,
            leader_commit,
            round: 1,
            cluster_time,
            entries,
        }
    }

    /// An AppendEntries from node 2.
    pub(crate) fn append(&mut self, term: u64, prev_log: EntryId, entries: Vec<Entry>) -> Done {
        let request = self.append_request(term, prev_log, entries);
        self.receive(2, PeerMessage::AppendEntries(request))
    }

    pub(crate) fn reply(&mut self, from: u32, to: &AppendEntries, result: AppendResult) -> Done {
        let reply = AppendEntriesReply {
            term: to.term,
            incarnation: incarnation_of(NodeId(from)),
            round: to.round,
            prev_log_index: to.prev_log.index,
            result,
        };
        self.receive(from, PeerMessage::AppendEntriesReply(reply))
    }

    /// A reply in the present term and a round long begun, that says how far the logs are equal.
    pub(crate) fn matched(&mut self, from: u32, match_index: u64) -> Done {
        let term = self.raft.term().0;
        let request = self.append_request(term, id(0, 0), Vec::new());
        self.reply(from, &request, AppendResult::Matched { match_index: LogIndex(match_index) })
    }

    /// The whole snapshot as of `entry` in one message from node 2, as the core sees it.
    pub(crate) fn receive_snapshot(&mut self, term: u64, entry: EntryId) -> Done {
        let (leader_id, bytes) = (NodeId(2), Payload::default());
        let chunk = InstallSnapshot { term: Term(term), leader_id, entry, offset: 0, is_last: true, bytes };
        self.receive(2, PeerMessage::InstallSnapshot(chunk))
    }

    /// The snapshot as of the last of entries with these terms is installed.
    pub(crate) fn install(&mut self, terms: &[u64]) -> Done {
        let whole = summary(&entries(self.count, terms));
        let base = EntryId { term: Term(terms[terms.len() - 1]), index: whole.last_index };
        self.log.clear();
        self.input(Input::Installed { summary: LogSummary { base, term_starts: Vec::new(), ..whole } })
    }

    /// A node says in `term` how it stands with the snapshot as of `entry`.
    pub(crate) fn snapshot_reply(
        &mut self,
        from: u32,
        term: u64,
        entry: EntryId,
        state: SnapshotState,
    ) -> Done {
        let (term, incarnation) = (Term(term), incarnation_of(NodeId(from)));
        let reply = InstallSnapshotReply { term, incarnation, entry, next_offset: 0, state };
        self.receive(from, PeerMessage::InstallSnapshotReply(reply))
    }

    /// Forgets the log up to `to`.
    pub(crate) fn compact(&mut self, to: u64) -> Done {
        let before = self.raft.clone();
        self.raft.compact(LogIndex(to));
        invariants::check(&self.raft).unwrap();
        invariants::check_step(&before, &self.raft).unwrap();
        self.log.retain(|entry| entry.index.0 > to);
        self.turn()
    }

    pub(crate) fn behind(&self) -> Vec<u32> {
        self.raft.behind().map(|node| node.0).collect()
    }

    pub(crate) fn request_vote(&mut self, from: u32, term: u64, last_log: EntryId) -> Done {
        let request = RequestVote {
            term: Term(term),
            candidate_id: NodeId(from),
            incarnation: incarnation_of(NodeId(from)),
            registered: true,
            last_log,
            pre_vote: false,
            leadership_transfer: false,
        };
        self.receive(from, PeerMessage::RequestVote(request))
    }

    pub(crate) fn terms(&self) -> Vec<u64> {
        self.log.iter().map(|entry| entry.term.0).collect()
    }
}
