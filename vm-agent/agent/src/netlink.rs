//! Questions to the kernel by netlink. Its answers are there when a question was sent, so nothing here waits.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink,
};

// From linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Asks for all that there is, each in a message.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A socket to a part of the kernel.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// # Errors
    /// The kernel knows no such part.
    pub(crate) fn open(part: Protocol) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(part),
        )?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The contents of what the kernel answers, one for each message. Only a dump has several, and says where it ends.
    ///
    /// # Errors
    /// The kernel's own, [`io::ErrorKind::Interrupted`] for a dump of what changed meanwhile, and
    /// [`io::ErrorKind::InvalidData`] for an answer in no known form.
    pub(crate) fn exchange(&self, request: &[u8], dump: bool) -> io::Result<Vec<Vec<u8>>> {
        rustix::net::send(&self.0, request, SendFlags::empty())?;
        let (mut answers, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let (count, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            for message in messages(&buffer[..count]) {
                match message? {
                    Message::End => return Ok(answers),
                    Message::Content(bytes) => answers.push(bytes.to_vec()),
                }
            }
            if !dump {
                return Ok(answers);
            }
        }
    }
}

/// A message of that kind with its header.
pub(crate) fn request(kind: u16, flags: u16, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + content.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Neither a number, because one question is open at a time, nor a port: the socket has one.
    bytes.resize(HEADER, 0);
    bytes.extend(content);
    bytes
}

#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    Content(&'a [u8]),
    End,
}

/// Takes a datagram of netlink apart.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let broken = || Some(Err(io::ErrorKind::InvalidData.into()));
        let Some((header, _)) = datagram.split_first_chunk::<HEADER>() else {
            datagram = &[];
            return broken();
        };
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let (kind, flags) =
            (u16::from_ne_bytes([header[4], header[5]]), u16::from_ne_bytes([header[6], header[7]]));
        let Some(body) = datagram.get(HEADER..length) else {
            datagram = &[];
            return broken();
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match kind {
            // It changed while it was told.
            _ if flags & NLM_F_DUMP_INTR != 0 => Err(io::ErrorKind::Interrupted.into()),
            // A dump that fails ends with why.
            NLMSG_ERROR | NLMSG_DONE => match body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)) {
                Some(code @ ..0) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                None if kind == NLMSG_ERROR => Err(io::ErrorKind::InvalidData.into()),
                Some(_) | None => Ok(Message::End),
            },
            _ => Ok(Message::Content(body)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart_and_broken_ones_are_refused() {
        let message = |kind: u16, flags: u16, body: &[u8]| {
            let mut bytes = u32::try_from(HEADER + body.len()).expect("short").to_ne_bytes().to_vec();
            bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
            bytes.extend([0; 8]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let rule = message(0x0a06, 2, b"\x02\0\0\0rule!");
        let both = [rule.clone(), message(NLMSG_DONE, 2, &[0; 4])].concat();
        let all: Vec<_> = messages(&both).map(|m| m.expect("well formed")).collect();
        assert_eq!(all, [Message::Content(b"\x02\0\0\0rule!"), Message::End]);
        let refused = |bytes: &[u8]| messages(bytes).next().expect("one").expect_err("refused");
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            assert_eq!(refused(&message(kind, 0, &(-2i32).to_ne_bytes())).raw_os_error(), Some(2));
        }
        assert_eq!(refused(&message(0x0a06, NLM_F_DUMP_INTR, b"xxxx")).kind(), io::ErrorKind::Interrupted);
        for broken in [&rule[..10], &rule[..20], &message(NLMSG_ERROR, 0, b"")[..]] {
            assert_eq!(refused(broken).kind(), io::ErrorKind::InvalidData);
        }
        // A length below the header's own.
        assert_eq!(
            refused(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).kind(),
            io::ErrorKind::InvalidData
        );
    }
}
