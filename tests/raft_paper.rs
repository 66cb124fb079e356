//! The statements of the Raft paper ("In Search of an Understandable Consensus Algorithm", extended version),
//! figures 2 and 13 and sections 5.1 to 5.4 and 7, one by one, through the core's public interface. Where `fsd` differs on
//! purpose (PreVote, leader stickiness), the test says so.

#![allow(dead_code, reason = "the node of these tests is shared with the core's own")]
#![allow(missing_docs, reason = "a test's name and its section say what it is about")]

use fsd::raft::{self, Input, LogChange, ProposeError, Timer};
use fsd_wire::client::NodeRole;
use fsd_wire::peer::{AppendResult, PeerMessage};
use fsd_wire::{EntryKind, LogIndex, NodeId, Payload, Term};

#[path = "../src/raft/tests/single.rs"]
mod single;

#[path = "raft_paper/log_compaction.rs"]
mod log_compaction;

use single::{ELECTION_MS, Single, entries, entry, id};

/// Figure 2, Rules for Servers, All Servers: "If RPC request or response contains term T > currentTerm: set
/// currentTerm = T, convert to follower" (5.1), for AppendEntries.
#[test]
fn a_higher_term_in_append_entries_makes_a_follower_of_every_role() {
    for role in [NodeRole::Follower, NodeRole::PreCandidate, NodeRole::Candidate, NodeRole::Leader] {
        let mut node = in_role(role);
        node.append(9, id(1, 1), vec![]);
        assert_eq!((node.raft.role(), node.raft.term()), (NodeRole::Follower, Term(9)), "from {role:?}");
        assert_eq!(node.raft.leader_id(), Some(NodeId(2)));
    }
}

/// The same for RequestVote. (A leader, and who hears one, does not listen: thesis section 4.2.3.)
#[test]
fn a_higher_term_in_request_vote_makes_a_follower() {
    for role in [NodeRole::Follower, NodeRole::PreCandidate, NodeRole::Candidate] {
        let mut node = in_role(role);
        node.request_vote(2, 9, id(1, 1));
        assert_eq!((node.raft.role(), node.raft.term()), (NodeRole::Follower, Term(9)), "from {role:?}");
    }
}

/// The same for replies.
#[test]
fn a_higher_term_in_a_reply_makes_a_follower() {
    let mut candidate = in_role(NodeRole::Candidate);
    candidate.vote(2, 9, false, false);
    assert_eq!((candidate.raft.role(), candidate.raft.term()), (NodeRole::Follower, Term(9)));
    let mut leader = in_role(NodeRole::Leader);
    let request = leader.append_request(9, id(1, 1), vec![]);
    leader.reply(2, &request, AppendResult::StaleTerm);
    assert_eq!((leader.raft.role(), leader.raft.term()), (NodeRole::Follower, Term(9)));
}

/// 5.1: "If a server receives a request with a stale term number, it rejects the request." Figure 2,
/// AppendEntries RPC, receiver 1 and RequestVote RPC, receiver 1.
#[test]
fn requests_of_stale_terms_are_rejected() {
    let mut node = Single::new(3, &[1, 5]);
    let reply = node.append(4, id(5, 2), vec![]).append_reply();
    assert_eq!((reply.term, reply.result), (Term(5), AppendResult::StaleTerm));
    assert_eq!(node.raft.leader_id(), None, "it is no sign of a leader");
    let reply = node.request_vote(2, 4, id(4, 100)).vote_reply();
    assert!(!reply.vote_granted && reply.term == Term(5));
}

/// 5.2: "When servers start up, they begin as followers."
#[test]
fn a_node_begins_as_a_follower_in_the_term_it_stored() {
    let node = Single::new(3, &[1, 5]);
    assert_eq!((node.raft.role(), node.raft.term()), (NodeRole::Follower, Term(5)));
}

/// 5.2: "To begin an election, a follower increments its current term and transitions to candidate state. It
/// then votes for itself and issues RequestVote RPCs in parallel to each of the other servers." (After
/// PreVote.) Figure 2, Candidates. Term and vote are stored with it ("Updated on stable storage before
/// responding").
#[test]
fn an_election_begins_with_a_higher_term_and_a_vote_for_oneself() {
    let mut node = Single::new(5, &[1, 3]);
    let done = node.stand();
    assert_eq!((node.raft.role(), node.raft.term()), (NodeRole::Candidate, Term(4)));
    let stored = done.stored.clone().expect("stored in the same turn in which it is asked for votes");
    assert_eq!((stored.term, stored.voted_for), (Term(4), Some(NodeId(1))));
    let requests = done.vote_requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request.term == Term(4) && request.last_log == id(3, 2)));
    assert!(requests.iter().all(|request| !request.pre_vote));
}

