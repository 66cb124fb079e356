//! Scripts for the rules of `electorate`: nodes that lost their disks, the beginning of a cluster, copies.

use fsd_wire::hello::{HelloStatus, Identity};
use fsd_wire::peer::{AppendEntriesReply, AppendResult, PeerMessage, RequestVote};
use fsd_wire::{ClusterId, EntryId, EntryKind, Incarnation, Life, LogIndex, NodeId, Term};

use super::cluster::{Cluster, ELECTION_MS, HEARTBEAT_MS};
use super::single::Single;
use crate::raft::{HardState, Input, LogChange, Timer};

fn node(number: u32) -> NodeId {
    NodeId(number)
}

/// A cluster led by node 1 that has acknowledged some commands on `holders` (node 1 among them) alone; the
/// other nodes are cut off and know only of what was before. Returns it with the last acknowledged index.
fn acknowledged_on(count: u32, holders: &[u32]) -> (Cluster, LogIndex) {
    let mut cluster = Cluster::new(count, 1);
    cluster.elect_node(1);
    cluster.run_ms(2 * HEARTBEAT_MS);
    for other in 1..=count {
        if !holders.contains(&other) {
            cluster.isolate(other);
        }
    }
    for _ in 0..5 {
        cluster.propose(node(1));
    }
    cluster.settle();
    let last = cluster.raft(1).last_index();
    assert_eq!(cluster.raft(1).commit_index(), last, "acknowledged");
    (cluster, last)
}

/// Lagging, wiped and down: of three nodes, 3 lags, 2 is wiped, 1 is down. The two that run must not elect
/// anybody; when node 1 returns, all is well by itself.
#[test]
fn lagging_wiped_and_down_of_three() {
    let (mut cluster, last) = acknowledged_on(3, &[1, 2]);
    cluster.crash(node(1));
    cluster.crash(node(2));
    cluster.wipe(node(2));
    cluster.start(node(2));
    cluster.heal();
    cluster.run_ms(50 * ELECTION_MS);
    assert_eq!(cluster.leader(), None, "nobody who is there can know what was acknowledged");
    assert!(cluster.raft(3).last_index() < last);
    cluster.restart(node(1));
    let leader = cluster.assert_recovers();
    assert!(cluster.raft(leader.0).commit_index() > last);
    assert!(cluster.raft(2).is_registered(), "the wiped node counts again");
}

/// Of five, 4 lags, 2 and 3 are wiped, 1 is down (5 lags, too).
#[test]
fn lagging_two_wiped_and_down_of_five() {
    let (mut cluster, last) = acknowledged_on(5, &[1, 2, 3]);
    for id in [1, 2, 3] {
        cluster.crash(node(id));
    }
    for id in [2, 3] {
        cluster.wipe(node(id));
        cluster.start(node(id));
    }
    cluster.heal();
    cluster.run_ms(50 * ELECTION_MS);
    assert_eq!(cluster.leader(), None);
    cluster.restart(node(1));
    let leader = cluster.assert_recovers();
    assert!(cluster.raft(leader.0).commit_index() > last);
}

/// Of five, one lags, one is wiped, one is down: three have all that was acknowledged or know who does not.
#[test]
fn lagging_wiped_and_down_of_five() {
    let (mut cluster, last) = acknowledged_on(5, &[1, 2, 3]);
    cluster.crash(node(1));
    cluster.crash(node(2));
    cluster.wipe(node(2));
    cluster.start(node(2));
    cluster.heal();
    let leader = cluster.elect();
    assert_eq!(leader, node(3), "the only one left that has it all");
    assert!(cluster.raft(3).commit_index() > last);
    cluster.assert_recovers();
}

