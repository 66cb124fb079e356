//! Clusters begin from backups: who may vote at once, who may not, and what old directories are told.

use super::*;
use crate::restore::{Recipient, restore};

/// A disk that was restored for a node of a cluster of so many.
fn restored(backup: &[u8], node: u32, nodes: u32) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let members = config_of(NodeId(node), nodes).members;
    let identity = identity_of(NodeId(node));
    let recipient = Recipient { identity: &identity, members: &members, segment_bytes: SEGMENT_BYTES };
    let mut random = fastrand::Rng::with_seed(u64::from(node));
    restore(&disk, &recipient, &mut || random.u64(..), &mut &backup[..], &mut |_| {}).unwrap();
    disk
}

impl Cluster {
    fn of_disks(disks: Vec<SimulatedDisk>) -> Self {
        let nodes = disks.len() as u32;
        let start = |(n, disk): (u32, SimulatedDisk)| (NodeId(n), start_on(disk, NodeId(n), nodes, 0));
        let members = (1..).zip(disks).map(start).collect();
        let mut cluster = Self { members, in_flight: VecDeque::new(), now_ms: 0, next_request: 0 };
        cluster.introduce();
        cluster
    }

    /// Of so many nodes, of which these are restored and the others empty.
    fn restored(backup: &[u8], nodes: u32, those: &[u32]) -> Self {
        let disk = |n| if those.contains(&n) { restored(backup, n, nodes) } else { SimulatedDisk::new() };
        Self::of_disks((1..=nodes).map(disk).collect())
    }

    /// Lets time pass, with the work on files that it brings.
    fn pass_with_work(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.pass(10);
            for node in self.members.keys().map(|id| id.0).collect::<Vec<_>>() {
                self.work(node).unwrap();
            }
            self.settle();
        }
    }

    fn stores(&self) -> Vec<u32> {
        self.members.values().map(|member| member.node.store.digest()).collect()
    }

    fn hello_status(&self, at: u32, identity: &Identity) -> HelloStatus {
        self.members[&NodeId(at)].node.raft.judge_hello(identity)
    }

    fn identity(&self, node: u32) -> Identity {
        self.members[&NodeId(node)].node.raft.identity()
    }
}

fn backup() -> Vec<u8> {
    let (mut cluster, leader) = Cluster::with_files(3);
    cluster.backup_of(leader)
}

#[test]
fn a_majority_of_restored_nodes_goes_on_and_brings_an_empty_one_up_to_date() {
    let backup = backup();
    for empty in 1..=3 {
        let those: Vec<u32> = (1..=3).filter(|node| *node != empty).collect();
        let mut cluster = Cluster::restored(&backup, 3, &those);
        let leader = cluster.leader();
        assert!(those.contains(&leader));
        let write = cluster.write("new", 0);
        assert_eq!(cluster.ask(leader, write), Outcome::Changed { version: Version(6) });
        cluster.pass_with_work(2000);
        let digests = cluster.stores();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
        // It counts by now: with it, the cluster does without one that was restored.
        let lost = those.into_iter().find(|node| *node != leader).unwrap();
        cluster.members.get_mut(&NodeId(lost)).unwrap().network.sent.clear();
        cluster.members.remove(&NodeId(lost));
        cluster.in_flight.retain(|(from, to, _)| from.0 != lost && to.0 != lost);
        let write = cluster.write("newer", 0);
        cluster.turn(leader, vec![write]).unwrap();
        for _ in 0..100 {
            cluster.in_flight.retain(|(_, to, _)| to.0 != lost);
            let Some((from, to, message)) = cluster.in_flight.pop_front() else { break };
            cluster.turn(to.0, vec![Event::Peer { from, message }]).unwrap();
        }
        assert_eq!(cluster.replies(leader), [Outcome::Changed { version: Version(7) }]);
    }
}

#[test]
fn fewer_than_a_majority_elect_nobody_with_empty_nodes_beside_them() {
    let backup = backup();
    for (nodes, those) in [(3, &[2][..]), (5, &[1, 5])] {
        let mut cluster = Cluster::restored(&backup, nodes, those);
        cluster.pass_with_work(5000);
        let leads = |member: &TestMember| member.node.status().role == NodeRole::Leader;
        assert!(!cluster.members.values().any(leads), "{nodes} nodes, {those:?} restored");
    }
}

