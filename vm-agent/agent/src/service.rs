//! Keeps one program running: in a cgroup of its own, shielded from the OOM killer, restarted with growing pauses.
//!
//! ```text
//!   start ─▶ runs ─▶ ended ─▶ pause (0.2 s, doubled up to 10 s; anew after 30 s of running) ─▶ start
//!              └─ stop asked: SIGTERM ─▶ its time ─▶ SIGKILL of the whole cgroup
//! ```

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use slipway_protocol::v1;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};

use crate::{emulation, guest::ServiceSpec, logs::Logs, phases::Board, reaper::Reaper};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A service that ran this long was fine, and its next end is a new story.
const FINE: Duration = Duration::from_secs(30);
/// As systemd gives a service: what programs expect as soft limit, and what Go raises itself to.
const DESCRIPTORS: Rlimit = Rlimit { current: Some(1024), maximum: Some(1 << 19) };
/// Where the services' groups are.
const CGROUP: &str = "/sys/fs/cgroup/slipway";

/// What a service needs of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) board: Arc<Board>,
    pub(crate) logs: Arc<Logs>,
    /// Variables besides the service's own, as they are when it starts.
    pub(crate) environment: watch::Receiver<Vec<String>>,
}

/// Ends a service: the time that it gets, and where to say that it is over.
pub(crate) type Stop = oneshot::Receiver<Duration>;

impl Keeper {
    /// Keeps `spec` running until `stop` says otherwise. `running` is true while the process is there.
    pub(crate) async fn keep(self, spec: ServiceSpec, mut stop: Stop, running: watch::Sender<bool>) {
        let mut state = v1::Service { name: spec.name.clone(), ..Default::default() };
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            match self.start(&spec) {
                Err(error) => {
                    state.last_exit = format!("failed to start: {error}");
                    self.logs.say(format!("{} {}", spec.name, state.last_exit));
                }
                Ok(mut started) => {
                    state.pid = u32::try_from(started.pid).unwrap_or(0);
                    self.board.service(state.clone());
                    running.send_replace(true);
                    let ended = tokio::select! {
                        ended = &mut started.exit => ended,
                        time = &mut stop => {
                            self.reaper.signal(started.pid, Signal::TERM);
                            let time = time.unwrap_or_default();
                            if timeout(time, &mut started.exit).await.is_err() {
                                self.logs.say(format!("{} did not stop within {} s", spec.name, time.as_secs()));
                                kill_group(&cgroup(&spec.name));
                            }
                            state.pid = 0;
                            self.board.service(state);
                            return;
                        }
                    };
                    running.send_replace(false);
                    state.pid = 0;
                    state.last_exit = ended.map_or_else(|_| "unknown".to_owned(), |exit| exit.to_string());
                    self.logs.say(format!("{} ended with {}", spec.name, state.last_exit));
                }
            }
            self.board.service(state.clone());
            if began.elapsed() > FINE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut stop => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            state.restarts += 1;
        }
    }

    fn start(&self, spec: &ServiceSpec) -> io::Result<crate::reaper::Started> {
        let Some((program, arguments)) = spec.argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "its command is empty"));
        };
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", PATH).env("HOME", "/root");
        if emulation::is_software() {
            let (name, value) = emulation::WITHOUT_VECTORS;
            command.env(name, value);
        }
        command.envs(self.environment.borrow().iter().filter_map(|pair| pair.split_once('=')));
        command.envs(spec.env.iter().filter_map(|pair| pair.split_once('=')));
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        command.process_group(0);
        let procs = cgroup(&spec.name).join("cgroup.procs");
        // Without a group of its own it runs in the agent's: worse accounted for, but there.
        let _ = fs::create_dir_all(cgroup(&spec.name));
        // SAFETY: only system calls on memory that was allocated before the fork; nothing else runs in the child.
        unsafe {
            command.pre_exec(move || {
                let _ = fs::write(&procs, "0");
                // The engine goes last when memory is short; its containers set their own.
                let _ = fs::write("/proc/self/oom_score_adj", "-999");
                // A container on a host may forbid it; the guest never does.
                let _ = setrlimit(Resource::Nofile, DESCRIPTORS);
                Ok(())
            });
        }
        let (_child, started) = self.reaper.spawn(&mut command)?;
        drop(command);
        let (logs, name) = (Arc::clone(&self.logs), spec.name.clone());
        // Owned by the pipe: it ends when the service and all that it left behind are gone.
        tokio::task::spawn(async move { logs.collect(&name, reader.into()).await });
        Ok(started)
    }
}

/// Search path of the services.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn cgroup(name: &str) -> PathBuf {
    Path::new(CGROUP).join(name)
}

/// Kills every process of a control group and of those below it.
pub(crate) fn kill_group(path: &Path) {
    // A group that is not there has nothing to kill.
    let _ = fs::write(path.join("cgroup.kill"), "1");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept {
        keeper: Keeper,
        stop: oneshot::Sender<Duration>,
        running: watch::Receiver<bool>,
        tasks: tokio::task::JoinSet<()>,
    }

    fn keep(script: &str) -> Kept {
        let keeper = Keeper {
            reaper: Reaper::new(false),
            board: Arc::new(Board::new()),
            logs: Arc::new(Logs::new()),
            environment: watch::Sender::new(vec!["MORE=more".into(), "WORD=less".into()]).subscribe(),
        };
        let (stop, stopped) = oneshot::channel();
        let (tell, running) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        let reaper = keeper.reaper.clone();
        tasks.spawn(async move { reaper.run().await.expect("reaps") });
        let spec = ServiceSpec {
            name: format!("slipway-test-{}", std::process::id()),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["WORD=said".into()],
        };
        tasks.spawn(keeper.clone().keep(spec, stopped, tell));
        Kept { keeper, stop, running, tasks }
    }

    /// Bounded, because a test that waits for ever says nothing.
    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what} did not happen");
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_service_that_ends_is_started_again_and_its_end_is_told() {
        let kept = keep("echo $WORD $MORE; exit 3");
        let service = || kept.keeper.board.snapshot().services.first().cloned().unwrap_or_default();
        until("a restart", || service().restarts >= 2).await;
        assert_eq!(service().last_exit, "exit code 3");
        until("its words", || kept.keeper.logs.after(0, 99).iter().any(|r| r.line == b"said more")).await;
    }

    #[tokio::test]
    async fn a_service_is_asked_to_stop_and_not_started_again() {
        let mut kept = keep("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done");
        timeout(Duration::from_secs(20), kept.running.wait_for(|up| *up))
            .await
            .expect("in time")
            .expect("runs");
        until("its start", || kept.keeper.logs.after(0, 99).iter().any(|r| r.line == b"up")).await;
        kept.stop.send(Duration::from_secs(10)).expect("asked");
        kept.tasks.join_next().await.expect("ends").expect("joins");
        until("its last word", || kept.keeper.logs.after(0, 99).iter().any(|r| r.line == b"bye")).await;
    }
}