#[test]
fn a_wiped_node_is_readmitted_by_itself() {
    for count in [3, 5] {
        let mut cluster = Cluster::new(count, 1);
        cluster.elect_node(1);
        cluster.run_ms(HEARTBEAT_MS);
        cluster.crash(node(2));
        cluster.wipe(node(2));
        cluster.start(node(2));
        cluster.connect_all();
        assert!(!cluster.raft(2).is_registered());
        cluster.run_ms(3 * HEARTBEAT_MS);
        assert!(cluster.raft(2).is_registered());
        assert_eq!(cluster.leader(), Some(node(1)), "without an election");
        let log = &cluster.nodes[&node(1)].log;
        let registers = log.entries.iter().filter(|entry| entry.kind == EntryKind::Register).count();
        assert_eq!(registers, 2, "proposed once, confirmed once");
        // From now on it is as good as any: with as many others down as may be, all restarted, it counts.
        for id in cluster.ids() {
            cluster.crash(id);
        }
        for id in 1..=count / 2 + 1 {
            cluster.start(node(id));
        }
        cluster.connect_all();
        let leader = cluster.elect();
        assert!(cluster.propose(leader).is_some());
        cluster.settle();
        assert_eq!(cluster.raft(leader.0).commit_index(), cluster.raft(leader.0).last_index());
        cluster.assert_recovers();
    }
}

#[test]
fn a_wiped_leader_is_replaced_and_readmitted() {
    let (mut cluster, last) = acknowledged_on(3, &[1, 2]);
    cluster.crash(node(1));
    cluster.wipe(node(1));
    cluster.start(node(1));
    cluster.heal();
    let leader = cluster.elect();
    assert_eq!(leader, node(2));
    cluster.assert_recovers();
    assert!(cluster.raft(1).commit_index() > last && cluster.raft(1).is_registered());
}

/// Again and again, each node in turn: registrations pile up, nothing is lost.
#[test]
fn every_disk_may_be_replaced_in_turn() {
    let (mut cluster, _) = acknowledged_on(3, &[1, 2, 3]);
    for round in 0..6 {
        let id = node(round % 3 + 1);
        cluster.crash(id);
        cluster.wipe(id);
        cluster.assert_recovers();
    }
    assert!(cluster.ids().iter().all(|id| cluster.raft(id.0).is_registered()));
}

/// While a wiped node is only proposed, neither its old disk nor its new one helps to commit.
#[test]
fn a_wiped_node_does_not_help_to_commit_before_it_is_confirmed() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect_node(1);
    cluster.run_ms(HEARTBEAT_MS);
    cluster.isolate(3);
    cluster.crash(node(2));
    cluster.wipe(node(2));
    cluster.start(node(2));
    cluster.connect_all();
    let committed = cluster.raft(1).commit_index();
    cluster.propose(node(1));
    for _ in 0..6 {
        cluster.settle();
        cluster.now_ms += 1;
        cluster.fire(node(1), Timer::Heartbeat);
    }
    assert_eq!(cluster.raft(2).last_index(), cluster.raft(1).last_index(), "it has everything");
    assert_eq!(cluster.raft(1).commit_index(), committed, "and does not count");
    // A leader without a majority that counts does not stay one.
    cluster.run_ms(3 * ELECTION_MS);
    assert_eq!(cluster.leader(), None);
    cluster.assert_recovers();
}

/// A leader that was cut off brings in a wiped node after that had helped a later leader to commit. What the
/// first one has in its log is not enough to count the wiped node's vote.
#[test]
fn a_proposal_alone_makes_nobody_a_voter() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect_node(1);
    cluster.run_ms(HEARTBEAT_MS);
    // Node 3 leads with 2's help, while 1 believes that it does.
    cluster.isolate(1);
    cluster.now_ms += 3 * ELECTION_MS;
    cluster.fire(node(3), Timer::Election);
    cluster.settle();
    cluster.propose(node(3));
    cluster.settle();
    let acknowledged = cluster.raft(3).commit_index();
    assert!(cluster.raft(1).is_leader() && cluster.raft(3).is_leader());
    cluster.crash(node(3));
    cluster.crash(node(2));
    cluster.wipe(node(2));
    cluster.start(node(2));
    cluster.heal();
    cluster.settle();
    assert!(cluster.raft(2).last_index() > LogIndex(0), "it followed the old leader");
    cluster.restart(node(1));
    cluster.run_ms(20 * ELECTION_MS);
    assert_eq!(cluster.leader(), None);
    let leader = cluster.assert_recovers();
    assert!(cluster.raft(leader.0).commit_index() > acknowledged);
}