/// 5.2: "A candidate wins an election if it receives votes from a majority of the servers in the full
/// cluster for the same term."
#[test]
fn a_majority_of_the_full_cluster_wins() {
    for (count, needed) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)] {
        let mut node = Single::new(count, &[1]);
        node.stand();
        for voter in 0..needed {
            assert_eq!(node.raft.role(), NodeRole::Candidate, "{voter} votes of {count}");
            node.vote(2 + voter, 2, false, true);
        }
        assert!(node.raft.is_leader(), "{count} nodes");
    }
}

/// The same: refusals, repeated votes and votes of another term do not count.
#[test]
fn only_votes_of_this_election_count_and_each_once() {
    let mut node = Single::new(5, &[1]);
    node.stand();
    node.vote(2, 2, false, true);
    node.vote(2, 2, false, true);
    node.vote(3, 2, false, false);
    node.vote(4, 1, false, true);
    node.vote(4, 2, true, true);
    assert_eq!(node.raft.role(), NodeRole::Candidate);
    node.vote(4, 2, false, true);
    assert!(node.raft.is_leader());
}

/// 5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served
/// basis." Figure 2, RequestVote RPC, receiver 2.
#[test]
fn one_vote_per_term() {
    let mut node = Single::new(3, &[1]);
    let first = node.request_vote(2, 4, id(1, 1));
    assert!(first.vote_reply().vote_granted);
    assert_eq!(first.stored.clone().expect("before the reply").voted_for, Some(NodeId(2)));
    assert!(first.sent.is_empty(), "a granted vote is a promise, sent when it is durable");
    assert!(!node.request_vote(3, 4, id(1, 1)).vote_reply().vote_granted);
    assert!(node.request_vote(2, 4, id(1, 1)).vote_reply().vote_granted, "the same again");
    assert!(node.request_vote(3, 5, id(1, 1)).vote_reply().vote_granted, "a new term, a new vote");
}

/// The same in a term that the voter has already stored without a vote: the vote alone is news.
#[test]
fn a_vote_is_stored_even_if_its_term_is_not_new() {
    let mut node = Single::new(3, &[1, 4]);
    let done = node.request_vote(2, 4, id(4, 2));
    assert!(done.vote_reply().vote_granted && !done.promised.is_empty());
    assert_eq!(done.stored.expect("before the reply").voted_for, Some(NodeId(2)));
}

/// The same over a restart: votedFor is persistent state (figure 2, State).
#[test]
fn the_vote_survives_a_restart() {
    let mut node = Single::new(3, &[1]);
    let state = node.request_vote(2, 4, id(1, 1)).stored.unwrap();
    let summary = single::summary(&node.log);
    let mut node = Single::with_state(3, node.log.clone(), summary, state);
    assert_eq!(node.raft.term(), Term(4));
    assert!(!node.request_vote(3, 4, id(1, 1)).vote_reply().vote_granted);
    assert!(node.request_vote(2, 4, id(1, 1)).vote_reply().vote_granted);
}

/// 5.2: "While waiting for votes, a candidate may receive an AppendEntries RPC from another server claiming
/// to be leader. If the leader's term is at least as large as the candidate's current term, the candidate
/// recognizes the leader as legitimate and returns to follower state." Figure 2, Candidates.
#[test]
fn a_candidate_gives_way_to_the_leader_of_its_term() {
    let mut node = in_role(NodeRole::Candidate);
    let term = node.raft.term().0;
    node.append(term - 1, id(1, 1), vec![]);
    assert_eq!(node.raft.role(), NodeRole::Candidate, "an earlier term's leader is none");
    node.append(term, id(1, 1), vec![]);
    assert_eq!((node.raft.role(), node.raft.leader_id()), (NodeRole::Follower, Some(NodeId(2))));
}

/// 5.2: a split vote: "each candidate will time out and start a new election by incrementing its term".
/// Figure 2, Candidates: "If election timeout elapses: start new election".
#[test]
fn an_election_without_a_winner_is_followed_by_another() {
    let mut node = in_role(NodeRole::Candidate);
    let term = node.raft.term();
    node.stand();
    assert_eq!((node.raft.role(), node.raft.term()), (NodeRole::Candidate, term.next()));
}

