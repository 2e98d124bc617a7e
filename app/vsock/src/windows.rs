//! What a client is on Windows, where pipes and sockets are of two kinds.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, windows::named_pipe::NamedPipeServer},
};

/// A client's connected stream on the host, which a transport can take over. Both kinds half-close.
#[derive(Debug)]
pub enum HostSocket {
    /// The server's end of a named pipe in message mode.
    Pipe(HalfClosingPipe<NamedPipeServer>),
    /// A TCP socket.
    Tcp(TcpStream),
}

impl AsyncRead for HostSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(context, into),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for HostSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A pipe's end as a stream. Pipes have no half-close; docker's convention is an empty message, which both sides read as the end of that
/// direction.
#[derive(Debug)]
pub struct HalfClosingPipe<P> {
    pipe: P,
    heard_end: bool,
    said_end: bool,
}

impl<P> HalfClosingPipe<P> {
    /// Either end of a pipe of messages.
    pub fn new(pipe: P) -> Self {
        Self { pipe, heard_end: false, said_end: false }
    }
}

impl<P: AsyncRead + Unpin> AsyncRead for HalfClosingPipe<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The pipe itself goes on after an empty message; the direction that it ended does not.
        if self.heard_end || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        match ready!(Pin::new(&mut self.pipe).poll_read(context, into)) {
            // The client closed without the empty message: the end as well.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => return Poll::Ready(Err(e)),
            Ok(()) if into.filled().len() > before => return Poll::Ready(Ok(())),
            Ok(()) => {}
        }
        self.heard_end = true;
        Poll::Ready(Ok(()))
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for HalfClosingPipe<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.said_end {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
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
        if !self.said_end {
            ready!(Pin::new(&mut self.pipe).poll_write(context, &[]))?;
            self.said_end = true;
        }
        Pin::new(&mut self.pipe).poll_flush(context)
    }
}
