//! Backups: a client fetches the whole store as of one entry, as a stream ([`crate::transfer`]), piece by piece.
//!
//! A backup begins as a read does, at any node: confirmed by the leader, and answered from a store that has come far enough. So it
//! is as of an entry that is no older than its request. What it is read from is a checkpoint of that entry or a later
//! one; where none stands, housekeeping takes one, and all who wait share it. The reader has all open that it
//! needs, so cleaning goes on meanwhile; the room of what it removes comes back when the backup ends.
//!
//! The client asks for one piece after the other, so it is never sent more than it takes. The piece that it asked for
//! last stays until the next one is asked for: its reply may not have found room.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fsd_wire::LogIndex;
use fsd_wire::client::{Outcome, Refusal};

use super::dispatch::Client;
use super::jobs::{ChunkRead, Job};
use super::node::{Node, Timer};
use super::pending::{Asker, Origin, RequestKey};
use super::{Fault, Network};
use crate::limits;
use crate::mapping::Disk;
use crate::net::ConnectionId;
use crate::storage::StorageError;
use crate::transfer::{Chunk, StreamReader, TransferError};

/// The backups that are being fetched from this node.
pub(super) struct Backups<D: Disk> {
    backups: BTreeMap<u64, Backup<D>>,
    begun: u64,
    pub(super) jobs: VecDeque<Job<D>>,
    /// They are looked after.
    is_watched: bool,
}

struct Backup<D: Disk> {
    /// Whose it is: nobody else knows of it.
    connection: ConnectionId,
    stage: Stage<D>,
    /// Who waits for the piece at this offset.
    asked: Option<(Asker, u64)>,
    used_ms: u64,
}

/// How far a backup is.
enum Stage<D: Disk> {
    /// Until a checkpoint as of this entry, or of a later one, stands.
    Waiting { needed: LogIndex },
    /// A job reads the next piece.
    Reading,
    /// The next piece is there; with what reads on behind it.
    Ready { reader: Box<StreamReader<D>>, chunk: Chunk },
    /// The last piece is there.
    Ending { chunk: Chunk },
    /// There will be none.
    Failed,
}

impl<D: Disk> Default for Backups<D> {
    fn default() -> Self {
        Self { backups: BTreeMap::new(), begun: 0, jobs: VecDeque::new(), is_watched: false }
    }
}

impl<D: Disk> Backups<D> {
    /// Whether somebody waits for a checkpoint that is newer than this entry.
    pub(super) fn want_checkpoint_behind(&self, newest: LogIndex) -> bool {
        let waits = |backup: &Backup<D>| matches!(backup.stage, Stage::Waiting { needed } if needed > newest);
        self.backups.values().any(waits)
    }

    /// The checkpoint that some wait for could not be taken.
    pub(super) fn checkpoint_failed(&mut self) {
        for backup in self.backups.values_mut() {
            if matches!(backup.stage, Stage::Waiting { .. }) {
                backup.stage = Stage::Failed;
            }
        }
    }
}

impl<D: Disk> Node<D> {
    /// A client's wish for a backup was confirmed, and the store has come as far as it must.
    pub(super) fn begin_backup(&mut self, now_ms: u64, origin: Origin, net: &mut impl Network) -> Outcome {
        let Origin::Client { connection, .. } = origin else {
            return bad_request("only clients ask for backups");
        };
        self.end_idle_backups(now_ms, net);
        if self.backups.backups.len() >= limits::BACKUPS_MAX {
            return Outcome::Refused(Refusal::Busy);
        }
        self.backups.begun += 1;
        let number = self.backups.begun;
        let stage = Stage::Waiting { needed: self.store.last_applied() };
        let backup = Backup { connection, stage, asked: None, used_ms: now_ms };
        self.backups.backups.insert(number, backup);
        self.watch_backups(now_ms);
        Outcome::BackupBegun { backup: number }
    }

    /// A client asks for a piece of its backup; the answer, if it is there.
    pub(super) fn fetch_backup(
        &mut self,
        now_ms: u64,
        client: Client,
        number: u64,
        offset: u64,
    ) -> Option<Outcome> {
        let from = client.connection();
        let known = self.backups.backups.get_mut(&number).filter(|known| Some(known.connection) == from);
        let Some(backup) = known else {
            return Some(bad_request("no such backup on this connection: it must be begun anew"));
        };
        backup.used_ms = now_ms;
        if backup.asked.is_some() {
            return Some(bad_request("a piece of this backup was asked for already"));
        }
        backup.advance(number, offset, &mut self.backups.jobs);
        if let Some(outcome) = backup.answer(offset) {
            return Some(outcome);
        }
        let deadline = self.add_deadline(now_ms, client.timeout_ms, RequestKey::Backup(number));
        let backup = self.backups.backups.get_mut(&number).expect("it was just there");
        backup.asked = Some((client.asker(deadline), offset));
        None
    }

