//! The pages: their connections have bounds of their own.

use super::*;
use crate::metrics::Page;

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

impl Harness {
    fn metrics(&self) -> String {
        let mut page = Page::default();
        self.net.write_metrics(&mut page);
        page.into_text()
    }

    #[track_caller]
    fn expect_metric(&self, line: &str) {
        let text = self.metrics();
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }

    fn page(&mut self) -> (ConnectionId, HttpPage) {
        self.until("the request for a page", |harness| !harness.events.is_empty());
        match self.events.remove(0) {
            Event::Page { connection, page } => (connection, page),
            other => panic!("a page was to be asked for, not {other:?}"),
        }
    }
}

impl Caller {
    /// Waits for the whole reply, which must have this status and end like this.
    fn reply(&mut self, harness: &mut Harness, status: &str, end: &str) {
        harness.until(status, |_| {
            self.take();
            self.received.ends_with(end.as_bytes())
        });
        let text = String::from_utf8_lossy(&self.received).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        self.received.clear();
    }
}

#[test]
fn a_page_goes_to_whom_asked_and_the_next_request_waits_for_it() {
    let mut harness = Harness::new();
    let mut caller = harness.connect(ListenerKind::Http);
    caller.send_bytes(&[b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", HEALTH].concat());
    let (connection, page) = harness.page();
    assert_eq!(page, HttpPage::Metrics);
    harness.settle();
    caller.take();
    assert!(caller.received.is_empty(), "no reply overtakes the one before");
    harness.net.reply_page(connection, &HttpReply::plain(true, "all of them"));
    caller.reply(&mut harness, "200 OK", "ok\n");
    harness.settle();
    assert_eq!(harness.net.page_readers, 1, "the connection is kept");
}

#[test]
fn what_is_no_request_is_refused_and_counted() {
    let mut harness = Harness::new();
    let mut caller = harness.connect(ListenerKind::Http);
    caller.send_bytes(b"\x16\x03\x01 this is not HTTP\r\n\r\n");
    caller.reply(&mut harness, "400", "\n");
    caller.end(&mut harness);
    harness.expect_metric("fsd_protocol_errors_total{side=\"http\",reason=\"http_request\"} 1");
    let mut client = harness.connect(ListenerKind::Client);
    client.send_bytes(HEALTH);
    client.end(&mut harness);
    harness.expect_metric("fsd_protocol_errors_total{side=\"client\",reason=\"no_frame\"} 1");
    let mut text = harness.connect(ListenerKind::Text);
    text.send_bytes(b"bogus\r\n");
    text.end(&mut harness);
    harness.expect_metric("fsd_protocol_errors_total{side=\"text\",reason=\"text_command\"} 1");
}

#[test]
fn readers_of_pages_have_their_own_bound_and_take_no_clients_place() {
    let mut harness = Harness::new();
    let mut readers: Vec<Caller> =
        (0..limits::HTTP_CONNECTIONS_MAX).map(|_| harness.connect(ListenerKind::Http)).collect();
    harness.until("all are accepted", |h| h.net.page_readers == limits::HTTP_CONNECTIONS_MAX);
    let mut one_too_many = harness.connect(ListenerKind::Http);
    one_too_many.end(&mut harness);
    harness.expect_metric("fsd_connections_refused_total{side=\"http\"} 1");
    harness.expect_metric(&format!("fsd_connections{{side=\"http\"}} {}", limits::HTTP_CONNECTIONS_MAX));
    assert_eq!((harness.net.clients, harness.net.accepted_peers), (0, 0));

    let mut client = harness.connect(ListenerKind::Client);
    client.send(&hello(Role::Client));
    client.frame(&mut harness);
    readers[0].send_bytes(HEALTH);
    readers[0].reply(&mut harness, "200 OK", "ok\n");
    drop(readers.pop());
    harness.until("there is room", |h| h.net.page_readers < limits::HTTP_CONNECTIONS_MAX);
    let mut next = harness.connect(ListenerKind::Http);
    next.send_bytes(HEALTH);
    next.reply(&mut harness, "200 OK", "ok\n");
    harness.expect_metric("fsd_connections_closed_total{side=\"http\"} 1");
}

#[test]
fn a_reader_that_begins_a_request_or_says_nothing_is_given_up_in_time() {
    let mut harness = Harness::new();
    harness.net.start(0);
    harness.timers.extend(harness.net.take_timers());
    let mut slow = harness.connect(ListenerKind::Http);
    let mut silent = harness.connect(ListenerKind::Http);
    harness.until("both are accepted", |h| h.net.page_readers == 2);
    // A byte now and then does not make it a reader.
    let mut sent = HEALTH.iter();
    for _ in 0..=limits::HTTP_REQUEST_MS_MAX / SWEEP_MS {
        slow.send_bytes(&[*sent.next().expect("a request is longer than that")]);
        harness.settle();
        harness.fire(NetTimer::Sweep);
    }
    slow.end(&mut harness);
    harness.settle();
    assert_eq!(harness.net.page_readers, 1);
    for _ in 0..limits::HTTP_IDLE_MS_MAX / SWEEP_MS {
        harness.fire(NetTimer::Sweep);
    }
    silent.end(&mut harness);
}

#[test]
fn a_reader_that_takes_no_replies_is_not_listened_to() {
    let mut harness = Harness::new();
    let mut caller = harness.connect(ListenerKind::Http);
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    caller.send_bytes(&request.repeat(3));
    let (connection, _) = harness.page();
    // More than the kernel takes for a reader that does not read.
    let page = HttpReply::plain(true, &"x".repeat(32 * 1024 * 1024));
    harness.net.reply_page(connection, &page);
    harness.settle();
    assert!(harness.events.is_empty(), "the next request waits");
    let unsent = harness.metrics();
    let unsent =
        unsent.lines().find_map(|line| line.strip_prefix("fsd_unsent_bytes{side=\"http\"} ")).unwrap();
    assert!(unsent.parse::<usize>().unwrap() > 0);
    harness.until("the next request", |harness| {
        caller.take();
        !harness.events.is_empty()
    });
}