/// 5.2: "Raft uses randomized election timeouts … chosen randomly from a fixed interval."
#[test]
fn election_timeouts_are_random_within_their_interval() {
    let mut node = Single::new(3, &[1]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        node.step(Input::Timeout(Timer::Election));
        for alarm in node.raft.take_actions().alarms {
            if let raft::Alarm::Set { timer: Timer::Election, after_ms } = alarm {
                assert!((ELECTION_MS..2 * ELECTION_MS).contains(&after_ms));
                seen.insert(after_ms);
            }
        }
    }
    assert!(seen.len() > 30, "{seen:?}");
}

/// 5.2: "Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all followers."
/// Figure 2, Leaders: "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server;
/// repeat during idle periods". (The first ones carry the no-op of section 8.)
#[test]
fn a_leader_gives_signs_of_life() {
    let mut node = Single::new(3, &[1]);
    let first = node.lead();
    assert_eq!((first.appends_to(2).len(), first.appends_to(3).len()), (1, 1));
    node.now_ms += 100;
    let beat = node.input(Input::Timeout(Timer::Heartbeat)).appends();
    assert_eq!(beat.len(), 2);
    assert!(beat.iter().all(|(_, request)| request.term == node.raft.term()));
}

/// 5.2 and figure 2, Followers: the election timeout elapses only "without receiving AppendEntries RPC from
/// current leader or granting vote to candidate".
#[test]
fn what_puts_an_election_off() {
    let puts_off = |done: &mut Single| {
        done.raft
            .take_actions()
            .alarms
            .iter()
            .any(|alarm| matches!(alarm, raft::Alarm::Set { timer: Timer::Election, .. }))
    };
    let mut node = Single::new(3, &[1, 5]);
    let request =
        |node: &Single, term| PeerMessage::AppendEntries(node.append_request(term, id(5, 2), vec![]));
    let (stale, current) = (request(&node, 4), request(&node, 5));
    node.step(Input::Receive { from: NodeId(2), message: stale });
    assert!(!puts_off(&mut node), "a stale leader");
    node.step(Input::Receive { from: NodeId(2), message: current });
    assert!(puts_off(&mut node), "the leader");
}

/// 5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in
/// parallel to each of the other servers". Figure 2, Leaders: "If command received from client: append entry
/// to local log".
#[test]
fn a_command_is_appended_and_sent_to_all() {
    let mut node = in_role(NodeRole::Leader);
    for follower in [2, 3] {
        node.matched(follower, 2);
    }
    let proposed = node.propose();
    assert_eq!(proposed, id(2, 3));
    let done = node.turn();
    assert!(matches!(&done.changes[..], [LogChange::Append(entry)] if entry.id() == proposed));
    for follower in [2, 3] {
        let sent = done.appends_to(follower);
        assert_eq!((sent.len(), sent[0].prev_log, sent[0].entries[0].id()), (1, id(2, 2), proposed));
    }
}

/// 5.1: clients that contact a follower are told who leads.
#[test]
fn a_follower_refuses_commands_and_names_the_leader() {
    let mut node = Single::new(3, &[1]);
    let refused = node.raft.propose(0, Payload::default());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
    node.append(1, id(1, 1), vec![]);
    let refused = node.raft.propose(0, Payload::default());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(NodeId(2)) }));
}

/// 5.3: "A log entry is committed once the leader that created the entry has replicated it on a majority of
/// the servers." Figure 2, Leaders, last rule. The leader is one of them when its own disk has it.
#[test]
fn an_entry_on_a_majority_is_committed() {
    let mut node = in_role(NodeRole::Leader);
    node.matched(2, 2);
    assert_eq!(node.raft.commit_index(), LogIndex(0), "its own is not flushed yet");
    node.flush();
    assert_eq!(node.raft.commit_index(), LogIndex(2));
}

/// 5.3: "This also commits all preceding entries in the leader's log, including entries created by previous
/// leaders."
#[test]
fn a_commit_includes_what_came_before() {
    let mut node = Single::new(3, &[1, 1, 2, 2]);
    node.lead();
    node.flush();
    node.matched(3, 5);
    assert_eq!(node.raft.commit_index(), LogIndex(5));
}

