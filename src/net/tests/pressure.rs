//! Clients that send or take too little or too much, and strangers at the peers' port. Time is what the test says.

use super::*;
use crate::net::deadlines::Owed;

const MIB: usize = 1024 * 1024;

/// Sweeps after which something that may take so long is over.
fn sweeps_of(ms: u64) -> u64 {
    ms / SWEEP_MS + 1
}

impl Harness {
    fn with_pending(max_pending_bytes: usize) -> Self {
        Self::with_bounds(None, 100, max_pending_bytes)
    }

    /// Lets so many sweeps pass, then everything that follows from them.
    fn sweep_times(&mut self, count: u64) {
        if !self.timers.iter().any(|(_, timer)| *timer == NetTimer::Sweep) {
            self.timers.push((self.now_ms, NetTimer::Sweep));
        }
        for _ in 0..count {
            self.fire(NetTimer::Sweep);
            self.turn();
        }
    }

    /// A connection that was accepted and, unless it is of a peer, has been read once.
    fn connected(&mut self, kind: ListenerKind) -> Caller {
        let before = self.net.connections.len();
        let caller = self.connect(kind);
        self.until("it is accepted", |harness| harness.net.connections.len() > before);
        self.settle();
        caller
    }

    fn greeted(&mut self) -> Caller {
        let mut client = self.connected(ListenerKind::Client);
        client.send(&hello(Role::Client));
        let reply = HelloReply::decode(&client.frame(self)).unwrap();
        assert_eq!(reply.status, HelloStatus::Welcome);
        self.settle();
        client
    }

    fn connections(&self) -> usize {
        self.net.connections.len()
    }

    fn assert_nothing_is_pending(&mut self) {
        self.settle();
        assert_eq!(self.net.budget.held_bytes(), 0);
    }

    fn answer_all(&mut self, outcome: impl Fn() -> Outcome) {
        for event in std::mem::take(&mut self.events) {
            let Event::Request { connection, request, .. } = event else { panic!("no request") };
            self.answer((connection, request.id), outcome());
        }
    }
}

impl Caller {
    /// Sends more than the kernel's buffers may hold, while the other side takes its turns.
    fn send_all(&mut self, harness: &mut Harness, mut bytes: &[u8]) {
        harness.until("all is sent", |_| {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "the connection failed"),
            }
            bytes.is_empty()
        });
        harness.settle();
    }

    fn outcome(&mut self, harness: &mut Harness) -> (RequestId, Outcome) {
        let reply = ClientReply::decode(&self.frame(harness)).unwrap();
        (reply.id, reply.outcome)
    }
}

fn change_frame(id: u64, bytes: usize) -> Vec<u8> {
    let operation = fsd_wire::Operation::Write { expiry_seconds: 0 };
    let contents = Bytes::from(vec![b'c'; bytes]);
    let command = fsd_wire::Command { operation, name: "f".into(), contents }.encode();
    let operation = Operation::Change { command };
    ClientRequest { id: RequestId(id), timeout_ms: 1000, operation }.to_frame().concat()
}

fn contents(bytes: usize) -> Outcome {
    Outcome::Read { version: Version(1), expiry_seconds: 0, contents: Bytes::from(vec![b'c'; bytes]) }
}

#[test]
fn who_does_not_say_who_it_is_has_five_seconds() {
    for kind in [ListenerKind::Client, ListenerKind::Peer] {
        let mut harness = Harness::new();
        let mut silent = harness.connected(kind);
        let mut slow = harness.connected(kind);
        let bytes = hello(Role::Client).to_frame().concat();
        for byte in &bytes[..sweeps_of(limits::HELLO_MS_MAX) as usize] {
            slow.send_bytes(&[*byte]);
            harness.settle();
            assert_eq!(harness.connections(), 2);
            harness.sweep_times(1);
        }
        harness.until("both are closed", |harness| harness.connections() == 0);
        silent.end(&mut harness);
        slow.end(&mut harness);
        assert_eq!(harness.net.deadlines.len(), 0);
    }
}

#[test]
fn a_stranger_cannot_send_more_than_a_hello() {
    for kind in [ListenerKind::Client, ListenerKind::Peer] {
        let mut harness = Harness::new();
        let mut stranger = harness.connected(kind);
        stranger.send_bytes(&change_frame(1, 2000)[..100]);
        stranger.end(&mut harness);
    }
}

