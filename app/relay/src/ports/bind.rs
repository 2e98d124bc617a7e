//! Makes the host's listening sockets, and finds out why one cannot be made.

use std::{io, net::SocketAddr};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::Protocol;

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
            Self::Denied { host } => Some(format!(
                "publish a port above 1023, or allow all users the ports from {port} on: \
                 `sudo sysctl net.ipv4.ip_unprivileged_port_start={port}`",
                port = host.port()
            )),
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

fn socket(host: SocketAddr, protocol: Protocol) -> Result<Option<std::os::fd::OwnedFd>, BindError> {
    match open(host, protocol) {
        Ok(socket) => Ok(Some(socket)),
        // Docker publishes on both families unless told otherwise, and a host may have just one.
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if host.is_ipv6() && host.ip().is_unspecified() => {
            Ok(None)
        }
        Err(Errno::ADDRINUSE) => Err(BindError::InUse { host, holder: holder(host, protocol) }),
        Err(Errno::ACCESS) => Err(BindError::Denied { host }),
        Err(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => Err(BindError::NoAddress { host }),
        Err(error) => Err(BindError::Io { host, source: error.into() }),
    }
}

fn open(host: SocketAddr, protocol: Protocol) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if host.is_ipv6() {
        // The engine asks for each family on its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match protocol {
        Protocol::Tcp => {
            // Connections that linger from the last time are no reason to wait. Never with UDP: there it shares the port.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &host)?;
            rustix::net::listen(&socket, BACKLOG)?;
        }
        Protocol::Udp => {
            // As much of it as the system grants.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
            rustix::net::bind(&socket, &host)?;
        }
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn holder(host: SocketAddr, protocol: Protocol) -> Option<Holder> {
    super::holder_linux::find(host, protocol)
}

#[cfg(not(target_os = "linux"))]
fn holder(_host: SocketAddr, _protocol: Protocol) -> Option<Holder> {
    None
}
