//! Packets (SOCK_SEQPACKET) of JSON with at most one descriptor, blocking. The shim has the other end.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest packet in bytes.
pub const MAX_PACKET: usize = 128 * 1024;

/// Two ends of a new packet socket; neither outlives an `exec`.
///
/// # Errors
/// That of the system call.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends one message. A packet goes whole or not at all.
///
/// # Errors
/// `InvalidInput` for a message beyond [`MAX_PACKET`]; that of the system call otherwise.
pub fn send<M: Serialize>(socket: impl AsFd, message: &M, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    if bytes.len() > MAX_PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is longer than a packet may be"));
    }
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return sent.map(drop).map_err(Into::into),
        }
    }
}

/// Receives one message and the descriptor that came with it; `None` at the end.
///
/// # Errors
/// `InvalidData` for a packet that is too long or is no such message; that of the system call otherwise.
pub fn receive<M: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let mut bytes = vec![0u8; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = loop {
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got?,
        }
    };
    let mut fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if got.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || fds.len() > 1 {
        return Err(invalid("packet is too long or carries too many descriptors"));
    }
    let message = serde_json::from_slice(&bytes[..got.bytes]).map_err(|e| invalid(&e.to_string()))?;
    Ok(Some((message, fds.pop())))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptor_and_the_end_is_seen() {
        let (one, other) = pair().expect("pair");
        let mut file = tempfile::tempfile().expect("file");
        std::io::Write::write_all(&mut file, b"contents").expect("writes");
        std::io::Seek::rewind(&mut file).expect("rewinds");
        send(&one, &"hello", Some(file.as_fd())).expect("sends");
        drop(one);
        let (text, fd) = receive::<String>(&other).expect("receives").expect("one");
        let mut contents = String::new();
        std::fs::File::from(fd.expect("a descriptor")).read_to_string(&mut contents).expect("reads");
        assert_eq!((text.as_str(), contents.as_str()), ("hello", "contents"));
        assert!(receive::<String>(&other).expect("the end").is_none());
    }
}
