//! Scripts about logs of which the beginning is gone, and about followers that need it.

use fsd_wire::client::NodeRole;
use fsd_wire::peer::{AppendResult, PeerMessage};
use fsd_wire::snapshot::{InstallSnapshot, SnapshotState};
use fsd_wire::{ClusterTimeMs, Incarnation, Life, LogIndex, NodeId, Payload, Term};

use super::cluster::{Cluster, HEARTBEAT_MS};
use super::single::{Single, entries, entry, id};
use crate::raft::{Alarm, Input, LogSummary, Raft, SnapshotAnswer, Timer};

const MATCHED: fn(u64) -> AppendResult = |index| AppendResult::Matched { match_index: LogIndex(index) };

fn conflict(term: u64, index: u64) -> AppendResult {
    AppendResult::Conflict { conflict_term: Term(term), conflict_index: LogIndex(index) }
}

/// A leader of three in term 2, whose log of 10 entries ends with its no-op at 11. Node 3 holds all, node 2 nothing
/// that is known, and everything is committed.
fn leader() -> Single {
    let mut leader = Single::new(3, &[1; 10]);
    leader.lead();
    leader.flush();
    leader.matched(3, 11);
    assert_eq!(leader.raft.commit_index(), LogIndex(11));
    leader
}

/// As [`leader`], compacted to `to`; node 2 has answered that it has nothing at all.
fn leader_of_a_newcomer(to: u64) -> Single {
    let mut leader = leader();
    leader.compact(to);
    let probe = heartbeat(&mut leader).remove(0);
    leader.reply(2, &probe, conflict(0, 1));
    assert_eq!(leader.behind(), [2]);
    leader
}

fn heartbeat(leader: &mut Single) -> Vec<fsd_wire::peer::AppendEntries> {
    leader.now_ms += 100;
    leader.input(Input::Timeout(Timer::Heartbeat)).appends_to(2)
}

#[test]
fn a_node_starts_with_what_is_committed_for_certain() {
    let node = Single::with_base(3, &[1, 1, 2, 2], 3);
    assert_eq!((node.raft.base(), node.raft.commit_index()), (id(2, 3), LogIndex(3)));
    assert_eq!((node.raft.last_id(), node.raft.durable_index()), (id(2, 4), LogIndex(4)));
    assert_eq!(node.raft.term_starts(), &[(LogIndex(4), Term(2))]);
    let mut summary = super::single::summary(&node.log);
    summary.base = id(2, 3);
    summary.committed = LogIndex(4);
    let node = Single::with_summary(3, node.log, summary, 5);
    assert_eq!(node.raft.commit_index(), LogIndex(4), "the store was found as of it");
}

#[test]
fn a_log_of_a_base_alone_votes_and_stands_as_what_it_was() {
    for (last_log, granted) in [(id(2, 4), true), (id(3, 2), true), (id(2, 3), false), (id(1, 9), false)] {
        let mut node = Single::with_base(3, &[1, 1, 2, 2], 4);
        assert_eq!(node.request_vote(2, 5, last_log).vote_reply().vote_granted, granted, "{last_log:?}");
    }
    let mut node = Single::with_base(3, &[1, 1, 2, 2], 4);
    let asked = node.time_out().vote_requests();
    assert!(asked.iter().all(|request| request.last_log == id(2, 4) && request.registered));
    // One vote is enough for a leader: this is not the beginning of a cluster, and its members are confirmed.
    node.vote(2, 3, true, true);
    let first = node.vote(2, 3, false, true).appends_to(3);
    assert!(node.raft.is_leader());
    assert_eq!((first[0].prev_log, first[0].entries[0].id()), (id(2, 4), id(3, 5)));
}

#[test]
fn what_lies_up_to_the_base_is_equal_without_being_compared() {
    // Whatever a message has of it is skipped, and the rest is taken; at least the base is acknowledged.
    let leaders = entries(3, &[1, 1, 2, 2, 2, 2, 3]);
    for (prev, count, matched, last) in [
        (0, 0, 4, 6),
        (1, 0, 4, 6),
        (1, 2, 4, 6),
        (2, 2, 4, 6),
        (2, 3, 5, 6),
        (3, 4, 7, 7),
        (4, 2, 6, 6),
        (4, 3, 7, 7),
    ] {
        let mut node = Single::with_base(3, &[1, 1, 2, 2, 2, 2], 4);
        let prev_log = if prev == 0 { id(0, 0) } else { leaders[prev - 1].id() };
        let done = node.append(3, prev_log, leaders[prev..prev + count].to_vec());
        assert_eq!(done.append_reply().result, MATCHED(matched), "{count} entries behind {prev}");
        assert_eq!(node.raft.last_index(), LogIndex(last), "{count} entries behind {prev}");
    }
}

