//! Byte streams between the host and the guest.
//!
//! Every transport offers the same two acts: open a stream for a part of Slipway itself ([`Transport::connect`]), or
//! hand over a socket of a client so that the transport moves its bytes without anybody in between
//! ([`Transport::splice`]). Half-close is carried in both directions by every transport.

#[cfg(windows)]
pub mod af_hyperv;
#[cfg(target_os = "linux")]
pub mod af_vsock;
pub mod copy;
#[cfg(unix)]
pub mod dial;
pub mod endpoint;
#[cfg(windows)]
pub mod exclusive;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod memory;
#[cfg(target_os = "linux")]
mod packet;
#[cfg(windows)]
pub mod pipe;
pub mod sleep;
mod splice;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(unix)]
pub mod unix;
#[cfg(target_os = "linux")]
pub mod vhost_user;
#[cfg(windows)]
pub mod windows;

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use tokio::io::{AsyncRead, AsyncWrite};

pub use splice::Opens;
#[cfg(unix)]
pub use splice::connect_by_splice;

/// What a stream to the guest can do. `poll_shutdown` is SHUT_WR: the other direction stays open.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client's connected stream socket on the host, which a transport can take over.
#[cfg(unix)]
pub type HostSocket = std::os::fd::OwnedFd;
#[cfg(windows)]
pub use windows::HostSocket;

/// A stream to one port of the guest.
pub type GuestStream = Box<dyn Stream>;

/// A stream to the guest could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The guest runs, and nothing listens on that port (yet).
    #[error("nothing listens on guest port {port}")]
    Refused {
        /// The port that was dialled.
        port: GuestPort,
    },
    /// The guest did not answer in time: it is booting, paused or dead.
    #[error("guest did not answer on port {port} in time")]
    TimedOut {
        /// The port that was dialled.
        port: GuestPort,
    },
    /// As many streams are open as the transport allows.
    #[error("all {limit} streams to the guest are in use")]
    Exhausted {
        /// The limit in streams.
        limit: usize,
    },
    /// The device is gone: the machine stopped.
    #[error("the machine is not running")]
    Closed,
    /// The host's kernel refused something on the way.
    #[error("failed to open a stream to guest port {port}")]
    Io {
        /// The port that was dialled.
        port: GuestPort,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A way of reaching the guest. The host dials; nothing in the guest can dial the host.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Opens a stream to `port`. Cancel-safe: a stream that is still opening is given up.
    ///
    /// # Errors
    /// See [`ConnectError`].
    async fn connect(&self, port: GuestPort) -> Result<GuestStream, ConnectError>;

    /// Joins `host`, a connected stream socket, to `port` of the guest; `head` goes to the guest first. Returns when the
    /// guest accepted; the bytes then flow until both directions have ended, without the caller. On error `host`
    /// is given back, so that the caller can answer its client.
    ///
    /// With a `head` the guest may hear what the client has said already before it is known that it accepts: not for those who
    /// tell a client that nothing of it was heard.
    ///
    /// # Errors
    /// The error and the socket, nothing read from it.
    async fn splice(
        &self,
        port: GuestPort,
        host: HostSocket,
        head: Bytes,
    ) -> Result<(), (ConnectError, HostSocket)>;
}

/// Context id of a guest: 0 to 2 belong to the hypervisor, the loopback and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestCid(u32);

impl GuestCid {
    /// `None` for the reserved ids and for the wildcard.
    pub fn new(cid: u32) -> Option<Self> {
        (3..u32::MAX).contains(&cid).then_some(Self(cid))
    }

    /// The id as a number.
    pub fn get(self) -> u32 {
        self.0
    }
}
