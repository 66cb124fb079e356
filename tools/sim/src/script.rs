//! Schedules that chance alone hardly ever makes, played act by act as the cluster gets there: one node after the
//! other is cut off at the very moment that matters, and the one that was cut off before it is heard again. With
//! leaders that nobody hears from the moment of their election on, entries of several terms wait at once (the Raft
//! paper's figure 8); with leaders that could commit, logs that are long and old meet logs that are short and new.

use fsd::raft::Raft;
use fsd_wire::Term;
use fsd_wire::client::NodeRole;

use crate::schedule::Happening;
use crate::simulation::Simulation;

/// A script is given up when its next act does not come for so many election timeouts.
const PATIENCE_ELECTION_TIMEOUTS: u64 = 8;

/// At which moment the next node is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// It is elected, and nobody hears of it: its own entries stay with it.
    Unheard,
    /// It asks for votes that nobody hears of.
    Unasked,
    /// It has led for some messages: some entries of earlier terms are on their way, or there.
    Early,
    /// It has committed entries of its term.
    Settled,
}

/// What is being played.
#[derive(Debug)]
pub(crate) struct Script {
    /// Counts scripts and their acts: what was planned for another one is void.
    number: u64,
    acts: Vec<Act>,
    /// Who is cut off at present.
    alone: Option<usize>,
    /// Who is to be cut off next, and whether its words are held back already.
    chosen: Option<(usize, bool)>,
    /// Leaders of this term or earlier ones are of no interest.
    behind: Term,
    until_us: u64,
}

impl Simulation {
    /// Begins a script, unless one is being played; whether it could.
    pub(crate) fn begin_script(&mut self) -> bool {
        let Some(leader) = self.leader().filter(|_| self.script.is_none() && self.plan.nodes > 2) else {
            return false;
        };
        use Act::{Early, Settled, Unasked, Unheard};
        let mut acts = match self.random.u32(..5) {
            0 | 1 => vec![Unheard, Early, Settled],
            2 => vec![Settled, Settled],
            3 => vec![Unasked, Settled],
            _ => {
                let acts = [Unheard, Unasked, Early, Settled];
                (0..self.random.usize(2..8)).map(|_| *self.random.choice(&acts).expect("a choice")).collect()
            }
        };
        acts.reverse();
        self.isolate(leader, true);
        self.scripts += 1;
        let behind = self.processes[leader].raft().map_or(Term(0), Raft::term);
        let script =
            Script { number: self.scripts, acts, alone: Some(leader), chosen: None, behind, until_us: 0 };
        self.script = Some(script);
        self.await_act();
        true
    }

    /// Begins a script before there is any leader: of the very first one nobody hears, and another begins the cluster.
    pub(crate) fn begin_script_of_first_leaders(&mut self) {
        let acts = vec![Act::Settled, Act::Unheard];
        self.scripts += 1;
        self.script = Some(Script {
            number: self.scripts,
            acts,
            alone: None,
            chosen: None,
            behind: Term(0),
            until_us: 0,
        });
        self.await_act();
    }

    /// The script ends, and whom it cut off is heard again.
    pub(crate) fn end_script(&mut self) {
        let Some(script) = self.script.take() else { return };
        if let Some(alone) = script.alone {
            self.isolate(alone, false);
        }
        if let Some((chosen, true)) = script.chosen {
            self.mute(chosen, false);
        }
        self.fabric.release(&mut self.schedule, self.now_us);
    }

    fn await_act(&mut self) {
        let patience_us = PATIENCE_ELECTION_TIMEOUTS * self.plan.election_timeout_ms * 1000;
        let Some(script) = &mut self.script else { return };
        script.until_us = self.now_us + patience_us;
        self.schedule.at(script.until_us, Happening::Act { number: script.number });
    }

    /// A node had a turn: perhaps this is the moment.
    pub(crate) fn follow_script(&mut self, place: usize) {
        let Some(script) = &self.script else { return };
        let Some(raft) = self.processes[place].raft() else { return };
        if script.chosen.is_some() || script.alone == Some(place) || raft.term() < script.behind {
            return;
        }
        let Some(act) = script.acts.last() else { return };
        let leads_anew = raft.is_leader() && raft.term() > script.behind;
        let is_it = match act {
            Act::Unheard => raft.role() == NodeRole::Candidate,
            Act::Unasked => raft.role() == NodeRole::PreCandidate,
            Act::Early => leads_anew,
            Act::Settled => leads_anew && raft.term_at(raft.commit_index()) == Some(raft.term()),
        };
        if !is_it {
            return;
        }
        // What takes an entry to a follower and the answer back.
        let trip_us = 2 * self.plan.delay_us_max + 4 * self.plan.flush_us_max;
        let election_us = self.plan.election_timeout_ms * 1000;
        let wait_us = match act {
            Act::Unheard => trip_us + self.random.u64(..election_us / 2),
            Act::Unasked => election_us / 2 + self.random.u64(..2 * election_us),
            Act::Early => self.random.u64(..6 * trip_us),
            Act::Settled => self.random.u64(..3 * trip_us + election_us / 4),
        };
        let is_muted = matches!(act, Act::Unheard | Act::Unasked);
        if is_muted {
            self.mute(place, true);
        }
        self.scripts += 1;
        let script = self.script.as_mut().expect("it was just seen");
        script.number = self.scripts;
        script.chosen = Some((place, is_muted));
        self.schedule.at(self.now_us + wait_us, Happening::Act { number: self.scripts });
    }

    /// The chosen node is cut off, and the one before it is heard again; or the script took too long.
    pub(crate) fn play_act(&mut self, number: u64) {
        let Some(script) = self.script.as_mut().filter(|script| script.number == number) else { return };
        let Some((chosen, is_muted)) = script.chosen.filter(|_| script.acts.len() > 1) else {
            self.end_script();
            return;
        };
        script.chosen = None;
        let act = script.acts.pop().expect("there are more");
        let alone = script.alone.replace(chosen);
        script.behind =
            self.processes[chosen].raft().map_or(script.behind, |raft| raft.term().max(script.behind));
        self.scripts += 1;
        script.number = self.scripts;
        self.isolate(chosen, true);
        if is_muted {
            self.mute(chosen, false);
        }
        if let Some(alone) = alone {
            self.isolate(alone, false);
            self.fabric.release(&mut self.schedule, self.now_us);
        }
        self.tell(|| format!("script: {act:?}: node {} is cut off", chosen + 1));
        self.await_act();
    }

    /// Holds back what a node says to others, or lets it be heard.
    fn mute(&mut self, place: usize, is_muted: bool) {
        for other in (0..self.plan.nodes).filter(|other| *other != place) {
            self.fabric.cut(place, other, is_muted);
        }
    }
}
