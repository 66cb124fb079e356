//! Section 7 and figure 13.

use fsd::raft::{self, Input, SnapshotAnswer, Timer};
use fsd_wire::client::NodeRole;
use fsd_wire::peer::{AppendResult, PeerMessage};
use fsd_wire::snapshot::SnapshotState;
use fsd_wire::{ClusterTimeMs, LogIndex, NodeId, Payload, Term};

use super::in_role;
use super::single::{Single, entry, id};

/// Section 7: "each server takes snapshots independently, covering just the committed entries in its log."
#[test]
fn every_node_forgets_what_is_committed() {
    let mut leader = leader_with_a_committed_log();
    leader.compact(4);
    assert_eq!(leader.raft.base(), id(1, 4));
    let mut follower = Single::new(3, &[1, 1, 1]);
    let mut request = follower.append_request(1, id(1, 2), vec![]);
    request.leader_commit = LogIndex(2);
    follower.receive(2, PeerMessage::AppendEntries(request));
    follower.compact(2);
    assert_eq!((follower.raft.base(), follower.raft.last_id()), (id(1, 2), id(1, 3)));
}

/// Section 7: the last included index and term "are preserved to support the AppendEntries consistency check for the
/// first log entry following the snapshot, since that entry needs a previous log index and term."
#[test]
fn the_entry_behind_a_snapshot_is_checked_against_it() {
    let mut follower = Single::with_base(3, &[1, 2], 2);
    let matched = AppendResult::Matched { match_index: LogIndex(3) };
    assert_eq!(follower.append(2, id(2, 2), vec![entry(3, 2, 3)]).append_reply().result, matched);
    let mut leader = leader_with_a_committed_log();
    leader.compact(5);
    leader.propose();
    let sent = leader.turn().appends_to(3);
    assert_eq!((sent[0].prev_log, sent[0].entries[0].id()), (id(2, 5), id(2, 6)));
}

/// Section 7: "the snapshot also includes the latest configuration in the log as of last included index." (Members are
/// fixed; which incarnation of each counts is what the log says.)
#[test]
fn a_snapshot_includes_who_counts() {
    let summary = leader_with_a_committed_log().raft.summary_at(LogIndex(4), ClusterTimeMs(4));
    let nodes: Vec<_> = summary.registrations.iter().map(|item| item.1).collect();
    assert_eq!(nodes, [1, 2, 3].map(NodeId));
    let mut newcomer = Single::new(3, &[]);
    newcomer.receive_snapshot(2, summary.base);
    newcomer.input(Input::Installed { summary });
    assert!(newcomer.raft.is_registered());
}

/// Section 7: "the leader must occasionally send snapshots to followers that lag behind. This happens when the leader
/// has already discarded the next log entry that it needs to send to a follower."
#[test]
fn who_needs_what_is_forgotten_gets_a_snapshot() {
    let mut leader = leader_with_a_committed_log();
    leader.compact(5);
    assert_eq!(leader.raft.behind().count(), 0, "nobody is known to need one");
    leader.now_ms += 100;
    let beat = leader.input(Input::Timeout(Timer::Heartbeat)).appends_to(2).remove(0);
    let lacks_all = AppendResult::Conflict { conflict_term: Term(0), conflict_index: LogIndex(1) };
    assert!(leader.reply(2, &beat, lacks_all).appends_to(2).is_empty());
    assert_eq!(leader.behind(), [2]);
    leader.snapshot_reply(2, 2, id(2, 5), SnapshotState::Installed);
    assert_eq!(leader.behind(), []);
}

/// Figure 13, InstallSnapshot RPC, receiver 1: "Reply immediately if term < currentTerm". (The node's server replies,
/// when the core says so.)
#[test]
fn a_snapshot_of_a_stale_term_is_not_taken() {
    let mut node = Single::new(3, &[1, 5]);
    node.receive_snapshot(4, id(4, 9));
    assert_eq!((node.raft.term(), node.raft.leader_id()), (Term(5), None));
    assert_eq!(node.raft.wants_snapshot(Term(4), id(4, 9)), SnapshotAnswer::StaleTerm);
}

