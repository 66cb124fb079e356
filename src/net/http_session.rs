//! One connection to a node's pages: a small part of HTTP/1.1 (RFC 9112), strictly read.
//!
//! Only `GET` and `HEAD` of the pages are served; there are no bodies, no ranges, no compression. Requests may be
//! pipelined: the next one is looked at when the reply to the one before has left. What breaks the rules is
//! answered with 400 and ends the connection, because nothing behind it can be trusted.

use bytes::Bytes;
use fsd_wire::ReceiveBuffer;

use crate::limits;

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// A page that the server makes; the session makes the others by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpPage {
    /// Whether the node knows a leader and has applied what was committed when it was asked.
    Readiness,
    /// What the node measures.
    Metrics,
}

/// The server's answer to the request for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// 200 if it holds, 503 with the reason in the body otherwise.
    pub is_ok: bool,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The page.
    pub body: String,
}

impl HttpReply {
    /// A line of plain text.
    #[must_use]
    pub fn plain(is_ok: bool, line: &str) -> Self {
        Self { is_ok, content_type: PLAIN_TEXT, body: format!("{line}\n") }
    }
}

/// The session's state.
#[derive(Debug)]
pub(super) struct HttpSession {
    buffer: ReceiveBuffer,
    /// The request that the server is to answer.
    unanswered: Option<Manner>,
    /// Nothing is read behind a request that asks for the end, or breaks the rules.
    ended: bool,
}

/// What a session has for the loop.
#[derive(Debug)]
pub(super) enum HttpStep {
    /// The server is to make this page.
    Page(HttpPage),
    /// A reply was made; ask again.
    Answered(Bytes),
    /// The request breaks the rules: this is the reply, and the connection ends.
    Broken { reply: Bytes, reason: String },
    /// Nothing until the server has answered.
    Held,
    /// Nothing until more bytes come.
    NeedBytes,
    /// The connection ends once what was said is written.
    Ended,
}

/// How a request is to be answered, whatever it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manner {
    with_body: bool,
    keep_alive: bool,
}

/// A request that keeps the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    target: Target,
    manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Health,
    Page(HttpPage),
    NotFound,
}

impl HttpSession {
    pub(super) fn new() -> Self {
        Self { buffer: ReceiveBuffer::new(), unanswered: None, ended: false }
    }

    /// Lets `read` put bytes behind those already received.
    pub(super) fn feed_from<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.buffer.feed_from(read)
    }

    /// The next thing to do. To be called when the reply to the request before has left: a client that takes no
    /// replies is not listened to.
    pub(super) fn step(&mut self) -> HttpStep {
        if self.unanswered.is_some() {
            return HttpStep::Held;
        }
        if self.ended {
            return HttpStep::Ended;
        }
        let Request { target, manner } = match parse(&self.buffer) {
            Ok(None) => return HttpStep::NeedBytes,
            Ok(Some((head_bytes, request))) => {
                self.buffer.advance(head_bytes);
                request
            }
            Err(reason) => {
                self.buffer.clear();
                self.ended = true;
                let manner = Manner { with_body: true, keep_alive: false };
                let reply = response("400 Bad Request", PLAIN_TEXT, &format!("{reason}\n"), manner);
                return HttpStep::Broken { reply, reason };
            }
        };
        self.ended = !manner.keep_alive;
        match target {
            // That it is answered is the answer: the loop turns.
            Target::Health => HttpStep::Answered(response("200 OK", PLAIN_TEXT, "ok\n", manner)),
            Target::NotFound => {
                let body = "there are /healthz, /readyz and /metrics\n";
                HttpStep::Answered(response("404 Not Found", PLAIN_TEXT, body, manner))
            }
            Target::Page(page) => {
                self.unanswered = Some(manner);
                HttpStep::Page(page)
            }
        }
    }

    /// The server's reply, as it goes to the client.
    ///
    /// # Panics
    /// If no request waits for one.
    pub(super) fn answer(&mut self, reply: &HttpReply) -> Bytes {
        let manner = self.unanswered.take().expect("a page is sent to whom asked for it");
        let status = if reply.is_ok { "200 OK" } else { "503 Service Unavailable" };
        response(status, reply.content_type, &reply.body, manner)
    }

    /// Whether no request waits for its reply.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_none()
    }

    /// Whether a request has begun to come and is not at its end.
    pub(super) fn is_amid_request(&self) -> bool {
        self.unanswered.is_none() && !self.buffer.is_empty()
    }
}

