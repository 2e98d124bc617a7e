//! How things stand, for people and for scripts.

use slipway_api::{Problem, State, Status, paths::docker_host, time};

use crate::{
    reach::Session,
    say::{Fail, Paint, clean},
    start::notices,
};

/// Prints how things stand. Starts nothing, except a daemon for a machine that runs without one.
///
/// # Errors
/// A daemon that hangs.
pub(crate) async fn status(session: &Session, json: bool) -> Result<u8, Fail> {
    let status = match session.found().await? {
        Some(api) => api.status().await?,
        None => stopped(session),
    };
    if json {
        session.say.json(&status)?;
    } else if !session.say.quiet() {
        session.say.data(&human(&status, time::now_ms() / 1000, session.say.out()))?;
    }
    Ok(exit_code(status.state))
}

/// What a daemon would say when there is none.
fn stopped(session: &Session) -> Status {
    Status {
        profile: session.paths.profile().to_owned(),
        state: State::Stopped,
        problem: None,
        notices: Vec::new(),
        phases: Vec::new(),
        services: Vec::new(),
        engine: None,
        socket: session.paths.docker_sock(),
        machine: None,
        image: None,
        docker: None,
        running_since: None,
        pending_settings: Vec::new(),
        update: None,
    }
}

/// What scripts learn. What is on its way is not there yet.
pub(crate) fn exit_code(state: State) -> u8 {
    match state {
        State::Running => 0,
        State::Failed => 1,
        State::Stopped | State::Starting | State::Stopping | State::Paused => 3,
        State::Degraded => 4,
    }
}

fn human(status: &Status, now_s: u64, paint: Paint) -> String {
    let word = status.state.to_string();
    let mut state = match status.state {
        State::Running => paint.good(&word),
        State::Degraded | State::Starting | State::Stopping | State::Paused => paint.notable(&word),
        State::Failed => paint.bad(&word),
        State::Stopped => word,
    };
    match status.running_since {
        Some(since) if matches!(status.state, State::Running | State::Degraded) => {
            state.push_str(&format!(" for {}", time::span(now_s.saturating_sub(since))));
        }
        _ => {}
    }
    if status.state == State::Paused {
        state.push_str("; `slipway resume` lets it go on");
    }
    if status.state == State::Starting
        && let Some(phase) = status.phases.iter().rfind(|p| p.ended_ms.is_none())
    {
        state.push_str(&format!(": {}", clean(&phase.name)));
    }
    let mut text = String::new();
    let mut row = |name: &str, value: &str| text.push_str(&format!("{name:<9} {value}\n"));
    if status.profile != "default" {
        row("profile", &status.profile);
    }
    row("state", &state);
    if let Some(machine) = &status.machine {
        let cpus = if machine.cpus == 1 { "1 CPU".into() } else { format!("{} CPUs", machine.cpus) };
        let memory = mib(machine.memory_mib);
        row("machine", &clean(&format!("{cpus}, {memory}, {}, {}", machine.vmm, machine.accel)));
    }
    if let Some(engine) = &status.engine {
        row("engine", &clean(engine));
        row("socket", &docker_host(&status.socket));
    }
    if let Some(image) = &status.image {
        row("image", &clean(image));
    }
    if let Some(docker) = &status.docker {
        let current = if docker.current { " (current)" } else { "" };
        row("docker", &format!("context `{}`{current}", docker.context));
    }
    let down: Vec<String> = status
        .services
        .iter()
        .filter(|s| !s.running && matches!(status.state, State::Running | State::Degraded))
        .map(|s| match (s.last_exit.as_str(), s.restarts) {
            ("", _) => format!("{} does not run", s.name),
            (exit, n) => format!("{} does not run: {exit}, started again {n} times", s.name),
        })
        .collect();
    let problem_of_docker = status.docker.as_ref().and_then(|d| d.problem.as_ref());
    for line in notices(status).iter().chain(&down) {
        text.push_str(&format!("{} {}\n", paint.notable("!"), clean(line)));
    }
    let mut tell = |problem: &Problem| text.push_str(&crate::say::render(problem, paint));
    status.problem.iter().for_each(&mut tell);
    problem_of_docker.into_iter().for_each(&mut tell);
    text
}

