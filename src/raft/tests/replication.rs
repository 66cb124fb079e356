//! Scripts about replication: conflicts, stale and repeated replies, what commits and what does not.

use fsd_wire::peer::{AppendResult, PeerMessage};
use fsd_wire::{LogIndex, NodeId, Term};

use super::cluster::{Cluster, ELECTION_MS, HEARTBEAT_MS};
use super::single::{Single, entries, entry, id};
use crate::limits::REPLICATION_WINDOW_MESSAGES;
use crate::raft::{Input, LogChange, Timer};

/// Terms as runs: `[(term, count)]`.
fn runs(runs: &[(u64, usize)]) -> Vec<u64> {
    runs.iter().flat_map(|(term, count)| std::iter::repeat_n(*term, *count)).collect()
}

/// Delivers everything between the two and counts the AppendEntries until the follower equals the leader.
fn round_trips(leader: Vec<u64>, follower: Vec<u64>) -> u64 {
    let mut cluster = Cluster::with_logs(0, &[leader.clone(), leader, follower], 1);
    cluster.elect_node(1);
    assert_eq!(cluster.terms(1), cluster.terms(3));
    cluster.check_log_matching();
    cluster.delivered
}

#[test]
fn long_divergent_tails_are_found_in_one_round_trip_per_term() {
    let quiet = round_trips(runs(&[(1, 5), (9, 1)]), runs(&[(1, 5), (9, 1)]));
    type Runs<'a> = &'a [(u64, usize)];
    let tails: [(Runs<'_>, Runs<'_>, u64); 5] = [
        // 200 entries of 4 terms that the leader never had.
        (&[(1, 5), (9, 100)], &[(1, 5), (2, 50), (3, 50), (4, 50), (5, 50)], 4),
        // One long term on either side.
        (&[(1, 5), (9, 60)], &[(1, 5), (8, 300)], 1),
        // The same terms with other lengths.
        (&[(1, 5), (2, 60), (3, 60), (9, 1)], &[(1, 5), (2, 90), (4, 60)], 2),
        // Only shorter.
        (&[(1, 5), (2, 60), (9, 200)], &[(1, 5)], 1),
        // Terms in turn.
        (&[(1, 5), (3, 60), (5, 60), (9, 60)], &[(1, 5), (2, 60), (4, 60), (6, 60)], 3),
    ];
    for (leader, follower, terms) in tails {
        let batches = leader.iter().map(|run| run.1).sum::<usize>() as u64 / 8 + 2;
        let bound = quiet + 2 * (terms + 2) + 2 * batches;
        let needed = round_trips(runs(leader), runs(follower));
        assert!(needed <= bound, "{needed} messages, expected at most {bound}: {leader:?}, {follower:?}");
    }
}

#[test]
fn heartbeats_do_not_disturb_a_follower_that_catches_up() {
    let leader = runs(&[(1, 5), (9, 300)]);
    let follower = runs(&[(1, 5), (2, 40), (3, 40), (4, 40), (5, 40)]);
    let mut cluster = Cluster::with_logs(0, &[leader.clone(), leader, follower], 1);
    cluster.elect_node(1);
    let mut cluster = {
        // Begin again, with a heartbeat between any two messages, each a round later.
        let logs = [cluster.terms(1), cluster.terms(1), runs(&[(1, 5), (2, 40), (3, 40), (4, 40), (5, 40)])];
        Cluster::with_logs(0, &logs, 2)
    };
    cluster.now_ms += 3 * ELECTION_MS;
    cluster.fire(NodeId(1), Timer::Election);
    for _ in 0..120 {
        for _ in 0..4 {
            if !cluster.bag.is_empty() {
                cluster.deliver(0);
            }
        }
        if cluster.leader() == Some(NodeId(1)) {
            cluster.now_ms += 1;
            cluster.fire(NodeId(1), Timer::Heartbeat);
        }
    }
    cluster.settle();
    assert_eq!(cluster.leader(), Some(NodeId(1)));
    assert_eq!(cluster.terms(1), cluster.terms(3));
}

