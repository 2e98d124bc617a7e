//! A proxy on the host's loopback that remembers what it was asked for, and sends all of it to one server.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Longest head of a request.
const HEAD: usize = 64 << 10;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Forwards plain requests and tunnels, whatever host they name; ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens, and forwards to `server`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let (asked, ended) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (asks, ends) = (Arc::clone(&asked), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((client, _)) = listener.accept()
                && !ends.load(Ordering::Relaxed)
            {
                let asks = Arc::clone(&asks);
                serving.push(std::thread::spawn(move || {
                    // What breaks is the client's to tell.
                    let _ = serve(client, server, &asks);
                }));
            }
            for one in serving {
                let _ = one.join();
            }
        });
        Self { port, asked, ended, thread: Some(thread) }
    }

    /// Its URL, as the host says it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it was asked for so far: method and target of each request.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut client: TcpStream, server: SocketAddr, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD || client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (first, fields) = head.split_once("\r\n").unwrap_or_default();
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{method} {target}"));
    let mut upstream = TcpStream::connect(server)?;
    upstream.set_read_timeout(Some(SILENCE))?;
    match target.strip_prefix("http://").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        // One request for each connection: then nothing has to be understood of lengths.
        Some((_, path)) => {
            write!(upstream, "{method} /{path} HTTP/1.1\r\nConnection: close\r\n{fields}")?;
        }
        None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?,
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    let sending = std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
    });
    let answered = io::copy(&mut upstream, &mut client);
    // Ends the other direction, whose client may wait for another request's answer.
    let _ = client.shutdown(Shutdown::Both);
    let _ = sending.join();
    answered.map(drop)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