/// The first request in `bytes` and the length of its head; `None` until all of it has come; the rule that it
/// breaks, in words.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Request)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(bytes).map_err(|error| match error {
        httparse::Error::TooManyHeaders => {
            format!("more than {} header lines", limits::HTTP_HEADERS_MAX)
        }
        error => format!("not an HTTP request: {error}"),
    })?;
    let head_bytes = match status {
        httparse::Status::Partial => bytes.len(),
        httparse::Status::Complete(head_bytes) => head_bytes,
    };
    if head_bytes > limits::HTTP_HEAD_BYTES_MAX {
        return Err(format!("a request of more than {} bytes", limits::HTTP_HEAD_BYTES_MAX));
    }
    if status.is_partial() {
        return Ok(None);
    }
    let manner = check_headers(&parsed)?;
    let path = path_of(parsed.path.unwrap_or_default())?;
    let target = match (parsed.method, path) {
        (Some("GET" | "HEAD"), "/healthz") => Target::Health,
        (Some("GET" | "HEAD"), "/readyz") => Target::Page(HttpPage::Readiness),
        (Some("GET" | "HEAD"), "/metrics") => Target::Page(HttpPage::Metrics),
        _ => Target::NotFound,
    };
    Ok(Some((head_bytes, Request { target, manner })))
}

