//! The library against nodes that behave as the tests script them.

mod fake_node;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fake_node::{FakeNode, dead_address, error_of_untaken_write, not_leader};
use fsclient::{
    AttemptError, Client, ClientError, Connection, FileInfo, NodeId, NodeRole, NodeStatus, Operation,
    Outcome, Refusal, StorageStatus, Term, Version,
};
use fsd_wire::LogIndex;
use fsd_wire::hello::HelloStatus;

/// Long enough that a loaded machine answers, short enough for the tests that wait for it to pass.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

fn changed(version: u64) -> Option<Outcome> {
    Some(Outcome::Changed { version: Version(version) })
}

fn client(nodes: &[&FakeNode], timeout: Duration) -> Client {
    Client::new(nodes.iter().map(|node| node.address.clone())).unwrap().with_timeout(timeout)
}

fn info(name: &str) -> FileInfo {
    FileInfo { name: name.to_owned(), version: Version(3), size_bytes: 5, expiry_seconds: 7 }
}

#[test]
fn every_operation_reaches_the_node_as_it_was_asked() {
    let node = FakeNode::answering(|n, operation| match (n, operation) {
        (0, Operation::SessionChange { command, .. }) => {
            let command = fsclient::Command::decode(command).unwrap();
            assert_eq!(command.operation, fsd_wire::Operation::Write { expiry_seconds: 9 });
            assert_eq!((command.name.as_str(), &command.contents[..]), ("a/b", &b"hello"[..]));
            changed(1)
        }
        (1, Operation::SessionChange { command, .. }) => {
            let command = fsclient::Command::decode(command).unwrap();
            let expected = fsd_wire::Operation::Cas { expected: Version(1), expiry_seconds: 0 };
            assert_eq!(command.operation, expected);
            changed(2)
        }
        (2, Operation::Read { name }) => {
            assert_eq!(name, "a/b");
            let contents = Bytes::from_static(b"hello");
            Some(Outcome::Read { version: Version(2), expiry_seconds: 4, contents })
        }
        (3, Operation::Stat { name }) => Some(Outcome::Stat(info(name))),
        (4, Operation::SessionChange { command, .. }) => {
            let command = fsclient::Command::decode(command).unwrap();
            assert_eq!(command.operation, fsd_wire::Operation::DeleteIf { expected: Version(2) });
            changed(3)
        }
        (5, Operation::SessionChange { command, .. }) => {
            let command = fsclient::Command::decode(command).unwrap();
            assert_eq!(command.operation, fsd_wire::Operation::Delete);
            Some(Outcome::Refused(Refusal::NotFound))
        }
        other => panic!("not expected: {other:?}"),
    });
    let mut client = client(&[&node], LONG);
    assert_eq!(client.write("a/b", "hello", 9).unwrap(), Version(1));
    assert_eq!(client.cas("a/b", Version(1), "bye", 0).unwrap(), Version(2));
    let file = client.read("a/b").unwrap();
    assert_eq!((file.version, file.expiry_seconds, &file.contents[..]), (Version(2), 4, &b"hello"[..]));
    assert_eq!(client.stat("a/b").unwrap(), info("a/b"));
    assert_eq!(client.delete("a/b", Some(Version(2))).unwrap(), Version(3));
    let error = client.delete("a/b", None).unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::NotFound)), "{error}");
    assert_eq!(node.connections(), 1, "the connection is kept, also after a refusal");
}

#[test]
fn the_request_carries_what_is_left_of_the_time_and_the_hello_the_cluster() {
    let node = FakeNode::start(|mut caller| {
        assert_eq!(caller.welcome().cluster, "demo");
        let request = caller.request().unwrap();
        assert!((15_000..=20_000).contains(&request.timeout_ms), "{}", request.timeout_ms);
        caller.reply(request.id, Outcome::Changed { version: Version(1) });
        caller.wait_for_close();
    });
    let mut client = client(&[&node], LONG).with_cluster("demo").unwrap();
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(1));
}

#[test]
fn a_redirect_leads_to_the_leader_and_the_next_request_goes_there_at_once() {
    let leader = FakeNode::answering(|n, _| changed(n as u64 + 1));
    let follower = FakeNode::redirecting(&leader.address, 3);
    let mut client = client(&[&follower], LONG);
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(1));
    assert_eq!(client.write("a", "y", 0).unwrap(), Version(2));
    assert_eq!((follower.requests(), leader.requests()), (1, 2));
}

#[test]
fn a_redirect_to_a_dead_or_unusable_address_is_skipped() {
    for hint in [dead_address(), "0.0.0.0:7101".to_owned(), "nonsense".to_owned(), ":0".to_owned()] {
        let leader = FakeNode::answering(|_, _| changed(1));
        let follower = FakeNode::redirecting(&hint, 3);
        let mut client = client(&[&follower, &leader], LONG);
        assert_eq!(client.write("a", "x", 0).unwrap(), Version(1), "{hint}");
    }
}

