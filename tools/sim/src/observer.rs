//! What must hold after each turn of a node and each start: of the node by itself, between the nodes, and against
//! everything that was ever committed.

use fsd::raft::{HardState, Raft, invariants};
use fsd::server::node::Node;
use fsd::simulated_disk::SimulatedDisk;
use fsd::storage::Storage;
use fsd_wire::{LogIndex, Term};

use crate::coverage::Phase;
use crate::process::{LogShape, Process, Watermarks};
use crate::simulation::{Checked, Simulation};

impl Simulation {
    /// Keeps up what the disk of a node is known to hold.
    pub(crate) fn note_durable(&mut self, place: usize, has_failed: bool) {
        let process = &mut self.processes[place];
        let Some(raft) = process.node.as_ref().map(Node::raft) else { return };
        let durable = raft.durable_index();
        if has_failed && durable < raft.last_index() {
            return;
        }
        let last_start = |starts: &[(LogIndex, Term)]| (starts.len(), starts.last().copied());
        if durable > process.durable.last {
            process.proven = process.durable.last;
        } else {
            process.proven = process.proven.min(durable);
        }
        let known = &mut process.durable;
        let is_same =
            known.base == raft.base() && last_start(&known.starts) == last_start(raft.term_starts());
        if !is_same || durable < known.last {
            *known = LogShape::of(raft).cut(durable);
        } else {
            known.last = durable;
        }
        // What came with a store that was installed is stored with the next turn.
        if !has_failed && !raft.has_state_to_store() && process.stored.as_ref() != Some(raft.hard_state()) {
            process.stored = Some(raft.hard_state().clone());
        }
    }

    /// What must hold of a node after each turn.
    pub(crate) fn observe(&mut self, place: usize, before: Option<&Raft>) -> Checked {
        let process = &mut self.processes[place];
        let node = process.node.as_ref().expect("it had a turn");
        let (raft, id) = (node.raft(), node.raft().identity().node);
        let now = Watermarks {
            term: raft.term(),
            commit: raft.commit_index(),
            applied: node.store().last_applied(),
            cluster_time: node.store().cluster_time(),
            revision: node.store().revision(),
        };
        let was = std::mem::replace(&mut process.watermarks, now);
        if now.term < was.term
            || now.commit < was.commit
            || now.applied < was.applied
            || now.cluster_time < was.cluster_time
            || now.revision < was.revision
        {
            return Err(format!("node {id}: {now:?} after {was:?}"));
        }
        if now.applied > now.commit || now.commit > raft.last_index() {
            return Err(format!("node {id}: {now:?}, last {}", raft.last_index()));
        }
        let (term, match_index) = process.acknowledged;
        if term == now.term && raft.last_index() < match_index {
            let last = raft.last_index();
            return Err(format!(
                "node {id}: the last entry is {last}, it acknowledged {match_index} in {term}"
            ));
        }
        if let Some(before) = before {
            invariants::check_step(before, raft).map_err(|what| format!("node {id}: {what}"))?;
            invariants::check(raft).map_err(|what| format!("node {id}: {what}"))?;
        }
        if raft.is_leader() {
            let leader = *self.leaders.entry(now.term).or_insert(id);
            if leader != id {
                return Err(format!("term {} has two leaders, {leader} and {id}", now.term));
            }
            let committed = self.witness.committed();
            if now.term != was.term
                && raft.term_at(committed) != self.witness.id_at(committed).map(|e| e.term)
            {
                return Err(format!("leader {id} of term {} lacks committed entry {committed}", now.term));
            }
        }
        if self.tells {
            let role = raft.role();
            let now = (role, now.term, raft.leader_id());
            let text = format!(
                "node {id}: {role:?} term {} leader {:?} last {:?} commit {} durable {}",
                now.1,
                now.2.map(|n| n.0),
                raft.last_id(),
                raft.commit_index(),
                raft.durable_index()
            );
            if process.told != Some(now) {
                process.told = Some(now);
                self.tell(|| text);
            }
        }
        let now = self.processes[place].watermarks;
        if now.commit > was.commit {
            self.observe_commit(place, was.commit)?;
        }
        if now.applied > was.applied {
            self.observe_applied(place)?;
        }
        let state = now.term.0 << 40 ^ now.commit.0 << 20 ^ now.applied.0 ^ (place as u64) << 60;
        self.mix(state ^ self.now_us.rotate_left(17));
        Ok(())
    }

    pub(crate) fn observe_commit(&mut self, place: usize, from: LogIndex) -> Checked {
        let known = self.witness.committed();
        let node = self.processes[place].node.as_ref().expect("it had a turn");
        let raft = node.raft();
        // A node that failed may know of entries that it has not stored.
        let commit = raft.commit_index().min(raft.durable_index());
        let last_known = commit.min(known);
        if raft.term_at(last_known) != self.witness.id_at(last_known).map(|entry| entry.term) {
            return Err(format!("node {}: committed entry {last_known} is of another term", place + 1));
        }
        let from = from.max(raft.base().index);
        if last_known > from {
            let sample = LogIndex(self.random.u64(from.0 + 1..=last_known.0));
            if let Ok(entry) = node.log().entry(sample) {
                self.witness.check_again(&entry)?;
            }
        }
        let mut index = known.next();
        while index <= commit {
            // What cannot be read ends the node; somebody else has it.
            let Ok(entry) = node.log().entry(index) else { return Ok(()) };
            self.witness.commit(&entry)?;
            index = index.next();
        }
        if commit > known {
            let term = raft.term_at(commit);
            let holds = |process: &&Process| {
                process.durable.term_at(commit) == term
                    || !process.counts && process.lost_log.term_at(commit) == term
            };
            let holding = self.processes.iter().filter(holds).count();
            if holding <= self.plan.nodes / 2 {
                return Err(format!("entry {commit} is committed and on {holding} disks"));
            }
        }
        Ok(())
    }

