//! A program in the guest over an upgraded connection of the control API.
//!
//! After the `101` each side sends frames: a byte for the kind, a big-endian `u32` length, then the bytes. The guest
//! protocol has frames of its own; these are apart so that clients of the API need nothing of the guest's.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use utoipa::ToSchema;

use crate::Problem;

/// The `Upgrade` header's word.
pub const UPGRADE: &str = "slipway-exec";
/// Longest payload of one frame in bytes.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments; empty: a login shell.
    #[serde(default)]
    pub argv: Vec<String>,
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// On a terminal of this many rows and columns.
    pub tty: Option<(u16, u16)>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the program's input; empty: end of input.
    Stdin(Bytes),
    /// Of the program.
    Stdout(Bytes),
    /// Of the program.
    Stderr(Bytes),
    /// The terminal has this many rows and columns now.
    Resize(u16, u16),
    /// The program ended: its exit code, or 128 and its signal. The last frame.
    Exit(i32),
    /// It could not be run. The last frame.
    Failed(Problem),
}

impl Frame {
    /// The frame's bytes. A payload beyond [`MAX_PAYLOAD`] is the caller's mistake and is cut by debug builds' checks.
    pub fn encode(&self) -> Bytes {
        let (kind, payload) = match self {
            Self::Stdin(b) => (0, b.clone()),
            Self::Stdout(b) => (1, b.clone()),
            Self::Stderr(b) => (2, b.clone()),
            Self::Resize(rows, columns) => {
                let mut b = BytesMut::with_capacity(4);
                b.put_u16(*rows);
                b.put_u16(*columns);
                (3, b.freeze())
            }
            Self::Exit(code) => (4, Bytes::copy_from_slice(&code.to_be_bytes())),
            Self::Failed(problem) => (5, serde_json::to_vec(problem).unwrap_or_default().into()),
        };
        debug_assert!(payload.len() <= MAX_PAYLOAD, "a frame of {} bytes", payload.len());
        let mut bytes = BytesMut::with_capacity(5 + payload.len());
        bytes.put_u8(kind);
        bytes.put_u32(payload.len() as u32);
        bytes.put(payload);
        bytes.freeze()
    }

    /// Reads one frame; `None` at a clean end. Not cancel-safe.
    ///
    /// # Errors
    /// The stream's, and `InvalidData` for bytes that are no frame.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; 5];
        if stream.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut head[1..]).await?;
        let length = (&head[1..]).get_u32() as usize;
        if length > MAX_PAYLOAD {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        let mut payload = Bytes::from(payload);
        Ok(Some(match (head[0], length) {
            (0, _) => Self::Stdin(payload),
            (1, _) => Self::Stdout(payload),
            (2, _) => Self::Stderr(payload),
            (3, 4) => Self::Resize(payload.get_u16(), payload.get_u16()),
            (4, 4) => Self::Exit(payload.get_i32()),
            (5, _) => Self::Failed(serde_json::from_slice(&payload).map_err(|e| invalid(e.to_string()))?),
            (kind, _) => return Err(invalid(format!("a frame of kind {kind} with {length} bytes"))),
        }))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_as_they_went() {
        let frames = [
            Frame::Stdin(Bytes::new()),
            Frame::Stdout(Bytes::from_static(b"out")),
            Frame::Stderr(Bytes::from(vec![7; MAX_PAYLOAD])),
            Frame::Resize(24, 80),
            Frame::Exit(-1),
            Frame::Failed(Problem::new("x", "y").because("z").hint("h")),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let mut stream = bytes.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut stream).await.expect("reads"), Some(frame));
        }
        assert_eq!(Frame::read(&mut stream).await.expect("ends"), None);
    }

    #[tokio::test]
    async fn bytes_that_are_no_frame_are_refused() {
        for bytes in [&[9, 0, 0, 0, 0][..], &[3, 0, 0, 0, 1, 1], &[1, 255, 0, 0, 0], &[5, 0, 0, 0, 1, 0]] {
            assert!(Frame::read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
        assert!(Frame::read(&mut &[1u8, 0, 0][..]).await.is_err(), "a frame that is cut short");
    }
}
