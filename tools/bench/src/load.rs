//! Many clients, each with one request in flight, on one thread.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest, Operation, Outcome};
use fsd_wire::{Command, FrameDecoder, Message, Operation as Change, RequestId};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::cluster::{REPLY_BYTES_MAX, hello};
use crate::{Error, Measured};

/// Without a reply for this long, something is broken.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the clients do.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Write,
    Read,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
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
            clients.push(Client { socket, decoder, output: hello(), greeted: false, sent: Instant::now() });
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
                            check(&ClientReply::decode(&frame)?.outcome)?;
                            if client.sent >= begin {
                                latencies_us.record(client.sent.elapsed().as_micros() as u64)?;
                            }
                        }
                        client.sent = Instant::now();
                        client.output = self.request(at);
                        client.write()?;
                    }
                }
            }
        }
        Ok(Measured { latencies_us, elapsed: begin.elapsed() })
    }

    fn request(&self, client: usize) -> Vec<u8> {
        let name = format!("bench/{client}");
        let operation = match self.work {
            Work::Read => Operation::Read { name },
            Work::Write => Operation::Change {
                command: Command {
                    operation: Change::Write { expiry_seconds: 0 },
                    name,
                    contents: Bytes::from(vec![b'x'; self.bytes]),
                }
                .encode(),
            },
        };
        ClientRequest { id: RequestId(client as u64), timeout_ms: 10_000, operation }.to_frame().concat()
    }
}

impl Client {
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

fn check(outcome: &Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Read { .. } | Outcome::Changed { .. } => Ok(()),
        other => Err(format!("a request was not done: {other:?}").into()),
    }
}