/// Figure 2, All Servers, for InstallSnapshot and its reply: a higher term makes a follower of every role.
#[test]
fn a_higher_term_in_install_snapshot_makes_a_follower_of_every_role() {
    for role in [NodeRole::Follower, NodeRole::PreCandidate, NodeRole::Candidate, NodeRole::Leader] {
        let mut node = in_role(role);
        node.receive_snapshot(9, id(8, 9));
        assert_eq!((node.raft.role(), node.raft.term()), (NodeRole::Follower, Term(9)), "from {role:?}");
        assert_eq!(node.raft.leader_id(), Some(NodeId(2)));
    }
    let mut leader = in_role(NodeRole::Leader);
    leader.snapshot_reply(2, 9, id(1, 1), SnapshotState::StaleTerm);
    assert_eq!((leader.raft.role(), leader.raft.term()), (NodeRole::Follower, Term(9)));
}

/// Section 7: each chunk "gives the follower a sign of life, so it can reset its election timer" (figure 13).
#[test]
fn a_snapshot_puts_an_election_off() {
    let mut node = Single::new(3, &[1]);
    let chunk = fsd_wire::snapshot::InstallSnapshot {
        term: Term(1),
        leader_id: NodeId(2),
        entry: id(1, 9),
        offset: 0,
        is_last: false,
        bytes: Payload::default(),
    };
    node.step(Input::Receive { from: NodeId(2), message: PeerMessage::InstallSnapshot(chunk) });
    let alarms = node.raft.take_actions().alarms;
    assert!(matches!(alarms[..], [raft::Alarm::Set { timer: Timer::Election, .. }]), "{alarms:?}");
}

/// Section 7: "Usually the snapshot will contain new information not already in the recipient's log. In this case, the
/// follower discards its entire log; it is all superseded by the snapshot and may possibly have uncommitted entries
/// that conflict with the snapshot." Figure 13, receiver 7 and 8.
#[test]
fn a_log_that_a_snapshot_supersedes_is_discarded() {
    for terms in [&[1, 1][..], &[1, 1, 2, 2, 2, 2, 2]] {
        let mut node = Single::new(3, terms);
        node.receive_snapshot(4, id(3, 5));
        assert_eq!(node.raft.wants_snapshot(Term(4), id(3, 5)), SnapshotAnswer::Install);
        node.install(&[1, 1, 3, 3, 3]);
        assert_eq!((node.raft.base(), node.raft.last_id()), (id(3, 5), id(3, 5)));
        assert_eq!(node.raft.commit_index(), LogIndex(5));
    }
}

/// Section 7: "If instead the follower receives a snapshot that describes a prefix of its log (due to retransmission or
/// by mistake), then log entries covered by the snapshot are deleted but entries following the snapshot are still
/// valid and must be retained." Figure 13, receiver 6. (Here the node keeps those that are covered, too, until it
/// compacts by itself.)
#[test]
fn a_log_that_has_the_last_included_entry_is_retained() {
    let mut node = Single::new(3, &[1, 1, 3, 3, 3]);
    node.receive_snapshot(4, id(3, 4));
    assert_eq!(node.raft.wants_snapshot(Term(4), id(3, 4)), SnapshotAnswer::HasIt);
    assert_eq!(node.raft.last_id(), id(3, 5));
}

/// Figure 13, receiver 5: "discard any existing or partial snapshot with a smaller index": an older snapshot than what
/// is installed is none.
#[test]
fn an_older_snapshot_is_not_installed() {
    let node = Single::with_base(3, &[1, 1, 3, 3, 3], 5);
    for older in [id(1, 2), id(3, 4), id(3, 5)] {
        assert_eq!(node.raft.wants_snapshot(Term(4), older), SnapshotAnswer::HasIt, "{older:?}");
    }
}

/// The leader of three nodes in term 2, with its no-op at 5, which node 3 has, and of which node 2 has said nothing.
fn leader_with_a_committed_log() -> Single {
    let mut leader = Single::new(3, &[1, 1, 1, 1]);
    leader.lead();
    leader.flush();
    leader.matched(3, 5);
    assert_eq!(leader.raft.commit_index(), LogIndex(5));
    leader
}
