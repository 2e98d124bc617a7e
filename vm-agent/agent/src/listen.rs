//! Listens on the agent's ports and serves what comes in, each stream in a task of its own that ends with the listener.

use std::{
    fs, io,
    os::{
        fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use slipway_protocol::ports::{self, GuestPort};
use tokio::{net::UnixListener, task::JoinSet};
use tokio_vsock::VsockListener;

use crate::{
    exec,
    ports::forward,
    serve::{self, Guest, ServeError, Stream},
    splice,
};

/// Every port that the agent serves, but for the lanes.
const PORTS: [GuestPort; 10] = [
    ports::CONTROL,
    ports::DIAL,
    ports::ENGINE,
    ports::EXEC,
    ports::LOGS,
    ports::PORTS,
    ports::FORWARD,
    ports::DATAGRAMS,
    ports::NAMES,
    ports::FILE_EVENTS,
];

/// Every port that the agent serves.
pub(crate) fn ports() -> impl Iterator<Item = GuestPort> {
    PORTS.into_iter().chain(ports::lanes())
}

/// AF_VSOCK refuses at once what does not fit, so as many as the kernel grants.
const BACKLOG: i32 = 4096;
/// The host's context id; whoever else connects (a container over a loopback transport) is not served.
const HOST: u32 = 2;

/// Where streams come from.
pub(crate) enum Listener {
    Vsock(VsockListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on a vsock port. To be called inside the runtime.
    pub(crate) fn vsock(port: GuestPort) -> io::Result<Self> {
        let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_VSOCK, flags, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an address of zeroes is a valid value of this plain C structure.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as _;
        address.svm_port = port.0;
        address.svm_cid = libc::VMADDR_CID_ANY;
        let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        // SAFETY: the pointer is to a live structure of the length given.
        if unsafe { libc::bind(fd, (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes no pointers.
        if unsafe { libc::listen(fd, BACKLOG) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: ownership of an open listening vsock socket is handed over.
        Ok(Self::Vsock(unsafe { VsockListener::from_raw_fd(socket.into_raw_fd()) }))
    }

    /// Listens on `DIR/PORT.sock`.
    pub(crate) fn unix(dir: &Path, port: GuestPort) -> io::Result<Self> {
        UnixListener::bind(dir.join(format!("{port}.sock"))).map(Self::Unix)
    }
}

/// Listens on a socket of the guest's own, in a folder that only its root can enter.
pub(crate) fn private(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    UnixListener::bind(path)
}

/// Accepts for ever.
pub(crate) async fn run(listener: Listener, port: GuestPort, guest: Arc<Guest>) -> io::Result<()> {
    let mut streams = JoinSet::new();
    let mut ours = !ports::forwards(port);
    loop {
        let accepted = tokio::select! {
            Some(_ended) = streams.join_next() => continue,
            handed_over = hand_over(&listener), if !ours => match handed_over {
                Ok(()) => {
                    // The module holds the socket, as long as the machine runs; here each connection would still wake us.
                    drop(listener);
                    while streams.join_next().await.is_some() {}
                    return std::future::pending().await;
                }
                Err(error) => {
                    guest.logs.say(format!("the module does not serve port {port}: {error}"));
                    ours = true;
                    continue;
                }
            },
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok(Some(Accepted::Vsock(stream))) => drop(streams.spawn(one(stream, port, Arc::clone(&guest)))),
            Ok(Some(Accepted::Unix(stream))) => drop(streams.spawn(one(stream, port, Arc::clone(&guest)))),
            Ok(None) => {}
            Err(error) => {
                // Out of descriptors or memory: what is open goes on, and the next attempt comes when some have ended.
                guest.logs.say(format!("failed to accept on port {port}: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// To the module, when it is there. Cancel-safe.
async fn hand_over(listener: &Listener) -> io::Result<()> {
    match listener {
        Listener::Vsock(vsock) => splice::hand_over_listener(vsock.as_fd()).await,
        Listener::Unix(_) => std::future::pending().await,
    }
}

enum Accepted {
    Vsock(tokio_vsock::VsockStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Option<Accepted>> {
    match listener {
        Listener::Vsock(listener) => {
            let (stream, peer) = listener.accept().await?;
            Ok((peer.cid() == HOST).then_some(Accepted::Vsock(stream)))
        }
        Listener::Unix(listener) => Ok(Some(Accepted::Unix(listener.accept().await?.0))),
    }
}

async fn one(stream: impl Stream + AsFd, port: GuestPort, guest: Arc<Guest>) {
    let served = match port {
        ports::CONTROL => guest.control(stream, crate::BUILD).await,
        ports::DIAL => serve::dial(stream).await,
        ports::ENGINE => serve::engine(stream, &guest.engine).await,
        ports::EXEC => exec::serve(stream, &guest.reaper).await,
        ports::LOGS => serve::follow(stream, &guest.logs).await,
        ports::PORTS => guest.ports.serve(stream).await,
        ports::DATAGRAMS => forward::udp(stream).await,
        ports::NAMES => guest.configuration.resolver.serve(stream).await,
        ports::FILE_EVENTS => Arc::clone(&guest.shares.events).serve(stream).await,
        port if ports::forwards(port) => forward::tcp(stream).await,
        _ => Ok(()),
    };
    match served {
        Ok(()) => {}
        // Streams break whenever a client is killed; the engine that is not up yet is the board's to tell.
        Err(ServeError::Io(_)) => {}
        Err(error) => guest.logs.say(format!("a stream on port {port} ended: {error}")),
    }
}
