//! Requests that wait: changes for their entry to be applied, reads for their read index.

use std::collections::{BTreeMap, BTreeSet};

use fsd_wire::client::Operation;
use fsd_wire::{ClusterTimeMs, EntryId, LogIndex, NodeId, RequestId, Term};

use super::measurements::RequestKind;
use crate::limits;
use crate::marks::mark;
use crate::mutants::mutant;
use crate::net::{ClientProtocol, ConnectionId};
use crate::raft::{PeerRead, ReadReady};
use crate::timer_wheel::TimerId;

/// Where a request comes from, and its reply goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A client of this node.
    Client { connection: ConnectionId, protocol: ClientProtocol },
    /// A peer that passes on what its clients want.
    Peer(NodeId),
    /// This node itself, which passes on what its clients want and leads.
    Forwarder,
}

/// Who asked, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) origin: Origin,
    pub(super) request: RequestId,
    pub(super) deadline: TimerId,
    pub(super) asked: Asked,
}

impl Origin {
    /// Whether it is a client on the text protocol.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Client { protocol: ClientProtocol::Text, .. })
    }
}

/// What a request was about and when it came, for what is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) kind: RequestKind,
    /// By the clock that the node measures by.
    pub(super) at_us: u64,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RequestKey {
    /// The change whose entry this is.
    Change(EntryId),
    /// The read with this number.
    Read(u64),
    /// The change with this number, which was passed on to the leader.
    Forwarded(u64),
    /// A piece of the backup with this number.
    Backup(u64),
}

/// A read, a stat or a list.
#[derive(Debug)]
pub(super) struct PendingRead {
    pub(super) asker: Asker,
    pub(super) operation: Operation,
    /// It may be answered only from a store that has applied the log up to here.
    pub(super) index: LogIndex,
    pub(super) basis: ReadBasis,
}

/// What makes a read's answer true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadBasis {
    /// A round of heartbeats that is still under way, or was this node's own.
    Unconfirmed { batch: u64 },
    /// The answer of this node's leader, whose cluster time this was.
    Leader(ClusterTimeMs),
    /// Nothing: the client wants this node's state as it is.
    Local,
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: BTreeMap<(LogIndex, EntryId), Asker>,
    /// By number. A read whose time is up is gone from here and from the lists below.
    reads: BTreeMap<u64, PendingRead>,
    next_read: u64,
    /// Reads that wait for the round of heartbeats that confirms their batch, by batch and number.
    confirming: BTreeSet<(u64, u64)>,
    /// Confirmed reads, by the index that the store must have applied.
    applying: BTreeSet<(LogIndex, u64)>,
    /// Confirmed reads of followers.
    peer_reads: Vec<PeerRead>,
}

impl Pending {
    pub(super) fn add_change(&mut self, entry: EntryId, asker: Asker) {
        self.changes.insert((entry.index, entry), asker);
    }

    /// The number that the next read will have.
    pub(super) fn next_read(&self) -> u64 {
        self.next_read
    }

    /// Adds a read: to a batch that is to be confirmed, unless it needs no confirmation.
    pub(super) fn add_read(&mut self, read: PendingRead) {
        match read.basis {
            ReadBasis::Unconfirmed { batch } => self.confirming.insert((batch, self.next_read)),
            ReadBasis::Leader(_) | ReadBasis::Local => self.applying.insert((read.index, self.next_read)),
        };
        self.reads.insert(self.next_read, read);
        self.next_read += 1;
    }

    /// How many changes wait.
    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// How many reads wait.
    pub(super) fn reads(&self) -> usize {
        self.reads.len()
    }

    /// Takes the changes that were proposed at an index, whichever term they are of: once an entry is
    /// committed there, the fate of all of them is known.
    pub(super) fn take_changes_at(&mut self, index: LogIndex) -> Vec<(EntryId, Asker)> {
        let mut taken = Vec::new();
        while let Some(first) = self.changes.first_entry().filter(|first| first.key().0 <= index) {
            let ((_, entry), asker) = first.remove_entry();
            taken.push((entry, asker));
        }
        taken
    }

