//! Starts the daemon, or finds the one that lives: through `slipway` itself, which knows how and is installed beside us.

use std::{ffi::OsStr, path::PathBuf, process::Stdio, time::Duration};

use slipway_api::Problem;
use tokio::{process::Command, time::timeout};

/// How long it may take; `slipway` gives up earlier and says why.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program `slipway`: beside this one, or the first in the `PATH`.
pub fn program() -> PathBuf {
    let name = format!("slipway{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "slipway".into())
}

/// Returns when the daemon of `profile` answers. Its machine is left as it is.
///
/// # Errors
/// What `slipway` said against it.
pub async fn ensure(profile: &str) -> Result<(), Problem> {
    run(&program(), &["daemon", "--detach", "--profile", profile]).await
}

async fn run<S: AsRef<OsStr>>(program: &PathBuf, args: &[S]) -> Result<(), Problem> {
    let problem = |message: &str| Problem::new("daemon-start", message);
    let running = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match timeout(PATIENCE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            return Err(problem(&format!("failed to run `{}`", program.display()))
                .because(error.to_string())
                .hint("install Slipway again"));
        }
        Err(_) => return Err(problem("the daemon did not answer in time").hint("run `slipway status`")),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(told(&String::from_utf8_lossy(&output.stderr)))
}

/// The lines `error:`, `caused by:` and `hint:` of a verb as a problem again.
fn told(stderr: &str) -> Problem {
    let mut problem = Problem::new("daemon-start", "the daemon could not be started");
    for line in stderr.lines() {
        match line.split_once(": ") {
            Some(("error", what)) => problem.message = what.to_owned(),
            Some(("caused by", why)) => problem = problem.because(why),
            Some(("hint", what)) => problem = problem.hint(what),
            _ => {}
        }
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_verb_said_is_told_on() {
        let problem = told("error: no room\ncaused by: disk full\nhint: free some\n");
        assert_eq!(problem, Problem::new("daemon-start", "no room").because("disk full").hint("free some"));
        assert_eq!(told("").message, "the daemon could not be started");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_fails_is_a_problem() {
        let missing = run(&"/nonexistent/slipway".into(), &["x"]).await.expect_err("missing");
        assert!(missing.message.contains("/nonexistent/slipway"), "{missing:?}");
        let failed = run(&"sh".into(), &["-c", "echo 'error: why' >&2; exit 1"]).await.expect_err("fails");
        assert_eq!(failed.message, "why");
        run(&"true".into(), &["x"]).await.expect("succeeds");
    }
}
