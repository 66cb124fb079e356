//! Bringing a node up to date that lacks what the log no longer has: a new one, one whose directory was deleted, or one
//! that was away for long. It gets the store as of the leader's newest checkpoint, as a stream of chunks
//! ([`crate::transfer`]), and goes on from there with the log.
//!
//! A few chunks are under way to a node at a time, and their length follows how soon they are acknowledged: on a slow
//! connection, the heartbeat behind them must not wait for long. A few more are read ahead, so that neither disk waits for
//! the other. What is not acknowledged in time is sent again; where the connection was lost, or the leader found another
//! connection, the stream goes on where it was.
//!
//! The receiver takes chunks in their order alone, and acknowledges each when it is written. It writes contents into kept
//! segments and keeps the index in memory. When all is there, it writes a
//! checkpoint, and giving that its name is the atomic step: before, a start finds the node as it was, and files that
//! nothing refers to; behind it, a log that begins anew.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fsd_wire::client::{Outcome, Refusal};
use fsd_wire::peer::PeerMessage;
use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, SnapshotState};
use fsd_wire::{EntryId, NodeId};

use super::housekeeping::ReceivedStore;
use super::jobs::{ChunkRead, ChunkWritten, Job};
use super::node::Node;
use super::{Fault, Network};
use crate::limits;
use crate::mapping::Disk;
use crate::raft::{Input, LogSummary, SnapshotAnswer};
use crate::storage::StorageError;
use crate::transfer::{Chunk, Progress, Received, StreamReader, StreamWriter, TransferError};

/// Streams to and from this node.
pub(super) struct CatchUp<D: Disk> {
    sending: BTreeMap<NodeId, Sending<D>>,
    receiving: Option<Receiving<D>>,
    /// Answers that leave behind the next flush.
    replies: Vec<(NodeId, EntryId, u64, SnapshotState)>,
    pub(super) jobs: VecDeque<Job<D>>,
    /// How many streams were begun, in either direction.
    streams: u64,
    /// When a node refused last what it was sent.
    refused: BTreeMap<NodeId, u64>,
}

/// A stream to a node that is behind.
struct Sending<D: Disk> {
    /// What is read for an earlier one is not of this one.
    number: u64,
    entry: EntryId,
    /// While no job has it.
    reader: Option<Box<StreamReader<D>>>,
    /// What was read and is not acknowledged, one behind the other; the first ones are under way.
    chunks: VecDeque<ReadChunk>,
    chunk_bytes: usize,
    /// The node has what lies before this, perhaps by another stream of the same.
    skip_to: u64,
    /// The first chunk was sent again, and nothing is known to have come of it yet.
    is_repeated: bool,
}

struct ReadChunk {
    chunk: Chunk,
    /// When it was sent, if it is under way.
    sent_ms: Option<u64>,
}

/// A stream from the leader.
struct Receiving<D: Disk> {
    /// What is written of an earlier one is not of this one.
    number: u64,
    leader: NodeId,
    entry: EntryId,
    /// While no job has it, and more is to come.
    writer: Option<Box<StreamWriter<D>>>,
    /// All before this is written.
    next_offset: u64,
    /// What comes behind that which is being written, in order.
    waiting: VecDeque<Bytes>,
    /// Where the next chunk begins.
    wanted_offset: u64,
    /// All is there; it is taken when its checkpoint is begun.
    received: Option<ReceivedStore<D>>,
}

impl<D: Disk> Default for CatchUp<D> {
    fn default() -> Self {
        Self {
            sending: BTreeMap::new(),
            receiving: None,
            replies: Vec::new(),
            jobs: VecDeque::new(),
            streams: 0,
            refused: BTreeMap::new(),
        }
    }
}

impl<D: Disk> CatchUp<D> {
    /// The earliest entry as of which somebody is being sent the store: what is behind it must not be forgotten, or
    /// who got it would be behind again.
    pub(super) fn earliest_entry(&self) -> Option<EntryId> {
        self.sending.values().map(|sending| sending.entry).min_by_key(|entry| entry.index)
    }