    /// Takes the changes that were proposed in a term before this one.
    pub(super) fn take_changes_before(&mut self, term: Term) -> Vec<Asker> {
        mark!("pending-change-of-earlier-term", self.changes.keys().any(|(_, entry)| entry.term < term));
        self.changes.extract_if(.., |(_, entry), _| entry.term < term).map(|(_, asker)| asker).collect()
    }

    /// The round of a batch came back: its reads wait for the store now.
    pub(super) fn confirm_reads(&mut self, ready: &ReadReady) {
        for number in self.take_batch(ready.id) {
            let read = self.reads.get_mut(&number).expect("a read that is to be confirmed");
            if !mutant!("read-before-apply") {
                read.index = read.index.max(ready.index);
            }
            if let Some(cluster_time) = ready.cluster_time {
                read.basis = ReadBasis::Leader(cluster_time);
            }
            self.applying.insert((read.index, number));
        }
    }

    fn take_batch(&mut self, batch: u64) -> Vec<u64> {
        self.confirming
            .extract_if((batch, 0)..=(batch, u64::MAX), |_| true)
            .map(|(_, number)| number)
            .collect()
    }

    /// Takes the reads of a batch that can no longer be confirmed.
    pub(super) fn take_lost_reads(&mut self, batch: u64) -> Vec<Asker> {
        let numbers = self.take_batch(batch);
        mark!("pending-read-is-lost", !numbers.is_empty());
        numbers.into_iter().filter_map(|number| self.reads.remove(&number)).map(|read| read.asker).collect()
    }

    /// Adds a confirmed read of a follower; it is dropped if too many wait, and the follower asks again.
    pub(super) fn add_peer_read(&mut self, read: PeerRead) {
        if self.peer_reads.len() < limits::PEER_READS_WAITING_MAX {
            self.peer_reads.push(read);
        }
    }

    /// Takes the followers' reads that a store can answer that has applied the log up to `last_applied`.
    pub(super) fn take_ready_peer_reads(&mut self, last_applied: LogIndex) -> Vec<PeerRead> {
        self.peer_reads.extract_if(.., |read| read.index <= last_applied).collect()
    }

    /// Takes a read that can be answered by a store that has applied the log up to `last_applied`.
    pub(super) fn take_ready_read(&mut self, last_applied: LogIndex) -> Option<(u64, PendingRead)> {
        while self.applying.first().is_some_and(|(index, _)| *index <= last_applied) {
            let (_, number) = self.applying.pop_first().expect("it was just seen");
            if let Some(read) = self.reads.remove(&number) {
                return Some((number, read));
            }
        }
        None
    }

    /// Puts a confirmed read back that must wait for more of the log after all.
    pub(super) fn put_back(&mut self, number: u64, read: PendingRead) {
        self.applying.insert((read.index, number));
        self.reads.insert(number, read);
    }

    /// Takes a request whose time is up.
    pub(super) fn take(&mut self, key: RequestKey) -> Option<Asker> {
        match key {
            RequestKey::Change(entry) => {
                mark!("pending-change-takes-too-long");
                self.changes.remove(&(entry.index, entry))
            }
            RequestKey::Forwarded(_) | RequestKey::Backup(_) => None,
            RequestKey::Read(number) => {
                mark!("pending-read-takes-too-long");
                let read = self.reads.remove(&number)?;
                self.applying.remove(&(read.index, number));
                if let ReadBasis::Unconfirmed { batch } = read.basis {
                    self.confirming.remove(&(batch, number));
                }
                Some(read.asker)
            }
        }
    }

    /// Takes every request, changes and reads: the process is about to end.
    pub(super) fn take_all(&mut self) -> (Vec<Asker>, Vec<Asker>) {
        let all = std::mem::take(self);
        (all.changes.into_values().collect(), all.reads.into_values().map(|read| read.asker).collect())
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.reads.is_empty()
    }
}