    /// A piece was read.
    ///
    /// # Errors
    /// If what is to be read is damaged.
    pub(super) fn backup_read(&mut self, number: u64, read: ChunkRead<D>) -> Result<(), Fault> {
        let Some(backup) = self.backups.backups.get_mut(&number) else {
            self.housekeeping.let_go(read);
            return Ok(());
        };
        backup.stage = match read {
            Ok((Some(reader), chunk)) => Stage::Ready { reader, chunk },
            Ok((None, chunk)) => Stage::Ending { chunk },
            Err(TransferError::Storage(error @ StorageError::Damage { .. })) => return Err(error.into()),
            Err(error) => {
                log::warn!("cannot read what a client wants as a backup: {error}");
                Stage::Failed
            }
        };
        Ok(())
    }

    /// Begins to read those for which a checkpoint stands by now.
    pub(super) fn open_backups(&mut self) {
        let Some(head) = self.housekeeping.newest_checkpoint() else { return };
        for (number, backup) in &mut self.backups.backups {
            if matches!(backup.stage, Stage::Waiting { needed } if needed <= head.entry.index) {
                backup.stage = Stage::Reading;
                self.backups.jobs.push_back(Job::OpenBackup(*number, head.clone()));
            }
        }
    }

    /// Answers those whose piece is there.
    pub(super) fn answer_backups(&mut self, net: &mut impl Network) {
        let mut answers = Vec::new();
        for backup in self.backups.backups.values_mut() {
            let Some((asker, offset)) = backup.asked.take() else { continue };
            match backup.answer(offset) {
                Some(outcome) => answers.push((asker, outcome)),
                None => backup.asked = Some((asker, offset)),
            }
        }
        for (asker, outcome) in answers {
            self.settle(asker, outcome, net);
        }
        self.backups.backups.retain(|_, backup| !matches!(backup.stage, Stage::Failed));
    }

    /// A client has waited for a piece for as long as it would: it may ask again.
    pub(super) fn put_backup_off(&mut self, number: u64, net: &mut impl Network) {
        let asked = self.backups.backups.get_mut(&number).and_then(|backup| backup.asked.take());
        if let Some((asker, _)) = asked {
            self.settle(asker, Outcome::BackupChunk { is_last: false, bytes: Bytes::new() }, net);
        }
    }

    /// Ends those that nobody wants any more: whose connection is gone, or of which nothing was asked for long.
    pub(super) fn end_idle_backups(&mut self, now_ms: u64, net: &mut impl Network) {
        let is_over = |backup: &Backup<D>| {
            let is_idle = backup.asked.is_none() && now_ms >= backup.used_ms + limits::BACKUP_IDLE_MS_MAX;
            is_idle || !net.has_client(backup.connection)
        };
        let ended: Vec<u64> = self
            .backups
            .backups
            .iter()
            .filter(|(_, backup)| is_over(backup))
            .map(|(number, _)| *number)
            .collect();
        for number in ended {
            self.end_backup(number, net);
        }
    }

    /// Ends all of them: the process is about to end.
    pub(super) fn end_backups(&mut self, net: &mut impl Network) {
        while let Some((number, _)) = self.backups.backups.first_key_value() {
            self.end_backup(*number, net);
        }
    }

    fn end_backup(&mut self, number: u64, net: &mut impl Network) {
        let Some(ended) = self.backups.backups.remove(&number) else { return };
        self.housekeeping.let_go(ended.stage);
        if let Some((asker, _)) = ended.asked {
            self.settle(asker, Outcome::Refused(Refusal::Busy), net);
        }
    }

    /// It is time to look after them.
    pub(super) fn watch_over_backups(&mut self, now_ms: u64, net: &mut impl Network) {
        self.backups.is_watched = false;
        self.end_idle_backups(now_ms, net);
        self.watch_backups(now_ms);
    }

    fn watch_backups(&mut self, now_ms: u64) {
        if !self.backups.is_watched && !self.backups.backups.is_empty() {
            self.backups.is_watched = true;
            self.wheel.insert(now_ms + limits::BACKUP_WATCH_MS, Timer::Backups);
        }
    }
}

impl<D: Disk> Backup<D> {
    /// Has the next piece read if that is the one that is asked for.
    fn advance(&mut self, number: u64, offset: u64, jobs: &mut VecDeque<Job<D>>) {
        if matches!(&self.stage, Stage::Ready { chunk, .. } if end_of(chunk) == offset)
            && let Stage::Ready { reader, .. } = std::mem::replace(&mut self.stage, Stage::Reading)
        {
            jobs.push_back(Job::ReadBackup(number, reader));
        }
    }

    /// What there is to say to who asks for the piece at `offset`, if it is known yet.
    fn answer(&self, offset: u64) -> Option<Outcome> {
        match &self.stage {
            Stage::Waiting { .. } | Stage::Reading => None,
            Stage::Ready { chunk, .. } | Stage::Ending { chunk } if chunk.offset == offset => {
                Some(Outcome::BackupChunk { is_last: chunk.is_last, bytes: chunk.bytes.clone() })
            }
            Stage::Ready { .. } | Stage::Ending { .. } => Some(bad_request("another piece is next")),
            Stage::Failed => Some(Outcome::Refused(Refusal::Busy)),
        }
    }
}

fn end_of(chunk: &Chunk) -> u64 {
    chunk.offset + chunk.bytes.len() as u64
}

fn bad_request(reason: &str) -> Outcome {
    Outcome::Refused(Refusal::BadRequest { reason: reason.to_owned() })
}
