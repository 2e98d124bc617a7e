//! What pages and programs keep open through a published port: many streams of HTTP/2 on one connection, and WebSocket.

use std::{future::Future, time::Duration};

use futures_util::{SinkExt, StreamExt, future::poll_fn};
use h2::client::SendRequest;
use slipway_test_harness::Home;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Bytes, Error, Message,
        http::Request,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    Shared, ours,
    ports::{connect, free, nobody_listens},
};

pub(crate) const TESTS: &[Shared] =
    &[("web_streams_of_http_2_and_websockets_pass_a_published_port", streams_and_sockets)];

const PATIENCE: Duration = Duration::from_secs(60);
/// At once, on one connection.
const STREAMS: u8 = 8;
/// Of each stream, each way: several times the window, so that both ends wait for room.
const BODY: usize = 300_000;

fn streams_and_sockets(home: &Home) {
    let [http2, websocket] = [free(), free()];
    let [first, second] = [format!("127.0.0.1:{http2}:80"), format!("127.0.0.1:{websocket}:81")];
    let create = ["create", "--name", "pages", "-p", &first, "-p", &second, "box", "/bin/web"];
    home.docker(create).run().ok();
    ours::put(home, "slipway-test-web", "pages:/bin/web");
    home.docker(["start", "pages"]).run().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        timeout(PATIENCE, streams(http2)).await.expect("HTTP/2 in time");
        timeout(PATIENCE, sockets(websocket)).await.expect("WebSocket in time");
    });
    home.docker(["rm", "-f", "pages"]).run().ok();
    nobody_listens(home, http2);
    assert!(connect(websocket).is_none(), "it went with the container");
}

/// Tries until the server is there, which starts later than its port.
async fn served<T, E, F: Future<Output = Result<T, E>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        if let Ok(there) = attempt().await {
            return there;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn streams(port: u16) {
    // A first whole answer says that the server is there.
    let (sender, _connection) = served(|| async move {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        let mut driven = JoinSet::new();
        driven.spawn(connection);
        exchange(sender.clone(), 0, 0).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((sender, driven))
    })
    .await;
    let mut all = JoinSet::new();
    for stream in 1..=STREAMS {
        all.spawn(exchange(sender.clone(), stream, BODY));
    }
    let mut connections = Vec::new();
    while let Some(ended) = all.join_next().await {
        connections.push(ended.expect("no panic").expect("a whole exchange"));
    }
    assert_eq!(connections.len(), usize::from(STREAMS));
    assert!(connections.iter().all(|number| *number == connections[0]), "one connection: {connections:?}");
}

/// Sends a body of its own while the same one comes back, and says on which connection the server saw it.
async fn exchange(
    sender: SendRequest<Bytes>,
    stream: u8,
    length: usize,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let body: Bytes = (0..length).map(|at| (at % 251) as u8 ^ stream).collect();
    let request = Request::post("http://localhost/").body(())?;
    let (answer, mut to) = sender.ready().await?.send_request(request, false)?;
    let mut left = body.clone();
    let sending = async move {
        while !left.is_empty() {
            to.reserve_capacity(left.len());
            let room = poll_fn(|context| to.poll_capacity(context)).await.ok_or("the stream was reset")??;
            to.send_data(left.split_to(room.min(left.len())), false)?;
        }
        // Half-closed: the answer goes on.
        to.send_data(Bytes::new(), true)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let receiving = async {
        let answer = answer.await?;
        let number = answer.headers()["connection-number"].to_str()?.to_owned();
        let (mut back, mut got) = (answer.into_body(), Vec::new());
        while let Some(data) = back.data().await {
            let data = data?;
            got.extend_from_slice(&data);
            back.flow_control().release_capacity(data.len())?;
        }
        let trailers = back.trailers().await?.ok_or("no trailers")?;
        assert_eq!(trailers["bytes"].to_str()?, length.to_string());
        assert!(got == body, "stream {stream}: {} bytes came back, or others", got.len());
        Ok(number)
    };
    let (sent, number) = tokio::join!(sending, receiving);
    sent?;
    number
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn opened(port: u16) -> Socket {
    let url = format!("ws://127.0.0.1:{port}/");
    served(|| tokio_tungstenite::connect_async(&url)).await.0
}

async fn next(socket: &mut Socket) -> Option<Message> {
    match socket.next().await {
        Some(Ok(message)) => Some(message),
        None | Some(Err(Error::ConnectionClosed)) => None,
        Some(Err(error)) => panic!("it breaks: {error}"),
    }
}

async fn sockets(port: u16) {
    let mut socket = opened(port).await;
    let bytes: Bytes = (0..BODY).map(|at| (at % 249) as u8).collect();
    for message in [Message::text("héllo"), Message::Binary(bytes)] {
        socket.send(message.clone()).await.expect("sent");
        assert!(next(&mut socket).await == Some(message), "it comes back");
    }
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.expect("sent");
    assert_eq!(next(&mut socket).await, Some(Message::Pong(Bytes::from_static(b"there?"))));
    // Silent for a while, as a page's is.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let code = CloseCode::Library(4000);
    let close = CloseFrame { code, reason: "seen enough".into() };
    // What was said before the close is still answered, after which nothing may be said.
    socket.send(Message::text("last")).await.expect("sent");
    socket.close(Some(close.clone())).await.expect("closing");
    assert_eq!(next(&mut socket).await, Some(Message::text("last")));
    assert_eq!(next(&mut socket).await, Some(Message::Close(Some(close))), "the same code comes back");
    assert_eq!(next(&mut socket).await, None, "and then the connection ends, in order");

    let mut socket = opened(port).await;
    socket.send(Message::text("enough")).await.expect("sent");
    let close = CloseFrame { code: CloseCode::Library(4001), reason: "as you say".into() };
    assert_eq!(next(&mut socket).await, Some(Message::Close(Some(close))), "the server's own code");
    assert_eq!(next(&mut socket).await, None);
}
