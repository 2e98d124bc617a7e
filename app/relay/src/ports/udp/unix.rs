//! Unix: datagrams with the address that was asked beside them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::net::UdpSocket;

use super::Client;

/// Asks for that address.
pub(super) fn wants_asked(socket: &std::net::UdpSocket) -> io::Result<()> {
    match socket.local_addr() {
        Ok(SocketAddr::V4(_)) => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
        _ => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// Whether the error says that a client that was answered is gone.
pub(super) fn is_of_one_client(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// The next datagram, and who sent it.
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(Client, usize)> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let peer = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|a| SocketAddr::from(std::net::SocketAddrV4::from(*a)));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::from(std::net::SocketAddrV6::from(*a))))
    });
    let peer = peer.ok_or_else(|| io::Error::other("a datagram came from nowhere"))?;
    let asked = message.cmsgs()?.find_map(|word| match word {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(u32::from_be(info.ipi_addr.s_addr).to_be_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    Ok((Client { peer, asked }, message.bytes))
}

/// Answers a client from the address that it asked.
pub(super) fn send(socket: &UdpSocket, client: Client, payload: &[u8]) -> io::Result<()> {
    let to = SockaddrStorage::from(client.peer);
    let parts = [IoSlice::new(payload)];
    let say = |words: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &parts, words, MsgFlags::MSG_DONTWAIT, Some(&to))
    };
    match client.asked {
        Some(IpAddr::V4(from)) => {
            let from = libc::in_addr { s_addr: u32::from(from).to_be() };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: from,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            say(&[ControlMessage::Ipv4PacketInfo(&info)])?
        }
        Some(IpAddr::V6(from)) => {
            // The interface stays open: link-local peers name it in their own address.
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
            say(&[ControlMessage::Ipv6PacketInfo(&info)])?
        }
        None => say(&[])?,
    };
    Ok(())
}
