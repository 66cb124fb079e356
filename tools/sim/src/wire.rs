//! What a node says in one turn, on its way to the streams: everything that promises durability is held against the
//! disk as it is at that very moment.

use fsd::net::{ConnectionId, HttpReply};
use fsd::server::Network;
use fsd::simulated_disk::{SimulatedDisk, Unflushed};
use fsd::storage;
use fsd_wire::client::ClientReply;
use fsd_wire::hello::{HelloStatus, Identity};
use fsd_wire::peer::{AppendEntriesReply, AppendResult, PeerMessage};
use fsd_wire::snapshot::SnapshotState;
use fsd_wire::{FrameDecoder, LogIndex, Message, NodeId, Term};

use crate::late_answers::Asked;
use crate::process::directory_of;
use crate::sockets::{Moment, Sockets};

/// Entries of a log that recovering a copy of it may cost for each promise, on average.
const ENTRIES_PER_PROMISE: u64 = 2;
/// One message of so many is decoded again at once.
const CODEC_CHECKED_OF: u32 = 32;

/// A node's network during one turn.
pub(crate) struct Wire<'a> {
    pub(crate) node: NodeId,
    pub(crate) sockets: &'a mut Sockets,
    pub(crate) moment: Moment<'a>,
    pub(crate) disk: &'a SimulatedDisk,
    pub(crate) segment_bytes: u64,
    /// When the turn began, and how many flushes there had been.
    pub(crate) began_us: u64,
    pub(crate) flushes: u64,
    pub(crate) flush_us: u64,
    pub(crate) log_last: LogIndex,
    /// Its disk has rotted: what it would find after a power failure is no promise.
    pub(crate) is_rotten: bool,
    pub(crate) random: &'a mut fastrand::Rng,
    /// What was asked for last.
    pub(crate) asked: Option<Asked>,
    /// See [`Process`](crate::process::Process).
    pub(crate) acknowledged: (Term, LogIndex),
    /// What was found wrong.
    pub(crate) failure: Option<String>,
    /// Recoveries of copies of disks that were made.
    pub(crate) proofs: u64,
}