#[test]
fn a_message_that_has_begun_must_come_at_some_speed() {
    for text in [false, true] {
        let mut harness = Harness::new();
        let (mut slow, begin) = if text {
            (harness.connected(ListenerKind::Text), b"write f 900000\r\nccc".to_vec())
        } else {
            (harness.greeted(), change_frame(1, 900_000)[..100].to_vec())
        };
        slow.send_bytes(&begin);
        harness.settle();
        // Enough of it comes: it has the same time again.
        let enough = vec![b'c'; limits::MESSAGE_BYTES_MIN as usize];
        slow.send_all(&mut harness, &enough);
        harness.sweep_times(sweeps_of(limits::MESSAGE_MS));
        assert_eq!(harness.connections(), 1, "it was fast enough");
        for _ in 0..sweeps_of(limits::MESSAGE_MS) {
            assert_eq!(harness.connections(), 1);
            slow.send_bytes(b"c");
            harness.settle();
            harness.sweep_times(1);
        }
        harness.until("it is closed", |harness| harness.connections() == 0);
        assert_eq!(harness.net.budget.held_bytes(), 0);
    }
}

#[test]
fn a_command_a_byte_at_a_time_is_in_time_if_each_ends_in_time() {
    let mut harness = Harness::new();
    let mut client = harness.connected(ListenerKind::Text);
    for n in 0..3 {
        for byte in format!("read f{n}\r\nr").bytes().skip(usize::from(n > 0)) {
            client.send_bytes(&[byte]);
            harness.settle();
            harness.sweep_times(2);
        }
        harness.answer_all(not_found);
        client.text(&mut harness, "ERR_FILE_NOT_FOUND\r\n");
    }
    assert_eq!(harness.connections(), 1);
}

#[test]
fn a_request_for_a_page_has_ten_seconds_and_a_silent_reader_a_minute() {
    let mut harness = Harness::new();
    let mut slow = harness.connected(ListenerKind::Http);
    let mut silent = harness.connected(ListenerKind::Http);
    for _ in 0..20 {
        slow.send_bytes(b"G");
        harness.settle();
        assert_eq!(harness.connections(), 2);
        harness.sweep_times(1);
    }
    harness.sweep_times(2);
    slow.end(&mut harness);
    assert_eq!(harness.connections(), 1);
    harness.sweep_times(sweeps_of(limits::HTTP_IDLE_MS_MAX));
    silent.end(&mut harness);
    assert_eq!((harness.connections(), harness.net.page_readers), (0, 0));
}

#[test]
fn a_client_that_asks_for_nothing_goes_after_five_minutes() {
    let mut harness = Harness::new();
    let mut idle = harness.connected(ListenerKind::Text);
    let mut busy = harness.connected(ListenerKind::Text);
    let mut waiting = harness.greeted();
    waiting.send(&status_request(1));
    let request = harness.request();
    let half = sweeps_of(limits::CLIENT_IDLE_MS_MAX) / 2 + 1;
    for _ in 0..2 {
        assert_eq!(harness.connections(), 3);
        busy.send_bytes(b"read\r\n");
        harness.settle();
        harness.sweep_times(half);
    }
    idle.end(&mut harness);
    assert_eq!(harness.connections(), 2, "one of them asked, and one still waits");
    harness.answer(request, not_found());
    assert_eq!(waiting.outcome(&mut harness), (RequestId(1), not_found()));
    harness.sweep_times(2 * half);
    waiting.end(&mut harness);
    busy.end(&mut harness);
    harness.assert_nothing_is_pending();
    assert_eq!(harness.net.deadlines.len(), 0);
}

#[test]
fn an_idle_connection_costs_a_sweep_nothing() {
    let mut harness = Harness::new();
    let callers: Vec<_> = (0..50).map(|_| harness.greeted()).collect();
    // The hellos' deadlines are found to be settled; from then on nothing is due.
    harness.sweep_times(sweeps_of(limits::HELLO_MS_MAX) + 1);
    let tick = harness.net.deadlines.next_tick();
    assert_eq!(harness.net.deadlines.len(), callers.len());
    assert!(tick > sweeps_of(limits::CLIENT_IDLE_MS_MAX) - 64, "nothing is due before {tick}");
}

