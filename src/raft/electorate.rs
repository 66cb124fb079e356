//! Who counts: a fresh disk is not a short log (DESIGN I9).
//!
//! Raft's proofs rest on memory: a node that voted, or that acknowledged an entry, still knows. A node whose
//! data directory was deleted does not know, and does not know that it does not know. So every data
//! directory draws a random **incarnation**, all messages of a node carry it, and the others remember.
//!
//! # What is remembered
//! * `met[X]`, in the hard state: the first incarnation of X that this node ever met. No hello replaces it.
//! * **Registrations**, in the log. The genesis entry (index 1, the first leader's no-op) registers every
//!   member that the first leader had met. A later `Register` entry registers an incarnation anew. As with
//!   configurations in Raft, what is in the log counts as soon as it is appended, committed or not, and is
//!   undone by a truncation. From them follows for each member, as a function of the log alone, its
//!   [`Standing`]:
//!   * `Unknown`: the log has no registration of it;
//!   * `Proposed`: registered once since its incarnation changed;
//!   * `Confirmed`: in the genesis, or registered a second time under the same incarnation.
//!
//!   A log that was compacted keeps the last two registrations of each member: its standing follows from them, and
//!   not from the last alone.
//!
//! # The rules
//! 1. *Commits and reads.* A leader counts a member (itself too) only under its confirmed incarnation.
//! 2. *Votes.* A candidate counts a vote (its own too) only from the confirmed incarnation; from an unknown
//!    member under `met`, or any if it never met one; from a proposed one only if it is the first
//!    registration of that member and contradicts neither the log nor `met`.
//! 3. *Elections.* A quorum of confirmed members elects; so does a quorum of any members while the candidate's
//!    log is empty, for that is the beginning. Otherwise, with votes of members that are not confirmed, it takes
//!    one vote more than a quorum.
//! 4. *Granting.* A voter refuses a candidate whose incarnation differs from the one that it expects (the
//!    registered one, else `met`), unless the candidate's own log confirms it (`RequestVote::registered`).
//! 5. *Standing.* A node stands for election only if it could count itself. A node with an empty log that
//!    has heard of a cluster id neither stands nor votes for an empty log: there is a cluster; it waits.
//! 6. *Proposing.* A leader that hears from an incarnation that is not registered replicates to it as to a
//!    learner; once that has caught up with what the leader had when it first answered, the leader appends
//!    `Register`.
//! 7. *Confirming.* The second `Register` is appended when the first is **committed** and its subject holds
//!    it. For the first registration ever of a member it is enough that a majority of the members other
//!    than the subject, under whatever incarnation, hold the first `Register` and an entry of this term.
//!
//! # Why it is safe
//! Take away the names, and a wiped node is a member X0 that has left and a member X1 that wants to join, so
//! the rules are those of a membership change in two steps. While X1 is only proposed, neither X0 nor X1
//! counts: every quorum of that time is also one of the time before and of the time after, with the same
//! disks, so it shares an intact disk with each. What must never meet is a quorum that counts X0 with one
//! that counts X1, for they could have nothing but X in common. X1 counts only where the log confirms it, so
//! only after the proposal was committed without X's help; from then on every leader has the proposal in its
//! log (Leader Completeness, the paper's section 5.4.3), and a leader of an earlier term that still counts X0
//! can no longer commit, as a majority has moved on to a later term. That one `Register` entry in the
//! leader's own log is not enough shows a leader that was cut off: it may propose X1 after X0 helped a later
//! leader to commit; restarted, it would count X1's vote and overwrite that. And that the confirmation is
//! itself an entry, and not what a leader remembers, lets a restarted cluster elect a leader with X1's help
//! while another node is down.
//!
//! Rule 3 is for members that joined late. One that was wiped and meets a candidate that never met it before can vote
//! twice in a term, or help a log that lacks what it acknowledged. Two electorates of which one has a vote more than a
//! quorum have two members in common, and so have it and a quorum that commits: one wiped disk is not enough. In a cluster of three that takes all
//! three votes, so a late member makes up for a lost one only when it is confirmed; in one of five, two late members
//! and two others go on without the fifth.
//!
//! Rule 4 protects the voters that know more than the candidate does: X1 with an empty log expects nothing of
//! itself. It must not bind a voter that knows less: a lagging voter has not heard yet that X1 replaced X0,
//! and with two other nodes down it may be needed. The candidate's own log is proof: a confirmation exists
//! only where the proposal was committed.
//!
//! Genesis members count at once: in the beginning there is nobody else to know them. The first leader may
//! die with its genesis on its own disk alone: the rest, with empty logs and no cluster id, elect another
//! and make another genesis; the old one is truncated away at index 1 when its owner returns. Its cluster id
//! was never known committed, so it is in no hard state and in no hello.
//!
//! A cluster that begins from a backup (`crate::restore`) begins as behind a genesis: its members' incarnations are
//! registered at index 1, and only directories that were restored have them.
//!
//! # What cannot be known
//! * *A majority wiped at once* is a new cluster to all who are left, unless one of them knows more.
//! * *The first registration* (rule 7, second half) gives availability precedence: a member that the first
//!   leader had not met must be able to join while a genesis member is down. Two such newcomers that vouch
//!   for each other, confirm, help to commit, and are **both** wiped while a third node, which never met
//!   either of them, lags behind: those three can lose what the two acknowledged. One wiped node cannot do
//!   this, and hellos make all nodes meet within seconds of their first start.
//! * *A restored copy* is recognised by its life, which hellos carry: a count of starts, and a number that is drawn
//!   for each start. A peer that has met another start of the same incarnation with the same or a higher count
//!   says so, and the copy becomes a new incarnation. A copy that was taken in the last life, and started
//!   again after that life ended, looks like any restart; and so does an older one that was started more often, before
//!   it reached anybody, than its directory was since the copy. Nobody can tell the two apart without having
//!   written down what the node acknowledged; operators must not restore single nodes from copies, and need
//!   not: an empty directory is brought up to date by itself.

