//! A node that does as a test tells it, on a loopback port of the system's choice.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fsclient::{
    AttemptError, Client, ClientError, NodeId, Operation, Outcome, Refusal, RequestId, SessionId, Term,
};
use fsd_wire::client::{ClientReply, ClientRequest};
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Identity};
use fsd_wire::{FrameDecoder, Message};

/// The node. Its threads end with the test's process.
pub(crate) struct FakeNode {
    pub(crate) address: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

/// One connection to it, as the script sees it. It is closed when the script returns.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    /// How many connections there were before this one.
    pub(crate) number: usize,
    decoder: FrameDecoder,
    requests: Arc<AtomicUsize>,
}

impl FakeNode {
    /// Runs `script` for every connection, each in a thread of its own.
    pub(crate) fn start(script: impl Fn(Caller) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicUsize::new(0));
        let node = Self {
            address,
            connections: Arc::clone(&connections),
            requests: Arc::clone(&requests),
            closed: Arc::clone(&closed),
        };
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let caller = Caller {
                    stream: stream.unwrap(),
                    number: connections.fetch_add(1, Ordering::SeqCst),
                    decoder: FrameDecoder::new(20 * 1024 * 1024),
                    requests: Arc::clone(&requests),
                };
                let script = Arc::clone(&script);
                let closed = Arc::clone(&closed);
                std::thread::spawn(move || {
                    script(caller);
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        node
    }

    /// A node that welcomes everyone and answers each request with what `answer` says; `None` answers nothing.
    /// Sessions are opened and closed without asking.
    pub(crate) fn answering(
        answer: impl Fn(usize, &Operation) -> Option<Outcome> + Send + Sync + 'static,
    ) -> Self {
        let count = AtomicUsize::new(0);
        Self::start(move |mut caller| {
            caller.welcome();
            while let Some(request) = caller.request() {
                if let Some(outcome) = answer(count.fetch_add(1, Ordering::SeqCst), &request.operation) {
                    caller.reply(request.id, outcome);
                }
            }
        })
    }

    /// A node that sends every request elsewhere.
    pub(crate) fn redirecting(leader: impl Into<String>, term: u64) -> Self {
        let leader = leader.into();
        Self::answering(move |_, _| Some(not_leader(&leader, term)))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until the scripts of so many connections have ended, and those connections are closed.
    pub(crate) fn wait_until_closed(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.closed.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "the connections are not closed");
            std::thread::yield_now();
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(crate) fn not_leader(address: &str, term: u64) -> Outcome {
    Outcome::Refused(Refusal::NotLeader { leader: NodeId(2), address: address.to_owned(), term: Term(term) })
}

/// A session that does not end during a test.
pub(crate) fn session_opened(session: u64) -> Outcome {
    Outcome::SessionOpened { session: SessionId(session), idle_ms: 3_600_000 }
}

/// The error of a change that no node takes. A machine may be so slow that the last attempt is not answered before
/// the time is over, which leaves the outcome unknown; then the change is tried again.
pub(crate) fn error_of_untaken_write(client: &mut Client) -> ClientError {
    for _ in 0..20 {
        match client.write("a", "x", 0).unwrap_err() {
            ClientError::Unknown { why: AttemptError::TimedOut, .. } => {}
            error => return error,
        }
    }
    panic!("every time an attempt was not answered");
}

/// An address at which nobody listens: one of ports that the system gives to nobody who asks for any, and that no service
/// has. One that was bound and closed again would soon be somebody else's.
pub(crate) fn dead_address() -> String {
    static GIVEN_OUT: AtomicU16 = AtomicU16::new(0);
    format!("127.0.0.1:{}", GIVEN_OUT.fetch_add(1, Ordering::Relaxed) % 4 + 1)
}

impl Caller {
    /// Takes the hello and welcomes the caller. Returns what it said.
    pub(crate) fn welcome(&mut self) -> Hello {
        self.answer_hello(HelloStatus::Welcome, "")
    }

    pub(crate) fn answer_hello(&mut self, status: HelloStatus, reason: &str) -> Hello {
        let frame = self.frame().expect("a hello comes first");
        let hello = Hello::decode(&frame).unwrap();
        let reply = HelloReply {
            status,
            protocol: 1,
            cluster: "demo".to_owned(),
            identity: Identity::default(),
            reason: reason.to_owned(),
        };
        self.send(&reply);
        hello
    }

    /// The next request that does not open or close a session, which is done at once; `None` when the caller is
    /// gone.
    pub(crate) fn request(&mut self) -> Option<ClientRequest> {
        loop {
            let request = self.any_request()?;
            match request.operation {
                Operation::OpenSession => self.reply(request.id, session_opened(1)),
                Operation::CloseSession { .. } => self.reply(request.id, Outcome::SessionDone),
                _ => {
                    self.requests.fetch_add(1, Ordering::SeqCst);
                    return Some(request);
                }
            }
        }
    }

    /// The next request, whatever it is, or `None` when the caller is gone.
    pub(crate) fn any_request(&mut self) -> Option<ClientRequest> {
        Some(ClientRequest::decode(&self.frame()?).unwrap())
    }

    pub(crate) fn reply(&mut self, id: RequestId, outcome: Outcome) {
        self.send(&ClientReply { id, outcome });
    }

    pub(crate) fn send(&mut self, message: &impl Message) {
        for piece in message.to_frame() {
            // The caller may be gone; then there is nobody to tell.
            let _ = self.stream.write_all(&piece);
        }
    }

    /// Waits until the caller closes the connection.
    pub(crate) fn wait_for_close(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }

    fn frame(&mut self) -> Option<fsd_wire::Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let stream = &mut self.stream;
            match self.decoder.feed_from(|buffer| stream.read(buffer)) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}
