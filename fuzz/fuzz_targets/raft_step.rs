//! One Raft node and whatever its peers may send: the invariants of its state hold after every step, its log keeps
//! what was committed, and nothing makes it panic.
//!
//! Peers do not lie about what is committed (fsd is not made for that): there is one leader in each term, its log
//! begins with what was committed before, and a vote for a node that lacks committed entries is not given. All else
//! in a message, and the order of everything, is arbitrary.

#![no_main]

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use fsd::raft::{
    Config, HardState, Input, LogChange, LogSummary, LogView, Raft, ReplicationBounds, SnapshotAnswer, Timer,
    invariants,
};
use fsd_wire::peer::{
    AppendEntries, AppendEntriesReply, AppendResult, PeerMessage, ReadIndex, ReadIndexId, ReadIndexReply,
    RequestVote, RequestVoteReply, TimeoutNow,
};
use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, SnapshotState};
use fsd_wire::{
    ClusterId, ClusterTimeMs, Entry, EntryId, EntryKind, Genesis, Incarnation, Life, LogIndex, NodeId, Payload,
    Term,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const ELECTION_MS: u64 = 1000;
const ME: NodeId = NodeId(1);
const STEPS_MAX: usize = 400;

/// The node under test leads in every third term, node 2 or node 3 in the others.
fn leader_of(term: u64) -> NodeId {
    NodeId((term % 3) as u32 + 1)
}

fn incarnation_of(node: NodeId) -> Incarnation {
    Incarnation(u64::from(node.0) * 1000)
}

fn entry(term: u64, index: u64) -> Entry {
    let genesis = Genesis {
        cluster_id: ClusterId(1),
        incarnations: (1..=3).map(|node| (NodeId(node), incarnation_of(NodeId(node)))).collect(),
    };
    let (kind, payload) = match index {
        1 => (EntryKind::Genesis, genesis.encode()),
        _ => (EntryKind::Command, Payload::from(Bytes::from(format!("{term}.{index}")))),
    };
    Entry { index: LogIndex(index), term: Term(term), stamp: ClusterTimeMs(index), kind, payload }
}

/// What a node is told of a log that begins with these entries, of which the first `base` are gone.
fn summary(log: &[Entry], base: usize) -> LogSummary {
    let mut term_starts: Vec<(LogIndex, Term)> = Vec::new();
    for entry in &log[base..] {
        if term_starts.last().is_none_or(|run| run.1 < entry.term) {
            term_starts.push((entry.index, entry.term));
        }
    }
    let base = log[..base].last().map_or(EntryId::default(), Entry::id);
    LogSummary {
        base,
        committed: base.index,
        term_starts,
        last_index: LogIndex(log.len() as u64),
        last_stamp: ClusterTimeMs(log.len() as u64),
        registrations: [1, 2, 3].map(NodeId).map(|node| (LogIndex(1), node, incarnation_of(node))).into(),
        genesis: Some(ClusterId(1)),
    }
}

fn common_prefix(one: &[Entry], other: &[Entry]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// A log, and the base up to which nothing may be asked for.
struct View<'a>(&'a [Entry], LogIndex);

impl LogView for View<'_> {
    type Error = Infallible;

    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        count_max: usize,
        _bytes_max: usize,
    ) -> std::result::Result<Vec<Entry>, Infallible> {
        assert!(first > self.1, "asked for what was compacted");
        let wanted = self.0.iter().filter(|entry| entry.index >= first && entry.index <= last);
        Ok(wanted.take(count_max).cloned().collect())
    }
}

struct World {
    raft: Raft,
    log: Vec<Entry>,
    now_ms: u64,
    /// What a majority has, as an all-knowing observer sees it.
    committed: Vec<Entry>,
    /// The logs of the other nodes' leaders, by term.
    leaders: BTreeMap<u64, Vec<Entry>>,
    reads: u64,
    /// The node's commit index when its last turn ended.
    commit_before: LogIndex,
}