    /// Whether a store is on its way to another node.
    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether a store is coming from another node.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    /// Whether a node may be sent a store: one that refused, as for want of room, is left in peace for a while.
    fn may_begin(&self, now_ms: u64, node: NodeId) -> bool {
        self.refused.get(&node).is_none_or(|refused_ms| now_ms >= refused_ms + limits::ROOM_STEP_MS)
    }

    /// A store that came whole, for its checkpoint to be begun.
    pub(super) fn take_received(&mut self) -> Option<ReceivedStore<D>> {
        self.receiving.as_mut()?.received.take()
    }
}

impl<D: Disk> Node<D> {
    /// A chunk came from who says that it leads.
    pub(super) fn take_chunk(&mut self, now_ms: u64, from: NodeId, request: InstallSnapshot) {
        let (term, entry) = (request.term, request.entry);
        let message = PeerMessage::InstallSnapshot(request.clone());
        self.raft.step(now_ms, Input::Receive { from, message });
        if term == self.raft.term() && self.raft.leader_id() != Some(from) {
            return;
        }
        match self.raft.wants_snapshot(term, entry) {
            SnapshotAnswer::StaleTerm => self.answer_chunk(from, entry, 0, SnapshotState::StaleTerm),
            SnapshotAnswer::HasIt => self.answer_chunk(from, entry, 0, SnapshotState::HasIt),
            SnapshotAnswer::Install => self.receive_chunk(from, request),
        }
    }

    fn answer_chunk(&mut self, to: NodeId, entry: EntryId, next_offset: u64, state: SnapshotState) {
        self.catch_up.replies.push((to, entry, next_offset, state));
    }

    fn receive_chunk(&mut self, from: NodeId, request: InstallSnapshot) {
        let InstallSnapshot { entry, offset, bytes, .. } = request;
        if self.catch_up.receiving.as_ref().is_none_or(|receiving| receiving.entry != entry) {
            self.abandon_receiving();
            if offset == 0 {
                let writer = StreamWriter::begin(self.log.disk(), Some(&self.config.cluster));
                let writer = Some(Box::new(writer));
                self.catch_up.streams += 1;
                self.catch_up.receiving = Some(Receiving {
                    number: self.catch_up.streams,
                    leader: from,
                    entry,
                    writer,
                    next_offset: 0,
                    waiting: VecDeque::new(),
                    wanted_offset: 0,
                    received: None,
                });
            }
        }
        let Some(receiving) = &mut self.catch_up.receiving else {
            self.answer_chunk(from, entry, 0, SnapshotState::Receiving);
            return;
        };
        receiving.leader = from;
        let is_idle = receiving.writer.is_some();
        if offset == receiving.wanted_offset && receiving.waiting.len() < limits::CHUNKS_UNDER_WAY {
            let bytes = bytes.to_bytes();
            receiving.wanted_offset += bytes.len() as u64;
            receiving.waiting.push_back(bytes);
            self.write_waiting();
        } else if is_idle {
            let next_offset = receiving.next_offset;
            self.answer_chunk(from, entry, next_offset, SnapshotState::Receiving);
        }
        // Otherwise something is being written, and an answer follows that; or all is there.
    }

    /// Writes the chunk that is next, unless one is being written.
    fn write_waiting(&mut self) {
        let Some(receiving) = &mut self.catch_up.receiving else { return };
        if receiving.writer.is_none() {
            return;
        }
        if let Some(bytes) = receiving.waiting.pop_front()
            && let Some(writer) = receiving.writer.take()
        {
            let (number, offset) = (receiving.number, receiving.next_offset);
            self.write_chunk(number, writer, offset, bytes);
        }
    }

    fn write_chunk(&mut self, number: u64, writer: Box<StreamWriter<D>>, offset: u64, bytes: Bytes) {
        let header = self.log.kept_header(self.log.segment_bytes());
        self.catch_up.jobs.push_back(Job::WriteStream(number, writer, offset, bytes, header));
    }

