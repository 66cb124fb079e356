//! Disks that are full: what is refused, who leads, what goes on, and that all of it ends by itself.

use super::*;
use crate::mapping::Disk;

const FILE_BYTES: usize = 1000;
/// Such files fill some segments.
const MANY: u64 = 300;

impl Cluster {
    /// Nodes that know each other and how much room each has.
    fn that_knows_its_room(nodes: u32) -> (Self, u32) {
        let mut cluster = Self::new(nodes);
        let leader = cluster.leader();
        for (id, member) in &mut cluster.members {
            // As hellos would have it.
            member.node.connected =
                (1..=nodes).map(NodeId).filter(|node| node != id).map(|node| (node, 1)).collect();
        }
        cluster.pass(1000 * limits::ROOM_STEPS_WHILE_ENOUGH);
        cluster.work_all();
        assert!(cluster.members.values().all(|member| !member.node.is_low()));
        (cluster, leader)
    }

    /// The helpers do all that there is to do.
    fn work_all(&mut self) {
        loop {
            let mut is_idle = true;
            for member in self.members.values_mut() {
                while let Some(job) = member.node.next_job().expect("good disks") {
                    let done = job.run(&member.network.disk);
                    member.node.job_done(done).expect("good disks");
                    is_idle = false;
                }
            }
            if is_idle {
                return;
            }
        }
    }

    /// The segments of a node, those with contents alone among them.
    fn segments(&self, node: u32) -> usize {
        let log = &self.node(node).log;
        log.segment_count() + log.contents_segments().count()
    }

    /// Seconds in which the helpers do what there is to do.
    fn pass_seconds(&mut self, seconds: u64) {
        for _ in 0..10 * seconds {
            self.pass(100);
            self.work_all();
        }
    }

    /// The disk of a node has room for so many bytes more, which it finds out at once.
    fn leave_room(&mut self, node: u32, bytes: u64) {
        let disk = self.disk(node);
        disk.set_capacity(disk.used_bytes() + bytes);
        self.members.get_mut(&NodeId(node)).unwrap().node.room.ask();
        self.work_all();
    }

    fn make_room(&mut self, node: u32) {
        self.disk(node).set_capacity(u64::MAX);
    }

    fn write_much(&mut self, name: &str) -> Event {
        let contents = Bytes::from(vec![b'x'; FILE_BYTES]);
        let operation = Change::Write { expiry_seconds: 0 };
        let command = Command { operation, name: name.into(), contents }.encode();
        self.request(Operation::Change { command })
    }

    fn delete(&mut self, name: &str) -> Event {
        let command = Command { operation: Change::Delete, name: name.into(), contents: Bytes::new() };
        self.request(Operation::Change { command: command.encode() })
    }

    /// Writes that were done, of so many, each of a name of its own; the others were refused for want of room.
    fn write_many(&mut self, leader: u32, names: std::ops::Range<u64>) -> Vec<String> {
        let mut done = Vec::new();
        for name in names.map(|n| format!("many/{n}")) {
            let write = self.write_much(&name);
            match self.ask(leader, write) {
                Outcome::Changed { .. } => done.push(name),
                Outcome::Refused(Refusal::DiskFull { .. }) => {}
                other => panic!("{other:?}"),
            }
            self.work_all();
        }
        done
    }

    fn node(&self, node: u32) -> &Node<SimulatedDisk> {
        &self.members[&NodeId(node)].node
    }
}

fn full(node: u32) -> Outcome {
    Outcome::Refused(Refusal::DiskFull { node: NodeId(node) })
}

#[test]
fn while_room_is_short_writes_are_refused_and_all_else_goes_on() {
    let (mut cluster, leader) = Cluster::that_knows_its_room(1);
    let write = cluster.write("f", 0);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    cluster.leave_room(leader, SEGMENT_BYTES);
    assert!(cluster.node(leader).is_low());
    let write = cluster.write("f", 0);
    assert_eq!(cluster.ask(leader, write), full(leader));
    let operation = Change::Cas { expected: Version(0), expiry_seconds: 0 };
    let command = Command { operation, name: "g".into(), contents: Bytes::new() }.encode();
    let cas = cluster.request(Operation::Change { command });
    assert_eq!(cluster.ask(leader, cas), full(leader));
    let open = cluster.request(Operation::OpenSession);
    assert!(matches!(cluster.ask(leader, open), Outcome::SessionOpened { .. }));
    let read = cluster.request(Operation::Stat { name: "f".into() });
    assert!(matches!(cluster.ask(leader, read), Outcome::Stat(_)));
    let delete = cluster.delete("f");
    assert!(matches!(cluster.ask(leader, delete), Outcome::Changed { .. }));
    // Service comes back when there is room, and by itself.
    cluster.make_room(leader);
    cluster.pass_seconds(1);
    let write = cluster.write("f", 0);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
}

