//! What pages keep open, for containers, whose shell has none of it: HTTP/2 without TLS on port 80, and WebSocket on port 81.
//!
//! Both send back what they get as it comes. A stream of HTTP/2 ends with a trailer `bytes`, how many there were; a WebSocket
//! that is told `enough` is closed by the server, with code 4001.

use std::{
    error::Error,
    io,
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{SinkExt, StreamExt, future::poll_fn};
use h2::{RecvStream, SendStream, server::SendResponse};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::{
    Bytes, Message,
    http::{HeaderMap, Request, Response},
    protocol::{CloseFrame, frame::coding::CloseCode},
};

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Connections of HTTP/2 so far: the answers' header `connection-number`.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let streams = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).await?;
        let sockets = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 81)).await?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = streams.accept() => drop(connections.spawn(told(http2(accepted?.0)))),
                accepted = sockets.accept() => drop(connections.spawn(told(websocket(accepted?.0)))),
                Some(_ended) = connections.join_next() => {}
            }
        }
    })
}

async fn told(serves: impl Future<Output = Done>) {
    if let Err(error) = serves.await {
        eprintln!("{error}");
    }
}

async fn http2(stream: TcpStream) -> Done {
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let mut connection = h2::server::handshake(stream).await?;
    let mut streams = JoinSet::new();
    while let Some(request) = connection.accept().await {
        let (request, answer) = request?;
        streams.spawn(told(echo(request, answer, number)));
    }
    Ok(())
}

async fn echo(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, number: usize) -> Done {
    let mut body = request.into_body();
    let head = Response::builder().header("connection-number", number).body(())?;
    let mut back = answer.send_response(head, false)?;
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        bytes += data.len();
        let length = data.len();
        send(&mut back, data).await?;
        // Only what went back makes room for more: a client that does not read is not read.
        body.flow_control().release_capacity(length)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("bytes", bytes.into());
    Ok(back.send_trailers(trailers)?)
}

/// As much at a time as the client has room for.
async fn send(to: &mut SendStream<Bytes>, mut data: Bytes) -> Done {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let room = poll_fn(|context| to.poll_capacity(context)).await.ok_or("the stream was reset")??;
        to.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

async fn websocket(stream: TcpStream) -> Done {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    // Pings and the client's close are answered by the library, while it is read.
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if text.as_str() == "enough" => {
                let code = CloseCode::Library(4001);
                socket.close(Some(CloseFrame { code, reason: "as you say".into() })).await?;
            }
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            _ => {}
        }
    }
    Ok(())
}
