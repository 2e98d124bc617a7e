//! The first container a person runs: one page that says the engine, its network and its ports work.
//!
//! It ships inside the guest image, so the first `docker run` needs no registry. It is PID 1 of its container,
//! for which the kernel ignores signals without a handler; one is installed, so that `docker stop` is prompt.

mod page;
mod request;

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Requests answered at a time; a browser opens six connections.
const CONNECTIONS: usize = 32;
/// How long one client may take for its request, and again for taking the answer.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let port = match std::env::args().nth(1).map(|word| word.parse::<u16>()) {
        None => 80,
        Some(Ok(port)) => port,
        Some(Err(_)) => {
            eprintln!("error: the only argument is the port to listen on\nhint: leave it out for port 80");
            return ExitCode::from(2);
        }
    };
    let mut signals = match Signals::new([SIGTERM, SIGINT]) {
        Ok(signals) => signals,
        Err(error) => return failed("cannot install a signal handler", &error),
    };
    match listen(port) {
        Ok(listeners) => {
            let open = Arc::new(AtomicUsize::new(0));
            for listener in listeners {
                let open = open.clone();
                std::thread::spawn(move || accept(&listener, &open));
            }
        }
        Err(error) => return failed(&format!("cannot listen on port {port}"), &error),
    }
    println!("listening on port {port}");
    signals.forever().next();
    ExitCode::SUCCESS
}

fn failed(what: &str, error: &std::io::Error) -> ExitCode {
    eprintln!("error: {what}\ncaused by: {error}");
    ExitCode::FAILURE
}

/// One socket for both families where the kernel makes `[::]` dual-stack, else one each.
fn listen(port: u16) -> std::io::Result<Vec<TcpListener>> {
    let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    match (v6, TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))) {
        (Ok(v6), Ok(v4)) => Ok(vec![v6, v4]),
        // The IPv6 socket has the IPv4 port as well.
        (Ok(v6), Err(error)) if error.kind() == ErrorKind::AddrInUse => Ok(vec![v6]),
        // A container without IPv6 is usual.
        (Err(_), Ok(v4)) => Ok(vec![v4]),
        (_, Err(error)) => Err(error),
    }
}

fn accept(listener: &TcpListener, open: &Arc<AtomicUsize>) {
    loop {
        let Ok((stream, peer)) = listener.accept() else {
            // Out of descriptors or memory: a moment later there may be some.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
            let _ = (&stream).write_all(request::BUSY);
            continue;
        }
        let held = Held(open.clone());
        // If there is no thread to be had, the closure is dropped, and with it the connection.
        let _ = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            let _held = held;
            // A client that goes away in the middle concerns nobody.
            let _ = serve(stream, peer);
        });
    }
}

/// Counts one open connection for as long as it lives.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let answer = match request::read(&mut stream, PATIENCE)? {
        Ok(request) => request.answer(|| page::html(&page::Facts::here(peer))),
        Err(refusal) => refusal.to_vec(),
    };
    stream.write_all(&answer)?;
    stream.shutdown(std::net::Shutdown::Write)
}
