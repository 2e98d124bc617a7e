//! Start, stop and restart. The daemon does them; the verbs show how they go, and leaving early changes nothing.

use std::cell::Cell;

use slipway_api::{PhaseState, Problem, StartRequest, State, Status, StopRequest, client::ApiClient};

use crate::{
    args::{StartArgs, StopArgs},
    follow, integrate,
    reach::{Session, docker_config},
    say::Fail,
    status::exit_code,
};

/// The exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Starts the machine, and the daemon before it.
///
/// # Errors
/// Why the engine does not answer.
pub(crate) async fn start(session: &Session, how: &StartArgs) -> Result<u8, Fail> {
    let asked = Cell::new(None);
    interruptible(session, &asked, up(session, how, &asked)).await
}

/// Stops the machine. The daemon stays.
///
/// # Errors
/// Why it still runs.
pub(crate) async fn stop(session: &Session, how: &StopArgs) -> Result<u8, Fail> {
    let asked = Cell::new(None);
    interruptible(session, &asked, async {
        if down(session, how, &asked).await? {
            session.say.talk("stopped");
        } else {
            session.say.talk("nothing to stop: no machine runs");
        }
        Ok(0)
    })
    .await
}

/// Stops and starts.
///
/// # Errors
/// As for both.
pub(crate) async fn restart(session: &Session, how: &StartArgs) -> Result<u8, Fail> {
    let asked = Cell::new(None);
    interruptible(session, &asked, async {
        down(session, &StopArgs::default(), &asked).await?;
        up(session, how, &asked).await
    })
    .await
}

/// Lets the machine stand still.
///
/// # Errors
/// No machine runs, or it is on its way up or down.
pub(crate) async fn pause(session: &Session) -> Result<u8, Fail> {
    let status = running(session).await?.pause().await?;
    if status.state == State::Paused {
        session.say.talk("paused");
        session.say.hint("run `slipway resume` to go on");
    }
    Ok(0)
}

/// Lets a paused machine go on.
///
/// # Errors
/// No machine runs, or its engine does not answer again.
pub(crate) async fn resume(session: &Session) -> Result<u8, Fail> {
    let api = running(session).await?;
    let before = api.status().await?;
    if matches!(before.state, State::Running | State::Degraded) {
        session.say.talk("nothing to resume: the machine is not paused");
        return Ok(exit_code(before.state));
    }
    let status = follow::until(api, api.resume().await?, |state| state != State::Starting).await?;
    match status.state {
        State::Running => session.say.talk("the machine goes on"),
        State::Degraded => {
            session.say.notice("the machine goes on, and not everything works; see `slipway status`")
        }
        _ => return Err(why(&status, "the machine does not go on").into()),
    }
    Ok(exit_code(status.state))
}

async fn running(session: &Session) -> Result<&ApiClient, Fail> {
    let none = || Problem::new("not-running", "no machine runs").hint("run `slipway start`");
    Ok(session.found().await?.ok_or_else(none)?)
}

/// What the daemon goes on with when the person leaves, and how to turn it back.
pub(crate) type Asked = Cell<Option<(&'static str, &'static str)>>;

pub(crate) async fn interruptible(
    session: &Session,
    asked: &Asked,
    doing: impl Future<Output = Result<u8, Fail>>,
) -> Result<u8, Fail> {
    tokio::select! {
        done = doing => done,
        Ok(()) = tokio::signal::ctrl_c() => {
            if let Some((what, hint)) = asked.get() {
                session.say.talk(what);
                session.say.hint(hint);
            }
            Ok(INTERRUPTED)
        }
    }
}

async fn up(session: &Session, how: &StartArgs, asked: &Asked) -> Result<u8, Fail> {
    let say = session.say;
    let api = session.renewed().await?;
    let before = api.status().await?.state;
    let request = StartRequest {
        overrides: overrides(how),
        timeout_s: how.timeout,
        docker_config: docker_config().ok(),
    };
    let status = api.start(&request).await?;
    asked.set(Some((
        "the start goes on in the background",
        "`slipway status` shows it, `slipway stop` ends it",
    )));
    if matches!(before, State::Running | State::Degraded) && status.state == before {
        say.talk("the machine runs already");
        if !request.overrides.is_empty() {
            say.notice("what was given for the start does not hold: it runs with what it was started with");
            say.hint("`slipway restart` takes the same options");
        }
        return finished(session, &status);
    }
    if how.detach {
        say.talk("starting in the background");
        say.hint("`slipway status` shows how it goes");
        return Ok(0);
    }
    let status = follow::start(api, say, status).await?;
    finished(session, &status)
}

/// Tells what is worth knowing at the end of a start; the exit code.
fn finished(session: &Session, status: &Status) -> Result<u8, Fail> {
    let say = session.say;
    match status.state {
        State::Failed => return Err(why(status, "the machine did not start").into()),
        State::Stopped | State::Stopping => {
            let problem = Problem::new("stopped-meanwhile", "the machine was stopped while it started");
            return Err(problem.hint("run `slipway start`").into());
        }
        State::Starting | State::Running | State::Degraded | State::Paused => {}
    }
    for notice in notices(status) {
        say.notice(&notice);
    }
    if let Some(docker) = &status.docker {
        if let Some(problem) = &docker.problem {
            say.notice(&format!("`docker` was not set up: {}", told(problem)));
            if let Some(hint) = &problem.hint {
                say.hint(hint);
            }
        } else if docker.current {
            say.talk(&format!("docker context is now `{}`", docker.context));
            integrate::overruled(say, &docker.context);
        }
    }
    if status.state == State::Degraded {
        say.stderr(&crate::say::render(&why(status, "not everything works"), say.err()));
    }
    Ok(exit_code(status.state))
}

