//! Windows: what differs by system of the listening sockets.

use std::{io, net::SocketAddr};

use socket2::Socket;

use super::{Holder, Protocol};

/// The error of a family of addresses that the system has not: `WSAEAFNOSUPPORT`.
pub(super) const NO_SUCH_FAMILY: i32 = 10047;

/// Nothing to ask for: lingering connections are in nobody's way here, and the option of that name would share the port.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(super) fn takes_alone(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// What to do about a port that this user may not have. Windows keeps whole ranges for itself, above all with Hyper-V.
pub(super) fn denied_hint(_port: u16) -> String {
    "publish another port; `netsh interface ipv4 show excludedportrange protocol=tcp` lists those that Windows keeps for itself"
        .to_owned()
}

/// Nobody is found here yet.
pub(super) fn holder(_host: SocketAddr, _protocol: Protocol) -> Option<Holder> {
    None
}
