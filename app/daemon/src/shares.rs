//! Which folders of the host the machine sees: what the person said, kept in `shares.json`, brought to the share server and
//! the guest of a machine that runs, and asked for by containers ([`review`]).
//!
//! ```text
//!   settings, shares.json ─▶ table ─┬─▶ share server: exports          ┐ on every change, and whenever
//!                                   └─▶ agent: mounts, and the events   ┘ the machine or its agent is new
//!   engine: running containers' mounts ─▶ share server: what is watched
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use slipway_api::{Mount, MountOrigin, MountRequest, Mounts, Problem, paths::Paths};
use slipway_protocol::v1;
use slipway_settings::paths::HOME;
use slipway_share::{
    guest_path,
    wire::{Answer, Call, Export},
};
use slipway_shim::client::ShimClient;
use tokio::sync::{Mutex, watch};

use crate::{config, guest::Inside};

mod binds;
mod containers;
mod json;
mod naming;
mod review;

pub(crate) use containers::follow;
use naming::Naming;
pub(crate) use review::Reviewer;

/// Something that is shared besides the home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    #[serde(default)]
    read_only: bool,
    /// A container asked for it, and the policy said yes.
    #[serde(default)]
    on_demand: bool,
}

/// The machine that runs, and its inside.
#[derive(Debug, Clone)]
struct Live {
    shim: ShimClient,
    inside: watch::Receiver<Inside>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Live>,
    /// By export: why the machine has it not.
    failed: BTreeMap<String, String>,
    /// Whether events become the guest kernel's own, or why not.
    events: Option<Result<(), String>>,
    /// What is watched, and why not all of it.
    watched: Vec<PathBuf>,
    unwatched: Option<String>,
    /// How often events were lost so far.
    overflows: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shares {
    paths: Paths,
    naming: Naming,
    state: Mutex<State>,
}

fn unreadable(path: &Path, error: impl std::fmt::Display) -> Problem {
    Problem::new("mounts-unreadable", format!("failed to read `{}`", path.display()))
        .because(error.to_string())
}

fn not_shareable(path: &Path, why: impl Into<String>) -> Problem {
    Problem::new("mount-path", format!("`{}` cannot be shared", path.display())).because(why)
}

impl Shares {
    pub(crate) fn new(paths: Paths) -> Self {
        Self { paths, naming: Naming::HERE, state: Mutex::default() }
    }

    fn file(&self) -> PathBuf {
        self.paths.root().join("shares.json")
    }

    fn read(&self) -> Result<Vec<Entry>, Problem> {
        let file = self.file();
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(&file, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreadable(&file, error)),
        }
    }

    fn write(&self, entries: &[Entry]) -> Result<(), Problem> {
        let file = self.file();
        let failed = |error: std::io::Error| {
            Problem::new("mounts-unwritable", format!("failed to write `{}`", file.display()))
                .because(error.to_string())
        };
        let json = serde_json::to_vec_pretty(entries).map_err(|error| failed(error.into()))?;
        slipway_settings::file::replace(&file, &json).map_err(failed)
    }

    /// The person's home, when it is shared.
    fn home(&self) -> Option<PathBuf> {
        let shared = config::with(&self.paths, &[]).is_ok_and(|settings| settings.share_home);
        let home = std::env::var_os(HOME).map(PathBuf::from).filter(|_| shared)?;
        let home = self.naming.canonical(&home).ok()?;
        (guest_path::whose(&home) == guest_path::Whose::Host && home != Path::new("/")).then_some(home)
    }

    /// Everything that is to be shared, each path once.
    fn table(&self) -> Result<Vec<(Export, MountOrigin)>, Problem> {
        let mut table: BTreeMap<PathBuf, (Export, MountOrigin)> = BTreeMap::new();
        if let Some(home) = self.home() {
            table.insert(home.clone(), (Export::new(home, false), MountOrigin::Home));
        }
        for entry in self.read()? {
            let origin = if entry.on_demand { MountOrigin::OnDemand } else { MountOrigin::Added };
            table.insert(entry.path.clone(), (Export::new(entry.path, entry.read_only), origin));
        }
        Ok(table.into_values().collect())
    }