#[test]
fn stale_and_repeated_append_replies_change_nothing() {
    let mut leader = Single::new(3, &[1, 1, 1]);
    let probe = leader.lead().appends_to(2).remove(0);
    leader.flush();
    let conflict = AppendResult::Conflict { conflict_term: Term(0), conflict_index: LogIndex(2) };
    leader.reply(2, &probe, conflict);
    leader.matched(2, 1);
    leader.matched(2, 4);
    assert_eq!(leader.raft.commit_index(), LogIndex(4));
    let proposed = leader.propose();
    let sent = leader.turn().appends_to(2);
    assert_eq!(sent[0].prev_log, id(2, 4));
    // The conflict of long ago, once more; a match of long ago; a match of more than there is.
    assert!(leader.reply(2, &probe, conflict).appends_to(2).is_empty());
    assert!(leader.matched(2, 1).appends_to(2).is_empty());
    assert!(leader.matched(2, 9).appends_to(2).is_empty());
    leader.flush();
    assert_eq!(leader.raft.commit_index(), LogIndex(4));
    // And the pipeline goes on where it was.
    leader.propose();
    assert_eq!(leader.turn().appends_to(2)[0].prev_log, proposed);
}

#[test]
fn a_match_counts_for_what_was_sent_not_for_what_is_there() {
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.flush();
    leader.matched(2, 2);
    for _ in 0..5 {
        leader.propose();
    }
    leader.turn();
    leader.flush();
    leader.matched(2, 4);
    assert_eq!(leader.raft.commit_index(), LogIndex(4));
    // A follower's answer names prev_log and what came with it, even if its own log is longer.
    let mut follower = Single::new(3, &[1, 1, 1, 1]);
    let done = follower.append(1, id(1, 1), vec![entry(3, 1, 2)]);
    assert_eq!(done.append_reply().result, AppendResult::Matched { match_index: LogIndex(2) });
}

#[test]
fn replies_of_an_earlier_term_do_not_count() {
    let mut leader = Single::new(3, &[1]);
    let first = leader.lead().appends_to(2).remove(0);
    leader.flush();
    leader.request_vote(3, 1, id(1, 1));
    // Deposed and elected again.
    leader.append(5, id(1, 1), vec![entry(3, 5, 2)]);
    leader.lead();
    leader.flush();
    assert_eq!(leader.raft.term(), Term(6));
    leader.reply(2, &first, AppendResult::Matched { match_index: LogIndex(3) });
    leader.reply(3, &first, AppendResult::Matched { match_index: LogIndex(3) });
    assert_eq!(leader.raft.commit_index(), LogIndex(0));
}

#[test]
fn a_short_message_after_a_long_one_takes_nothing_back() {
    let mut node = Single::new(3, &[1]);
    let all = entries(3, &[1, 1, 1, 1, 1]);
    node.append(1, id(1, 1), all[1..].to_vec());
    let late = node.append(1, id(1, 1), all[1..3].to_vec());
    assert!(late.changes.is_empty());
    assert_eq!(node.terms().len(), 5);
    let empty = node.append(1, id(1, 1), vec![]);
    assert!(empty.changes.is_empty());
}

#[test]
fn the_commit_index_never_passes_what_was_compared() {
    // Entries 3 and 4 are another leader's; a heartbeat that only compares entry 2 commits no more than that.
    let mut node = Single::new(3, &[1, 1, 2, 2]);
    let mut heartbeat = node.append_request(3, id(1, 2), vec![]);
    heartbeat.leader_commit = LogIndex(4);
    node.receive(2, PeerMessage::AppendEntries(heartbeat));
    assert_eq!(node.raft.commit_index(), LogIndex(2));
}

#[test]
fn a_single_node_commits_when_its_disk_has_it() {
    let mut node = Single::new(1, &[]);
    node.time_out();
    assert!(node.raft.is_leader());
    assert_eq!(node.raft.commit_index(), LogIndex(0));
    node.flush();
    assert_eq!(node.raft.commit_index(), LogIndex(1));
    node.propose();
    let done = node.turn();
    assert!(matches!(&done.changes[..], [LogChange::Append(_)]));
    assert_eq!(node.raft.commit_index(), LogIndex(1));
    node.flush();
    assert_eq!(node.raft.commit_index(), LogIndex(2));
}

