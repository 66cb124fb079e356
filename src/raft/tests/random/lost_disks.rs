//! Disks that are wiped, or put back from old copies, as far as the promise goes.

use fsd_wire::{Life, NodeId};

use super::Schedule;

impl Schedule {
    /// Whether a disk may be lost without breaking what `electorate` promises: a minority at a time, and two
    /// at once only if all who are left have ever heard of them.
    fn may_lose(&self, id: NodeId) -> bool {
        let (sound, broken): (Vec<NodeId>, Vec<NodeId>) = self
            .cluster
            .ids()
            .into_iter()
            .filter(|other| *other != id)
            .partition(|id| self.cluster.is_sound(*id));
        let knows = |other: &NodeId| {
            let node = &self.cluster.nodes[other];
            let mut gone = broken.iter().chain([&id]);
            let registered = node.disk.summary().registrations;
            gone.all(|gone| {
                node.state.met.contains_key(gone) || registered.iter().any(|item| item.1 == *gone)
            })
        };
        broken.len() < self.minority() && (broken.is_empty() || sound.iter().all(knows))
    }

    pub(super) fn wipe(&mut self, id: NodeId) -> bool {
        let may = self.may_lose(id);
        if may {
            self.cluster.crash(id);
            self.cluster.wipe(id);
        }
        may
    }

    pub(super) fn wipe_some(&mut self) {
        for id in self.some_nodes(self.minority()) {
            if self.wipe(id) {
                if self.random.u32(..4) == 0 {
                    self.down.insert(id);
                } else {
                    self.start(id);
                }
            }
        }
    }

    /// Takes away those with the longest logs: disks as far as may be, power from the others, until a bare
    /// majority runs, of which some have nothing and the others least.
    pub(super) fn wipe_those_who_know(&mut self) {
        let mut ids = self.cluster.ids();
        self.random.shuffle(&mut ids);
        ids.sort_by_key(|id| std::cmp::Reverse(self.cluster.nodes[id].disk.summary().last_index));
        let mut off = self.minority();
        for id in ids {
            if self.random.bool() && self.wipe(id) {
                self.start(id);
            } else if off > 0 {
                off -= 1;
                self.cluster.crash(id);
                self.down.insert(id);
            }
        }
        if self.random.bool() {
            self.cluster.cut.clear();
        }
    }

    /// Takes a copy of a directory, or puts one that was taken before in the place of what is there now, if
    /// the others are able to tell.
    pub(super) fn copy(&mut self) {
        let id = self.any();
        if self.random.u32(..3) > 0 || self.copies.is_empty() {
            self.cluster.crash(id);
            let node = &self.cluster.nodes[&id];
            self.copies.push((id, node.state.clone(), node.disk.clone()));
            for _ in 0..3 {
                self.start(id);
                self.cluster.crash(id);
            }
            return self.start(id);
        }
        let (id, state, disk) = self.copies.swap_remove(self.random.usize(..self.copies.len()));
        let others =
            self.cluster.nodes.iter().filter(|(other, _)| **other != id && self.cluster.is_sound(**other));
        let recognised = |met: Option<&(_, Life)>| {
            met.is_some_and(|(incarnation, life)| {
                *incarnation == state.incarnation && life.0 > state.life.0 + 1
            })
        };
        let all = others.map(|(_, node)| node.state.met.get(&id)).all(recognised);
        if all && self.may_lose(id) {
            self.cluster.crash(id);
            self.cluster.restore(id, state, disk);
            self.start(id);
        }
    }
}
