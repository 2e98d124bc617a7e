//! Questions to nf_tables, by netlink.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{NETFILTER, SocketAddrNetlink},
};

use super::rule::Rule;

/// Named as the protocols are in netlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4 = 2,
    Ipv6 = 10,
}

pub(super) const CHAIN_EXISTS: &str = "Chain already exists.";

/// A socket to nf_tables. Its answers are there when a question was sent, so nothing here waits.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: OwnedFd,
    family: Family,
}

// From linux/netlink.h and linux/netfilter/nf_tables.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE_ONLY: u16 = 0x600;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
/// The same numbers for chains and rules: the table, and the chain's name.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
/// Length of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;

impl Kernel {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, family })
    }

    /// The rules of a chain; `None` when there is no such chain.
    pub(super) fn chain(&self, table: &str, chain: &str) -> io::Result<Option<Vec<Rule>>> {
        let there = self.ask(NFT_MSG_GETCHAIN, 0, &[(TABLE, table), (CHAIN_NAME, chain)]);
        match there {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => {
                let rules = self.ask(NFT_MSG_GETRULE, NLM_F_DUMP, &[(TABLE, table), (RULE_CHAIN, chain)])?;
                Ok(Some(rules.into_iter().map(Rule::new).collect()))
            }
        }
    }

    /// Makes a chain; fails where there is no such table.
    pub(super) fn make_chain(&self, table: &str, chain: &str) -> io::Result<Result<(), &'static str>> {
        let border = |kind| {
            let mut message = request(0, kind, 0, &[]);
            message[HEADER + 2..].copy_from_slice(&NFNL_SUBSYS_NFTABLES.to_be_bytes());
            message
        };
        let flags = NLM_F_ACK | NLM_F_CREATE_ONLY;
        let chain = [(TABLE, table), (CHAIN_NAME, chain)];
        let make = request(self.family as u8, of_nftables(NFT_MSG_NEWCHAIN), flags, &chain);
        let batch = [border(NFNL_MSG_BATCH_BEGIN), make, border(NFNL_MSG_BATCH_END)].concat();
        match self.exchange(&batch, false) {
            Ok(_) => Ok(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Err(CHAIN_EXISTS)),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, kind: u16, flags: u16, attributes: &[(u16, &str)]) -> io::Result<Vec<Vec<u8>>> {
        let request = request(self.family as u8, of_nftables(kind), flags, attributes);
        self.exchange(&request, flags & NLM_F_DUMP != 0)
    }

    /// The contents of what the kernel answers, one per message. Only a dump has several, and says where it ends.
    fn exchange(&self, request: &[u8], dump: bool) -> io::Result<Vec<Vec<u8>>> {
        rustix::net::send(&self.socket, request, SendFlags::empty())?;
        let (mut answers, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let (count, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
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

fn of_nftables(kind: u16) -> u16 {
    (NFNL_SUBSYS_NFTABLES << 8) | kind
}

fn request(family: u8, kind: u16, flags: u16, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend([family, 0, 0, 0]);
    for (kind, value) in attributes {
        let length = 4 + value.len() + 1;
        bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.as_bytes());
        // The NUL, and up to the next multiple of four.
        bytes.resize(bytes.len() + 1 + (4 - length % 4) % 4, 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
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
            NLMSG_DONE => Ok(Message::End),
            NLMSG_ERROR => match body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)) {
                Some(0) => Ok(Message::End),
                Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            _ => Ok(Message::Content(body.get(GENERIC..).unwrap_or_default())),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_kernel_wants_it() {
        let bytes = request(2, of_nftables(NFT_MSG_GETCHAIN), 0, &[(TABLE, "nat"), (CHAIN_NAME, "DOCKER")]);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes[..4], u32::try_from(bytes.len()).expect("short").to_ne_bytes());
        assert_eq!(bytes[16..28], [2, 0, 0, 0, 8, 0, 1, 0, b'n', b'a', b't', 0]);
        assert_eq!(bytes[28..], [11, 0, 3, 0, b'D', b'O', b'C', b'K', b'E', b'R', 0, 0]);
    }

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
        assert_eq!(all, [Message::Content(b"rule!"), Message::End]);
        let refused = |bytes: &[u8]| messages(bytes).next().expect("one").expect_err("refused");
        let enoent = message(NLMSG_ERROR, 0, &(-2i32).to_ne_bytes());
        assert_eq!(refused(&enoent).raw_os_error(), Some(2));
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