    /// What became of a chunk that was written.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn chunk_written(
        &mut self,
        number: u64,
        written: ChunkWritten<D>,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), Fault> {
        let Some(receiving) = self.catch_up.receiving.as_mut().filter(|known| known.number == number) else {
            // It was given up meanwhile; what it wrote goes, too.
            if let Ok((writer, progress)) = written {
                self.housekeeping.discard(writer.kept_names());
                self.housekeeping.let_go(writer);
                if let Progress::Whole(received) = progress {
                    self.housekeeping.discard(received.kept_names());
                    self.housekeeping.let_go(received);
                }
            }
            return Ok(());
        };
        let (leader, entry) = (receiving.leader, receiving.entry);
        match written {
            // A segment was full: the rest goes into another one.
            Ok((writer, Progress::More { next_offset })) if next_offset < offset + bytes.len() as u64 => {
                let rest = bytes.slice((next_offset - offset) as usize..);
                self.write_chunk(number, writer, next_offset, rest);
            }
            Ok((writer, Progress::More { next_offset })) => {
                receiving.writer = Some(writer);
                receiving.next_offset = next_offset;
                self.answer_chunk(leader, entry, next_offset, SnapshotState::Receiving);
                self.write_waiting();
            }
            Ok((_, Progress::Whole(received))) => receiving.received = Some(received),
            Err(error) => {
                self.catch_up.receiving = None;
                log::warn!("cannot take what node {leader} sends: {error}");
                let reason = error.to_string();
                self.answer_chunk(leader, entry, 0, SnapshotState::Refused { reason });
            }
        }
        Ok(())
    }

    /// Forgets a stream, and what came of it.
    pub(super) fn abandon_receiving(&mut self) {
        let Some(receiving) = self.catch_up.receiving.take() else { return };
        if let Some(writer) = receiving.writer {
            self.housekeeping.discard(writer.kept_names());
            self.housekeeping.let_go(writer);
        }
        if let Some(received) = receiving.received {
            self.housekeeping.discard(received.kept_names());
            self.housekeeping.let_go(received);
        }
    }

    /// Sends the answers that had to wait for the flush.
    pub(super) fn send_chunk_answers(&mut self, net: &mut impl Network) {
        let (term, incarnation) = (self.raft.term(), self.raft.hard_state().incarnation);
        for (to, entry, next_offset, state) in std::mem::take(&mut self.catch_up.replies) {
            let reply = InstallSnapshotReply { term, incarnation, entry, next_offset, state };
            net.send_peer(to, &PeerMessage::InstallSnapshotReply(reply));
        }
    }

    /// Replaces store and log by what came, if it is all there and in a checkpoint that only lacks its name. Nothing may
    /// wait to be flushed.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn install_received(&mut self, now_ms: u64, net: &mut impl Network) -> Result<(), Fault> {
        let Some(head) = self.housekeeping.ready_to_install() else { return Ok(()) };
        let (entry, base) = (head.entry, head.base());
        // Whoever leads meanwhile: the state as of a committed entry is the same.
        let wants = self.raft.wants_snapshot(self.raft.term(), entry) == SnapshotAnswer::Install;
        // The log must not have gone on behind the number that its next segment was promised.
        let is_free = self.log.base_is_free(&base);
        if !wants || !is_free {
            self.housekeeping.give_installation_up();
            self.abandon_receiving();
            return Ok(());
        }
        if self.log.is_dirty() || self.raft.has_actions() || self.log.waits_for_segment_behind(&base) {
            return Ok(());
        }
        let (head, received) = self.housekeeping.finish_installation()?;
        let Received { store, kept, .. } = *received;
        for spare in self.log.begin_anew(base) {
            self.housekeeping.discard([spare.name()].into_iter());
            self.housekeeping.let_go(spare);
        }
        kept.into_iter().for_each(|kept| self.log.install_kept(kept));
        self.housekeeping.let_go(std::mem::replace(&mut self.store, store));
        self.expiry_barrier = None;
        // What was proposed here in an earlier term may be part of that store, or not: it does not say.
        for (_, asker) in self.pending.take_changes_at(entry.index) {
            self.settle(asker, Outcome::Refused(Refusal::Unknown), net);
        }
        let summary = LogSummary {
            base: entry,
            committed: entry.index,
            term_starts: Vec::new(),
            last_index: entry.index,
            last_stamp: head.stamp,
            registrations: head.registrations.clone(),
            genesis: head.genesis,
        };
        log::info!("the store as of entry {} came from another node: {} files", entry.index, head.files);
        self.raft.step(now_ms, Input::Installed { summary });
        self.housekeeping.begin_anew(head);
        self.release_segments();
        if let Some(Receiving { leader, .. }) = self.catch_up.receiving.take() {
            self.answer_chunk(leader, entry, 0, SnapshotState::Installed);
        }
        self.unfinished = true;
        Ok(())
    }

    /// An answer came to a chunk.
    pub(super) fn take_chunk_answer(&mut self, now_ms: u64, from: NodeId, reply: InstallSnapshotReply) {
        let message = PeerMessage::InstallSnapshotReply(reply.clone());
        self.raft.step(now_ms, Input::Receive { from, message });
        let Some(sending) = self.catch_up.sending.get_mut(&from) else { return };
        if reply.term != self.raft.term() || reply.entry != sending.entry {
            return;
        }
        match reply.state {
            SnapshotState::Receiving => {
                if sending.acknowledge(now_ms, reply.next_offset, self.config.heartbeat_ms) {
                    self.end_stream(from);
                }
            }
            SnapshotState::Refused { reason } => {
                log::warn!("node {from} refuses what it is sent: {reason}");
                self.catch_up.refused.insert(from, now_ms);
                self.end_stream(from);
            }
            SnapshotState::Installed | SnapshotState::HasIt | SnapshotState::StaleTerm => {
                self.end_stream(from);
            }
        }
    }

    /// A chunk was read for a node.
    ///
    /// # Errors
    /// If what is to be sent is damaged, or the disk fails.
    pub(super) fn chunk_read(&mut self, node: NodeId, number: u64, read: ChunkRead<D>) -> Result<(), Fault> {
        let sending = self.catch_up.sending.get_mut(&node).filter(|known| known.number == number);
        let Some(sending) = sending else {
            self.housekeeping.let_go(read);
            return Ok(());
        };
        match read {
            Ok((reader, chunk)) => {
                sending.reader = reader;
                sending.chunks.push_back(ReadChunk { chunk, sent_ms: None });
                sending.skip();
            }
            // What was removed in between is in another checkpoint by now.
            Err(error) => {
                self.end_stream(node);
                if let TransferError::Storage(error @ StorageError::Damage { .. }) = error {
                    return Err(error.into());
                }
                log::warn!("cannot read what node {node} lacks, and will try again: {error}");
            }
        }
        Ok(())
    }

    /// Begins streams to those who are behind, ends those that are no longer needed, and sends what is due.
    pub(super) fn advance_streams(&mut self, now_ms: u64, net: &mut impl Network) {
        let behind: Vec<NodeId> = self.raft.behind().collect();
        for (_, ended) in self.catch_up.sending.extract_if(.., |node, _| !behind.contains(node)) {
            self.housekeeping.let_go(ended);
        }
        let resend_ms = 2 * self.config.election_timeout_ms;
        for node in behind {
            if !self.catch_up.sending.contains_key(&node) && self.catch_up.may_begin(now_ms, node) {
                self.begin_stream(node);
            }
            let Some(sending) = self.catch_up.sending.get_mut(&node) else { continue };
            sending.take_overdue_back(now_ms, resend_ms);
            for ReadChunk { chunk, sent_ms } in sending.chunks.iter_mut().take(limits::CHUNKS_UNDER_WAY) {
                if sent_ms.is_some() {
                    continue;
                }
                *sent_ms = Some(now_ms);
                let request = InstallSnapshot {
                    term: self.raft.term(),
                    leader_id: self.config.node,
                    entry: sending.entry,
                    offset: chunk.offset,
                    is_last: chunk.is_last,
                    bytes: chunk.bytes.clone().into(),
                };
                net.send_peer(node, &PeerMessage::InstallSnapshot(request));
            }
        }
        for (node, sending) in &mut self.catch_up.sending {
            if sending.wants_chunk()
                && let Some(reader) = sending.reader.take()
            {
                self.catch_up.jobs.push_back(Job::ReadStream(
                    *node,
                    sending.number,
                    reader,
                    sending.chunk_bytes,
                ));
            }
        }
    }

    fn end_stream(&mut self, node: NodeId) {
        if let Some(ended) = self.catch_up.sending.remove(&node) {
            self.housekeeping.let_go(ended);
        }
    }

    fn begin_stream(&mut self, node: NodeId) {
        let Some(head) = self.housekeeping.newest_checkpoint() else { return };
        log::info!(
            "node {node} is sent the store as of entry {}: its log ends too far back",
            head.entry.index
        );
        let chunk_bytes = limits::CHUNK_BYTES_MIN;
        self.catch_up.streams += 1;
        let number = self.catch_up.streams;
        let job = Job::OpenStream(node, number, head.clone(), chunk_bytes);
        let sending = Sending {
            number,
            entry: head.entry,
            reader: None,
            chunks: VecDeque::new(),
            chunk_bytes,
            skip_to: 0,
            is_repeated: false,
        };
        self.catch_up.jobs.push_back(job);
        self.catch_up.sending.insert(node, sending);
    }
}

