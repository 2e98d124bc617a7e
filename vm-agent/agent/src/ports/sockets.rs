//! Which sockets of our network wait for somebody, by the kernel's sock_diag.
//!
//! The tables in `/proc/net` say the same, but who reads them walks over every slot of the connections' table after those that
//! listen, which is most of a quiet guest's work when it is done twice a second.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use rustix::net::netlink::SOCK_DIAG;
use slipway_protocol::v1;

use crate::netlink::{self, NLM_F_DUMP, Netlink};

// From linux/sock_diag.h, linux/inet_diag.h and linux/socket.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKV6ONLY: u16 = 11;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// Bits of states: TCP that listens, and UDP that is not connected, which has TCP's word for closed.
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;
/// Length of `struct inet_diag_sockid`, and of `struct inet_diag_msg`, which has one.
const SOCKID: usize = 48;
const MESSAGE: usize = 72;

/// An open socket, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) protocol: v1::PortProtocol,
    pub(super) address: SocketAddr,
    /// One on `::` that does not serve IPv4.
    pub(super) only_v6: bool,
    pub(super) inode: u64,
}

/// All of them, in the caller's network namespace.
///
/// # Errors
/// The kernel does not list its sockets.
pub(super) fn waiting() -> io::Result<Vec<Socket>> {
    let kernel = Netlink::open(SOCK_DIAG)?;
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        for (number, states, protocol) in
            [(IPPROTO_TCP, LISTEN, v1::PortProtocol::Tcp), (IPPROTO_UDP, CLOSE, v1::PortProtocol::Udp)]
        {
            let mut question = vec![family, number, 0, 0];
            question.extend(states.to_ne_bytes());
            question.resize(question.len() + SOCKID, 0);
            let question = netlink::request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &question);
            let answers = kernel.exchange(&question, true)?;
            sockets.extend(answers.iter().filter_map(|answer| socket(protocol, answer)));
        }
    }
    Ok(sockets)
}

/// Reads a `struct inet_diag_msg` with what follows it.
fn socket(protocol: v1::PortProtocol, answer: &[u8]) -> Option<Socket> {
    let (message, attributes) = answer.split_first_chunk::<MESSAGE>()?;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let ip = match message[0] {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(&message[8..12]).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(&message[8..24]).ok()?).to_canonical(),
    };
    let inode = u32::from_ne_bytes(*message.last_chunk()?).into();
    let only_v6 = attribute(attributes, INET_DIAG_SKV6ONLY).is_some_and(|value| value.first() == Some(&1));
    // Before it is bound a UDP socket has no port.
    (port != 0).then_some(Socket { protocol, address: (ip, port).into(), only_v6, inode })
}

/// The number of the socket that a process has open, by where its descriptor's link in `/proc` leads; `None` for another file.
pub(super) fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The value of a netlink attribute.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((&[l0, l1, k0, k1], _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Says so where the tests' kernel has no such question: qemu-user's has not.
#[cfg(test)]
pub(super) fn is_answered() -> bool {
    let opened = Netlink::open(SOCK_DIAG);
    opened.inspect_err(|error| eprintln!("skipped: the kernel does not list its sockets ({error})")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("open");
        super::inode(&link).expect("a socket")
    }

    #[test]
    fn what_waits_is_listed_and_what_is_connected_is_not() {
        if !is_answered() {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
        let both = TcpListener::bind("[::]:0").expect("listens");
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let asking = UdpSocket::bind("127.0.0.1:0").expect("bound");
        asking.connect(server.local_addr().expect("address")).expect("connected");
        let sockets = waiting().expect("listed");
        let found = |of: u64| sockets.iter().find(|socket| socket.inode == of);
        let is = |inode: u64, protocol, address: io::Result<SocketAddr>| {
            let address = address.expect("address");
            assert_eq!(found(inode), Some(&Socket { protocol, address, only_v6: false, inode }));
        };
        is(inode(&listener), v1::PortProtocol::Tcp, listener.local_addr());
        is(inode(&both), v1::PortProtocol::Tcp, both.local_addr());
        is(inode(&server), v1::PortProtocol::Udp, server.local_addr());
        assert_eq!((found(inode(&client)), found(inode(&asking))), (None, None));
    }

    #[test]
    fn an_answer_says_whether_ipv4_is_served_and_a_broken_one_says_nothing() {
        let mut answer = vec![0; MESSAGE];
        answer[0] = AF_INET6;
        answer[4..6].copy_from_slice(&80u16.to_be_bytes());
        answer[68..72].copy_from_slice(&7u32.to_ne_bytes());
        let plain = answer.clone();
        for (kind, value) in [(8u16, 0), (INET_DIAG_SKV6ONLY, 1)] {
            answer.extend([5u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
            answer.extend([value, 0, 0, 0]);
        }
        let tcp = v1::PortProtocol::Tcp;
        let only = |answer: &[u8]| socket(tcp, answer).expect("one").only_v6;
        assert!(only(&answer) && !only(&plain) && !only(&answer[..MESSAGE + 10]));
        assert_eq!(socket(tcp, &answer).expect("one").address.to_string(), "[::]:80");
        assert_eq!(socket(tcp, &answer[..MESSAGE - 1]), None);
        for garbage in [&[0u8; 7][..], &[0xff; 9], &[3, 0, 11, 0, 1, 1]] {
            assert_eq!(attribute(garbage, INET_DIAG_SKV6ONLY), None);
        }
    }
}
