//! Changes that a node passes on to the leader, and whose answers are lost on their way back: they are sent again, and
//! meet a leader that takes nothing any more, because it is about to hand over.

use crate::plan::FaultKind;
use crate::schedule::Happening;
use crate::simulation::Simulation;

/// The leader is told to stop within this time.
const STOP_US_MAX: u64 = 20_000;

impl Simulation {
    /// From now on the next node that passes a change on loses its answer; whether that can be.
    pub(crate) fn await_change_passed_on(&mut self) -> bool {
        let can_be = self.plan.text_clients > 0 && self.plan.nodes > 2 && self.leader().is_some();
        let is_new = can_be && !self.loses_next_answer;
        self.loses_next_answer |= can_be;
        is_new
    }

    /// A node has just passed a change on.
    pub(crate) fn follow_change(&mut self, node: usize) {
        if !std::mem::take(&mut self.loses_next_answer) || !self.is_troubled {
            return;
        }
        let trip_us = self.plan.delay_us_max + self.plan.flush_us_max;
        let wait_us = self.random.u64(trip_us / 2..=3 * trip_us);
        self.schedule.at(self.now_us + wait_us, Happening::LoseAnswer { node });
    }

    /// The connections between a node and the leader break at the node's end, with all that is on its way to it. Often
    /// the leader is to stop at that very time, and nobody else hears it: until its successor has stood, or an
    /// election timeout is over, it refuses what is sent again.
    pub(crate) fn lose_answer(&mut self, node: usize) {
        let Some(leader) = self.leader().filter(|leader| *leader != node && self.is_troubled) else { return };
        self.fabric.break_at(&mut self.schedule, self.now_us, node, leader);
        self.tell(|| format!("answers from node {} to node {} are lost", leader + 1, node + 1));
        if self.random.u32(..4) == 0 {
            return;
        }
        let others = (0..self.plan.nodes).filter(|other| *other != leader && *other != node);
        let links: Vec<(usize, usize)> =
            others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        self.cut_for(links, self.plan.election_timeout_ms * 4000);
        let life = self.processes[leader].life;
        let at_us = self.now_us + self.random.u64(..STOP_US_MAX);
        self.schedule.at(at_us, Happening::Stop { node: leader, life });
    }

    /// A node is told to stop, if this is still its life.
    pub(crate) fn stop_in_life(&mut self, node: usize, life: u64) {
        if self.is_troubled && self.processes[node].life == life && !self.processes[node].is_stopping {
            let phase = self.phase();
            if self.stop(node) == Ok(true) {
                self.coverage.note(FaultKind::Stop, phase);
            }
        }
    }
}
