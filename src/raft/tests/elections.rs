//! Scripts about elections: PreVote, CheckQuorum, partitions, transfers.

use fsd_wire::client::NodeRole;
use fsd_wire::peer::{PeerMessage, RequestVote, TimeoutNow};
use fsd_wire::{LogIndex, NodeId, Term};

use super::cluster::{Cluster, ELECTION_MS, HEARTBEAT_MS};
use super::single::{Single, id, incarnation_of};
use crate::raft::{Input, ProposeError, Timer};

/// A node that was cut off has not raised its term, and disturbs nobody when it returns.
#[test]
fn a_node_that_was_cut_off_does_not_disturb() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.elect();
    let lost = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let term = cluster.raft(leader.0).term();
    cluster.isolate(lost.0);
    cluster.run_ms(20 * ELECTION_MS);
    cluster.heal();
    cluster.run_ms(3 * ELECTION_MS);
    assert_eq!((cluster.leader(), cluster.raft(leader.0).term()), (Some(leader), term));
    assert_eq!(cluster.raft(lost.0).term(), term);
}

/// The node with the longest log has the lowest term: the refusals must bring it forward, or nobody is ever
/// elected.
#[test]
fn terms_apart_do_not_keep_a_cluster_without_a_leader() {
    for (a, b, c) in [(3, 9, 12), (3, 9, 3), (3, 3, 40)] {
        let logs = [vec![1, 3, 3, 3], vec![1, 3], vec![1]];
        let mut cluster = Cluster::stopped(3, 4);
        let source = Cluster::with_logs(0, &logs, 4);
        for (id, term) in cluster.ids().into_iter().zip([a, b, c]) {
            let node = cluster.nodes.get_mut(&id).unwrap();
            node.disk = source.nodes[&id].disk.clone();
            node.state = source.nodes[&id].state.clone();
            node.state.term = Term(term);
        }
        // With the third one down, only the first can be elected.
        cluster.start(NodeId(1));
        cluster.start(NodeId(2));
        cluster.connect_all();
        assert_eq!(cluster.elect(), NodeId(1));
        cluster.assert_recovers();
    }
}

/// A pre-candidate has forgotten its old leader, so it answers others that ask.
#[test]
fn who_looks_for_a_leader_follows_none() {
    let mut node = Single::new(3, &[1]);
    node.append(1, id(1, 1), vec![]);
    node.time_out();
    assert_eq!((node.raft.role(), node.raft.leader_id()), (NodeRole::PreCandidate, None));
    let mut request = RequestVote {
        term: Term(2),
        candidate_id: NodeId(2),
        incarnation: incarnation_of(NodeId(2)),
        registered: true,
        last_log: id(1, 1),
        pre_vote: true,
        leadership_transfer: false,
    };
    let reply = node.receive(2, PeerMessage::RequestVote(request)).vote_reply();
    assert!(reply.vote_granted && reply.pre_vote && reply.election_term == Term(2));
    assert_eq!(node.raft.term(), Term(1), "a PreVote changes no term");
    // Who may not stand forgets its leader as well.
    request.last_log = id(0, 0);
    assert!(!node.receive(2, PeerMessage::RequestVote(request)).vote_reply().vote_granted);
}

/// Late answers to a PreVote or an election that is over start nothing.
#[test]
fn late_votes_start_nothing() {
    let mut node = Single::new(5, &[1]);
    node.lead();
    node.vote(4, 2, true, true);
    node.vote(5, 2, true, true);
    node.vote(5, 3, true, true);
    assert!(node.raft.is_leader());
    assert_eq!(node.raft.term(), Term(2));
    let mut node = Single::new(5, &[1]);
    node.time_out();
    node.vote(2, 2, true, true);
    node.append(1, id(1, 1), vec![]);
    node.vote(3, 2, true, true);
    assert_eq!(node.raft.role(), NodeRole::Follower);
    // Votes of the PreVote do not count in the election.
    let mut node = Single::new(5, &[1]);
    node.stand();
    for voter in 2..=5 {
        node.vote(voter, 2, true, true);
        node.vote(voter, 1, false, true);
    }
    assert_eq!(node.raft.role(), NodeRole::Candidate);
}

#[test]
fn who_hears_a_leader_helps_nobody_else() {
    let mut node = Single::new(3, &[1]);
    node.append(1, id(1, 1), vec![]);
    let refused = node.request_vote(3, 5, id(1, 1)).vote_reply();
    assert!(!refused.vote_granted && refused.term == Term(1), "it does not even take up the term");
    node.now_ms += ELECTION_MS;
    assert!(node.request_vote(3, 5, id(1, 1)).vote_reply().vote_granted);
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.now_ms += 100 * ELECTION_MS;
    assert!(!leader.request_vote(3, 9, id(9, 9)).vote_reply().vote_granted);
    assert!(leader.raft.is_leader());
}

/// A leader that can send and not hear must go, so that the others elect another.
#[test]
fn a_leader_that_hears_nobody_steps_down() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.elect();
    for id in cluster.ids() {
        cluster.cut.insert((id, leader));
    }
    cluster.read(leader, 1);
    cluster.run_ms(2 * ELECTION_MS);
    assert!(!cluster.raft(leader.0).is_leader());
    assert_eq!(cluster.reads_lost, [1]);
    cluster.run_ms(5 * ELECTION_MS);
    let next = cluster.leader().expect("the others have elected one");
    assert_ne!(next, leader);
    cluster.assert_recovers();
}