/// A voter that lags has not heard that the candidate's old disk was replaced; the candidate's log has proof.
#[test]
fn a_voter_that_lags_believes_a_confirmed_candidate() {
    let mut cluster = Cluster::new(5, 1);
    cluster.elect_node(1);
    cluster.run_ms(HEARTBEAT_MS);
    cluster.isolate(5);
    cluster.crash(node(4));
    cluster.wipe(node(4));
    cluster.start(node(4));
    cluster.connect_all();
    cluster.run_ms(3 * HEARTBEAT_MS);
    assert!(cluster.raft(4).is_registered());
    // Something that only 1, 2 and 4 have.
    cluster.isolate(3);
    cluster.propose(node(1));
    cluster.settle();
    cluster.crash(node(1));
    cluster.crash(node(2));
    cluster.heal();
    assert_eq!(cluster.elect(), node(4), "with the votes of 3 and 5");
    cluster.assert_recovers();
}

/// The first leader dies before anybody has its genesis: the others make another, and the first gives way.
#[test]
fn a_genesis_on_one_disk_alone_gives_way() {
    let mut cluster = Cluster::new(3, 1);
    cluster.now_ms += 3 * ELECTION_MS;
    cluster.fire(node(1), Timer::Election);
    while !cluster.raft(1).is_leader() {
        cluster.deliver(0);
    }
    cluster.crash(node(1));
    cluster.bag.clear();
    let old = cluster.nodes[&node(1)].disk.clone();
    assert_eq!(old.last_index(), LogIndex(1));
    let leader = cluster.elect();
    assert!(cluster.propose(leader).is_some());
    cluster.settle();
    cluster.assert_recovers();
    let new = cluster.nodes[&node(1)].disk.get(LogIndex(1)).cloned();
    assert_ne!(new.as_ref(), old.get(LogIndex(1)));
    assert_eq!(new.as_ref(), cluster.nodes[&leader].disk.get(LogIndex(1)));
}

/// The first leader dies with its genesis on one more disk: any majority of the rest gets a leader.
#[test]
fn a_genesis_on_two_disks_lets_every_majority_elect() {
    for third in [3, 4, 5] {
        let mut cluster = Cluster::new(5, 1);
        cluster.now_ms += 3 * ELECTION_MS;
        cluster.fire(node(1), Timer::Election);
        while !cluster.raft(1).is_leader() {
            cluster.deliver(0);
        }
        for other in [3, 4, 5] {
            cluster.cut_both(1, other);
        }
        cluster.settle();
        assert_eq!(cluster.raft(2).last_index(), LogIndex(1));
        cluster.crash(node(1));
        let down = if third == 3 { 5 } else { 3 };
        cluster.crash(node(down));
        cluster.heal();
        let leader = cluster.elect();
        assert!(cluster.propose(leader).is_some());
        cluster.settle();
        cluster.assert_recovers();
    }
}

/// A member that joined late meets one founder, loses its disk, and meets the other, which had never met it. It
/// must not make both of them leaders of one term.
#[test]
fn a_late_member_that_was_wiped_makes_no_second_leader() {
    let mut cluster = Cluster::stopped(3, 1);
    for id in [1, 3] {
        cluster.start(node(id));
    }
    cluster.connect_all();
    let leader = cluster.elect();
    cluster.propose(leader);
    cluster.settle();
    let other = NodeId(4 - leader.0);
    cluster.isolate(other.0);
    cluster.start(node(2));
    cluster.connect(leader, node(2));
    cluster.run_ms(3 * HEARTBEAT_MS);
    assert!(cluster.raft(2).last_index() > LogIndex(1), "it follows the one that it met");
    cluster.restart(leader);
    cluster.connect(leader, node(2));
    cluster.run_ms(10 * ELECTION_MS);
    assert_eq!(cluster.leader(), None, "one founder and a late member are no majority that is known");
    cluster.crash(node(2));
    cluster.wipe(node(2));
    cluster.heal();
    cluster.isolate(leader.0);
    cluster.start(node(2));
    cluster.connect(other, node(2));
    cluster.run_ms(10 * ELECTION_MS);
    assert_eq!(cluster.leader(), None, "neither are the other founder and what comes back empty");
    cluster.heal();
    cluster.assert_recovers();
}

