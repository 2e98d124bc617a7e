//! Where no descriptor can travel: each stream is a connection of its own to the shim, and a client's bytes are copied into it here. They
//! end with this process.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use slipway_vsock::{ConnectError, GuestStream, Opens, endpoint};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Life, PATIENCE, ShimClient, not_opened};
use crate::wire::{
    Answer, Failure, FailureKind, Reply,
    frames::{self, Opening},
};

/// How streams reach the shim: where it listens, and the tasks that copy.
#[derive(Debug, Clone)]
pub(super) struct Way {
    path: PathBuf,
    copies: TaskTracker,
}

impl Way {
    pub(super) fn to(path: &Path) -> Self {
        Self { path: path.to_owned(), copies: TaskTracker::new() }
    }

    async fn open(&self, port: GuestPort) -> Result<endpoint::Stream, ConnectError> {
        let opening = async {
            let mut stream = endpoint::connect(&self.path).await?;
            frames::say(&mut stream, &Opening::Stream { port: port.0 }).await?;
            let reply = frames::hear::<Reply>(&mut stream).await?;
            Ok::<_, io::Error>((stream, reply))
        };
        match timeout(PATIENCE, opening).await {
            Ok(Ok((stream, Reply { answer: Answer::Done, .. }))) => Ok(stream),
            Ok(Ok((_, Reply { answer: Answer::Failed(failure), .. }))) => Err(not_opened(port, failure)),
            Ok(Ok((_, Reply { answer, .. }))) => {
                let message = format!("the shim gave an answer that does not fit: {answer:?}");
                Err(not_opened(port, Failure { kind: FailureKind::Invalid, message }))
            }
            Ok(Err(source)) => Err(ConnectError::Io { port, source }),
            Err(_) => Err(ConnectError::TimedOut { port }),
        }
    }
}

#[async_trait]
impl Opens for ShimClient {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        if *self.life.borrow() != Life::Runs {
            return Err(ConnectError::Closed);
        }
        Ok(Box::new(self.streams.open(port).await?))
    }

    fn copies(&self) -> &TaskTracker {
        &self.streams.copies
    }
}
