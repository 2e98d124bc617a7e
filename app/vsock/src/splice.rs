//! Transports without a device of their own: they open streams, and a task for each client moves its bytes.

use async_trait::async_trait;
use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

use crate::{ConnectError, GuestStream, HostSocket, Transport, copy, endpoint};

/// What such a transport does itself; the rest of [`Transport`] follows from it.
#[async_trait]
pub trait Opens: Send + Sync {
    /// Opens a stream to `port`. Cancel-safe: a stream that is still opening is given up.
    ///
    /// # Errors
    /// [`ConnectError`], as of [`Transport::connect`].
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError>;
    /// The tasks that move bytes.
    fn copies(&self) -> &TaskTracker;
}

/// [`Transport::connect`] of a transport that only takes sockets: it gets one end of a pair.
///
/// # Errors
/// [`ConnectError`], as of [`Transport::splice`].
#[cfg(unix)]
pub async fn connect_by_splice(
    transport: &dyn Transport,
    port: GuestPort,
) -> Result<GuestStream, ConnectError> {
    let io = |source| ConnectError::Io { port, source };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(io)?;
    transport.splice(port, theirs.into(), Bytes::new()).await.map_err(|(error, _)| error)?;
    ours.set_nonblocking(true).map_err(io)?;
    Ok(Box::new(tokio::net::UnixStream::from_std(ours).map_err(io)?))
}

#[async_trait]
impl<T: Opens> Transport for T {
    async fn connect(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        self.open(port).await
    }

    async fn splice(
        &self,
        port: GuestPort,
        host: HostSocket,
        head: Bytes,
    ) -> Result<(), (ConnectError, HostSocket)> {
        let mut guest = match self.open(port).await {
            Ok(guest) => guest,
            Err(error) => return Err((error, host)),
        };
        let failed = |source| ConnectError::Io { port, source };
        if let Err(source) = guest.write_all(&head).await {
            return Err((failed(source), host));
        }
        let host = endpoint::taken(host).map_err(|(source, host)| (failed(source), host))?;
        self.copies().spawn(async move {
            if let Err(error) = copy::both_ways(host, guest).await {
                tracing::debug!(%port, %error, "stream ended with an error");
            }
        });
        Ok(())
    }
}
