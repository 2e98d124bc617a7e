//! Which program holds a port on macOS and Windows: found by `listeners` in the processes' descriptors (libproc), and in the tables of
//! the IP Helper.

use std::net::SocketAddr;

use super::in_the_way;
use crate::ports::{Holder, Protocol};

/// Looks for it; `None` when this user may not see.
pub(in super::super) fn find(host: SocketAddr, protocol: Protocol) -> Option<Holder> {
    let wanted = match protocol {
        Protocol::Tcp => listeners::Protocol::TCP,
        Protocol::Udp => listeners::Protocol::UDP,
    };
    let holds = |found: &listeners::Listener| {
        found.protocol == wanted
            && (protocol == Protocol::Udp || found.state == listeners::SocketState::Listen)
            && found.socket.port() == host.port()
            && in_the_way(found.socket.ip().to_canonical(), host.ip())
    };
    let all = listeners::get_all().ok()?;
    // Of several the same one each time: the list has no order.
    let found = all.into_iter().filter(holds).min_by_key(|found| found.process.pid)?;
    Some(Holder { name: found.process.name, pid: found.process.pid })
}
