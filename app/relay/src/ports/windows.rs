//! Windows: what differs by system of the listening sockets.

use std::{io, os::windows::io::AsSocket};

use slipway_vsock::exclusive;
use socket2::Socket;

use super::Protocol;

/// The error of a family of addresses that the system has not: `WSAEAFNOSUPPORT`.
pub(super) const NO_SUCH_FAMILY: i32 = 10047;

/// Without it any program could bind a published port as well, and get what comes for a container. In return a port is not free before
/// the last connection that was accepted there has ended.
pub(super) fn takes_alone(socket: &Socket, _protocol: Protocol) -> io::Result<()> {
    exclusive::take(socket.as_socket())
}

/// What to do about a port that this user may not have. Windows keeps whole ranges for itself, above all with Hyper-V.
pub(super) fn denied_hint(_port: u16) -> String {
    "publish another port; `netsh interface ipv4 show excludedportrange protocol=tcp` lists those that Windows keeps for itself"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;
    use crate::ports::bind;

    /// That Windows keeps to it, Wine cannot tell: Linux, below it, shares nothing unless both ask.
    #[test]
    fn a_published_port_is_told_to_be_shared_with_nobody() {
        let fresh = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        assert!(!exclusive::is_taken(fresh.as_socket()).expect("told"), "what Windows does unasked");
        let any = "127.0.0.1:0".parse().expect("address");
        let (tcp, udp) = (bind::tcp(any).expect("listens"), bind::udp(any).expect("binds"));
        for socket in [tcp.expect("a family").as_socket(), udp.expect("a family").as_socket()] {
            assert!(exclusive::is_taken(socket).expect("told"));
        }
    }
}
