//! A server on the host's loopback that greets whoever asks: what a person's own program is to a container.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Answers every HTTP request, and every datagram, with its greeting, on one port of 127.0.0.1; ends when it is dropped.
#[derive(Debug)]
pub struct Greeter {
    port: u16,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Greeter {
    /// Listens.
    ///
    /// # Panics
    /// Without a port that is free for both protocols.
    pub fn new(greeting: &'static str) -> Self {
        let pair = || {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
            Some((tcp, udp))
        };
        let (tcp, udp) = (0..100).find_map(|_| pair()).expect("a port that is free");
        let port = tcp.local_addr().expect("an address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let (ends, goes_on) = (Arc::clone(&ended), move |ended: &AtomicBool| !ended.load(Ordering::Relaxed));
        let by_tcp = std::thread::spawn(move || {
            while let Ok((stream, _)) = tcp.accept()
                && goes_on(&ends)
            {
                // A client that broke off needs no greeting.
                let _ = greet(stream, greeting);
            }
        });
        let ends = Arc::clone(&ended);
        let by_udp = std::thread::spawn(move || {
            let mut datagram = [0; 1500];
            while let Ok((_, client)) = udp.recv_from(&mut datagram)
                && goes_on(&ends)
            {
                let _ = udp.send_to(greeting.as_bytes(), client);
            }
        });
        Self { port, ended, threads: vec![by_tcp, by_udp] }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn greet(mut stream: TcpStream, greeting: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", greeting.len());
    stream.write_all(&[head.as_bytes(), greeting.as_bytes()].concat())
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes both.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(b"end", (Ipv4Addr::LOCALHOST, self.port));
        }
        for thread in self.threads.drain(..) {
            // What it panicked with was printed.
            let _ = thread.join();
        }
    }
}