impl World {
    fn new(seed: u64) -> Self {
        let log = vec![entry(1, 1)];
        let nodes = [2, 3].map(NodeId);
        let state = HardState {
            incarnation: incarnation_of(ME),
            life: Life::new(1, 0),
            term: Term(1),
            voted_for: None,
            cluster_id: Some(ClusterId(1)),
            met: nodes.map(|node| (node, (incarnation_of(node), Life::new(1, 0)))).into(),
        };
        let config = Config {
            node: ME,
            members: [1, 2, 3].map(NodeId).into(),
            heartbeat_ms: 100,
            election_timeout_ms: ELECTION_MS,
            replication: ReplicationBounds::default(),
            seed,
            new_cluster_id: ClusterId(1),
        };
        let mut world = Self {
            raft: Raft::new(config, state, summary(&log, 0), 0),
            committed: log.clone(),
            log,
            now_ms: 0,
            leaders: BTreeMap::new(),
            reads: 0,
            commit_before: LogIndex(0),
        };
        for node in nodes {
            world.meet(node);
        }
        world
    }

    fn meet(&mut self, node: NodeId) {
        let (incarnation, life) = (incarnation_of(node), Life::new(1, 0));
        self.input(Input::Met { node, incarnation, life, cluster_id: Some(ClusterId(1)) });
    }

    /// The last term in which one of the others is known to have led.
    fn last_led(&self) -> u64 {
        self.leaders.keys().next_back().copied().unwrap_or(0)
    }

    fn knows_committed(&self) -> bool {
        common_prefix(&self.log, &self.committed) == self.committed.len()
    }

    fn input(&mut self, input: Input) {
        let before = self.raft.clone();
        self.raft.step(self.now_ms, input);
        invariants::check(&self.raft).unwrap();
        invariants::check_step(&before, &self.raft).unwrap();
        // At once: the next input may already be of a leader that has it.
        let commit = self.raft.commit_index().0 as usize;
        if self.raft.is_leader() && commit > self.committed.len() {
            assert!(self.knows_committed(), "it leads without what was committed");
            self.committed = self.log[..commit].to_vec();
        }
    }

    /// The rest of a turn.
    fn turn(&mut self) {
        let commit_before = self.commit_before;
        let actions = self.raft.take_actions();
        for change in actions.store_log {
            match change {
                LogChange::TruncateFrom(index) => {
                    assert!(index > commit_before && index.0 as usize <= self.log.len());
                    self.log.truncate(index.0 as usize - 1);
                }
                LogChange::Append(entry) => {
                    assert_eq!(entry.index.0 as usize, self.log.len() + 1);
                    self.log.push(entry);
                }
            }
        }
        let base = self.raft.base().index;
        let Ok(()) = self.raft.replicate(self.now_ms, &View(&self.log, base));
        drop(self.raft.take_actions());
        self.input(Input::LogDurable { last_index: LogIndex(self.log.len() as u64) });
        drop(self.raft.take_actions());
        let commit = self.raft.commit_index().0 as usize;
        self.commit_before = self.raft.commit_index();
        assert_eq!(self.log[..commit], self.committed[..commit], "another history");
    }

    fn run(&mut self, data: &mut Unstructured) -> Result<()> {
        for _ in 0..STEPS_MAX {
            if data.is_empty() {
                break;
            }
            self.now_ms += *data.choose(&[0_u64, 1, 50, 400, 2500])?;
            self.step(data)?;
            if data.ratio(2, 3)? {
                self.turn();
            }
        }
        self.turn();
        Ok(())
    }

    fn step(&mut self, data: &mut Unstructured) -> Result<()> {
        let from = NodeId(data.int_in_range(2..=3)?);
        match data.int_in_range(0..=15)? {
            0 => self.input(Input::Timeout(Timer::Election)),
            1 => self.input(Input::Timeout(Timer::Heartbeat)),
            2..=4 => self.append_entries(data)?,
            5 => self.request_vote(data, from)?,
            6 => self.vote(data, from)?,
            7 | 8 => self.append_reply(data, from)?,
            9 => {
                let term = self.some_term(data)?;
                self.receive(from, PeerMessage::TimeoutNow(TimeoutNow { term, leader_id: from }));
            }
            10 => self.read_message(data, from)?,
            11 => {
                self.reads += 1;
                self.input(Input::Read { id: self.reads });
            }
            12 => {
                let _ = self.raft.propose(self.now_ms, Payload::from(Bytes::from_static(b"mine")));
            }
            13 => self.compact(data)?,
            14 => self.snapshot(data, from)?,
            _ => match data.int_in_range(0..=3)? {
                0 => self.input(Input::PeerLost { node: from }),
                1 => self.meet(from),
                2 => self.input(Input::Tick),
                _ => self.input(Input::TransferLeadership { to: data.arbitrary::<bool>()?.then_some(from) }),
            },
        }
        Ok(())
    }