#[test]
fn a_conflict_behind_the_base_takes_back_no_more_than_that() {
    let mut node = Single::with_base(3, &[1, 1, 2, 2, 2, 2], 4);
    let done = node.append(3, id(1, 2), entries(3, &[1, 1, 2, 2, 3])[2..].to_vec());
    assert_eq!(done.append_reply().result, MATCHED(5));
    assert_eq!((node.raft.last_id(), node.raft.base()), (id(3, 5), id(2, 4)));
}

#[test]
#[should_panic(expected = "entry 4 is committed and conflicts")]
fn an_entry_that_contradicts_the_base_ends_the_node() {
    let mut node = Single::with_base(3, &[1, 1, 2, 2], 4);
    node.append(3, id(1, 3), vec![entry(3, 3, 4)]);
}

#[test]
#[should_panic(expected = "committed as one of term 2")]
fn a_leader_that_has_another_base_ends_the_node() {
    Single::with_base(3, &[1, 1, 2, 2], 4).append(3, id(3, 4), vec![]);
}

#[test]
fn hints_do_not_reach_before_the_base() {
    // The conflicting term began long before the base; what is left of it begins behind it.
    let mut node = Single::with_base(3, &[1, 2, 2, 2, 2, 2], 4);
    let hint = |node: &mut Single, prev_log| node.append(5, prev_log, vec![]).append_reply().result;
    assert_eq!(hint(&mut node, id(4, 6)), conflict(2, 5));
    assert_eq!(hint(&mut node, id(4, 9)), conflict(0, 7));
    let mut node = Single::with_base(3, &[1, 2, 2, 2], 4);
    assert_eq!(hint(&mut node, id(4, 9)), conflict(0, 5), "a log that ends with its base");
}

#[test]
fn a_leader_finds_where_logs_meet_as_far_back_as_its_base() {
    // Terms of entries 1 to 8; the leader has forgotten up to 4.
    let hints = [
        // It has the term, only from before its base: the base is the last of it.
        (conflict(2, 3), Some(id(2, 4))),
        (conflict(2, 5), Some(id(2, 4))),
        (conflict(3, 5), Some(id(2, 4))),
        (conflict(0, 5), Some(id(2, 4))),
        (conflict(0, 7), Some(id(4, 6))),
        // What it would have to know lies before.
        (conflict(3, 4), None),
        (conflict(1, 2), None),
        (conflict(0, 4), None),
        (conflict(0, 1), None),
    ];
    for (hint, expected) in hints {
        let mut leader = Single::with_base(3, &[1, 2, 2, 2, 4, 4, 4, 4], 4);
        let request = leader.lead().appends_to(2).remove(0);
        let next = leader.reply(2, &request, hint).appends_to(2);
        assert_eq!(next.first().map(|request| request.prev_log), expected, "{hint:?}");
        assert_eq!(leader.behind().is_empty(), expected.is_some(), "{hint:?}");
    }
}

#[test]
fn who_needs_a_snapshot_gets_heartbeats_and_no_entries() {
    let mut leader = leader_of_a_newcomer(8);
    leader.propose();
    assert!(leader.turn().appends_to(2).is_empty(), "no entries, nor a probe");
    let round = |leader: &mut Single| {
        let beats = heartbeat(leader);
        assert_eq!((beats.len(), beats[0].prev_log, beats[0].entries.len()), (1, id(1, 8), 0));
        beats.into_iter().next().unwrap()
    };
    // Refused again and again, it stays where it is, and counts as one who follows.
    for _ in 0..30 {
        let beat = round(&mut leader);
        assert!(leader.reply(2, &beat, conflict(0, 1)).appends_to(2).is_empty());
        assert_eq!(leader.behind(), [2]);
    }
    assert!(leader.raft.is_leader(), "a majority answers");
    // A read is confirmed by such a heartbeat like by any other.
    let beat = leader.input(Input::Read { id: 7 }).appends_to(2).remove(0);
    assert_eq!(leader.reply(2, &beat, conflict(0, 1)).reads_ready, [(7, LogIndex(11))]);
    // And if it has the base after all, it is replicated to.
    let beat = round(&mut leader);
    let next = leader.reply(2, &beat, MATCHED(8)).appends_to(2);
    assert_eq!((next[0].prev_log, next[0].entries.len()), (id(1, 8), 4));
    assert!(leader.behind().is_empty());
}

