//! One node's process, its machine's clock and its disk, and what is known of it from outside.

use std::collections::{BTreeSet, VecDeque};

use fsd::config::{Member, TextReads, TextWrites};
use fsd::raft::{HardState, LogSummary, Raft, ReplicationBounds};
use fsd::server::jobs::Job;
use fsd::server::node::{Node, NodeConfig};
use fsd::simulated_disk::SimulatedDisk;
use fsd::storage::DirectoryIdentity;
use fsd_wire::hello::Identity;
use fsd_wire::peer::PeerMessage;
use fsd_wire::{ClusterId, ClusterTimeMs, EntryId, Incarnation, LogIndex, NodeId, Term, Version};

use crate::clock::DriftingClock;
use crate::late_answers::LateAnswers;
use crate::plan::Plan;
use crate::room::capacity;
use crate::sockets::{CLUSTER, Sockets, node_id};

/// The terms of a log's entries behind its base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogShape {
    pub(crate) base: EntryId,
    pub(crate) starts: Vec<(LogIndex, Term)>,
    pub(crate) last: LogIndex,
}

impl LogShape {
    pub(crate) fn of(raft: &Raft) -> Self {
        Self { base: raft.base(), starts: raft.term_starts().to_vec(), last: raft.last_index() }
    }

    pub(crate) fn of_summary(summary: &LogSummary) -> Self {
        Self { base: summary.base, starts: summary.term_starts.clone(), last: summary.last_index }
    }

    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index && index > LogIndex(0) {
            return Some(self.base.term);
        }
        if index <= self.base.index || index > self.last {
            return None;
        }
        let behind = self.starts.partition_point(|(first, _)| *first <= index);
        Some(self.starts[behind.checked_sub(1)?].1)
    }

    /// The first `last` entries.
    pub(crate) fn cut(mut self, last: LogIndex) -> Self {
        self.last = self.last.min(last);
        self.starts.retain(|(first, _)| *first <= self.last);
        self
    }

    /// Whether the first `last` entries are the same, as far as both have them.
    pub(crate) fn agrees(&self, other: &Self, last: LogIndex) -> bool {
        let from = self.base.index.max(other.base.index);
        self.last.min(last).max(from) == other.last.min(last).max(from)
            && self.runs(from, last).eq(other.runs(from, last))
    }

    /// The runs of equal terms from an entry that both have to `last`.
    fn runs(&self, from: LogIndex, last: LogIndex) -> impl Iterator<Item = (LogIndex, Term)> {
        let first = self.term_at(from).map(|term| (from, term));
        let behind = self.starts.iter().copied().filter(move |(start, _)| *start > from && *start <= last);
        // A base is no entry of the log: the run that begins behind it may be that of the base.
        let mut before = first.map(|(_, term)| term);
        first.into_iter().chain(behind.filter(move |(_, term)| before.replace(*term) != Some(*term)))
    }
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    Down,
    /// Its directory was found damaged: it refuses to start.
    Damaged,
}

/// What was seen of a process in its present life; none of it ever goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub(crate) term: Term,
    pub(crate) commit: LogIndex,
    pub(crate) applied: LogIndex,
    pub(crate) cluster_time: ClusterTimeMs,
    pub(crate) revision: Version,
}

/// A copy of a data directory that was put aside.
#[derive(Debug)]
pub(crate) struct OldCopy {
    pub(crate) disk: SimulatedDisk,
    pub(crate) shape: LogShape,
    pub(crate) state: HardState,
}

/// A node's process.
pub(crate) struct Process {
    pub(crate) place: usize,
    pub(crate) state: State,
    pub(crate) node: Option<Node<SimulatedDisk>>,
    pub(crate) sockets: Sockets,
    pub(crate) disk: SimulatedDisk,
    pub(crate) clock: DriftingClock,
    /// Counts runs of the process.
    pub(crate) life: u64,
    pub(crate) busy_until_us: u64,
    pub(crate) wake_at_us: Option<u64>,
    /// Work for the helper, in its order.
    pub(crate) jobs: VecDeque<Job<SimulatedDisk>>,
    /// How long a flush takes at present.
    pub(crate) flush_us: u64,
    /// What the disk is known to hold.
    pub(crate) durable: LogShape,
    pub(crate) stored: Option<HardState>,
    /// What the process had in memory when it ended, and how far its log had not been touched since the last flush.
    pub(crate) last_words: Option<(LogShape, HardState, LogIndex)>,
    pub(crate) watermarks: Watermarks,
    /// In its present life: the last term in which it acknowledged entries, and up to where.
    pub(crate) acknowledged: (Term, LogIndex),
    /// As this incarnation it lost what it once promised.
    pub(crate) lost: Option<Incarnation>,
    /// What it had acknowledged on the disk that it lost; some of that may be on its way to a leader.
    pub(crate) lost_log: LogShape,
    /// The committed log says that it counts, and it holds what it has promised.
    pub(crate) counts: bool,
    /// What was flushed before the last flush: later records prove it.
    pub(crate) proven: LogIndex,
    /// Files of which bytes have rotted since they were last found whole.
    pub(crate) rotten: BTreeSet<String>,
    /// A call of its disk is to fail.
    pub(crate) fails: bool,
    /// Power is to fail in the next turn that stores many entries at once.
    pub(crate) fails_in_batch: bool,
    /// So many turns that flush something may end in a power failure.
    pub(crate) shaky_turns: u32,
    /// Its last turn was not finished.
    pub(crate) has_failed: bool,
    pub(crate) is_stopping: bool,
    /// What was told of it last.
    pub(crate) told: Option<(fsd_wire::client::NodeRole, Term, Option<NodeId>)>,
    pub(crate) old_copy: Option<OldCopy>,
    /// Messages that it got, to be got once more.
    pub(crate) heard: Vec<(NodeId, PeerMessage)>,
    pub(crate) late_answers: LateAnswers,
}