    /// What a machine begins with. A table that cannot be read shares nothing, and is told at `mount ls`.
    pub(crate) fn exports(&self) -> Vec<Export> {
        let table = self.table().unwrap_or_else(|problem| {
            tracing::error!(problem = problem.message, "nothing is shared");
            Vec::new()
        });
        table.into_iter().map(|(export, _)| export).collect()
    }

    /// Follows a machine's agent for as long as the machine lives: each new one is told what is shared.
    pub(crate) async fn attend(self: Arc<Self>, shim: ShimClient, mut inside: watch::Receiver<Inside>) {
        self.state.lock().await.live = Some(Live { shim: shim.clone(), inside: inside.clone() });
        loop {
            if inside.wait_for(|inside| inside.agent.is_some()).await.is_err() {
                break;
            }
            if let Err(problem) = self.bring().await {
                tracing::warn!(problem = problem.message, causes = ?problem.causes, "the guest has not all shares");
            }
            match shim.share(Call::Events).await {
                Ok(Answer::Done) => {}
                other => tracing::warn!(?other, "the guest hears of no file events"),
            }
            if inside.wait_for(|inside| inside.agent.is_none()).await.is_err() {
                break;
            }
        }
        let mut state = self.state.lock().await;
        if state.live.as_ref().is_some_and(|live| live.inside.same_channel(&inside)) {
            *state = State::default();
        }
    }

    /// Brings share server and guest to what the table says.
    async fn bring(&self) -> Result<(), Problem> {
        let mut state = self.state.lock().await;
        let table: Vec<Export> = self.table()?.into_iter().map(|(export, _)| export).collect();
        let Some(live) = state.live.clone() else { return Ok(()) };
        let mut failed = BTreeMap::new();
        let there = match ask(&live.shim, Call::Status).await? {
            Answer::Status(status) => status.exports,
            other => return Err(refused(&other)),
        };
        for export in there.iter().filter(|export| !table.contains(export)) {
            ask(&live.shim, Call::Remove { id: export.id.clone() }).await?;
        }
        for export in table.iter().filter(|export| !there.contains(export)) {
            if let Answer::Failed { message, .. } = ask(&live.shim, Call::Add(export.clone())).await? {
                failed.insert(export.id.clone(), message);
            }
        }
        let agent = live.inside.borrow().agent.clone();
        if let Some(agent) = agent {
            let shares = table.iter().filter(|export| !failed.contains_key(&export.id)).map(share).collect();
            let told = agent.set_shares(shares).await.map_err(|e| Problem::from_error("mount-guest", &e))?;
            failed.extend(told.failed.into_iter().map(|failure| (failure.code, failure.message)));
            state.events = Some(if told.events { Ok(()) } else { Err(told.events_reason) });
        }
        for (id, why) in &failed {
            tracing::warn!(id, why, "not shared with the machine");
        }
        state.failed = failed;
        Ok(())
    }

    /// Everything that is shared, and how it stands.
    pub(crate) async fn list(&self) -> Result<Mounts, Problem> {
        let table = self.table()?;
        let state = self.state.lock().await;
        let mounts = table.into_iter().map(|(export, origin)| Mount {
            guest_path: self.naming.in_guest(&export.path),
            problem: state.failed.get(&export.id).cloned(),
            watched: state.watched.iter().filter(|path| path.starts_with(&export.path)).cloned().collect(),
            read_only: export.read_only,
            path: export.path,
            origin,
        });
        Ok(Mounts {
            mounts: mounts.collect(),
            events: match &state.events {
                Some(Err(why)) => Some(why.clone()),
                _ => state.unwatched.clone(),
            },
        })
    }

