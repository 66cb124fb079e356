//! Leadership transfer (thesis section 3.10): the leader stops taking proposals, brings the successor up to
//! date, and tells it to stand at once. If that takes longer than an election timeout, the leader goes on as
//! before.

use fsd_wire::NodeId;
use fsd_wire::peer::{PeerMessage, TimeoutNow};

use super::{Raft, Role};
use crate::marks::mark;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    pub(super) deadline_ms: u64,
    /// The successor was told.
    pub(super) told: bool,
}

impl Raft {
    pub(super) fn handle_transfer_leadership(&mut self, now_ms: u64, to: Option<NodeId>) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.transfer.is_some() {
            return;
        }
        // Only one whose vote counts can be elected; the lowest of equals, so that runs can be repeated.
        let fit = leader.progress.iter().filter(|(node, progress)| {
            to.is_none_or(|to| to == **node)
                && progress.heard_ms.is_some()
                && progress.incarnation.is_some_and(|incarnation| {
                    self.electorate.vote_counts(**node, incarnation, &self.state.met)
                })
        });
        let best = fit.max_by_key(|(node, progress)| (progress.match_index, std::cmp::Reverse(**node)));
        mark!("transfer-has-no-successor", best.is_none());
        let Some(to) = best.map(|(node, _)| *node) else { return };
        let deadline_ms = now_ms + self.config.election_timeout_ms;
        if let Role::Leader(leader) = &mut self.role {
            leader.transfer = Some(Transfer { to, deadline_ms, told: false });
        }
        self.continue_transfer();
    }

    pub(super) fn continue_transfer(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let caught_up = leader
            .progress
            .get(&transfer.to)
            .is_some_and(|progress| progress.match_index == self.log.last_index());
        mark!("transfer-waits-for-successor", !caught_up);
        if caught_up && !transfer.told {
            transfer.told = true;
            let message = TimeoutNow { term: self.state.term, leader_id: self.config.node };
            self.actions.send.push((transfer.to, PeerMessage::TimeoutNow(message)));
        }
    }

    /// The successor did not take over in time: proposals are taken again. Should it still be elected later,
    /// that is an election like any other.
    pub(super) fn abort_late_transfer(&mut self, now_ms: u64) {
        if let Role::Leader(leader) = &mut self.role
            && leader.transfer.as_ref().is_some_and(|transfer| now_ms >= transfer.deadline_ms)
        {
            mark!("transfer-takes-too-long");
            leader.transfer = None;
        }
    }
}
