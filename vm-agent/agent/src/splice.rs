//! Joins a stream to the host with its target: in the kernel where our module is, by copying otherwise.
//!
//! A message that the agent copies wakes it for nothing else, and the processor takes up its memory and leaves it again: most
//! of a small message's cost. The module (`guest-image/splice`) is given both sockets and moves what one has into the other,
//! half-closes included, until both ways have ended. The agent is done with them at once. What listens for the connections of
//! published ports is given to it as well: it accepts them and connects them to where their Dial says.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use tokio::{io::copy_bidirectional_with_sizes, sync::SetOnce};

use crate::serve::Stream;

/// What the module listens on.
pub(crate) const DEVICE: &str = "/dev/slipway-splice";
/// The module, once it is loaded.
static MODULE: SetOnce<File> = SetOnce::const_new();
/// In place of the second socket: the first one listens.
const NONE: i32 = -1;
/// Bytes in flight of each direction of a copied stream.
const COPY: usize = 64 << 10;

/// To be called when the image's modules are loaded.
///
/// # Errors
/// When the module is not there; streams are copied then.
pub(crate) fn loaded() -> io::Result<()> {
    // Again, which is nothing.
    let _ = MODULE.set(OpenOptions::new().write(true).open(DEVICE)?);
    Ok(())
}

/// Lets what comes out of one go into the other, both ways, each half-close on its own. Returns when that is over, or at once
/// when the kernel does it.
///
/// # Errors
/// Of a copy that broke.
pub(crate) async fn join(mut one: impl Stream + AsFd, mut other: impl Stream + AsFd) -> io::Result<()> {
    match hand_over(one.as_fd(), other.as_fd()) {
        Ok(()) => Ok(()),
        // Of what a stream can be, all that the module refuses is what is copied as well.
        Err(_) => copy(&mut one, &mut other).await,
    }
}

/// Copies both ways, each half-close on its own.
///
/// # Errors
/// When a stream broke.
pub(crate) async fn copy(one: &mut impl Stream, other: &mut impl Stream) -> io::Result<()> {
    copy_bidirectional_with_sizes(one, other, COPY, COPY).await.map(drop)
}

/// Gives both to the module, which holds them from then on.
fn hand_over(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<()> {
    let module = MODULE.get().ok_or(io::ErrorKind::NotFound)?;
    write(module, one.as_raw_fd(), other.as_raw_fd())
}

/// Gives what listens for streams that begin with a Dial of TCP to the module, which serves them from then on. Waits for the
/// module. Cancel-safe.
///
/// # Errors
/// When this is no listener of AF_VSOCK.
pub(crate) async fn hand_over_listener(listener: BorrowedFd<'_>) -> io::Result<()> {
    write(MODULE.wait().await, listener.as_raw_fd(), NONE)
}

fn write(mut module: &File, one: i32, other: i32) -> io::Result<()> {
    let mut request = [0; 8];
    request[..4].copy_from_slice(&one.to_ne_bytes());
    request[4..].copy_from_slice(&other.to_ne_bytes());
    module.write_all(&request)
}