#[test]
fn a_snapshot_that_is_installed_is_followed_by_entries() {
    for state in [SnapshotState::Installed, SnapshotState::HasIt] {
        let mut leader = leader_of_a_newcomer(8);
        let next = leader.snapshot_reply(2, 2, id(1, 9), state).appends_to(2);
        assert_eq!((next[0].prev_log, next[0].entries.len()), (id(1, 9), 2));
        assert!(leader.behind().is_empty());
        assert!(leader.raft.follower_match_indexes().any(|item| item == (NodeId(2), LogIndex(9))));
    }
}

#[test]
fn what_is_no_news_of_an_installed_snapshot_changes_nothing() {
    let (entry, installed) = (id(1, 9), SnapshotState::Installed);
    let refused = SnapshotState::Refused { reason: "no room".into() };
    let mut leader = leader_of_a_newcomer(8);
    for (term, entry, state) in [
        (2, entry, SnapshotState::Receiving),
        (2, entry, SnapshotState::StaleTerm),
        (2, entry, refused),
        (1, entry, installed.clone()),
        // No leader has told it of these.
        (2, id(2, 9), installed.clone()),
        (2, id(2, 12), installed.clone()),
    ] {
        assert!(leader.snapshot_reply(2, term, entry, state.clone()).appends().is_empty());
        assert_eq!(leader.behind(), [2], "term {term}, {entry:?}, {state:?}");
    }
    // Another disk than the one that the snapshot was sent to: it is asked what it holds.
    let (incarnation, life) = (Incarnation(99), Life::new(1, 0));
    leader.input(Input::Met { node: NodeId(2), incarnation, life, cluster_id: None });
    let asked = leader.snapshot_reply(2, 2, entry, installed.clone()).appends_to(2);
    assert_eq!(asked[0].prev_log, id(2, 11));
    assert!(leader.raft.follower_match_indexes().any(|item| item == (NodeId(2), LogIndex(0))));
    leader.snapshot_reply(2, 3, entry, installed);
    assert_eq!((leader.raft.role(), leader.raft.term()), (NodeRole::Follower, Term(3)), "a higher term");
    assert!(leader.behind().is_empty(), "only a leader sends snapshots");
}

#[test]
fn a_snapshot_that_comes_too_late_is_followed_by_another() {
    let mut leader = leader_of_a_newcomer(8);
    leader.compact(10);
    assert!(leader.snapshot_reply(2, 2, id(1, 9), SnapshotState::Installed).appends().is_empty());
    assert_eq!(leader.behind(), [2]);
    assert!(leader.raft.follower_match_indexes().any(|item| item == (NodeId(2), LogIndex(9))));
    leader.snapshot_reply(2, 2, id(1, 10), SnapshotState::Installed);
    assert!(leader.behind().is_empty());
}

#[test]
fn compaction_overtakes_a_slow_follower() {
    let mut leader = leader();
    leader.matched(2, 5);
    // All that it lacks is on its way to it: nothing is missing.
    leader.compact(11);
    assert!(leader.behind().is_empty());
    leader.matched(2, 8);
    leader.matched(2, 11);
    assert!(leader.behind().is_empty());
    // Now its window is full, and what waits behind is compacted away.
    let window = crate::limits::REPLICATION_WINDOW_MESSAGES as u64;
    for _ in 0..window + 5 {
        leader.propose();
        leader.turn();
    }
    leader.flush();
    let last = leader.raft.last_index().0;
    leader.matched(3, last);
    leader.compact(11 + window);
    assert!(leader.behind().is_empty());
    leader.compact(last);
    assert_eq!(leader.behind(), [2]);
    // What was on its way still counts, and does not do.
    leader.matched(2, 11 + window);
    assert_eq!(leader.behind(), [2]);
    assert_eq!(heartbeat(&mut leader)[0].prev_log, id(2, last));
}