    /// Shares one more, now and from now on.
    pub(crate) async fn add(&self, request: &MountRequest) -> Result<Mounts, Problem> {
        let path = shareable(&request.path)?;
        self.insert(Entry { path: path.clone(), read_only: request.read_only, on_demand: false }).await?;
        let list = self.list().await?;
        match list.mounts.iter().find(|mount| mount.path == path).and_then(|mount| mount.problem.clone()) {
            Some(why) => {
                self.take(&path).await?;
                Err(not_shareable(&path, why))
            }
            None => Ok(list),
        }
    }

    async fn insert(&self, entry: Entry) -> Result<(), Problem> {
        {
            // Under the lock: two that are added at once are both kept.
            let _state = self.state.lock().await;
            let mut entries = self.read()?;
            entries.retain(|old| old.path != entry.path);
            entries.push(entry);
            self.write(&entries)?;
        }
        self.bring().await
    }

    /// Shares one no longer. Containers that use it get errors.
    pub(crate) async fn remove(&self, path: &Path) -> Result<Mounts, Problem> {
        let canonical = self.naming.canonical(path).unwrap_or_else(|_| path.to_owned());
        if self.home().as_deref() == Some(&canonical)
            && !self.read()?.iter().any(|entry| entry.path == canonical)
        {
            return Err(Problem::new("mount-home", "the home folder is shared by a setting")
                .hint("run `slipway config set shares.home false`"));
        }
        if !self.take(&canonical).await? && !self.take(path).await? {
            return Err(Problem::new("not-found", format!("`{}` is not shared", path.display()))
                .hint("`slipway mount ls` shows what is"));
        }
        self.list().await
    }

    async fn take(&self, path: &Path) -> Result<bool, Problem> {
        {
            let _state = self.state.lock().await;
            let mut entries = self.read()?;
            let before = entries.len();
            entries.retain(|entry| entry.path != path);
            if entries.len() == before {
                return Ok(false);
            }
            self.write(&entries)?;
        }
        self.bring().await.map(|()| true)
    }

    /// What holds the host's `path`, which has no links in it. Told by the guest's paths, which are written alike for every host.
    fn holder(&self, path: &Path) -> Result<Option<Export>, Problem> {
        let there = self.naming.in_guest(path);
        let holds = |export: &Export| there.starts_with(self.naming.in_guest(&export.path));
        let holding = self.table()?.into_iter().map(|(export, _)| export).filter(holds);
        Ok(holding.max_by_key(|export| export.path.as_os_str().len()))
    }
}

async fn ask(shim: &ShimClient, call: Call) -> Result<Answer, Problem> {
    shim.share(call).await.map_err(|e| Problem::from_error("machine-lost", &e))
}

fn refused(answer: &Answer) -> Problem {
    match answer {
        Answer::Failed { code, message } => Problem::new(&format!("share-{code}"), message.clone()),
        other => Problem::new("internal", format!("the share server's answer does not fit: {other:?}")),
    }
}

/// A share as the guest mounts it.
fn share(export: &Export) -> v1::Share {
    v1::Share {
        id: export.id.clone(),
        path: Naming::HERE.in_guest(&export.path).into_os_string().into_encoded_bytes(),
        read_only: export.read_only,
        file: !export.path.is_dir(),
    }
}

/// The path without links, if it can be shared.
fn shareable(path: &Path) -> Result<PathBuf, Problem> {
    if !path.is_absolute() {
        return Err(not_shareable(path, "it is not absolute"));
    }
    let real = Naming::HERE.canonical(path).map_err(|error| not_shareable(path, error.to_string()))?;
    if real.to_str().is_none() {
        return Err(not_shareable(path, "its name is not UTF-8, and Docker cannot name it either"));
    }
    if guest_path::whose(&real) != guest_path::Whose::Host {
        return Err(not_shareable(&real, "the machine has a folder of its own there"));
    }
    let kind = std::fs::metadata(&real).map_err(|error| not_shareable(path, error.to_string()))?;
    if kind.is_dir() || kind.is_file() {
        return Ok(real);
    }
    Err(not_shareable(
        &real,
        "only folders and files can be; a socket of the host does not work in the machine",
    ))
}
