//! Scripts about reads at followers: what they ask, whose answers they take, and what leaders answer.

use fsd_wire::peer::{AppendResult, PeerMessage, ReadIndex, ReadIndexId, ReadIndexReply};
use fsd_wire::{ClusterTimeMs, Incarnation, Life, LogIndex, NodeId, Term};

use super::cluster::Cluster;
use super::single::{Done, HEARTBEAT_MS, ME, Single, entry, id, incarnation_of};
use crate::raft::{Input, Timer};

/// Node 1 of three, which follows node 2 in term 5.
fn follower() -> Single {
    let mut node = Single::new(3, &[1]);
    node.append(5, id(1, 1), vec![entry(2, 5, 2)]);
    assert_eq!(node.raft.leader_id(), Some(NodeId(2)));
    node
}

impl Single {
    fn read(&mut self, read: u64) -> Done {
        self.input(Input::Read { id: read })
    }

    fn answer_from(&mut self, from: u32, reply: ReadIndexReply) -> Done {
        self.receive(from, PeerMessage::ReadIndexReply(reply))
    }

    /// Node 2's answer to `asked`.
    fn answer(&mut self, asked: &ReadIndex) -> Done {
        self.answer_from(2, reply_to(asked))
    }

    /// Node 2 gives a sign of life after `after_ms`.
    fn heartbeat(&mut self, after_ms: u64) -> Done {
        self.now_ms += after_ms;
        self.append(5, id(5, 2), vec![])
    }

    /// A follower's question, in this node's term.
    fn asked_by(&mut self, from: u32, number: u64) -> Done {
        let id = ReadIndexId { incarnation: incarnation_of(NodeId(from)), life: Life::new(1, 0), number };
        let term = self.raft.term();
        self.receive(from, PeerMessage::ReadIndex(ReadIndex { term, id }))
    }
}

fn reply_to(asked: &ReadIndex) -> ReadIndexReply {
    let (read_index, cluster_time) = (LogIndex(9), ClusterTimeMs(777));
    ReadIndexReply { term: asked.term, id: asked.id, read_index, cluster_time }
}

impl Done {
    fn questions(&self) -> Vec<(NodeId, ReadIndex)> {
        let question = |(to, message): &(NodeId, PeerMessage)| match message {
            PeerMessage::ReadIndex(asked) => Some((*to, *asked)),
            _ => None,
        };
        self.sent.iter().filter_map(question).collect()
    }

    fn question(&self) -> ReadIndex {
        match self.questions()[..] {
            [(_, asked)] => asked,
            _ => panic!("not one question: {:?}", self.sent),
        }
    }
}

#[test]
fn all_reads_of_a_turn_are_one_question_to_the_leader() {
    let mut node = follower();
    (1..=100).for_each(|read| node.step(Input::Read { id: read }));
    let done = node.turn();
    let id = ReadIndexId { incarnation: incarnation_of(ME), life: Life::new(1, 0), number: 1 };
    assert_eq!(done.questions(), [(NodeId(2), ReadIndex { term: Term(5), id })]);
    let next = node.read(101).question();
    assert_eq!(next.id.number, 2);
    let answered = node.answer(&done.question());
    assert_eq!(answered.reads_ready, (1..=100).map(|read| (read, LogIndex(9))).collect::<Vec<_>>());
    assert_eq!(answered.times_told, [ClusterTimeMs(777); 100]);
    assert!(node.answer(&done.question()).reads_ready.is_empty(), "a repeated answer");
    assert_eq!(node.answer(&next).reads_ready, [(101, LogIndex(9))]);
}

#[test]
fn an_answer_is_good_for_the_reads_that_came_before_its_question_and_for_no_others() {
    let mut node = follower();
    let first = node.read(1).question();
    let second = node.read(2).question();
    assert_eq!(node.answer(&second).reads_ready.len(), 2, "the answer to the first one may be lost");
    assert!(node.answer(&first).reads_ready.is_empty());
    // A repeated question has a number of its own: the read that comes with it waits for its answer.
    let third = node.read(3).question();
    let again = node.heartbeat(HEARTBEAT_MS).question();
    let fourth = node.read(4).question();
    assert!(third.id.number < again.id.number && again.id.number < fourth.id.number);
    assert_eq!(node.answer(&third).reads_ready, [(3, LogIndex(9))]);
    assert!(node.answer(&again).reads_ready.is_empty());
    assert_eq!(node.answer(&fourth).reads_ready, [(4, LogIndex(9))]);
}

