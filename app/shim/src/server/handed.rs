//! Linux and macOS: streams come as descriptors beside a daemon's messages.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use slipway_protocol::ports::{ENGINE, GuestPort};
use slipway_relay::http;
use slipway_vsock::ConnectError;
use tokio::{io::AsyncReadExt, net::UnixStream};
use tokio_util::task::TaskTracker;

use super::{Daemon, failure};
use crate::wire::{Answer, Beside, Failure, FailureKind, Peer, descriptor, into_descriptor};

/// A daemon; nobody else connects.
#[allow(clippy::unused_async)] // Elsewhere it waits for the first word.
pub(super) async fn opened(accepted: Peer, _daemon: &Daemon) -> Option<Peer> {
    Some(accepted)
}

/// Joins a client's socket to a port of the guest; on failure it goes back.
pub(super) async fn splice(
    daemon: &Daemon,
    port: u32,
    head: Vec<u8>,
    beside: Option<Beside>,
    streams: &TaskTracker,
) -> (Answer, Option<Beside>) {
    let Some(fd) = beside.and_then(into_descriptor) else {
        let message = "a splice needs a socket".to_owned();
        return (Answer::Failed(Failure { kind: FailureKind::Invalid, message }), None);
    };
    let done = if port == ENGINE.0 {
        to_engine(daemon, fd, head, streams).await
    } else {
        daemon.transport.splice(GuestPort(port), fd, Bytes::from(head)).await
    };
    match done {
        Ok(()) => (Answer::Done, None),
        Err((error, fd)) => (Answer::Failed(failure(&error)), Some(descriptor(fd))),
    }
}

/// Carries a client's stream to the engine, where its requests are seen. It goes on when the daemon is gone.
async fn to_engine(
    daemon: &Daemon,
    fd: OwnedFd,
    head: Vec<u8>,
    streams: &TaskTracker,
) -> Result<(), (ConnectError, OwnedFd)> {
    let engine = match daemon.transport.connect(ENGINE).await {
        Ok(engine) => engine,
        Err(error) => return Err((error, fd)),
    };
    let io = |source| ConnectError::Io { port: ENGINE, source };
    let client = std::os::unix::net::UnixStream::from(fd);
    // The copy comes back when the runtime takes no more.
    let copy = match client.set_nonblocking(true).and_then(|()| client.try_clone()) {
        Ok(copy) => copy,
        Err(error) => return Err((io(error), client.into())),
    };
    let client = UnixStream::from_std(client).map_err(|error| (io(error), copy.into()))?;
    let reviews = daemon.reviews.clone();
    streams.spawn(async move {
        let (reader, writer) = tokio::io::split(client);
        let client = tokio::io::join(std::io::Cursor::new(head).chain(reader), writer);
        if let Err(error) = http::carry(client, engine, &*reviews).await {
            tracing::debug!(%error, "a client's stream broke off");
        }
    });
    Ok(())
}