/// A leader that is heard by nobody, too.
#[test]
fn a_leader_that_nobody_hears_steps_down() {
    let mut cluster = Cluster::new(5, 1);
    let leader = cluster.elect();
    for id in cluster.ids() {
        cluster.cut.insert((leader, id));
    }
    cluster.run_ms(6 * ELECTION_MS);
    assert!(!cluster.raft(leader.0).is_leader());
    assert_ne!(cluster.leader().expect("the others have elected one"), leader);
}

/// Two nodes cannot talk, a third reaches both: there is one leader, and it stays.
#[test]
fn a_partial_mesh_has_a_stable_leader() {
    let mut cluster = Cluster::new(3, 2);
    cluster.elect();
    cluster.cut_both(1, 2);
    cluster.run_ms(10 * ELECTION_MS);
    let term = cluster.ids().iter().map(|id| cluster.raft(id.0).term()).max();
    let leader = cluster.leader().expect("a leader");
    cluster.propose(leader);
    cluster.run_ms(20 * ELECTION_MS);
    assert_eq!(cluster.ids().iter().map(|id| cluster.raft(id.0).term()).max(), term, "no more elections");
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(leader.0).last_index());
}

#[test]
fn leadership_goes_to_whom_it_is_given() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.elect();
    cluster.propose(leader);
    let heir = cluster.ids().into_iter().rev().find(|id| *id != leader).unwrap();
    cluster.input(leader, Input::TransferLeadership { to: Some(heir) });
    let refused = cluster.nodes.get_mut(&leader).unwrap().raft.as_mut().unwrap();
    assert_eq!(refused.propose_tick(cluster.now_ms), Err(ProposeError::Transferring));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(heir));
    assert_eq!(cluster.raft(leader.0).role(), NodeRole::Follower);
    cluster.assert_recovers();
}

#[test]
fn an_heir_is_brought_up_to_date_first() {
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.matched(2, 1);
    let done = leader.input(Input::TransferLeadership { to: Some(NodeId(2)) });
    let told = |done: &super::single::Done| {
        done.sent
            .iter()
            .any(|(to, message)| *to == NodeId(2) && matches!(message, PeerMessage::TimeoutNow(_)))
    };
    assert!(!told(&done));
    assert!(told(&leader.matched(2, 2)));
    // Without a name, the best goes.
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.matched(3, 1);
    leader.matched(2, 2);
    assert!(told(&leader.input(Input::TransferLeadership { to: None })));
}

#[test]
fn a_transfer_that_comes_to_nothing_is_given_up() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.elect();
    let heir = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.isolate(heir.0);
    cluster.input(leader, Input::TransferLeadership { to: Some(heir) });
    assert_eq!(cluster.propose(leader), None);
    cluster.run_ms(ELECTION_MS + 2 * HEARTBEAT_MS);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(cluster.propose(leader).is_some());
    cluster.assert_recovers();
}

#[test]
fn only_the_leader_of_this_term_gives_its_office_away() {
    let mut node = Single::new(3, &[1]);
    let now = |term: u64, leader: u32| {
        PeerMessage::TimeoutNow(TimeoutNow { term: Term(term), leader_id: NodeId(leader) })
    };
    node.receive(2, now(1, 2));
    assert_eq!(node.raft.role(), NodeRole::Follower, "no leader is known");
    node.append(1, id(1, 1), vec![]);
    node.receive(3, now(1, 3));
    node.receive(3, now(1, 2));
    node.receive(2, now(0, 2));
    assert_eq!(node.raft.role(), NodeRole::Follower);
    let done = node.receive(2, now(1, 2));
    assert_eq!(node.raft.role(), NodeRole::Candidate);
    assert!(done.vote_requests().iter().all(|request| request.leadership_transfer && !request.pre_vote));
}

/// Term and vote are stored in the turn that sends the requests for votes, before them.
#[test]
fn a_candidate_remembers_its_own_vote() {
    let mut cluster = Cluster::new(3, 1);
    cluster.run_ms(0);
    cluster.now_ms += 3 * ELECTION_MS;
    cluster.fire(NodeId(1), Timer::Election);
    while cluster.raft(1).role() != NodeRole::Candidate {
        cluster.deliver(0);
    }
    let term = cluster.raft(1).term();
    cluster.restart(NodeId(1));
    assert_eq!(cluster.raft(1).term(), term);
    assert_eq!(cluster.raft(1).hard_state().voted_for, Some(NodeId(1)));
}

/// All nodes restarted: the terms go on, what was committed stays.
#[test]
fn a_cluster_that_was_switched_off_goes_on() {
    let mut cluster = Cluster::new(5, 3);
    let leader = cluster.elect();
    for _ in 0..10 {
        cluster.propose(leader);
    }
    cluster.run_ms(HEARTBEAT_MS);
    let (term, committed) = (cluster.raft(leader.0).term(), cluster.committed.len() as u64);
    assert!(committed > 10);
    for id in cluster.ids() {
        cluster.crash(id);
    }
    let leader = cluster.assert_recovers();
    assert!(cluster.raft(leader.0).term() > term);
    assert!(cluster.raft(leader.0).commit_index() > LogIndex(committed));
}
