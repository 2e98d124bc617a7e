//! The control plane of one profile: knows where the machine is, brings it up and down, and tells whoever asks.
//!
//! ```text
//!   api (HTTP over api.sock) ──commands──▶ owner ──▶ boot ─▶ shim ─▶ guest
//!        ▲                                  │ policy: what is legal now (pure)
//!        └────── board (watch of Status) ◀──┴── guest watcher, logs
//!   relay (docker.sock) ◀── gate
//! ```
//!
//! It may be killed at any moment: containers, streams and the machine live in the shim, and the next daemon finds them
//! there. It holds `daemon.lock` for as long as it lives; a second one leaves quietly.

mod api;
mod board;
mod boot;
mod config;
mod configure;
pub mod diagnose;
mod disk;
pub mod docker_context;
pub mod doctor;
mod engine;
mod exec;
mod guest;
mod holdings;
pub mod host_tools;
mod image;
mod logs;
mod names;
mod owner;
mod policy;
mod ports;
mod redact;
mod setup;
mod shares;
mod sleep;
mod system;
mod update;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use slipway_api::Problem;
use slipway_relay::{Gate, ListenError, Relay};
use slipway_settings::paths::{Env, PathError, Paths};
use slipway_vsock::endpoint::Listener;
use tokio::{sync::watch, task::JoinError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use api::openapi;
pub use system::Ends;

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose machine it runs.
    pub profile: String,
    /// The program that is run as `exe shim --config FILE`.
    pub exe: PathBuf,
}

/// The daemon could not begin.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The profile's folders cannot be used.
    #[error(transparent)]
    Paths(#[from] PathError),
    /// A file or a socket could not be made.
    #[error("failed to {act} `{path}`")]
    File {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine's socket could not be made.
    #[error(transparent)]
    Relay(#[from] ListenError),
    /// The system refused something that every process may have.
    #[error("failed to start the daemon")]
    System(#[source] io::Error),
}

/// What all parts of a daemon share.
#[derive(Debug)]
struct Context {
    paths: Paths,
    exe: PathBuf,
    logs: Arc<logs::LogStore>,
    /// Published ports of the machine that runs; written by [`ports`] alone.
    ports: watch::Sender<Vec<slipway_api::Port>>,
    shares: Arc<shares::Shares>,
    /// Told whenever settings may have changed.
    settings: watch::Sender<()>,
    /// Whether this computer sleeps; written by [`sleep`] alone.
    sleep: watch::Sender<sleep::Sleep>,
}

/// Is the daemon of a profile until it is told to end, by signal or by its API. The machine goes on.
///
/// A profile that has a daemon already is no error: the other one answers.
///
/// # Errors
/// See [`DaemonError`].
pub async fn run(options: Options) -> Result<(), DaemonError> {
    let paths = Paths::resolve(&Env::of_process(), &options.profile)?;
    paths.prepare()?;
    let file = |act, path: &Path| {
        let path = path.to_owned();
        move |source| DaemonError::File { act, path, source }
    };
    let lock_path = paths.daemon_lock();
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(file("lock", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(e)) => return Err(file("lock", &lock_path)(e)),
    }
    let logs = Arc::new(logs::LogStore::new(paths.clone()));
    logs::trace_into(&logs);
    let stop = CancellationToken::new();
    let mut ends = system::Ends::listen().map_err(DaemonError::System)?;

    let api_path = paths.api_sock();
    // Ours to remove: the lock says that nobody else lives here.
    let _ = std::fs::remove_file(&api_path);
    let relay = Relay::listen(&paths.docker_sock())?;
    let shares = Arc::new(shares::Shares::new(paths.clone()));
    let context = Arc::new(Context {
        paths,
        exe: options.exe,
        logs,
        ports: watch::Sender::default(),
        shares,
        settings: watch::Sender::default(),
        sleep: watch::Sender::default(),
    });
    let (gate, gate_seen) = watch::channel(Gate::Wait);
    let tasks = TaskTracker::new();
    let owner = owner::spawn(Arc::clone(&context), gate, stop.clone(), &tasks);
    tasks.spawn(sleep::attend(Arc::clone(&context), stop.clone()));
    let listener = Listener::bind(&api_path).map_err(file("listen on", &api_path))?;
    tasks.spawn(relay.run(gate_seen, stop.clone()));
    let updates = update::Updates::new(Arc::clone(&context), owner.clone(), tasks.clone(), stop.clone());
    let app = api::App { context, owner, updates, quit: stop.clone(), tasks: tasks.clone() };
    tasks.spawn(api::serve(listener, app, stop.clone()));
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "the daemon is up");
    tokio::select! {
        () = ends.told() => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    // Before the lock goes, so that a new daemon's socket is never removed.
    let _ = std::fs::remove_file(&api_path);
    tracing::info!("the daemon ends; a machine that runs goes on");
    // Not by closing: a child that has not got to its exec yet has the descriptor, too.
    let _ = lock.unlock();
    Ok(())
}

/// Does something that blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))
}

/// A task of ours has panicked.
fn failed(error: &JoinError) -> Problem {
    Problem::new("internal", "a task of the daemon failed").because(error.to_string())
}

/// The default profile of a home at `root`, for tests.
#[cfg(test)]
fn paths_in(root: &Path) -> Paths {
    let paths = Paths::resolve(&Env { slipway_home: Some(root.into()), ..Env::default() }, "default");
    let paths = paths.expect("its paths are short enough");
    paths.prepare().expect("its folders are made");
    paths
}
