//! Looks at everything that a machine needs, tells what is wrong and what to do, and mends what can be mended safely.
//!
//! A person asks when things do not work, so nothing here needs a daemon: the verb looks by itself, and tells what it saw of
//! the daemon; the daemon looks in the same way for the window. What is mended is never anybody's data.
//!
//! ```text
//!   Subject ─▶ host::Facts (programs that are run) ─▶ CHECKS: look ─▶ fixable and asked for? mend, look again ─▶ report
//! ```

mod docker;
#[cfg_attr(windows, path = "doctor/files_windows.rs")]
mod files;
mod folders;
#[cfg_attr(not(target_os = "linux"), path = "doctor/host_elsewhere.rs")]
mod host;
mod network;
mod parts;
mod room;

use std::path::PathBuf;

use slipway_api::{Check, CheckState, DOCKER_CONTEXT, DaemonSeen, DoctorReport, Problem, paths::Paths};
use slipway_settings::resolved::Settings;

use crate::config;

/// Who is looked at, and what only the asker knows.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The profile's files.
    pub paths: Paths,
    /// The program, beside which a package lays its image.
    pub exe: PathBuf,
    /// The person's folder of docker's configuration, when it is known.
    pub docker_config: Option<PathBuf>,
    /// The person's shell; `None` when somebody asks who has another environment.
    pub shell: Option<Shell>,
    /// What the asker saw of the daemon.
    pub seen: DaemonSeen,
}

/// What of a shell's environment makes `docker` go elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
}

impl Shell {
    /// That of this process.
    pub fn of_process() -> Self {
        let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { docker_host: var("DOCKER_HOST"), docker_context: var("DOCKER_CONTEXT") }
    }
}

/// What is to be mended.
#[derive(Debug, Clone)]
pub enum Fix {
    /// Whatever can be.
    All,
    /// These checks, by their ids; nothing when there are none.
    Only(Vec<String>),
}

/// A subject with what all checks need.
#[derive(Debug)]
struct Ward {
    subject: Subject,
    settings: Result<Settings, Problem>,
    facts: host::Facts,
}

impl Ward {
    fn paths(&self) -> &Paths {
        &self.subject.paths
    }
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    state: CheckState,
    problem: Problem,
    fixable: bool,
}

impl Finding {
    fn new(state: CheckState, message: impl Into<String>) -> Self {
        Self { state, problem: Problem::new("", message), fixable: false }
    }
    fn ok(message: impl Into<String>) -> Self {
        Self::new(CheckState::Ok, message)
    }
    fn warning(message: impl Into<String>) -> Self {
        Self::new(CheckState::Warning, message)
    }
    fn failed(message: impl Into<String>) -> Self {
        Self::new(CheckState::Failed, message)
    }
    fn not_applicable(message: impl Into<String>) -> Self {
        Self::new(CheckState::NotApplicable, message)
    }
    /// What another part of the daemon says, with its reasons and its advice.
    fn of(state: CheckState, problem: Problem) -> Self {
        Self { state, problem, fixable: false }
    }
    fn because(mut self, cause: impl Into<String>) -> Self {
        self.problem = self.problem.because(cause);
        self
    }
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem = self.problem.hint(hint);
        self
    }
    fn fixable(mut self) -> Self {
        self.fixable = true;
        self
    }
}

type Look = fn(&Ward) -> Finding;
type Mend = fn(&Ward) -> Result<(), Problem>;

/// One check: its id, how it looks, and how what it calls fixable is mended.
struct Examination {
    id: &'static str,
    look: Look,
    mend: Option<Mend>,
}

const fn looks(id: &'static str, look: Look) -> Examination {
    Examination { id, look, mend: None }
}

/// All of them. Ids are for ever.
const CHECKS: &[Examination] = &[
    looks("daemon", parts::daemon),
    looks("machine", parts::machine),
    looks("shares", parts::shares),
    looks("settings", folders::settings),
    looks("image", parts::image),
    looks("qemu", host::qemu),
    looks("acceleration", host::acceleration),
    looks("memory", room::memory),
    looks("disk-space", room::disk_space),
    looks("user-namespaces", host::user_namespaces),
    looks("inotify", host::inotify),
    looks("proxies", network::proxies),
    looks("authorities", network::authorities),
    Examination { id: "home", look: files::home, mend: Some(files::mend_home) },
    looks("sockets", files::sockets),
    Examination { id: "leftovers", look: files::leftovers, mend: Some(files::mend_leftovers) },
    looks("docker-cli", docker::cli),
    Examination { id: DOCKER_CONTEXT, look: docker::context, mend: Some(docker::mend_context) },
    looks("docker-credentials", docker::credentials),
    looks("docker-environment", docker::environment),
];

/// Looks at everything, and mends what `fix` names.
///
/// # Errors
/// None of what is found is one; only that of this program itself.
pub async fn examine(subject: Subject, fix: Fix) -> Result<DoctorReport, Problem> {
    let paths = subject.paths.clone();
    let settings = blocking(move || config::with(&paths, &[])).await?;
    let facts = host::Facts::gather(&subject, settings.as_ref().ok()).await;
    blocking(move || {
        let ward = Ward { subject, settings, facts };
        let checks = CHECKS.iter().map(|examination| examined(examination, &ward, &fix)).collect();
        DoctorReport {
            slipway: env!("CARGO_PKG_VERSION").into(),
            profile: ward.paths().profile().to_owned(),
            checks,
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let failed = |error: tokio::task::JoinError| {
        Problem::new("internal", "the examination failed").because(error.to_string())
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn examined(examination: &Examination, ward: &Ward, fix: &Fix) -> Check {
    let mut found = (examination.look)(ward);
    let wanted = match fix {
        Fix::All => true,
        Fix::Only(ids) => ids.iter().any(|id| id == examination.id),
    };
    let mut fixed = false;
    if let Some(mend) = examination.mend
        && found.fixable
        && wanted
    {
        match mend(ward) {
            Ok(()) => {
                found = (examination.look)(ward);
                fixed = found.state == CheckState::Ok;
            }
            Err(problem) => {
                let said = problem.causes.into_iter().fold(
                    found.because(format!("it could not be mended: {}", problem.message)),
                    Finding::because,
                );
                found = problem.hint.into_iter().fold(said, Finding::hint);
            }
        }
    }
    let Finding { state, problem, fixable } = found;
    let Problem { message, causes, hint, .. } = problem;
    Check { id: examination.id.into(), state, message, causes, hint, fixable, fixed }
}

/// A path as it is told.
fn told(path: &std::path::Path) -> String {
    format!("`{}`", path.display())
}

#[cfg(all(test, unix))] // What they look at is: modes, sockets.
#[path = "doctor/tests.rs"]
mod tests;
