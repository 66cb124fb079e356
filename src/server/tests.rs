//! A cluster of whole nodes in memory: the daemon's turn on simulated disks, with messages handed over in
//! memory and the time given. Whatever leaves a node and promises durability is held against a copy of its disk
//! that has lost power at that moment.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest, NodeRole, Operation, Outcome, Refusal};
use fsd_wire::hello::{HelloStatus, Identity};
use fsd_wire::peer::{AppendResult, PeerMessage};
use fsd_wire::{ClusterId, Command, LogIndex, NodeId, Operation as Change, RequestId, Version};

use super::image::StoreImage;
use super::node::{Node, NodeConfig};
use super::{Fault, Network};
use crate::config::{Member, TextReads, TextWrites};
use crate::file_store::FileStore;
use crate::limits;
use crate::net::{ClientProtocol, ConnectionId, Event, HttpPage, HttpReply};
use crate::raft::{Input, ReplicationBounds};
use crate::simulated_disk::{SimulatedDisk, Unflushed};
use crate::storage::{self, DirectoryIdentity, Storage};

mod alarms;
mod backup;
mod expiry;
mod forwarding;
mod outcomes;
mod pace;
mod readiness;
mod reads;
mod restored;
mod room;
mod sessions;
mod space;

const SEGMENT_BYTES: u64 = 64 * 1024;
const HEARTBEAT_MS: u64 = 50;
const ELECTION_TIMEOUT_MS: u64 = 300;

/// A node's network: it keeps what leaves, with the count of flushes by then, and checks what it promises.
struct Recorder {
    node: NodeId,
    disk: SimulatedDisk,
    sent: Vec<(NodeId, PeerMessage, u64)>,
    replies: Vec<ClientReply>,
    pages: Vec<(ConnectionId, HttpReply)>,
    /// Clients that are there no more.
    gone: Vec<ConnectionId>,
}

impl Network for Recorder {
    fn reply(&mut self, _connection: ConnectionId, reply: &ClientReply) {
        self.replies.push(reply.clone());
    }

    fn reply_page(&mut self, connection: ConnectionId, reply: &HttpReply) {
        self.pages.push((connection, reply.clone()));
    }

    fn answer_peer(&mut self, _: u64, _: ConnectionId, _: NodeId, _: HelloStatus, _: String) {}

    fn open_link(&mut self, _node: NodeId) {}

    fn refuse_link(&mut self, _: u64, _: NodeId, _: String) {}

    fn send_peer(&mut self, to: NodeId, message: &PeerMessage) {
        self.check_promise(to, message);
        self.sent.push((to, message.clone(), self.disk.flushes()));
    }

    fn push_peers(&mut self, _now_ms: u64) {}

    fn has_client(&self, connection: ConnectionId) -> bool {
        !self.gone.contains(&connection)
    }

    fn set_identity(&mut self, _identity: Identity) {}
}

impl Recorder {
    /// A granted vote and a matched append must be on the disk already.
    fn check_promise(&self, to: NodeId, message: &PeerMessage) {
        match message {
            PeerMessage::RequestVoteReply(reply) if reply.vote_granted && !reply.pre_vote => {
                let state = after_power_failure(&self.disk, self.node).recovered.state;
                assert_eq!((state.term, state.voted_for), (reply.election_term, Some(to)));
            }
            PeerMessage::AppendEntriesReply(reply) => {
                if let AppendResult::Matched { match_index } = reply.result {
                    let last_index = after_power_failure(&self.disk, self.node).recovered.log.last_index;
                    assert!(last_index >= match_index, "{last_index} of {match_index} promised entries");
                }
            }
            PeerMessage::RequestVote(request) if !request.pre_vote => {
                let state = after_power_failure(&self.disk, self.node).recovered.state;
                assert_eq!((state.term, state.voted_for), (request.term, Some(self.node)));
            }
            _ => {}
        }
    }
}

struct TestMember {
    node: Node<SimulatedDisk>,
    network: Recorder,
}

struct Cluster {
    members: BTreeMap<NodeId, TestMember>,
    /// Messages on their way, from and to whom.
    in_flight: VecDeque<(NodeId, NodeId, PeerMessage)>,
    now_ms: u64,
    next_request: u64,
}

impl Cluster {
    fn new(nodes: u32) -> Self {
        let members = (1..=nodes).map(|node| (NodeId(node), start(NodeId(node), nodes))).collect();
        let mut cluster = Self { members, in_flight: VecDeque::new(), now_ms: 0, next_request: 0 };
        cluster.introduce();
        cluster
    }