#[test]
fn a_client_that_takes_nothing_is_closed_and_one_that_takes_slowly_is_not() {
    let mut harness = Harness::new();
    let mut deaf = harness.connected(ListenerKind::Text);
    let mut slow = harness.connected(ListenerKind::Text);
    // More than the kernel's buffers take.
    for client in [&mut deaf, &mut slow] {
        client.send_bytes("read f\r\n".repeat(16).as_bytes());
    }
    harness.until("all requests", |harness| harness.events.len() == 32);
    harness.answer_all(|| contents(MIB));
    harness.settle();
    assert!(harness.net.budget.held_bytes() > 2 * MIB, "they wait");
    let mut buffer = vec![0; 64 * 1024];
    // The kernel's own buffers may grow once or twice meanwhile, which looks as if something was taken.
    for _ in 0..4 * sweeps_of(limits::REPLIES_MS) {
        if harness.connections() == 1 {
            break;
        }
        let _ = slow.stream.read(&mut buffer);
        harness.sweep_times(1);
    }
    assert_eq!(harness.connections(), 1, "one of them is closed");
    slow.take();
    harness.until("the rest is taken", |harness| {
        slow.take();
        harness.net.budget.held_bytes() == 0
    });
    assert!(!slow.ended);
    assert!(harness.net.get(ConnectionId::new(1, 2)).is_some_and(|slow| slow.owed_input() == Owed::Request));
}

#[test]
fn a_connection_that_ends_does_not_wait_for_ever_for_its_last_words_to_be_taken() {
    let mut harness = Harness::new();
    let mut deaf = harness.connected(ListenerKind::Text);
    // Until the kernel takes no more; but not so many that the connection is not read any further.
    while harness.net.budget.held_bytes() == 0 {
        deaf.send_bytes(b"read f\r\n");
        let request = harness.request();
        harness.answer(request, contents(MIB / 2));
        harness.settle();
    }
    deaf.send_bytes(b"bogus\r\n");
    harness.settle();
    let connection = harness.net.connections.iter().next().unwrap().1;
    assert_eq!((connection.phase, connection.output.is_empty()), (Phase::Ending, false));
    // The kernel may take the rest after all: then it is the other side's farewell that is waited for.
    harness.sweep_times(2 * sweeps_of(limits::LAST_REPLIES_MS) + sweeps_of(limits::LINGER_MS_MAX));
    harness.until("it is closed", |harness| harness.connections() == 0);
    harness.assert_nothing_is_pending();
}

#[test]
fn a_client_too_many_is_told_so() {
    let mut harness = Harness::with_bounds(None, 2, 256 * MIB);
    let first = harness.connected(ListenerKind::Text);
    let _second = harness.greeted();
    let mut text = harness.connect(ListenerKind::Text);
    text.send_bytes(b"read f\r\n");
    text.text(&mut harness, "ERR_INTERNAL too many connections\r\n");
    text.end(&mut harness);
    let mut binary = harness.connect(ListenerKind::Client);
    binary.send(&hello(Role::Client));
    binary.send(&status_request(1));
    let reply = HelloReply::decode(&binary.frame(&mut harness)).unwrap();
    assert_eq!((reply.status, &reply.reason[..]), (HelloStatus::Busy, "too many connections"));
    binary.end(&mut harness);
    assert!(harness.events.is_empty());

    // However many come, few are told at a time, and none of them stays.
    let crowd: Vec<_> = (0..50).map(|_| harness.connect(ListenerKind::Text)).collect();
    for _ in 0..10 {
        harness.settle();
        assert!(harness.connections() <= 2 + limits::REFUSED_CONNECTIONS_MAX);
    }
    harness.sweep_times(sweeps_of(limits::LINGER_MS_MAX));
    harness.until("all are gone", |harness| harness.connections() == 2);
    assert_eq!((harness.net.clients, harness.net.refused), (2, 0));
    drop((crowd, first));
    harness.until("there is room again", |harness| harness.connections() == 1);
    harness.connected(ListenerKind::Text);
    assert_eq!(harness.net.clients, 2);
}