use std::collections::{BTreeMap, BTreeSet};

use fsd_wire::{Incarnation, Life, LogIndex, NodeId};

use crate::marks::mark;
use crate::mutants::mutant;

/// Incarnations that a node has met, with the highest life of each.
pub(super) type Met = BTreeMap<NodeId, (Incarnation, Life)>;

/// What the log says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Unknown,
    /// This incarnation is to count once it is confirmed.
    Proposed {
        incarnation: Incarnation,
        /// Where it was registered.
        index: LogIndex,
        /// No other incarnation was ever registered for this member.
        first: bool,
    },
    /// This incarnation counts.
    Confirmed { incarnation: Incarnation },
}

impl Standing {
    /// What the log says after one more registration.
    fn after(self, index: LogIndex, incarnation: Incarnation) -> Self {
        let anew = |first| Self::Proposed { incarnation, index, first };
        match self {
            // The genesis entry is the beginning: nobody else is there who could vouch for anybody.
            Self::Unknown if index == LogIndex(1) => Self::Confirmed { incarnation },
            Self::Unknown => {
                mark!("electorate-registers-late-member");
                anew(true)
            }
            Self::Proposed { incarnation: before, .. } if before == incarnation => {
                mark!("electorate-confirms");
                Self::Confirmed { incarnation }
            }
            Self::Confirmed { incarnation: before } if before == incarnation => self,
            Self::Proposed { .. } | Self::Confirmed { .. } => {
                mark!("electorate-replaces-proposed", matches!(self, Self::Proposed { .. }));
                mark!("electorate-replaces-confirmed", matches!(self, Self::Confirmed { .. }));
                anew(false)
            }
        }
    }

    /// The incarnation that is registered, confirmed or not.
    pub(super) fn incarnation(self) -> Option<Incarnation> {
        match self {
            Self::Unknown => None,
            Self::Proposed { incarnation, .. } | Self::Confirmed { incarnation } => Some(incarnation),
        }
    }
}

/// The members, and the standing of each by this node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Electorate {
    standings: BTreeMap<NodeId, Standing>,
}

/// The least number of nodes that is more than half of `count`.
pub(super) fn majority(count: usize) -> usize {
    count / 2 + usize::from(count < 2 || !mutant!("quorum-is-half"))
}