    /// Everybody meets everybody, as hellos would have it.
    fn introduce(&mut self) {
        let identities: Vec<Identity> =
            self.members.values().map(|member| member.node.raft.identity()).collect();
        for member in self.members.values_mut() {
            for identity in identities.iter().filter(|identity| identity.node != member.network.node) {
                let Identity { node, incarnation, life, cluster_id } = *identity;
                member.node.raft.step(0, Input::Met { node, incarnation, life, cluster_id });
            }
        }
    }

    fn turn(&mut self, node: u32, mut events: Vec<Event>) -> Result<(), Fault> {
        let id = NodeId(node);
        let member = self.members.get_mut(&id).expect("a member");
        member.node.fire_timers(self.now_ms);
        let result = member.node.turn(self.now_ms, &mut events, &mut member.network);
        for (to, message, _) in std::mem::take(&mut member.network.sent) {
            self.in_flight.push_back((id, to, message));
        }
        result
    }

    /// Hands over what is on its way, and what that brings about, until nothing is.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            match self.in_flight.pop_front() {
                Some((from, to, message)) => {
                    self.turn(to.0, vec![Event::Peer { from, message }]).expect("good disks");
                }
                None if self.members.values().any(|m| m.node.next_deadline_ms() == Some(0)) => {
                    self.turn_all()
                }
                None => return,
            }
        }
        panic!("messages without end");
    }

    fn turn_all(&mut self) {
        for node in self.members.keys().map(|id| id.0).collect::<Vec<_>>() {
            self.turn(node, Vec::new()).expect("good disks");
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            self.turn_all();
            self.settle();
        }
    }

    fn leader(&mut self) -> u32 {
        for _ in 0..100 {
            let leads = |member: &TestMember| member.node.status().role == NodeRole::Leader;
            if let Some((id, _)) = self.members.iter().find(|(_, member)| leads(member)) {
                return id.0;
            }
            self.pass(50);
        }
        panic!("no leader");
    }

    fn request(&mut self, operation: Operation) -> Event {
        self.next_request += 1;
        let request = ClientRequest { id: RequestId(self.next_request), timeout_ms: 5000, operation };
        Event::Request { connection: ConnectionId::new(1, 1), protocol: ClientProtocol::Binary, request }
    }

    fn write(&mut self, name: &str, expiry_seconds: u64) -> Event {
        let operation = Change::Write { expiry_seconds };
        let contents = Bytes::from_static(b"contents");
        self.request(Operation::Change {
            command: Command { operation, name: name.into(), contents }.encode(),
        })
    }

    fn replies(&mut self, node: u32) -> Vec<Outcome> {
        let replies =
            std::mem::take(&mut self.members.get_mut(&NodeId(node)).expect("a member").network.replies);
        replies.into_iter().map(|reply| reply.outcome).collect()
    }

    /// One request at the leader, and its outcome once all has settled.
    fn ask(&mut self, node: u32, event: Event) -> Outcome {
        self.turn(node, vec![event]).expect("good disks");
        self.settle();
        let mut replies = self.replies(node);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    /// All nodes lose power at once and start again from what was on their disks.
    fn restart_all(&mut self) {
        let nodes = self.members.len() as u32;
        self.in_flight.clear();
        for (id, member) in &mut self.members {
            *member = start_on(member.network.disk.crash(Unflushed::Lost), *id, nodes, self.now_ms);
        }
        self.introduce();
    }

    fn disk(&self, node: u32) -> &SimulatedDisk {
        &self.members[&NodeId(node)].network.disk
    }
}

fn identity_of(node: NodeId) -> DirectoryIdentity {
    DirectoryIdentity { cluster: "test".into(), node }
}

fn open(disk: SimulatedDisk, node: NodeId) -> Storage<SimulatedDisk> {
    open_with_store(disk, node).0
}

fn open_with_store(disk: SimulatedDisk, node: NodeId) -> (Storage<SimulatedDisk>, FileStore) {
    let mut random = fastrand::Rng::with_seed(u64::from(node.0));
    let mut image = StoreImage::default();
    let mut draw = || random.u64(1..);
    let storage = storage::open_into(disk, &identity_of(node), SEGMENT_BYTES, &mut draw, &mut image);
    (storage.expect("a good directory"), image.into_store())
}

fn after_power_failure(disk: &SimulatedDisk, node: NodeId) -> Storage<SimulatedDisk> {
    open(disk.crash(Unflushed::Lost), node)
}

