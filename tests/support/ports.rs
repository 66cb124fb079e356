//! Ports of daemons that are launched, killed and launched again.

use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A port on loopback that the system picked and gives to nobody else while this lives, so that a node that is down
/// finds its own when it comes back.
///
/// A socket that is bound and does not listen holds it: the system passes the port over when it picks one, for a
/// listener as well as for the near end of a connection, and lets a listener that names it have it, since both may
/// reuse addresses.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    socket: OwnedFd,
}

impl ReservedPort {
    pub(crate) fn pick() -> Self {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddrV4::new([127, 0, 0, 1].into(), 0)).unwrap();
        Self { socket }
    }

    pub(crate) fn number(&self) -> u16 {
        SocketAddrV4::try_from(getsockname(&self.socket).unwrap()).unwrap().port()
    }
}
