//! Requests of clients: from the message to a proposal, a read, or an answer at once.

use fsd_wire::client::{ClientReply, ClientRequest, FileInfo, Operation, Outcome, Refusal};
use fsd_wire::{ClusterTimeMs, Command, EntryId, LogIndex, Payload, RequestId, SessionCommand};

use super::measurements::RequestKind;
use super::node::Node;
use super::pending::{Asked, Asker, Origin, PendingRead, ReadBasis, RequestKey};
use super::{Fault, Network};
use crate::config::{TextReads, TextWrites};
use crate::file_store::{self, ContentsAt, File, FileName};
use crate::limits;
use crate::mapping::Disk;
use crate::marks::mark;
use crate::mutants::mutant;
use crate::net::ConnectionId;
use crate::raft::{Input, ProposeError};
use crate::storage::Position;

impl<D: Disk> Node<D> {
    /// Takes a request up: it is answered now, or waits.
    pub(super) fn dispatch(
        &mut self,
        now_ms: u64,
        origin: Origin,
        request: ClientRequest,
        net: &mut impl Network,
    ) {
        let ClientRequest { id, timeout_ms, operation } = request;
        let asked = Asked { kind: RequestKind::of(&operation), at_us: self.measurements.now_us };
        let mut client = Client { origin, id, timeout_ms, asked };
        let answer = match operation {
            Operation::Status => Some(Outcome::Status(self.status())),
            Operation::StorageStatus => Some(Outcome::StorageStatus(self.storage_status())),
            Operation::Change { command } if self.forwards(origin) => {
                self.forward(now_ms, &mut client, &command)
            }
            Operation::Change { command } => self.change(now_ms, &mut client, command),
            Operation::OpenSession => {
                let (idle_ms, sessions_max) = (self.config.session_idle_ms, self.config.sessions_max);
                self.in_session(now_ms, &mut client, &SessionCommand::Open { idle_ms, sessions_max })
            }
            Operation::SessionChange { session, sequence, acknowledged, command } => {
                let change = SessionCommand::Change { session, sequence, acknowledged, command };
                self.in_session(now_ms, &mut client, &change)
            }
            Operation::KeepAlive { session, acknowledged } => {
                self.in_session(now_ms, &mut client, &SessionCommand::KeepAlive { session, acknowledged })
            }
            Operation::CloseSession { session } => {
                self.in_session(now_ms, &mut client, &SessionCommand::Close { session })
            }
            Operation::BackupChunk { backup, offset } => self.fetch_backup(now_ms, client, backup, offset),
            operation => self.read(now_ms, client, operation),
        };
        if let Some(outcome) = answer {
            self.measurements.answered(client.asked, &outcome);
            self.send_reply(origin, ClientReply { id, outcome }, net);
        }
    }

    /// Whether the changes of a client are passed on for it. Also at the leader: it may lose its place before it knows
    /// what becomes of one, and its client would not understand a redirect.
    pub(super) fn forwards(&self, origin: Origin) -> bool {
        self.config.text_writes == TextWrites::Forward && origin.is_text()
    }

    /// The refusal that names the leader, as far as it is known. Nothing was done.
    pub(super) fn not_leader(&self, origin: Origin) -> Outcome {
        // Whoever knows no redirects is not given one.
        let leader =
            self.raft.leader_id().filter(|leader| *leader != self.config.node && !self.forwards(origin));
        let member =
            leader.and_then(|leader| self.config.members.iter().find(|member| member.node == leader));
        Outcome::Refused(match member {
            None => Refusal::NoLeader,
            Some(member) => Refusal::NotLeader {
                leader: member.node,
                address: match origin.is_text() {
                    false => member.client.to_string(),
                    true => member.text.map_or(String::new(), |text| text.to_string()),
                },
                term: self.raft.term(),
            },
        })
    }

    /// Proposes a change outside of sessions; the answer at once if it cannot be.
    fn change(&mut self, now_ms: u64, client: &mut Client, command: Payload) -> Option<Outcome> {
        if let Err(refusal) = self.check(client, &command) {
            return refused(refusal);
        }
        if let Some(refusal) = self.refusal_for_room(client.asked.kind) {
            return refused(refusal);
        }
        self.make_room(std::iter::once(command.len()));
        let proposed = self.raft.propose(now_ms, command);
        self.wait_for_entry(now_ms, *client, proposed)
    }

