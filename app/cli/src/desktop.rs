//! `slipway desktop`: opens the window, which is a program of its own beside this one.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use slipway_api::Problem;
use tokio::time::{Instant, sleep};

use crate::{inner, reach::Session, say::Fail, system, terminal::has_screen};

/// How long a window that cannot open may take to say so. One that opens is not waited for.
const SECOND_LOOK: Duration = Duration::from_millis(700);
/// Between two looks.
const STEP: Duration = Duration::from_millis(25);

/// Opens the window, or brings the one that is open to the front.
///
/// # Errors
/// There is no window program, no screen, or it ends at once.
pub(crate) async fn desktop(session: &Session) -> Result<u8, Fail> {
    let program = program()?;
    if let Err(why) = has_screen() {
        let problem = Problem::new("no-display", "there is no screen to open a window on");
        return Err(problem.because(why).hint("`slipway status` and the other verbs need none").into());
    }
    session.paths.prepare()?;
    let log = session.paths.log("desktop");
    let file = system::private().create(true).append(true).open(&log)?;
    // It outlives the terminal that it was asked from.
    inner::keep_streams();
    let mut child = system::in_background(&mut Command::new(&program))
        .args(["--profile", session.paths.profile()])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .map_err(|error| failed(&program, &error.to_string()))?;
    let deadline = Instant::now() + SECOND_LOOK;
    while Instant::now() < deadline {
        match child.try_wait()? {
            // There was one already, and it came to the front.
            Some(code) if code.success() => return Ok(0),
            Some(code) => {
                let problem = failed(&program, &code.to_string());
                return Err(problem.hint(format!("what it said is in `{}`", log.display())).into());
            }
            None => sleep(STEP).await,
        }
    }
    Ok(0)
}

fn failed(program: &std::path::Path, why: &str) -> Problem {
    Problem::new("desktop-ended", format!("failed to open the window with `{}`", program.display()))
        .because(why)
}

fn program() -> Result<PathBuf, Fail> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(format!("slipway-desktop{}", std::env::consts::EXE_SUFFIX));
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Problem::new("desktop-missing", format!("there is no `{}`", beside.display()))
        .hint("the window comes with the package; `installer/package` builds it")
        .into())
}
