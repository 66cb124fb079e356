//! The operations of a cluster, each inside a time limit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd_wire::client::{FileInfo, NodeStatus, Operation, Outcome, Refusal, StorageStatus};
use fsd_wire::hello::CLUSTER_NAME_BYTES_MAX;
use fsd_wire::{Command, NAME_BYTES_MAX, Version, command};

use crate::CONTENTS_BYTES_MAX;
use crate::connection::{Connection, check_address};
use crate::error::{AttemptError, ClientError};
use crate::finder::{Finder, NotDone, Reason};
use crate::session::Session;

/// How long a request is tried unless [`Client::with_timeout`] says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time limit; the protocol could say little more.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Files asked for in one page of a list; a node may return fewer.
const LIST_PAGE_FILES: u32 = 1000;

/// A client of one cluster.
///
/// It makes one request at a time and keeps one connection, to the node that answered last. Every request has
/// the client's time limit, and inside it is repeated until it is answered, whatever happens to the connection,
/// the leader or the reply. Any node answers reads, so they are made where that connection leads; changes find
/// the leader.
///
/// # Changes are made once
///
/// The first change opens a *session*, which the cluster keeps in its log, and each change has a number in it.
/// However often a change is sent, it is applied once, and each answer to it is the first one again. So a
/// change ends in one of three ways:
///
/// - `Ok`: it was done, exactly once.
/// - [`ClientError::Unknown`]: it was sent, and until the time limit nobody said what became of it. It may have
///   been done, or may be done yet; not more than once.
/// - any other error: nothing was done, and nothing will be.
///
/// What is unknown does not stay open for ever. Once a later change of the same client was done, or
/// [`Client::keep_alive`] has succeeded, it was done before that or never will be: a copy of it that is still on
/// its way comes too late. A program that must know settles it with `keep_alive` and then reads.
///
/// A client that only reads opens no session. A session ends after a time without a sign of life, a minute
/// by the cluster's own clock; the next change then opens another one. When the client is dropped, it tells
/// the node that answered last that the session is over, without waiting for the answer.
#[derive(Debug)]
pub struct Client {
    finder: Finder,
    timeout: Duration,
    /// Opened by the first change.
    session: Option<Session>,
}

/// What [`Client::read`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContents {
    /// The file's version.
    pub version: Version,
    /// Seconds until it is gone, rounded up; 0 for never.
    pub expiry_seconds: u64,
    /// Its contents.
    pub contents: Bytes,
}

/// A part of a list of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The files, in byte order of their names.
    pub files: Vec<FileInfo>,
    /// There are more behind the last one.
    pub more: bool,
}

/// What [`Client::status`] found at one of the servers.
#[derive(Debug)]
pub struct NodeReport {
    /// The address that was asked.
    pub address: String,
    /// What the node says of itself, or why it does not answer.
    pub status: Result<NodeStatus, AttemptError>,
    /// What its data directory takes; nothing if it does not tell, as an older release does not.
    pub storage: Option<StorageStatus>,
}