/// 5.3: "The leader keeps track of the highest index it knows to be committed, and it includes that index in
/// future AppendEntries RPCs … Once a follower learns that a log entry is committed, it applies the entry".
/// Figure 2, AppendEntries RPC, receiver 5.
#[test]
fn followers_learn_the_commit_index() {
    let mut leader = in_role(NodeRole::Leader);
    leader.flush();
    let told = leader.matched(2, 2).appends_to(2);
    assert_eq!(told[0].leader_commit, LogIndex(2));
    let mut follower = Single::new(3, &[1, 1, 1]);
    let mut request = follower.append_request(1, id(1, 2), vec![]);
    request.leader_commit = LogIndex(3);
    follower.receive(2, PeerMessage::AppendEntries(request));
    assert_eq!(follower.raft.commit_index(), LogIndex(2), "min(leaderCommit, index of last new entry)");
}

/// 5.3: "If followers crash or run slowly, or if network packets are lost, the leader retries AppendEntries
/// RPCs indefinitely".
#[test]
fn what_is_not_answered_is_sent_again() {
    let mut node = in_role(NodeRole::Leader);
    for _ in 0..5 {
        node.now_ms += 100;
        let again = node.input(Input::Timeout(Timer::Heartbeat)).appends_to(2);
        assert_eq!((again.len(), again[0].prev_log), (1, id(1, 1)));
    }
}

/// 5.3: "If the follower does not find an entry in its log with the same index and term, then it refuses the
/// new entries." Figure 2, AppendEntries RPC, receiver 2.
#[test]
fn a_gap_or_another_term_before_the_entries_is_refused() {
    let mut node = Single::new(3, &[1, 1, 2]);
    let gap = node.append(5, id(4, 4), vec![entry(3, 5, 5)]).append_reply().result;
    assert!(matches!(gap, AppendResult::Conflict { conflict_term: Term(0), conflict_index: LogIndex(4) }));
    let other = node.append(5, id(4, 3), vec![entry(3, 5, 4)]).append_reply().result;
    assert!(matches!(other, AppendResult::Conflict { conflict_term: Term(2), conflict_index: LogIndex(3) }));
    assert_eq!(node.terms(), [1, 1, 2]);
}

/// Figure 2, AppendEntries RPC, receiver 3: "If an existing entry conflicts with a new one (same index but
/// different terms), delete the existing entry and all that follow it"; and 4: "Append any new entries not
/// already in the log".
#[test]
fn conflicting_entries_are_replaced() {
    let mut node = Single::new(3, &[1, 1, 2, 2, 2]);
    let all = entries(3, &[1, 1, 3, 3]);
    let done = node.append(3, id(1, 1), all[1..].to_vec());
    assert_eq!(node.terms(), [1, 1, 3, 3]);
    assert_eq!(done.append_reply().result, AppendResult::Matched { match_index: LogIndex(4) });
    assert!(matches!(done.changes[0], LogChange::TruncateFrom(LogIndex(3))));
}

/// The same: entries that are there already stay, also those behind the message's last.
#[test]
fn entries_without_conflict_are_kept() {
    let mut node = Single::new(3, &[1, 1, 2, 2, 2]);
    let all = entries(3, &[1, 1, 2]);
    let done = node.append(2, id(1, 1), all[1..].to_vec());
    assert!(done.changes.is_empty());
    assert_eq!(done.append_reply().result, AppendResult::Matched { match_index: LogIndex(3) });
    assert_eq!(node.terms(), [1, 1, 2, 2, 2]);
}

/// Figure 7: from each of the logs (a) to (f) a follower comes to equal the leader's log.
#[test]
fn the_logs_of_figure_7_are_brought_into_line() {
    let leader_terms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for terms in followers {
        let mut leader = Single::with_log(3, entries(3, &leader_terms), 7);
        leader.lead();
        leader.now_ms += 1;
        let mut follower = Single::with_log(3, entries(3, terms), 7);
        let mut requests = leader.input(Input::Timeout(Timer::Heartbeat)).appends_to(2);
        for _ in 0..8 {
            let mut answers = Vec::new();
            for mut request in std::mem::take(&mut requests) {
                request.leader_id = NodeId(2);
                let message = PeerMessage::AppendEntries(request.clone());
                answers.push((request, follower.receive(2, message).append_reply().result));
            }
            for (request, result) in answers {
                requests.extend(leader.reply(2, &request, result).appends_to(2));
            }
        }
        assert_eq!(follower.terms(), [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8], "from {terms:?}");
    }
}

