//! What goes into the core and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;

use fsd_wire::peer::{PeerMessage, ReadIndexId};
use fsd_wire::{ClusterId, ClusterTimeMs, Entry, EntryId, Incarnation, Life, LogIndex, NodeId, Term};

use crate::limits::{APPEND_ENTRIES_COUNT_MAX, REPLICATION_WINDOW_MESSAGES};

/// What a node is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// All members, this node among them, in rising order.
    pub members: Vec<NodeId>,
    /// How often a leader gives a sign of life.
    pub heartbeat_ms: u64,
    /// A follower waits for it between this and twice this.
    pub election_timeout_ms: u64,
    /// How much is sent to a follower at a time.
    pub replication: ReplicationBounds,
    /// For the random part of election timeouts.
    pub seed: u64,
    /// Drawn at random; used only if this node begins a cluster.
    pub new_cluster_id: ClusterId,
}

/// How much a leader sends to a follower at a time. The daemon uses the bounds of `limits`, which are the default;
/// schedules that these hide come to light with smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationBounds {
    /// Entries of one AppendEntries; at least 1.
    pub entries_max: usize,
    /// Messages with entries that wait for an answer; at least 1.
    pub messages_max: usize,
}

impl Default for ReplicationBounds {
    fn default() -> Self {
        Self { entries_max: APPEND_ENTRIES_COUNT_MAX, messages_max: REPLICATION_WINDOW_MESSAGES }
    }
}

/// What must survive a restart besides the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardState {
    /// Of this node's data directory.
    pub incarnation: Incarnation,
    /// How often the daemon was started on it.
    pub life: Life,
    /// The paper's `currentTerm`.
    pub term: Term,
    /// The paper's `votedFor`, in `term`.
    pub voted_for: Option<NodeId>,
    /// The cluster's id, once it is known to be committed.
    pub cluster_id: Option<ClusterId>,
    /// The first incarnation of each peer that this node met, with its highest life.
    pub met: BTreeMap<NodeId, (Incarnation, Life)>,
}

/// What recovery found in the log, as far as the core needs it in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// The entry before the first one that the log still has: committed, and forgotten with all before it. Zeros for a
    /// log that has all.
    pub base: EntryId,
    /// Everything up to here is committed for certain, and applied in the store as it was found; at least the base.
    pub committed: LogIndex,
    /// The first index of each run of equal terms behind the base. A run that began before is listed from there on.
    pub term_starts: Vec<(LogIndex, Term)>,
    /// The last entry; the base if there is none behind it.
    pub last_index: LogIndex,
    /// The stamp of the last entry.
    pub last_stamp: ClusterTimeMs,
    /// From genesis and register entries, in log order, each under the index of its entry. Of those up to the base
    /// the last two of each node must be there; what is earlier is ignored.
    pub registrations: Vec<(LogIndex, NodeId, Incarnation)>,
    /// The cluster's id in the genesis entry, also if that is no longer there.
    pub genesis: Option<ClusterId>,
}

/// The log as a leader reads it to send it on. It is never asked for what was compacted.
pub trait LogView {
    /// Why entries could not be read.
    type Error;

    /// The entries from `first` to `last`, both included, cut off at `count_max` entries or `bytes_max`
    /// bytes, but at least one if `first <= last`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Self::Error>;
}

/// The two alarms that the core sets for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// No leader was heard, or an election came to nothing.
    Election,
    /// The leader's next sign of life.
    Heartbeat,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// An alarm went off.
    Timeout(Timer),
    /// A message came on a connection whose hello was welcome. What is not of Raft is ignored.
    Receive {
        /// The peer at the other end.
        from: NodeId,
        /// What it sent.
        message: PeerMessage,
    },
    /// Something falls due: a leader appends an empty entry, so that it does.
    Tick,
    /// A client wants to read; the answer is in `reads_ready` or `reads_lost`. A follower asks its leader.
    Read {
        /// What the answer is to be called.
        id: u64,
    },
    /// A good hello, in either direction.
    Met {
        /// The peer.
        node: NodeId,
        /// The incarnation of its data directory.
        incarnation: Incarnation,
        /// How often it was started on it.
        life: Life,
        /// The cluster's id as it knows it.
        cluster_id: Option<ClusterId>,
    },
    /// The connection to the peer is gone: what was under way may be lost.
    PeerLost {
        /// The peer.
        node: NodeId,
    },
    /// A leader hands its office over.
    TransferLeadership {
        /// To whom; to the most up-to-date follower if that is left open.
        to: Option<NodeId>,
    },
    /// Everything appended up to here is flushed. Must come before anything else is taken from the core.
    LogDurable {
        /// The last index that was flushed.
        last_index: LogIndex,
    },
    /// The whole log, and the store with it, was replaced by a snapshot, durably, after
    /// [`super::Raft::wants_snapshot`] said so. Must be the first input of a turn.
    Installed {
        /// The new log: nothing lies behind its base.
        summary: LogSummary,
    },
}

