//! A client that waits: requests are sent together, and their replies awaited together.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fsd_wire::client::{ClientReply, ClientRequest, NodeStatus, Operation, Outcome};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, Role};
use fsd_wire::{FrameDecoder, Message, RequestId};

use crate::Error;

/// Frames that a node sends to a client are at most this long.
pub(crate) const REPLY_BYTES_MAX: u32 = 20 * 1024 * 1024;
/// A node that does not answer for so long is given up.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// A connection to a node that has welcomed it.
pub(crate) struct Connection {
    socket: TcpStream,
    decoder: FrameDecoder,
}

impl Connection {
    pub(crate) fn open(node: SocketAddr) -> Result<Self, Error> {
        let mut socket = TcpStream::connect_timeout(&node, CONNECT_PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        socket.write_all(&hello())?;
        let mut connection = Self { socket, decoder: FrameDecoder::new(REPLY_BYTES_MAX) };
        connection.next_frame()?;
        Ok(connection)
    }

    /// Asks for all of it at once. The outcomes are in the order of the requests.
    pub(crate) fn ask(&mut self, operations: Vec<Operation>) -> Result<Vec<Outcome>, Error> {
        let mut outcomes: Vec<Option<Outcome>> = operations.iter().map(|_| None).collect();
        let mut bytes = Vec::new();
        for (at, operation) in operations.into_iter().enumerate() {
            let request = ClientRequest { id: RequestId(at as u64), timeout_ms: 10_000, operation };
            for part in request.to_frame() {
                bytes.extend_from_slice(&part);
            }
        }
        self.socket.write_all(&bytes)?;
        for _ in 0..outcomes.len() {
            let reply = ClientReply::decode(&self.next_frame()?)?;
            let at = usize::try_from(reply.id.0)?;
            *outcomes.get_mut(at).ok_or("a reply to nothing")? = Some(reply.outcome);
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.ok_or_else(|| "two replies to one request".into()))
            .collect()
    }

    pub(crate) fn ask_one(&mut self, operation: Operation) -> Result<Outcome, Error> {
        Ok(self.ask(vec![operation])?.remove(0))
    }

    fn next_frame(&mut self) -> Result<fsd_wire::Frame, Error> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            if self.decoder.feed_from(|room| self.socket.read(room))? == 0 {
                return Err("the node closed the connection".into());
            }
        }
    }
}

/// What a node says of itself.
pub(crate) fn status_of(node: SocketAddr) -> Result<NodeStatus, Error> {
    match Connection::open(node)?.ask_one(Operation::Status)? {
        Outcome::Status(status) => Ok(status),
        other => Err(format!("{other:?} does not answer a status request").into()),
    }
}

/// The bytes of a client's first message.
pub(crate) fn hello() -> Vec<u8> {
    let hello = Hello {
        protocol_min: PROTOCOL_VERSION,
        protocol_max: PROTOCOL_VERSION,
        cluster: String::new(),
        role: Role::Client,
    };
    hello.to_frame().concat()
}