#[test]
fn a_follower_whose_log_is_not_known_is_asked_for_the_base() {
    let mut leader = leader();
    let probe = leader.append_request(2, id(1, 10), vec![]);
    leader.reply(2, &probe, conflict(0, 4));
    let asked = leader.compact(8).appends_to(2);
    assert_eq!((asked[0].prev_log, asked[0].entries.len()), (id(1, 8), 0));
    // An answer to the question of before says nothing about this one.
    leader.reply(2, &probe, conflict(0, 4));
    assert!(leader.behind().is_empty());
    leader.reply(2, &asked[0], conflict(0, 4));
    assert_eq!(leader.behind(), [2]);
}

#[test]
fn a_lost_connection_and_another_disk_are_asked_anew() {
    for incarnation in [super::single::incarnation_of(NodeId(2)), Incarnation(99)] {
        let mut leader = leader_of_a_newcomer(8);
        leader.input(Input::PeerLost { node: NodeId(2) });
        assert!(leader.behind().is_empty(), "nothing is known of it now");
        let met = Input::Met { node: NodeId(2), incarnation, life: Life::new(2, 0), cluster_id: None };
        let probe = leader.input(met).appends_to(2).remove(0);
        let mut reply = fsd_wire::peer::AppendEntriesReply {
            term: probe.term,
            incarnation,
            round: probe.round,
            prev_log_index: probe.prev_log.index,
            result: conflict(0, 1),
        };
        leader.receive(2, PeerMessage::AppendEntriesReply(reply));
        assert_eq!(leader.behind(), [2]);
        reply.term = Term(9);
        leader.receive(2, PeerMessage::AppendEntriesReply(reply));
        assert!(leader.behind().is_empty() && !leader.raft.is_leader());
    }
}

#[test]
fn a_leader_forgets_the_beginning_of_its_own_term() {
    let mut leader = leader();
    for _ in 0..5 {
        leader.propose();
    }
    leader.turn();
    leader.flush();
    leader.matched(3, 16);
    leader.compact(14);
    assert_eq!((leader.raft.base(), leader.raft.uncommitted_bytes()), (id(2, 14), 0));
    leader.propose();
    leader.turn();
    leader.flush();
    leader.matched(3, 17);
    assert_eq!(leader.raft.commit_index(), LogIndex(17));
    let beats = leader.input(Input::Read { id: 1 }).appends();
    let beat = beats.into_iter().find(|item| item.0 == NodeId(3)).unwrap().1;
    assert_eq!(leader.reply(3, &beat, MATCHED(17)).reads_ready, [(1, LogIndex(17))]);
    leader.compact(17);
    assert_eq!((leader.raft.last_id(), leader.raft.term_starts().len()), (id(2, 17), 0));
    assert_eq!(leader.propose(), id(2, 18));
}

#[test]
fn a_snapshot_is_wanted_by_who_lacks_its_entry() {
    use SnapshotAnswer::{HasIt, Install, StaleTerm};
    // Entries 4 and 5 are not known to be committed; up to 2, nothing is left.
    let mut node = Single::with_base(3, &[1, 1, 2, 3, 3], 2);
    let mut request = node.append_request(3, id(2, 3), vec![]);
    request.leader_commit = LogIndex(3);
    node.receive(2, PeerMessage::AppendEntries(request));
    let table = [
        (3, id(3, 6), Install),
        (3, id(3, 9), Install),
        // A conflict behind what is committed.
        (3, id(2, 4), Install),
        // To install any of these would lose something.
        (3, id(3, 5), HasIt),
        (3, id(3, 4), HasIt),
        (3, id(2, 3), HasIt),
        (3, id(1, 2), HasIt),
        (3, id(1, 1), HasIt),
        (2, id(2, 9), StaleTerm),
        (2, id(2, 3), StaleTerm),
    ];
    for (term, entry, answer) in table {
        assert_eq!(node.raft.wants_snapshot(Term(term), entry), answer, "term {term}, {entry:?}");
    }
    // Who stands for election has heard of no leader in its term.
    node.stand();
    assert_eq!(node.raft.wants_snapshot(node.raft.term(), id(3, 9)), StaleTerm);
}

