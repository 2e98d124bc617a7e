//! Windows: datagrams without the address that was asked, which takes calls that have no safe wrapper. Answers leave from the address
//! that Windows chooses for the client: the one that was asked, unless this computer has several in the client's network.

use std::io;

use socket2::SockRef;
use tokio::net::UdpSocket;

use super::Client;

/// It is not told here.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(super) fn wants_asked(_socket: &std::net::UdpSocket) -> io::Result<()> {
    Ok(())
}

/// Whether the error says that a client that was answered is gone.
pub(super) fn is_of_one_client(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}

/// The next datagram, and who sent it.
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(Client, usize)> {
    let (count, peer) = socket.try_recv_from(buffer)?;
    Ok((Client { peer, asked: None }, count))
}

/// Answers a client.
pub(super) fn send(socket: &UdpSocket, client: Client, payload: &[u8]) -> io::Result<()> {
    SockRef::from(socket).send_to(payload, &client.peer.into()).map(drop)
}
