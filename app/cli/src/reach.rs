//! Finds the daemon, or starts it.
//!
//! Whether one lives is told by its socket alone: it answers or it does not. Several starters at once are fine: of their
//! daemons one wins the lock, the others leave quietly, and all starters speak to the winner.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use slipway_api::{
    DaemonSeen, Problem, Version,
    client::{ApiClient, ClientError},
    lock,
    paths::{self, Env, Paths},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    inner,
    say::{Fail, Say},
    system,
};

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a living daemon may take to say who it is.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
const STEP: Duration = Duration::from_millis(25);
/// How long a daemon that left quietly is given to have been beaten by another, before a new one is tried.
const LOST_TO_ANOTHER: Duration = Duration::from_secs(1);
/// Bytes of the daemon's log that explain why it did not start.
const LAST_WORDS: u64 = 2048;

/// One profile, its daemon, and the person who asks.
#[derive(Debug)]
pub(crate) struct Session {
    /// The profile's files.
    pub(crate) paths: Paths,
    /// The person.
    pub(crate) say: Say,
    api: ApiClient,
}

impl Session {
    /// Nothing is connected or created yet.
    ///
    /// # Errors
    /// A profile that cannot be one, or no home.
    pub(crate) fn new(profile: &str, say: Say) -> Result<Self, Fail> {
        let paths = Paths::resolve(&Env::of_process(), profile)?;
        let api = ApiClient::new(&paths.api_sock());
        Ok(Self { paths, say, api })
    }

    /// The daemon, if one lives. One that died while its machine runs is started again: the machine must be spoken for.
    ///
    /// # Errors
    /// A daemon that hangs, or does not start.
    pub(crate) async fn found(&self) -> Result<Option<&ApiClient>, Fail> {
        if self.answers().await?.is_some() {
            return Ok(Some(&self.api));
        }
        if lock::held(&self.paths.shim_lock()) { self.spawn().await.map(Some) } else { Ok(None) }
    }

    /// The daemon, started if need be.
    ///
    /// # Errors
    /// A daemon that hangs, or does not start.
    pub(crate) async fn ensured(&self) -> Result<&ApiClient, Fail> {
        if self.answers().await?.is_some() { Ok(&self.api) } else { self.spawn().await }
    }

    /// Ends a daemon of another version and starts one of ours. The machine goes on meanwhile.
    ///
    /// # Errors
    /// A daemon that hangs, or does not start.
    pub(crate) async fn renewed(&self) -> Result<&ApiClient, Fail> {
        if self.answers().await?.is_some_and(|version| version.slipway != env!("CARGO_PKG_VERSION")) {
            self.api.quit().await?;
            let deadline = Instant::now() + PATIENCE;
            while self.answers().await?.is_some() {
                if Instant::now() >= deadline {
                    return Err(self.silent("the daemon of another version does not end").into());
                }
                sleep(STEP).await;
            }
        }
        self.ensured().await
    }

    /// What can be seen of the daemon, whatever is wrong with it. Starts nothing.
    pub(crate) async fn seen(&self) -> DaemonSeen {
        let version = match self.answers().await {
            Ok(Some(version)) => version,
            Ok(None) | Err(Fail::NobodyReads) => return DaemonSeen::Nobody,
            Err(Fail::Problem(problem)) => return DaemonSeen::Silent(problem),
        };
        let mounts = async { timeout(ANSWER, self.api.mounts()).await.ok()?.ok() };
        match tokio::join!(timeout(ANSWER, self.api.status()), mounts) {
            (Ok(Ok(status)), mounts) => DaemonSeen::Answers { version, status: Box::new(status), mounts },
            (Ok(Err(error)), _) => DaemonSeen::Silent(error.into_problem()),
            (Err(_), _) => DaemonSeen::Silent(self.silent("the daemon does not say how things stand")),
        }
    }