#[test]
fn an_installed_snapshot_is_all_that_is_left_of_the_log() {
    let mut node = Single::new(3, &[1, 1, 2, 2, 2, 2, 2]);
    node.append(4, id(1, 2), vec![]);
    let state = node.raft.hard_state().clone();
    let done = node.install(&[1, 1, 3, 3, 3]);
    assert!(done.changes.is_empty(), "the disk has it already");
    assert_eq!(node.raft.hard_state(), &state);
    assert_eq!((node.raft.base(), node.raft.last_id()), (id(3, 5), id(3, 5)));
    assert_eq!((node.raft.commit_index(), node.raft.durable_index()), (LogIndex(5), LogIndex(5)));
    assert_eq!(node.raft.last_stamp(), ClusterTimeMs(7), "time does not go back with the log");
    assert!(node.raft.is_registered() && node.raft.leader_id() == Some(NodeId(2)));
    let reply = node.append(4, id(3, 5), vec![entry(3, 4, 6)]).append_reply();
    assert_eq!((reply.result, node.raft.last_id()), (MATCHED(6), id(4, 6)));
}

#[test]
fn an_empty_node_becomes_a_member_by_a_snapshot() {
    let mut node = Single::new(3, &[]);
    assert!(!node.raft.is_registered());
    node.receive_snapshot(4, id(3, 3));
    let stored = node.install(&[1, 1, 3]).stored.expect("it knows its cluster now");
    assert_eq!((stored.cluster_id, stored.term), (Some(fsd_wire::ClusterId(1)), Term(4)));
    assert!(node.raft.is_registered());
    // It is not at a beginning any more: no vote for an empty log, and it stands for election.
    assert!(!node.request_vote(3, 5, id(0, 0)).vote_reply().vote_granted);
    assert_eq!(node.time_out().vote_requests()[0].last_log, id(3, 3));
}

#[test]
fn a_pre_vote_for_the_log_of_before_comes_to_nothing() {
    let mut node = Single::new(3, &[1, 1]);
    node.receive_snapshot(3, id(3, 3));
    node.time_out();
    assert_eq!(node.raft.role(), NodeRole::PreCandidate);
    node.install(&[1, 1, 3]);
    assert_eq!((node.raft.role(), node.raft.leader_id()), (NodeRole::Follower, None));
    node.vote(2, 4, true, true);
    assert_eq!(node.raft.role(), NodeRole::Follower);
}

#[test]
#[should_panic(expected = "committed is 4")]
fn nothing_is_installed_backwards() {
    Single::with_base(3, &[1, 1, 2, 2, 2], 4).install(&[1, 1, 2]);
}

#[test]
#[should_panic(expected = "the log has EntryId { term: Term(2), index: LogIndex(4) } already")]
fn nothing_is_installed_over_a_log_that_has_it() {
    Single::new(3, &[1, 1, 2, 2, 2]).install(&[1, 1, 2, 2]);
}

#[test]
#[should_panic(expected = "only a follower installs")]
fn a_leader_installs_nothing() {
    leader().install(&[1; 20]);
}

#[test]
#[should_panic(expected = "compaction to 3, committed is 2")]
fn what_is_not_committed_is_not_forgotten() {
    Single::with_base(3, &[1, 1, 1], 2).compact(3);
}

#[test]
#[should_panic(expected = "compaction to 2")]
fn what_is_not_flushed_is_not_forgotten() {
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    // The others have flushed it, and that is a majority.
    leader.matched(2, 2);
    leader.matched(3, 2);
    assert_eq!(leader.raft.commit_index(), LogIndex(2));
    leader.compact(2);
}

#[test]
fn what_is_forgotten_stays_forgotten() {
    let mut leader = leader();
    leader.compact(9);
    leader.compact(9);
    leader.compact(4);
    leader.compact(0);
    assert_eq!(leader.raft.base(), id(1, 9));
    assert_eq!(leader.raft.term_at(LogIndex(8)), None);
}