/// The greatest value that `wanted` of `values` reach.
fn reached_by<T: Ord + Copy>(values: &mut [T], wanted: usize) -> Option<T> {
    assert!(wanted > 0, "a quorum of nobody");
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(wanted - 1).copied()
}

impl Electorate {
    pub(super) fn new(members: &[NodeId], registrations: &[(LogIndex, NodeId, Incarnation)]) -> Self {
        let standings = members.iter().map(|node| (*node, Standing::Unknown)).collect();
        let mut electorate = Self { standings };
        electorate.recount(registrations);
        electorate
    }

    /// Follows the log, of which `registrations` are all that it has.
    pub(super) fn recount(&mut self, registrations: &[(LogIndex, NodeId, Incarnation)]) {
        self.standings.values_mut().for_each(|standing| *standing = Standing::Unknown);
        for (index, node, incarnation) in registrations {
            // Nodes that are no members count for nothing, whatever a log says of them.
            if let Some(standing) = self.standings.get_mut(node) {
                *standing = standing.after(*index, *incarnation);
            }
        }
    }

    pub(super) fn quorum(&self) -> usize {
        majority(self.standings.len())
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.standings.contains_key(&node)
    }

    pub(super) fn standing(&self, node: NodeId) -> Standing {
        self.standings.get(&node).copied().unwrap_or(Standing::Unknown)
    }

    /// Rule 1: whether what this incarnation holds counts towards a commit, and what it answers towards a
    /// read.
    pub(super) fn counts(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let is_confirmed = self.standing(node) == Standing::Confirmed { incarnation };
        self.contains(node) && (is_confirmed || mutant!("wiped-node-counts"))
    }

    /// Rule 2: whether the vote of this incarnation counts.
    pub(super) fn vote_counts(&self, node: NodeId, incarnation: Incarnation, met: &Met) -> bool {
        let as_met = met.get(&node).is_none_or(|(first, _)| *first == incarnation);
        self.contains(node)
            && match self.standing(node) {
                _ if mutant!("wiped-node-votes") => true,
                Standing::Unknown => as_met,
                Standing::Proposed { incarnation: registered, first, .. } => {
                    first && registered == incarnation && as_met
                }
                Standing::Confirmed { incarnation: registered } => registered == incarnation,
            }
    }

    /// Rule 3: whether those who granted their votes elect a leader. `beginning`: the candidate's log is empty.
    pub(super) fn elects(&self, granted: &BTreeSet<NodeId>, beginning: bool) -> bool {
        let confirmed = |node: &&NodeId| matches!(self.standing(**node), Standing::Confirmed { .. });
        let known = granted.iter().filter(confirmed).count();
        let enough = if beginning { granted.len() } else { known };
        mark!("electorate-elects-by-one-more", enough < self.quorum() && granted.len() > self.quorum());
        enough >= self.quorum() || granted.len() > self.quorum()
    }

    /// Rule 4: whether a voter may help this incarnation, whose own log does not confirm it.
    pub(super) fn may_grant(&self, node: NodeId, incarnation: Incarnation, met: &Met) -> bool {
        let expected = self.standing(node).incarnation();
        expected.or(met.get(&node).map(|(first, _)| *first)).is_none_or(|expected| expected == incarnation)
    }

    /// The greatest value that a quorum of those that count has reached.
    pub(super) fn held_by_quorum<T: Ord + Copy>(
        &self,
        values: impl Iterator<Item = (NodeId, Incarnation, T)>,
    ) -> Option<T> {
        let counted = values.filter(|(node, incarnation, _)| self.counts(*node, *incarnation));
        let mut counted: Vec<T> = counted.map(|(_, _, value)| value).collect();
        reached_by(&mut counted, self.quorum())
    }

    /// The greatest value that a majority of the members has reached with `subject` left out, whoever they
    /// are.
    pub(super) fn held_by_others<T: Ord + Copy>(
        &self,
        subject: NodeId,
        values: impl Iterator<Item = (NodeId, T)>,
    ) -> Option<T> {
        let mut others: Vec<T> =
            values.filter(|(node, _)| *node != subject && self.contains(*node)).map(|item| item.1).collect();
        reached_by(&mut others, self.quorum())
    }
}

#[cfg(test)]
mod tests;
