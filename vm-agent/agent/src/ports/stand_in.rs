//! The agent in place of docker-proxy: dockerd starts it for every published port and address family.
//!
//! ```text
//!   dockerd ─▶ docker-proxy -proto tcp -host-ip … ─▶ serves the guest's own address (as docker-proxy does)
//!                        │                          asks the agent, the agent the host, to listen
//!                        ├─ fd 3: `0\n`, or `1\n` and why not: dockerd gives that to whoever ran `docker run`
//!                        └─ SIGINT, SIGTERM, or the agent gone ─▶ the host's listener closes ─▶ ends
//! ```
//!
//! The port is published exactly as long as this process lives. What it serves in the guest is for programs there, such as
//! those of `--network host`; connections to the host do not pass through it.

use std::{
    fs::File,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use slipway_protocol::{
    frame,
    v1::{self, ports_answer},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::flows::{Flows, LONGEST};
use crate::splice;

/// How long the way down may take; dockerd waits for it.
const DOWN: Duration = Duration::from_secs(3);
/// Answers of containers that wait for the socket.
const ANSWERS: usize = 256;

/// What dockerd asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    protocol: v1::PortProtocol,
    host: SocketAddr,
    container: SocketAddr,
    /// dockerd bound the guest's socket already, and it is fd 4.
    listen_fd: bool,
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut protocol, mut listen_fd) = (v1::PortProtocol::Tcp, false);
        let mut addresses: [Option<IpAddr>; 2] = [None; 2];
        let mut ports = [0u16; 2];
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let name = word.trim_start_matches('-');
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (name, None),
            };
            if name == "use-listen-fd" {
                listen_fd = inline.is_none_or(|value| value != "false");
                continue;
            }
            let value = inline.or_else(|| words.next().map(String::as_str));
            let value = value.ok_or_else(|| format!("`-{name}` needs a value"))?;
            let wrong = || format!("`-{name} {value}` is not understood");
            match name {
                "proto" => {
                    protocol = match value {
                        "tcp" => v1::PortProtocol::Tcp,
                        "udp" => v1::PortProtocol::Udp,
                        "sctp" => v1::PortProtocol::Sctp,
                        _ => return Err(wrong()),
                    }
                }
                "host-ip" => addresses[0] = Some(value.parse().map_err(|_| wrong())?),
                "container-ip" => addresses[1] = Some(value.parse().map_err(|_| wrong())?),
                "host-port" => ports[0] = value.parse().map_err(|_| wrong())?,
                "container-port" => ports[1] = value.parse().map_err(|_| wrong())?,
                // Of a newer engine: better a port that works than none.
                _ => {}
            }
        }
        let [Some(host), Some(container)] = addresses else {
            return Err("`-host-ip` and `-container-ip` are needed".into());
        };
        Ok(Self {
            protocol,
            host: (host, ports[0]).into(),
            container: (container, ports[1]).into(),
            listen_fd,
        })
    }

    fn bind(&self) -> v1::PortBind {
        v1::PortBind {
            id: 0,
            protocol: self.protocol.into(),
            host_ip: self.host.ip().to_string(),
            host_port: self.host.port().into(),
            target: self.container.to_string(),
            origin: v1::PortOrigin::Published.into(),
            container: String::new(),
        }
    }
}

/// Is the stand-in for one port until dockerd ends it. `arguments` are those of docker-proxy.
pub fn run(arguments: &[String]) -> ExitCode {
    // SAFETY: dockerd opened the pipe for us, and nobody else in this process has it; a closed one shows as an error.
    let mut status = unsafe { File::from_raw_fd(3) };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&mut status, &format!("failed to start docker-proxy: {error}")),
    };
    runtime.block_on(async {
        let wish = match Wish::parse(arguments) {
            Ok(wish) => wish,
            Err(why) => return refuse(&mut status, &why),
        };
        match stand_in(wish, Path::new(super::local::SOCKET), status).await {
            Ok(()) => ExitCode::SUCCESS,
            Err((mut status, why)) => refuse(&mut status, &why),
        }
    })
}

fn refuse(status: &mut File, why: &str) -> ExitCode {
    // dockerd may be gone; then nobody wants to know.
    let _ = write!(status, "1\n{why}");
    ExitCode::FAILURE
}

async fn stand_in(wish: Wish, agent: &Path, mut status: File) -> Result<(), (File, String)> {
    // Signals first: dockerd may end us before we have begun.
    let signals =
        signal(SignalKind::interrupt()).and_then(|i| signal(SignalKind::terminate()).map(|t| (i, t)));
    let (mut interrupt, mut terminate) = match signals {
        Ok(signals) => signals,
        Err(error) => return Err((status, format!("failed to listen for signals: {error}"))),
    };
    let mut local = JoinSet::new();
    if let Err(error) = serve_guest(&wish, &mut local).await {
        return Err((status, format!("failed to listen on {} in the machine: {error}", wish.host)));
    }
    let mut stream = match ask(&wish, agent).await {
        Ok(stream) => stream,
        Err(why) => return Err((status, why)),
    };
    if status.write_all(b"0\n").is_err() {
        // dockerd does not wait any more, and will not end us either.
        return Ok(());
    }
    drop(status);
    let agent_gone = frame::read::<v1::PortsAnswer, _>(&mut stream);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        // Without the agent no host listens for us.
        _ = agent_gone => return Ok(()),
    }
    drop(local);
    let released = async {
        stream.shutdown().await?;
        frame::read::<v1::PortsAnswer, _>(&mut stream).await.map_err(io::Error::other)
    };
    // In vain: then the host hears of it from the agent.
    let _ = timeout(DOWN, released).await;
    Ok(())
}