    /// Who answers, if anybody does.
    ///
    /// # Errors
    /// Somebody is there and cannot be spoken to.
    pub(crate) async fn answers(&self) -> Result<Option<Version>, Fail> {
        match timeout(ANSWER, self.api.version()).await {
            Ok(Ok(version)) => Ok(Some(version)),
            Ok(Err(error)) if nobody(&error) => Ok(None),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.silent("the daemon does not answer").into()),
        }
    }

    async fn spawn(&self) -> Result<&ApiClient, Fail> {
        self.paths.prepare()?;
        let log = self.paths.log("daemon");
        let deadline = Instant::now() + PATIENCE;
        let (mut child, mut from) = self.launch(&log)?;
        let mut left: Option<Instant> = None;
        loop {
            match timeout(ANSWER, self.api.version()).await {
                Ok(Ok(_)) => return Ok(&self.api),
                Ok(Err(error)) if !nobody(&error) => return Err(error.into()),
                _ => {}
            }
            match (child.try_wait(), left) {
                (Ok(Some(code)), _) if !code.success() => {
                    let said = last_words(&log, from);
                    let problem = Problem::new("daemon-ended", "the daemon ended as soon as it was started");
                    return Err(problem
                        .because(said)
                        .hint(format!("all it said is in `{}`", log.display()))
                        .into());
                }
                (Ok(Some(_)), None) => left = Some(Instant::now()),
                // The one that it lost to was on its way out, it seems.
                (Ok(Some(_)), Some(at)) if at.elapsed() >= LOST_TO_ANOTHER => {
                    (child, from) = self.launch(&log)?;
                    left = None;
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                let seconds = PATIENCE.as_secs();
                return Err(self.silent(&format!("the daemon did not answer in {seconds} s")).into());
            }
            sleep(STEP).await;
        }
    }

    /// Starts a daemon; the process, and where in the log its words begin.
    fn launch(&self, log: &Path) -> Result<(Child, u64), Fail> {
        let failed =
            |what: String| move |e: io::Error| Problem::new("daemon-spawn", what).because(e.to_string());
        let file = system::private()
            .create(true)
            .append(true)
            .open(log)
            .map_err(failed(format!("failed to open `{}`", log.display())))?;
        let from = file.metadata().map_or(0, |m| m.len());
        let exe = std::env::current_exe().map_err(failed("failed to find the own program".into()))?;
        let second = file.try_clone().map_err(failed("failed to start the daemon".into()))?;
        inner::keep_streams();
        // The new process leaves our session itself; until then it must not get the terminal's Ctrl-C.
        let child = system::in_background(&mut Command::new(&exe))
            .args(["daemon", "--profile", self.paths.profile()])
            .stdin(Stdio::null())
            .stdout(second)
            .stderr(file)
            .spawn()
            .map_err(failed(format!("failed to run `{}`", exe.display())))?;
        Ok((child, from))
    }

    fn silent(&self, what: &str) -> Problem {
        Problem::new("daemon-silent", what)
            .hint(format!("what it does is in `{}`", self.paths.log("daemon").display()))
    }
}

/// Whether the error says that nobody listens. Anything else is somebody who cannot be spoken to.
fn nobody(error: &ClientError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // A home that is no folder has no daemon; starting one says what is wrong with it. One that ended while we
            // spoke is the same as nobody.
            use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotADirectory, NotFound};
            let gone = [NotFound, ConnectionRefused, NotADirectory, ConnectionReset, BrokenPipe];
            return gone.contains(&error.kind());
        }
        cause = error.source();
    }
    matches!(error, ClientError::Broken(_))
}

fn last_words(log: &Path, from: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(LAST_WORDS)).min(end)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned();
    if text.is_empty() { "it said nothing".into() } else { text }
}

/// The person's folder of docker's configuration.
///
/// # Errors
/// Neither variable says where.
pub(crate) fn docker_config() -> Result<PathBuf, Fail> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = var("DOCKER_CONFIG").or_else(|| var(paths::HOME).map(|home| home.join(".docker")));
    let dir = dir
        .ok_or_else(|| Problem::new("paths", format!("neither DOCKER_CONFIG nor {} is set", paths::HOME)))?;
    Ok(std::path::absolute(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_there_is_told_from_somebody_who_fails() {
        let dir = tempfile::tempdir().expect("folder");
        let socket = dir.path().join("api.sock");
        assert!(nobody(&ApiClient::new(&socket).version().await.expect_err("no file")));
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
        assert!(nobody(&ApiClient::new(&socket).version().await.expect_err("nobody listens")));
        std::fs::remove_file(&socket).expect("removed");
        let listener = tokio::net::UnixListener::bind(&socket).expect("bound");
        let api = ApiClient::new(&socket);
        let dies = async {
            let (stream, _) = listener.accept().await.expect("a client");
            // With what was asked unread: the client's connection is reset.
            stream.readable().await.expect("a question");
        };
        let (answer, ()) = tokio::join!(api.version(), dies);
        assert!(nobody(&answer.expect_err("it ended while we spoke")));
        assert!(!nobody(&ClientError::Problem(Box::new(Problem::new("x", "y")))));
        assert!(!nobody(&ClientError::Answer("x".into())));
    }

    #[test]
    fn the_last_words_are_those_of_this_start() {
        let dir = tempfile::tempdir().expect("folder");
        let log = dir.path().join("daemon.log");
        std::fs::write(&log, "before\nnow\n").expect("written");
        assert_eq!(last_words(&log, 7), "now");
        assert_eq!(last_words(&log, 11), "it said nothing");
        assert_eq!(last_words(&log, 9999), "it said nothing");
        std::fs::write(&log, "x".repeat(10_000)).expect("written");
        assert_eq!(last_words(&log, 0).len() as u64, LAST_WORDS);
    }
}
