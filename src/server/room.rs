//! How much room is left on the disk, and what a node does while there is little.
//!
//! It takes room to make room: deletes are entries of the log, and what they free comes back only behind a checkpoint, or
//! a copy of what lived beside it. So a part of the disk is a **reserve** that clients' contents never get:
//! [`limits::RESERVE_SEGMENTS`] segments and [`limits::RESERVE_CHECKPOINTS`] times the next checkpoint. While less than
//! that is left, the node is **low**:
//!
//! * As leader it refuses what makes files grow, and hands over to a node that has said that it has room. Deletes, sessions and
//!   stamps go on, out of the reserve. A leader whose own disk is well refuses the same when so many others are low
//!   that no majority is left without them: what it took could not be committed, and would stand before all deletes.
//! * It stands for election later than others would, takes checkpoints sooner, and asks every second what is left.
//!
//! The log never gets the last part of the reserve, which checkpoints and cleaning need ([`limits::HOUSEKEEPING_SEGMENTS`]). A node
//! whose log has no room left for what comes appends nothing of it (`raft::room`), and says that it is **full**.
//!
//! Free bytes are asked for by the helper, between turns. They are an estimate: what counts is that a segment was made.
//! Nothing is proposed or taken from a leader unless it fits into segments that are there; where the helper was
//! not quick enough, one is made in the turn, before the core hears of the entries ([`Node::make_room`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use fsd_wire::client::Refusal;
use fsd_wire::peer::{AppendEntries, PeerMessage, RoomState};
use fsd_wire::{LogIndex, NodeId};

use super::measurements::RequestKind;
use super::node::{Node, Timer};
use super::{Fault, Network};
use crate::limits;
use crate::mapping::Disk;
use crate::marks::mark;
use crate::mutants::mutant;
use crate::raft::Input;
use crate::storage::{StorageError, checkpoint};

/// What a node knows of its room, and of that of the others.
#[derive(Debug)]
pub(super) struct Room {
    /// As the system told last, less what was made since; unknown until it is told for the first time.
    free_bytes: Option<u64>,
    /// A segment of this length could not be made since, whatever the system tells.
    failed_bytes: Option<u64>,
    is_low: bool,
    /// The system is to be asked.
    asks: bool,
    is_asking: bool,
    seconds: u64,
    /// What the others were told last, and who still has to be.
    told: RoomState,
    untold: BTreeSet<NodeId>,
    /// What they said, and when.
    peers: BTreeMap<NodeId, (RoomState, u64)>,
    /// Not before this, and to whom it was tried last.
    hands_over_at_ms: u64,
    handed_to: Option<NodeId>,
    /// A segment could not be made, for another reason than that there is no room.
    fault: Option<StorageError>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free_bytes: None,
            failed_bytes: None,
            is_low: false,
            asks: true,
            is_asking: false,
            seconds: 0,
            told: RoomState::Enough,
            untold: BTreeSet::new(),
            peers: BTreeMap::new(),
            hands_over_at_ms: 0,
            handed_to: None,
            fault: None,
        }
    }
}

impl Room {
    /// Whether little is left: what makes files grow is refused, and room is to be made.
    pub(super) fn is_low(&self) -> bool {
        self.is_low
    }

    /// The system is asked soon: something was made or removed.
    pub(super) fn ask(&mut self) {
        self.asks = true;
    }

    /// Whether the helper is to ask now.
    pub(super) fn wants_to_ask(&mut self) -> bool {
        let wants = self.asks && !self.is_asking;
        if wants {
            (self.asks, self.is_asking) = (false, true);
        }
        wants
    }

    /// There is a connection to a node: it is to be told.
    pub(super) fn meet(&mut self, node: NodeId) {
        self.untold.insert(node);
    }

    /// What could not be made found no room.
    pub(super) fn found_none(&mut self) {
        self.free_bytes = Some(0);
        self.asks = true;
    }

    /// This much was made.
    fn made(&mut self, bytes: u64) {
        self.free_bytes = self.free_bytes.map(|free_bytes| free_bytes.saturating_sub(bytes));
        self.failed_bytes = None;
        self.asks = true;
    }

