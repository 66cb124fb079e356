//! The leader's part in `electorate`: it proposes incarnations that are not registered, and confirms them.

use fsd_wire::{EntryKind, Incarnation, NodeId, Register};

use super::electorate::Standing;
use super::{Raft, Role};
use crate::marks::mark;
use crate::mutants::mutant;

impl Raft {
    /// Appends what registrations are due. Returns whether there were any.
    pub(super) fn register_members(&mut self, now_ms: u64) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        // The successor must be able to catch up.
        if leader.transfer.is_some() {
            mark!("registration-waits-for-transfer");
            return false;
        }
        let own = (self.config.node, self.state.incarnation);
        let others = leader.progress.iter().filter_map(|(node, progress)| {
            let caught_up = progress.welcome_index.is_some_and(|welcome| progress.match_index >= welcome);
            progress.incarnation.filter(|_| caught_up).map(|incarnation| (*node, incarnation))
        });
        let mut due: Vec<(NodeId, Incarnation)> = others.chain([own]).collect();
        due.retain(|(node, incarnation)| match self.electorate.standing(*node) {
            Standing::Proposed { incarnation: proposed, .. } if proposed == *incarnation => {
                self.may_confirm(*node)
            }
            standing => standing.incarnation() != Some(*incarnation),
        });
        let payload_of = |(node, incarnation): &(NodeId, Incarnation)| {
            Register { node: *node, incarnation: *incarnation }.encode()
        };
        if !self.has_room_for(due.iter().map(|due| payload_of(due).len())) {
            return false;
        }
        for due in &due {
            self.append_own(now_ms, EntryKind::Register, payload_of(due));
        }
        !due.is_empty()
    }

    /// Rule 7 of `electorate`.
    fn may_confirm(&self, subject: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let Standing::Proposed { index, first, .. } = self.electorate.standing(subject) else { return false };
        let own = (self.config.node, self.log.durable_index());
        let followers = leader.progress.iter().map(|(node, progress)| (*node, progress.match_index));
        let held: Vec<_> = followers.chain([own]).collect();
        let subject_holds_it =
            held.iter().any(|(node, match_index)| *node == subject && *match_index >= index);
        let vouched_for = self.electorate.held_by_others(subject, held.into_iter());
        let of_this_term = index.max(leader.term_first_index);
        mark!("registration-waits-for-commit", subject_holds_it && self.commit_index < index);
        mutant!("confirmed-at-once")
            || subject_holds_it
                && (self.commit_index >= index
                    || first && vouched_for.is_some_and(|held| held >= of_this_term))
    }
}