fn check_headers(request: &httparse::Request) -> Result<Manner, String> {
    let is_1_1 = request.version == Some(1);
    let values = |name: &'static str| {
        request
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    // Section 3.2 of RFC 9112.
    let hosts = values("host").count();
    if hosts > 1 || (is_1_1 && hosts == 0) {
        return Err(format!("{hosts} Host headers"));
    }
    // Section 6: what says neither has no body. Were one skipped that was not understood, its bytes could be taken
    // for a request.
    let has_body = values("content-length").any(|value| value.trim_ascii() != b"0");
    if has_body || values("transfer-encoding").next().is_some() {
        return Err("no page takes a body".into());
    }
    let says = |option: &[u8]| {
        values("connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(option))
    };
    let keep_alive = !says(b"close") && (is_1_1 || says(b"keep-alive"));
    Ok(Manner { with_body: request.method != Some("HEAD"), keep_alive })
}

/// The path of a request's target, which may come with the scheme and the host (section 3.2.2) and with a query.
fn path_of(target: &str) -> Result<&str, String> {
    let absolute = target
        .split_once("://")
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"))
        .map(|(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
    let path = absolute.unwrap_or(target);
    if !path.starts_with('/') && path != "*" {
        return Err("the target is not a path".into());
    }
    Ok(path.split(['?', '#']).next().unwrap_or_default())
}

fn response(status: &str, content_type: &str, body: &str, manner: Manner) -> Bytes {
    let connection = if manner.keep_alive { "keep-alive" } else { "close" };
    let length = body.len();
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: {connection}\r\n\r\n"
    );
    if manner.with_body {
        text += body;
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a session in pieces of `size` bytes and answers each page; gives all that was said, and whether the
    /// connection ends.
    fn talk(input: &[u8], size: usize) -> (String, bool) {
        let mut session = HttpSession::new();
        let mut said = Vec::new();
        for piece in input.chunks(size) {
            session.buffer.feed(piece);
            loop {
                match session.step() {
                    HttpStep::Answered(reply) => said.extend_from_slice(&reply),
                    HttpStep::Broken { reply, .. } => said.extend_from_slice(&reply),
                    HttpStep::Page(page) => {
                        assert!(matches!(session.step(), HttpStep::Held) && !session.is_idle());
                        let reply = HttpReply::plain(page == HttpPage::Metrics, &format!("{page:?}"));
                        said.extend_from_slice(&session.answer(&reply));
                    }
                    HttpStep::NeedBytes => break,
                    HttpStep::Ended => return (String::from_utf8(said).unwrap(), true),
                    HttpStep::Held => panic!("held by nothing"),
                }
            }
        }
        (String::from_utf8(said).unwrap(), false)
    }

    fn statuses(said: &str) -> Vec<&str> {
        said.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).map(|line| &line[..3]).collect()
    }

    #[track_caller]
    fn expect(input: &str, expected: &[&str], ends: bool) {
        for size in [1, 7, input.len()] {
            let (said, ended) = talk(input.as_bytes(), size);
            assert_eq!((statuses(&said), ended), (expected.to_vec(), ends), "{input:?} by {size}: {said}");
        }
    }

    #[test]
    fn a_reply_has_its_length_and_a_head_request_gets_no_body() {
        let (said, _) = talk(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 100);
        assert_eq!(
            said,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Cache-Control: no-store\r\nConnection: keep-alive\r\n\r\nok\n"
        );
        let (said, _) = talk(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 100);
        assert!(said.contains("Content-Length: 3\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    }

    #[test]
    fn pages_are_found_by_their_path_alone_and_all_else_is_not() {
        for target in ["/healthz", "/healthz?x=/y", "http://node:1/healthz"] {
            expect(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), &["200"], false);
        }
        for line in ["GET /", "GET /healthz/", "GET /Healthz", "POST /healthz", "OPTIONS *", "GET http://a"] {
            expect(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"), &["404"], false);
        }
    }

    #[test]
    fn the_server_is_asked_for_the_pages_that_it_makes() {
        let (said, _) = talk(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n", 1000);
        assert_eq!(statuses(&said), ["503", "200"]);
        assert!(said.contains("\r\n\r\nReadiness\n") && said.ends_with("\r\n\r\nMetrics\n"), "{said}");
    }

    #[test]
    fn connections_are_kept_as_the_versions_have_it() {
        let head = "GET /healthz HTTP/1";
        for (rest, ends) in [
            (".1\r\nHost: a\r\n\r\n", false),
            (".1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
            (".1\r\nHost: a\r\nConnection: x\r\nConnection: y , Close\r\n\r\n", true),
            (".0\r\n\r\n", true),
            (".0\r\nConnection: Keep-Alive\r\n\r\n", false),
            (".0\r\nConnection: keep-alive, close\r\n\r\n", true),
        ] {
            expect(&format!("{head}{rest}"), &["200"], ends);
        }
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_up_to_the_end_that_one_asks_for() {
        let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        let input = request("/healthz", "")
            + &request("/nothing", "")
            + &request("/readyz", "Connection: close\r\n")
            + &request("/healthz", "");
        expect(&input, &["200", "404", "503"], true);
    }

    #[test]
    fn what_breaks_the_rules_is_answered_with_400_and_ends_the_connection() {
        let long = "x".repeat(limits::HTTP_HEAD_BYTES_MAX);
        let many = "a: b\r\n".repeat(limits::HTTP_HEADERS_MAX);
        let good = "GET /healthz HTTP/1.1\r\nHost: a\r\n";
        for input in [
            "\u{16}\u{3}\u{1}".to_owned(),
            "read app/settings\r\n".to_owned(),
            "GET /healthz\r\n\r\n".to_owned(),
            "GET /healthz HTTP/2.0\r\n\r\n".to_owned(),
            "GET healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
            format!("{good}Host: b\r\n\r\n"),
            format!("{good}Content-Length: 1\r\n\r\nx"),
            format!("{good}Content-Length: 0\r\nContent-Length: 5\r\n\r\n"),
            format!("{good}Content-Length: +0\r\n\r\n"),
            format!("{good}Transfer-Encoding: chunked\r\n\r\n"),
            format!("{good}no colon\r\n\r\n"),
            format!("{good}{many}\r\n"),
            format!("{good}a: {long}\r\n\r\n"),
            format!("GET /{long}"),
        ] {
            expect(&input, &["400"], true);
        }
        expect(&format!("{good}Content-Length: 0\r\n\r\n"), &["200"], false);
    }

    #[test]
    fn a_request_is_on_its_way_from_its_first_byte_until_it_is_whole() {
        let mut session = HttpSession::new();
        assert!(!session.is_amid_request());
        session.buffer.feed(b"GET /readyz HTTP/1.1\r\nHost: a\r\n");
        assert!(matches!(session.step(), HttpStep::NeedBytes));
        assert!(session.is_amid_request());
        session.buffer.feed(b"\r\nGET");
        assert!(matches!(session.step(), HttpStep::Page(HttpPage::Readiness)));
        assert!(!session.is_amid_request(), "it waits for the server");
        session.answer(&HttpReply::plain(true, "ready"));
        assert!(session.is_amid_request());
    }
}