/// `4 GiB`, `1.5 GiB`, `512 MiB`.
fn mib(mib: u64) -> String {
    match (mib / 1024, mib % 1024) {
        (0, mib) => format!("{mib} MiB"),
        (gib, 0) => format!("{gib} GiB"),
        (gib, rest) => format!("{gib}.{} GiB", rest * 10 / 1024),
    }
}

/// `1.2 GB`, as disks are sold.
pub(crate) fn bytes(bytes: u64) -> String {
    for (unit, name) in [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")] {
        if bytes >= unit {
            return format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
pub(crate) mod tests {
    use slipway_api::{DockerSetup, Machine, Service};

    use super::*;

    pub(crate) fn running() -> Status {
        Status {
            profile: "default".into(),
            state: State::Running,
            problem: None,
            notices: Vec::new(),
            phases: Vec::new(),
            services: Vec::new(),
            engine: Some("28.5.1".into()),
            socket: "/h/run/docker.sock".into(),
            machine: Some(Machine {
                cpus: 2,
                memory_mib: 4096,
                pid: Some(7),
                vmm: "qemu 7.2.22".into(),
                accel: "kvm".into(),
                accel_reason: None,
                transport: "vhost-user-vsock".into(),
            }),
            image: Some("2026.11".into()),
            docker: Some(DockerSetup { context: "slipway".into(), current: true, problem: None }),
            running_since: Some(1000),
            pending_settings: Vec::new(),
            update: None,
        }
    }

    #[test]
    fn a_running_machine_in_few_lines() {
        assert_eq!(
            human(&running(), 12_520, Paint::Plain),
            format!(
                "state     running for 3 h 12 min\n\
                 machine   2 CPUs, 4 GiB, qemu 7.2.22, kvm\n\
                 engine    28.5.1\n\
                 socket    {}\n\
                 image     2026.11\n\
                 docker    context `slipway` (current)\n",
                docker_host("/h/run/docker.sock".as_ref())
            )
        );
    }

    #[test]
    fn what_is_not_well_is_said_with_its_reason() {
        let mut status = running();
        status.profile = "work".into();
        status.state = State::Degraded;
        status.problem = Some(Problem::new("x", "2 folders are not shared").hint("slipway logs"));
        let exit = "exit code 1".to_owned();
        status.services =
            vec![Service { name: "containerd".into(), running: false, restarts: 2, last_exit: exit }];
        let text = human(&status, 1001, Paint::Plain);
        assert!(text.starts_with("profile   work\nstate     degraded for 1 s\n"), "{text}");
        assert!(
            text.ends_with(
                "! containerd does not run: exit code 1, started again 2 times\n\
                 error: 2 folders are not shared\nhint: slipway logs\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_start_tells_where_it_is() {
        let mut status = running();
        status.state = State::Starting;
        status.running_since = None;
        status.phases = vec![crate::phases::tests::phase("agent", slipway_api::PhaseState::Running, 0, None)];
        assert!(human(&status, 0, Paint::Plain).starts_with("state     starting: agent\n"));
    }

    #[test]
    fn what_is_paused_says_how_to_go_on() {
        let mut status = running();
        status.state = State::Paused;
        let text = human(&status, 12_520, Paint::Plain);
        assert!(text.starts_with("state     paused; `slipway resume` lets it go on\n"), "{text}");
        assert_eq!(exit_code(status.state), 3, "nobody answers");
    }

    #[test]
    fn scripts_can_tell_states_apart() {
        let codes =
            [State::Running, State::Failed, State::Stopped, State::Starting, State::Degraded].map(exit_code);
        assert_eq!(codes, [0, 1, 3, 3, 4]);
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!([512, 1024, 1536].map(mib), ["512 MiB", "1 GiB", "1.5 GiB"]);
        assert_eq!(
            [999, 1_500, 2_340_000, 12_000_000_000].map(bytes),
            ["999 bytes", "1.5 kB", "2.3 MB", "12.0 GB"]
        );
    }
}
