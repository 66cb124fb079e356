//! Signals as readiness of a socket, so that a loop hears them like everything else.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};

/// The orders to end.
pub(crate) const END: &[i32] = &[SIGTERM, SIGINT];

/// The reading end of what the signal handlers write to.
#[derive(Debug)]
pub(crate) struct Signals {
    socket: UnixStream,
}

impl Signals {
    /// From here on these signals no longer do to the process what they do by themselves.
    pub(crate) fn listen(registry: &Registry, token: Token, signals: &[i32]) -> io::Result<Self> {
        let (reader, writer) = StdUnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
        }
        let mut socket = UnixStream::from_std(reader);
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self { socket })
    }

    /// How many signals came since the last call.
    pub(crate) fn take(&mut self) -> usize {
        let mut bytes = [0; 64];
        let mut count = 0;
        while let Ok(read @ 1..) = self.socket.read(&mut bytes) {
            count += read;
        }
        count
    }
}