#[test]
fn an_answer_to_somebody_else_is_none() {
    let mut node = follower();
    let asked = node.read(1).question();
    let good = reply_to(&asked);
    let of = |id: ReadIndexId| ReadIndexReply { id, ..good };
    let others = [
        ("an earlier life", 2, of(ReadIndexId { life: Life(0), ..good.id })),
        ("another data directory", 2, of(ReadIndexId { incarnation: Incarnation(5), ..good.id })),
        ("a question to come", 2, of(ReadIndexId { number: good.id.number + 1, ..good.id })),
        ("an earlier question", 2, of(ReadIndexId { number: good.id.number - 1, ..good.id })),
        ("an earlier term", 2, ReadIndexReply { term: Term(4), ..good }),
        ("a later term", 2, ReadIndexReply { term: Term(6), ..good }),
        ("not the leader", 3, good),
    ];
    for (what, from, reply) in others {
        assert!(node.answer_from(from, reply).reads_ready.is_empty(), "{what}");
    }
    assert_eq!(node.raft.term(), Term(5));
    assert_eq!(node.answer(&asked).reads_ready, [(1, LogIndex(9))]);
}

#[test]
fn what_may_be_lost_is_asked_again_once_per_heartbeat() {
    let mut node = follower();
    assert!(node.heartbeat(HEARTBEAT_MS).questions().is_empty(), "nobody wants to know anything");
    node.read(1);
    assert!(node.heartbeat(HEARTBEAT_MS - 1).questions().is_empty(), "too early");
    let again = node.heartbeat(1).question();
    assert!(node.heartbeat(0).questions().is_empty(), "asked just now");
    assert_eq!(node.answer(&again).reads_ready, [(1, LogIndex(9))]);
    assert!(node.heartbeat(HEARTBEAT_MS).questions().is_empty(), "answered");
    // Its client has given up long since.
    node.read(2);
    let done = node.heartbeat(crate::limits::REQUEST_TIMEOUT_MS_MAX);
    assert!(done.reads_lost == [2] && done.questions().is_empty());
}

#[test]
fn the_next_leader_is_asked_at_once() {
    let mut node = follower();
    let old = node.read(1).question();
    let mut request = node.append_request(6, id(5, 2), vec![]);
    request.leader_id = NodeId(3);
    let done = node.receive(3, PeerMessage::AppendEntries(request));
    let [(to, asked)] = done.questions()[..] else { panic!("one question: {:?}", done.sent) };
    assert_eq!((to, asked.term), (NodeId(3), Term(6)));
    assert!(node.answer(&old).reads_ready.is_empty(), "the old leader's answer is late");
    assert_eq!(node.answer_from(3, reply_to(&asked)).reads_ready, [(1, LogIndex(9))]);
}

#[test]
fn reads_wait_for_a_leader_through_one_election_timeout_and_not_a_second() {
    let mut node = follower();
    node.read(1);
    assert!(node.time_out().reads_lost.is_empty());
    assert_eq!(node.read(2).reads_lost, [2], "no leader is known");
    assert_eq!(node.time_out().reads_lost, [1]);

    let mut node = follower();
    node.read(1);
    node.time_out();
    assert_eq!(node.heartbeat(1).question().term, Term(5), "it was only late");
}

#[test]
fn a_follower_that_is_elected_confirms_its_reads_itself() {
    let mut node = follower();
    let asked = node.read(1).question();
    node.lead();
    assert!(node.answer(&asked).reads_ready.is_empty(), "it follows nobody");
    node.flush();
    node.matched(2, 3);
    let round = node.input(Input::Timeout(Timer::Heartbeat)).appends_to(2).remove(0);
    let done = node.reply(2, &round, AppendResult::Matched { match_index: LogIndex(3) });
    assert_eq!(done.reads_ready, [(1, LogIndex(3))]);
    assert!(done.times_told.is_empty(), "its own time counts");
}

