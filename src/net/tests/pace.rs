//! Clients' requests that are taken at a pace.

use super::*;

#[test]
fn clients_wait_at_a_pace_and_peers_do_not() {
    let (listener, address) = listen();
    let mut harness = Harness::with_peer(Some(address));
    let mut peer = harness.connect(ListenerKind::Peer);
    harness.welcome(&mut peer);
    drop(listener);
    let mut clients = [harness.connect(ListenerKind::Text), harness.connect(ListenerKind::Text)];
    harness.until("both are accepted", |harness| harness.net.clients == 2);
    harness.settle();

    // A request counts for more than all that may add up at this pace: the first is taken at once, and then one now and then.
    harness.net.pace(harness.now_ms, Some(1));
    clients[0].send_bytes(b"read a\r\n");
    let at_once = harness.request();
    harness.answer(at_once, not_found());
    clients[0].text(&mut harness, "ERR_FILE_NOT_FOUND\r\n");
    for client in &mut clients {
        client.send_bytes(b"read a\r\n");
    }
    peer.send(&peer_message(7));
    harness.until("a peer's message", |harness| !harness.events.is_empty());
    assert!(matches!(harness.events.remove(0), Event::Peer { .. }));
    // Whoever waits keeps nobody busy.
    harness.settle();
    assert!(harness.events.is_empty(), "{:?}", harness.events);

    harness.now_ms += 10_000;
    let first = harness.request();
    harness.settle();
    assert!(harness.events.is_empty(), "{:?}", harness.events);
    harness.now_ms += 10_000;
    let second = harness.request();
    assert_ne!(first.0, second.0);
    harness.answer(first, not_found());
    harness.answer(second, not_found());
    for client in &mut clients {
        client.text(&mut harness, "ERR_FILE_NOT_FOUND\r\n");
    }

    // Without a pace, all that waits is taken at once.
    for client in &mut clients {
        client.send_bytes(b"read a\r\n");
    }
    harness.settle();
    assert!(harness.events.is_empty(), "{:?}", harness.events);
    harness.net.pace(harness.now_ms, None);
    assert!(harness.net.is_ready(), "the kernel has said all that it will say of them");
    harness.until("both requests", |harness| harness.events.len() == 2);
}