    /// Proposes what a client wants of its session; the answer at once if it cannot be. Whether a change was made
    /// before is decided where its entry is applied, so a repetition is proposed like any other: two entries of
    /// one change are answered each in its place, with the same reply.
    fn in_session(&mut self, now_ms: u64, client: &mut Client, command: &SessionCommand) -> Option<Outcome> {
        if let SessionCommand::Change { command, .. } = command
            && let Err(refusal) = self.check(client, command)
        {
            return refused(refusal);
        }
        // True at every node and for ever: no entry can do anything in this session any more.
        let by_clock = mutant!("session-ends-by-clock")
            && self.store.next_session_due().is_some_and(|due| due < self.raft.cluster_time(now_ms));
        if command.session().is_some_and(|session| self.store.session_is_gone(session) || by_clock) {
            mark!("dispatch-knows-session-is-gone");
            return refused(Refusal::SessionGone);
        }
        if let Some(refusal) = self.refusal_for_room(client.asked.kind) {
            return refused(refusal);
        }
        let payload = command.encode();
        self.make_room(std::iter::once(payload.len()));
        let proposed = self.raft.propose_session(now_ms, payload);
        self.wait_for_entry(now_ms, *client, proposed)
    }

    /// Whether the store can take a command; notes what it is about.
    pub(super) fn check(&self, client: &mut Client, command: &Payload) -> Result<(), Refusal> {
        let command =
            Command::decode(command).map_err(|error| Refusal::BadRequest { reason: error.to_string() })?;
        client.asked.kind = RequestKind::of_command(&command);
        file_store::validate(&command, self.config.max_file_bytes)
    }

    /// Has a client wait for the fate of its entry; the answer at once if there is none.
    fn wait_for_entry(
        &mut self,
        now_ms: u64,
        client: Client,
        proposed: Result<EntryId, ProposeError>,
    ) -> Option<Outcome> {
        match proposed {
            Ok(_) if mutant!("change-answered-early") => {
                Some(Outcome::Changed { version: fsd_wire::Version(self.store.revision().0 + 1) })
            }
            Ok(entry) => {
                let deadline = self.add_deadline(now_ms, client.timeout_ms, RequestKey::Change(entry));
                self.pending.add_change(entry, client.asker(deadline));
                None
            }
            Err(ProposeError::NotLeader { .. }) => Some(self.not_leader(client.origin)),
            Err(ProposeError::Transferring | ProposeError::Busy) => {
                mark!("dispatch-refuses-while-handing-over");
                refused(Refusal::Busy)
            }
            Err(ProposeError::Full) => refused(Refusal::DiskFull { node: self.config.node }),
        }
    }

    /// Adds a read to the batch of this turn; the answer at once if it cannot be.
    fn read(&mut self, now_ms: u64, client: Client, operation: Operation) -> Option<Outcome> {
        if let Operation::Read { name } | Operation::Stat { name } = &operation
            && let Err(error) = FileName::parse(name)
        {
            return refused(Refusal::InvalidName { reason: error.reason.into() });
        }
        let local = self.config.text_reads == TextReads::Local && client.origin.is_text();
        // Without a leader nobody could confirm it before its client has given up.
        if !local && self.raft.leader_id().is_none() {
            mark!("dispatch-refuses-read-without-leader");
            return Some(self.not_leader(client.origin));
        }
        if self.pending.reads() >= limits::READS_WAITING_MAX {
            return refused(Refusal::Busy);
        }
        let key = RequestKey::Read(self.pending.next_read());
        let deadline = self.add_deadline(now_ms, client.timeout_ms, key);
        let basis =
            if local { ReadBasis::Local } else { ReadBasis::Unconfirmed { batch: self.join_read_batch() } };
        // As leader: a read index is given out only behind the removal of all that is due by now.
        let index = if local { LogIndex(0) } else { self.propose_what_is_due(now_ms) };
        self.pending.add_read(PendingRead { asker: client.asker(deadline), operation, index, basis });
        None
    }

    /// Adds a read to the batch of this turn, and says which one that is.
    pub(super) fn join_read_batch(&mut self) -> u64 {
        self.reads_in_batch += 1;
        self.read_batch
    }