/// Why it failed or is degraded: what the daemon says, or else its phases.
fn why(status: &Status, otherwise: &str) -> Problem {
    status.problem.clone().unwrap_or_else(|| {
        let mut problem = Problem::new("unexplained", otherwise).hint("run `slipway logs`");
        for phase in &status.phases {
            if matches!(phase.state, PhaseState::Failed | PhaseState::Degraded) {
                problem = problem.because(format!("{}: {}", phase.name, phase.detail));
            }
        }
        problem
    })
}

/// A problem and its causes on one line.
fn told(problem: &Problem) -> String {
    std::iter::once(&problem.message)
        .chain(&problem.causes)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(": ")
}

/// What is worth knowing although it works.
pub(crate) fn notices(status: &Status) -> Vec<String> {
    let mut notices = status.notices.clone();
    if let Some(machine) = &status.machine
        && machine.accel == "tcg"
        && !notices.iter().any(|n| n.contains("acceleration"))
    {
        let reason = machine.accel_reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        notices.push(format!(
            "running without hardware acceleration{reason}; everything works, several times slower"
        ));
    }
    if !status.pending_settings.is_empty() {
        let names: Vec<String> = status.pending_settings.iter().map(|n| format!("`{n}`")).collect();
        let verb = if names.len() == 1 { "holds" } else { "hold" };
        notices.push(format!("{} {verb} from the next start: `slipway restart`", names.join(", ")));
    }
    if let Some(update) = status.news() {
        notices.push(format!("guest image {} is ready: `slipway update`", update.to.version));
    }
    notices
}

fn overrides(how: &StartArgs) -> Vec<(String, String)> {
    [
        ("machine.cpus", how.cpus.map(|n| n.to_string())),
        ("machine.memory", how.memory.clone()),
        ("machine.disk", how.disk.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// Stops; false when nothing ran.
async fn down(session: &Session, how: &StopArgs, asked: &Asked) -> Result<bool, Fail> {
    let Some(api) = session.found().await? else { return Ok(false) };
    if matches!(api.status().await?.state, State::Stopped | State::Failed) {
        return Ok(false);
    }
    let status = api.stop(&StopRequest { force: how.force, timeout_s: how.timeout }).await?;
    asked.set(Some(("the stop goes on in the background", "`slipway status` shows it")));
    if session.say.live() {
        session.say.talk("stopping");
    }
    let status = follow::until(api, status, |state| matches!(state, State::Stopped | State::Failed)).await?;
    match status.state {
        State::Failed => Err(why(&status, "the machine did not stop as it should").into()),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::running;

    #[test]
    fn a_slow_machine_is_told_once_with_its_reason() {
        let mut status = running();
        assert!(notices(&status).is_empty());
        let machine = status.machine.as_mut().expect("runs");
        machine.accel = "tcg".into();
        machine.accel_reason = Some("/dev/kvm opened but the guest did not run on it".into());
        assert_eq!(
            notices(&status),
            [
                "running without hardware acceleration: /dev/kvm opened but the guest did not run on it; everything \
              works, several times slower"
            ]
        );
        status.notices.push("no hardware acceleration here".into());
        assert_eq!(notices(&status), ["no hardware acceleration here"], "the daemon's own words win");
    }

    #[test]
    fn what_waits_for_a_restart_is_told() {
        let mut status = running();
        status.pending_settings = vec!["machine.cpus".into(), "machine.memory".into()];
        assert_eq!(
            notices(&status),
            ["`machine.cpus`, `machine.memory` hold from the next start: `slipway restart`"]
        );
    }

    #[test]
    fn an_update_is_told_while_the_machine_runs_without_it() {
        let mut status = running();
        let to =
            slipway_api::GuestImage { version: "2026.12".into(), dir: "/usr/share/slipway/image".into() };
        status.update = Some(slipway_api::Update { from: status.image.clone(), to, declined: false });
        assert_eq!(notices(&status), ["guest image 2026.12 is ready: `slipway update`"]);
        let mut declined = status.clone();
        declined.update.as_mut().expect("there").declined = true;
        assert!(notices(&declined).is_empty());
        status.machine = None;
        assert!(notices(&status).is_empty(), "the next start takes it");
    }

    #[test]
    fn a_failure_without_words_tells_its_phase() {
        let mut status = running();
        status.phases = vec![crate::phases::tests::phase("agent", PhaseState::Failed, 0, Some(1))];
        status.phases[0].detail = "no answer".into();
        let problem = why(&status, "the machine did not start");
        assert_eq!((told(&problem).as_str()), "the machine did not start: agent: no answer");
    }

    #[test]
    fn only_what_was_given_overrides() {
        let how =
            StartArgs { cpus: Some(2), memory: None, disk: Some("50G".into()), detach: false, timeout: None };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(overrides(&how), [pair("machine.cpus", "2"), pair("machine.disk", "50G")]);
    }
}
