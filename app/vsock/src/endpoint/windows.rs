//! Windows: named pipes. A pipe that is served cannot change hands, because its handle stays with this process's completion port.

use std::{io, path::Path, time::Duration};

use tokio::{
    net::{
        TcpStream,
        windows::named_pipe::{ClientOptions, NamedPipeClient},
    },
    time::{Instant, sleep},
};

use crate::{HostSocket, pipe::PipeListener, windows::HalfClosingPipe};

/// `ERROR_PIPE_BUSY`: every instance has a client, and the next one is about to be offered.
const BUSY: i32 = 231;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client's connection.
pub type Client = HostSocket;

/// The other end of a client's connection: this process asks another one.
pub type Stream = HalfClosingPipe<NamedPipeClient>;

/// Connects to who listens at `path`.
///
/// # Errors
/// Nobody does, or not for this user; `ERROR_PIPE_BUSY` when the next instance does not come.
pub async fn connect(path: &Path) -> io::Result<Stream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ClientOptions::new().open(path) {
            Err(error) if error.raw_os_error() == Some(BUSY) && Instant::now() < deadline => {
                sleep(Duration::from_millis(2)).await;
            }
            done => return done.map(HalfClosingPipe::new),
        }
    }
}

/// Listens on one pipe, for this user alone and on this computer alone.
#[derive(Debug)]
pub struct Listener(PipeListener);

impl Listener {
    /// Makes the pipe. One that an earlier process had went with that process.
    ///
    /// # Errors
    /// `PermissionDenied` when somebody has a pipe of that name.
    pub fn bind(path: &Path) -> io::Result<Self> {
        PipeListener::bind(path).map(Self)
    }

    /// Waits for a client. Cancel-safe.
    ///
    /// # Errors
    /// There is no room for one more now; the listener stays usable.
    pub async fn accept(&mut self) -> io::Result<Client> {
        self.0.accept().await.map(|pipe| HostSocket::Pipe(HalfClosingPipe::new(pipe)))
    }

    /// Listens no more; the pipe goes with its last client.
    pub fn remove(self) {}
}

/// A client for a transport to take over.
///
/// # Errors
/// None here.
pub fn give(client: Client) -> io::Result<HostSocket> {
    Ok(client)
}

/// The client that a transport did not take.
///
/// # Errors
/// None here.
pub fn take_back(socket: HostSocket) -> io::Result<Client> {
    Ok(socket)
}

/// What a transport was given, as a stream; or it comes back as it was.
pub fn taken(socket: HostSocket) -> Result<Client, (io::Error, HostSocket)> {
    Ok(socket)
}

/// A connection of TCP for a transport to take over.
///
/// # Errors
/// None here.
pub fn give_tcp(client: TcpStream) -> io::Result<HostSocket> {
    Ok(HostSocket::Tcp(client))
}

/// Closes a connection of TCP so that its client sees a reset, and not an empty answer.
pub fn reset(socket: HostSocket) {
    if let HostSocket::Tcp(stream) = socket {
        // A client that has gone needs none.
        let _ = stream.set_zero_linger();
    }
}
