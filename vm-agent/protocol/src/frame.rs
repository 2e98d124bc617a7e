//! Frames: a big-endian `u32` length, then that many bytes of one protobuf message.
//!
//! The length is checked before anything is allocated, because it comes from the other side.

use std::io;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message in bytes that either side may send.
pub const MAX_FRAME: usize = 1 << 20;

/// A frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced a message longer than [`MAX_FRAME`].
    #[error("frame of {0} bytes is longer than the {MAX_FRAME} allowed")]
    TooLong(usize),
    /// The stream ended inside a frame, or failed.
    #[error("failed to read or write a frame")]
    Io(#[source] io::Error),
    /// The bytes are not the expected message.
    #[error("frame does not hold the expected message")]
    Decode(#[source] prost::DecodeError),
}

/// Reads one message; `None` at a clean end of the stream (between frames). Not cancel-safe.
///
/// # Errors
/// See [`FrameError`]; after an error the stream is out of step and must be closed.
pub async fn read<M, R>(stream: &mut R) -> Result<Option<M>, FrameError>
where
    M: Message + Default,
    R: AsyncRead + Unpin,
{
    let mut head = [0u8; 4];
    let first = stream.read(&mut head).await.map_err(FrameError::Io)?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[first..]).await.map_err(FrameError::Io)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut body = vec![0u8; length];
    stream.read_exact(&mut body).await.map_err(FrameError::Io)?;
    M::decode(body.as_slice()).map(Some).map_err(FrameError::Decode)
}

/// Writes one message. Not cancel-safe.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is written, [`FrameError::Io`] after.
pub async fn write<M, W>(stream: &mut W, message: &M) -> Result<(), FrameError>
where
    M: Message,
    W: AsyncWrite + Unpin,
{
    let bytes = encode(message)?;
    stream.write_all(&bytes).await.map_err(FrameError::Io)
}

/// The frame of one message, as the bytes that [`write`] sends.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let length = message.encoded_len();
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    message.encode(&mut bytes).map_err(|_| FrameError::TooLong(length))?;
    Ok(bytes)
}
