//! Unix: what differs by system of the listening sockets.

use std::{io, net::SocketAddr};

use socket2::Socket;

use super::{Holder, Protocol};

/// The error of a family of addresses that the system has not.
pub(super) const NO_SUCH_FAMILY: i32 = libc::EAFNOSUPPORT;

/// Connections that linger from the last time are no reason to wait. Never with UDP: there it shares the port.
pub(super) fn takes_alone(socket: &Socket, protocol: Protocol) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => socket.set_reuse_address(true),
        Protocol::Udp => Ok(()),
    }
}

/// What to do about a port that this user may not have.
pub(super) fn denied_hint(port: u16) -> String {
    format!(
        "publish a port above 1023, or allow all users the ports from {port} on: `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`"
    )
}

/// Who holds a port.
#[cfg(target_os = "linux")]
pub(super) fn holder(host: SocketAddr, protocol: Protocol) -> Option<Holder> {
    super::holder_linux::find(host, protocol)
}

/// Nobody is found here yet.
#[cfg(not(target_os = "linux"))]
pub(super) fn holder(_host: SocketAddr, _protocol: Protocol) -> Option<Holder> {
    None
}
