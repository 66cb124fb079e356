//! Requests that find their own way: to the leader, through redirects and failovers, inside a time limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, FileInfo, NodeStatus, Operation, Outcome, Refusal};
use fsd_wire::hello::CLUSTER_NAME_BYTES_MAX;
use fsd_wire::{Command, NAME_BYTES_MAX, Term, Version, command};

use crate::CONTENTS_BYTES_MAX;
use crate::connection::{Connection, check_address, remaining};
use crate::error::{AttemptError, ClientError};

/// How long a request is tried unless [`Client::with_timeout`] says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time limit; the protocol could say little more.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long one node may take to accept a connection, or to answer a read, before the next is asked: a stopped
/// process still accepts connections, and must not use up the whole time limit.
const ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// Redirects followed in one round over the servers. Leadership changes hands less often than that; more means
/// that nodes disagree, and a pause helps better than another hop.
const HOPS_MAX: u32 = 8;
/// The first pause between two rounds; it doubles from round to round up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// Files asked for in one page of a list; a node may return fewer.
const LIST_PAGE_FILES: u32 = 1000;

/// A client of one cluster.
///
/// It makes one request at a time and keeps one connection, to the node that answered last. Every request has
/// the client's time limit. Any node answers reads, so they are made where that connection leads; changes find the
/// leader. Reads are repeated until the time limit ends. A change is repeated only while it is certain
/// that nothing happened: no connection came about, the request did not leave in full (nodes act on whole
/// frames only), or the node refused to take it. Once it has left, only the reply tells what became of it;
/// without one the outcome is [`ClientError::Unknown`].
#[derive(Debug)]
pub struct Client {
    servers: Vec<String>,
    cluster: String,
    timeout: Duration,
    attempt_timeout: Duration,
    /// To the node that answered last; nothing is in flight on it between two requests.
    connection: Option<Connection>,
    /// Where the search starts when there is no connection: an index into `servers`.
    first_server: usize,
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
        // Each client begins elsewhere, so that a thousand of them do not all ask the first server.
        let first_server = fastrand::usize(..servers.len());
        Ok(Self {
            servers,
            cluster: String::new(),
            timeout: TIMEOUT_DEFAULT,
            attempt_timeout: ATTEMPT_TIMEOUT_DEFAULT,
            connection: None,
            first_server,
        })
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
        cluster.clone_into(&mut self.cluster);
        Ok(self)
    }

    /// Sets the time limit of each request, at most 30 days.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }

    /// Sets how long one node may take to accept a connection, or to answer a read, before the next is asked.
    /// The time for a read doubles from round to round, so that a busy cluster is not asked ever more.
    #[must_use]
    pub fn with_attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.attempt_timeout = attempt_timeout.min(TIMEOUT_MAX);
        self
    }

    /// The addresses that this client was made with.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The contents of a file.
    ///
    /// # Errors
    /// See [`ClientError`]; never [`ClientError::Unknown`].
    pub fn read(&mut self, name: &str) -> Result<FileContents, ClientError> {
        check_name(name)?;
        self.request(&Operation::Read { name: name.to_owned() }, |outcome| match outcome {
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
        self.request(&Operation::Stat { name: name.to_owned() }, |outcome| match outcome {
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
        self.request(&operation, |outcome| match outcome {
            // A page that says "more" and holds nothing would be asked for again for ever.
            Outcome::Listed { files, more } => (!more || !files.is_empty()).then_some(Page { files, more }),
            _ => None,
        })
    }

    /// Asks every server, all at once, what it knows of itself. The answers are in the order of the servers.
    #[must_use]
    pub fn status(&self) -> Vec<NodeReport> {
        let deadline = Instant::now() + self.timeout.min(self.attempt_timeout);
        let statuses: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .servers
                .iter()
                .map(|address| scope.spawn(|| ask_status(address, &self.cluster, deadline)))
                .collect();
            asked.into_iter().map(|thread| thread.join().expect("asking a node does not panic")).collect()
        });
        let reports = self.servers.iter().zip(statuses);
        reports.map(|(address, status)| NodeReport { address: address.clone(), status }).collect()
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
        self.request(&Operation::Change { command }, |outcome| match outcome {
            Outcome::Changed { version } => Some(version),
            _ => None,
        })
    }

    /// Tries `operation` until it is decided, or the time is over. `accept` takes the value out of the outcome
    /// that belongs to the operation.
    fn request<T>(
        &mut self,
        operation: &Operation,
        accept: impl Fn(Outcome) -> Option<T>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE_FIRST;
        let mut attempt_timeout = self.attempt_timeout;
        let mut attempts = Attempts::default();
        loop {
            let mut round = Round::new(self.order());
            while let Some(address) = round.next_address() {
                let step = self.attempt(&address, operation, &accept, deadline, attempt_timeout);
                match step {
                    Step::Done(value) => return Ok(value),
                    Step::Final(error) => return Err(error),
                    Step::NotDone(why) => {
                        round.note(&why);
                        attempts.note(address, why);
                    }
                }
                if remaining(deadline).is_zero() {
                    return Err(self.unavailable(attempts));
                }
            }
            if round.only_wrong_servers {
                return Err(ClientError::WrongServers { attempts: attempts.last });
            }
            let rest = remaining(deadline);
            if rest <= pause {
                return Err(self.unavailable(attempts));
            }
            // Somewhere in the second half of the pause, so that clients who lost the same leader at the same
            // moment do not come back at the same moment.
            std::thread::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
            pause = (pause * 2).min(PAUSE_MAX);
            attempt_timeout = (attempt_timeout * 2).min(TIMEOUT_MAX);
        }
    }

    /// One attempt at one node.
    fn attempt<T>(
        &mut self,
        address: &str,
        operation: &Operation,
        accept: impl Fn(Outcome) -> Option<T>,
        deadline: Instant,
        attempt_timeout: Duration,
    ) -> Step<T> {
        let attempt_deadline = deadline.min(Instant::now() + attempt_timeout);
        let mut connection = match self.connection.take() {
            Some(connection) if connection.address() == address && !connection.is_stale() => connection,
            _ => match Connection::open(address, &self.cluster, attempt_deadline) {
                Ok(connection) => connection,
                Err(why) => return Step::NotDone(why),
            },
        };
        // Here is the place of the session: with one, a change may be repeated after it was sent, as a read
        // may, because the store keeps its first reply.
        let repeatable = !matches!(operation, Operation::Change { .. });
        let reply_deadline = if repeatable { attempt_deadline } else { deadline };
        let id = connection.submit(operation.clone(), reply_deadline);
        if let Err(why) = connection.flush(reply_deadline) {
            return Step::NotDone(why);
        }
        let lost = |why| match repeatable {
            true => Step::NotDone(why),
            false => Step::Final(ClientError::Unknown { address: address.to_owned(), why }),
        };
        let outcome = match connection.receive(reply_deadline) {
            Ok(ClientReply { id: answered, outcome }) if answered == id => outcome,
            Ok(_) => return lost(AttemptError::StrayReply),
            Err(why) => return lost(why),
        };
        match outcome {
            Outcome::Refused(Refusal::Unknown) => lost(AttemptError::Refused(Refusal::Unknown)),
            Outcome::Refused(refusal @ (Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Busy)) => {
                Step::NotDone(AttemptError::Refused(refusal))
            }
            Outcome::Refused(refusal) => {
                self.keep(connection);
                Step::Final(ClientError::Refused(refusal))
            }
            outcome => match accept(outcome) {
                Some(value) => {
                    self.keep(connection);
                    Step::Done(value)
                }
                None => lost(AttemptError::StrayReply),
            },
        }
    }

    /// Keeps the connection to the node that answered, and starts the next search there.
    fn keep(&mut self, connection: Connection) {
        if let Some(n) = self.servers.iter().position(|server| server == connection.address()) {
            self.first_server = n;
        }
        self.connection = Some(connection);
    }

    /// In which order the servers are asked: first where the connection leads, then around the list.
    fn order(&self) -> VecDeque<String> {
        let connected = self.connection.iter().map(|connection| connection.address().to_owned());
        let (before, from) = self.servers.split_at(self.first_server);
        connected.chain(from.iter().chain(before).cloned()).collect()
    }

    fn unavailable(&self, attempts: Attempts) -> ClientError {
        ClientError::Unavailable { time_limit: self.timeout, attempts: attempts.last }
    }
}

/// What one attempt came to.
enum Step<T> {
    /// It was done.
    Done(T),
    /// The request is decided otherwise, or must not be repeated.
    Final(ClientError),
    /// Nothing was done, or it may be repeated: here after a pause, or at once where a redirect leads.
    NotDone(AttemptError),
}

/// One round over the servers: each address is asked once, redirects first.
struct Round {
    left: VecDeque<String>,
    tried: Vec<String>,
    hops: u32,
    /// The latest term that a hint named: an earlier one is out of date.
    term: Term,
    only_wrong_servers: bool,
}

impl Round {
    fn new(left: VecDeque<String>) -> Self {
        Self { left, tried: Vec::new(), hops: 0, term: Term(0), only_wrong_servers: true }
    }

    fn next_address(&mut self) -> Option<String> {
        while let Some(address) = self.left.pop_front() {
            if !self.tried.contains(&address) {
                self.tried.push(address.clone());
                return Some(address);
            }
        }
        None
    }

    /// Draws the conclusions from a failed attempt: a redirect is followed next.
    fn note(&mut self, why: &AttemptError) {
        self.only_wrong_servers &= why.is_wrong_server();
        if let AttemptError::Refused(Refusal::NotLeader { address, term, .. }) = why {
            self.follow(address, *term);
        }
    }

    fn follow(&mut self, leader: &str, term: Term) {
        if term < self.term || self.hops == HOPS_MAX {
            return;
        }
        self.hops += 1;
        if term > self.term {
            self.term = term;
            // It may have refused before it was elected in this later term.
            self.tried.retain(|address| address != leader);
        }
        self.left.push_front(leader.to_owned());
    }
}

/// The last failure at each address, for the message at the end.
#[derive(Default)]
struct Attempts {
    last: Vec<(String, AttemptError)>,
}

impl Attempts {
    fn note(&mut self, address: String, why: AttemptError) {
        self.last.retain(|(known, _)| *known != address);
        self.last.push((address, why));
    }
}

fn ask_status(address: &str, cluster: &str, deadline: Instant) -> Result<NodeStatus, AttemptError> {
    let mut connection = Connection::open(address, cluster, deadline)?;
    connection.submit(Operation::Status, deadline);
    connection.flush(deadline)?;
    match connection.receive(deadline)?.outcome {
        Outcome::Status(status) => Ok(status),
        Outcome::Refused(refusal) => Err(AttemptError::Refused(refusal)),
        _ => Err(AttemptError::StrayReply),
    }
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
