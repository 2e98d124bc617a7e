//! The processes behind the verbs: daemon, shim and share server, as hidden verbs of the same program; and what of the daemon's
//! a verb does by itself.
//!
//! The only file of the CLI that names their crates. Daemon and shim leave their starter's session first: closing the terminal, or
//! Ctrl-C in it, must not end a machine.

#[cfg_attr(unix, path = "inner/unix.rs")]
#[cfg_attr(windows, path = "inner/windows.rs")]
mod system;

use std::{
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use anyhow::Context;
use slipway_api::{Bundle, DaemonSeen, DoctorReport, Problem, paths::Paths};
use slipway_daemon::{
    Ends, diagnose,
    doctor::{self, Fix, Shell, Subject},
};
use slipway_shim::{
    drivers,
    server::{self, ShimConfig},
};
use tokio_util::sync::CancellationToken;

/// Is the daemon until it is told to end.
pub(crate) fn daemon(profile: String) -> ExitCode {
    system::own_session();
    ended(run_daemon(profile))
}

/// Keeps this program's stdin, stdout and stderr from a program that is to outlive it: who reads them to the end waits for nobody else.
pub(crate) fn keep_streams() {
    slipway_shim::spawn::keep_streams();
}

/// Owns a machine until it ends.
pub(crate) fn shim(config: &Path) -> ExitCode {
    system::own_session();
    log_to_stderr();
    ended(run_shim(config))
}

/// Serves host folders to the machine of the shim that started it.
pub(crate) fn share() -> ExitCode {
    #[cfg(target_os = "linux")]
    let served = slipway_share::server::run().map_err(Into::into);
    #[cfg(not(target_os = "linux"))]
    let served = Err(anyhow::anyhow!("the hypervisor of this system shares folders itself"));
    ended(served)
}

/// Looks at everything as the daemon would, in this process: it is wanted most when no daemon can be had.
///
/// # Errors
/// That of this program itself.
pub(crate) async fn doctor(
    paths: &Paths,
    docker_config: Option<PathBuf>,
    seen: DaemonSeen,
    fix: bool,
) -> Result<DoctorReport, Problem> {
    let fix = if fix { Fix::All } else { Fix::Only(Vec::new()) };
    doctor::examine(subject(paths, docker_config, seen), fix).await
}

/// Makes a diagnostics bundle at `path`, or under a name of its own in the folder that it names.
///
/// # Errors
/// The file is there, or cannot be made.
pub(crate) async fn bundle(
    paths: &Paths,
    docker_config: Option<PathBuf>,
    seen: DaemonSeen,
    path: PathBuf,
) -> Result<Bundle, Problem> {
    let path = if path.is_dir() { path.join(diagnose::file_name(slipway_api::time::now_ms())) } else { path };
    diagnose::bundle(subject(paths, docker_config, seen), path).await
}

fn subject(paths: &Paths, docker_config: Option<PathBuf>, seen: DaemonSeen) -> Subject {
    let exe = std::env::current_exe().unwrap_or_default();
    Subject { paths: paths.clone(), exe, docker_config, shell: Some(Shell::of_process()), seen }
}

fn run_daemon(profile: String) -> anyhow::Result<()> {
    let exe = std::env::current_exe().context("failed to find the own program")?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start")?;
    Ok(runtime.block_on(slipway_daemon::run(slipway_daemon::Options { profile, exe }))?)
}

fn run_shim(config: &Path) -> anyhow::Result<()> {
    let json = std::fs::read(config).with_context(|| format!("failed to read `{}`", config.display()))?;
    let config: ShimConfig = serde_json::from_slice(&json)
        .with_context(|| format!("failed to understand `{}`", config.display()))?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start")?;
    runtime.block_on(async {
        let mut ends = Ends::listen().context("failed to listen for signals")?;
        let (stop, driver) = (CancellationToken::new(), drivers::driver(&config));
        let mut serving = pin!(server::run(&config, &*driver, stop.clone()));
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = ends.told() => {
                stop.cancel();
                serving.await
            }
        };
        ended.map(drop).map_err(Into::into)
    })
}

/// Logs of the shim go to its file, which its starter made its stderr.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// The last words go to the log, from where the starter repeats them.
fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            eprintln!("{}", causes.join(": "));
            ExitCode::FAILURE
        }
    }
}
