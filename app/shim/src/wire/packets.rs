//! Linux: packets (SOCK_SEQPACKET), which keep their borders, so there is no framing to get wrong; a packet beyond [`MAX_PACKET`] is
//! refused whole.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Seek, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{MAX_BODY, MAX_PACKET};

/// What travels beside a message: a socket, or a file with bytes that are too many for one.
pub type Beside = OwnedFd;

/// A file in memory with these bytes, to be sent beside a message.
pub(crate) fn beside(bytes: &[u8]) -> io::Result<Beside> {
    let mut file = File::from(memfd_create("body", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// What is in such a file; at most [`MAX_BODY`].
pub(crate) fn bytes_of(beside: Option<Beside>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(fd) = beside {
        let mut file = File::from(fd);
        file.rewind()?;
        file.take(MAX_BODY as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// A socket as what is beside a message.
pub(crate) fn descriptor(fd: OwnedFd) -> Beside {
    fd
}

/// And back.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it may be something else.
pub(crate) fn into_descriptor(beside: Beside) -> Option<OwnedFd> {
    Some(beside)
}

/// Where daemons connect.
#[derive(Debug)]
pub struct Listener(Peer);

impl Listener {
    /// Listens at `path`, which must not exist; the folder decides who may connect.
    ///
    /// # Errors
    /// That of the system call.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 64)?;
        Peer::from_fd(socket).map(Self)
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// That of the system call.
    pub async fn accept(&mut self) -> io::Result<Peer> {
        let socket = &self.0.0;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = || rustix::net::accept_with(socket, flags).map_err(io::Error::from);
        Peer::from_fd(socket.async_io(tokio::io::Interest::READABLE, accept).await?)
    }
}

/// A packet socket of this protocol, either end.
///
/// tokio has no type for packet sockets; its stream type is used for its registration with the reactor only, every
/// system call is our own.
#[derive(Debug)]
pub struct Peer(UnixStream);

impl Peer {
    /// Connects to a listening shim. Needs a tokio runtime.
    ///
    /// # Errors
    /// That of the system call; `ConnectionRefused` and `NotFound` mean that no shim lives.
    #[allow(clippy::unused_async)] // Elsewhere it waits.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::from_fd(socket)
    }

    /// Takes over a packet socket that does not block.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixStream::from_std(fd.into())?))
    }

    /// Sends one message, with a descriptor where one is handed over. Cancel-safe: a packet goes whole or not at all.
    ///
    /// # Errors
    /// `InvalidInput` for a message beyond [`MAX_PACKET`]; that of the system call otherwise.
    pub async fn send<M: Serialize>(&self, message: &M, fd: Option<&Beside>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "message is longer than a packet may be",
            ));
        }
        let fds: Vec<BorrowedFd<'_>> = fd.map(AsFd::as_fd).into_iter().collect();
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
    pub async fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Option<Beside>)>> {
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