/// Whether a node has use for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// It is of a term that is over.
    StaleTerm,
    /// The log has its last entry, or had it: to install it would only lose what lies behind.
    HasIt,
    /// Yes.
    Install,
}

/// A change to the log, in the order in which they are to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChange {
    /// Remove the entry with this index and all behind it; an append always follows in the same batch.
    TruncateFrom(LogIndex),
    /// Append this entry.
    Append(Entry),
}

/// A change to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Goes off after `after_ms`; replaces the same timer's last one.
    Set {
        /// Which.
        timer: Timer,
        /// From now.
        after_ms: u64,
    },
    /// Does not go off.
    Clear {
        /// Which.
        timer: Timer,
    },
}

impl Alarm {
    pub(super) fn timer(self) -> Timer {
        match self {
            Self::Set { timer, .. } | Self::Clear { timer } => timer,
        }
    }
}

/// A read that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// Its name in [`Input::Read`].
    pub id: u64,
    /// What must be applied first.
    pub index: LogIndex,
    /// The leader's cluster time: what was due by then is gone at `index`. `None` if this node leads and its own
    /// time counts.
    pub cluster_time: Option<ClusterTimeMs>,
}

/// A batch of reads at a follower, for which this node was confirmed to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRead {
    /// The follower.
    pub node: NodeId,
    /// Its name for the batch.
    pub id: ReadIndexId,
    /// What the leader must have applied before it answers.
    pub index: LogIndex,
    /// The term in which this node was confirmed to lead.
    pub term: Term,
}

/// What is to be done, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// To be stored and flushed before anything else.
    pub store_state: Option<HardState>,
    /// To be done to the log.
    pub store_log: Vec<LogChange>,
    /// Promises nothing but what `store_state` holds.
    pub send: Vec<(NodeId, PeerMessage)>,
    /// Promises that the log is flushed up to the end of this turn.
    pub send_when_durable: Vec<(NodeId, PeerMessage)>,
    /// At most one change per timer.
    pub alarms: Vec<Alarm>,
    /// The commit index has advanced to this.
    pub commit_index: Option<LogIndex>,
    /// Reads that may be answered once this index is applied (it may still be ahead of the commit index).
    pub reads_ready: Vec<ReadReady>,
    /// Reads that cannot be answered here: there is no leader, or no longer this node, or too many wait.
    pub reads_lost: Vec<u64>,
    /// Reads of followers, to be answered by [`super::Raft::answer_peer_read`] once their index is applied and
    /// nothing is due.
    pub peer_reads_ready: Vec<PeerRead>,
}

impl Actions {
    pub(super) fn alarm(&mut self, alarm: Alarm) {
        self.alarms.retain(|other| other.timer() != alarm.timer());
        self.alarms.push(alarm);
    }
}

/// Why a proposal was not put into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Another node leads, or none is known.
    NotLeader {
        /// The leader that this node follows.
        leader: Option<NodeId>,
    },
    /// The leader is handing its office over.
    Transferring,
    /// Too much is waiting to be committed.
    Busy,
    /// The log has no room for it, and none can be made.
    Full,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(node) } => write!(f, "not the leader; that is node {node}"),
            Self::NotLeader { leader: None } => f.write_str("no leader is known"),
            Self::Transferring => f.write_str("the leader is handing over to another node"),
            Self::Busy => f.write_str("too much is waiting to be committed"),
            Self::Full => f.write_str("the log has no room for it"),
        }
    }
}

impl std::error::Error for ProposeError {}
