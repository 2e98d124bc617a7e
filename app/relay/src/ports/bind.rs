//! Makes the host's listening sockets, and finds out why one cannot be made.

use std::{io, net::SocketAddr};

use socket2::{Domain, Socket, Type};

use super::{Protocol, holder, system};

/// Connections that the kernel holds while we hand others over.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that wait for us: a burst must not be lost while the guest is busy.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The program's name.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// A port cannot be listened on. The text is for whoever ran `docker run`.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("port {} is in use on this computer by {}", .host.port(), .holder.as_ref().map_or_else(|| "another program".to_owned(), ToString::to_string))]
    InUse {
        /// What was asked for.
        host: SocketAddr,
        /// Who it is, as far as this user may see.
        holder: Option<Holder>,
    },
    /// An ordinary user may not.
    #[error("port {} needs a privilege on this computer that slipway does not have", .host.port())]
    Denied {
        /// What was asked for.
        host: SocketAddr,
    },
    /// The host does not have that address.
    #[error("this computer does not have the address {}", .host.ip())]
    NoAddress {
        /// What was asked for.
        host: SocketAddr,
    },
    /// Anything else.
    #[error("failed to listen on {host}: {source}")]
    Io {
        /// What was asked for.
        host: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl BindError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "port-in-use",
            Self::Denied { .. } => "port-denied",
            Self::NoAddress { .. } => "port-address",
            Self::Io { .. } => "port-failed",
        }
    }

    /// What to do, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { host } => Some(system::denied_hint(host.port())),
            Self::InUse { .. } | Self::NoAddress { .. } | Self::Io { .. } => None,
        }
    }
}

/// A listening socket; `None` for `::` on a host without IPv6.
pub(super) fn tcp(host: SocketAddr) -> Result<Option<std::net::TcpListener>, BindError> {
    socket(host, Protocol::Tcp).map(|socket| socket.map(Into::into))
}

/// A bound socket; likewise.
pub(super) fn udp(host: SocketAddr) -> Result<Option<std::net::UdpSocket>, BindError> {
    socket(host, Protocol::Udp).map(|socket| socket.map(Into::into))
}

fn socket(host: SocketAddr, protocol: Protocol) -> Result<Option<Socket>, BindError> {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let error = match open(host, protocol) {
        Ok(socket) => return Ok(Some(socket)),
        Err(error) => error,
    };
    let no_family = error.raw_os_error() == Some(system::NO_SUCH_FAMILY);
    match error.kind() {
        // Docker publishes on both families unless told otherwise, and a host may have just one.
        kind if (kind == AddrNotAvailable || no_family) && host.is_ipv6() && host.ip().is_unspecified() => {
            Ok(None)
        }
        AddrInUse => Err(BindError::InUse { host, holder: holder::find(host, protocol) }),
        // Windows says it of a port, too, that somebody shares with nobody.
        PermissionDenied => match holder::find(host, protocol) {
            Some(holder) => Err(BindError::InUse { host, holder: Some(holder) }),
            None => Err(BindError::Denied { host }),
        },
        kind if kind == AddrNotAvailable || no_family => Err(BindError::NoAddress { host }),
        _ => Err(BindError::Io { host, source: error }),
    }
}

fn open(host: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(host), kind, None)?;
    socket.set_nonblocking(true)?;
    if host.is_ipv6() {
        // The engine asks for each family on its own.
        socket.set_only_v6(true)?;
    }
    system::takes_alone(&socket, protocol)?;
    match protocol {
        Protocol::Tcp => {
            socket.bind(&host.into())?;
            socket.listen(BACKLOG)?;
        }
        Protocol::Udp => {
            // As much of it as the system grants.
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
            socket.bind(&host.into())?;
        }
    }
    Ok(socket)
}
