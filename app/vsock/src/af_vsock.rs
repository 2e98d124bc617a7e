//! Streams through the kernel's own AF_VSOCK, where `/dev/vhost-vsock` gives the VM a kernel device.

use std::{io, os::fd::OwnedFd, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::{ConnectError, GuestCid, GuestStream, Transport, splice::splice_by_copy};

/// How long the guest may take to answer: the same as our own device allows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches the guest with this context id through the host's kernel.
#[derive(Debug)]
pub struct KernelVsock {
    cid: GuestCid,
    copies: TaskTracker,
}

impl KernelVsock {
    /// A transport to the guest with `cid`; nothing is opened yet.
    pub fn new(cid: GuestCid) -> Self {
        Self { cid, copies: TaskTracker::new() }
    }

    async fn open(&self, port: GuestPort) -> Result<VsockStream, ConnectError> {
        let address = VsockAddr::new(self.cid.get(), port.0);
        match timeout(CONNECT_TIMEOUT, VsockStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source))
                if matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(ConnectError::Refused { port })
            }
            Ok(Err(source)) => Err(ConnectError::Io { port, source }),
            Err(_) => Err(ConnectError::TimedOut { port }),
        }
    }
}

#[async_trait]
impl Transport for KernelVsock {
    async fn connect(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        Ok(Box::new(self.open(port).await?))
    }

    async fn splice(
        &self,
        port: GuestPort,
        host: OwnedFd,
        head: Bytes,
    ) -> Result<(), (ConnectError, OwnedFd)> {
        match self.open(port).await {
            Ok(guest) => splice_by_copy(&self.copies, port, host, head, Box::new(guest)).await,
            Err(e) => Err((e, host)),
        }
    }
}
