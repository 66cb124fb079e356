//! The end of a run: the faults end, a quorum is whole, and within a bound the cluster must have one leader, equal
//! stores, and serve new writes and reads.

use fsd::raft::Raft;
use fsd::server::node::Node;
use fsd::simulated_disk::SimulatedDisk;
use fsd_wire::LogIndex;
use fsd_wire::client::NodeRole;

use crate::coverage::Phase;
use crate::plan::{Operations, Plan};
use crate::process::{LogShape, Process, State};
use crate::schedule::Happening;
use crate::simulation::{Checked, Simulation};

/// Within so many election timeouts a leader is there and all is replicated, or a node that lacks entries has come
/// further: how long the log is does not matter.
const ELECTION_TIMEOUTS_MAX: u64 = 20;
/// What finding connections that swallow everything may take besides: six sweeps, and a pause before dialling.
const DEAD_CONNECTIONS_US: u64 = 5_000_000;
/// One run of so many waits until all is quiet, and asks for an order that lasts.
const LASTING_ORDER_OF: u64 = 4;
/// For so long nothing must change then.
const QUIET_ELECTION_TIMEOUTS: u64 = 4;
/// Writes and reads that must be served then.
const SERVED: u64 = 10;

impl Simulation {
    /// Heals the cluster and waits for it.
    pub(crate) fn check_liveness(&mut self) -> Checked {
        self.is_troubled = false;
        self.clients_act = false;
        self.heal_all();
        self.refresh_soundness();
        self.repair_damaged();
        self.send_some_away();
        self.make_room_in_the_end();
        for place in 0..self.plan.nodes {
            if self.processes[place].state == State::Down {
                self.schedule.at(self.now_us + 1000, Happening::Start { node: place });
            }
        }
        let progress_us = ELECTION_TIMEOUTS_MAX * self.plan.election_timeout_ms * 1000;
        let mut bound_us = progress_us + DEAD_CONNECTIONS_US;
        // Nodes that pass changes on take each other's sessions away, until their clients have waited long enough.
        if self.plan.text_clients > 0 && (self.plan.sessions_max as usize) < self.plan.nodes {
            bound_us += 1000 * fsd::limits::REQUEST_TIMEOUT_MS_MAX;
        }
        let mut until_us = self.now_us + bound_us;
        let (healed_us, committed, longest) = (self.now_us, self.witness.committed(), self.longest_log());
        let held = self.changes_passed_on();
        let mut progress = 0;
        while !self.is_settled() {
            if self.schedule.next_time_us().is_none_or(|time_us| time_us > until_us) {
                let after_ms = (self.now_us - healed_us) / 1000;
                return Err(format!("no order {after_ms} ms after the faults: {}", self.describe()));
            }
            self.next_event()?;
            let progress_now = self.progress(committed, &longest, held);
            if progress_now > progress {
                progress = progress_now;
                until_us = until_us.max(self.now_us + progress_us);
            }
        }
        self.check_equal_stores()?;
        // Connections that swallow everything may hide behind the first order: they are waited for now and then.
        // A leader with damaged contents ends when somebody asks for them.
        let is_rotten = self.processes.iter().any(|process| process.is_rotten());
        // One without room hands over when it notices.
        self.order_must_last =
            self.plan.seed.is_multiple_of(LASTING_ORDER_OF) && !is_rotten && !self.one_stays_full();
        if self.order_must_last {
            while self.now_us < until_us || !self.is_settled() {
                if self.now_us > until_us + bound_us {
                    return Err(format!("order did not last: {}", self.describe()));
                }
                self.next_event()?;
            }
        }
        self.check_service(bound_us)
    }

    /// Some nodes stay away, as many as the cluster can do without.
    fn send_some_away(&mut self) {
        if !self.plan.minority_stays_away {
            return;
        }
        let unsound = self.processes.iter().filter(|process| process.is_unsound()).count();
        let spare = self.plan.minority().saturating_sub(unsound);
        for _ in 0..self.random.usize(..=spare) {
            let place = self.random.usize(..self.plan.nodes);
            if !self.processes[place].is_unsound() {
                self.nemesis.keep_away(place);
                // It is down, or nobody hears it any more.
                if self.random.bool() {
                    let silently = self.random.bool();
                    self.end(place, silently);
                } else {
                    self.isolate(place, true);
                }
            }
        }
    }

