//! Many clients at five real nodes, whose leaders are killed and stopped: what the clients were told, all together,
//! has an explanation (`fsd-history`).

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fsclient::{Connection, Operation as Request, Outcome as Reply, Refusal};
use fsd_history::{ClientId, History, Operation, Outcome, Tag, Version};
use support::{PATIENCE, TestCluster, wait_until};

const CLIENTS: u32 = 12;
const FILES: usize = 6;
/// A client makes at most so many calls: the history stays short enough to be judged at once.
const CALLS_MAX: u64 = 1500;
/// Successful changes between two disturbances.
const PROGRESS: u64 = 40;
/// How long a client waits for one answer; then it does not know.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
/// A client that found no leader waits so long, for the sake of the one that is to be elected on the same processors.
const PAUSE: Duration = Duration::from_millis(10);
/// Cluster time counts in milliseconds: a file may be gone by so much early, in microseconds.
const CLOCK_GRAIN_US: u64 = 2_000;

#[test]
fn what_clients_are_told_through_kills_and_stops_of_leaders_has_an_explanation() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut cluster = TestCluster::start(5);
    let shared = Shared::new(&cluster);
    let (mut history, leaders) = std::thread::scope(|scope| {
        // A failed disturbance must not leave the clients running for ever.
        let stop = StopOnDrop(&shared.stop);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|id| {
                let shared = &shared;
                let random = fastrand::Rng::with_seed(seed.wrapping_add(u64::from(id)));
                scope.spawn(move || Caller::new(id, shared, random).run())
            })
            .collect();
        let mut history = History::new();
        let leaders = disturb(&mut cluster, &shared, &mut history);
        drop(stop);
        clients.into_iter().for_each(|client| history.merge(client.join().unwrap()));
        (history, leaders)
    });
    read_all_at_every_node(&mut cluster, &shared, &mut history);

    let summary = fsd_history::check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    let at_followers = shared.reads_at_followers.load(Ordering::SeqCst);
    eprintln!("{summary:?}, {at_followers} reads at followers, leaders {leaders:?}");
    // A history in which little happened explains itself.
    assert!(summary.changes > 300 && summary.reads > 300 && summary.refusals > 20, "{summary:?}");
    assert!(at_followers > 100, "{at_followers} reads were answered by followers");
    let changes = leaders.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes >= 4, "{leaders:?}");
    cluster.compare_all_nodes();
}

/// Kills and stops leaders while clients call. Returns who led, one after the other.
fn disturb(cluster: &mut TestCluster, shared: &Shared, history: &mut History) -> Vec<usize> {
    let mut leaders = vec![cluster.wait_for_leader()];
    for round in 0..4 {
        shared.wait_for_progress();
        let old = cluster.wait_for_leader();
        shared.leader.store(old as u64, Ordering::SeqCst);
        let to_stop = (round % 2 == 1).then(|| {
            let connection = Connection::open(&shared.addresses[old], "", Instant::now() + PATIENCE).unwrap();
            cluster.nodes[old].stop();
            connection
        });
        if to_stop.is_none() {
            cluster.kill_9(old);
        }
        leaders.push(cluster.wait_for_leader());
        shared.leader.store(*leaders.last().unwrap() as u64, Ordering::SeqCst);
        // The new leader has changed what the old one still believes in.
        shared.wait_for_progress();
        match to_stop {
            None => cluster.restart(old),
            Some(connection) => read_all_at_the_stopped_one(cluster, old, connection, shared, history),
        }
        // Followers come and go as well.
        let follower = cluster.a_follower();
        cluster.nodes[follower].stop();
        shared.wait_for_progress();
        cluster.nodes[follower].cont();
        leaders.push(cluster.wait_for_leader());
    }
    leaders
}

/// The stopped node finds reads in its socket when it goes on, and still believes that it leads: whatever it answers must
/// be true of now, not of then.
fn read_all_at_the_stopped_one(
    cluster: &mut TestCluster,
    stopped: usize,
    mut connection: Connection,
    shared: &Shared,
    history: &mut History,
) {
    let deadline = Instant::now() + PATIENCE;
    let asked: Vec<_> = (0..FILES)
        .map(|number| {
            // They are under way together: to the history each is a client of its own.
            let client = ClientId(CLIENTS + 1 + number as u32);
            let call = history.invoke(client, &file(number), Operation::Read, shared.now());
            (connection.submit(Request::Read { name: file(number) }, deadline), call)
        })
        .collect();
    connection.flush(deadline).unwrap();
    cluster.nodes[stopped].cont();
    for _ in &asked {
        let reply = connection.receive(deadline).unwrap();
        let (_, call) = asked.iter().find(|(request, _)| *request == reply.id).expect("it was asked");
        history.answer(*call, outcome_of(&reply.outcome), shared.now());
    }
}

