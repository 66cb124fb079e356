//! Clients fetch the whole store, from any node.

use fsd_wire::store_stream::StreamHead;
use fsd_wire::stream_check::StreamCheck;

use super::*;
use crate::storage::list_checkpoints;

impl Cluster {
    /// A request of the client on the `n`th connection.
    fn request_on(&mut self, n: u32, operation: Operation) -> Event {
        let Event::Request { protocol, request, .. } = self.request(operation) else { unreachable!() };
        Event::Request { connection: ConnectionId::new(n, 1), protocol, request }
    }

    /// Does all work on files that a node has, and then its turn.
    pub(super) fn work(&mut self, node: u32) -> Result<(), Fault> {
        let member = self.members.get_mut(&NodeId(node)).expect("a member");
        while let Some(job) = member.node.next_job()? {
            let done = job.run(&member.network.disk);
            member.node.job_done(done)?;
        }
        self.turn(node, Vec::new())
    }

    fn begin(&mut self, node: u32, client: u32) -> Outcome {
        let begin = self.request_on(client, Operation::BackupBegin);
        self.turn(node, vec![begin]).unwrap();
        self.settle();
        // A node that is behind waits for what it lacks.
        for _ in 0..100 {
            if let Some(outcome) = self.replies(node).pop() {
                return outcome;
            }
            self.pass(10);
        }
        panic!("no answer");
    }

    fn begun(&mut self, node: u32, client: u32) -> u64 {
        match self.begin(node, client) {
            Outcome::BackupBegun { backup } => backup,
            other => panic!("{other:?}"),
        }
    }

