//! What a client of the engine hears when there is no engine: a proper answer in Docker's own form.

use std::time::Duration;

use slipway_vsock::endpoint::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Longest request head in bytes that is read before the answer.
const MAX_HEAD: usize = 64 * 1024;
/// How long the client may take to send its head and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers the client's first request with `503` and closes. Bounded in time and memory; never fails, because there is
/// nobody to tell.
pub(crate) async fn unavailable(mut client: Client, reason: &str, hint: &str) {
    let talk = async {
        let mut head = Vec::new();
        let mut buffer = [0u8; 4096];
        // A client that gets its answer before it has asked takes it for a broken server.
        while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < MAX_HEAD {
            match client.read(&mut buffer).await {
                Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        if head.is_empty() || client.write_all(&response(&head, reason, hint)).await.is_err() {
            return;
        }
        if client.shutdown().await.is_err() {
            return;
        }
        // Until the client closes: bytes of a body that nobody reads would make the kernel throw the answer away.
        while let Ok(1..) = client.read(&mut buffer).await {}
    };
    let _ = timeout(PATIENCE, talk).await;
}

fn response(head: &[u8], reason: &str, hint: &str) -> Vec<u8> {
    let body = serde_json::json!({ "message": format!("{reason}\nhint: {hint}") }).to_string();
    let length = body.len();
    let fields = "Content-Type: application/json\r\nServer: Slipway\r\nConnection: close";
    let mut bytes =
        format!("HTTP/1.1 503 Service Unavailable\r\n{fields}\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    if !head.starts_with(b"HEAD ") {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}