/// Members that the first leader had not met join while a member of the genesis is down.
#[test]
fn newcomers_join_while_a_founder_is_down() {
    let mut cluster = Cluster::stopped(5, 1);
    for id in [1, 2, 3] {
        cluster.start(node(id));
    }
    cluster.connect_all();
    cluster.elect();
    cluster.crash(node(3));
    cluster.start(node(4));
    cluster.start(node(5));
    cluster.connect_all();
    let leader = cluster.elect();
    cluster.run_ms(3 * HEARTBEAT_MS);
    assert!([4, 5].iter().all(|id| cluster.raft(*id).is_registered()));
    assert!(cluster.propose(leader).is_some());
    cluster.settle();
    assert_eq!(cluster.raft(leader.0).commit_index(), cluster.raft(leader.0).last_index());
    cluster.assert_recovers();
}

#[test]
fn one_empty_node_among_the_others_waits() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect_node(1);
    cluster.run_ms(HEARTBEAT_MS);
    cluster.crash(node(2));
    cluster.wipe(node(2));
    cluster.crash(node(1));
    cluster.start(node(2));
    cluster.connect_all();
    cluster.run_ms(20 * ELECTION_MS);
    assert_eq!(cluster.raft(2).term().0, 0, "it knows the cluster's id from node 3 and does not stand");
    assert!(cluster.raft(2).hard_state().cluster_id.is_some());
    assert_eq!(cluster.leader(), None);
    cluster.assert_recovers();
}

#[test]
fn an_old_copy_of_a_directory_becomes_a_new_incarnation() {
    let (mut cluster, _) = acknowledged_on(3, &[1, 2, 3]);
    let copy = (cluster.nodes[&node(2)].state.clone(), cluster.nodes[&node(2)].disk.clone());
    for _ in 0..3 {
        cluster.restart(node(2));
        cluster.run_ms(HEARTBEAT_MS);
    }
    cluster.propose(cluster.leader().unwrap());
    cluster.settle();
    cluster.crash(node(2));
    cluster.restore(node(2), copy.0.clone(), copy.1);
    cluster.start(node(2));
    let identity = cluster.raft(2).identity();
    assert_eq!(cluster.raft(1).judge_hello(&identity), HelloStatus::StaleCopy);
    cluster.connect_all();
    assert_ne!(cluster.raft(2).identity().incarnation, copy.0.incarnation);
    assert!(!cluster.raft(2).is_registered());
    cluster.assert_recovers();
    assert!(cluster.raft(2).is_registered());
}

#[test]
fn hellos_are_judged() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect_node(1);
    cluster.run_ms(HEARTBEAT_MS);
    let judge = |identity: &Identity| cluster.raft(1).judge_hello(identity);
    let good = cluster.raft(2).identity();
    assert!(good.cluster_id.is_some());
    assert_eq!(judge(&good), HelloStatus::Welcome);
    assert_eq!(judge(&Identity { cluster_id: None, ..good }), HelloStatus::Welcome, "it may be new");
    assert_eq!(
        judge(&Identity { incarnation: Incarnation(77), ..good }),
        HelloStatus::Welcome,
        "it may be wiped"
    );
    assert_eq!(judge(&Identity { life: Life::new(2, 7), ..good }), HelloStatus::Welcome);
    assert_eq!(judge(&Identity { life: Life::new(0, 9), ..good }), HelloStatus::StaleCopy);
    // A copy from before the last start counts its own start the same, and has drawn something else.
    assert_eq!(judge(&Identity { life: Life::new(1, 7), ..good }), HelloStatus::StaleCopy);
    let other = Some(ClusterId(good.cluster_id.unwrap().0 ^ 1));
    assert_eq!(judge(&Identity { cluster_id: other, ..good }), HelloStatus::OtherClusterId);
    for wrong in [1, 4] {
        assert_eq!(judge(&Identity { node: node(wrong), ..good }), HelloStatus::WrongNode);
    }
}