    fn could_not_make(&mut self, bytes: u64) {
        mark!("room-is-less-than-was-told", self.free_bytes.is_some_and(|free_bytes| free_bytes >= bytes));
        self.failed_bytes = Some(bytes);
        self.found_none();
    }

    fn has_said(&self, node: NodeId, wanted: RoomState) -> bool {
        self.peers.get(&node).is_some_and(|(state, _)| *state == wanted)
    }
}

/// Whether this says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<D: Disk> Node<D> {
    /// Whether this node has little room left on its disk.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.room.is_low
    }

    /// The length of the next checkpoint.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        checkpoint::file_bytes_about(self.log.segment_count() as u64, self.store.image_head().items_bytes)
    }

    /// Below this much, what makes files grow is refused.
    pub(super) fn reserve_bytes(&self) -> u64 {
        limits::RESERVE_SEGMENTS * self.log.segment_bytes()
            + limits::RESERVE_CHECKPOINTS * self.checkpoint_bytes()
    }

    /// Whether the log may have another segment, as far as is known.
    pub(super) fn may_make_segment(&self, bytes: u64) -> bool {
        let kept_back_bytes = limits::HOUSEKEEPING_SEGMENTS * self.log.segment_bytes()
            + limits::RESERVE_CHECKPOINTS * self.checkpoint_bytes();
        self.room.free_bytes.is_none_or(|free_bytes| free_bytes >= bytes.saturating_add(kept_back_bytes))
    }

    /// Whether there is room for a checkpoint, as far as is known.
    pub(super) fn may_make_checkpoint(&self) -> bool {
        self.room.free_bytes.is_none_or(|free_bytes| free_bytes >= self.checkpoint_bytes())
    }

    /// A turn begins: the core is told what the log can take. There is always room for what a node appends by itself, as
    /// long as any can be made.
    pub(super) fn begin_room(&mut self) {
        self.refresh_room();
        self.make_room(std::iter::once(limits::OWN_ENTRY_BYTES_MAX));
    }

    /// Something was appended, or made ready.
    pub(super) fn refresh_room(&mut self) {
        self.raft.set_room(self.log.rest_bytes(), self.log.ready_bytes());
    }

    /// Sees to it that entries with these payloads can be appended, if at all possible.
    pub(super) fn make_room(&mut self, payloads: impl Iterator<Item = usize> + Clone) {
        while !self.raft.has_room_for(payloads.clone()) {
            let largest = payloads.clone().max().unwrap_or(0);
            let bytes = self.log.segment_bytes_for(largest);
            let is_hopeless = self.room.failed_bytes.is_some() || self.room.fault.is_some();
            if is_hopeless || !self.may_make_segment(bytes) {
                mark!("room-is-not-made-out-of-reserve", !is_hopeless);
                // What was ready is used up since the room was judged, and it may be long since the system was asked.
                if !is_hopeless && !self.room.is_low {
                    self.room.ask();
                    self.judge_room();
                }
                return;
            }
            match self.log.make_room(largest) {
                Ok(()) => {
                    mark!("room-is-made-in-a-turn");
                    self.room.made(bytes);
                    self.refresh_room();
                }
                Err(StorageError::Io { source, .. }) if is_full(&source) => {
                    mark!("room-is-found-gone-in-a-turn");
                    self.room.could_not_make(bytes);
                    self.judge_room();
                    return;
                }
                Err(error) => {
                    self.room.fault = Some(error);
                    return;
                }
            }
        }
    }

    /// A message of a peer comes, for the core but for what a peer says of its room.
    pub(super) fn receive(&mut self, now_ms: u64, from: NodeId, message: PeerMessage) {
        match &message {
            PeerMessage::Room(state) => return self.take_room(now_ms, from, *state),
            PeerMessage::AppendEntries(request) => self.make_room_for_entries(request),
            _ => {}
        }
        self.raft.step(now_ms, Input::Receive { from, message });
    }

    /// Makes room for what a leader sends.
    fn make_room_for_entries(&mut self, request: &AppendEntries) {
        if request.entries.is_empty() || request.term < self.raft.term() {
            return;
        }
        let base = self.raft.base().index;
        let is_new = |index: LogIndex, term| index > base && self.raft.term_at(index) != Some(term);
        let new = request.entries.iter().filter(|entry| is_new(entry.index, entry.term));
        let payloads = new.map(|entry| entry.payload.len());
        if !self.raft.has_room_for(payloads.clone()) {
            let payloads: Vec<usize> = payloads.collect();
            self.make_room(payloads.into_iter());
        }
    }

    /// What went wrong when room was made.
    pub(super) fn take_fault_of_room(&mut self) -> Result<(), Fault> {
        self.room.fault.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// As leader: whether a change is refused for want of room.
    pub(super) fn refusal_for_room(&self, kind: RequestKind) -> Option<Refusal> {
        let grows = matches!(kind, RequestKind::Write | RequestKind::Cas);
        if !grows || !self.raft.is_leader() || mutant!("reserve-is-used-by-writes") {
            return None;
        }
        let own = self.room.is_low.then_some(self.config.node);
        let members = self.config.members.iter().map(|member| member.node);
        let others_low: Vec<NodeId> = members
            .filter(|node| {
                self.room.has_said(*node, RoomState::Low) || self.room.has_said(*node, RoomState::Full)
            })
            .collect();
        let has_majority = 2 * (self.config.members.len() - others_low.len()) > self.config.members.len();
        mark!("room-of-majority-is-low", own.is_none() && !has_majority);
        let node = own.or(others_low.first().copied().filter(|_| !has_majority))?;
        mark!("dispatch-refuses-for-want-of-room");
        Some(Refusal::DiskFull { node })
    }

    /// The system told how many bytes are left, or did not.
    pub(super) fn room_told(&mut self, told: io::Result<u64>) {
        self.room.is_asking = false;
        match told {
            Ok(free_bytes) => self.room.free_bytes = Some(free_bytes),
            Err(error) => {
                log::warn!("cannot find out how much room is left on the disk: {error}");
                self.room.free_bytes = None;
            }
        }
        if let Some(bytes) = self.room.failed_bytes
            && self.may_make_segment(bytes)
        {
            // A segment that is ready shows nothing of another, and is not made anew.
            if self.log.ready_segments_bytes() > 0 {
                self.room.failed_bytes = None;
            }
            self.log.want_spare_again();
        }
        self.judge_room();
    }

    /// A segment was made ready, or could not be.
    pub(super) fn spare_made(&mut self, bytes: u64, error: Option<&io::Error>) {
        match error {
            None => self.room.made(bytes),
            Some(error) if is_full(error) => self.room.could_not_make(bytes),
            Some(_) => {}
        }
        self.judge_room();
    }

    /// Whether little is left, by what is known now.
    fn judge_room(&mut self) {
        let Some(free_bytes) = self.room.free_bytes else { return };
        let (reserve_bytes, segment_bytes) = (self.reserve_bytes(), self.log.segment_bytes());
        let left_bytes = free_bytes.saturating_add(self.log.ready_segments_bytes());
        let wanted_bytes = if self.room.is_low { reserve_bytes + segment_bytes / 2 } else { reserve_bytes };
        let is_low = left_bytes < wanted_bytes || self.room.failed_bytes.is_some();
        if is_low == std::mem::replace(&mut self.room.is_low, is_low) {
            return;
        }
        mark!("room-becomes-low", is_low);
        mark!("room-comes-back", !is_low);
        self.raft.set_low(is_low);
        self.room.handed_to = None;
        self.unfinished = true;
        if is_low {
            log::warn!(
                "little room is left on the disk: {left_bytes} bytes, and {reserve_bytes} are kept back for making room: \
                 what makes files grow is refused where this node leads. Delete files, or make room"
            );
        } else {
            log::info!("there is room on the disk again: {left_bytes} bytes");
        }
    }

    /// Another second has passed.
    pub(super) fn step_room(&mut self, now_ms: u64) {
        self.wheel.insert(now_ms + limits::ROOM_STEP_MS, Timer::Room);
        self.room.seconds += 1;
        let is_tenth = self.room.seconds.is_multiple_of(limits::ROOM_STEPS_WHILE_ENOUGH);
        if self.room.is_low || is_tenth || self.catch_up.is_receiving() {
            self.room.ask();
        }
        if self.room.told != RoomState::Enough || is_tenth {
            self.room.untold.extend(self.connected.keys());
        }
        let raft = &mut self.raft;
        self.room.peers.retain(|node, (state, said_ms)| {
            let steps = if *state == RoomState::Enough { limits::ROOM_STEPS_WHILE_ENOUGH } else { 1 };
            let counts = now_ms < *said_ms + 3 * steps * limits::ROOM_STEP_MS;
            if !counts {
                raft.set_peer_full(*node, false);
            }
            counts
        });
        // What was deleted leaves the disk behind a checkpoint, and that takes an entry behind the last one.
        let somebody_is_low =
            self.room.is_low || self.room.peers.values().any(|(state, _)| *state != RoomState::Enough);
        let is_idle = self.raft.last_stamp().0 + limits::ROOM_STEP_MS <= self.raft.cluster_time(now_ms).0;
        if self.raft.is_leader() && somebody_is_low && is_idle {
            // Refused, it is tried again.
            let _ = self.raft.propose_tick(now_ms);
        }
        self.look_at_space(now_ms);
    }

    /// A node says how much room it has.
    fn take_room(&mut self, now_ms: u64, from: NodeId, state: RoomState) {
        self.room.peers.insert(from, (state, now_ms));
        self.raft.set_peer_full(from, state == RoomState::Full);
    }

    /// A turn ends: the others are told what has changed, and a leader that is low hands over.
    pub(super) fn finish_room(&mut self, now_ms: u64, net: &mut impl Network) {
        let lacks = self.raft.lacks_room_for();
        let is_full = lacks.is_some_and(|payload_bytes| {
            self.room.failed_bytes.is_some()
                || !self.may_make_segment(self.log.segment_bytes_for(payload_bytes))
        });
        let state = match (is_full, self.room.is_low) {
            (true, _) => RoomState::Full,
            (false, true) => RoomState::Low,
            (false, false) => RoomState::Enough,
        };
        if state != self.room.told {
            self.room.told = state;
            self.room.untold.extend(self.connected.keys());
        }
        // Before it has asked, it has nothing to say.
        if self.room.free_bytes.is_some() {
            for node in std::mem::take(&mut self.room.untold) {
                net.send_peer(node, &PeerMessage::Room(state));
            }
        }
        if !self.raft.is_leader() {
            return;
        }
        // A leader that was elected just now has forgotten it.
        for (node, _) in self.room.peers.iter().filter(|(_, (state, _))| *state == RoomState::Full) {
            self.raft.set_peer_full(*node, true);
        }
        if self.room.is_low && now_ms >= self.room.hands_over_at_ms && !self.is_stopping() {
            self.hand_over_for_room(now_ms);
        }
    }

    fn hand_over_for_room(&mut self, now_ms: u64) {
        let commit_index = self.raft.commit_index();
        let fit = self.raft.follower_match_indexes().filter(|(node, match_index)| {
            *match_index >= commit_index && self.room.has_said(*node, RoomState::Enough)
        });
        let best = fit.max_by_key(|(node, match_index)| (*match_index, std::cmp::Reverse(*node)));
        let Some((to, _)) = best.filter(|_| !mutant!("low-leader-stays")) else { return };
        mark!("leader-hands-over-for-want-of-room");
        if self.room.handed_to.replace(to) != Some(to) {
            log::info!("node {} hands leadership over to node {to}, which has room", self.config.node);
        }
        self.room.hands_over_at_ms = now_ms + 2 * self.config.election_timeout_ms;
        self.raft.step(now_ms, Input::TransferLeadership { to: Some(to) });
    }

    /// While there is little room: whether a checkpoint would be a step towards letting a segment go in which nothing is live.
    pub(super) fn checkpoint_would_make_room(&self) -> bool {
        let checkpoints = self.housekeeping.checkpoints();
        let log_begins = match checkpoints {
            [older, .., _] => older.log_end.segment(),
            _ => crate::storage::SegmentId(0),
        };
        let is_held =
            |id| id >= log_begins || checkpoints.iter().any(|head| head.segments.binary_search(&id).is_ok());
        let mut sealed = self.log.sealed_segments().map(|segment| segment.id);
        sealed.any(|id| self.store.live(id.0).files == 0 && is_held(id))
    }
}
