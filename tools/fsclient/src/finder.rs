//! Finds the node that answers a request: through redirects and failovers, until a point in time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fsd_wire::Term;
use fsd_wire::client::{ClientReply, Operation, Outcome, Refusal};

use crate::connection::{Connection, remaining};
use crate::error::{AttemptError, ClientError};

/// How long one node may take to accept a connection, or to answer, before the next is asked: a stopped process
/// still accepts connections, and must not use up the whole time limit.
const ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// Redirects followed in one round over the servers. Leadership changes hands less often than that; more means
/// that nodes disagree, and a pause helps better than another hop.
const HOPS_MAX: u32 = 8;
/// The first pause between two rounds; it doubles from round to round up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// With less time left no further attempt is made: one that is cut off before its answer would make an unknown outcome
/// of "nothing was done". Of a short time limit it is an eighth.
const ANSWER_TIME_MIN: Duration = Duration::from_millis(50);
/// The most that the time for an attempt grows to: no request waits longer in all.
const ATTEMPT_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The servers of a cluster, and the connection to the one that answered last.
///
/// It makes one request at a time, and makes it again until it is answered: whoever asks sees to it that this
/// does no harm, and draws the conclusion if an attempt was never answered.
#[derive(Debug)]
pub(crate) struct Finder {
    servers: Vec<String>,
    cluster: String,
    attempt_timeout: Duration,
    /// To the node that answered last; nothing is in flight on it between two requests.
    connection: Option<Connection>,
    /// Where the search starts when there is no connection: an index into `servers`.
    first_server: usize,
}

/// A request that was not answered as it was hoped.
#[derive(Debug)]
pub(crate) struct NotDone {
    pub(crate) reason: Reason,
    attempts: Vec<Attempt>,
}

/// Why no further attempt was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A node refused the request for a reason that lies in the request.
    Refused(Refusal),
    /// Nobody answered in time.
    TimeIsOver,
    /// Every node said that this client has the wrong address.
    WrongServers,
}

/// A failed attempt at one node.
#[derive(Debug)]
struct Attempt {
    address: String,
    why: AttemptError,
    /// The request left in full, and no answer came that says that nothing was done.
    unanswered: bool,
}

impl Finder {
    /// Nothing is connected yet.
    ///
    /// # Panics
    /// If there are no servers.
    pub(crate) fn new(servers: Vec<String>) -> Self {
        assert!(!servers.is_empty(), "a cluster has servers");
        // Each client begins elsewhere, so that a thousand of them do not all ask the first server.
        let first_server = fastrand::usize(..servers.len());
        Self {
            servers,
            cluster: String::new(),
            attempt_timeout: ATTEMPT_TIMEOUT_DEFAULT,
            connection: None,
            first_server,
        }
    }

    pub(crate) fn set_cluster(&mut self, cluster: &str) {
        cluster.clone_into(&mut self.cluster);
    }

    pub(crate) fn set_attempt_timeout(&mut self, attempt_timeout: Duration) {
        self.attempt_timeout = attempt_timeout.min(ATTEMPT_TIMEOUT_MAX);
    }

    pub(crate) fn servers(&self) -> &[String] {
        &self.servers
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.attempt_timeout
    }

    /// Asks until there is an answer, or the time is over. `accept` takes the value out of the outcome that
    /// belongs to the operation.
    pub(crate) fn ask<T>(
        &mut self,
        operation: &Operation,
        deadline: Instant,
        accept: impl Fn(Outcome) -> Option<T>,
    ) -> Result<T, NotDone> {
        let mut pause = PAUSE_FIRST;
        let mut attempt_timeout = self.attempt_timeout;
        let mut attempts = Vec::new();
        let answer_time = ANSWER_TIME_MIN.min(remaining(deadline) / 8);
        loop {
            let mut round = Round::new(self.order());
            while let Some(address) = round.next_address() {
                let (why, unanswered) =
                    match self.attempt(&address, operation, &accept, deadline, attempt_timeout) {
                        Step::Done(value) => return Ok(value),
                        Step::Refused(refusal) => {
                            return Err(NotDone { reason: Reason::Refused(refusal), attempts });
                        }
                        Step::NotTaken(why) => (why, false),
                        Step::Unanswered(why) => (why, true),
                    };
                round.note(&why);
                note(&mut attempts, Attempt { address, why, unanswered });
                if remaining(deadline) <= answer_time {
                    return Err(NotDone { reason: Reason::TimeIsOver, attempts });
                }
            }
            if round.only_wrong_servers {
                return Err(NotDone { reason: Reason::WrongServers, attempts });
            }
            if remaining(deadline) <= pause + answer_time {
                return Err(NotDone { reason: Reason::TimeIsOver, attempts });
            }
            // Somewhere in the second half of the pause, so that clients who lost the same leader at the same
            // moment do not come back at the same moment.
            std::thread::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
            pause = (pause * 2).min(PAUSE_MAX);
            attempt_timeout = (attempt_timeout * 2).min(ATTEMPT_TIMEOUT_MAX);
        }
    }

