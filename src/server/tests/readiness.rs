//! Whether a node is ready, and what it measures, both as its pages tell.

use super::*;
use crate::limits;
use crate::metrics::Page;

impl Cluster {
    fn ask_readiness(&mut self, node: u32) {
        let connection = ConnectionId::new(7, 7);
        self.turn(node, vec![Event::Page { connection, page: HttpPage::Readiness }]).expect("good disks");
    }

    /// What the node said to who asked whether it is ready: at most once.
    fn readiness(&mut self, node: u32) -> Option<(bool, String)> {
        let pages = &mut self.members.get_mut(&NodeId(node)).expect("a member").network.pages;
        assert!(pages.len() <= 1, "{pages:?}");
        pages.pop().map(|(connection, reply)| {
            assert_eq!(connection, ConnectionId::new(7, 7));
            (reply.is_ok, reply.body)
        })
    }

    #[track_caller]
    fn expect_not_ready(&mut self, node: u32, words: &str) {
        let (is_ok, body) = self.readiness(node).expect("an answer");
        assert!(!is_ok && body.starts_with("not ready: ") && body.contains(words), "{body}");
    }

    /// The value of a line of the node's metrics.
    #[track_caller]
    fn metric(&self, node: u32, line: &str) -> u64 {
        let mut page = Page::default();
        self.members[&NodeId(node)].node.write_metrics(&mut page);
        let text = page.into_text();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().expect("a whole number")
    }
}

fn is_to(node: u32) -> impl Fn(u32, u32, &PeerMessage) -> bool {
    move |_, to, _| to == node
}

#[test]
fn a_leader_and_its_followers_are_ready_once_it_is_confirmed_and_not_before() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    for node in [leader, follower] {
        cluster.ask_readiness(node);
        assert_eq!(cluster.readiness(node), None, "nobody has confirmed it yet");
        cluster.settle();
        assert_eq!(cluster.readiness(node), Some((true, "ready\n".to_owned())));
    }
    // The deadlines of what was answered bring nothing more.
    cluster.pass(limits::READINESS_MS_MAX + 1);
    assert_eq!((cluster.readiness(leader), cluster.readiness(follower)), (None, None));
}

#[test]
fn a_node_without_a_leader_is_not_ready() {
    let mut cluster = Cluster::new(3);
    cluster.ask_readiness(1);
    cluster.expect_not_ready(1, "knows no leader");
}

#[test]
fn a_node_that_is_cut_off_says_so_when_it_has_noticed() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    for node in [leader, follower] {
        cluster.ask_readiness(node);
        cluster.in_flight.clear();
        cluster.pass_among(&[node], limits::READINESS_MS_MAX);
        cluster.expect_not_ready(node, "knows no leader");
    }
}

#[test]
fn a_node_whose_leader_does_not_confirm_is_not_ready() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    cluster.ask_readiness(follower);
    for _ in 0..limits::READINESS_MS_MAX {
        cluster.now_ms += 1;
        cluster.turn_all();
        cluster.settle_holding(|_, _, message| matches!(message, PeerMessage::ReadIndex(_)));
    }
    cluster.expect_not_ready(follower, &format!("node {leader} did not confirm within 2000 ms"));
}

#[test]
fn a_node_that_has_not_applied_what_was_committed_tells_how_far_it_is() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    // The other two commit an entry of which this one does not hear.
    let write = cluster.write("g", 0);
    cluster.turn(leader, vec![write]).unwrap();
    cluster.settle_holding(is_to(follower));
    let committed = cluster.members[&NodeId(leader)].node.status().commit_index;
    cluster.ask_readiness(follower);
    let is_append =
        |_, to, message: &PeerMessage| to == follower && matches!(message, PeerMessage::AppendEntries(_));
    cluster.settle_holding(is_append);
    assert_eq!(cluster.readiness(follower), None);
    cluster.pass_among(&[follower], limits::READINESS_MS_MAX);
    let applied = committed.previous();
    cluster.expect_not_ready(follower, &format!("behind, applied {applied} of {committed} log entries"));
}