#[test]
fn a_followers_read_waits_for_the_first_entry_of_the_term_and_for_a_round_that_begins_after_it() {
    let mut node = Single::new(3, &[1]);
    node.lead();
    let before = node.input(Input::Timeout(Timer::Heartbeat)).appends_to(2).remove(0);
    let round = node.asked_by(3, 7).appends_to(2).remove(0);
    let matched = AppendResult::Matched { match_index: LogIndex(2) };
    assert!(node.reply(2, &before, matched).peer_reads_ready.is_empty(), "begun before it");
    assert!(node.reply(2, &round, matched).peer_reads_ready.is_empty(), "the leader's disk has no entry yet");
    let ready = node.flush().peer_reads_ready;
    let [read] = ready[..] else { panic!("one read: {ready:?}") };
    assert_eq!((read.node, read.id.number, read.index), (NodeId(3), 7, LogIndex(2)));
    let Some(PeerMessage::ReadIndexReply(reply)) =
        node.raft.answer_peer_read(node.now_ms + 30, &read, LogIndex(2))
    else {
        panic!("no answer");
    };
    let cluster_time = node.raft.cluster_time(node.now_ms + 30);
    assert_eq!(reply, ReadIndexReply { term: Term(2), id: read.id, read_index: LogIndex(2), cluster_time });

    let before = node.input(Input::Timeout(Timer::Heartbeat)).appends_to(2).remove(0);
    let round = node.asked_by(3, 8).appends_to(2).remove(0);
    assert!(node.reply(2, &before, matched).peer_reads_ready.is_empty());
    assert_eq!(node.reply(2, &round, matched).peer_reads_ready.len(), 1);
    // It lost its place between the confirmation and the answer: its time stands still now.
    node.append(9, id(2, 2), vec![]);
    assert_eq!(node.raft.answer_peer_read(node.now_ms, &read, LogIndex(2)), None);
}

#[test]
fn a_followers_read_is_behind_the_last_tick() {
    let mut node = Single::new(3, &[1]);
    node.lead();
    node.flush();
    node.matched(2, 2);
    node.step(Input::Tick);
    let round = node.asked_by(3, 1).appends_to(2).pop().unwrap();
    node.flush();
    let ready = node.reply(2, &round, AppendResult::Matched { match_index: LogIndex(3) }).peer_reads_ready;
    assert_eq!(ready[0].index, LogIndex(3));
}

#[test]
fn who_does_not_lead_in_the_term_stays_silent() {
    let mut node = follower();
    assert!(node.asked_by(3, 1).sent.is_empty());
    let mut node = Single::new(3, &[1]);
    node.lead();
    node.flush();
    node.matched(2, 2);
    let number = 1;
    let id = ReadIndexId { incarnation: incarnation_of(NodeId(3)), life: Life::new(1, 0), number };
    for term in [1, 3] {
        let asked = ReadIndex { term: Term(term), id };
        let done = node.receive(3, PeerMessage::ReadIndex(asked));
        assert!(done.sent.is_empty() && done.peer_reads_ready.is_empty(), "term {term}");
    }
    assert!(node.raft.is_leader());
}

#[test]
fn one_followers_questions_of_a_turn_are_one() {
    let mut node = Single::new(3, &[1]);
    node.lead();
    node.flush();
    node.matched(2, 2);
    let question = |from, life, number| Input::Receive {
        from: NodeId(from),
        message: PeerMessage::ReadIndex(ReadIndex {
            term: Term(2),
            id: ReadIndexId { incarnation: incarnation_of(NodeId(from)), life: Life::new(life, 0), number },
        }),
    };
    for (from, life, number) in [(3, 1, 4), (2, 1, 9), (3, 1, 6), (3, 1, 5), (3, 2, 1)] {
        node.step(question(from, life, number));
    }
    let round = node.turn().appends_to(2).remove(0);
    let ready = node.reply(2, &round, AppendResult::Matched { match_index: LogIndex(2) }).peer_reads_ready;
    let found: Vec<_> =
        ready.iter().map(|read| (read.node.0, read.id.life.count(), read.id.number)).collect();
    assert_eq!(found, [(3, 1, 6), (2, 1, 9), (3, 2, 1)]);
}

/// The old leader cannot know that another was elected; its followers must not take its word for it.
#[test]
fn a_follower_that_is_cut_off_with_its_leader_gets_no_answer() {
    let mut cluster = Cluster::new(5, 5);
    let old = cluster.elect();
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    let with_old = others[0];
    for away in &others[1..] {
        cluster.cut_both(old.0, away.0);
        cluster.cut_both(with_old.0, away.0);
    }
    cluster.now_ms += 3 * super::single::ELECTION_MS;
    cluster.fire(others[1], Timer::Election);
    cluster.settle();
    assert!(cluster.raft(others[1].0).is_leader());
    cluster.propose(others[1]);
    cluster.settle();
    assert!(cluster.raft(old.0).is_leader() && cluster.raft(with_old.0).leader_id() == Some(old));
    cluster.read(with_old, 1);
    cluster.settle();
    assert!(cluster.reads_ready.is_empty());
    // A follower of the new leader gets its answer, and so does this one when it hears of it.
    cluster.read(others[2], 2);
    cluster.settle();
    assert_eq!(cluster.reads_ready.len(), 1);
    cluster.assert_recovers();
    assert_eq!(cluster.reads_ready.len() + cluster.reads_lost.len(), 2);
}
