//! Sends every datagram back to its sender; runs in a container, whose shell cannot.

use std::{io, net::UdpSocket};

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(7);
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    let mut datagram = vec![0; 65536];
    loop {
        let (length, sender) = socket.recv_from(&mut datagram)?;
        socket.send_to(&datagram[..length], sender)?;
    }
}