    fn receive(&mut self, from: NodeId, message: PeerMessage) {
        self.input(Input::Receive { from, message });
    }

    fn some_term(&self, data: &mut Unstructured) -> Result<Term> {
        let present = self.raft.term().0;
        Ok(Term(data.int_in_range(present.saturating_sub(3)..=present + 3)?))
    }

    fn append_entries(&mut self, data: &mut Unstructured) -> Result<()> {
        let term = self.some_term(data)?.0;
        let leader_id = leader_of(term);
        if leader_id == ME || term == 0 {
            return Ok(());
        }
        // Terms are begun in their order, and none behind what the node itself may have committed.
        if !self.leaders.contains_key(&term) {
            if term <= self.last_led() || term <= self.raft.term().0 && self.raft.is_leader() {
                return Ok(());
            }
            if term < self.raft.term().0 || self.committed.last().is_some_and(|last| last.term.0 >= term) {
                return Ok(());
            }
            let mut log = self.committed.clone();
            log.push(entry(term, log.len() as u64 + 1));
            self.leaders.insert(term, log);
        }
        let latest = term == self.last_led() && term >= self.raft.term().0;
        let log = self.leaders.get_mut(&term).expect("it was just put there");
        for _ in 0..data.int_in_range(0..=3)? {
            log.push(entry(term, log.len() as u64 + 1));
        }
        let log = log.clone();
        // Only the latest leader commits, and only entries of its own.
        if latest && common_prefix(&log, &self.committed) == self.committed.len() && data.arbitrary()? {
            let commit = data.int_in_range(self.committed.len()..=log.len())?;
            if log[commit - 1].term.0 == term {
                self.committed = log[..commit].to_vec();
            }
        }
        let known = common_prefix(&log, &self.committed) as u64;
        let prev = data.int_in_range(0..=log.len())?;
        let count = data.int_in_range(0..=4)?.min(log.len() - prev);
        let prev_log = match prev {
            0 => EntryId::default(),
            _ => log[prev - 1].id(),
        };
        let leader_commit = LogIndex(data.int_in_range(0..=known)?);
        let entries = log[prev..prev + count].to_vec();
        let round = u64::from(data.arbitrary::<u8>()?);
        let request = AppendEntries {
            term: Term(term),
            leader_id,
            prev_log,
            leader_commit,
            round,
            cluster_time: ClusterTimeMs(u64::from(data.arbitrary::<u16>()?)),
            entries,
        };
        self.receive(leader_id, PeerMessage::AppendEntries(request));
        Ok(())
    }

    /// Between two turns, some of what is committed leaves the log; the observer keeps it.
    fn compact(&mut self, data: &mut Unstructured) -> Result<()> {
        self.turn();
        let before = self.raft.clone();
        self.raft.compact(LogIndex(data.int_in_range(0..=self.raft.commit_index().0)?));
        invariants::check(&self.raft).unwrap();
        invariants::check_step(&before, &self.raft).unwrap();
        Ok(())
    }

    /// A snapshot comes from the leader of some term and is installed if it is wanted, or a follower tells of its own.
    fn snapshot(&mut self, data: &mut Unstructured, from: NodeId) -> Result<()> {
        let term = self.some_term(data)?;
        let entry = self.committed[data.int_in_range(0..=self.committed.len() - 1)?].id();
        if data.arbitrary()? {
            self.turn();
            let last = self.raft.last_index().0;
            // Once another node leads a later term, nothing of this one is acknowledged any more.
            let holds_it = term == self.raft.term() && term.0 > self.last_led() && entry.index.0 <= last;
            let state = match data.int_in_range(0..=3)? {
                0 | 1 if holds_it => SnapshotState::Installed,
                2 if holds_it => SnapshotState::HasIt,
                3 => SnapshotState::StaleTerm,
                _ => SnapshotState::Receiving,
            };
            let incarnation = if data.ratio(7, 8)? { incarnation_of(from) } else { Incarnation(7) };
            let reply = InstallSnapshotReply { term, incarnation, entry, next_offset: 0, state };
            self.receive(from, PeerMessage::InstallSnapshotReply(reply));
            return Ok(());
        }
        let leader_id = leader_of(term.0);
        if !self.leaders.contains_key(&term.0) || entry.term > term {
            return Ok(());
        }
        let bytes = Payload::default();
        let chunk = InstallSnapshot { term, leader_id, entry, offset: 0, is_last: true, bytes };
        self.receive(leader_id, PeerMessage::InstallSnapshot(chunk));
        self.turn();
        if self.raft.leader_id() == Some(leader_id)
            && self.raft.wants_snapshot(term, entry) == SnapshotAnswer::Install
        {
            self.log = self.committed[..entry.index.0 as usize].to_vec();
            self.input(Input::Installed { summary: summary(&self.log, self.log.len()) });
            self.turn();
        }
        Ok(())
    }

