//! Hand-over of a host socket for transports that have no device of their own: a task copies between the two.

use std::os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream};

use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use tokio::{io::AsyncWriteExt, net::UnixStream};
use tokio_util::task::TaskTracker;

use crate::{ConnectError, GuestStream, copy};

/// Sends `head`, then lets a task of `copies` move the bytes until both directions have ended.
pub(crate) async fn splice_by_copy(
    copies: &TaskTracker,
    port: GuestPort,
    host: OwnedFd,
    head: Bytes,
    mut guest: GuestStream,
) -> Result<(), (ConnectError, OwnedFd)> {
    if let Err(source) = guest.write_all(&head).await {
        return Err((ConnectError::Io { port, source }, host));
    }
    // A second descriptor, because tokio keeps the first one even when it cannot register it.
    let (host, spare) = match host.try_clone() {
        Ok(spare) => (StdUnixStream::from(host), spare),
        Err(source) => return Err((ConnectError::Io { port, source }, host)),
    };
    let host = match host.set_nonblocking(true).and_then(|()| UnixStream::from_std(host)) {
        Ok(host) => host,
        Err(source) => return Err((ConnectError::Io { port, source }, spare)),
    };
    drop(spare);
    copies.spawn(async move {
        if let Err(error) = copy::both_ways(host, guest).await {
            tracing::debug!(%port, %error, "stream ended with an error");
        }
    });
    Ok(())
}
