//! Streams to an agent that runs on this host: `slipway-agent serve --dir DIR` listens on `DIR/<port>.sock`.
//!
//! With it the whole host side runs against the real agent without a VM.

use std::{io, os::fd::OwnedFd, path::PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use crate::{ConnectError, GuestStream, Transport, splice::splice_by_copy};

/// Reaches guest port N at `DIR/N.sock`.
#[derive(Debug)]
pub struct UnixDirTransport {
    dir: PathBuf,
    copies: TaskTracker,
}

impl UnixDirTransport {
    /// A transport to the sockets in `dir`; nothing is opened yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), copies: TaskTracker::new() }
    }

    async fn open(&self, port: GuestPort) -> Result<UnixStream, ConnectError> {
        UnixStream::connect(self.dir.join(format!("{port}.sock"))).await.map_err(|source| {
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::Refused { port },
                _ => ConnectError::Io { port, source },
            }
        })
    }
}

#[async_trait]
impl Transport for UnixDirTransport {
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