    fn core(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| {
            process.state != State::Damaged
                && !self.nemesis.stays_away(process.place)
                && !self.stays_full(process.place)
        })
    }

    /// The log that the next leader has, unless something happens to it.
    fn longest_log(&self) -> LogShape {
        let logs =
            self.core().map(|process| process.raft().map_or_else(|| process.durable.clone(), LogShape::of));
        logs.max_by_key(|log| (log.term_at(log.last), log.last)).unwrap_or_default()
    }

    /// How many of the entries that were committed when the faults ended have been applied since, over all nodes, and
    /// how many of the log that was the longest then they hold: before any can be applied, those of earlier terms must
    /// be there. What nodes hold of their clients' changes goes into the log now: each that is answered is progress too.
    /// What elections and repetitions add is none, or a cluster that elects or repeats for ever would make some.
    fn progress(&self, committed: LogIndex, longest: &LogShape, held: usize) -> u64 {
        let nodes = self.core().filter_map(|process| process.node.as_ref());
        let of_node = |node: &Node<SimulatedDisk>| {
            let last = node.raft().last_index().min(longest.last);
            let is_same = node.raft().term_at(last) == longest.term_at(last);
            node.store().last_applied().min(committed).0 + if is_same { last.0 } else { 0 }
        };
        nodes.map(of_node).sum::<u64>() + held.saturating_sub(self.changes_passed_on()) as u64
    }

    fn changes_passed_on(&self) -> usize {
        self.core().filter_map(|process| process.node.as_ref()).map(Node::changes_passed_on).sum()
    }

    fn is_settled(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let leader = self.processes[leader].raft().expect("it leads");
        let (id, term, last) = (leader.identity().node, leader.term(), leader.last_index());
        self.core().all(|process| {
            process.node.as_ref().is_some_and(|node| {
                let raft = node.raft();
                !process.is_stopping
                    && raft.leader_id() == Some(id)
                    && raft.term() == term
                    && raft.commit_index() == last
                    && node.store().last_applied() == last
            })
        })
    }

    fn check_equal_stores(&self) -> Checked {
        let mut stores = self.core().filter_map(|process| process.node.as_ref()).map(|node| node.store());
        let Some(first) = stores.next() else { return Ok(()) };
        let digest = first.digest();
        if stores.all(|store| store.digest() == digest) {
            Ok(())
        } else {
            Err("the stores differ in the end".to_owned())
        }
    }

    fn check_service(&mut self, bound_us: u64) -> Checked {
        let plan = self.plan.clone();
        self.plan = Plan {
            pipeline: 1,
            think_us: 2_000,
            operations: Operations { write: 1, cas: 0, delete: 0, read: 1, stat: 0, list: 0, session: 0 },
            ..plan
        };
        let client = 0;
        let (changes, reads) = (self.clients[client].changes_done, self.clients[client].reads_done);
        self.clients_act = true;
        self.clients[client].begin_anew(&mut self.fabric, &mut self.schedule, self.now_us);
        self.schedule.at(self.now_us, Happening::Client { client });
        let until_us = self.now_us + bound_us;
        let quiet_us = self.now_us + QUIET_ELECTION_TIMEOUTS * self.plan.election_timeout_ms * 1000;
        let leader = self.leader();
        let term_of = |it: &Self| it.leader().and_then(|place| it.processes[place].raft()).map(Raft::term);
        let term = term_of(self);
        while self.order_must_last && self.now_us < quiet_us
            || self.clients[client].changes_done < changes + SERVED
            || self.clients[client].reads_done < reads + SERVED
        {
            if self.now_us > until_us {
                return Err(format!("no service {} ms after order: {}", bound_us / 1000, self.describe()));
            }
            self.next_event()?;
            // Nobody has a reason to want another leader.
            let has_changed = self.leader() != leader || term_of(self) != term || !self.core().all(follows);
            if self.order_must_last && has_changed {
                return Err(format!("order does not last: {}", self.describe()));
            }
        }
        match self.processes.iter().find(|process| process.is_leader() && Some(process.place) != leader) {
            Some(process) if self.order_must_last => {
                Err(format!("node {} leads and nobody follows: {}", process.id(), self.describe()))
            }
            _ => Ok(()),
        }
    }

    /// What each node is, for a report.
    pub(crate) fn describe(&self) -> String {
        let mut lines = vec![format!("at {} us, {:?}", self.now_us, self.phase() as Phase)];
        for process in &self.processes {
            lines.push(match &process.node {
                None => format!("  node {}: {:?}, {:?}", process.id(), process.state, process.durable),
                Some(node) => {
                    let raft = node.raft();
                    format!(
                        "  node {}: {:?} term {} leader {:?} commit {} applied {} last {:?} registered {} lost {:?} low {}",
                        process.id(),
                        raft.role(),
                        raft.term(),
                        raft.leader_id().map(|node| node.0),
                        raft.commit_index(),
                        node.store().last_applied(),
                        raft.last_id(),
                        raft.is_registered(),
                        process.lost,
                        node.is_low()
                    )
                }
            });
        }
        lines.join("\n")
    }
}

/// Whether a node leads or follows a leader.
fn follows(process: &Process) -> bool {
    process.raft().is_some_and(|raft| {
        raft.leader_id().is_some() && matches!(raft.role(), NodeRole::Leader | NodeRole::Follower)
    })
}
