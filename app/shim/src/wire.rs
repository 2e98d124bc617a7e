//! What travels on `shim.sock`: one JSON message per packet (SOCK_SEQPACKET), a descriptor beside it where one is handed over.
//!
//! Packets keep their borders, so there is no framing to get wrong; a packet beyond [`MAX_PACKET`] is refused whole.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_relay::ports::{PortSpec, PublishedPort};
use slipway_vm::{Capabilities, ExitReason, Stall};
use tokio::net::UnixStream;

/// Version of these messages; the shim may be older than the daemon that adopts it.
///
/// 2: published ports, host folders and the review of requests to the engine. 3: stalls.
pub const VERSION: u32 = 3;
/// Longest packet in bytes, and so the longest `head` of a splice (half of it, for its encoding).
pub const MAX_PACKET: usize = 128 * 1024;

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
    /// Join the socket that comes with this packet to a port of the guest.
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
        /// The word; the body that replaces the request's comes as a file with this packet.
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
    /// With id 0: may this request to the engine pass? Its body comes as a file with this packet.
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

/// A packet socket of this protocol, either end or listening.
///
/// tokio has no type for packet sockets; its stream type is used for its registration with the reactor only, every
/// system call is our own.
#[derive(Debug)]
pub struct PacketSocket(UnixStream);

impl PacketSocket {
    /// Connects to a listening shim. Needs a tokio runtime.
    ///
    /// # Errors
    /// That of the system call; `ConnectionRefused` and `NotFound` mean that no shim lives.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::from_fd(socket)
    }

    /// Listens at `path`, which must not exist; the folder decides who may connect.
    ///
    /// # Errors
    /// That of the system call.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 64)?;
        Self::from_fd(socket)
    }

    /// Takes over a packet socket that does not block.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixStream::from_std(fd.into())?))
    }

    /// The next connection to a listening socket. Cancel-safe.
    ///
    /// # Errors
    /// That of the system call.
    pub async fn accept(&self) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = || rustix::net::accept_with(&self.0, flags).map_err(io::Error::from);
        Self::from_fd(self.0.async_io(tokio::io::Interest::READABLE, accept).await?)
    }

    /// Sends one message, with a descriptor where one is handed over. Cancel-safe: a packet goes whole or not at all.
    ///
    /// # Errors
    /// `InvalidInput` for a message beyond [`MAX_PACKET`]; that of the system call otherwise.
    pub async fn send<M: Serialize>(&self, message: &M, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "message is longer than a packet may be",
            ));
        }
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        self.0
            .async_io(tokio::io::Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(&fds));
                }
                let flags = SendFlags::NOSIGNAL;
                rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags)?;
                Ok(())
            })
            .await
    }

    /// Receives one message and the descriptor that came with it; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` for a packet that is too long, holds no such message or carries more than one descriptor (all of
    /// them are closed); the socket stays usable. That of the system call otherwise.
    pub async fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Option<OwnedFd>)>> {
        let mut bytes = vec![0u8; MAX_PACKET];
        let (count, mut fds, flags) = self
            .0
            .async_io(tokio::io::Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC;
                let got =
                    rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
                let fds: Vec<OwnedFd> = control
                    .drain()
                    .filter_map(|m| match m {
                        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                        _ => None,
                    })
                    .flatten()
                    .collect();
                Ok((got.bytes, fds, got.flags))
            })
            .await?;
        if count == 0 && fds.is_empty() {
            return Ok(None);
        }
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || fds.len() > 1 {
            return Err(invalid("packet is too long or carries too many descriptors"));
        }
        let message = serde_json::from_slice(&bytes[..count]).map_err(|e| invalid(&e.to_string()))?;
        Ok(Some((message, fds.pop())))
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
