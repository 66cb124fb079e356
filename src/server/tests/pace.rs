//! Clients wait for a follower that lags, before it is too far behind for the log.

use super::*;

const FILE_BYTES: usize = 1024;

/// Three nodes, of which one takes what it is sent more slowly than the others.
struct Slow {
    cluster: Cluster,
    leader: u32,
    slow: u32,
    /// What the slow one has not taken yet.
    queue: VecDeque<(NodeId, PeerMessage)>,
}

impl Slow {
    fn new() -> Self {
        let mut cluster = Cluster::new(3);
        let leader = cluster.leader();
        cluster.pass(100);
        Self { cluster, leader, slow: if leader == 3 { 2 } else { 3 }, queue: VecDeque::new() }
    }

    /// A millisecond, in which the leader gets these requests, and the slow one takes as many messages as said.
    fn pass(&mut self, requests: Vec<Event>, taken: usize) {
        self.cluster.now_ms += 1;
        self.cluster.turn(self.leader, requests).unwrap();
        for _ in 0..taken.min(self.queue.len()) {
            let (from, message) = self.queue.pop_front().expect("it was counted");
            self.cluster.turn(self.slow, vec![Event::Peer { from, message }]).unwrap();
        }
        while let Some((from, to, message)) = self.cluster.in_flight.pop_front() {
            if to.0 == self.slow {
                self.queue.push_back((from, message));
            } else {
                self.cluster.turn(to.0, vec![Event::Peer { from, message }]).unwrap();
            }
        }
    }

    fn write(&mut self, number: u32) -> Event {
        let name = format!("f{}", number % 16);
        let contents = vec![7; FILE_BYTES].into();
        let operation = Change::Write { expiry_seconds: 0 };
        let command = Command { operation, name, contents }.encode();
        self.cluster.request(Operation::Change { command })
    }

    fn pace(&self) -> Option<u64> {
        let node = &self.cluster.members[&NodeId(self.leader)].node;
        node.pace(self.cluster.now_ms)
    }
}

#[test]
fn clients_wait_for_a_follower_that_lags() {
    let mut slow = Slow::new();
    let mut paces = Vec::new();
    for number in 0..SEGMENT_BYTES as u32 / 2 / FILE_BYTES as u32 {
        let write = slow.write(number);
        slow.pass(vec![write], 0);
        // It gives a sign of life now and then.
        if number % 8 == 0 {
            slow.pass(Vec::new(), 1);
        }
        paces.extend(slow.pace());
    }
    // The further it lags, the slower they are.
    let slowest = SEGMENT_BYTES / limits::CHECKPOINT_AT_SEGMENT_SHARE / limits::PACED_GROWTH_MS;
    let fastest = (0..paces.len()).max_by_key(|at| paces[*at]).expect("clients are paced");
    assert!(paces[fastest] > 64 * slowest, "{paces:?}");
    assert!(paces[fastest..].is_sorted_by(|before, behind| before >= behind), "{paces:?}");
    assert!(paces.last().expect("clients are paced") < &(2 * slowest), "{paces:?}");
    while !slow.queue.is_empty() {
        slow.pass(Vec::new(), 8);
    }
    assert_eq!(slow.pace(), None, "it has everything");
}

#[test]
fn nobody_waits_for_a_follower_that_says_nothing() {
    let mut slow = Slow::new();
    let mut was_paced = false;
    for number in 0..SEGMENT_BYTES as u32 / 2 / FILE_BYTES as u32 {
        let write = slow.write(number);
        slow.pass(vec![write], 0);
        was_paced |= slow.pace().is_some();
    }
    assert!(was_paced, "it was heard of a moment ago");
    for _ in 0..ELECTION_TIMEOUT_MS + 1 {
        slow.pass(Vec::new(), 0);
    }
    assert_eq!(slow.pace(), None);
}

#[test]
fn a_follower_waits_for_what_it_takes_beyond_its_pace() {
    let mut slow = Slow::new();
    let (leader, follower) = (NodeId(slow.leader), NodeId(slow.slow));
    let (mut jobs, mut waits_ms) = (Vec::new(), Vec::new());
    for number in 0..2 * SEGMENT_BYTES as u32 / FILE_BYTES as u32 {
        let write = slow.write(number);
        slow.pass(vec![write], usize::MAX);
        let now_ms = slow.cluster.now_ms;
        for id in [leader, follower] {
            // The helpers never get on.
            let node = &mut slow.cluster.members.get_mut(&id).expect("a member").node;
            jobs.extend(node.next_job().expect("a good disk").map(|job| (id, job)));
            let wait_ms = node.wait_for_helper_ms(now_ms);
            if id == leader || node.pace(now_ms).is_none_or(|pace| pace > 2 * FILE_BYTES as u64) {
                assert_eq!(wait_ms, 0, "write {number} at node {id}");
            } else {
                waits_ms.push(wait_ms);
            }
        }
    }
    assert!(waits_ms.is_sorted(), "the later the checkpoint is, the longer: {waits_ms:?}");
    assert_eq!(waits_ms.last(), Some(&limits::PACED_WAIT_MS_MAX.min(HEARTBEAT_MS / 2)), "{waits_ms:?}");
    // A helper without work is not waited for; with its next job, what was taken is not forgotten.
    let disk = slow.cluster.disk(follower.0).clone();
    let now_ms = slow.cluster.now_ms;
    let node = &mut slow.cluster.members.get_mut(&follower).expect("a member").node;
    for (_, job) in jobs.into_iter().filter(|(id, _)| *id == follower) {
        node.job_done(job.run(&disk)).expect("a good disk");
    }
    assert_eq!(node.wait_for_helper_ms(now_ms), 0);
    while node.next_job().expect("a good disk").is_some() {}
    assert_eq!(Some(&node.wait_for_helper_ms(now_ms)), waits_ms.last());
    // Its pace is as slow as before, but nothing comes.
    let later_ms = slow.cluster.now_ms + 100;
    assert!(node.pace(later_ms).is_some());
    assert_eq!(node.wait_for_helper_ms(later_ms), 0);
}