fn start(node: NodeId, nodes: u32) -> TestMember {
    start_on(SimulatedDisk::new(), node, nodes, 0)
}

/// A node on the disk of an earlier life, if it had one.
fn start_on(disk: SimulatedDisk, node: NodeId, nodes: u32, now_ms: u64) -> TestMember {
    let (storage, store) = open_with_store(disk.clone(), node);
    let network =
        Recorder { node, disk, sent: Vec::new(), replies: Vec::new(), pages: Vec::new(), gone: Vec::new() };
    TestMember { node: Node::new(config_of(node, nodes), storage, store, now_ms), network }
}

fn config_of(node: NodeId, nodes: u32) -> NodeConfig {
    let address = |port: u32| ([127, 0, 0, 1], port as u16).into();
    let members = (1..=nodes)
        .map(|n| Member {
            node: NodeId(n),
            peer: address(n),
            client: address(100 + n),
            text: None,
            http: None,
        })
        .collect();
    NodeConfig {
        cluster: "test".into(),
        node,
        members,
        heartbeat_ms: HEARTBEAT_MS,
        election_timeout_ms: ELECTION_TIMEOUT_MS,
        max_file_bytes: 1024,
        text_reads: TextReads::Linearizable,
        text_writes: TextWrites::Redirect,
        session_idle_ms: limits::SESSION_IDLE_MS,
        sessions_max: limits::SESSIONS_MAX,
        replication: ReplicationBounds::default(),
        seed: u64::from(node.0),
        new_cluster_id: ClusterId(u128::from(node.0)),
        new_incarnation: 99,
    }
}

#[test]
fn what_promises_durability_is_durable_when_it_leaves() {
    // The recorder checks each vote and each answer to AppendEntries; here, that there were some, and that an
    // acknowledged write is on a majority of the disks at the moment of its reply.
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    for n in 0..50 {
        let write = cluster.write(&format!("f{n}"), 0);
        let outcome = cluster.ask(leader, write);
        assert_eq!(outcome, Outcome::Changed { version: Version(n + 1) });
        let index = cluster.members[&NodeId(leader)].node.status().commit_index;
        let holding = (1..=3)
            .filter(|node| {
                after_power_failure(cluster.disk(*node), NodeId(*node)).recovered.log.last_index >= index
            })
            .count();
        assert!(holding >= 2, "entry {index} is on {holding} disks");
    }
}

#[test]
fn many_requests_share_one_flush_and_entries_leave_before_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let writes = (0..100).map(|n| cluster.write(&format!("f{n}"), 0)).collect();
    let before = cluster.disk(leader).flushes();
    let member = cluster.members.get_mut(&NodeId(leader)).unwrap();
    let mut events: Vec<Event> = writes;
    member.node.turn(cluster.now_ms, &mut events, &mut member.network).unwrap();
    assert_eq!(member.network.disk.flushes(), before + 1);
    let with_entries =
        |message: &PeerMessage| matches!(message, PeerMessage::AppendEntries(m) if !m.entries.is_empty());
    let sent: Vec<u64> =
        member.network.sent.iter().filter(|sent| with_entries(&sent.1)).map(|sent| sent.2).collect();
    assert_eq!(sent, [before, before], "one to each follower, before the flush");
}

#[test]
fn after_a_failed_flush_nothing_promises_anything() {
    for role_is_leader in [true, false] {
        // Which operation of the turn is the flush is not this test's business: each is made to fail in turn.
        // (A store into a mapping cannot fail; then the turn succeeds.)
        let failed = (1..=6).filter(|operation| fails_without_a_promise(role_is_leader, *operation)).count();
        assert!(failed > 0, "no operation failed");
    }
}

/// Lets one operation of a turn that appends an entry fail. Whether the turn failed; if so, it promised nothing.
fn fails_without_a_promise(role_is_leader: bool, operation: u64) -> bool {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let write = cluster.write("f", 0);
    cluster.turn(leader, vec![write]).unwrap();
    let victim = if role_is_leader { leader } else { 1 + leader % 3 };
    let event = if role_is_leader {
        cluster.write("g", 0)
    } else {
        let at = cluster.in_flight.iter().position(|(_, to, _)| to.0 == victim).unwrap();
        let (from, _, message) = cluster.in_flight.remove(at).unwrap();
        Event::Peer { from, message }
    };
    let disk = cluster.disk(victim).clone();
    disk.fail_at(disk.operations() + operation, std::io::ErrorKind::Other);
    let failed = cluster.turn(victim, vec![event]).is_err();
    if failed {
        assert!(cluster.replies(victim).is_empty());
        let promises = |message: &PeerMessage| {
            matches!(message, PeerMessage::AppendEntriesReply(_) | PeerMessage::RequestVoteReply(_))
        };
        assert!(!cluster.in_flight.iter().any(|(from, _, message)| from.0 == victim && promises(message)));
    }
    failed
}

