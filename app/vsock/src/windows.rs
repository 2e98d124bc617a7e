//! What a client is on Windows, where pipes and sockets are of two kinds, and how its bytes get to the guest.
#![allow(unsafe_code)] // A handle becomes a pipe again.

use std::{
    io,
    os::windows::io::{IntoRawHandle, OwnedHandle, OwnedSocket},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, windows::named_pipe::NamedPipeServer},
};

use crate::GuestStream;

/// A client's connected stream on the host, which a transport can take over.
#[derive(Debug)]
pub enum HostSocket {
    /// The server's end of a named pipe in message mode, opened for overlapped I/O.
    Pipe(OwnedHandle),
    /// A TCP socket.
    Tcp(OwnedSocket),
}

/// A pipe to a docker client. Pipes have no half-close; docker's convention is an empty message, which both sides read as
/// the end of that direction.
#[derive(Debug)]
pub struct HalfClosingPipe {
    pipe: NamedPipeServer,
    ended: bool,
}

impl HalfClosingPipe {
    /// The server's end of a pipe in message mode.
    pub fn new(pipe: NamedPipeServer) -> Self {
        Self { pipe, ended: false }
    }
}

impl AsyncRead for HalfClosingPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.pipe).poll_read(context, into)) {
            // The client closed without the empty message: the end as well.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

impl AsyncWrite for HalfClosingPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // An empty write would be an end that nobody meant.
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(Pin::new(&mut self.pipe).poll_write(context, &[]))?;
            self.ended = true;
        }
        Pin::new(&mut self.pipe).poll_flush(context)
    }
}

/// The client's end as a stream of ours, or the end back.
pub(crate) fn client(host: HostSocket) -> Result<GuestStream, (io::Error, HostSocket)> {
    // A second handle, because tokio keeps the first one even when it cannot register it.
    match host {
        HostSocket::Pipe(handle) => {
            let spare = match handle.try_clone() {
                Ok(spare) => spare,
                Err(source) => return Err((source, HostSocket::Pipe(handle))),
            };
            // SAFETY: the handle is owned, and of a pipe that was opened for overlapped I/O, as the variant says.
            match unsafe { NamedPipeServer::from_raw_handle(handle.into_raw_handle()) } {
                Ok(pipe) => Ok(Box::new(HalfClosingPipe::new(pipe))),
                Err(source) => Err((source, HostSocket::Pipe(spare))),
            }
        }
        HostSocket::Tcp(socket) => {
            let spare = match socket.try_clone() {
                Ok(spare) => spare,
                Err(source) => return Err((source, HostSocket::Tcp(socket))),
            };
            let stream = std::net::TcpStream::from(socket);
            match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => Ok(Box::new(stream)),
                Err(source) => Err((source, HostSocket::Tcp(spare))),
            }
        }
    }
}
