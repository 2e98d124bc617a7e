//! Tells the guest what the person's settings and this computer's files make of it: once for each new agent, and again when
//! something changed.
//!
//! ```text
//!   settings ────────────────────────┐
//!   environment, system ─▶ proxies   ├─▶ Configure ─▶ agent        a new agent, or a change ─▶ again
//!   authorities, certs.d ─▶ trust ───┤
//!   hosts, resolv.conf ─▶ names ─────┘
//! ```

mod proxies;
mod trust;

use std::{path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use slipway_agent_client::AgentClient;
use slipway_protocol::v1::{Configure, Proxies};
use slipway_settings::resolved::Settings;
use tokio::{sync::watch, time::timeout};

use crate::{Context, board::Board, config, guest::Inside, names};

/// How long files must be quiet until they are read again: programs write several.
const SETTLE: Duration = Duration::from_millis(200);

/// Follows a machine's agent for as long as the machine lives. What does not come in force is among the status's notices.
pub(crate) async fn attend(context: Arc<Context>, board: Board, mut inside: watch::Receiver<Inside>) {
    let mut settings = context.settings.subscribe();
    let mut notices = Notices { board, shown: Vec::new() };
    loop {
        let agent = match inside.wait_for(|inside| inside.agent.is_some()).await {
            Ok(inside) => inside.agent.clone(),
            Err(_) => return,
        };
        let Some(agent) = agent else { continue };
        let mut told = Told::default();
        loop {
            settings.borrow_and_update();
            let (tell, mut files) = watch::channel(());
            // Watched for as long as it is awaited.
            let _watching = match read_settings(&context).await {
                Some(settings) => {
                    let mut places = trust::places(&settings.authorities, home().as_deref());
                    places.extend([names::RESOLV_CONF, names::HOSTS].map(PathBuf::from));
                    // Before they are read: a change between the two is seen twice rather than never.
                    let watching = watch_files(places, tell);
                    notices.show(told.tell(&agent, settings).await);
                    watching
                }
                // A file that is wrong changes nothing; the settings' own commands say what is.
                None => None,
            };
            tokio::select! {
                // The sender lives in the context, which this holds.
                _ = settings.changed() => {}
                () = settled(&mut files) => {}
                lives = async { inside.wait_for(|inside| inside.agent.is_none()).await.is_ok() } => match lives {
                    true => break,
                    false => return,
                },
            }
        }
    }
}

/// What one agent was told, and what it said.
#[derive(Default)]
struct Told {
    configure: Option<Configure>,
    refused: Option<String>,
}

impl Told {
    /// Tells the agent, if there is anything new; returns what is not in force, for a person.
    async fn tell(&mut self, agent: &AgentClient, settings: Settings) -> Vec<String> {
        let read = tokio::task::spawn_blocking(move || {
            let mut trust = trust::read(&settings.authorities, home().as_deref());
            let (proxies, problems) = proxies::of(&settings, |name| std::env::var(name).ok());
            trust.problems.extend(problems);
            let configure = Configure {
                reach_host: settings.reach_host,
                proxies: Some(proxies),
                authorities: trust.authorities,
                registry_files: trust.files,
                engine_config: settings.engine_config,
                search: names::search(),
                host_names: names::host_names(),
            };
            (configure, trust.problems)
        });
        let Ok((configure, mut problems)) = read.await else { return Vec::new() };
        if self.configure.as_ref() != Some(&configure) {
            self.refused = agent.configure(configure.clone()).await.err().map(|error| error.to_string());
            self.configure = Some(configure);
        }
        problems.extend(self.refused.as_ref().map(|why| format!("the settings are not all in force: {why}")));
        problems
    }
}

/// The engine's proxies, as settings, an environment and the system say.
pub(crate) fn proxies(settings: &Settings, variable: impl Fn(&str) -> Option<String>) -> Proxies {
    proxies::of(settings, variable).0
}

/// Why the engine does not trust all that it is to, for a person.
pub(crate) fn distrusted(settings: &Settings) -> Vec<String> {
    trust::read(&settings.authorities, home().as_deref()).problems
}

/// The person's home.
fn home() -> Option<PathBuf> {
    std::env::var_os(slipway_settings::paths::HOME).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The settings as they are now; `None` while they are wrong.
pub(crate) async fn read_settings(context: &Arc<Context>) -> Option<Settings> {
    let context = Arc::clone(context);
    tokio::task::spawn_blocking(move || config::with(&context.paths, &[]).ok()).await.ok().flatten()
}

/// Ready when something changed and all is quiet again; never when nothing is watched any more.
pub(crate) async fn settled(files: &mut watch::Receiver<()>) {
    if files.changed().await.is_err() {
        return std::future::pending().await;
    }
    while let Ok(Ok(())) = timeout(SETTLE, files.changed()).await {}
}

/// Has changes at these places told. A place that is not there is looked for in the folder that is.
pub(crate) fn watch_files(places: Vec<PathBuf>, tell: watch::Sender<()>) -> Option<RecommendedWatcher> {
    let wanted = places.clone();
    let concerns = move |path: &PathBuf| wanted.iter().any(|w| path.starts_with(w) || w.starts_with(path));
    let changed = move |event: notify::Result<notify::Event>| {
        // Without a path it says that some were lost.
        let concerned = |e: &notify::Event| e.paths.is_empty() || e.paths.iter().any(&concerns);
        // Reading is an event, too.
        if event.as_ref().map_or(true, |e| !e.kind.is_access() && concerned(e)) {
            tell.send_replace(());
        }
    };
    let watcher = notify::recommended_watcher(changed).inspect_err(
        |error| tracing::warn!(%error, "files are not watched: they are read at each start only"),
    );
    let mut watcher = watcher.ok()?;
    for place in places {
        // A file's folder, because files are replaced and not changed.
        let (folder, mode) = if place.is_dir() {
            (Some(place.as_path()), RecursiveMode::Recursive)
        } else {
            (place.ancestors().skip(1).find(|path| path.is_dir()), RecursiveMode::NonRecursive)
        };
        if let Some(folder) = folder
            && let Err(error) = watcher.watch(folder, mode)
        {
            tracing::warn!(%error, folder = %folder.display(), "not watched: it is read at each start only");
        }
    }
    Some(watcher)
}

/// Those of the status's notices that are from here.
struct Notices {
    board: Board,
    shown: Vec<String>,
}

impl Notices {
    fn show(&mut self, now: Vec<String>) {
        if now == self.shown {
            return;
        }
        for notice in &now {
            tracing::warn!(notice, "not in force");
        }
        let before = std::mem::replace(&mut self.shown, now);
        self.board.change(|status| {
            status.notices.retain(|notice| !before.contains(notice));
            status.notices.extend(self.shown.iter().cloned());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg_attr(
        windows,
        ignore = "Wine, which runs it, misses changes far below a watched folder now and then"
    )]
    async fn a_change_is_told_whether_the_place_was_there_or_not() {
        let home = tempfile::tempdir().expect("folder");
        let place = home.path().join(".docker/certs.d");
        let soon = Duration::from_secs(10);
        // Made step by step, as a person does: each of these is a change where the last look found less.
        for step in [".docker", ".docker/certs.d", ".docker/certs.d/registry"] {
            let (tell, mut files) = watch::channel(());
            let _watching = watch_files(vec![place.clone()], tell).expect("watches");
            std::fs::create_dir(home.path().join(step)).expect("made");
            timeout(soon, files.changed()).await.expect(step).expect("watches");
        }
        let (tell, mut files) = watch::channel(());
        let _watching = watch_files(vec![place.clone()], tell).expect("watches");
        std::fs::write(place.join("registry/ca.crt"), "pem").expect("written");
        timeout(soon, files.changed()).await.expect("in time").expect("watches");
        while timeout(SETTLE, files.changed()).await.is_ok() {}
        // What is read is no change, and what is beside it none of its.
        std::fs::read(place.join("registry/ca.crt")).expect("read");
        std::fs::write(home.path().join("other"), "x").expect("written");
        assert!(timeout(Duration::from_millis(300), files.changed()).await.is_err());
    }
}