#[test]
fn a_node_that_stops_is_not_ready_whoever_asked_before() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    cluster.ask_readiness(leader);
    cluster.members.get_mut(&NodeId(leader)).unwrap().node.stop(cluster.now_ms);
    cluster.turn(leader, Vec::new()).unwrap();
    cluster.expect_not_ready(leader, "the node stops");
    let now_ms = cluster.now_ms;
    cluster.members.get_mut(&NodeId(follower)).unwrap().node.stop(now_ms);
    cluster.ask_readiness(follower);
    cluster.expect_not_ready(follower, "the node stops");
}

#[test]
fn what_happens_is_counted() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    let flushes = cluster.metric(leader, "fsd_flush_duration_seconds_count");
    let entries = cluster.metric(leader, "fsd_flush_entries_sum");
    let bytes = cluster.metric(leader, "fsd_flush_bytes_sum");
    let events = vec![cluster.write("g", 0), cluster.write("h", 0)];
    cluster.turn(leader, events).unwrap();
    cluster.settle();
    let events = vec![cluster.read("g"), cluster.stat("missing"), cluster.read("h")];
    cluster.turn(leader, events).unwrap();
    cluster.settle();
    let write = cluster.write("i", 0);
    cluster.ask(follower, write);
    cluster.replies(leader);

    let metric = |line| cluster.metric(leader, line);
    assert_eq!(metric("fsd_requests_total{kind=\"write\",outcome=\"done\"}"), 3);
    assert_eq!(metric("fsd_requests_total{kind=\"read\",outcome=\"done\"}"), 2);
    assert_eq!(metric("fsd_requests_total{kind=\"stat\",outcome=\"not_found\"}"), 1);
    assert_eq!(metric("fsd_request_duration_seconds_count{kind=\"stat\",result=\"refused\"}"), 1);
    assert_eq!(cluster.metric(follower, "fsd_requests_total{kind=\"write\",outcome=\"not_leader\"}"), 1);
    assert_eq!(metric("fsd_flush_duration_seconds_count"), flushes + 1, "two writes share a flush");
    assert_eq!(metric("fsd_flush_entries_sum"), entries + 2);
    assert!(metric("fsd_flush_bytes_sum") > bytes + 16);
    assert_eq!(metric("fsd_read_batch_requests_bucket{le=\"2\"}"), 0);
    assert_eq!(metric("fsd_read_batch_requests_sum"), 3, "three reads share a round");
    assert_eq!(metric("fsd_files"), 3);
    assert_eq!(metric("fsd_revision"), 3);
    assert_eq!(metric("fsd_requests_waiting{kind=\"change\"}"), 0);
}

#[test]
fn a_leader_tells_how_far_each_follower_is_behind_and_what_waits() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    let other = 6 - leader - follower;
    let metric = |cluster: &Cluster, line: &str| cluster.metric(leader, line);
    assert_eq!(metric(&cluster, "fsd_role{role=\"leader\"}"), 1);
    assert_eq!(cluster.metric(follower, "fsd_role{role=\"leader\"}"), 0);
    assert_eq!(cluster.metric(follower, "fsd_leader"), u64::from(leader));
    assert_eq!(cluster.metric(follower, "fsd_leader_changes_total"), 1);
    assert_eq!(metric(&cluster, &format!("fsd_peer_lag_entries{{node=\"{follower}\"}}")), 0);
    let event = cluster.write("g", 0);
    cluster.turn(leader, vec![event]).unwrap();
    assert_eq!(metric(&cluster, "fsd_requests_waiting{kind=\"change\"}"), 1);
    assert!(metric(&cluster, "fsd_uncommitted_bytes") > 0);
    cluster.settle_holding(is_to(follower));
    assert_eq!(metric(&cluster, &format!("fsd_peer_lag_entries{{node=\"{follower}\"}}")), 1);
    assert_eq!(metric(&cluster, &format!("fsd_peer_lag_entries{{node=\"{other}\"}}")), 0);
    assert_eq!(metric(&cluster, "fsd_uncommitted_bytes"), 0);
}
