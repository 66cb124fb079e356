//! Scripts about linearizable reads, and about cluster time.

use fsd_wire::peer::AppendResult;
use fsd_wire::{ClusterTimeMs, LogIndex, NodeId, Term};

use super::cluster::Cluster;
use super::single::{Single, entry, id};
use crate::raft::{Input, Timer};

#[test]
fn a_read_waits_for_the_first_entry_of_the_term() {
    let mut node = Single::new(3, &[1, 1]);
    node.lead();
    let asked = node.input(Input::Read { id: 7 });
    let round = asked.appends_to(2).remove(0);
    // A majority confirms that it leads, but what its predecessors committed is not known yet.
    assert!(node.reply(2, &round, AppendResult::Matched { match_index: LogIndex(2) }).reads_ready.is_empty());
    assert!(node.matched(2, 3).reads_ready.is_empty(), "its own disk does not have it yet");
    assert_eq!(node.flush().reads_ready, [(7, LogIndex(3))]);
}

#[test]
fn a_round_that_began_before_the_read_confirms_nothing() {
    let mut node = Single::new(3, &[1]);
    node.lead();
    node.flush();
    node.matched(2, 2);
    let before = node.input(Input::Timeout(Timer::Heartbeat)).appends_to(2).remove(0);
    let asked = node.input(Input::Read { id: 7 }).appends_to(2).remove(0);
    assert!(asked.round > before.round);
    let matched = AppendResult::Matched { match_index: LogIndex(2) };
    assert!(node.reply(2, &before, matched).reads_ready.is_empty(), "a late answer");
    assert_eq!(node.reply(2, &asked, matched).reads_ready, [(7, LogIndex(2))]);
    assert!(node.reply(3, &asked, matched).reads_ready.is_empty(), "answered once");
}

#[test]
fn one_round_confirms_all_reads_of_a_turn() {
    let mut node = Single::new(5, &[1]);
    node.lead();
    node.flush();
    node.matched(2, 2);
    node.matched(3, 2);
    for read in 0..100 {
        node.step(Input::Read { id: read });
    }
    let asked = node.turn();
    assert_eq!(asked.appends().len(), 4, "one message to each follower");
    let round = asked.appends_to(2).remove(0);
    let matched = AppendResult::Matched { match_index: LogIndex(2) };
    assert!(node.reply(2, &round, matched).reads_ready.is_empty(), "two of five");
    assert!(node.reply(2, &round, matched).reads_ready.is_empty(), "still two of five");
    let ready = node.reply(4, &round, matched).reads_ready;
    assert_eq!(ready.len(), 100);
    assert!(ready.iter().all(|read| read.1 == LogIndex(2)));
}

#[test]
fn reads_are_lost_with_the_office() {
    let mut node = Single::new(3, &[1]);
    assert_eq!(node.input(Input::Read { id: 1 }).reads_lost, [1], "a follower has none");
    node.lead();
    node.flush();
    node.matched(2, 2);
    let asked = node.input(Input::Read { id: 2 }).appends_to(2).remove(0);
    assert_eq!(node.append(9, id(2, 2), vec![entry(3, 9, 3)]).reads_lost, [2]);
    let late = node.reply(2, &asked, AppendResult::Matched { match_index: LogIndex(2) });
    assert!(late.reads_ready.is_empty() && late.reads_lost.is_empty());
}

#[test]
fn a_single_node_confirms_itself() {
    let mut node = Single::new(1, &[]);
    node.time_out();
    assert!(node.input(Input::Read { id: 1 }).reads_ready.is_empty());
    assert_eq!(node.flush().reads_ready, [(1, LogIndex(1))]);
    assert_eq!(node.input(Input::Read { id: 2 }).reads_ready, [(2, LogIndex(1))]);
}

#[test]
fn a_read_sees_what_was_due_when_it_came() {
    let mut node = Single::new(1, &[]);
    node.time_out();
    node.flush();
    node.step(Input::Tick);
    let ready = node.input(Input::Read { id: 1 }).reads_ready;
    assert_eq!(ready, [(1, LogIndex(2))], "to be answered when the tick is applied");
}

/// A deposed leader that does not know it yet must not answer from what it has.
#[test]
fn a_leader_that_is_cut_off_answers_no_reads() {
    let mut cluster = Cluster::new(3, 5);
    let old = cluster.elect();
    cluster.isolate(old.0);
    let next = cluster.ids().into_iter().find(|id| *id != old).unwrap();
    cluster.elect_node_among_others(next, old);
    cluster.propose(next);
    cluster.settle();
    assert!(cluster.raft(old.0).is_leader(), "it was not told");
    cluster.read(old, 1);
    cluster.settle();
    assert!(cluster.reads_ready.is_empty());
    cluster.read(next, 2);
    cluster.settle();
    assert_eq!(cluster.reads_ready.len(), 1);
    cluster.assert_recovers();
    assert_eq!(cluster.reads_lost, [1]);
}

#[test]
fn cluster_time_goes_on_with_the_next_leader() {
    let mut node = Single::new(3, &[1, 1, 1]);
    assert_eq!(node.raft.cluster_time(999_999), ClusterTimeMs(3));
    node.lead();
    let start = node.now_ms;
    assert_eq!(node.raft.cluster_time(start + 50), ClusterTimeMs(53));
    node.now_ms += 70;
    let proposed = node.propose();
    node.turn();
    assert_eq!(proposed, id(2, 5));
    assert_eq!(node.log.last().unwrap().stamp, ClusterTimeMs(73));
    let mut news = entry(3, 9, 6);
    news.stamp = ClusterTimeMs(500);
    node.append(9, id(2, 5), vec![news]);
    assert_eq!(node.raft.cluster_time(start + 10_000), ClusterTimeMs(500));
    assert_eq!((node.raft.term(), node.raft.leader_id()), (Term(9), Some(NodeId(2))));
}
