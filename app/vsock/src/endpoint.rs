//! Where clients on this host reach a part of Slipway: a socket in a private folder, on Windows a named pipe. Open to this user
//! alone, and half-closed in both directions either way.
//!
//! A client that was accepted is given to a transport as a [`HostSocket`](crate::HostSocket): on Unix that is its descriptor, which may
//! travel to another process; on Windows it stays a stream of this process, whose bytes a task moves.

#[cfg(unix)]
#[path = "endpoint/unix.rs"]
mod system;
#[cfg(windows)]
#[path = "endpoint/windows.rs"]
mod system;

pub use system::{Client, Listener, Stream, connect, give, give_tcp, reset, take_back, taken};

#[cfg(test)]
mod tests;