#[test]
fn the_leader_of_three_counts_itself_when_its_disk_has_it() {
    let mut node = Single::new(3, &[1]);
    node.lead();
    node.matched(2, 2);
    assert_eq!(node.raft.commit_index(), LogIndex(0), "one disk of three");
    node.matched(3, 2);
    assert_eq!(node.raft.commit_index(), LogIndex(2), "two disks of three, none of them its own");
    let mut node = Single::new(3, &[1]);
    node.lead();
    node.flush();
    assert_eq!(node.raft.commit_index(), LogIndex(0));
    node.matched(3, 2);
    assert_eq!(node.raft.commit_index(), LogIndex(2));
}

#[test]
fn logs_may_begin_at_huge_indexes() {
    for base in [(1 << 31) - 2, (1u64 << 32) - 2, (1 << 63) - 2] {
        let log = |tail: &[(u64, usize)]| runs(&[&[(1, 8), (2, 2)], tail].concat());
        let logs = [log(&[(3, 4)]), log(&[]), log(&[(2, 60)])];
        let mut cluster = Cluster::with_logs(base, &logs, 1);
        cluster.elect_node(1);
        cluster.propose(NodeId(1));
        cluster.run_ms(2 * HEARTBEAT_MS);
        assert_eq!(cluster.terms(3), cluster.terms(1));
        assert_eq!(cluster.raft(3).commit_index(), LogIndex(base + 16));
        cluster.restart(NodeId(1));
        cluster.assert_recovers();
    }
}

#[test]
fn a_follower_that_does_not_answer_gets_no_more_than_a_window() {
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.matched(2, 2);
    let mut sent = 0;
    for _ in 0..2 * REPLICATION_WINDOW_MESSAGES {
        leader.propose();
        sent += leader.turn().appends_to(2).len();
    }
    assert_eq!(sent, REPLICATION_WINDOW_MESSAGES);
    // Its answers open the window again, and all that waited goes in one message.
    let more = leader.matched(2, 4).appends_to(2);
    assert_eq!((more.len(), more[0].entries.len()), (1, REPLICATION_WINDOW_MESSAGES));
}

#[test]
fn what_was_under_way_on_a_lost_connection_is_sent_again() {
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.matched(2, 2);
    let proposed = leader.propose();
    assert_eq!(leader.turn().appends_to(2)[0].entries[0].id(), proposed);
    let again = leader.input(Input::PeerLost { node: NodeId(2) }).appends_to(2);
    assert_eq!(again[0].prev_log, id(2, 2));
    let again = leader.matched(2, 2).appends_to(2);
    assert_eq!(again[0].entries[0].id(), proposed);
}

#[test]
fn a_busy_leader_refuses_proposals() {
    use fsd_wire::Payload;
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    let big = Payload::from(bytes::Bytes::from(vec![0; 16 * 1024 * 1024]));
    let taken = (0..10).take_while(|_| leader.raft.propose(0, big.clone()).is_ok()).count();
    assert_eq!(taken, 3, "64 MiB with what is around them");
    assert_eq!(leader.raft.propose(0, big), Err(crate::raft::ProposeError::Busy));
}

#[test]
fn messages_that_no_leader_sends_are_ignored() {
    let mut node = Single::new(3, &[1, 1]);
    let mut gap = vec![entry(3, 1, 4)];
    assert!(node.append(1, id(1, 2), gap.clone()).promised.is_empty(), "a gap behind prev_log");
    gap[0].term = Term(9);
    gap[0].index = LogIndex(3);
    assert!(node.append(1, id(1, 2), gap).promised.is_empty(), "an entry of a term to come");
    let mut request = node.append_request(1, id(1, 2), vec![]);
    request.leader_id = NodeId(3);
    assert!(
        node.receive(2, PeerMessage::AppendEntries(request.clone())).promised.is_empty(),
        "in another's name"
    );
    assert!(node.receive(3, PeerMessage::AppendEntries(request.clone())).promised.len() == 1);
    request.leader_id = NodeId(2);
    assert!(node.receive(2, PeerMessage::AppendEntries(request)).promised.is_empty(), "a second leader");
    assert_eq!(node.raft.leader_id(), Some(NodeId(3)));
}
