//! What travels between daemon and shim: one JSON message at a time, and beside it what a message cannot hold.
//!
//! How it travels differs by system. On Linux (`packets`) it is packets on `shim.sock`, and a stream that the shim is to carry
//! is a descriptor beside one. macOS (`sockets`) has no such packets: messages are framed, and the descriptor is beside a frame. On
//! Windows (`frames`) no descriptor can travel, and a stream is a connection of its own.

#[cfg(any(test, windows))]
#[cfg_attr(unix, allow(dead_code, unreachable_pub))] // There for its tests.
pub(crate) mod frames;
#[cfg(any(test, not(target_os = "linux"), feature = "stream-sockets"))]
mod framing;
#[cfg(target_os = "linux")]
#[cfg_attr(feature = "stream-sockets", allow(dead_code, unreachable_pub))]
// The share server speaks it all the same.
pub(crate) mod packets;
#[cfg(any(all(test, unix), target_os = "macos", feature = "stream-sockets"))]
#[cfg_attr(all(target_os = "linux", not(feature = "stream-sockets")), allow(dead_code, unreachable_pub))]
// There for its tests.
mod sockets;

use serde::{Deserialize, Serialize};
use slipway_relay::ports::{PortSpec, PublishedPort};
use slipway_vm::{Capabilities, ExitReason, Stall};

#[cfg(windows)]
pub use frames::{Beside, Listener, Peer};
#[cfg(windows)]
pub(crate) use frames::{beside, bytes_of};
#[cfg(all(target_os = "linux", not(feature = "stream-sockets")))]
pub use packets::{Beside, Listener, Peer};
#[cfg(all(target_os = "linux", not(feature = "stream-sockets")))]
pub(crate) use packets::{beside, bytes_of, descriptor, into_descriptor};
#[cfg(any(target_os = "macos", feature = "stream-sockets"))]
pub use sockets::{Beside, Listener, Peer};
#[cfg(any(target_os = "macos", feature = "stream-sockets"))]
pub(crate) use sockets::{beside, bytes_of, descriptor, into_descriptor};

/// Version of these messages; the shim may be older than the daemon that adopts it.
///
/// 2: published ports, host folders and the review of requests to the engine. 3: stalls.
pub const VERSION: u32 = 3;
/// Longest message in bytes, and so the longest `head` of a splice (half of it, for its encoding).
pub const MAX_PACKET: usize = 128 * 1024;
/// The most bytes that travel beside one.
const MAX_BODY: usize = 8 << 20;

/// Daemon to shim. `id` is the daemon's and comes back with the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Copied to the reply.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// What the daemon may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Call {
    /// What runs, on what, and how the console looks.
    Status,
    /// Join the socket that comes with this packet to a port of the guest. Where none can, the stream is a connection of its own, and
    /// this is never said.
    Splice {
        /// The guest's port.
        port: u32,
        /// Bytes that go to the guest first.
        head: Vec<u8>,
    },
    /// Listen on a port of the host; the same again is fine.
    Publish(PortSpec),
    /// Listen on it no more. Answered when the port is free; one that is not published is.
    Withdraw {
        /// The port's id.
        port: u64,
    },
    /// Which ports are listened on.
    Ports,
    /// Stop the virtual CPUs.
    Pause,
    /// Let them run again.
    Resume,
    /// End the machine: politely within `grace_ms`, then by signal. The shim ends with it.
    Kill {
        /// In milliseconds.
        grace_ms: u64,
    },
    /// The word on a request that was asked about by [`Answer::Review`]. Answered by [`Answer::Done`].
    Reviewed {
        /// That answer's number.
        ask: u64,
        /// The word; the body that replaces the request's comes beside this message.
        word: Word,
    },
    /// Ask the share server; answered by [`Answer::Share`].
    Share {
        /// What to ask.
        ask: slipway_share::wire::Call,
    },
}

/// Shim to daemon: an answer, or with id 0 the news that the machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id, or 0.
    pub id: u64,
    /// The answer.
    pub answer: Answer,
}

/// What the shim may answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done.
    Done,
    /// The state of the machine.
    Status(Status),
    /// Published ports.
    Ports {
        /// All of them.
        ports: Vec<PublishedPort>,
    },
    /// The port is not listened on.
    NotPublished(PortFailure),
    /// Not done. After a splice the socket comes back with this packet.
    Failed(Failure),
    /// The machine ended; the last message.
    Exited(ExitReason),
    /// With id 0: whether the virtual CPUs stand still unasked; said when it changes, and first of all when they do.
    Stalled {
        /// Why, or that they run.
        stall: Option<Stall>,
    },
    /// With id 0: may this request to the engine pass? Its body comes beside this message.
    Review {
        /// To be named in [`Call::Reviewed`].
        ask: u64,
        /// Of the request's first line.
        path: String,
    },
    /// What the share server says.
    Share {
        /// Its answer.
        said: slipway_share::wire::Answer,
    },
}

/// The word on a request to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum Word {
    /// As it is.
    Pass,
    /// With the body that comes beside.
    Replace,
    /// Not at all.
    Refuse {
        /// HTTP's.
        status: u16,
        /// For a person.
        message: String,
    },
}

/// The state of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// See [`VERSION`].
    pub version: u32,
    /// Process id of the VM.
    pub pid: Option<u32>,
    /// What the machine runs on.
    pub capabilities: Capabilities,
    /// The virtual CPUs are stopped.
    pub paused: bool,
    /// The end of the guest's console, lossily as text, at most 16 KiB.
    pub console_tail: String,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure, so that the daemon can act on it.
    pub kind: FailureKind,
    /// For a person.
    pub message: String,
}

/// Why a port is not listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFailure {
    /// Stable, for machines: `port-in-use`.
    pub code: String,
    /// For whoever ran `docker run`.
    pub message: String,
    /// What to do, if there is something.
    pub hint: Option<String>,
}

/// Kinds of failure that the daemon tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Nothing listens on the guest's port.
    Refused,
    /// The guest did not answer.
    TimedOut,
    /// As many streams are open as can be.
    Exhausted,
    /// The machine is gone.
    Closed,
    /// The request made no sense.
    Invalid,
    /// Anything else.
    Other,
}
