//! How scripts and schedules drive a cluster: time, elections, links, and recovery in the end.

use fsd_wire::peer::AppendEntries;
use fsd_wire::{ClusterTimeMs, EntryId, NodeId, Term};

use super::{Cluster, ELECTION_MS, HEARTBEAT_MS};
use crate::raft::{Input, Timer};

impl Cluster {
    /// Delivers what there is, in order, and what comes of it, until nothing is under way.
    pub(in super::super) fn settle(&mut self) {
        let mut count = 0;
        while !self.bag.is_empty() {
            self.deliver(0);
            count += 1;
            assert!(count < 100_000, "messages without end");
        }
    }

    /// Lets time pass to the next alarm and fires it. Without alarms nothing happens.
    pub(in super::super) fn next_alarm(&mut self) {
        let due = self
            .nodes
            .iter()
            .flat_map(|(id, node)| node.alarms.iter().map(|(timer, at_ms)| (*at_ms, *id, *timer)))
            .min();
        if let Some((at_ms, id, timer)) = due {
            self.now_ms = self.now_ms.max(at_ms);
            self.fire(id, timer);
        }
    }

    pub(in super::super) fn fire(&mut self, id: NodeId, timer: Timer) {
        self.nodes.get_mut(&id).unwrap().alarms.remove(&timer);
        self.input(id, Input::Timeout(timer));
        if timer == Timer::Heartbeat {
            self.stream(id);
        }
    }

    /// Runs with a network that loses nothing on links that are not cut.
    pub(in super::super) fn run_ms(&mut self, duration_ms: u64) {
        let end_ms = self.now_ms + duration_ms;
        self.settle();
        while let Some(at_ms) = self.nodes.values().flat_map(|node| node.alarms.values()).min() {
            if *at_ms > end_ms {
                break;
            }
            self.next_alarm();
            self.settle();
        }
        self.now_ms = end_ms;
    }

    /// The leader of the highest term.
    pub(in super::super) fn leader(&self) -> Option<NodeId> {
        let up = self.nodes.iter().filter_map(|(id, node)| Some((id, node.raft.as_ref()?)));
        up.filter(|(_, raft)| raft.is_leader()).max_by_key(|(_, raft)| raft.term()).map(|(id, _)| *id)
    }

    /// Runs until there is a leader and everything is quiet.
    pub(in super::super) fn elect(&mut self) -> NodeId {
        for _ in 0..20 {
            self.run_ms(ELECTION_MS);
            if let Some(leader) = self.leader()
                && self.raft(leader.0).commit_index() == self.raft(leader.0).last_index()
            {
                return leader;
            }
        }
        panic!("no leader");
    }

    /// Makes `id` the leader by its alarm, while all others have not heard of one for long.
    pub(in super::super) fn elect_node(&mut self, id: u32) {
        self.now_ms += 3 * ELECTION_MS;
        self.fire(NodeId(id), Timer::Election);
        self.settle();
        assert_eq!(self.leader(), Some(NodeId(id)));
    }

    /// Makes `id` the leader without `old`, which is cut off and hears no alarm meanwhile.
    pub(in super::super) fn elect_node_among_others(&mut self, id: NodeId, old: NodeId) {
        self.now_ms += 3 * ELECTION_MS;
        self.fire(id, Timer::Election);
        self.settle();
        assert!(self.raft(id.0).is_leader() && id != old);
    }

    /// For clusters that are begun twice: what the first one committed is no measure for the second.
    pub(in super::super) fn forget_committed(&mut self) {
        self.committed.clear();
        self.leaders.clear();
        self.two_clusters = true;
    }

    /// An AppendEntries with all that a node has, in a term that nobody has reached.
    pub(in super::super) fn heartbeat_with_log(&self, leader_id: NodeId) -> AppendEntries {
        let entries = self.nodes[&leader_id].log.entries.clone();
        let (prev_log, leader_commit) = (EntryId::default(), self.nodes[&leader_id].log.last_index());
        let cluster_time = ClusterTimeMs(0);
        AppendEntries { term: Term(99), leader_id, prev_log, leader_commit, round: 1, cluster_time, entries }
    }

    pub(in super::super) fn cut_both(&mut self, a: u32, b: u32) {
        self.cut.insert((NodeId(a), NodeId(b)));
        self.cut.insert((NodeId(b), NodeId(a)));
    }

    pub(in super::super) fn isolate(&mut self, node: u32) {
        for other in self.ids() {
            if other.0 != node {
                self.cut_both(node, other.0);
            }
        }
    }

    pub(in super::super) fn heal(&mut self) {
        self.cut.clear();
        self.connect_all();
    }

    /// All run, one leads, and every log is committed to its end, within a bound.
    pub(in super::super) fn assert_recovers(&mut self) -> NodeId {
        self.cut.clear();
        self.crash_next_turn = None;
        self.slow_installs = false;
        for id in self.ids() {
            if !self.is_up(id) {
                self.start(id);
            }
            self.raft_mut(id).set_room(u64::MAX, []);
            self.raft_mut(id).set_low(false);
            for other in self.ids() {
                self.raft_mut(id).set_peer_full(other, false);
            }
        }
        for _ in 0..20 {
            self.connect_all();
            self.run_ms(ELECTION_MS);
            let Some(leader) = self.leader() else { continue };
            if self.propose(leader).is_none() {
                continue;
            }
            self.run_ms(3 * HEARTBEAT_MS);
            let last = self.raft(leader.0).last_index();
            let done = self.nodes.values().all(|node| {
                let raft = node.raft.as_ref().unwrap();
                raft.commit_index() == last && raft.leader_id() == Some(leader) && raft.is_registered()
            });
            if done {
                self.check_log_matching();
                self.check_nothing_is_lost();
                return leader;
            }
        }
        let nodes: Vec<_> = self.nodes.values().map(|node| format!("{:?}", node.raft)).collect();
        panic!("the cluster does not recover:\n{}", nodes.join("\n"));
    }
}