/// In the end every node is asked for every file: what is there now must fit all that was told.
fn read_all_at_every_node(cluster: &mut TestCluster, shared: &Shared, history: &mut History) {
    cluster.wait_for_leader();
    cluster.wait_until_caught_up(&[0, 1, 2, 3, 4]);
    for node in 0..5 {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::open(&shared.addresses[node], "", deadline).unwrap();
        for number in 0..FILES {
            let file = file(number);
            wait_until(PATIENCE, "each node answers", || {
                let id = history.invoke(ClientId(CLIENTS), &file, Operation::Read, shared.now());
                connection.submit(Request::Read { name: file.clone() }, deadline);
                connection.flush(deadline).unwrap();
                let outcome = outcome_of(&connection.receive(deadline).unwrap().outcome);
                history.answer(id, outcome, shared.now());
                outcome != Outcome::Failed
            });
        }
    }
}

fn file(number: usize) -> String {
    format!("f{number}")
}

/// What the clients and the disturber have in common.
struct Shared {
    addresses: Vec<String>,
    start: Instant,
    stop: AtomicBool,
    changes: AtomicU64,
    /// The last leader that was seen, by its place: for the choice of whom to ask, and the count of reads at others.
    leader: AtomicU64,
    reads_at_followers: AtomicU64,
}

