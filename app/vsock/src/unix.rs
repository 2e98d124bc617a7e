//! Streams to an agent that runs on this host: `slipway-agent serve --dir DIR` listens on `DIR/<port>.sock`.
//!
//! With it the whole host side runs against the real agent without a VM.

use std::{io, path::PathBuf};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use crate::{ConnectError, GuestStream, splice::Opens};

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
}

#[async_trait]
impl Opens for UnixDirTransport {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        match UnixStream::connect(self.dir.join(format!("{port}.sock"))).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::Refused { port },
                _ => ConnectError::Io { port, source },
            }),
        }
    }

    fn copies(&self) -> &TaskTracker {
        &self.copies
    }
}