/// A cluster that was begun anew by mistake, on other directories, does not mix with the old one.
#[test]
fn a_mistaken_new_cluster_overwrites_nothing() {
    let (mut cluster, last) = acknowledged_on(3, &[1, 2, 3]);
    cluster.run_ms(HEARTBEAT_MS);
    let whole = (cluster.nodes[&node(3)].state.clone(), cluster.nodes[&node(3)].disk.clone());
    // Two directories are deleted at once, while the third node is away: they take themselves for new.
    for id in [1, 2, 3] {
        cluster.crash(node(id));
    }
    cluster.wipe(node(1));
    cluster.wipe(node(2));
    cluster.forget_committed();
    cluster.start(node(1));
    cluster.start(node(2));
    cluster.connect_all();
    cluster.elect();
    cluster.run_ms(HEARTBEAT_MS);
    cluster.start(node(3));
    let identity = cluster.raft(3).identity();
    for id in [1, 2] {
        assert_eq!(cluster.raft(id).judge_hello(&identity), HelloStatus::OtherClusterId);
        assert_eq!(cluster.raft(3).judge_hello(&cluster.raft(id).identity()), HelloStatus::OtherClusterId);
    }
    cluster.connect_all();
    cluster.run_ms(10 * ELECTION_MS);
    let HardState { cluster_id, .. } = cluster.raft(3).hard_state();
    assert_eq!(*cluster_id, whole.0.cluster_id);
    assert_eq!(cluster.nodes[&node(3)].disk.entries, whole.1.entries);
    assert!(whole.1.last_index() >= last);
    // Even a message that comes through all the same is not taken.
    let mut request = cluster.heartbeat_with_log(node(1));
    request.leader_id = node(1);
    let message = PeerMessage::AppendEntries(request);
    cluster.input(node(3), Input::Receive { from: node(1), message });
    assert_eq!(cluster.nodes[&node(3)].log.entries, whole.1.entries);
}

/// What the old disk acknowledged, late, is not taken for the new one's.
#[test]
fn replies_of_an_earlier_incarnation_say_nothing_of_the_present_one() {
    let mut leader = Single::new(3, &[1, 1]);
    leader.lead();
    leader.flush();
    let (incarnation, life) = (Incarnation(2001), Life::new(1, 0));
    leader.input(Input::Met { node: node(2), incarnation, life, cluster_id: None });
    let late = leader.matched(2, 3);
    assert!(late.changes.is_empty(), "the new disk has nothing yet, so it is not proposed");
    // The new one answers; what it says first is not believed either, as there are two voices.
    let reply = |match_index: u64| {
        PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: Term(2),
            incarnation,
            round: 1,
            prev_log_index: LogIndex(0),
            result: AppendResult::Matched { match_index: LogIndex(match_index) },
        })
    };
    assert!(leader.receive(2, reply(3)).changes.is_empty());
    assert!(leader.receive(2, reply(1)).changes.is_empty(), "it does not have all yet");
    let proposed = leader.receive(2, reply(3)).changes;
    assert!(matches!(&proposed[..], [LogChange::Append(entry)] if entry.kind == EntryKind::Register));
}

/// A voter that knows another incarnation helps only if the candidate's own log has proof.
#[test]
fn an_unexpected_candidate_without_proof_gets_no_vote() {
    for (incarnation, registered, granted) in [(2000, false, true), (2001, false, false), (2001, true, true)]
    {
        let mut voter = Single::new(3, &[1]);
        let request = RequestVote {
            term: Term(5),
            candidate_id: node(2),
            incarnation: Incarnation(incarnation),
            registered,
            last_log: EntryId { term: Term(4), index: LogIndex(9) },
            pre_vote: false,
            leadership_transfer: false,
        };
        let reply = voter.receive(2, PeerMessage::RequestVote(request)).vote_reply();
        assert_eq!(reply.vote_granted, granted, "incarnation {incarnation}, registered {registered}");
    }
}
