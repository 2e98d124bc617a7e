//! Starts a shim that outlives its starter, or finds one that lives already.

#[cfg_attr(unix, path = "spawn/unix.rs")]
#[cfg_attr(windows, path = "spawn/windows.rs")]
mod system;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use slipway_vm::ExitReason;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    client::{ShimClient, ShimClientError},
    server::{ShimConfig, try_lock},
};

/// Bytes of the shim's log that explain why it did not start.
const LOG_SLICE: usize = 2048;

/// The shim did not come up.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A file on the way could not be written, read or locked.
    #[error("failed to {act} `{path}`")]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program could not be run.
    #[error("failed to run `{program}`")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim ended before it listened; its last words.
    #[error("the machine did not start: {said}")]
    Ended {
        /// The end of its log.
        said: String,
    },
    /// The shim did not listen in time.
    #[error("the machine's process did not answer in {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// The shim that lives, if one does. A lock that nobody holds means that none does, whatever files are left.
///
/// # Errors
/// [`SpawnError::File`] when the lock cannot be looked at; [`SpawnError::TimedOut`] when it is held but nobody listens.
pub async fn adopt(
    config_lock: &Path,
    socket: &Path,
    patience: Duration,
) -> Result<Option<ShimClient>, SpawnError> {
    let file = |source| SpawnError::File { act: "lock", path: config_lock.to_owned(), source };
    let deadline = Instant::now() + patience;
    loop {
        if let Some(lock) = try_lock(config_lock).map_err(file)? {
            let _ = lock.unlock();
            return Ok(None);
        }
        match ShimClient::connect(socket).await {
            Ok(client) => return Ok(Some(client)),
            // It has the lock and does not listen yet, or does not any more.
            Err(ShimClientError::Connect { .. }) if Instant::now() < deadline => {
                sleep(Duration::from_millis(25)).await;
            }
            Err(_) => return Err(SpawnError::TimedOut(patience)),
        }
    }
}

/// Keeps this program's stdin, stdout and stderr from programs that it starts and that outlive it; to be called before.
pub fn keep_streams() {
    system::keep_streams();
}

/// Starts `exe shim --config FILE` in a session of its own and waits until it listens.
///
/// # Errors
/// See [`SpawnError`]; a shim that does not listen in time is ended.
pub async fn spawn(
    exe: &Path,
    config: &ShimConfig,
    config_file: &Path,
    log: &Path,
    patience: Duration,
) -> Result<ShimClient, SpawnError> {
    let file = |act, path: &Path| {
        let path = path.to_owned();
        move |source| SpawnError::File { act, path, source }
    };
    let json =
        serde_json::to_vec_pretty(config).map_err(io::Error::other).map_err(file("write", config_file))?;
    std::fs::write(config_file, json).map_err(file("write", config_file))?;
    let log_file = File::options().create(true).append(true).open(log).map_err(file("write", log))?;
    let log_from = log_file.metadata().map_or(0, |m| m.len());
    let second = log_file.try_clone().map_err(file("write", log))?;
    keep_streams();
    let mut command = Command::new(exe);
    let mut child = system::apart(&mut command)
        .args(["shim", "--config"])
        .arg(config_file)
        .stdin(Stdio::null())
        .stdout(second)
        .stderr(log_file)
        .spawn()
        .map_err(|source| SpawnError::Run { program: exe.to_owned(), source })?;
    let deadline = Instant::now() + patience;
    loop {
        if let Ok(client) = ShimClient::connect(&config.socket).await
            && client.status().await.is_ok()
        {
            return Ok(client);
        }
        if let Ok(Some(_)) = child.try_wait() {
            return Err(SpawnError::Ended { said: last_words(log, log_from) });
        }
        if Instant::now() >= deadline {
            // It may just have ended.
            let _ = child.kill().await;
            return Err(SpawnError::TimedOut(patience));
        }
        sleep(Duration::from_millis(25)).await;
    }
}

fn last_words(log: &Path, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let fresh = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
    let slice = &fresh[fresh.len().saturating_sub(LOG_SLICE)..];
    let text = String::from_utf8_lossy(slice).trim().to_owned();
    if text.is_empty() { "it said nothing".into() } else { text }
}

/// Why the last machine ended, as its shim wrote it down; `None` when it could not.
pub fn last_exit(exit_file: &Path) -> Option<ExitReason> {
    serde_json::from_slice(&std::fs::read(exit_file).ok()?).ok()
}