impl Shared {
    fn new(cluster: &TestCluster) -> Self {
        Self {
            addresses: cluster.nodes.iter().map(|node| node.client.clone()).collect(),
            start: Instant::now(),
            stop: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            leader: AtomicU64::new(cluster.wait_for_leader() as u64),
            reads_at_followers: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap()
    }

    fn wait_for_progress(&self) {
        let goal = self.changes.load(Ordering::SeqCst) + PROGRESS;
        wait_until(PATIENCE, "changes are made", || self.changes.load(Ordering::SeqCst) >= goal);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One client: it asks one node at a time, and believes what it is told.
struct Caller<'a> {
    id: u32,
    shared: &'a Shared,
    random: fastrand::Rng,
    history: History,
    connections: Vec<Option<Connection>>,
    /// Where changes go until a redirect says otherwise.
    leader: usize,
    /// Versions that were seen, by file.
    versions: Vec<Version>,
    calls: u64,
}

impl<'a> Caller<'a> {
    fn new(id: u32, shared: &'a Shared, random: fastrand::Rng) -> Self {
        let connections = shared.addresses.iter().map(|_| None).collect();
        let versions = vec![Version(0); FILES];
        Self { id, shared, random, history: History::new(), connections, leader: 0, versions, calls: 0 }
    }

    fn run(mut self) -> History {
        while !self.shared.stop.load(Ordering::SeqCst) && self.calls < CALLS_MAX {
            self.call();
        }
        self.history
    }

    fn call(&mut self) {
        self.calls += 1;
        let number = self.random.usize(..FILES);
        let operation = self.operation(number);
        let node = match operation {
            Operation::Read => self.reader(),
            _ => self.leader,
        };
        let led = self.shared.leader.load(Ordering::SeqCst);
        let id = self.history.invoke(ClientId(self.id), &file(number), operation, self.shared.now());
        let reply = self.ask(node, request(&operation, file(number)));
        let outcome = reply.as_ref().map_or(Outcome::Failed, outcome_of);
        self.history.answer(id, outcome, self.shared.now());
        match outcome {
            Outcome::Found { version, .. } | Outcome::Changed { version: Some(version) } => {
                self.versions[number] = version;
            }
            Outcome::Mismatch { present } => self.versions[number] = present,
            Outcome::Missing => self.versions[number] = Version(0),
            Outcome::Failed => self.look_elsewhere(reply.as_ref()),
            Outcome::Changed { version: None } | Outcome::Unknown => {}
        }
        match outcome {
            Outcome::Found { .. }
                if [led, self.shared.leader.load(Ordering::SeqCst)] == [led; 2] && led != node as u64 =>
            {
                self.shared.reads_at_followers.fetch_add(1, Ordering::SeqCst);
            }
            Outcome::Changed { .. } => {
                self.shared.changes.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    fn operation(&mut self, number: usize) -> Operation {
        // Each change of any client has contents of its own.
        let contents = Tag(u64::from(self.id) << 32 | self.calls);
        let seen = self.versions[number];
        let lifetime = (self.random.u32(..6) == 0).then_some(1_000_000 - CLOCK_GRAIN_US);
        match self.random.u32(..20) {
            0..10 => Operation::Read,
            10..14 => Operation::Write { contents, lifetime },
            14..18 => Operation::Cas { expected: seen, contents, lifetime },
            18 => Operation::Delete { expected: None },
            _ => Operation::Delete { expected: Some(seen).filter(|seen| seen.0 > 0) },
        }
    }

    /// Any node; mostly one that answered last time, or all clients would soon wait for a stopped one.
    fn reader(&mut self) -> usize {
        let known: Vec<usize> =
            (0..self.connections.len()).filter(|n| self.connections[*n].is_some()).collect();
        match self.random.choice(known).filter(|_| self.random.u32(..8) > 0) {
            Some(node) => node,
            None => self.random.usize(..self.connections.len()),
        }
    }

    /// One request at one node. `None` if it did not leave, so that nothing can have happened.
    fn ask(&mut self, node: usize, request: Request) -> Option<Reply> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut connection = match self.connections[node].take() {
            Some(connection) => connection,
            None => Connection::open(&self.shared.addresses[node], "", deadline).ok()?,
        };
        let id = connection.submit(request, deadline);
        connection.flush(deadline).ok()?;
        match connection.receive(deadline) {
            Ok(reply) => {
                assert_eq!(reply.id, id);
                self.connections[node] = Some(connection);
                Some(reply.outcome)
            }
            // The answer may come yet, to nobody: the connection ends here.
            Err(_) => Some(Reply::Refused(Refusal::Unknown)),
        }
    }

    fn look_elsewhere(&mut self, reply: Option<&Reply>) {
        let nodes = self.shared.addresses.len();
        self.leader = match reply {
            Some(Reply::Refused(Refusal::NotLeader { leader, .. })) => leader.0 as usize - 1,
            _ => self.random.usize(..nodes),
        };
        if !matches!(reply, Some(Reply::Refused(Refusal::NotLeader { .. }))) {
            std::thread::sleep(PAUSE);
        }
    }
}

fn request(operation: &Operation, name: String) -> Request {
    let seconds = |lifetime: Option<u64>| u64::from(lifetime.is_some());
    let (operation, contents) = match *operation {
        Operation::Read => return Request::Read { name },
        Operation::Write { contents, lifetime } => {
            (fsd_wire::Operation::Write { expiry_seconds: seconds(lifetime) }, Some(contents))
        }
        Operation::Cas { expected, contents, lifetime } => {
            let (expected, expiry_seconds) = (fsd_wire::Version(expected.0), seconds(lifetime));
            (fsd_wire::Operation::Cas { expected, expiry_seconds }, Some(contents))
        }
        Operation::Delete { expected: None } => (fsd_wire::Operation::Delete, None),
        Operation::Delete { expected: Some(expected) } => {
            (fsd_wire::Operation::DeleteIf { expected: fsd_wire::Version(expected.0) }, None)
        }
    };
    let contents = contents.map_or(bytes::Bytes::new(), |tag| bytes::Bytes::from(tag.0.to_string()));
    Request::Change { command: fsclient::Command { operation, name, contents }.encode() }
}

fn outcome_of(reply: &Reply) -> Outcome {
    match reply {
        Reply::Read { version, contents, .. } => {
            let contents = std::str::from_utf8(contents).unwrap().parse().unwrap();
            Outcome::Found { version: Version(version.0), contents: Tag(contents) }
        }
        Reply::Changed { version } => Outcome::Changed { version: Some(Version(version.0)) },
        Reply::Refused(Refusal::NotFound) => Outcome::Missing,
        Reply::Refused(Refusal::VersionMismatch { present }) => {
            Outcome::Mismatch { present: Version(present.0) }
        }
        Reply::Refused(
            Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Busy | Refusal::DiskFull { .. },
        ) => Outcome::Failed,
        Reply::Refused(Refusal::Unknown) => Outcome::Unknown,
        other => panic!("no answer to such a request: {other:?}"),
    }
}