    /// What is answered to the wish for a piece of a backup: at once, or behind what work there is.
    fn fetch(&mut self, node: u32, client: u32, backup: u64, offset: u64) -> Outcome {
        let chunk = self.request_on(client, Operation::BackupChunk { backup, offset });
        self.turn(node, vec![chunk]).unwrap();
        self.work(node).unwrap();
        let mut replies = self.replies(node);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    /// A whole backup's bytes.
    pub(super) fn backup_of(&mut self, node: u32) -> Vec<u8> {
        let backup = self.begun(node, 1);
        let mut whole = Vec::new();
        loop {
            match self.fetch(node, 1, backup, whole.len() as u64) {
                Outcome::BackupChunk { is_last, bytes } => {
                    whole.extend_from_slice(&bytes);
                    if is_last {
                        return whole;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn fetch_all(&mut self, node: u32, client: u32) -> (StreamHead, usize) {
        let backup = self.begun(node, client);
        let mut check = StreamCheck::new();
        for pieces in 1.. {
            match self.fetch(node, client, backup, check.offset()) {
                Outcome::BackupChunk { is_last, bytes } => {
                    assert!(bytes.len() == limits::BACKUP_CHUNK_BYTES || is_last);
                    check.take(&bytes).unwrap();
                    if is_last {
                        return (check.finish().unwrap(), pieces);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        unreachable!()
    }

    pub(super) fn with_files(nodes: u32) -> (Self, u32) {
        let mut cluster = Self::new(nodes);
        let leader = cluster.leader();
        for n in 0..5 {
            let write = cluster.write(&format!("f{n}"), 0);
            cluster.ask(leader, write);
        }
        cluster.pass(200);
        (cluster, leader)
    }

    fn checkpoints(&self, node: u32) -> Vec<LogIndex> {
        list_checkpoints(self.disk(node)).unwrap().into_iter().map(|(index, _)| index).collect()
    }
}

fn is_bad_request(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::BadRequest { .. }))
}

#[test]
fn any_node_gives_the_store_as_it_was_when_it_was_asked_or_later() {
    let (mut cluster, leader) = Cluster::with_files(3);
    for node in 1..=3 {
        // Unless it leads, the node hears nothing of a write that is acknowledged.
        let write = cluster.write(&format!("by{node}"), 0);
        cluster.turn(leader, vec![write]).unwrap();
        loop {
            cluster.in_flight.retain(|(_, to, _)| to.0 != node || node == leader);
            let Some((from, to, message)) = cluster.in_flight.pop_front() else { break };
            cluster.turn(to.0, vec![Event::Peer { from, message }]).unwrap();
        }
        assert!(matches!(cluster.replies(leader)[..], [Outcome::Changed { .. }]));
        let applied = cluster.members[&NodeId(leader)].node.store.last_applied();
        assert!(node == leader || cluster.members[&NodeId(node)].node.store.last_applied() < applied);
        let (head, pieces) = cluster.fetch_all(node, 1);
        assert!(head.entry.index >= applied, "{head:?}");
        assert_eq!((head.files, head.revision.0, pieces), (5 + u64::from(node), 5 + u64::from(node), 1));
    }
}

#[test]
fn those_who_wait_share_one_checkpoint_and_a_fresh_one_is_used_again() {
    let (mut cluster, leader) = Cluster::with_files(1);
    let backups = [cluster.begun(leader, 1), cluster.begun(leader, 2)];
    assert!(cluster.checkpoints(leader).is_empty(), "none was due");
    for (client, backup) in (1..).zip(backups) {
        assert!(matches!(
            cluster.fetch(leader, client, backup, 0),
            Outcome::BackupChunk { is_last: true, .. }
        ));
    }
    let first = cluster.checkpoints(leader);
    assert_eq!(first.len(), 1);
    cluster.fetch_all(leader, 3);
    assert_eq!(cluster.checkpoints(leader), first, "nothing has changed since");
    let write = cluster.write("one more", 0);
    cluster.ask(leader, write);
    let write = cluster.write("one-more", 0);
    cluster.ask(leader, write);
    assert_eq!(cluster.fetch_all(leader, 4).0.files, 6);
    assert_eq!(cluster.checkpoints(leader).len(), 2);
}

#[test]
fn pieces_come_in_their_order_and_the_last_one_again() {
    let (mut cluster, leader) = Cluster::with_files(1);
    let contents = Bytes::from(vec![7; 1000]);
    for n in 0..1200 {
        let (operation, name) = (Change::Write { expiry_seconds: 0 }, format!("g{n}"));
        let command = Command { operation, name, contents: contents.clone() }.encode();
        let change = cluster.request(Operation::Change { command });
        cluster.ask(leader, change);
    }
    let backup = cluster.begun(leader, 1);
    let first = cluster.fetch(leader, 1, backup, 0);
    let Outcome::BackupChunk { is_last: false, bytes } = &first else { panic!("{first:?}") };
    let end = bytes.len() as u64;
    assert_eq!(cluster.fetch(leader, 1, backup, 0), first, "its reply was lost");
    for offset in [1, end - 1, end + 1] {
        assert!(is_bad_request(&cluster.fetch(leader, 1, backup, offset)), "{offset}");
    }
    assert!(is_bad_request(&cluster.fetch(leader, 2, backup, end)), "another client's");
    assert!(is_bad_request(&cluster.fetch(leader, 1, backup + 1, end)), "not begun");
    let last = cluster.fetch(leader, 1, backup, end);
    assert!(matches!(&last, Outcome::BackupChunk { is_last: true, bytes } if !bytes.is_empty()), "{last:?}");
    assert_eq!(cluster.fetch(leader, 1, backup, end), last);
    assert!(is_bad_request(&cluster.fetch(leader, 1, backup, 0)), "what came before is gone");
    assert_eq!(cluster.fetch_all(leader, 1).1, 2);
}

#[test]
fn who_waits_for_long_is_told_to_ask_again() {
    let (mut cluster, leader) = Cluster::with_files(1);
    let backup = cluster.begun(leader, 1);
    let chunk = cluster.request_on(1, Operation::BackupChunk { backup, offset: 0 });
    cluster.turn(leader, vec![chunk]).unwrap();
    let second = cluster.request_on(1, Operation::BackupChunk { backup, offset: 0 });
    cluster.turn(leader, vec![second]).unwrap();
    assert!(is_bad_request(&cluster.replies(leader)[0]), "one waits already");
    cluster.pass(5000);
    assert_eq!(cluster.replies(leader), [Outcome::BackupChunk { is_last: false, bytes: Bytes::new() }]);
    assert!(matches!(cluster.fetch(leader, 1, backup, 0), Outcome::BackupChunk { is_last: true, .. }));
}

#[test]
fn so_many_and_no_more_until_one_has_gone_or_is_idle() {
    let (mut cluster, leader) = Cluster::with_files(1);
    let last = limits::BACKUPS_MAX as u32;
    let backups: Vec<u64> = (1..=last).map(|client| cluster.begun(leader, client)).collect();
    assert_eq!(cluster.begin(leader, 100), Outcome::Refused(Refusal::Busy));
    cluster.members.get_mut(&NodeId(leader)).unwrap().network.gone.push(ConnectionId::new(1, 1));
    let new = cluster.begun(leader, 100);
    assert_eq!(cluster.begin(leader, 101), Outcome::Refused(Refusal::Busy));
    // All but one are left alone.
    for _ in 0..4 {
        cluster.pass(limits::BACKUP_IDLE_MS_MAX / 4 + 1000);
        assert!(matches!(cluster.fetch(leader, 100, new, 0), Outcome::BackupChunk { is_last: true, .. }));
    }
    assert!(is_bad_request(&cluster.fetch(leader, 2, backups[1], 0)));
    for client in 2..=last {
        cluster.begun(leader, client);
    }
    assert_eq!(cluster.begin(leader, 101), Outcome::Refused(Refusal::Busy));
}

#[test]
fn without_room_for_a_checkpoint_there_is_no_backup_yet() {
    let (mut cluster, leader) = Cluster::with_files(1);
    cluster.work(leader).unwrap();
    let backup = cluster.begun(leader, 1);
    cluster.disk(leader).set_capacity(1);
    assert_eq!(cluster.fetch(leader, 1, backup, 0), Outcome::Refused(Refusal::Busy));
    cluster.disk(leader).set_capacity(u64::MAX);
    assert!(is_bad_request(&cluster.fetch(leader, 1, backup, 0)), "it is to be begun anew");
    assert_eq!(cluster.fetch_all(leader, 1).0.files, 5);
}

#[test]
fn damaged_contents_end_the_node_and_not_the_backup_silently() {
    let (mut cluster, leader) = Cluster::with_files(1);
    cluster.fetch_all(leader, 1);
    let disk = cluster.disk(leader).clone();
    let segment = crate::storage::segment::file_name(storage::SegmentId(1));
    let bytes = disk.read(&segment).unwrap();
    let at = bytes.windows(8).position(|window| window == b"contents").unwrap();
    disk.rot(&segment, at, 1);
    let backup = cluster.begun(leader, 1);
    let chunk = cluster.request_on(1, Operation::BackupChunk { backup, offset: 0 });
    cluster.turn(leader, vec![chunk]).unwrap();
    let error = cluster.work(leader).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_node_that_stops_lets_nobody_wait() {
    let (mut cluster, leader) = Cluster::with_files(1);
    let backup = cluster.begun(leader, 1);
    let chunk = cluster.request_on(1, Operation::BackupChunk { backup, offset: 0 });
    cluster.turn(leader, vec![chunk]).unwrap();
    let now_ms = cluster.now_ms;
    cluster.members.get_mut(&NodeId(leader)).unwrap().node.stop(now_ms);
    cluster.turn(leader, Vec::new()).unwrap();
    assert_eq!(cluster.replies(leader), [Outcome::Refused(Refusal::Busy)]);
}