impl Process {
    pub(crate) fn new(place: usize, plan: &Plan, base_ms: u64) -> Self {
        Self {
            place,
            state: State::Down,
            node: None,
            sockets: Sockets::new(place, plan.nodes, Identity::default(), 0),
            disk: small_disk(plan),
            clock: DriftingClock::new(0, base_ms),
            life: 0,
            busy_until_us: 0,
            wake_at_us: None,
            jobs: VecDeque::new(),
            flush_us: plan.flush_us_max,
            durable: LogShape::default(),
            stored: None,
            last_words: None,
            watermarks: Watermarks::default(),
            acknowledged: Default::default(),
            lost: None,
            lost_log: LogShape::default(),
            counts: false,
            proven: LogIndex(0),
            rotten: BTreeSet::new(),
            fails: false,
            fails_in_batch: false,
            shaky_turns: 0,
            has_failed: false,
            is_stopping: false,
            told: None,
            old_copy: None,
            heard: Vec::new(),
            late_answers: LateAnswers::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        node_id(self.place)
    }

    pub(crate) fn identity(&self) -> DirectoryIdentity {
        directory_of(self.id())
    }

    /// Whether bytes of its directory have rotted.
    pub(crate) fn is_rotten(&self) -> bool {
        !self.rotten.is_empty()
    }

    /// Whether it may lack what it once promised.
    pub(crate) fn is_unsound(&self) -> bool {
        !self.counts || self.is_rotten() || self.state == State::Damaged
    }

    /// It has another disk now, of which this is known.
    pub(crate) fn forget(&mut self, durable: LogShape, stored: Option<HardState>) {
        let held = std::mem::replace(&mut self.durable, durable);
        // A leader may count what a newcomer acknowledged before it was lost: its registration is committed later.
        if self.counts || held.last > self.lost_log.last {
            self.lost_log = held;
        }
        self.stored = stored;
        // What was sent to the disk of before came on its connections: no connection brings it to this one.
        self.heard.clear();
        self.late_answers = LateAnswers::default();
        self.last_words = None;
        self.counts = false;
        self.rotten.clear();
        self.fails = false;
        self.proven = LogIndex(0);
    }

    /// Its core, while it runs.
    pub(crate) fn raft(&self) -> Option<&Raft> {
        self.node.as_ref().map(Node::raft)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft().is_some_and(Raft::is_leader)
    }
}

/// An empty disk.
pub(crate) fn small_disk(plan: &Plan) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    disk.set_capacity(capacity(plan));
    disk
}

/// Whose a node's directory is.
pub(crate) fn directory_of(node: NodeId) -> DirectoryIdentity {
    DirectoryIdentity { cluster: CLUSTER.into(), node }
}

/// What a node is told when it starts.
pub(crate) fn node_config(plan: &Plan, place: usize, random: &mut fastrand::Rng) -> NodeConfig {
    let address = |port: usize| ([127, 0, 0, 1], port as u16).into();
    let member = |place| Member {
        node: node_id(place),
        peer: address(7001 + place),
        client: address(7101 + place),
        text: None,
        http: None,
    };
    NodeConfig {
        cluster: CLUSTER.into(),
        node: node_id(place),
        members: (0..plan.nodes).map(member).collect(),
        heartbeat_ms: plan.heartbeat_ms,
        election_timeout_ms: plan.election_timeout_ms,
        max_file_bytes: 1024 * 1024,
        text_reads: TextReads::Linearizable,
        text_writes: if plan.text_clients > 0 { TextWrites::Forward } else { TextWrites::Redirect },
        session_idle_ms: random.u64(plan.session_idle_ms_max / 2..=plan.session_idle_ms_max),
        sessions_max: plan.sessions_max,
        replication: ReplicationBounds { entries_max: plan.entries_max, messages_max: plan.messages_max },
        seed: random.u64(..),
        new_cluster_id: ClusterId(random.u128(1..)),
        new_incarnation: random.u64(1..),
    }
}