#[test]
fn a_follower_names_the_leader_and_a_lonely_node_says_that_there_is_none() {
    let mut cluster = Cluster::new(3);
    let write = cluster.write("f", 0);
    assert_eq!(cluster.ask(1, write), Outcome::Refused(Refusal::NoLeader));
    let read = cluster.request(Operation::Read { name: "f".into() });
    assert_eq!(cluster.ask(1, read), Outcome::Refused(Refusal::NoLeader));
    let leader = cluster.leader();
    let follower = 1 + leader % 3;
    cluster.pass(HEARTBEAT_MS);
    let write = cluster.write("f", 0);
    let Outcome::Refused(Refusal::NotLeader { leader: named, address, .. }) = cluster.ask(follower, write)
    else {
        panic!("a follower redirects")
    };
    assert_eq!((named, address), (NodeId(leader), format!("127.0.0.1:{}", 100 + leader)));
}

#[test]
fn a_file_goes_at_its_expiry_not_before_and_without_another_write() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let write = cluster.write("f", 2);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    cluster.pass(1);
    let read = |cluster: &mut Cluster| {
        let event = cluster.request(Operation::Stat { name: "f".into() });
        match cluster.ask(leader, event) {
            Outcome::Stat(info) => Some(info.expiry_seconds),
            Outcome::Refused(Refusal::NotFound) => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&mut cluster), Some(2));
    cluster.pass(998);
    assert_eq!(read(&mut cluster), Some(2));
    cluster.pass(1);
    assert_eq!(read(&mut cluster), Some(1));
    cluster.pass(999);
    assert_eq!(read(&mut cluster), Some(1));
    // The clock comes to the moment while nothing else happens: a read in that very turn finds nothing.
    cluster.now_ms += 1;
    assert_eq!(read(&mut cluster), None);
    cluster.pass(2 * HEARTBEAT_MS);
    for member in cluster.members.values() {
        assert_eq!(member.node.status().files, 0, "node {}", member.network.node);
    }
}

#[test]
fn a_page_of_long_names_is_cut_by_their_bytes_and_says_that_there_is_more() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1);
    let leader = cluster.leader();
    for n in 0..100 {
        let part = "x".repeat(250);
        let write = cluster.write(&format!("{n:03}/{part}/{part}/{part}/{part}"), 0);
        assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    }
    let list = cluster.request(Operation::List { prefix: String::new(), after: String::new(), limit: 1000 });
    let Outcome::Listed { files, more } = cluster.ask(leader, list) else { panic!("a list") };
    assert_eq!((files.len(), more), (65, true));
}

#[test]
fn what_is_due_is_not_shown_while_its_removal_is_refused() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let write = cluster.write("f", 1);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    cluster.pass(950);
    // Leadership is being handed over, so nothing can be proposed, and the successor never hears of it.
    let member = cluster.members.get_mut(&NodeId(leader)).unwrap();
    member.node.raft.step(cluster.now_ms, Input::TransferLeadership { to: None });
    cluster.turn(leader, Vec::new()).unwrap();
    cluster.in_flight.retain(|(_, _, message)| !matches!(message, PeerMessage::TimeoutNow(_)));
    cluster.now_ms += 60;
    let read = cluster.request(Operation::Stat { name: "f".into() });
    cluster.turn(leader, vec![read]).unwrap();
    cluster.settle();
    assert_eq!(cluster.replies(leader), [], "it is due, and its removal is not in the log");
    // The handover is given up after an election timeout.
    cluster.pass(400);
    assert_eq!(cluster.replies(leader), [Outcome::Refused(Refusal::NotFound)]);
}

#[test]
fn an_expiry_beyond_all_time_is_none_that_anybody_sees() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1);
    let leader = cluster.leader();
    for expiry_seconds in [u64::MAX, u64::MAX / 1000, u64::MAX / 1000 - 1] {
        let write = cluster.write("f", expiry_seconds);
        assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
        cluster.pass(10);
        let stat = cluster.request(Operation::Stat { name: "f".into() });
        assert!(matches!(cluster.ask(leader, stat), Outcome::Stat(_)));
    }
}