#[test]
fn a_node_outlives_a_disk_that_fills_up_unawares_and_starts_on_it_again() {
    let (mut cluster, leader) = Cluster::that_knows_its_room(1);
    let first = cluster.write_many(leader, 0..20);
    assert_eq!(first.len(), 20);
    // Somebody else takes all the room; nobody has asked since.
    cluster.disk(leader).set_capacity(0);
    let more = cluster.write_many(leader, 20..MANY);
    assert!(more.len() < MANY as usize - 20 && cluster.node(leader).is_low());
    for n in 0..3 * MANY {
        // In the end there is no room for deletes either.
        let delete = cluster.delete(&format!("none/{n}/{}", "x".repeat(200)));
        let outcome = cluster.ask(leader, delete);
        assert!(outcome == Outcome::Refused(Refusal::NotFound) || outcome == full(leader), "{outcome:?}");
    }
    let delete = cluster.delete(&format!("none/{}", "x".repeat(250)));
    assert_eq!(cluster.ask(leader, delete), full(leader));
    let held: Vec<String> = first.into_iter().chain(more).collect();
    assert_eq!(cluster.node(leader).store.len(), held.len());

    cluster.restart_all();
    let member = cluster.members.get_mut(&NodeId(leader)).unwrap();
    member.node.make_first_spare(&member.network.disk).expect("it has something to serve");
    assert!(cluster.node(leader).is_low());
    cluster.pass_seconds(3);
    cluster.make_room(leader);
    cluster.pass_seconds(3);
    assert_eq!(cluster.leader(), leader);
    let write = cluster.write_much("many/0");
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    assert_eq!(cluster.node(leader).store.len(), held.len());
}

#[test]
fn an_empty_node_says_at_once_that_there_is_no_room() {
    let mut member = start(NodeId(1), 1);
    let disk = member.network.disk.clone();
    disk.set_capacity(disk.used_bytes());
    assert!(matches!(member.node.make_first_spare(&disk), Err(Fault::Spare(_))));
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_to_a_node_that_has_room() {
    let (mut cluster, old) = Cluster::that_knows_its_room(3);
    let (low, well) = (1 + old % 3, 1 + (old + 1) % 3);
    cluster.leave_room(low, 0);
    cluster.pass(1);
    cluster.leave_room(old, 0);
    let write = cluster.write("f", 0);
    assert_eq!(cluster.ask(old, write), full(old));
    cluster.pass(5);
    assert_eq!(cluster.leader(), well);
    // Two of three have little room, and what is taken must be on two disks.
    let write = cluster.write("f", 0);
    assert!(
        matches!(cluster.ask(well, write), Outcome::Refused(Refusal::DiskFull { node }) if node.0 != well)
    );
    let delete = cluster.delete("f");
    assert_eq!(cluster.ask(well, delete), Outcome::Refused(Refusal::NotFound));
    cluster.make_room(low);
    cluster.pass_seconds(2);
    assert_eq!(cluster.leader(), well);
    let write = cluster.write("f", 0);
    assert!(matches!(cluster.ask(well, write), Outcome::Changed { .. }));
}

#[test]
fn where_all_have_little_room_the_leader_stays() {
    let (mut cluster, _) = Cluster::that_knows_its_room(3);
    (1..=3).for_each(|node| cluster.leave_room(node, 0));
    cluster.pass_seconds(2);
    let leader = cluster.leader();
    let term = cluster.node(leader).status().term;
    cluster.pass_seconds(5);
    assert_eq!((cluster.leader(), cluster.node(leader).status().term), (leader, term));
    let read = cluster.request(Operation::Stat { name: "f".into() });
    assert_eq!(cluster.ask(leader, read), Outcome::Refused(Refusal::NotFound));
}

#[test]
fn a_follower_whose_disk_is_full_holds_nobody_up_and_catches_up() {
    let (mut cluster, leader) = Cluster::that_knows_its_room(3);
    let follower = 1 + leader % 3;
    cluster.disk(follower).set_capacity(0);
    assert_eq!(cluster.write_many(leader, 0..MANY).len(), MANY as usize);
    let last_index = |cluster: &Cluster, node: u32| cluster.node(node).status().last_log_index;
    assert!(last_index(&cluster, follower) < last_index(&cluster, leader));
    let held = last_index(&cluster, follower);
    cluster.pass_seconds(2);
    assert_eq!(last_index(&cluster, follower), held);
    assert_eq!(cluster.leader(), leader);
    cluster.make_room(follower);
    cluster.pass_seconds(10);
    assert_eq!(cluster.node(follower).store.digest(), cluster.node(leader).store.digest());
}

#[test]
fn what_was_deleted_comes_back_without_waiting_for_the_log_to_grow() {
    let (mut cluster, leader) = Cluster::that_knows_its_room(1);
    let names = cluster.write_many(leader, 0..MANY);
    let before = cluster.segments(leader);
    assert!(before > 4, "{before} segments");
    cluster.leave_room(leader, SEGMENT_BYTES);
    assert!(cluster.node(leader).is_low());
    for name in names {
        let delete = cluster.delete(&name);
        assert!(matches!(cluster.ask(leader, delete), Outcome::Changed { .. }), "{name}");
    }
    cluster.pass_seconds(5);
    assert!(cluster.segments(leader) <= 2, "{}", cluster.segments(leader));
    assert!(!cluster.node(leader).is_low(), "{:?} bytes are left", cluster.disk(leader).room_bytes());
    let write = cluster.write_much("f");
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
}

#[test]
fn contents_larger_than_a_segment_get_one_of_their_own_also_at_its_very_length() {
    // What the log and the core reckon for a record differs by a few bytes: around full pages that must not matter.
    for near in [1, 2, 3] {
        let (mut cluster, leader) = Cluster::that_knows_its_room(1);
        let page = SEGMENT_BYTES as usize + near * 4096 - 100;
        for bytes in page - 100..page + 100 {
            let member = cluster.members.get_mut(&NodeId(leader)).unwrap();
            member.node.make_room(std::iter::once(bytes));
            assert!(member.node.raft.has_room_for([bytes]), "{bytes}");
        }
    }
}
