//! Reaches the daemon at its named pipe.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::windows::named_pipe::{ClientOptions, NamedPipeClient},
    time::{Instant, sleep},
};
use tower_service::Service;

/// `ERROR_PIPE_BUSY`: every instance has a client, and the daemon is about to offer the next one.
const BUSY: i32 = 231;
/// How long the daemon may take to offer an instance.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the pipe for each connection.
#[derive(Debug, Clone)]
pub(crate) struct Connector(PathBuf);

/// A client of the daemon behind `pipe`.
pub(crate) fn client(pipe: &Path) -> Client<Connector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build(Connector(pipe.to_owned()))
}

/// `path` at the daemon; the connector knows where that is.
pub(crate) fn uri(_pipe: &Path, path: &str) -> hyper::Uri {
    // Paths are made by the client from escaped segments. One that is no URI asks for nothing that exists.
    format!("http://slipway{path}").parse().unwrap_or_default()
}

impl Service<hyper::Uri> for Connector {
    type Response = TokioIo<Pipe>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: hyper::Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { open(&path).await.map(|pipe| TokioIo::new(Pipe(pipe))) })
    }
}

async fn open(path: &Path) -> io::Result<NamedPipeClient> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ClientOptions::new().open(path) {
            Err(error) if error.raw_os_error() == Some(BUSY) && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            done => return done,
        }
    }
}

/// A pipe as hyper wants a connection.
#[derive(Debug)]
pub(crate) struct Pipe(NamedPipeClient);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