#[test]
fn a_cluster_of_one_goes_on() {
    let (mut origin, leader) = Cluster::with_files(1);
    let backup = origin.backup_of(leader);
    let mut cluster = Cluster::restored(&backup, 1, &[1]);
    let leader = cluster.leader();
    let write = cluster.write("new", 0);
    assert_eq!(cluster.ask(leader, write), Outcome::Changed { version: Version(6) });
    // It may also be restored into a larger one, and that into one again.
    let mut cluster = Cluster::restored(&backup, 5, &[1, 2, 3, 4, 5]);
    let leader = cluster.leader();
    let write = cluster.write("new", 0);
    assert_eq!(cluster.ask(leader, write), Outcome::Changed { version: Version(6) });
}

#[test]
fn nodes_of_the_old_cluster_and_of_other_restorations_are_refused() {
    let (mut origin, leader) = Cluster::with_files(3);
    let backup = origin.backup_of(leader);
    let mut cluster = Cluster::restored(&backup, 3, &[1, 2, 3]);
    let later = {
        let write = origin.write("later", 0);
        origin.ask(leader, write);
        let backup = origin.backup_of(leader);
        Cluster::restored(&backup, 3, &[1, 2, 3])
    };
    cluster.leader();
    for (at, of) in [(1, 2), (2, 3), (3, 1)] {
        assert_eq!(cluster.hello_status(at, &origin.identity(of)), HelloStatus::OtherClusterId);
        assert_eq!(origin.hello_status(at, &cluster.identity(of)), HelloStatus::OtherClusterId);
        assert_eq!(cluster.hello_status(at, &later.identity(of)), HelloStatus::OtherClusterId);
        assert_eq!(cluster.hello_status(at, &cluster.identity(of)), HelloStatus::Welcome);
    }
}

#[test]
fn a_directory_that_is_restored_once_more_does_not_help_to_forget() {
    let backup = backup();
    let mut cluster = Cluster::restored(&backup, 3, &[1, 2, 3]);
    let leader = cluster.leader();
    let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    let (again, lagging) = (others[0], others[1]);
    // What is acknowledged is on the leader and on the one that is restored again; the third hears nothing.
    let write = cluster.write("kept", 0);
    cluster.turn(leader, vec![write]).unwrap();
    for _ in 0..100 {
        cluster.in_flight.retain(|(_, to, _)| to.0 != lagging);
        let Some((from, to, message)) = cluster.in_flight.pop_front() else { break };
        cluster.turn(to.0, vec![Event::Peer { from, message }]).unwrap();
    }
    assert_eq!(cluster.replies(leader), [Outcome::Changed { version: Version(6) }]);
    let (before, now_ms) = (cluster.identity(again), cluster.now_ms);
    let mut disk = restored(&backup, again, 3);
    // Another start draws another number for its life.
    disk.write("lock", Vec::new());
    let mut random = fastrand::Rng::with_seed(4711);
    let storage = storage::open_into(
        disk.clone(),
        &identity_of(NodeId(again)),
        SEGMENT_BYTES,
        &mut || random.u64(1..),
        &mut StoreImage::default(),
    );
    let identity = storage.unwrap().recovered.state;
    assert_eq!((identity.incarnation, identity.life.count()), (before.incarnation, before.life.count()));
    let identity = Identity { life: identity.life, ..before };
    for at in [leader, lagging] {
        assert_eq!(cluster.hello_status(at, &identity), HelloStatus::StaleCopy, "told by node {at}");
    }
    // It is told so, and takes part as a new incarnation: it does not help the third to be elected.
    disk = restored(&backup, again, 3);
    let mut member = start_on(disk, NodeId(again), 3, now_ms);
    member.node.raft.adopt_incarnation(fsd_wire::Incarnation(99));
    cluster.members.insert(NodeId(again), member);
    let leader_member = cluster.members.remove(&NodeId(leader)).unwrap();
    cluster.in_flight.clear();
    cluster.introduce();
    for _ in 0..400 {
        cluster.now_ms += 10;
        cluster.turn_all();
        while let Some((from, to, message)) = cluster.in_flight.pop_front() {
            if to.0 != leader {
                cluster.turn(to.0, vec![Event::Peer { from, message }]).unwrap();
            }
        }
    }
    let leads = |member: &TestMember| member.node.status().role == NodeRole::Leader;
    assert!(!cluster.members.values().any(leads));
    // With the leader back, it is brought up to date.
    cluster.members.insert(NodeId(leader), leader_member);
    cluster.introduce();
    cluster.pass_with_work(5000);
    let leader = cluster.leader();
    cluster.pass_with_work(2000);
    let stat = cluster.request(Operation::Stat { name: "kept".into() });
    assert!(matches!(cluster.ask(leader, stat), Outcome::Stat(_)));
    let digests = cluster.stores();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
