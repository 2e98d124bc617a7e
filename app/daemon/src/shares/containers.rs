//! Watches exactly what running containers mount: asks the engine which those are, whenever one starts or ends.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use slipway_protocol::ports::ENGINE;
use slipway_share::wire::{Answer, Call};
use slipway_shim::client::{Life, ShimClient};
use slipway_vsock::Transport;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Shares, binds::on_host};
use crate::{config, guest::Inside};

/// After a container's start or end: others often follow.
const SETTLE: Duration = Duration::from_millis(30);
/// Before the engine is asked again after it did not answer.
const RETRY: Duration = Duration::from_millis(500);
/// How long the engine may take for a list.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest list in bytes.
const LONGEST: usize = 16 << 20;
/// The engine's events after which other folders may be mounted.
const EVENTS: &str =
    "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%5D%7D";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Follows a machine's engine for as long as the machine lives.
pub(crate) async fn follow(shares: Arc<Shares>, shim: ShimClient, mut inside: watch::Receiver<Inside>) {
    while *shim.life().borrow() == Life::Runs {
        if inside.wait_for(|inside| inside.engine.is_some()).await.is_err() {
            return;
        }
        if let Err(error) = listen(&shares, &shim).await {
            tracing::debug!(error, "the engine's events broke off");
        }
        sleep(RETRY).await;
    }
}

async fn listen(shares: &Shares, shim: &ShimClient) -> Result<(), Error> {
    let mut driving = JoinSet::new();
    // Before the list, so that nothing falls between the two.
    let mut events = get(shim, EVENTS, &mut driving).await?;
    loop {
        shares.watch(shim, mounted(shim).await?).await?;
        // The first event, then what comes close after it.
        if events.frame().await.transpose()?.is_none() {
            return Ok(());
        }
        while timeout(SETTLE, events.frame()).await.is_ok_and(|frame| frame.is_some_and(|f| f.is_ok())) {}
    }
}

async fn get(shim: &ShimClient, path: &str, driving: &mut JoinSet<()>) -> Result<Incoming, Error> {
    let stream = shim.connect(ENGINE).await?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    driving.spawn(async move { drop(connection.await) });
    let request = Request::get(path).header("Host", "docker").body(Empty::<Bytes>::new())?;
    let response = send.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("the engine answers {path} with {}", response.status()).into());
    }
    Ok(response.into_body())
}

async fn list(shim: &ShimClient, path: &str) -> Result<Value, Error> {
    let asked = async {
        let mut driving = JoinSet::new();
        let body = Limited::new(get(shim, path, &mut driving).await?, LONGEST);
        Ok::<_, Error>(serde_json::from_slice(&body.collect().await?.to_bytes())?)
    };
    timeout(PATIENCE, asked).await?
}

/// The host's folders and files that running containers mount.
async fn mounted(shim: &ShimClient) -> Result<BTreeSet<PathBuf>, Error> {
    let containers = list(shim, "/containers/json").await?;
    let mounts: Vec<&Value> = containers
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["Mounts"].as_array())
        .flatten()
        .collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut found: BTreeSet<PathBuf> = mounts
        .iter()
        .filter(|m| m["Type"] == "bind")
        .filter_map(|m| text(&m["Source"]))
        .map(PathBuf::from)
        .collect();
    let volumes: BTreeSet<String> =
        mounts.iter().filter(|m| m["Type"] == "volume").filter_map(|m| text(&m["Name"])).collect();
    if !volumes.is_empty() {
        // Those that are folders of the host under another name.
        let all = list(shim, "/volumes").await?;
        let used = all["Volumes"].as_array().into_iter().flatten();
        let used = used.filter(|v| v["Name"].as_str().is_some_and(|name| volumes.contains(name)));
        let binds = used.filter(|v| {
            v["Options"]["o"].as_str().is_some_and(|o| o.split(',').any(|w| w.ends_with("bind")))
        });
        found.extend(binds.filter_map(|v| text(&v["Options"]["device"])).map(PathBuf::from));
    }
    Ok(found)
}

impl Shares {
    async fn watch(&self, shim: &ShimClient, mounted: BTreeSet<PathBuf>) -> Result<(), Error> {
        let real = mounted.iter().filter_map(|path| on_host(path).canonicalize().ok());
        let held = |path: &PathBuf| self.holder(path).is_ok_and(|holder| holder.is_some());
        let paths: BTreeSet<PathBuf> = real.filter(held).collect();
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let vouch = matches!(self.state.lock().await.events, Some(Ok(())));
        let exclude =
            config::with(&self.paths, &[]).map(|settings| settings.share_exclude).unwrap_or_default();
        let answer = shim.share(Call::Watch { paths: paths.clone(), exclude, vouch }).await?;
        let mut state = self.state.lock().await;
        match answer {
            Answer::Status(status) => {
                tracing::info!(
                    folders = status.watches,
                    paths = paths.len(),
                    "watching what containers mount"
                );
                state.watched = paths;
                state.unwatched = status.unwatched;
            }
            Answer::Failed { message, .. } => state.unwatched = Some(message),
            Answer::Done => {}
        }
        Ok(())
    }
}
