//! A backup of the whole store, fetched from one node piece by piece and checked on the way.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, NodeRole, Operation, Outcome, Refusal};
use fsd_wire::store_stream::{StreamError, StreamHead};
use fsd_wire::stream_check::StreamCheck;

use crate::client::Client;
use crate::connection::Connection;
use crate::error::{AttemptError, ClientError};

/// How many times a backup is begun: one that was lost on the way begins again with its first byte.
const TRIES_MAX: u32 = 5;
/// The pause before a busy node is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Takes a backup as it comes.
pub trait BackupSink {
    /// It begins. What came before, if anything, is of no use: `lost` says what became of it.
    ///
    /// # Errors
    /// If it cannot be taken; then nothing more is tried.
    fn begin(&mut self, lost: Option<&AttemptError>) -> io::Result<()>;

    /// The next bytes of it, all checked as far as they are whole parts.
    ///
    /// # Errors
    /// If they cannot be taken; then nothing more is tried.
    fn take(&mut self, bytes: &[u8], progress: &BackupProgress<'_>) -> io::Result<()>;
}

/// How far a backup is.
#[derive(Clone, Copy, Debug)]
pub struct BackupProgress<'a> {
    /// What it is of, once that is known.
    pub head: Option<&'a StreamHead>,
    /// Bytes that have come.
    pub bytes: u64,
    /// Files that have come whole.
    pub files: u64,
    /// Bytes of their contents.
    pub contents_bytes: u64,
}

/// A backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// What it is of.
    pub head: StreamHead,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// No node gave it.
    Client(ClientError),
    /// It could not be taken, or read.
    Io(io::Error),
    /// The bytes are not those of a backup, or not all of them.
    Damaged(StreamError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Damaged(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StreamError> for BackupError {
    fn from(error: StreamError) -> Self {
        Self::Damaged(error)
    }
}

/// Reads a backup to its end and checks that it is whole.
///
/// # Errors
/// If it cannot be read, or is not whole; where, and what is wrong.
pub fn verify_backup(
    source: &mut impl io::Read,
    mut watch: impl FnMut(&BackupProgress<'_>),
) -> Result<BackupSummary, BackupError> {
    let mut check = StreamCheck::new();
    let mut piece = vec![0; 1024 * 1024];
    loop {
        match source.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => check.take(&piece[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        watch(&progress(&check));
    }
    let bytes = check.offset();
    Ok(BackupSummary { head: check.finish()?, bytes })
}

fn progress(check: &StreamCheck) -> BackupProgress<'_> {
    let counted = check.counted();
    BackupProgress {
        head: check.head(),
        bytes: check.offset(),
        files: counted.files,
        contents_bytes: counted.contents_bytes,
    }
}

/// Why a backup came to no end.
enum Broken {
    /// The node, or the connection to it, is at fault: another try may do better.
    Lost(AttemptError),
    Ended(BackupError),
}

impl<E: Into<BackupError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Ended(error.into())
    }
}

impl Client {
    /// Fetches a backup of the whole store: as of one entry of the log, no older than this call. The leader is asked for it, and
    /// any other node where that one does not answer.
    ///
    /// Each request has the client's time limit. Where a connection is lost the backup begins again, from
    /// another node perhaps, and a few times at most.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn backup(&mut self, sink: &mut impl BackupSink) -> Result<BackupSummary, BackupError> {
        let mut lost: Option<(String, AttemptError)> = None;
        for _ in 0..TRIES_MAX {
            self.prefer_leader();
            let (connection, backup) = self.begin_backup().map_err(BackupError::Client)?;
            let address = connection.address().to_owned();
            sink.begin(lost.as_ref().map(|(_, why)| why))?;
            match fetch(connection, backup, self.time_limit(), sink) {
                Ok(summary) => return Ok(summary),
                Err(Broken::Lost(why)) => lost = Some((address, why)),
                Err(Broken::Ended(error)) => return Err(error),
            }
        }
        let attempts = lost.into_iter().collect();
        Err(BackupError::Client(ClientError::Unavailable { time_limit: self.time_limit(), attempts }))
    }

    /// The search for a node begins with the leader, if one says that it is.
    fn prefer_leader(&mut self) {
        let reports = self.status();
        let leads = |report: &&crate::NodeReport| {
            report.status.as_ref().is_ok_and(|status| status.role == NodeRole::Leader)
        };
        if let Some(leader) = reports.iter().find(leads) {
            self.prefer(&leader.address);
        }
    }
}

/// Fetches a backup that was begun on this connection.
fn fetch(
    mut connection: Connection,
    backup: u64,
    time_limit: Duration,
    sink: &mut impl BackupSink,
) -> Result<BackupSummary, Broken> {
    let mut check = StreamCheck::new();
    loop {
        let offset = check.offset();
        let (bytes, is_last) =
            fetch_piece(&mut connection, backup, offset, time_limit).map_err(Broken::Lost)?;
        check.take(&bytes)?;
        sink.take(&bytes, &progress(&check))?;
        if is_last {
            return Ok(BackupSummary { bytes: check.offset(), head: check.finish()? });
        }
    }
}

/// The next bytes, of which a node that is alive may have none yet for as long as it takes it to get them.
fn fetch_piece(
    connection: &mut Connection,
    backup: u64,
    offset: u64,
    time_limit: Duration,
) -> Result<(Bytes, bool), AttemptError> {
    let mut deadline = Instant::now() + time_limit;
    loop {
        let id = connection.submit(Operation::BackupChunk { backup, offset }, deadline);
        connection.flush(deadline)?;
        // The node answers by the deadline that it was told; its word needs time to get here.
        match connection.receive(deadline + time_limit)? {
            ClientReply { id: answered, .. } if answered != id => return Err(AttemptError::StrayReply),
            ClientReply { outcome: Outcome::BackupChunk { is_last, bytes }, .. } => {
                if is_last || !bytes.is_empty() {
                    return Ok((bytes, is_last));
                }
                deadline = Instant::now() + time_limit;
            }
            ClientReply { outcome: Outcome::Refused(Refusal::Busy), .. } if Instant::now() < deadline => {
                std::thread::sleep(BUSY_PAUSE);
            }
            ClientReply { outcome: Outcome::Refused(refusal), .. } => {
                return Err(AttemptError::Refused(refusal));
            }
            ClientReply { .. } => return Err(AttemptError::StrayReply),
        }
    }
}
