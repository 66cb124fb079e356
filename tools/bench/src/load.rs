//! Many clients, each with one request in flight, on one thread.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest, Operation, Outcome};
use fsd_wire::{
    Command, FrameDecoder, Message, Operation as Change, Payload, RequestId, Sequence, SessionId,
};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::connection::{REPLY_BYTES_MAX, hello};
use crate::{Error, Measured};

/// Without a reply for this long, something is broken.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the clients do.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Write,
    /// Each client has a session, and numbers its writes in it.
    SessionWrite,
    Read,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::SessionWrite => "session write",
            Self::Read => "read",
        })
    }
}

/// A measurement.
pub(crate) struct Load {
    pub(crate) leader: SocketAddr,
    pub(crate) clients: usize,
    pub(crate) bytes: usize,
    pub(crate) work: Work,
}

struct Client {
    socket: TcpStream,
    decoder: FrameDecoder,
    output: Vec<u8>,
    greeted: bool,
    /// Its session, if the work needs one, and the number of its last write in it.
    session: Option<(SessionId, Sequence)>,
    sent: Instant,
}

impl Load {
    /// Runs for `window`, after a quarter of it as a warm-up that is not counted.
    pub(crate) fn run(&self, window: Duration) -> Result<Measured, Error> {
        let mut poll = Poll::new()?;
        let mut clients = Vec::new();
        for at in 0..self.clients {
            let mut socket = TcpStream::connect(self.leader)?;
            poll.registry().register(&mut socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
            let decoder = FrameDecoder::new(REPLY_BYTES_MAX);
            let (output, sent) = (hello(), Instant::now());
            clients.push(Client { socket, decoder, output, greeted: false, session: None, sent });
        }
        let mut events = Events::with_capacity(1024);
        let mut latencies_us = Histogram::new(3)?;
        let begin = Instant::now() + window / 4;
        let end = begin + window;
        while Instant::now() < end {
            poll.poll(&mut events, Some(PATIENCE))?;
            if events.is_empty() {
                return Err("the cluster does not answer".into());
            }
            for event in &events {
                let at = event.token().0;
                let client = &mut clients[at];
                client.write()?;
                while client.read()? {
                    while let Some(frame) = client.decoder.next_frame()? {
                        if !client.greeted {
                            client.greeted = true;
                        } else {
                            client.take(&ClientReply::decode(&frame)?.outcome)?;
                            if client.sent >= begin {
                                latencies_us.record(client.sent.elapsed().as_micros() as u64)?;
                            }
                        }
                        client.sent = Instant::now();
                        client.output = self.request(at, &mut client.session);
                        client.write()?;
                    }
                }
            }
        }
        Ok(Measured { latencies_us, elapsed: begin.elapsed() })
    }

    fn request(&self, client: usize, session: &mut Option<(SessionId, Sequence)>) -> Vec<u8> {
        let name = format!("bench/{client}");
        let operation = match (self.work, session) {
            (Work::Read, _) => Operation::Read { name },
            (Work::Write, _) => Operation::Change { command: self.write(name) },
            (Work::SessionWrite, None) => Operation::OpenSession,
            (Work::SessionWrite, Some((session, last))) => {
                let acknowledged = *last;
                *last = Sequence(acknowledged.0 + 1);
                let command = self.write(name);
                Operation::SessionChange { session: *session, sequence: *last, acknowledged, command }
            }
        };
        ClientRequest { id: RequestId(client as u64), timeout_ms: 10_000, operation }.to_frame().concat()
    }

    fn write(&self, name: String) -> Payload {
        let contents = Bytes::from(vec![b'x'; self.bytes]);
        Command { operation: Change::Write { expiry_seconds: 0 }, name, contents }.encode()
    }
}

impl Client {
    /// Takes a reply up.
    fn take(&mut self, outcome: &Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Read { .. } | Outcome::Changed { .. } => Ok(()),
            Outcome::SessionOpened { session, .. } => {
                self.session = Some((*session, Sequence(0)));
                Ok(())
            }
            other => Err(format!("a request was not done: {other:?}").into()),
        }
    }

    fn write(&mut self) -> Result<(), Error> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether bytes came.
    fn read(&mut self) -> Result<bool, Error> {
        match self.decoder.feed_from(|room| self.socket.read(room)) {
            Ok(0) => Err("the leader closed a connection".into()),
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