    pub(crate) fn observe_applied(&mut self, place: usize) -> Checked {
        let store = self.processes[place].node.as_ref().expect("it had a turn").store();
        let applied = store.last_applied();
        if applied.0.is_multiple_of(8) || store.len() < 4 {
            let digest = store.digest();
            let other = *self.digests.entry(applied).or_insert(digest);
            if other != digest {
                return Err(format!("node {}: another store as of entry {applied}", place + 1));
            }
        }
        if applied == self.witness.committed() {
            let model = self.witness.totals();
            let found = (store.len(), store.sessions(), store.revision());
            if model != found {
                return Err(format!(
                    "as of {applied}: {found:?} files, sessions and revision, the model has {model:?}"
                ));
            }
        }
        Ok(())
    }

    /// What recovery finds is what the process had: all that was flushed, and of the rest a first part.
    pub(crate) fn check_recovered(&self, place: usize, storage: &Storage<SimulatedDisk>) -> Checked {
        let process = &self.processes[place];
        let found = LogShape::of_summary(&storage.recovered.log);
        let (memory, state, untouched) = match &process.last_words {
            Some((memory, state, untouched)) => (memory, Some(state), *untouched),
            None => (&process.durable, process.stored.as_ref(), process.durable.last),
        };
        let fault = |what: &str| {
            Err(format!(
                "node {}: recovery found {found:?}, {what}; flushed {:?}, in memory {memory:?}",
                place + 1,
                process.durable
            ))
        };
        // A turn that failed may have installed what another node sent: a log of nothing but committed entries.
        let has_installed = process.has_failed
            && found.last == found.base.index
            && found.base.index > memory.base.index
            && self.witness.id_at(found.last).is_some_and(|entry| entry.term == found.base.term);
        if has_installed {
            return Ok(());
        }
        if found.last < untouched || !found.agrees(&process.durable, untouched) {
            return fault("less than was flushed");
        }
        // A turn that failed may have appended as a leader what it then truncated as a follower.
        let has_truncated = !memory.agrees(&process.durable, process.durable.last);
        let is_known = process.has_failed
            || has_truncated
            || found.agrees(&process.durable, found.last.min(process.durable.last))
            || found.agrees(memory, found.last.min(memory.last));
        if !is_known
            || !process.has_failed && !has_truncated && found.last > process.durable.last.max(memory.last)
        {
            return fault("what was never there");
        }
        let same = |known: Option<&HardState>| {
            known.is_none_or(|known| {
                let mut known = known.clone();
                known.life = storage.recovered.state.life;
                known == storage.recovered.state
            })
        };
        // A turn that failed may have stored more than one state.
        let is_between = |stored: &HardState, memory: &HardState| {
            let terms = stored.term..=memory.term;
            process.has_failed && terms.contains(&storage.recovered.state.term)
        };
        let is_between =
            process.stored.as_ref().zip(state).is_some_and(|(stored, memory)| is_between(stored, memory));
        if !is_between && !same(state) && !same(process.stored.as_ref()) {
            let recovered = &storage.recovered.state;
            return Err(format!(
                "node {}: recovery found {recovered:?}, stored was {:?}",
                place + 1,
                process.stored
            ));
        }
        Ok(())
    }

    /// The node that leads in the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leaders = self.processes.iter().filter(|process| process.is_leader());
        leaders.max_by_key(|process| process.raft().map(Raft::term)).map(|process| process.place)
    }

    /// What the cluster is about at present.
    pub(crate) fn phase(&self) -> Phase {
        if self.processes.iter().any(|process| process.is_stopping) {
            return Phase::Transfer;
        }
        let Some(leader) = self.leader() else { return Phase::Election };
        if self.processes.iter().any(|process| process.node.is_none()) {
            return Phase::Recovery;
        }
        if self.somebody_lags_behind(leader) { Phase::CatchUp } else { Phase::Steady }
    }

    /// What the others are about while a node starts: that it is down itself says nothing.
    pub(crate) fn phase_around_start(&self) -> Phase {
        match (self.phase(), self.leader()) {
            (Phase::Recovery, Some(leader)) if self.somebody_lags_behind(leader) => Phase::CatchUp,
            (phase, _) => phase,
        }
    }

    fn somebody_lags_behind(&self, leader: usize) -> bool {
        let last = self.processes[leader].raft().expect("it leads").last_index();
        let lags = |process: &Process| process.raft().is_some_and(|raft| raft.last_index().0 + 8 < last.0);
        self.processes.iter().any(lags)
    }

    /// Whether a node holds what it once promised again.
    pub(crate) fn refresh_soundness(&mut self) {
        for process in &mut self.processes {
            let Some(raft) = process.node.as_ref().map(Node::raft) else { continue };
            if process.lost != Some(raft.hard_state().incarnation)
                && let Some(index) = self.witness.confirmed_at(process.id(), raft.hard_state().incarnation)
                && process.durable.last >= index
                && raft.commit_index() >= index
            {
                process.counts = true;
            }
        }
    }
}
