//! A message on a stream, which keeps no borders.
//!
//! ```text
//!   length of the message, length of what is beside it (32 bits each, little-endian), then both
//! ```

use std::io;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{bytes::Buf, task::AbortOnDropHandle};

use super::{MAX_BODY, MAX_PACKET};

/// Bytes of the two lengths.
pub(super) const HEAD: usize = 8;

pub(super) fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// A message as it travels.
pub(super) fn frame<M: Serialize>(message: &M, beside: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message).map_err(io::Error::other)?;
    if json.len() > MAX_PACKET || beside.len() > MAX_BODY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is longer than one may be"));
    }
    let mut frame = Vec::with_capacity(HEAD + json.len() + beside.len());
    for length in [json.len(), beside.len()] {
        frame.extend_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    }
    frame.extend_from_slice(&json);
    frame.extend_from_slice(beside);
    Ok(frame)
}

/// The two lengths; none that is longer than it may be is waited for.
pub(super) fn lengths(mut head: &[u8]) -> io::Result<(usize, usize)> {
    let (json, beside) = (head.get_u32_le() as usize, head.get_u32_le() as usize);
    // Not `InvalidData`: after this nothing on the stream can be found any more.
    if json > MAX_PACKET || beside > MAX_BODY {
        return Err(io::Error::other("a message is longer than one may be"));
    }
    Ok((json, beside))
}

/// Where a [`Writer`]'s frames go.
pub(super) trait Sink: Send + 'static {
    /// A frame, with what goes beside it.
    type Frame: Send + 'static;

    /// Writes one whole; after an error nothing more can be.
    fn write(&mut self, frame: Self::Frame) -> impl Future<Output = io::Result<()>> + Send;
}

/// A frame, and who waits for it.
type Outgoing<F> = (F, oneshot::Sender<io::Result<()>>);

/// Writes frames one after the other, by a task that ends with this: so that one goes whole or not at all, whoever is cancelled.
pub(super) struct Writer<F> {
    frames: mpsc::Sender<Outgoing<F>>,
    _task: AbortOnDropHandle<()>,
}

impl<F: Send + 'static> Writer<F> {
    pub(super) fn new(sink: impl Sink<Frame = F>) -> Self {
        let (frames, waiting) = mpsc::channel(16);
        Self { frames, _task: AbortOnDropHandle::new(tokio::spawn(write(sink, waiting))) }
    }

    /// Returns when it is written. Cancel-safe.
    ///
    /// # Errors
    /// The sink's; `BrokenPipe` when it has failed before.
    pub(super) async fn send(&self, frame: F) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (written, done) = oneshot::channel();
        self.frames.send((frame, written)).await.map_err(|_| gone())?;
        done.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Owns what is written to, until nobody can send any more.
async fn write<S: Sink>(mut sink: S, mut frames: mpsc::Receiver<Outgoing<S::Frame>>) {
    while let Some((frame, written)) = frames.recv().await {
        let done = sink.write(frame).await;
        let ends = done.is_err();
        // Who was cancelled asks no more.
        let _ = written.send(done);
        if ends {
            return;
        }
    }
}
