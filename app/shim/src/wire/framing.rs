//! A message on a stream, which keeps no borders.
//!
//! ```text
//!   length of the message, length of what is beside it (32 bits each, little-endian), then both
//! ```

use std::io;

use serde::Serialize;
use tokio_util::bytes::Buf;

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
