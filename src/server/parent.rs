//! The pipe by which a node notices that the process that started it has gone, however that ended.

use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;

use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};

/// The reading end of a pipe whose writing end the starter alone holds: the kernel closes it when the starter
/// ends, also by kill -9, when it can tell nobody any more.
#[derive(Debug)]
pub(super) struct Parent {
    pipe: Receiver,
}

impl Parent {
    pub(super) fn watch(registry: &Registry, token: Token, pipe: OwnedFd) -> io::Result<Self> {
        let mut pipe = Receiver::from(pipe);
        // First: what cannot be polled (a file, /dev/null) is refused before it is changed.
        registry.register(&mut pipe, token, Interest::READABLE)?;
        pipe.set_nonblocking(true)?;
        Ok(Self { pipe })
    }

    /// Whether the other end was closed. What is sent means nothing.
    pub(super) fn is_gone(&mut self) -> bool {
        let mut bytes = [0; 256];
        loop {
            match self.pipe.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}
