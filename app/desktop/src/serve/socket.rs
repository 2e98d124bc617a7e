//! Streams and connections of a page, as WebSockets: a browser opens few connections to one server, but many of these.
//!
//! The first frame is text: `{"status":200}`, or `{"error":…}` with the problem. Then bytes: of a stream to the page
//! only, of a connection both ways, where `close-write` as text ends the page's side alone, for the program may still
//! have much to say. The end is a normal close; a break is not.

use std::sync::Arc;

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::Uri,
    response::Response,
};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api::Problem;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};

use super::App;
use crate::bridge::Ask;

/// Bytes of one frame to the page.
const FRAME: usize = 64 << 10;
/// Longest message of a page, in bytes.
const LONGEST: usize = 1 << 20;
/// The bridge's own parameters begin so; all others are the path's.
const OWN: &str = "slipway-";

/// The bridge's own parameters.
#[derive(Debug, Deserialize)]
pub(super) struct Own {
    #[serde(rename = "slipway-method")]
    method: Option<String>,
    /// JSON.
    #[serde(rename = "slipway-body")]
    body: Option<String>,
}

type Asked = Result<(Ask, Option<Value>), Problem>;

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    uri: Uri,
    Query(own): Query<Own>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let asked = asked(&uri, "/bridge/stream", &own, "GET");
    upgrade.on_upgrade(move |page| carry_stream(app, asked, page))
}

pub(super) async fn open(
    State(app): State<Arc<App>>,
    uri: Uri,
    Query(own): Query<Own>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.max_message_size(LONGEST).max_frame_size(LONGEST);
    let asked = asked(&uri, "/bridge/open", &own, "POST");
    upgrade.on_upgrade(move |page| carry_connection(app, asked, page))
}

fn asked(uri: &Uri, prefix: &str, own: &Own, method: &str) -> Asked {
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    let whole = format!("/bridge{rest}");
    let (target, path) = super::target_of(&whole)?;
    let theirs: Vec<&str> =
        uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.starts_with(OWN)).collect();
    let path = if theirs.is_empty() { path.to_owned() } else { format!("{path}?{}", theirs.join("&")) };
    let bad = |error: serde_json::Error| {
        Problem::new("bad-request", "the body is no JSON").because(error.to_string())
    };
    let body = own.body.as_deref().map(serde_json::from_str).transpose().map_err(bad)?;
    Ok((Ask::new(target, own.method.as_deref().unwrap_or(method), &path)?, body))
}

async fn refuse(mut page: WebSocket, problem: &Problem) {
    let _ = page.send(Message::Text(json!({ "error": problem }).to_string().into())).await;
    let _ = page.send(close(close_code::NORMAL)).await;
}

fn close(code: u16) -> Message {
    Message::Close(Some(CloseFrame { code, reason: "".into() }))
}

fn status(code: u16) -> Message {
    Message::Text(json!({ "status": code }).to_string().into())
}

async fn carry_stream(app: Arc<App>, asked: Asked, mut page: WebSocket) {
    let streaming = async {
        let (ask, body) = asked?;
        app.bridge.stream(ask, body.as_ref()).await
    };
    let response = tokio::select! {
        response = streaming => response,
        () = gone(&mut page) => return,
    };
    let response = match response {
        Ok(response) => response,
        Err(problem) => return refuse(page, &problem).await,
    };
    let (mut to_page, mut from_page) = page.split();
    let down = async {
        let _ = to_page.send(status(response.status().as_u16())).await;
        let mut body = response.into_body();
        let code = loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if to_page.send(Message::Binary(bytes)).await.is_err() {
                        return;
                    }
                }
                Some(Err(_)) => break close_code::ERROR,
                None => break close_code::NORMAL,
            }
        };
        let _ = to_page.send(close(code)).await;
    };
    let left = async { while let Some(Ok(_)) = from_page.next().await {} };
    tokio::select! {
        () = down => {}
        () = left => {}
    }
}

/// Until the page has left. What it says before is not asked for.
async fn gone(page: &mut WebSocket) {
    while let Some(Ok(_)) = page.recv().await {}
}

async fn carry_connection(app: Arc<App>, asked: Asked, page: WebSocket) {
    let opened = match asked {
        Ok((ask, body)) => app.bridge.open(ask, body.as_ref()).await,
        Err(problem) => Err(problem),
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(problem) => return refuse(page, &problem).await,
    };
    let (mut reader, mut writer) = split(stream);
    let (mut to_page, mut from_page) = page.split();
    let down = async {
        let _ = to_page.send(status(101)).await;
        let mut bytes = BytesMut::with_capacity(FRAME);
        let code = loop {
            match reader.read_buf(&mut bytes).await {
                Ok(0) => break close_code::NORMAL,
                Ok(_) if to_page.send(Message::Binary(bytes.split().freeze())).await.is_err() => return,
                Ok(_) => bytes.reserve(FRAME),
                Err(_) => break close_code::ERROR,
            }
        };
        let _ = to_page.send(close(code)).await;
    };
    let up = async {
        while let Some(Ok(message)) = from_page.next().await {
            let written = match message {
                Message::Binary(bytes) => writer.write_all(&bytes).await,
                Message::Text(word) if word == "close-write" => writer.shutdown().await,
                Message::Close(_) => return,
                _ => Ok(()),
            };
            if written.is_err() {
                // The program closed its input and may go on to speak.
                std::future::pending::<()>().await;
            }
        }
    };
    // A page that went ends the connection; a program that ended ends the page's side.
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}