/// Asks the agent for the host's port; the stream that holds it.
async fn ask(wish: &Wish, agent: &Path) -> Result<UnixStream, String> {
    let lost = |error: &dyn std::fmt::Display| format!("slipway's agent does not answer: {error}");
    let mut stream = UnixStream::connect(agent).await.map_err(|e| lost(&e))?;
    frame::write(&mut stream, &wish.bind()).await.map_err(|e| lost(&e))?;
    let answer = frame::read::<v1::PortsAnswer, _>(&mut stream).await.map_err(|e| lost(&e))?;
    match answer.and_then(|answer| answer.result) {
        Some(ports_answer::Result::Bound(_)) => Ok(stream),
        Some(ports_answer::Result::Failure(failure)) if failure.hint.is_empty() => Err(failure.message),
        Some(ports_answer::Result::Failure(failure)) => {
            Err(format!("{}\nhint: {}", failure.message, failure.hint))
        }
        _ => Err(lost(&"it closed the stream")),
    }
}

/// Serves the guest's own address, for programs in the guest.
async fn serve_guest(wish: &Wish, tasks: &mut JoinSet<()>) -> io::Result<()> {
    // SAFETY: dockerd opened the socket for us when it says so, and nobody else in this process has it.
    let given = wish.listen_fd.then(|| unsafe { OwnedFd::from_raw_fd(4) });
    match wish.protocol {
        v1::PortProtocol::Tcp => {
            let listener = match given {
                Some(socket) => {
                    rustix::net::listen(&socket, 4096)?;
                    std::net::TcpListener::from(socket)
                }
                None => std::net::TcpListener::bind(wish.host)?,
            };
            listener.set_nonblocking(true)?;
            tasks.spawn(guest_tcp(TcpListener::from_std(listener)?, wish.container));
        }
        v1::PortProtocol::Udp => {
            let socket = match given {
                Some(socket) => std::net::UdpSocket::from(socket),
                None => std::net::UdpSocket::bind(wish.host)?,
            };
            socket.set_nonblocking(true)?;
            tasks.spawn(guest_udp(UdpSocket::from_std(socket)?, wish.container));
        }
        // The host refuses it anyway; in the guest the kernel's own rules serve it.
        v1::PortProtocol::Sctp | v1::PortProtocol::Unspecified => {}
    }
    Ok(())
}

async fn guest_tcp(listener: TcpListener, container: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((mut client, _)) => drop(connections.spawn(async move {
                    // Either end may break at any time; there is nobody to tell.
                    let Ok(mut target) = TcpStream::connect(container).await else { return };
                    let _ = (client.set_nodelay(true), target.set_nodelay(true));
                    let _ = splice::copy(&mut client, &mut target).await;
                })),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn guest_udp(socket: UdpSocket, container: SocketAddr) {
    let (answer, mut answers) = mpsc::channel(ANSWERS);
    let mut flows = Flows::<SocketAddr>::new(container, answer);
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            got = socket.recv_from(&mut buffer) => match got {
                // Lost, as datagrams may be.
                Ok((count, client)) => drop(flows.send(client, &buffer[..count]).await),
                // A client that was answered is gone.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some((client, payload)) = answers.recv() => drop(socket.send_to(&payload, client).await),
            () = flows.next_sweep() => flows.forget_idle(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn dockerds_own_command_lines_are_understood() {
        let line = "-proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80 -use-listen-fd";
        let wish = Wish::parse(&words(line)).expect("understood");
        assert_eq!(wish.host, "0.0.0.0:8080".parse().expect("address"));
        assert_eq!(wish.container, "172.17.0.2:80".parse().expect("address"));
        assert!(wish.listen_fd);
        let line = "-proto=udp -host-ip=:: -host-port=53 -container-ip=172.17.0.3 -container-port=53";
        let wish = Wish::parse(&words(line)).expect("understood");
        assert_eq!((wish.protocol, wish.listen_fd), (v1::PortProtocol::Udp, false));
        assert_eq!(wish.bind().host_ip, "::");
    }

    #[test]
    fn a_line_without_addresses_is_refused_and_never_panics() {
        for line in
            ["", "-proto", "-proto quic", "-host-ip x", "-host-port 99999 -host-ip ::1", "-host-ip ::1"]
        {
            assert!(Wish::parse(&words(line)).is_err(), "{line}");
        }
    }
}