#[test]
fn an_address_to_listen_on_is_not_connected_to() {
    let mut client = Client::new(["0.0.0.0:7101"]).unwrap().with_timeout(SHORT);
    let ClientError::Unavailable { attempts, .. } = client.write("a", "x", 0).unwrap_err() else {
        panic!("expected unavailable");
    };
    assert!(matches!(attempts[0].1, AttemptError::BadAddress(_)), "{attempts:?}");
}

#[test]
fn a_redirect_loop_ends_with_the_time_limit_and_few_requests() {
    // Two nodes, each of which says that the other leads: in one term, and in terms that keep rising.
    for rising in [false, true] {
        let second_address = Arc::new(std::sync::OnceLock::<String>::new());
        let known = Arc::clone(&second_address);
        let term = Arc::new(AtomicUsize::new(1));
        let next_term = move || if rising { term.fetch_add(1, Ordering::SeqCst) as u64 } else { 1 };
        let terms = next_term.clone();
        let first = FakeNode::answering(move |_, _| Some(not_leader(known.get().unwrap(), terms())));
        let first_address = first.address.clone();
        let second = FakeNode::answering(move |_, _| Some(not_leader(&first_address, next_term())));
        second_address.set(second.address.clone()).unwrap();
        let mut client = client(&[&first, &second], SHORT);
        let error = error_of_untaken_write(&mut client);
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("leads"), "{error}");
        let requests = first.requests() + second.requests();
        assert!(requests < 120, "{requests} requests in {SHORT:?}");
    }
}

#[test]
fn a_hint_of_an_earlier_term_is_not_followed() {
    let deposed = FakeNode::answering(|_, _| changed(1));
    let earlier = FakeNode::redirecting(&deposed.address, 4);
    let later = FakeNode::redirecting(&earlier.address, 5);
    // `later` sends to `earlier` with term 5; its hint of term 4 then is out of date.
    let mut client = client(&[&later], SHORT);
    let error = error_of_untaken_write(&mut client);
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert_eq!(deposed.requests(), 0);
}

#[test]
fn no_leader_and_busy_are_tried_again_until_there_is_one() {
    let node = FakeNode::answering(|n, _| match n {
        0 => Some(Outcome::Refused(Refusal::NoLeader)),
        1 => Some(Outcome::Refused(Refusal::Busy)),
        _ => changed(8),
    });
    let mut client = client(&[&node], LONG);
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(8));
    assert_eq!(node.requests(), 3);
}

#[test]
fn without_any_leader_nothing_is_done_and_that_is_said() {
    let node = FakeNode::answering(|_, _| Some(Outcome::Refused(Refusal::NoLeader)));
    let mut client = client(&[&node], SHORT);
    let begin = Instant::now();
    let error = error_of_untaken_write(&mut client);
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("no leader"), "{error}");
    assert!(begin.elapsed() < SHORT * 10);
}

#[test]
fn dead_servers_are_passed_over_and_nobody_at_all_is_unavailable() {
    let node = FakeNode::answering(|_, _| changed(1));
    let mut client = Client::new([dead_address(), node.address.clone(), dead_address()]).unwrap();
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(1));
    let mut client = Client::new([dead_address()]).unwrap().with_timeout(SHORT);
    let error = client.write("a", "x", 0).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
}

#[test]
fn a_connection_cut_before_the_request_is_made_again() {
    let node = FakeNode::start(|mut caller| {
        if caller.number == 0 {
            return; // before the hello is answered
        }
        caller.welcome();
        let request = caller.request().unwrap();
        caller.reply(request.id, Outcome::Changed { version: Version(caller.number as u64) });
        // Closed between two requests: the next one must not be lost on it.
    });
    let mut client = client(&[&node], LONG);
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(1));
    node.wait_until_closed(2);
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(2));
}

#[test]
fn a_connection_cut_after_a_read_was_sent_is_made_again() {
    let node = FakeNode::start(|mut caller| {
        caller.welcome();
        let request = caller.request().unwrap();
        if caller.number > 0 {
            caller.reply(request.id, Outcome::Stat(info("a")));
            caller.wait_for_close();
        }
    });
    assert_eq!(client(&[&node], LONG).stat("a").unwrap(), info("a"));
    assert_eq!(node.requests(), 2);
}

#[test]
fn a_change_that_is_not_answered_in_time_is_unknown_and_a_read_unavailable() {
    let node = FakeNode::answering(|_, _| None);
    let mut client = client(&[&node], SHORT);
    let error = client.delete("a", None).unwrap_err();
    assert!(matches!(&error, ClientError::Unknown { why: AttemptError::TimedOut, .. }), "{error}");
    assert_eq!(node.requests(), 1);
    let error = client.read("a").unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
}