#[test]
fn strangers_cannot_hold_the_port_of_the_peers() {
    let mut harness = Harness::new();
    let mut peer = harness.connect(ListenerKind::Peer);
    let peer_id = harness.welcome(&mut peer);
    let strangers: Vec<_> = (0..3 * limits::PEER_CONNECTIONS_MAX)
        .map(|_| {
            let stranger = harness.connect(ListenerKind::Peer);
            harness.settle();
            assert!(harness.net.accepted_peers <= limits::PEER_CONNECTIONS_MAX);
            stranger
        })
        .collect();
    assert_eq!(harness.net.accepted_peers, limits::PEER_CONNECTIONS_MAX);
    peer.send(&peer_message(1));
    harness.until("the peer is heard", |harness| !harness.events.is_empty());
    assert!(matches!(harness.events.remove(0), Event::Peer { from: PEER, .. }));
    assert_eq!(harness.net.links[&PEER].incoming, Some(peer_id));

    // And if it comes back while they are there, it finds room.
    let mut again = harness.connect(ListenerKind::Peer);
    let again_id = harness.welcome(&mut again);
    assert_eq!(harness.net.links[&PEER].incoming, Some(again_id));
    peer.end(&mut harness);
    assert_eq!(harness.net.unknown_peers.len(), harness.net.accepted_peers - 1);
    harness.sweep_times(sweeps_of(limits::HELLO_MS_MAX));
    harness.until("the strangers are gone", |harness| harness.net.accepted_peers == 1);
    assert!(harness.net.unknown_peers.is_empty());
    drop(strangers);
}

#[test]
fn a_command_that_finds_no_room_is_skipped_and_the_next_one_is_taken() {
    // Three quarters of 4 MiB are for large things: two of these, but not a third.
    let mut harness = Harness::with_pending(4 * MIB);
    let mut holders: Vec<_> = (0..3).map(|_| harness.connected(ListenerKind::Text)).collect();
    let command = [b"write f 1000000\r\n".to_vec(), vec![b'c'; 1_000_000], b"\r\n".to_vec()].concat();
    let mut taken = 0;
    for holder in &mut holders {
        holder.send_all(&mut harness, &command[..900_000]);
        holder.take();
        taken += usize::from(holder.received.is_empty());
        assert!(harness.net.budget.held_bytes() <= 3 * MIB);
    }
    assert!((1..3).contains(&taken), "{taken} found room");
    let refused = holders.last_mut().unwrap();
    refused.text(&mut harness, "ERR_INTERNAL busy\r\n");
    // What is left of it is skipped, and what follows is understood; small things find room.
    refused.send_all(&mut harness, &command[900_000..]);
    refused.send_bytes(b"read g\r\n");
    let read = harness.request();
    harness.answer(read, not_found());
    refused.text(&mut harness, "ERR_FILE_NOT_FOUND\r\n");
    // The others come to their end.
    for holder in &mut holders[..taken] {
        holder.send_all(&mut harness, &command[900_000..]);
        let write = harness.request();
        harness.answer(write, written(7));
        holder.text(&mut harness, "OK 7\r\n");
    }
    harness.assert_nothing_is_pending();
}

#[test]
fn a_frame_that_finds_no_room_is_skipped_and_the_next_one_is_taken() {
    let mut harness = Harness::with_pending(4 * MIB);
    let mut holders: Vec<_> = (0..3).map(|_| harness.greeted()).collect();
    let frame = change_frame(3, 1_000_000);
    for holder in &mut holders {
        holder.send_all(&mut harness, &frame[..900_000]);
        assert!(harness.net.budget.held_bytes() <= 3 * MIB);
    }
    let refused = holders.last_mut().unwrap();
    assert_eq!(refused.outcome(&mut harness), (RequestId(3), Outcome::Refused(Refusal::Busy)));
    refused.send_all(&mut harness, &frame[900_000..]);
    refused.send(&status_request(4));
    let status = harness.request();
    assert_eq!(status.1, RequestId(4));
    harness.answer(status, not_found());
    assert_eq!(refused.outcome(&mut harness), (RequestId(4), not_found()));
    // What a connection holds goes with it.
    drop(holders);
    harness.until("all are closed", |harness| harness.connections() == 0);
    harness.assert_nothing_is_pending();
}

#[test]
fn whole_requests_over_the_bound_are_answered_as_busy_and_nothing_is_done() {
    let mut harness = Harness::with_pending(4 * MIB);
    let mut client = harness.greeted();
    let mut other = harness.greeted();
    let mut text = harness.connected(ListenerKind::Text);
    let frames: Vec<u8> = (0..100).flat_map(|id| change_frame(id, 50_000)).collect();
    client.send_all(&mut harness, &frames);
    let taken = harness.events.len();
    assert!((40..90).contains(&taken), "{taken} were taken");
    let busy = Outcome::Refused(Refusal::Busy);
    for _ in taken..100 {
        assert_eq!(client.outcome(&mut harness).1, busy);
    }
    // For the others too, if they bring more than is left.
    let mut last = taken;
    loop {
        other.send(&bytes_request(7, 60_000));
        harness.settle();
        if harness.events.len() == last {
            break;
        }
        last = harness.events.len();
        assert!(last < 100, "what is held is not bounded");
    }
    assert_eq!(other.outcome(&mut harness), (RequestId(7), busy));
    text.send_bytes(&[b"write f 60000\r\n".to_vec(), vec![b'c'; 60_000], b"\r\n".to_vec()].concat());
    text.text(&mut harness, "ERR_INTERNAL busy\r\n");
    harness.answer_all(|| written(1));
    for _ in taken..last {
        assert_eq!(other.outcome(&mut harness), (RequestId(7), written(1)));
    }
    for _ in 0..taken {
        assert_eq!(client.outcome(&mut harness).1, written(1));
    }
    harness.assert_nothing_is_pending();
}

