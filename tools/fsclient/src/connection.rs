//! One connection to one node: requests out, replies in, any number in flight.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest, Operation};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Role};
use fsd_wire::{Frame, FrameDecoder, Message, PAYLOAD_BYTES_MAX, RequestId};

use crate::error::AttemptError;

/// The body of the largest reply, a read of the largest file, has fewer bytes.
const REPLY_BYTES_MAX: u32 = 17 * 1024 * 1024;
const _: () = assert!(REPLY_BYTES_MAX as usize > PAYLOAD_BYTES_MAX);
/// Pieces handed to one gathering write; systems refuse more than 1024.
const PIECES_PER_WRITE_MAX: usize = 64;
/// A socket's time limit must not be zero, which would mean "none".
const SOCKET_TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// How long a node may try a request whose answer nobody waits for.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection on which a node has welcomed this client.
///
/// Requests are pipelined: [`submit`](Self::submit) as many as wanted, [`flush`](Self::flush), and
/// [`receive`](Self::receive) their replies, which come in any order and carry the requests' ids. Both
/// directions are driven by one thread: whoever keeps more in flight than the sockets' buffers hold without
/// receiving waits until the deadline. After any error the connection is of no further use.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use fsclient::{Connection, Operation};
///
/// # fn main() -> Result<(), fsclient::AttemptError> {
/// let deadline = Instant::now() + Duration::from_secs(5);
/// let mut connection = Connection::open("127.0.0.1:7101", "demo", deadline)?;
/// for _ in 0..64 {
///     connection.submit(Operation::Stat { name: "a".to_owned() }, deadline);
/// }
/// connection.flush(deadline)?;
/// for _ in 0..64 {
///     let reply = connection.receive(deadline)?;
///     println!("{}: {:?}", reply.id, reply.outcome);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: TcpStream,
    decoder: FrameDecoder,
    unsent: Vec<Bytes>,
    last_id: RequestId,
}

