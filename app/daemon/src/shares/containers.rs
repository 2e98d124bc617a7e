//! Watches exactly what running containers mount: asks the engine which those are, whenever one starts or ends.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use slipway_share::wire::{Answer, Call};
use slipway_shim::client::ShimClient;
use tokio::{
    sync::watch,
    time::{interval, sleep, timeout},
};

use super::Shares;
use crate::{
    board::Board,
    config,
    engine::{self, Events},
    guest::Inside,
};

/// After a container's start or end: others often follow.
const SETTLE: Duration = Duration::from_millis(30);
/// Before the engine is asked again after it did not answer.
const RETRY: Duration = Duration::from_millis(500);
/// After which other folders may be mounted.
const KINDS: &[&str] = &["start", "die"];
/// Between two looks at how watching goes, while something is watched.
const LOOK: Duration = Duration::from_secs(5);
/// How the notice begins that says what is wrong.
const NOTICE: &str = "changes of files on the host are not all told to containers: ";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Follows a machine's engine for as long as the machine lives.
pub(crate) async fn follow(
    shares: Arc<Shares>,
    shim: ShimClient,
    mut inside: watch::Receiver<Inside>,
    board: Board,
) {
    while shim.runs() {
        if inside.wait_for(|inside| inside.engine.is_some()).await.is_err() {
            return;
        }
        if let Err(error) = listen(&shares, &shim, &board).await {
            tracing::debug!(error, "the engine's events broke off");
        }
        sleep(RETRY).await;
    }
}

async fn listen(shares: &Shares, shim: &ShimClient, board: &Board) -> Result<(), Error> {
    // Before the list, so that nothing falls between the two.
    let mut events = Events::of_containers(shim, KINDS).await?;
    let mut look = interval(LOOK);
    loop {
        shares.watch(shim, mounted(shim).await?, board).await?;
        // The first event, then what comes close after it.
        loop {
            tokio::select! {
                more = events.next() => match more? {
                    true => break,
                    false => return Ok(()),
                },
                _ = look.tick() => if shares.mend(shim, board).await? {
                    break;
                },
            }
        }
        while timeout(SETTLE, events.next()).await.is_ok_and(|next| next.is_ok_and(|more| more)) {}
    }
}

/// The host's folders and files that running containers mount.
async fn mounted(shim: &ShimClient) -> Result<BTreeSet<PathBuf>, Error> {
    let containers: Value = engine::json(shim, "/containers/json").await?;
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
        let all: Value = engine::json(shim, "/volumes").await?;
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
    async fn watch(&self, shim: &ShimClient, mounted: BTreeSet<PathBuf>, board: &Board) -> Result<(), Error> {
        let real = mounted.iter().filter_map(|path| self.naming.canonical(&self.naming.on_host(path)).ok());
        let held = |path: &PathBuf| self.holder(path).is_ok_and(|holder| holder.is_some());
        let paths: BTreeSet<PathBuf> = real.filter(held).collect();
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let vouch = matches!(self.state.lock().await.events, Some(Ok(())));
        let exclude =
            config::with(&self.paths, &[]).map(|settings| settings.share_exclude).unwrap_or_default();
        let answer = shim.share(Call::Watch { paths: paths.clone(), exclude, vouch }).await?;
        if let Answer::Status(status) = &answer {
            tracing::info!(folders = status.watches, paths = paths.len(), "watching what containers mount");
            self.state.lock().await.watched = paths;
        }
        self.note(answer, board).await;
        Ok(())
    }

    /// Looks how watching goes, while something is watched. True when it broke off and is to begin anew.
    async fn mend(&self, shim: &ShimClient, board: &Board) -> Result<bool, Error> {
        if self.state.lock().await.watched.is_empty() {
            return Ok(false);
        }
        let answer = shim.share(Call::Status).await?;
        let broken = matches!(&answer, Answer::Status(status) if status.undelivered.is_some());
        self.note(answer, board).await;
        Ok(broken && matches!(shim.share(Call::Events).await?, Answer::Done))
    }

    /// Keeps how watching goes, and tells what is wrong.
    async fn note(&self, answer: Answer, board: &Board) {
        let mut state = self.state.lock().await;
        match answer {
            Answer::Status(status) => {
                if status.overflows > state.overflows {
                    tracing::warn!(
                        times = status.overflows,
                        "file events were lost, and the guest was told so"
                    );
                }
                state.overflows = status.overflows;
                state.unwatched = status.undelivered.or(status.unwatched);
            }
            Answer::Failed { message, .. } => state.unwatched = Some(message),
            Answer::Done => {}
        }
        let why = match &state.events {
            Some(Err(why)) => Some(format!("they show as changes of attributes: {why}")),
            _ => state.unwatched.clone(),
        };
        board.change(|status| {
            status.notices.retain(|notice| !notice.starts_with(NOTICE));
            status.notices.extend(why.map(|why| format!("{NOTICE}{why}")));
        });
    }
}