    /// Has one round of heartbeats, this leader's or that of the one that this node follows, confirm all reads of
    /// this turn.
    pub(super) fn begin_read_round(&mut self, now_ms: u64) {
        if self.reads_in_batch > 0 {
            self.raft.step(now_ms, Input::Read { id: self.read_batch });
            self.measurements.read_round(self.reads_in_batch);
            self.read_batch += 1;
            self.reads_in_batch = 0;
        }
    }

    /// If a file is due at the present cluster time, proposes an entry whose stamp removes it, unless one is on its
    /// way. Returns the index behind which it is gone; 0 if none is due. (No read shows sessions.)
    fn propose_what_is_due(&mut self, now_ms: u64) -> LogIndex {
        self.propose_removal(now_ms, self.store.next_file_due())
    }

    /// As [`Self::propose_what_is_due`], for something that is due at `due`.
    pub(super) fn propose_removal(&mut self, now_ms: u64, due: Option<ClusterTimeMs>) -> LogIndex {
        if !self.raft.is_leader() {
            self.expiry_barrier = None;
            return LogIndex(0);
        }
        let now = self.raft.cluster_time(now_ms);
        if due.is_none_or(|due| due > now) {
            return LogIndex(0);
        }
        // A barrier of an earlier term may be gone from the log.
        mark!(
            "expiry-is-on-its-way",
            self.expiry_barrier.is_some_and(|barrier| barrier.term == self.raft.term())
        );
        mark!(
            "expiry-was-of-earlier-term",
            self.expiry_barrier.is_some_and(|barrier| barrier.term != self.raft.term())
        );
        let on_its_way = self.expiry_barrier.filter(|barrier| barrier.term == self.raft.term());
        if on_its_way.is_none() {
            self.expiry_barrier = self.raft.propose_tick(now_ms).ok();
            mark!("expiry-is-refused", self.expiry_barrier.is_none());
        }
        // Refused while leadership is handed over, or too much is uncommitted: then it goes with one of the next
        // entries, and nothing is shown before.
        self.expiry_barrier.map_or_else(|| self.raft.last_index().next(), |barrier| barrier.index)
    }

    /// When the leader ends the next session that is due, in cluster time.
    pub(super) fn next_session_step(&self) -> Option<ClusterTimeMs> {
        let step_ms = limits::SESSION_END_STEP_MS;
        let step = |due: ClusterTimeMs| ClusterTimeMs(due.0.div_ceil(step_ms).saturating_mul(step_ms));
        self.store.next_session_due().map(step)
    }

    /// When the log should have a stamp again, in cluster time: while a file is to fall due, nodes that all lose
    /// their memory at once must not lose much time either.
    pub(super) fn next_stamp_due(&self) -> Option<ClusterTimeMs> {
        self.store.next_file_due()?;
        Some(ClusterTimeMs(self.raft.last_stamp().0.saturating_add(limits::STAMP_INTERVAL_MS)))
    }

    /// Puts the time into the log if it was not there for long.
    pub(super) fn propose_stamp(&mut self, now_ms: u64) {
        let now = self.raft.cluster_time(now_ms);
        if self.raft.is_leader() && self.next_stamp_due().is_some_and(|due| due <= now) {
            mark!("expiry-stamps-idle-log");
            // Refused, it is tried again.
            let _ = self.raft.propose_tick(now_ms);
        }
    }

    /// Answers the confirmed reads for which the store has come far enough.
    pub(super) fn serve_reads(&mut self, now_ms: u64, net: &mut impl Network) -> Result<(), Fault> {
        let last_applied = self.store.last_applied();
        let mut behind = Vec::new();
        while let Some((number, mut read)) = self.pending.take_ready_read(last_applied) {
            let now = match read.basis {
                // What fell due since the leader confirmed it is shown until its removal comes from there.
                ReadBasis::Leader(cluster_time) => cluster_time.max(self.store.cluster_time()),
                ReadBasis::Local => self.raft.cluster_time(now_ms),
                ReadBasis::Unconfirmed { .. } => {
                    // What fell due since the read was confirmed must not be shown either: it waits for its
                    // removal.
                    let barrier = self.propose_what_is_due(now_ms);
                    if barrier > last_applied {
                        mark!("expiry-holds-read-back");
                        read.index = barrier;
                        behind.push((number, read));
                        continue;
                    }
                    self.raft.cluster_time(now_ms)
                }
            };
            let outcome = match &read.operation {
                Operation::BackupBegin => self.begin_backup(now_ms, read.asker.origin, net),
                operation => self.answer_read(now, operation)?,
            };
            self.settle(read.asker, outcome, net);
        }
        for (number, read) in behind {
            self.pending.put_back(number, read);
        }
        self.serve_peer_reads(now_ms, net);
        Ok(())
    }