fn bytes_request(id: u64, bytes: usize) -> ClientRequest {
    let operation = fsd_wire::Operation::Write { expiry_seconds: 0 };
    let contents = Bytes::from(vec![b'c'; bytes]);
    let command = fsd_wire::Command { operation, name: "f".into(), contents }.encode();
    ClientRequest { id: RequestId(id), timeout_ms: 1000, operation: Operation::Change { command } }
}

#[test]
fn replies_that_nobody_takes_are_bounded_for_each_connection_and_for_all() {
    let mut harness = Harness::with_pending(64 * MIB);
    let mut clients: Vec<_> = (0..6).map(|_| harness.greeted()).collect();
    for client in &mut clients {
        for id in 0..40 {
            client.send(&ClientRequest {
                id: RequestId(id),
                timeout_ms: 1000,
                operation: Operation::Read { name: "f".into() },
            });
        }
    }
    harness.until("all requests", |harness| harness.events.len() == 6 * 40);
    harness.answer_all(|| contents(MIB));
    harness.settle();
    assert!(harness.net.budget.held_bytes() <= 48 * MIB + 6 * 40 * limits::REQUEST_OVERHEAD_BYTES);
    let unsent: Vec<_> =
        harness.net.connections.iter().map(|(_, connection)| connection.output.bytes()).collect();
    assert!(unsent.iter().all(|bytes| *bytes <= 16 * MIB + 64 * 1024), "{unsent:?}");
    let mut outcomes = [0, 0];
    for client in &mut clients {
        for _ in 0..40 {
            outcomes[usize::from(client.outcome(&mut harness).1 == Outcome::Refused(Refusal::Busy))] += 1;
        }
    }
    assert!(outcomes[0] >= 40 && outcomes[1] >= 100, "{outcomes:?} were shown and refused");
    harness.assert_nothing_is_pending();
}

#[test]
fn the_largest_request_and_the_largest_reply_pass_an_idle_node_at_the_smallest_bound() {
    let bound = usize::try_from(limits::pending_bytes_min(FILE_BYTES_MAX)).unwrap();
    let mut harness = Harness::with_pending(bound);
    let mut client = harness.greeted();
    client.send_all(&mut harness, &change_frame(1, FILE_BYTES_MAX as usize));
    let request = harness.request();
    harness.answer(request, contents(FILE_BYTES_MAX as usize));
    assert!(matches!(client.outcome(&mut harness).1, Outcome::Read { .. }));
    harness.assert_nothing_is_pending();
}

#[test]
fn no_more_is_taken_in_one_turn_than_may_be_in_memory_and_nobody_is_forgotten() {
    let mut harness = Harness::new();
    let mut clients: Vec<_> = (0..24).map(|_| harness.greeted()).collect();
    for client in &mut clients {
        // As much as the kernel takes: no turn is taken meanwhile.
        let frame = change_frame(1, 1_000_000);
        let sent = client.stream.write(&frame).unwrap();
        client.received = frame[sent..].to_vec();
    }
    let (mut turns, mut taken) = (0, 0);
    while taken < clients.len() && turns < TURNS_MAX {
        for client in &mut clients {
            let rest = std::mem::take(&mut client.received);
            let sent = client.stream.write(&rest).unwrap_or(0);
            client.received = rest[sent..].to_vec();
        }
        harness.turn();
        assert!(harness.events.len() <= 17, "{} MB in one turn", harness.events.len());
        taken += harness.events.len();
        harness.answer_all(|| written(1));
        turns += 1;
    }
    assert_eq!(taken, clients.len());
    for client in &mut clients {
        assert_eq!(client.outcome(&mut harness).1, written(1));
    }
    harness.assert_nothing_is_pending();
}
