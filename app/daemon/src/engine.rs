//! What the daemon itself asks the engine, over streams of the shim: which containers run, and when that changes.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use slipway_protocol::ports::ENGINE;
use slipway_shim::client::ShimClient;
use slipway_vsock::Transport;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// How long the engine may take to begin its answer, and to end it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer in bytes: some thousand containers.
const LONGEST: usize = 16 << 20;
/// What changes whose port it is.
const RENAMES: &[&str] = &["start", "rename", "die"];

/// The engine did not say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("failed to reach the engine")]
    Reach(#[source] slipway_vsock::ConnectError),
    #[error("failed to ask the engine")]
    Ask(#[source] hyper::Error),
    #[error("the engine did not answer in {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the engine answered with {0}")]
    Status(hyper::StatusCode),
    #[error("the engine's answer is not understood")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Container {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) names: Vec<String>,
    #[serde(default)]
    pub(crate) network_settings: Networks,
}

/// Where it can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Networks {
    #[serde(default)]
    networks: std::collections::BTreeMap<String, Endpoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Endpoint {
    #[serde(rename = "IPAddress", default)]
    v4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    v6: String,
}

impl Container {
    /// Whether it has that address in one of its networks.
    pub(crate) fn has(&self, ip: std::net::IpAddr) -> bool {
        let is = |text: &String| text.parse() == Ok(ip);
        self.network_settings.networks.values().any(|n| is(&n.v4) || is(&n.v6))
    }

    /// Its name, without the slash that the engine puts before it; links of the old kind have more.
    pub(crate) fn name(&self) -> &str {
        let plain = self.names.iter().filter_map(|name| name.strip_prefix('/'));
        plain.clone().find(|name| !name.contains('/')).unwrap_or(&self.id)
    }
}

/// The containers that run.
pub(crate) async fn containers(shim: &ShimClient) -> Result<Vec<Container>, EngineError> {
    json(shim, "/containers/json").await
}

/// The engine's answer to a GET.
pub(crate) async fn json<T: DeserializeOwned>(shim: &ShimClient, path: &str) -> Result<T, EngineError> {
    json_within(shim, path, PATIENCE).await
}

/// The same of what takes the engine longer.
pub(crate) async fn json_within<T: DeserializeOwned>(
    shim: &ShimClient,
    path: &str,
    patience: Duration,
) -> Result<T, EngineError> {
    let (response, _connection) = get(shim, path, patience).await?;
    let body = timeout(patience, Limited::new(response.into_body(), LONGEST).collect()).await;
    let bytes = body.map_err(|_| EngineError::Silent(patience))?.map_err(EngineError::Answer)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| EngineError::Answer(e.into()))
}

/// Calls `changed` whenever a container started, ended or was renamed, until the stream ends.
pub(crate) async fn watch(shim: &ShimClient, changed: impl Fn()) -> Result<(), EngineError> {
    let mut events = Events::of_containers(shim, RENAMES).await?;
    // What happened before the stream was open.
    changed();
    while events.next().await? {
        changed();
    }
    Ok(())
}

/// What happens in the engine, as it happens.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response<Incoming>,
    _connection: AbortOnDropHandle<()>,
}

impl Events {
    /// Events of these kinds (`start`, `die`, ...) of any container.
    pub(crate) async fn of_containers(shim: &ShimClient, kinds: &[&str]) -> Result<Self, EngineError> {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("%22{kind}%22")).collect();
        let kinds = kinds.join("%2C");
        let filters = format!("%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B{kinds}%5D%7D");
        let (response, _connection) = get(shim, &format!("/events?filters={filters}"), PATIENCE).await?;
        Ok(Self { response, _connection })
    }

    /// Waits for the next; false at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<bool, EngineError> {
        self.response.frame().await.transpose().map(|frame| frame.is_some()).map_err(EngineError::Ask)
    }
}

async fn get(
    shim: &ShimClient,
    path: &str,
    patience: Duration,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), EngineError> {
    let stream = shim.connect(ENGINE).await.map_err(EngineError::Reach)?;
    let asked = timeout(patience, ask(stream, path)).await;
    let (response, connection) =
        asked.map_err(|_| EngineError::Silent(patience))?.map_err(EngineError::Ask)?;
    if !response.status().is_success() {
        return Err(EngineError::Status(response.status()));
    }
    Ok((response, connection))
}

/// A GET on a stream that leads to the engine: its answer, whatever that is, and the task that brings the answer's body, which is
/// owned by whoever reads it.
pub(crate) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> hyper::Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // What broke is seen by the reader.
        let _ = connection.await;
    }));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("slipway"));
    Ok((sender.send_request(request).await?, connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_addresses_and_its_plain_name() {
        let json = r#"{"Id":"4f","Names":["/other/db","/web"],"NetworkSettings":{"Networks":{"bridge":
            {"IPAddress":"172.17.0.2","GlobalIPv6Address":""},"six":{"IPAddress":"","GlobalIPv6Address":"fd00::2"}}}}"#;
        let container: Container = serde_json::from_str(json).expect("understood");
        assert_eq!(container.name(), "web");
        for (ip, has) in [("172.17.0.2", true), ("fd00:0::2", true), ("172.17.0.3", false)] {
            assert_eq!(container.has(ip.parse().expect("address")), has, "{ip}");
        }
        let bare: Container = serde_json::from_str(r#"{"Id":"4f"}"#).expect("understood");
        assert_eq!(bare.name(), "4f");
    }
}
