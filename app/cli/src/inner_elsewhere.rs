//! Where no machine can be run yet: the verbs are there and say so.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use slipway_api::{Bundle, DaemonSeen, DoctorReport, Problem, paths::Paths};

/// Would be the daemon.
pub(crate) fn daemon(_profile: String) -> ExitCode {
    not_here()
}

/// Would own a machine.
pub(crate) fn shim(_config: &Path) -> ExitCode {
    not_here()
}

/// Would serve host folders.
pub(crate) fn share() -> ExitCode {
    not_here()
}

/// Would look at what a machine needs.
///
/// # Errors
/// Always.
pub(crate) async fn doctor(
    _paths: &Paths,
    _docker_config: Option<PathBuf>,
    _seen: DaemonSeen,
    _fix: bool,
) -> Result<DoctorReport, Problem> {
    Err(elsewhere())
}

/// Would make a diagnostics bundle.
///
/// # Errors
/// Always.
pub(crate) async fn bundle(
    _paths: &Paths,
    _docker_config: Option<PathBuf>,
    _seen: DaemonSeen,
    _path: PathBuf,
) -> Result<Bundle, Problem> {
    Err(elsewhere())
}

fn elsewhere() -> Problem {
    Problem::new("not-here", "this version of Slipway runs machines on Linux only")
}

/// The last words go to the log, from where the starter repeats them.
fn not_here() -> ExitCode {
    eprintln!("this version of Slipway runs machines on Linux only, and this is {}", std::env::consts::OS);
    ExitCode::FAILURE
}
