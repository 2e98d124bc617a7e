//! Unix: sockets, whose descriptors can be given away.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::HostSocket;

/// A client's connection.
pub type Client = UnixStream;

/// The other end of a client's connection: this process asks another one.
pub type Stream = UnixStream;

/// Connects to who listens at `path`.
///
/// # Errors
/// Nobody does, or not for this user.
pub async fn connect(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path).await
}

/// Listens at one path, for this user alone.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket, with mode 0600, in the place of one that an earlier process left: the caller holds the lock that says
    /// that nobody lives there.
    ///
    /// # Errors
    /// That of the system.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits for a client. Cancel-safe.
    ///
    /// # Errors
    /// There is no room for one more now; the listener stays usable.
    pub async fn accept(&mut self) -> io::Result<Client> {
        self.listener.accept().await.map(|(client, _)| client)
    }

    /// Listens no more, and takes the socket out of its folder.
    pub fn remove(self) {
        // Gone already when the folder was removed first.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A client for a transport to take over.
///
/// # Errors
/// The system refuses to let go of it; it is closed.
pub fn give(client: Client) -> io::Result<HostSocket> {
    client.into_std().map(Into::into)
}

/// The client that a transport did not take.
///
/// # Errors
/// There is no room for it; it is closed.
pub fn take_back(socket: HostSocket) -> io::Result<Client> {
    let client = std::os::unix::net::UnixStream::from(socket);
    client.set_nonblocking(true)?;
    UnixStream::from_std(client)
}

/// What a transport was given, as a stream; or it comes back as it was.
pub fn taken(socket: HostSocket) -> Result<Client, (io::Error, HostSocket)> {
    // A second descriptor, because tokio keeps the first one even when it cannot register it.
    let spare = match socket.try_clone() {
        Ok(spare) => spare,
        Err(source) => return Err((source, socket)),
    };
    take_back(socket).map_err(|source| (source, spare))
}

/// A connection of TCP for a transport to take over.
///
/// # Errors
/// As [`give`].
pub fn give_tcp(client: TcpStream) -> io::Result<HostSocket> {
    client.into_std().map(Into::into)
}

/// Closes a connection of TCP so that its client sees a reset, and not an empty answer.
pub fn reset(socket: HostSocket) {
    let stream = socket2::Socket::from(socket);
    // A client that has gone needs none.
    let _ = stream.set_linger(Some(std::time::Duration::ZERO));
}