#[test]
fn a_file_goes_by_itself_while_nobody_asks() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let write = cluster.write("f", 1);
    cluster.ask(leader, write);
    let before = cluster.members[&NodeId(leader)].node.status().last_log_index;
    cluster.pass(1000 + 2 * HEARTBEAT_MS);
    for member in cluster.members.values() {
        assert_eq!(member.node.status().files, 0, "node {}", member.network.node);
        // One entry did it: the leader does not propose the same again while it waits.
        assert_eq!(member.node.status().last_log_index, before.next());
    }
}

#[test]
fn a_write_whose_entry_was_replaced_is_refused_for_certain() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let write = cluster.write("lost", 0);
    cluster.turn(old, vec![write]).unwrap();
    // The leader is cut off with its entry; the others elect another and go on.
    let mut cut_off = cluster.members.remove(&NodeId(old)).unwrap();
    cluster.in_flight.clear();
    let new = {
        for _ in 0..3000 {
            cluster.now_ms += 1;
            for node in cluster.members.keys().map(|id| id.0).collect::<Vec<_>>() {
                cluster.turn(node, Vec::new()).unwrap();
            }
            cluster.in_flight.retain(|(_, to, _)| to.0 != old);
            cluster.settle_without(old);
        }
        cluster.leader()
    };
    let write = cluster.write("kept", 0);
    cluster.turn(new, vec![write]).unwrap();
    cluster.settle_without(old);
    assert!(matches!(cluster.replies(new)[..], [Outcome::Changed { .. }]));
    // It comes back within its client's time: time stood still for it.
    cut_off.node.fire_timers(0);
    cluster.members.insert(NodeId(old), cut_off);
    let resumed_ms = cluster.now_ms;
    for _ in 0..500 {
        cluster.now_ms += 1;
        for node in (1..=3).filter(|node| *node != old) {
            cluster.turn(node, Vec::new()).unwrap();
        }
        while let Some((from, to, message)) = cluster.in_flight.pop_front() {
            let now_ms = cluster.now_ms;
            if to.0 == old {
                cluster.now_ms = 1000;
            }
            cluster.turn(to.0, vec![Event::Peer { from, message }]).unwrap();
            cluster.now_ms = now_ms;
        }
    }
    assert!(cluster.now_ms > resumed_ms);
    match &cluster.replies(old)[..] {
        [Outcome::Refused(Refusal::NotLeader { leader, .. })] => assert_eq!(leader.0, new),
        other => panic!("{other:?}"),
    }
}

impl Cluster {
    /// As [`Self::settle`], with one node that cannot be reached.
    fn settle_without(&mut self, away: u32) {
        while let Some((from, to, message)) = self.in_flight.pop_front() {
            if to.0 != away {
                self.turn(to.0, vec![Event::Peer { from, message }]).expect("good disks");
            }
        }
    }
}

#[test]
fn a_request_whose_time_is_up_is_answered_with_what_is_known() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let write = cluster.write("f", 0);
    let read = cluster.request(Operation::Read { name: "f".into() });
    cluster.turn(leader, vec![write, read]).unwrap();
    // No reply of a follower ever comes back.
    for _ in 0..5001 {
        cluster.now_ms += 1;
        cluster.in_flight.clear();
        cluster.turn(leader, Vec::new()).unwrap();
    }
    let mut replies = cluster.replies(leader);
    replies.sort_by_key(|outcome| *outcome == Outcome::Refused(Refusal::Unknown));
    assert_eq!(replies, [Outcome::Refused(Refusal::NoLeader), Outcome::Refused(Refusal::Unknown)]);
}

#[test]
fn a_leader_that_stops_hands_over_and_answers_everybody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let write = cluster.write("f", 0);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    let member = cluster.members.get_mut(&NodeId(leader)).unwrap();
    member.node.stop(cluster.now_ms);
    assert!(!member.node.is_stopped());
    cluster.turn_all();
    cluster.settle();
    assert!(cluster.members[&NodeId(leader)].node.is_stopped());
    let successor = cluster.leader();
    assert_ne!(successor, leader);
    let write = cluster.write("g", 0);
    assert!(matches!(cluster.ask(successor, write), Outcome::Changed { .. }));
    assert!(cluster.members[&NodeId(successor)].node.status().commit_index > LogIndex(0));
}
