//! One request over one connection of its own, to a unix socket or a named pipe.
//!
//! The answer owns the connection: dropping it closes it, and whoever answers sees that nobody listens any more.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use slipway_vsock::endpoint;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Nobody listens.
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    /// Who listens does not answer in HTTP, or not to the end.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

/// The body of an answer, with the connection that it comes from.
#[derive(Debug)]
pub struct Answered {
    body: Incoming,
    _connection: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sends the request and waits for the head of the answer. Dropping the future closes the connection.
pub(crate) async fn exchange(
    socket: &Path,
    request: Request<Body>,
) -> Result<Response<Answered>, ExchangeError> {
    let stream = endpoint::connect(socket).await.map_err(ExchangeError::Connect)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(Forgiving(stream))).await.map_err(ExchangeError::Broken)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let response = sender.send_request(request).await.map_err(ExchangeError::Broken)?;
    Ok(response.map(|body| Answered { body, _connection: connection }))
}

/// A socket whose other side may stop reading and still has something to say: an engine that refuses an archive answers
/// and closes while more of it is on its way. What it no longer reads is thrown away, so that its answer is still read.
struct Forgiving(endpoint::Stream);

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl AsyncRead for Forgiving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Forgiving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.0).poll_write(context, bytes) {
            Poll::Ready(Err(error)) if closed(&error) => Poll::Ready(Ok(bytes.len())),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_shutdown(context) {
            Poll::Ready(Err(error)) if closed(&error) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}