    /// The next search begins at this server, if it is one of them.
    pub(crate) fn prefer(&mut self, address: &str) {
        if let Some(n) = self.servers.iter().position(|server| server == address) {
            self.first_server = n;
            self.connection = self.connection.take().filter(|connection| connection.address() == address);
        }
    }

    /// The connection to the node that has just answered.
    ///
    /// # Panics
    /// If no request was done just now.
    pub(crate) fn take_connection(&mut self) -> Connection {
        self.connection.take().expect("a node has just answered on it")
    }

    /// Sends a last request to the node that answered last, if it is still connected, and waits for nothing.
    pub(crate) fn send_last(&mut self, operation: Operation) {
        if let Some(connection) = self.connection.take() {
            connection.send_last(operation);
        }
    }

    /// One attempt at one node.
    fn attempt<T>(
        &mut self,
        address: &str,
        operation: &Operation,
        accept: impl Fn(Outcome) -> Option<T>,
        deadline: Instant,
        timeout: Duration,
    ) -> Step<T> {
        let mut connection = match self.connect(address, deadline.min(Instant::now() + timeout)) {
            Ok(connection) => connection,
            Err(why) => return Step::NotTaken(why),
        };
        let id = connection.submit(operation.clone(), deadline.min(Instant::now() + timeout));
        // Large contents may take their time on the way, as long as they move.
        if let Err(why) = connection.flush_while_it_moves(deadline, timeout) {
            return Step::NotTaken(why);
        }
        let outcome = match connection.receive(deadline.min(Instant::now() + timeout)) {
            Ok(ClientReply { id: answered, outcome }) if answered == id => outcome,
            Ok(_) => return Step::Unanswered(AttemptError::StrayReply),
            Err(why) => return Step::Unanswered(why),
        };
        match outcome {
            Outcome::Refused(Refusal::Unknown) => Step::Unanswered(AttemptError::Refused(Refusal::Unknown)),
            Outcome::Refused(
                refusal @ (Refusal::NotLeader { .. }
                | Refusal::NoLeader
                | Refusal::Busy
                | Refusal::DiskFull { .. }),
            ) => Step::NotTaken(AttemptError::Refused(refusal)),
            Outcome::Refused(refusal) => {
                self.keep(connection);
                Step::Refused(refusal)
            }
            outcome => match accept(outcome) {
                Some(value) => {
                    self.keep(connection);
                    Step::Done(value)
                }
                None => Step::Unanswered(AttemptError::StrayReply),
            },
        }
    }

    /// The connection that is there, if it leads to this node and is good for another request, else a new one.
    fn connect(&mut self, address: &str, deadline: Instant) -> Result<Connection, AttemptError> {
        match self.connection.take() {
            Some(connection) if connection.address() == address && !connection.is_stale() => Ok(connection),
            _ => Connection::open(address, &self.cluster, deadline),
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
}

impl NotDone {
    /// Whether a node may have taken the request up, or may yet, without having said what became of it.
    pub(crate) fn was_left_unanswered(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.unanswered)
    }

    /// The error for a request that changes nothing, or that no node has taken up.
    pub(crate) fn into_nothing_done(self, time_limit: Duration) -> ClientError {
        let attempts = self.attempts.into_iter().map(|attempt| (attempt.address, attempt.why)).collect();
        match self.reason {
            Reason::Refused(refusal) => ClientError::Refused(refusal),
            Reason::TimeIsOver => ClientError::Unavailable { time_limit, attempts },
            Reason::WrongServers => ClientError::WrongServers { attempts },
        }
    }

    /// The error for a change that a node may have taken up: the last one that did not answer.
    ///
    /// # Panics
    /// If every attempt was answered.
    pub(crate) fn into_unknown(self) -> ClientError {
        let mut unanswered = self.attempts.into_iter().filter(|attempt| attempt.unanswered);
        let Attempt { address, why, .. } = unanswered.next_back().expect("an attempt was not answered");
        ClientError::Unknown { address, why }
    }
}

/// What one attempt came to.
enum Step<T> {
    /// It was done.
    Done(T),
    /// The request is refused, here as anywhere.
    Refused(Refusal),
    /// This attempt did nothing and never will: no connection came about, the request did not leave in full
    /// (nodes act on whole frames only), or the node says so.
    NotTaken(AttemptError),
    /// The request left in full, and nothing came back that tells what became of it.
    Unanswered(AttemptError),
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

/// Keeps the last failure at each address. One that leaves the outcome open is not forgotten for one that does
/// not.
fn note(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    let replaced =
        |known: &Attempt| known.address == attempt.address && (attempt.unanswered || !known.unanswered);
    attempts.retain(|known| !replaced(known));
    attempts.push(attempt);
}