#[test]
fn a_chunk_is_a_sign_of_life() {
    let puts_off = |raft: &mut Raft| {
        let set = |alarm: &Alarm| matches!(alarm, Alarm::Set { timer: Timer::Election, .. });
        raft.take_actions().alarms.iter().any(set)
    };
    let mut node = Single::new(3, &[1, 5]);
    let chunk = |term| InstallSnapshot {
        term: Term(term),
        leader_id: NodeId(2),
        entry: id(1, 9),
        offset: 0,
        is_last: false,
        bytes: Payload::default(),
    };
    let receive = |node: &mut Single, from, term| {
        let message = PeerMessage::InstallSnapshot(chunk(term));
        node.step(Input::Receive { from: NodeId(from), message });
    };
    receive(&mut node, 2, 4);
    assert!(!puts_off(&mut node.raft) && node.raft.leader_id().is_none(), "a stale leader");
    receive(&mut node, 3, 5);
    assert!(!puts_off(&mut node.raft) && node.raft.leader_id().is_none(), "not from who it says it is");
    receive(&mut node, 2, 5);
    assert!(puts_off(&mut node.raft));
    assert_eq!(node.raft.leader_id(), Some(NodeId(2)));
    receive(&mut node, 2, 7);
    assert_eq!((node.raft.term(), node.raft.leader_id()), (Term(7), Some(NodeId(2))));
    node.stand();
    receive(&mut node, 2, 8);
    assert_eq!((node.raft.role(), node.raft.leader_id()), (NodeRole::Follower, Some(NodeId(2))));
}

#[test]
fn a_snapshot_tells_who_counts() {
    let summary = leader().raft.summary_at(LogIndex(9), ClusterTimeMs(9));
    assert_eq!((summary.base, summary.last_index, summary.committed), (id(1, 9), LogIndex(9), LogIndex(9)));
    assert_eq!((summary.registrations.len(), summary.genesis), (3, Some(fsd_wire::ClusterId(1))));
    assert!(summary.term_starts.is_empty());
    let none = leader().raft.summary_at(LogIndex(0), ClusterTimeMs(0));
    assert_eq!(none, LogSummary::default(), "as of the beginning there is nothing");
}

/// Bug 36 of docs/testing.md: nothing is written, and the leader's log is empty.
#[test]
fn a_leader_that_has_forgotten_all_brings_up_who_has_nothing() {
    for wiped in [false, true] {
        let mut cluster = Cluster::new(3, 1);
        cluster.elect_node(1);
        cluster.isolate(3);
        for _ in 0..20 {
            cluster.propose(NodeId(1));
        }
        cluster.run_ms(2 * HEARTBEAT_MS);
        cluster.crash(NodeId(3));
        if wiped {
            cluster.wipe(NodeId(3));
        }
        for node in [1, 2] {
            cluster.compact_fully(node);
            assert!(cluster.nodes[&NodeId(node)].log.entries.is_empty());
        }
        let last = cluster.raft(1).last_index();
        cluster.cut.clear();
        cluster.start(NodeId(3));
        cluster.connect_all();
        cluster.run_ms(4 * HEARTBEAT_MS);
        assert_eq!(cluster.counts.installs, 1);
        assert!(cluster.raft(3).commit_index() >= last && cluster.raft(3).is_registered());
        assert_eq!(
            cluster.raft(1).last_index().0,
            last.0 + if wiped { 2 } else { 0 },
            "registrations at most"
        );
        cluster.assert_recovers();
    }
}

/// The same of a leader that was just elected and knows nothing of anybody.
#[test]
fn a_cluster_that_has_forgotten_all_elects_and_goes_on() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect_node(1);
    for _ in 0..5 {
        cluster.propose(NodeId(1));
    }
    cluster.run_ms(2 * HEARTBEAT_MS);
    for node in 1..=3 {
        cluster.compact_fully(node);
        cluster.crash(NodeId(node));
    }
    let leader = cluster.assert_recovers();
    assert_eq!(cluster.counts.snapshots, 0, "nobody lacks anything");
    assert_eq!(cluster.raft(leader.0).base(), cluster.raft(leader.0 % 3 + 1).base());
}

/// A follower that has forgotten more than its leader needs nothing of it.
#[test]
fn a_follower_may_have_forgotten_more_than_its_leader() {
    let mut cluster = Cluster::new(3, 1);
    cluster.elect_node(1);
    for _ in 0..9 {
        cluster.propose(NodeId(1));
    }
    cluster.run_ms(2 * HEARTBEAT_MS);
    cluster.compact_fully(2);
    cluster.compact(NodeId(1), 4, 4);
    cluster.restart(NodeId(2));
    cluster.settle();
    cluster.elect_node(3);
    cluster.elect_node(1);
    cluster.assert_recovers();
    assert_eq!((cluster.counts.snapshots, cluster.raft(2).base().index.0 > 9), (0, true));
}