impl<D: Disk> Sending<D> {
    /// Whether more is to be read.
    fn wants_chunk(&self) -> bool {
        self.chunks.len() < limits::CHUNKS_UNDER_WAY + limits::CHUNKS_READ_AHEAD
            && self.chunks.back().is_none_or(|last| !last.chunk.is_last)
    }

    /// The node has everything before `next_offset`. Whether it knows nothing of the stream any more.
    fn acknowledge(&mut self, now_ms: u64, next_offset: u64, heartbeat_ms: u64) -> bool {
        let Some(first) = self.chunks.front() else { return false };
        // What asks for bytes before the first one is a late answer, unless the node was started anew. An answer from before
        // that may have come meanwhile, and have been taken for the new one's.
        let is_forgotten = next_offset < first.chunk.offset && (next_offset == 0 || self.is_repeated);
        for ReadChunk { chunk, sent_ms } in &self.chunks {
            let Some(sent_ms) = sent_ms.filter(|_| chunk.end() <= next_offset) else { break };
            let (bytes, is_quick) = (chunk.bytes.len(), now_ms - sent_ms <= heartbeat_ms / 2);
            // Each length is tried before the next one: several chunks were read before the first one was answered.
            if is_quick && bytes >= self.chunk_bytes {
                self.chunk_bytes = (bytes * 2).min(limits::CHUNK_BYTES_MAX);
            } else if !is_quick {
                self.chunk_bytes = self.chunk_bytes.min(bytes / 2).max(limits::CHUNK_BYTES_MIN);
            }
        }
        self.is_repeated &= next_offset <= first.chunk.offset;
        self.skip_to = self.skip_to.max(next_offset);
        self.skip();
        is_forgotten
    }

    /// Passes over what the node has already.
    fn skip(&mut self) {
        while let Some(ReadChunk { chunk, sent_ms }) = self.chunks.front_mut() {
            let known = self.skip_to.saturating_sub(chunk.offset).min(chunk.bytes.len() as u64);
            if known == chunk.bytes.len() as u64 && !chunk.is_last {
                self.chunks.pop_front();
                continue;
            }
            if known > 0 {
                chunk.bytes = chunk.bytes.slice(known as usize..);
                chunk.offset += known;
                *sent_ms = None;
            }
            return;
        }
    }

    /// What the node should have acknowledged by now may be lost, and what was sent behind it is of no use without it.
    fn take_overdue_back(&mut self, now_ms: u64, resend_ms: u64) {
        let first_ms = self.chunks.front().and_then(|first| first.sent_ms);
        if first_ms.is_some_and(|sent_ms| now_ms >= sent_ms + resend_ms) {
            self.is_repeated = true;
            self.chunks.iter_mut().for_each(|chunk| chunk.sent_ms = None);
        }
    }
}

#[cfg(test)]
mod tests;