    /// Tells followers from where on they may answer the reads for which this node was confirmed to lead.
    fn serve_peer_reads(&mut self, now_ms: u64, net: &mut impl Network) {
        let last_applied = self.store.last_applied();
        for mut read in self.pending.take_ready_peer_reads(last_applied) {
            // As with a read of this node's own, all that is due at the time that it is told must be gone.
            let barrier = self.propose_what_is_due(now_ms);
            if barrier > last_applied {
                mark!("expiry-holds-read-of-follower-back");
                read.index = barrier;
                self.pending.add_peer_read(read);
            } else if let Some(message) = self.raft.answer_peer_read(now_ms, &read, last_applied) {
                net.send_peer(read.node, &message);
            }
        }
    }

    /// Answers from the store as it is; `now` is the cluster time from which the rest of an expiry counts.
    fn answer_read(&self, now: ClusterTimeMs, operation: &Operation) -> Result<Outcome, Fault> {
        let info = |name: &str, file: &File| FileInfo {
            name: name.to_owned(),
            version: file.version,
            size_bytes: u64::from(file.size_bytes),
            expiry_seconds: file.expiry_seconds_left(now),
        };
        Ok(match operation {
            Operation::Read { name } => match self.store.get(name) {
                Some(file) => self.read_contents(file, file.expiry_seconds_left(now))?,
                None => Outcome::Refused(Refusal::NotFound),
            },
            Operation::Stat { name } => match self.store.get(name) {
                Some(file) => Outcome::Stat(info(name, file)),
                None => Outcome::Refused(Refusal::NotFound),
            },
            Operation::List { prefix, after, limit } => {
                let limit = (*limit as usize).clamp(1, limits::LIST_FILES_MAX);
                let page = self.store.list(prefix, after, limit);
                let mut name_bytes = 0;
                let fits = |(name, _): &&(&str, &File)| {
                    name_bytes += name.len();
                    name_bytes <= limits::LIST_NAME_BYTES_MAX
                };
                let files: Vec<FileInfo> =
                    page.files.iter().take_while(fits).map(|(name, file)| info(name, file)).collect();
                Outcome::Listed { more: page.more || files.len() < page.files.len(), files }
            }
            Operation::Change { .. }
            | Operation::Status
            | Operation::StorageStatus
            | Operation::OpenSession
            | Operation::SessionChange { .. }
            | Operation::KeepAlive { .. }
            | Operation::CloseSession { .. }
            | Operation::BackupBegin
            | Operation::BackupChunk { .. } => unreachable!("no read is answered as one of these"),
        })
    }

    /// The contents as they lie in the log, their CRC checked, shared with the mapping.
    fn read_contents(&self, file: &File, expiry_seconds: u64) -> Result<Outcome, Fault> {
        let ContentsAt(position) = file.contents;
        let entry = self.log.entry_at(Position(position))?;
        let command = entry.command().expect("the store was built from this entry");
        let contents = command.expect("a file is made by a change").contents;
        Ok(Outcome::Read { version: file.version, expiry_seconds, contents })
    }
}

/// A client's request without what it asks for.
#[derive(Clone, Copy)]
pub(super) struct Client {
    origin: Origin,
    id: RequestId,
    pub(super) timeout_ms: u32,
    asked: Asked,
}

impl Client {
    /// The connection that it came on, if this node's own client asks.
    pub(super) fn connection(self) -> Option<ConnectionId> {
        match self.origin {
            Origin::Client { connection, .. } => Some(connection),
            Origin::Peer(_) | Origin::Forwarder => None,
        }
    }

    pub(super) fn asker(self, deadline: crate::timer_wheel::TimerId) -> Asker {
        let Self { origin, id: request, asked, .. } = self;
        Asker { origin, request, deadline, asked }
    }
}

#[allow(clippy::unnecessary_wraps)] // Every caller returns it as an answer at once.
fn refused(refusal: Refusal) -> Option<Outcome> {
    Some(Outcome::Refused(refusal))
}