/// 5.3: "A leader never overwrites or deletes entries in its own log (the Leader Append-Only Property)".
#[test]
fn a_leader_only_appends() {
    let mut node = in_role(NodeRole::Leader);
    let term = node.raft.term().0;
    let before = node.terms();
    let done = node.append(term, id(0, 0), entries(3, &[1, 1]));
    assert!(done.changes.is_empty() && node.raft.is_leader());
    assert_eq!(node.terms(), before);
}

/// 5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate": the
/// later last term wins; with equal terms the longer log. Figure 2, RequestVote RPC, receiver 2.
#[test]
fn votes_go_to_logs_that_are_at_least_as_up_to_date() {
    let table = [
        (id(3, 4), true),
        (id(3, 5), true),
        (id(3, 3), false),
        (id(4, 1), true),
        (id(4, 4), true),
        (id(2, 9), false),
        (id(2, 4), false),
        (id(0, 0), false),
    ];
    for (last_log, granted) in table {
        let mut node = Single::new(3, &[1, 1, 3, 3]);
        assert_eq!(node.request_vote(2, 5, last_log).vote_reply().vote_granted, granted, "{last_log:?}");
    }
}

/// 5.4.2 and figure 8: "Raft never commits log entries from previous terms by counting replicas. Only log
/// entries from the leader's current term are committed by counting replicas".
#[test]
fn entries_of_earlier_terms_are_not_committed_by_counting() {
    let mut node = Single::with_log(5, entries(5, &[1, 2]), 3);
    node.lead();
    node.flush();
    for follower in [2, 3, 4, 5] {
        node.matched(follower, 2);
    }
    assert_eq!(node.raft.commit_index(), LogIndex(0), "figure 8 (c): on all nodes, and not committed");
    node.matched(2, 3);
    node.matched(3, 3);
    assert_eq!(node.raft.commit_index(), LogIndex(3), "figure 8 (e): now it is, with what came before");
}

/// Figure 2, State: nextIndex is "initialized to leader last log index + 1", matchIndex "to 0, increases
/// monotonically".
#[test]
fn a_new_leader_assumes_nothing_and_begins_at_its_own_end() {
    let mut node = Single::new(3, &[1, 1, 1]);
    let sent = node.lead().appends_to(2);
    assert_eq!(sent[0].prev_log, id(1, 3));
    node.flush();
    assert_eq!(node.raft.commit_index(), LogIndex(0));
    node.matched(2, 4);
    node.matched(2, 1);
    assert_eq!(node.raft.commit_index(), LogIndex(4));
}

/// 5.3: "the leader decrements nextIndex and retries … If desired, the protocol can be optimized to reduce
/// the number of rejected AppendEntries RPCs": one for each conflicting term.
#[test]
fn next_index_skips_a_conflicting_term_at_a_time() {
    let mut node = Single::with_log(3, entries(3, &[1, 1, 4, 4, 4, 4]), 4);
    let request = node.lead().appends_to(2).remove(0);
    let conflict = AppendResult::Conflict { conflict_term: Term(3), conflict_index: LogIndex(3) };
    let next = node.reply(2, &request, conflict).appends_to(2);
    assert_eq!(next[0].prev_log, id(1, 2));
    assert!(next[0].entries.is_empty(), "it only looks");
}

/// Section 8 (and 5.4.2): "each leader [commits] a blank no-op entry into the log at the start of its term."
#[test]
fn a_term_begins_with_a_no_op() {
    let mut node = Single::new(3, &[1]);
    let done = node.lead();
    assert!(matches!(&done.changes[..], [LogChange::Append(entry)]
        if entry.kind == EntryKind::Noop && entry.id() == id(2, 2)));
}

/// Figure 2: RPCs are idempotent (5.5: "Raft RPCs are idempotent, so this causes no harm").
#[test]
fn a_repeated_request_changes_nothing() {
    let mut node = Single::new(3, &[1]);
    let news = vec![entry(3, 1, 2), entry(3, 1, 3)];
    let first = node.append(1, id(1, 1), news.clone());
    let again = node.append(1, id(1, 1), news);
    assert!(again.changes.is_empty());
    assert_eq!(first.append_reply(), again.append_reply());
}

fn in_role(role: NodeRole) -> Single {
    let mut node = Single::new(3, &[1]);
    match role {
        NodeRole::Follower => {}
        NodeRole::PreCandidate => drop(node.time_out()),
        NodeRole::Candidate => drop(node.stand()),
        NodeRole::Leader => drop(node.lead()),
    }
    assert_eq!(node.raft.role(), role);
    node
}