impl Connection {
    /// Connects to the client address of a node and exchanges hellos. An empty `cluster` accepts any.
    ///
    /// # Errors
    /// Why there is no connection. No request has been sent.
    pub fn open(address: &str, cluster: &str, deadline: Instant) -> Result<Self, AttemptError> {
        let stream = connect(address, deadline)?;
        stream.set_nodelay(true).map_err(AttemptError::Connect)?;
        let mut connection = Self {
            address: address.to_owned(),
            stream,
            decoder: FrameDecoder::new(REPLY_BYTES_MAX),
            unsent: Vec::new(),
            last_id: RequestId(0),
        };
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            cluster: cluster.to_owned(),
            role: Role::Client,
        };
        connection.unsent = hello.to_frame();
        connection.flush(deadline)?;
        let frame = connection.receive_frame(deadline)?;
        let reply = HelloReply::decode(&frame).map_err(AttemptError::BadMessage)?;
        match reply.status {
            HelloStatus::Welcome => Ok(connection),
            status => Err(AttemptError::HelloRefused { status, reason: reply.reason }),
        }
    }

    /// The address that this connection was opened to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Adds a request to those that the next [`flush`](Self::flush) sends, and tells its id. The node is told
    /// to give up by the deadline.
    ///
    /// # Panics
    /// If the request is larger than any node accepts: contents over [`crate::CONTENTS_BYTES_MAX`], or names
    /// over [`fsd_wire::NAME_BYTES_MAX`].
    pub fn submit(&mut self, operation: Operation, deadline: Instant) -> RequestId {
        self.last_id = RequestId(self.last_id.0 + 1);
        let timeout_ms = u32::try_from(remaining(deadline).as_millis()).unwrap_or(u32::MAX);
        let request = ClientRequest { id: self.last_id, timeout_ms, operation };
        let frame = request.to_frame();
        let bytes: usize = frame.iter().map(Bytes::len).sum();
        assert!(
            bytes <= REPLY_BYTES_MAX as usize,
            "a request of {bytes} bytes is larger than any node accepts"
        );
        self.unsent.extend(frame);
        self.last_id
    }

    /// Sends what was submitted.
    ///
    /// # Errors
    /// The last of the submitted requests has not left in full, so no node will ever act on it. Those before
    /// it may have.
    pub fn flush(&mut self, deadline: Instant) -> Result<(), AttemptError> {
        self.flush_while_it_moves(deadline, Duration::MAX)
    }

    /// As [`flush`](Self::flush), and gives up also if no byte left for as long as `stall`.
    pub(crate) fn flush_while_it_moves(
        &mut self,
        deadline: Instant,
        stall: Duration,
    ) -> Result<(), AttemptError> {
        let unsent = std::mem::take(&mut self.unsent);
        for pieces in unsent.chunks(PIECES_PER_WRITE_MAX) {
            let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut rest = &mut slices[..];
            while !rest.is_empty() {
                let timeout = socket_timeout(deadline)?.min(stall.max(SOCKET_TIMEOUT_MIN));
                self.stream.set_write_timeout(Some(timeout)).map_err(AttemptError::Lost)?;
                match self.stream.write_vectored(rest) {
                    Ok(0) => return Err(AttemptError::Closed),
                    Ok(count) => IoSlice::advance_slices(&mut rest, count),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(AttemptError::from_io(error)),
                }
            }
        }
        Ok(())
    }

    /// Sends a request as far as that is possible without waiting, and closes the connection, on which nothing
    /// is in flight: for requests that are a courtesy.
    pub(crate) fn send_last(mut self, operation: Operation) {
        self.submit(operation, Instant::now() + LAST_REQUEST_TIMEOUT);
        if self.stream.set_nonblocking(true).is_ok() {
            let slices: Vec<IoSlice<'_>> = self.unsent.iter().map(|piece| IoSlice::new(piece)).collect();
            // Nobody waits for it to be done, so nobody is there to be told that it was not.
            let _ = self.stream.write_vectored(&slices);
        }
    }

    /// Waits for the next reply, to whichever request it belongs.
    ///
    /// # Errors
    /// Why none came. What became of the requests in flight is not known.
    pub fn receive(&mut self, deadline: Instant) -> Result<ClientReply, AttemptError> {
        let frame = self.receive_frame(deadline)?;
        ClientReply::decode(&frame).map_err(AttemptError::BadMessage)
    }

    /// Whether the connection, on which nothing is in flight, is certain to fail: the node closed it, or sent
    /// what nobody asked for. Asking before sending turns many an unknown outcome into a safe retry.
    pub(crate) fn is_stale(&self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let quiet =
            matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_err() || !quiet || self.decoder.buffered_bytes() > 0
    }

    fn receive_frame(&mut self, deadline: Instant) -> Result<Frame, AttemptError> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(AttemptError::BadFrame)? {
                return Ok(frame);
            }
            let timeout = socket_timeout(deadline)?;
            self.stream.set_read_timeout(Some(timeout)).map_err(AttemptError::Lost)?;
            let stream = &mut self.stream;
            match self.decoder.feed_from(|buffer| stream.read(buffer)) {
                Ok(0) => return Err(AttemptError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(AttemptError::from_io(error)),
            }
        }
    }
}

/// What is left until `deadline`; zero when it has passed.
pub(crate) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn socket_timeout(deadline: Instant) -> Result<Duration, AttemptError> {
    let left = remaining(deadline);
    if left.is_zero() { Err(AttemptError::TimedOut) } else { Ok(left.max(SOCKET_TIMEOUT_MIN)) }
}

fn connect(address: &str, deadline: Instant) -> Result<TcpStream, AttemptError> {
    let mut error = AttemptError::BadAddress("it stands for no address".to_owned());
    for candidate in resolve(address)? {
        match TcpStream::connect_timeout(&candidate, socket_timeout(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => error = AttemptError::TimedOut,
            Err(e) => error = AttemptError::Connect(e),
        }
    }
    Err(error)
}

/// The socket addresses that `address` stands for. An address to listen on, such as `0.0.0.0:7101`, is none to
/// connect to: on some systems it would lead to this very machine, whatever node was meant.
fn resolve(address: &str) -> Result<Vec<SocketAddr>, AttemptError> {
    check_address(address).map_err(AttemptError::BadAddress)?;
    let found: Vec<SocketAddr> =
        address.to_socket_addrs().map_err(|e| AttemptError::BadAddress(e.to_string()))?.collect();
    if found.iter().any(|candidate| candidate.ip().is_unspecified()) {
        return Err(AttemptError::BadAddress("an address to listen on, not to connect to".to_owned()));
    }
    Ok(found)
}

/// Refuses what cannot be an address, without asking any name server.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("\"{address}\" is not HOST:PORT"));
    };
    if host.is_empty() || host.chars().any(char::is_whitespace) {
        return Err(format!("\"{address}\" names no host"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("\"{address}\" has no port between 1 and 65535")),
    }
}