impl Wire<'_> {
    /// The turn has come as far as its flushes took.
    fn advance(&mut self) {
        self.moment.now_us = self.began_us + (self.disk.flushes() - self.flushes) * self.flush_us;
    }

    pub(crate) fn depart(&mut self) {
        self.advance();
        self.sockets.depart(&mut self.moment);
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.failure.is_none() {
            self.failure = Some(format!("node {}: {}", self.node, what()));
        }
    }

    fn check_promise(&mut self, to: NodeId, message: &PeerMessage) {
        if let PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term,
            result: AppendResult::Matched { match_index },
            ..
        }) = message
        {
            self.acknowledged = self.acknowledged.max((*term, *match_index));
        }
        let promises_all = match message {
            PeerMessage::RequestVoteReply(reply) => reply.vote_granted,
            PeerMessage::AppendEntriesReply(reply) => matches!(reply.result, AppendResult::Matched { .. }),
            PeerMessage::InstallSnapshotReply(reply) => {
                matches!(reply.state, SnapshotState::Installed | SnapshotState::HasIt)
            }
            PeerMessage::RequestVote(request) if !request.pre_vote => false,
            _ => return,
        };
        if promises_all {
            let unflushed = self.disk.unflushed_files();
            // A segment that could not be made ready leaves a temporary file behind.
            let counts = unflushed.iter().any(|name| !name.ends_with(".tmp"));
            self.check(!counts, || format!("{message:?} left before a flush of {unflushed:?}"));
        }
        if !self.is_rotten && self.random.u64(..self.log_last.0.max(16)) < ENTRIES_PER_PROMISE {
            self.prove(to, message);
        }
    }

    /// Loses power on a copy of the disk, and looks for what the message promises in what is recovered.
    fn prove(&mut self, to: NodeId, message: &PeerMessage) {
        self.proofs += 1;
        let fate = if self.random.bool() { Unflushed::Lost } else { Unflushed::Drawn(self.random.u64(..)) };
        let mut draw = || 1;
        let copy = self.disk.crash(fate);
        let recovered = match storage::open(copy, &directory_of(self.node), self.segment_bytes, &mut draw) {
            Ok(storage) => storage.recovered,
            Err(error) => {
                self.check(false, || format!("after a power failure behind {message:?}: {error}"));
                return;
            }
        };
        let state = &recovered.state;
        match message {
            PeerMessage::RequestVoteReply(reply) if reply.vote_granted && !reply.pre_vote => {
                let voted = state.term == reply.election_term && state.voted_for == Some(to);
                // In the same turn it may have come to a later term, in which that vote cannot be given again.
                let holds = voted || state.term > reply.election_term;
                self.check(holds, || format!("{message:?} to {to} is not in {state:?}"));
            }
            PeerMessage::RequestVote(request) => {
                let voted = state.term == request.term && state.voted_for == Some(self.node);
                let holds = voted || state.term > request.term;
                self.check(holds, || format!("{message:?} is not in {state:?}"));
            }
            PeerMessage::AppendEntriesReply(reply) => {
                if let AppendResult::Matched { match_index } = reply.result {
                    let last = recovered.log.last_index;
                    // In the same turn it may have come to a later term, and taken that leader's entries instead.
                    let holds = last >= match_index && state.term == reply.term || state.term > reply.term;
                    self.check(holds, || format!("{message:?}: the disk has {last} entries and {state:?}"));
                }
            }
            PeerMessage::InstallSnapshotReply(reply) => {
                let holds = matches!(reply.state, SnapshotState::Installed | SnapshotState::HasIt);
                let last = recovered.log.last_index;
                self.check(!holds || last >= reply.entry.index && state.term >= reply.term, || {
                    format!("{message:?}: the disk has {last} entries and {state:?}")
                });
            }
            _ => {}
        }
    }

    fn check_codec(&mut self, message: &PeerMessage) {
        if self.random.u32(..CODEC_CHECKED_OF) != 0 {
            return;
        }
        let mut decoder = FrameDecoder::new(fsd::limits::PEER_FRAME_BYTES_MAX);
        message.to_frame().iter().for_each(|piece| decoder.feed(piece));
        let decoded = decoder.next_frame().ok().flatten().and_then(|frame| PeerMessage::decode(&frame).ok());
        self.check(decoded.as_ref() == Some(message), || format!("{message:?} decodes as {decoded:?}"));
    }
}

impl Network for Wire<'_> {
    fn reply(&mut self, connection: ConnectionId, reply: &ClientReply) {
        let key = connection.key();
        if self.sockets.holds(key) {
            self.sockets.say(self.moment.fabric, key, reply);
        }
    }

    // Nobody asks a simulated node for pages.
    fn reply_page(&mut self, _connection: ConnectionId, _reply: &HttpReply) {}

    fn answer_peer(
        &mut self,
        _now_ms: u64,
        connection: ConnectionId,
        node: NodeId,
        status: HelloStatus,
        reason: String,
    ) {
        self.advance();
        self.sockets.answer_peer(&mut self.moment, connection, node, status, reason);
    }

    fn open_link(&mut self, node: NodeId) {
        self.sockets.open_link(node);
    }

    fn refuse_link(&mut self, _now_ms: u64, node: NodeId, _reason: String) {
        self.advance();
        self.sockets.refuse_link(&mut self.moment, node);
    }

    fn send_peer(&mut self, node: NodeId, message: &PeerMessage) {
        self.check_promise(node, message);
        self.check_codec(message);
        self.asked = Asked::by(message).or(self.asked);
        if let Some(key) = self.sockets.connection_to(node) {
            self.sockets.say(self.moment.fabric, key, message);
        }
    }

    fn push_peers(&mut self, _now_ms: u64) {
        self.depart();
    }

    fn has_client(&self, connection: ConnectionId) -> bool {
        self.sockets.holds(connection.key())
    }

    fn set_identity(&mut self, identity: Identity) {
        self.sockets.set_identity(identity);
    }
}