#[test]
fn a_stopped_node_does_not_use_up_the_time() {
    // It accepts connections, as the kernel does for a stopped process, and says nothing.
    let stopped = FakeNode::start(|mut caller| caller.wait_for_close());
    let deaf = FakeNode::answering(|_, _| None);
    let good = FakeNode::answering(|_, operation| match operation {
        Operation::Stat { .. } => Some(Outcome::Stat(info("a"))),
        _ => changed(1),
    });
    let mut writer = client(&[&stopped, &good], LONG).with_attempt_timeout(SHORT);
    assert_eq!(writer.write("a", "x", 0).unwrap(), Version(1));
    let mut reader = client(&[&deaf, &good], LONG).with_attempt_timeout(SHORT);
    assert_eq!(reader.stat("a").unwrap(), info("a"));
}

#[test]
fn a_read_is_made_again_elsewhere_if_what_came_is_no_answer() {
    let good = FakeNode::answering(|_, _| Some(Outcome::Stat(info("a"))));
    let garbage = FakeNode::start(|mut caller| {
        caller.welcome();
        let _ = caller.request();
        let _ = caller.stream.write_all(&[0xff; 64]);
        caller.wait_for_close();
    });
    let another = FakeNode::start(|mut caller| {
        caller.welcome();
        let request = caller.request().unwrap();
        caller.reply(fsclient::RequestId(request.id.0 + 7), Outcome::Stat(info("b")));
        caller.wait_for_close();
    });
    let of_another_kind = FakeNode::answering(|_, _| changed(1));
    let unknown = FakeNode::answering(|_, _| Some(Outcome::Refused(Refusal::Unknown)));
    for node in [garbage, another, of_another_kind, unknown] {
        // Which of the two is asked first is drawn, so ask until it was the other.
        while node.connections() == 0 {
            assert_eq!(client(&[&node, &good], LONG).stat("a").unwrap(), info("a"));
        }
    }
}

#[test]
fn another_cluster_is_said_at_once_and_a_good_node_beside_it_is_found() {
    let refuse = || {
        FakeNode::start(|mut caller| {
            caller.answer_hello(HelloStatus::OtherCluster, "this is cluster \"demo\"");
        })
    };
    let node = refuse();
    let begin = Instant::now();
    let error = client(&[&node], LONG).write("a", "x", 0).unwrap_err();
    assert!(matches!(error, ClientError::WrongServers { .. }), "{error}");
    assert!(error.to_string().contains("this is cluster"), "{error}");
    assert!(begin.elapsed() < LONG / 2, "it did not wait for the time limit");

    let good = FakeNode::answering(|_, _| changed(1));
    assert_eq!(client(&[&refuse(), &good], LONG).write("a", "x", 0).unwrap(), Version(1));
}

#[test]
fn a_server_of_something_else_is_said_at_once() {
    let node = FakeNode::start(|mut caller| {
        let _ = caller.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        caller.wait_for_close();
    });
    let error = client(&[&node], LONG).stat("a").unwrap_err();
    assert!(matches!(error, ClientError::WrongServers { .. }), "{error}");
}

#[test]
fn a_node_that_is_full_at_the_hello_is_tried_again() {
    let node = FakeNode::start(|mut caller| {
        if caller.number < 2 {
            caller.answer_hello(HelloStatus::Busy, "too many connections");
            return;
        }
        caller.welcome();
        while let Some(request) = caller.request() {
            caller.reply(request.id, Outcome::Changed { version: Version(1) });
        }
    });
    assert_eq!(client(&[&node], LONG).write("a", "x", 0).unwrap(), Version(1));
}

#[test]
fn list_goes_through_all_pages() {
    let node = FakeNode::answering(|_, operation| {
        let Operation::List { prefix, after, .. } = operation else { panic!("not a list: {operation:?}") };
        assert_eq!(prefix, "d/");
        let (names, more) = match after.as_str() {
            "" => (["d/a", "d/b"], true),
            "d/b" => (["d/c", "d/d"], false),
            other => panic!("asked for what is behind {other}"),
        };
        Some(Outcome::Listed { files: names.map(info).to_vec(), more })
    });
    let files = client(&[&node], LONG).list("d/").unwrap();
    assert_eq!(files, ["d/a", "d/b", "d/c", "d/d"].map(info));
}

