//! Datagrams for containers, whose shell has none: `PORT` sends every one back to its sender; `HOST PORT` sends one there and
//! prints what comes back.

use std::{
    io::{self, Write},
    net::UdpSocket,
    time::Duration,
};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = arguments.last().and_then(|port| port.parse::<u16>().ok()).unwrap_or(7);
    let mut datagram = vec![0; 65536];
    if let [host, _] = &arguments[..] {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(b"hi", (host.as_str(), port))?;
        let (length, _) = socket.recv_from(&mut datagram)?;
        return io::stdout().write_all(&datagram[..length]);
    }
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    loop {
        let (length, sender) = socket.recv_from(&mut datagram)?;
        socket.send_to(&datagram[..length], sender)?;
    }
}
