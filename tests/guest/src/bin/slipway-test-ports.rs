//! The server behind the ports that `tests/bench` measures. It listens on `PORT`, for connections and datagrams.
//!
//! A connection's first byte says what it is for: `u` reads to the end and answers with the count, `d` reads eight bytes N and
//! sends N, `e` sends back what comes. Datagrams are always sent back.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    thread,
};

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| io::Error::other("usage: slipway-test-ports PORT"))?;
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        loop {
            // One whose client is gone is an error of the next act, and not the server's end.
            if let Ok((length, sender)) = datagrams.recv_from(&mut datagram) {
                let _ = datagrams.send_to(&datagram[..length], sender);
            }
        }
    });
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("{error}");
            }
        });
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut act = [0];
    stream.read_exact(&mut act)?;
    let mut buffer = vec![0; 128 << 10];
    match act[0] {
        b'u' => {
            let mut count = 0u64;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return stream.write_all(&count.to_le_bytes()),
                    length => count += length as u64,
                }
            }
        }
        b'd' => {
            let mut wanted = [0; 8];
            stream.read_exact(&mut wanted)?;
            let mut left = u64::from_le_bytes(wanted);
            while left > 0 {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                stream.write_all(&buffer[..length])?;
                left -= length as u64;
            }
            Ok(())
        }
        b'e' => loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                length => stream.write_all(&buffer[..length])?,
            }
        },
        other => Err(io::Error::other(format!("no act is called {other}"))),
    }
}