#[test]
fn what_no_node_could_take_is_refused_before_it_is_sent() {
    let node = FakeNode::answering(|_, _| changed(1));
    let mut client = client(&[&node], LONG);
    let long = "x".repeat(70_000);
    assert!(matches!(
        client.write(&long, "x", 0).unwrap_err(),
        ClientError::Refused(Refusal::InvalidName { .. })
    ));
    assert!(matches!(
        client.write("a", vec![0; fsclient::CONTENTS_BYTES_MAX + 1], 0).unwrap_err(),
        ClientError::Refused(Refusal::TooLarge { .. })
    ));
    assert_eq!(node.requests(), 0);
    assert_eq!(client.write("a", vec![0; fsclient::CONTENTS_BYTES_MAX], 0).unwrap(), Version(1));
    for servers in [vec![], vec!["host"], vec![":7"], vec!["host:0"], vec!["host:65536"], vec!["h h:7"]] {
        assert!(matches!(Client::new(servers).unwrap_err(), ClientError::Usage(_)));
    }
}

#[test]
fn a_request_that_cannot_leave_in_full_is_not_unknown() {
    // The node welcomes and then takes nothing: the sockets' buffers are far smaller than the contents, and
    // half a frame is acted on by nobody.
    let node = FakeNode::start(|mut caller| {
        caller.welcome();
        loop {
            std::thread::park();
        }
    });
    let mut client = client(&[&node], SHORT);
    let error = client.write("a", vec![7; fsclient::CONTENTS_BYTES_MAX], 0).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
}

#[test]
fn status_asks_every_node_and_tells_who_does_not_answer() {
    let status = |node| NodeStatus {
        node: NodeId(node),
        role: NodeRole::Leader,
        term: Term(2),
        leader: Some(NodeId(1)),
        commit_index: LogIndex(5),
        last_applied: LogIndex(5),
        first_log_index: LogIndex(1),
        last_log_index: LogIndex(6),
        files: 3,
        revision: Version(9),
        cluster: "demo".to_owned(),
    };
    let storage =
        StorageStatus { log_bytes: 8192, live_bytes: 83, total_bytes: 16_384, ..StorageStatus::default() };
    let first = FakeNode::answering(move |_, operation| match operation {
        Operation::Status => Some(Outcome::Status(status(1))),
        Operation::StorageStatus => Some(Outcome::StorageStatus(storage)),
        other => panic!("{other:?} was not expected"),
    });
    // An older release closes the connection, or says that the request makes no sense.
    let older = FakeNode::start(move |mut caller| {
        caller.welcome();
        let request = caller.request().unwrap();
        caller.reply(request.id, Outcome::Status(status(2)));
        let _ = caller.request();
    });
    let other = FakeNode::answering(move |_, operation| {
        Some(match operation {
            Operation::Status => Outcome::Status(status(3)),
            _ => Outcome::Refused(Refusal::BadRequest { reason: "what is that".to_owned() }),
        })
    });
    let stopped = FakeNode::start(|mut caller| caller.wait_for_close());
    let dead = dead_address();
    let servers = [&first.address, &stopped.address, &dead, &older.address, &other.address];
    let client = Client::new(servers.map(Clone::clone)).unwrap().with_attempt_timeout(SHORT);
    let reports = client.status();
    let addresses: Vec<&String> = reports.iter().map(|report| &report.address).collect();
    assert_eq!(addresses, servers);
    assert_eq!(reports[0].status.as_ref().unwrap(), &status(1));
    assert!(matches!(reports[1].status, Err(AttemptError::TimedOut)), "{reports:?}");
    assert!(matches!(reports[2].status, Err(AttemptError::Connect(_))), "{reports:?}");
    assert_eq!(reports[3].status.as_ref().unwrap(), &status(2));
    assert_eq!(reports[4].status.as_ref().unwrap(), &status(3));
    let storages: Vec<Option<StorageStatus>> = reports.iter().map(|report| report.storage).collect();
    assert_eq!(storages, [Some(storage), None, None, None, None]);
    assert_eq!((first.connections(), older.connections()), (1, 1), "the same connection is used");
}

#[test]
fn pipelined_requests_are_answered_in_any_order() {
    let node = FakeNode::start(|mut caller| {
        caller.welcome();
        let requests: Vec<_> = (0..100).map(|_| caller.request().unwrap()).collect();
        for request in requests.into_iter().rev() {
            caller.reply(request.id, Outcome::Changed { version: Version(request.id.0 + 1000) });
        }
        caller.wait_for_close();
    });
    let deadline = Instant::now() + LONG;
    let mut connection = Connection::open(&node.address, "", deadline).unwrap();
    let operation = Operation::Stat { name: "a".to_owned() };
    let mut ids: Vec<_> = (0..100).map(|_| connection.submit(operation.clone(), deadline)).collect();
    connection.flush(deadline).unwrap();
    while let Some(id) = ids.pop() {
        let reply = connection.receive(deadline).unwrap();
        assert_eq!((reply.id, reply.outcome), (id, Outcome::Changed { version: Version(id.0 + 1000) }));
    }
}
