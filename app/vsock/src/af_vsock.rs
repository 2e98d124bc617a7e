//! Streams through the kernel's own AF_VSOCK, where `/dev/vhost-vsock` gives the VM a kernel device.

use std::{io, time::Duration};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::{ConnectError, GuestCid, GuestStream, splice::Opens};

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
}

#[async_trait]
impl Opens for KernelVsock {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        let address = VsockAddr::new(self.cid.get(), port.0);
        match timeout(CONNECT_TIMEOUT, VsockStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
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

    fn copies(&self) -> &TaskTracker {
        &self.copies
    }
}
