//! Unix: what differs by system of the listening sockets.

use std::io;

use socket2::Socket;

use super::Protocol;

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
#[cfg(not(target_os = "macos"))]
pub(super) fn denied_hint(port: u16) -> String {
    format!(
        "publish a port above 1023, or allow all users the ports from {port} on: `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`"
    )
}

/// What to do about a port that this user may not have: on all addresses macOS gives everybody any.
#[cfg(target_os = "macos")]
pub(super) fn denied_hint(port: u16) -> String {
    format!(
        "publish a port above 1023, or {port} on all of this computer's addresses: `-p {port}:…` without one"
    )
}