    fn request_vote(&mut self, data: &mut Unstructured, from: NodeId) -> Result<()> {
        let request = RequestVote {
            term: self.some_term(data)?,
            candidate_id: from,
            incarnation: if data.ratio(7, 8)? { incarnation_of(from) } else { Incarnation(7) },
            registered: data.arbitrary()?,
            last_log: EntryId {
                term: self.some_term(data)?,
                index: LogIndex(data.int_in_range(0..=self.log.len() as u64 + 3)?),
            },
            pre_vote: data.arbitrary()?,
            leadership_transfer: data.arbitrary()?,
        };
        self.receive(from, PeerMessage::RequestVote(request));
        Ok(())
    }

    fn vote(&mut self, data: &mut Unstructured, from: NodeId) -> Result<()> {
        let pre_vote = data.arbitrary()?;
        let election_term = if data.ratio(3, 4)? {
            Term(self.raft.term().0 + u64::from(pre_vote))
        } else {
            self.some_term(data)?
        };
        let may_win = leader_of(election_term.0) == ME
            && election_term.0 > self.last_led()
            && self.knows_committed();
        let reply = RequestVoteReply {
            term: self.some_term(data)?,
            election_term,
            incarnation: if data.ratio(7, 8)? { incarnation_of(from) } else { Incarnation(7) },
            pre_vote,
            vote_granted: data.arbitrary::<bool>()? && (pre_vote || may_win),
        };
        self.receive(from, PeerMessage::RequestVoteReply(reply));
        Ok(())
    }

    fn append_reply(&mut self, data: &mut Unstructured, from: NodeId) -> Result<()> {
        // Nobody acknowledges what has not left yet.
        self.turn();
        let term = if data.ratio(3, 4)? { self.raft.term() } else { self.some_term(data)? };
        let last = self.raft.last_index().0;
        // Once another node leads a later term, nothing of this one is acknowledged any more.
        let result = match data.int_in_range(0..=2)? {
            0 if term.0 > self.last_led() && term == self.raft.term() => {
                AppendResult::Matched { match_index: LogIndex(data.int_in_range(0..=last)?) }
            }
            0 | 1 => AppendResult::StaleTerm,
            _ => AppendResult::Conflict {
                conflict_term: self.some_term(data)?,
                conflict_index: LogIndex(data.int_in_range(0..=last + 2)?),
            },
        };
        let reply = AppendEntriesReply {
            term,
            incarnation: if data.ratio(7, 8)? { incarnation_of(from) } else { Incarnation(7) },
            round: u64::from(data.arbitrary::<u8>()?),
            prev_log_index: LogIndex(data.int_in_range(0..=last + 1)?),
            result,
        };
        self.receive(from, PeerMessage::AppendEntriesReply(reply));
        Ok(())
    }

    fn read_message(&mut self, data: &mut Unstructured, from: NodeId) -> Result<()> {
        let term = self.some_term(data)?;
        let own = data.arbitrary()?;
        let id = ReadIndexId {
            incarnation: incarnation_of(if own { ME } else { from }),
            life: Life::new(1, 0),
            number: data.int_in_range(0..=self.reads + 2)?,
        };
        let message = if own {
            let read_index = LogIndex(data.int_in_range(0..=self.log.len() as u64 + 2)?);
            let cluster_time = ClusterTimeMs(data.int_in_range(0..=1000)?);
            PeerMessage::ReadIndexReply(ReadIndexReply { term, id, read_index, cluster_time })
        } else {
            PeerMessage::ReadIndex(ReadIndex { term, id })
        };
        self.receive(from, message);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let seed = data.first().copied().unwrap_or(0);
    let _ = World::new(u64::from(seed)).run(&mut Unstructured::new(data));
});
