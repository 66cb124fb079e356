//! A leader that was deposed and does not know it, and a node that lost its disk since it helped to depose it: together
//! they have a majority of names, but none of memories (`fsd::raft::electorate`).

use fsd::raft::Raft;
use fsd_wire::Term;

use crate::clock::TRUE_RATE;
use crate::schedule::Happening;
use crate::simulation::Simulation;

/// It is given up when the next act does not come for so many election timeouts.
const PATIENCE_ELECTION_TIMEOUTS: u64 = 10;
/// The deposed leader's clock goes by so many thousandths of the true rate: it has long to live.
const RATE: u64 = 20;

/// What is being played.
#[derive(Debug)]
pub(crate) struct Reborn {
    /// Counts them, and their acts: what was planned for another one is void.
    number: u64,
    /// The leader that is deposed, and as many others as it takes to make a majority with one more.
    alone: Vec<usize>,
    /// Who is to lose its disk, and whether it has.
    chosen: usize,
    is_reborn: bool,
    /// The leader's term.
    term: Term,
}

impl Simulation {
    /// Cuts the leader off, so that the others elect another one; whether it could be done.
    pub(crate) fn begin_reborn(&mut self) -> bool {
        let nodes = self.plan.nodes;
        let Some(leader) = self.leader().filter(|_| self.reborn.is_none() && nodes > 2) else { return false };
        let mut others: Vec<usize> = (0..nodes).filter(|place| *place != leader).collect();
        self.random.shuffle(&mut others);
        let chosen = others.pop().expect("there are two others");
        if self.processes[chosen].node.is_none() || !self.may_lose(chosen) {
            return false;
        }
        others.truncate(self.plan.minority() - 1);
        others.push(leader);
        let term = self.processes[leader].raft().map_or(Term(0), Raft::term);
        self.set_apart(&others, true);
        for place in &others {
            self.processes[*place].clock.set_rate(self.now_us, RATE);
        }
        self.acts += 1;
        self.reborn = Some(Reborn { number: self.acts, alone: others, chosen, is_reborn: false, term });
        self.await_rebirth(PATIENCE_ELECTION_TIMEOUTS * self.plan.election_timeout_ms * 1000);
        true
    }

    /// A node had a turn: perhaps it has helped to depose the leader, and so has something to forget.
    pub(crate) fn follow_reborn(&mut self, place: usize) {
        let Some(reborn) = self.reborn.as_ref().filter(|reborn| !reborn.is_reborn) else { return };
        if place != reborn.chosen {
            return;
        }
        let Some(raft) = self.processes[place].raft() else { return };
        if raft.term() > reborn.term && raft.term_at(raft.commit_index()) == Some(raft.term()) {
            let wait_us = 1 + self.random.u64(..2 * self.plan.delay_us_max);
            let reborn = self.reborn.as_mut().expect("it was just seen");
            reborn.is_reborn = true;
            self.acts += 1;
            reborn.number = self.acts;
            self.schedule.at(self.now_us + wait_us, Happening::Rebirth { number: self.acts });
        }
    }

    /// The chosen node loses its disk and is heard by the leader of before alone; or all of it took too long.
    pub(crate) fn play_rebirth(&mut self, number: u64) {
        self.refresh_soundness();
        let Some(reborn) = self.reborn.as_mut().filter(|reborn| reborn.number == number) else { return };
        let chosen = reborn.chosen;
        if !reborn.is_reborn || reborn.alone.contains(&chosen) || !self.may_lose(chosen) {
            self.end_reborn();
            return;
        }
        let mut alone = self.reborn.as_ref().expect("it was just seen").alone.clone();
        self.set_apart(&alone, false);
        alone.push(chosen);
        self.set_apart(&alone, true);
        self.wipe(chosen);
        self.schedule.at(self.now_us + 1, Happening::Start { node: chosen });
        self.fabric.release(&mut self.schedule, self.now_us);
        self.tell(|| format!("node {} is reborn among {alone:?}", chosen + 1));
        self.reborn.as_mut().expect("it was just seen").alone = alone;
        let lasts = self.random.u64(1..=3 * PATIENCE_ELECTION_TIMEOUTS);
        self.await_rebirth(lasts * self.plan.election_timeout_ms * 1000);
    }

    /// All hear each other again.
    pub(crate) fn end_reborn(&mut self) {
        let Some(reborn) = self.reborn.take() else { return };
        self.set_apart(&reborn.alone, false);
        for place in reborn.alone {
            self.processes[place].clock.set_rate(self.now_us, TRUE_RATE);
            self.wake(place, self.now_us + 1);
        }
        self.fabric.release(&mut self.schedule, self.now_us);
    }

    fn await_rebirth(&mut self, at_most_us: u64) {
        self.acts += 1;
        let Some(reborn) = &mut self.reborn else { return };
        reborn.number = self.acts;
        self.schedule.at(self.now_us + at_most_us, Happening::Rebirth { number: self.acts });
    }

    /// Cuts some nodes off from the others, or lets them be heard again.
    fn set_apart(&mut self, some: &[usize], is_cut: bool) {
        for other in (0..self.plan.nodes).filter(|place| !some.contains(place)) {
            for place in some {
                self.fabric.cut(*place, other, is_cut);
                self.fabric.cut(other, *place, is_cut);
            }
        }
    }
}
