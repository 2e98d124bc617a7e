//! Linux and macOS: the client's socket itself goes to the shim, and this process may end.

use std::{os::fd::OwnedFd, path::Path};

use async_trait::async_trait;
use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use slipway_vsock::{ConnectError, GuestStream, Transport, connect_by_splice};

use super::{ShimClient, ShimClientError, not_opened};
use crate::wire::{Answer, Call, Failure, FailureKind, descriptor, into_descriptor};

/// How streams reach the shim: beside the messages.
#[derive(Debug, Clone)]
pub(super) struct Way;

impl Way {
    pub(super) fn to(_path: &Path) -> Self {
        Self
    }
}

#[async_trait]
impl Transport for ShimClient {
    async fn connect(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        connect_by_splice(self, port).await
    }

    async fn splice(
        &self,
        port: GuestPort,
        host: OwnedFd,
        head: Bytes,
    ) -> Result<(), (ConnectError, OwnedFd)> {
        let call = Call::Splice { port: port.0, head: head.to_vec() };
        // Ours stays open until the answer, and is given back with a refusal.
        let host = descriptor(host);
        let asked = self.ask(call, Some(&host)).await;
        let Some(host) = into_descriptor(host) else { return Ok(()) };
        let failure = match asked {
            // Our descriptor closes; the shim's own goes on.
            Ok((Answer::Done, _)) => return Ok(()),
            Ok((Answer::Failed(failure), _)) | Err(ShimClientError::Failed(failure)) => failure,
            Ok((other, _)) => Failure { kind: FailureKind::Other, message: format!("{other:?}") },
            Err(ShimClientError::Silent) => return Err((ConnectError::TimedOut { port }, host)),
            Err(_) => return Err((ConnectError::Closed, host)),
        };
        Err((not_opened(port, failure), host))
    }
}