impl Client {
    /// A client of the nodes at these addresses, each `HOST:PORT`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if there is no address, or one that cannot be one.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Result<Self, ClientError> {
        let servers: Vec<String> = servers.into_iter().map(Into::into).collect();
        if servers.is_empty() {
            return Err(ClientError::Usage("no server address is given".to_owned()));
        }
        for server in &servers {
            check_address(server).map_err(ClientError::Usage)?;
        }
        Ok(Self { finder: Finder::new(servers), timeout: TIMEOUT_DEFAULT, session: None })
    }

    /// Talks to nodes of the cluster of this name only; the nodes check it.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if no cluster can have that name.
    pub fn with_cluster(mut self, cluster: &str) -> Result<Self, ClientError> {
        if cluster.len() > CLUSTER_NAME_BYTES_MAX {
            let reason = format!("a cluster's name has at most {CLUSTER_NAME_BYTES_MAX} bytes");
            return Err(ClientError::Usage(reason));
        }
        self.finder.set_cluster(cluster);
        Ok(self)
    }

    /// Sets the time limit of each request, at most 30 days.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }

    /// Sets how long one node may take to accept a connection, or to answer, before the next is asked. The time
    /// for an answer doubles from round to round, so that a busy cluster is not asked ever more.
    #[must_use]
    pub fn with_attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.finder.set_attempt_timeout(attempt_timeout);
        self
    }

    /// The addresses that this client was made with.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        self.finder.servers()
    }

    /// The contents of a file.
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::Unknown`].
    pub fn read(&mut self, name: &str) -> Result<FileContents, ClientError> {
        check_name(name)?;
        self.ask(&Operation::Read { name: name.to_owned() }, |outcome| match outcome {
            Outcome::Read { version, expiry_seconds, contents } => {
                Some(FileContents { version, expiry_seconds, contents })
            }
            _ => None,
        })
    }

    /// The description of a file.
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::Unknown`].
    pub fn stat(&mut self, name: &str) -> Result<FileInfo, ClientError> {
        check_name(name)?;
        self.ask(&Operation::Stat { name: name.to_owned() }, |outcome| match outcome {
            Outcome::Stat(info) => Some(info),
            _ => None,
        })
    }

    /// Sets a file's contents, whatever is there. After `expiry_seconds` it is gone; 0 for never. Returns the
    /// new version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn write(
        &mut self,
        name: &str,
        contents: impl Into<Bytes>,
        expiry_seconds: u64,
    ) -> Result<Version, ClientError> {
        self.change(command::Operation::Write { expiry_seconds }, name, contents.into())
    }

    /// Sets a file's contents if its version is `expected`; 0 expects that there is no such file. Returns the
    /// new version.
    ///
    /// # Errors
    /// See [`ClientError`]; [`Refusal::VersionMismatch`] carries the present version.
    pub fn cas(
        &mut self,
        name: &str,
        expected: Version,
        contents: impl Into<Bytes>,
        expiry_seconds: u64,
    ) -> Result<Version, ClientError> {
        self.change(command::Operation::Cas { expected, expiry_seconds }, name, contents.into())
    }

    /// Removes a file, if `expected` is given only at that version. Returns the revision of the delete.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn delete(&mut self, name: &str, expected: Option<Version>) -> Result<Version, ClientError> {
        let operation = match expected {
            Some(expected) => command::Operation::DeleteIf { expected },
            None => command::Operation::Delete,
        };
        self.change(operation, name, Bytes::new())
    }

    /// All files whose names begin with `prefix`, in byte order. Each page is a request of its own: a change
    /// made meanwhile may show in a later page.
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::Unknown`].
    pub fn list(&mut self, prefix: &str) -> Result<Vec<FileInfo>, ClientError> {
        let mut files: Vec<FileInfo> = Vec::new();
        loop {
            let after = files.last().map_or("", |file| file.name.as_str());
            let page = self.list_page(prefix, after)?;
            files.extend(page.files);
            if !page.more {
                return Ok(files);
            }
        }
    }

    /// The next files behind the name `after`, or from the first if it is empty.
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::Unknown`].
    pub fn list_page(&mut self, prefix: &str, after: &str) -> Result<Page, ClientError> {
        check_name_length("prefix", prefix)?;
        check_name(after)?;
        let operation =
            Operation::List { prefix: prefix.to_owned(), after: after.to_owned(), limit: LIST_PAGE_FILES };
        self.ask(&operation, |outcome| match outcome {
            // A page that says "more" and holds nothing would be asked for again for ever.
            Outcome::Listed { files, more } => (!more || !files.is_empty()).then_some(Page { files, more }),
            _ => None,
        })
    }

    /// Keeps the session alive, if one is open and the cluster still has it: for programs that make a change only
    /// now and then. When it has succeeded, no change of this client is open any more: one of which the
    /// outcome was unknown has been done by now, or never will be.
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::Unknown`].
    pub fn keep_alive(&mut self) -> Result<(), ClientError> {
        self.ask_for_session(Instant::now() + self.timeout)
    }

    /// Asks every server, all at once, what it knows of itself. The answers are in the order of the servers.
    #[must_use]
    pub fn status(&self) -> Vec<NodeReport> {
        let deadline = Instant::now() + self.timeout.min(self.finder.attempt_timeout());
        let (servers, cluster) = (self.finder.servers(), self.finder.cluster());
        let statuses: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = servers
                .iter()
                .map(|address| scope.spawn(|| ask_status(address, cluster, deadline)))
                .collect();
            asked.into_iter().map(|thread| thread.join().expect("asking a node does not panic")).collect()
        });
        let reports = servers.iter().zip(statuses);
        reports
            .map(|(address, answered)| {
                let (status, storage) = match answered {
                    Ok((status, storage)) => (Ok(status), storage),
                    Err(error) => (Err(error), None),
                };
                NodeReport { address: address.clone(), status, storage }
            })
            .collect()
    }

    /// The search for a node begins at this one.
    pub(crate) fn prefer(&mut self, address: &str) {
        self.finder.prefer(address);
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.timeout
    }

    /// Has a node begin a backup; the connection that it is known on, and what it is called there.
    pub(crate) fn begin_backup(&mut self) -> Result<(Connection, u64), ClientError> {
        let backup = self.ask(&Operation::BackupBegin, |outcome| match outcome {
            Outcome::BackupBegun { backup } => Some(backup),
            _ => None,
        })?;
        Ok((self.finder.take_connection(), backup))
    }

    /// Asks for what changes nothing.
    fn ask<T>(
        &mut self,
        operation: &Operation,
        accept: impl Fn(Outcome) -> Option<T>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.timeout;
        self.finder
            .ask(operation, deadline, accept)
            .map_err(|not_done| not_done.into_nothing_done(self.timeout))
    }

    fn change(
        &mut self,
        operation: command::Operation,
        name: &str,
        contents: Bytes,
    ) -> Result<Version, ClientError> {
        check_name(name)?;
        if contents.len() > CONTENTS_BYTES_MAX {
            return Err(ClientError::Refused(Refusal::TooLarge { max_bytes: CONTENTS_BYTES_MAX as u64 }));
        }
        let command = Command { operation, name: name.to_owned(), contents }.encode();
        let deadline = Instant::now() + self.timeout;
        loop {
            let mut session = self.take_session(deadline)?;
            let change = session.next_change(command.clone());
            let sent = Instant::now();
            let not_done = match self.finder.ask(&change, deadline, changed_version) {
                Ok(version) => {
                    session.renew(sent);
                    self.session = Some(session);
                    return Ok(version);
                }
                Err(not_done) => not_done,
            };
            let gone = not_done.reason == Reason::Refused(Refusal::SessionGone);
            if !gone {
                self.session = Some(session);
            } else if !not_done.was_left_unanswered() {
                // The first attempt came too late for the session: nothing happened, and a session that is gone
                // never comes back.
                continue;
            }
            return Err(judge(not_done, self.timeout));
        }
    }

    /// The session for a change; it is put back when the change has not found it gone.
    fn take_session(&mut self, deadline: Instant) -> Result<Session, ClientError> {
        if self.session.as_ref().is_some_and(Session::is_doubtful) {
            self.ask_for_session(deadline)?;
        }
        match self.session.take() {
            Some(session) => Ok(session),
            None => self.open_session(deadline),
        }
    }

    /// Each attempt may open one: those that are never heard of end when their time is over.
    fn open_session(&mut self, deadline: Instant) -> Result<Session, ClientError> {
        let sent = Instant::now();
        let opened = self.finder.ask(&Operation::OpenSession, deadline, |outcome| match outcome {
            Outcome::SessionOpened { session, idle_ms } => Some(Session::new(session, idle_ms, sent)),
            _ => None,
        });
        opened.map_err(|not_done| not_done.into_nothing_done(self.timeout))
    }

    /// Gives a sign of life to the session, if there is one, and forgets it if it is gone.
    fn ask_for_session(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let sent = Instant::now();
        let kept = |outcome| matches!(outcome, Outcome::SessionDone).then_some(());
        match self.finder.ask(&session.keep_alive(), deadline, kept) {
            Ok(()) => session.renew(sent),
            Err(NotDone { reason: Reason::Refused(Refusal::SessionGone), .. }) => self.session = None,
            Err(not_done) => return Err(not_done.into_nothing_done(self.timeout)),
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.finder.send_last(session.close());
        }
    }
}

fn changed_version(outcome: Outcome) -> Option<Version> {
    match outcome {
        Outcome::Changed { version } => Some(version),
        _ => None,
    }
}

/// What became of a change that has not been answered as done.
fn judge(not_done: NotDone, time_limit: Duration) -> ClientError {
    let decided = match &not_done.reason {
        // The store says so, and its first answer is the answer to all attempts.
        Reason::Refused(Refusal::NotFound | Refusal::VersionMismatch { .. } | Refusal::Conflict { .. }) => {
            true
        }
        // One node, or none, says so of one attempt: that decides nothing for another that may be on its way into
        // the log.
        Reason::Refused(_) | Reason::TimeIsOver | Reason::WrongServers => !not_done.was_left_unanswered(),
    };
    if decided { not_done.into_nothing_done(time_limit) } else { not_done.into_unknown() }
}

/// Asks one node. What its disk holds is asked for behind its status: a release that does not know that question
/// closes the connection.
fn ask_status(
    address: &str,
    cluster: &str,
    deadline: Instant,
) -> Result<(NodeStatus, Option<StorageStatus>), AttemptError> {
    let mut connection = Connection::open(address, cluster, deadline)?;
    let status = match ask_one(&mut connection, Operation::Status, deadline)? {
        Outcome::Status(status) => status,
        Outcome::Refused(refusal) => return Err(AttemptError::Refused(refusal)),
        _ => return Err(AttemptError::StrayReply),
    };
    let storage = match ask_one(&mut connection, Operation::StorageStatus, deadline) {
        Ok(Outcome::StorageStatus(storage)) => Some(storage),
        _ => None,
    };
    Ok((status, storage))
}

fn ask_one(
    connection: &mut Connection,
    operation: Operation,
    deadline: Instant,
) -> Result<Outcome, AttemptError> {
    connection.submit(operation, deadline);
    connection.flush(deadline)?;
    Ok(connection.receive(deadline)?.outcome)
}

/// The other rules for names are the nodes' to judge; a name over this length does not even fit their messages.
fn check_name(name: &str) -> Result<(), ClientError> {
    check_name_length("name", name)
}

fn check_name_length(what: &str, name: &str) -> Result<(), ClientError> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("the {what} has {} bytes, the most is {NAME_BYTES_MAX}", name.len());
    Err(ClientError::Refused(Refusal::InvalidName { reason }))
}
