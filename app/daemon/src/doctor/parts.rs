//! Slipway's own parts: daemon, machine, shared folders, guest image.

use slipway_api::{CheckState, DaemonSeen, State, Status, lock};

use super::{Finding, Ward, told};
use crate::image;

pub(super) fn daemon(ward: &Ward) -> Finding {
    let paths = ward.paths();
    match &ward.subject.seen {
        DaemonSeen::Silent(problem) => Finding::of(CheckState::Failed, problem.clone()),
        DaemonSeen::Nobody if lock::held(&paths.daemon_lock()) => {
            Finding::failed("a daemon lives and does not listen")
                .because(format!("{} is held, and nobody answers at {}", told(&paths.daemon_lock()), told(&paths.api_sock())))
                .hint("if it was not just started, end its process: containers go on; `slipway logs --unit daemon` says more")
        }
        DaemonSeen::Nobody if lock::held(&paths.shim_lock()) => {
            Finding::warning("the machine runs, and no daemon speaks for it")
                .hint("`slipway status` starts one, which takes the machine over")
        }
        DaemonSeen::Nobody => Finding::ok("none runs; the next verb that needs it starts it"),
        DaemonSeen::Answers { version, .. } => {
            let ours = env!("CARGO_PKG_VERSION");
            if version.slipway == ours {
                return Finding::ok(format!("answers: {ours}, process {}", version.pid));
            }
            Finding::warning(format!("the daemon is {}, and this program is {ours}", version.slipway))
                .hint("`slipway restart` renews it")
        }
    }
}

pub(super) fn machine(ward: &Ward) -> Finding {
    match &ward.subject.seen {
        DaemonSeen::Answers { status, .. } => machine_of(status),
        _ if lock::held(&ward.paths().shim_lock()) => {
            Finding::not_applicable("it runs, and only a daemon knows how it is")
        }
        _ => Finding::ok("stopped"),
    }
}

fn machine_of(status: &Status) -> Finding {
    let problem = || status.problem.clone();
    let state = status.state;
    let found = match (state, problem()) {
        (State::Failed, Some(problem)) => return Finding::of(CheckState::Failed, problem),
        (State::Failed, None) => return Finding::failed("it failed").hint("`slipway logs` says more"),
        (State::Degraded, Some(problem)) => return Finding::of(CheckState::Warning, problem),
        (State::Degraded, None) => Finding::warning("it runs, and something in it does not"),
        (State::Paused, _) => Finding::ok("paused; `slipway resume` lets it go on"),
        (State::Running, _) => match &status.engine {
            Some(engine) => Finding::ok(format!("running, engine {engine}")),
            None => Finding::ok("running"),
        },
        (state, _) => Finding::ok(state.to_string()),
    };
    let up = matches!(state, State::Running | State::Degraded);
    let down: Vec<String> = status
        .services
        .iter()
        .filter(|service| up && !service.running)
        .map(|service| match service.last_exit.as_str() {
            "" => format!("{} does not run", service.name),
            exit => format!("{} does not run: {exit}", service.name),
        })
        .collect();
    if down.is_empty() {
        return found;
    }
    let found = if state == State::Running {
        Finding::warning("it runs, and something in it does not")
    } else {
        found
    };
    down.into_iter()
        .fold(found, Finding::because)
        .hint("it is started again by itself; `slipway logs` says more")
}

pub(super) fn shares(ward: &Ward) -> Finding {
    let DaemonSeen::Answers { status, mounts: Some(mounts), .. } = &ward.subject.seen else {
        return Finding::not_applicable("only a daemon knows what the machine sees");
    };
    if !matches!(status.state, State::Running | State::Degraded) {
        return Finding::not_applicable("no machine runs that could see them");
    }
    let lost: Vec<String> = mounts
        .mounts
        .iter()
        .filter_map(|mount| mount.problem.as_ref().map(|why| format!("{}: {why}", told(&mount.path))))
        .collect();
    if !lost.is_empty() {
        let message = match lost.len() {
            1 => "the machine does not see a folder that is shared".to_owned(),
            n => format!("the machine does not see {n} folders that are shared"),
        };
        return lost.into_iter().fold(Finding::warning(message), Finding::because).hint(
            "share what is there: `slipway mount rm PATH` takes away what is not; `slipway mount ls` shows all",
        );
    }
    match &mounts.events {
        Some(why) => Finding::warning("changes on this computer are not, or not all, events in containers")
            .because(why.clone()),
        None => Finding::ok(format!("{} shared", mounts.mounts.len())),
    }
}

pub(super) fn image(ward: &Ward) -> Finding {
    let paths = ward.paths();
    match image::check(paths) {
        Ok(manifest) => Finding::ok(format!("{}, its signature and contents are right", manifest.version)),
        Err(problem) if problem.code == "image-missing" && image::packaged(&ward.subject.exe).is_some() => {
            Finding::ok("the package's own is installed at the first start").because(problem.message)
        }
        Err(problem) => Finding::of(CheckState::Failed, problem),
    }
}

#[cfg(test)]
mod tests {
    use slipway_api::{Problem, Service};

    use super::*;

    fn status(state: State) -> Status {
        serde_json::from_value(
            serde_json::json!({"profile": "default", "state": state, "engine": null, "socket": "/s",
            "machine": null, "image": null, "docker": null, "running_since": null}),
        )
        .expect("a status")
    }

    #[test]
    fn a_degraded_machine_is_told_with_its_reason_and_its_fix() {
        let mut degraded = status(State::Degraded);
        degraded.problem =
            Some(Problem::new("host-disk-full", "the machine waits").because("full").hint("free some space"));
        let found = machine_of(&degraded);
        assert_eq!(found.state, CheckState::Warning);
        assert_eq!(
            (found.problem.message.as_str(), &found.problem.causes[..]),
            ("the machine waits", &["full".into()][..])
        );
        assert_eq!(found.problem.hint.as_deref(), Some("free some space"));
        degraded.state = State::Failed;
        assert_eq!(machine_of(&degraded).state, CheckState::Failed);
        assert_eq!(machine_of(&status(State::Stopped)), Finding::ok("stopped"));
    }

    #[test]
    fn a_service_that_is_down_is_a_warning_with_how_it_ended() {
        let mut running = status(State::Running);
        assert_eq!(machine_of(&running).state, CheckState::Ok);
        running.services = vec![Service {
            name: "dockerd".into(),
            running: false,
            restarts: 2,
            last_exit: "exit code 1".into(),
        }];
        let found = machine_of(&running);
        assert_eq!(found.state, CheckState::Warning);
        assert_eq!(found.problem.causes, ["dockerd does not run: exit code 1"]);
    }
}
