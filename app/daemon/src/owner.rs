//! The one task that owns the machine. Wishes reach it as commands; it judges them by the policy, does one thing at a time
//! and goes on listening meanwhile.

use std::{sync::Arc, time::Duration};

use slipway_api::{DockerSetup, ImageRequest, Problem, Reset, StartRequest, State, Status, StopRequest};
use slipway_relay::Gate;
use slipway_shim::{
    client::{Life, ShimClient},
    spawn,
};
use slipway_vm::ExitReason;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Context, blocking,
    board::Board,
    boot::{self, Live},
    config, failed, holdings, image, logs,
    policy::{self, Ask, Event, Verdict},
    sleep::Sleep,
    update,
};

/// How long a shim that holds its lock may take to listen.
const ADOPT: Duration = Duration::from_secs(2);
/// How long a resume waits for the guest's clock to be set.
const CLOCK: Duration = Duration::from_secs(2);
/// What the guest gets beyond its containers' time to unmount and power off.
const WAY_DOWN: Duration = Duration::from_secs(15);

type Reply<T> = oneshot::Sender<Result<T, Problem>>;

enum Command {
    Start(StartRequest, Reply<Status>),
    Stop(StopRequest, Reply<Status>),
    Pause(Reply<Status>),
    Resume(Reply<Status>),
    Reset(Reset, Reply<()>),
    /// None: the image before the installed one.
    Install(Option<ImageRequest>, Reply<String>),
    Settings(Reply<()>),
    Docker(DockerSetup),
}

/// Asks the owner. Clones ask the same one.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) shim: watch::Receiver<Option<ShimClient>>,
}

impl Owner {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let ending = || Problem::new("daemon-ending", "the daemon is about to end").hint("try again");
        self.commands.send(command(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// The shim of a machine whose guest can be asked; `None` when there is no machine.
    ///
    /// # Errors
    /// The machine is paused: its guest would answer later.
    pub(crate) fn awake(&self) -> Result<Option<ShimClient>, Problem> {
        if self.status.borrow().state == State::Paused {
            return Err(Problem::new("paused", "the machine is paused").hint("run `slipway resume`"));
        }
        Ok(self.shim.borrow().clone())
    }

    pub(crate) async fn start(&self, request: StartRequest) -> Result<Status, Problem> {
        self.ask(|reply| Command::Start(request, reply)).await
    }

    pub(crate) async fn stop(&self, request: StopRequest) -> Result<Status, Problem> {
        self.ask(|reply| Command::Stop(request, reply)).await
    }

    pub(crate) async fn pause(&self) -> Result<Status, Problem> {
        self.ask(Command::Pause).await
    }

    pub(crate) async fn resume(&self) -> Result<Status, Problem> {
        self.ask(Command::Resume).await
    }

    pub(crate) async fn reset(&self, what: Reset) -> Result<(), Problem> {
        self.ask(|reply| Command::Reset(what, reply)).await
    }

    pub(crate) async fn install(&self, request: ImageRequest) -> Result<String, Problem> {
        self.ask(|reply| Command::Install(Some(request), reply)).await
    }

    pub(crate) async fn roll_back_image(&self) -> Result<String, Problem> {
        self.ask(|reply| Command::Install(None, reply)).await
    }

    /// The settings may have changed: what waits for the next start is found out anew.
    pub(crate) async fn settings_changed(&self) -> Result<(), Problem> {
        self.ask(Command::Settings).await
    }

    pub(crate) async fn docker(&self, setup: DockerSetup) {
        // The daemon is ending: nobody will look.
        let _ = self.commands.send(Command::Docker(setup)).await;
    }
}

/// Starts the owner. It ends with `stop`, and leaves the machine as it is.
pub(crate) fn spawn(
    context: Arc<Context>,
    gate: watch::Sender<Gate>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Owner {
    let paths = &context.paths;
    let status = Status {
        profile: paths.profile().to_owned(),
        state: State::Stopped,
        problem: None,
        notices: Vec::new(),
        phases: Vec::new(),
        services: Vec::new(),
        engine: None,
        socket: paths.docker_sock(),
        machine: None,
        image: image::version(paths),
        docker: None,
        running_since: None,
        pending_settings: Vec::new(),
        update: None,
    };
    let board = Board::new(status);
    let (commands, asked) = mpsc::channel(32);
    let (tell_shim, shim) = watch::channel(None);
    let owner = Owner { commands, status: board.subscribe(), shim };
    let task = Task {
        context,
        board,
        gate,
        tell_shim,
        live: None,
        work: JoinSet::new(),
        cancel: CancellationToken::new(),
    };
    tasks.spawn(update::attend(Arc::clone(&task.context), task.board.clone(), stop.clone()));
    tasks.spawn(task.run(asked, stop));
    owner
}

enum Done {
    Booted(Result<Live, Problem>),
    Stopped,
}

struct Task {
    context: Arc<Context>,
    board: Board,
    gate: watch::Sender<Gate>,
    tell_shim: watch::Sender<Option<ShimClient>>,
    live: Option<Live>,
    /// The boot or the way down that goes on; two only when a stop is to hurry.
    work: JoinSet<Done>,
    /// Cancels that boot.
    cancel: CancellationToken,
}

impl Task {
    async fn run(mut self, mut asked: mpsc::Receiver<Command>, stop: CancellationToken) {
        self.look_for_machine().await;
        let mut sleep = self.context.sleep.subscribe();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = asked.recv() => self.obey(command).await,
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => {
                        self.done(Done::Booted(Err(failed(&error))));
                    }
                },
                () = changed(self.live.as_mut()) => self.look_inside(),
                // The sender lives in the context, which this holds.
                Ok(()) = sleep.changed() => self.settle_gate(),
            }
        }
        // A boot that goes on is not ended with us: the next daemon finds its machine.
        self.work.abort_all();
    }

    /// A machine may have been left by a daemon that was killed, or its end.
    async fn look_for_machine(&mut self) {
        let paths = &self.context.paths;
        match spawn::adopt(&paths.shim_lock(), &paths.shim_sock(), ADOPT).await {
            Ok(Some(shim)) => {
                tracing::info!("a machine runs already; it is taken over");
                self.event(Event::Begun);
                self.note_pending_settings().await;
                self.tell_shim.send_replace(Some(shim.clone()));
                // Clients are served at once: streams need the shim and the engine, and not us.
                let (context, board) = (Arc::clone(&self.context), self.board.restarted());
                self.board = board.clone();
                match shim.status().await {
                    // It says nothing until it goes on.
                    Ok(status) if status.paused => {
                        match boot::adopt_paused(&context, &board, shim, &status) {
                            Ok(live) => {
                                self.live = Some(live);
                                self.event(Event::Paused);
                            }
                            Err(problem) => self.done(Done::Booted(Err(problem))),
                        }
                    }
                    _ => {
                        self.cancel = CancellationToken::new();
                        let cancel = self.cancel.clone();
                        self.work.spawn(async move {
                            Done::Booted(boot::adopt(context, board, shim, cancel).await)
                        });
                    }
                }
            }
            Ok(None) => {
                if let Some(reason @ ExitReason::Crashed { .. }) = spawn::last_exit(&paths.exit_file()) {
                    self.event(Event::Begun);
                    self.board.fail(boot::exit_problem(&reason));
                    self.event(Event::Ended);
                }
                self.settle_gate();
            }
            Err(error) => {
                self.event(Event::Begun);
                self.board.fail(
                    Problem::from_error("shim-silent", &error)
                        .hint("end the process named `slipway shim`, then `slipway start`"),
                );
                self.event(Event::BootFailed);
            }
        }
    }

    fn event(&mut self, event: Event) {
        let state = policy::next(self.board.now().state, event);
        self.board.change(|status| status.state = state);
        tracing::info!(?event, %state, "the machine's state");
        self.settle_gate();
    }

    fn settle_gate(&self) {
        let status = self.board.now();
        let Sleep { asleep, woken } = *self.context.sleep.borrow();
        let gate = match (status.state, &self.live) {
            // Nobody is to meet yesterday's clock; a guest that stays silent is not running for long.
            (State::Running, Some(live)) if asleep || live.guest.inside.borrow().woken < woken => Gate::Wait,
            (State::Running, Some(live)) => Gate::Open(Arc::new(live.shim.clone())),
            (State::Starting | State::Degraded | State::Running, _) => Gate::Wait,
            (State::Paused, _) => {
                Gate::Closed { reason: "slipway is paused".into(), hint: "slipway resume".into() }
            }
            (State::Stopping, _) => {
                Gate::Closed { reason: "slipway is stopping".into(), hint: "slipway start".into() }
            }
            (State::Stopped, _) => {
                Gate::Closed { reason: "slipway is not running".into(), hint: "slipway start".into() }
            }
            (State::Failed, _) => Gate::Closed {
                reason: status.problem.map_or_else(|| "slipway failed".into(), |p| p.message),
                hint: "slipway status".into(),
            },
        };
        self.gate.send_replace(gate);
    }

    async fn obey(&mut self, command: Command) {
        let state = self.board.now().state;
        match command {
            Command::Start(request, reply) => {
                let answer = match policy::judge(state, Ask::Start) {
                    Verdict::Go => {
                        self.start(request);
                        Ok(self.board.now())
                    }
                    Verdict::Already => Ok(self.board.now()),
                    Verdict::Resume => self.resume().await,
                    Verdict::Refuse => Err(busy("the machine is stopping")),
                };
                let _ = reply.send(answer);
            }
            Command::Pause(reply) => {
                let answer = match policy::judge(state, Ask::Pause) {
                    Verdict::Go => self.pause().await,
                    Verdict::Already | Verdict::Resume => Ok(self.board.now()),
                    Verdict::Refuse => Err(not_paused(state)),
                };
                let _ = reply.send(answer);
            }
            Command::Resume(reply) => {
                let answer = match policy::judge(state, Ask::Resume) {
                    Verdict::Go => self.resume().await,
                    Verdict::Already | Verdict::Resume => Ok(self.board.now()),
                    Verdict::Refuse => Err(not_paused(state)),
                };
                let _ = reply.send(answer);
            }
            Command::Stop(request, reply) => {
                if policy::judge(state, Ask::Stop { force: request.force }) == Verdict::Go {
                    self.stop(&request);
                }
                let _ = reply.send(Ok(self.board.now()));
            }
            Command::Reset(what, reply) => {
                let answer = match policy::judge(state, Ask::Reset) {
                    Verdict::Go => holdings::reset(&self.context.paths, what),
                    _ => Err(running("a machine that runs cannot be reset")),
                };
                let _ = reply.send(answer);
            }
            Command::Install(request, reply) => {
                let answer = match policy::judge(state, Ask::Reset) {
                    Verdict::Go => self.install(request).await,
                    _ => Err(running("the image of a machine that runs cannot be replaced")),
                };
                let _ = reply.send(answer);
            }
            Command::Settings(reply) => {
                self.note_pending_settings().await;
                let _ = reply.send(Ok(()));
            }
            Command::Docker(setup) => self.board.change(|status| status.docker = Some(setup)),
        }
    }

    /// Which settings wait for the next start. None without a machine: whatever is set holds from its start.
    async fn note_pending_settings(&self) {
        let pending = if matches!(self.board.now().state, State::Stopped | State::Failed) {
            Vec::new()
        } else {
            let context = Arc::clone(&self.context);
            // A task that failed has nothing to say about the settings.
            tokio::task::spawn_blocking(move || config::pending(&context.paths)).await.unwrap_or_default()
        };
        self.board.change(|status| status.pending_settings = pending);
    }

    async fn install(&mut self, request: Option<ImageRequest>) -> Result<String, Problem> {
        let context = Arc::clone(&self.context);
        let manifest = blocking(move || match request {
            Some(request) => image::install_chosen(&context.paths, &context.exe, &request),
            None => image::roll_back(&context.paths),
        })
        .await??;
        self.board.change(|status| status.image = Some(manifest.version.clone()));
        Ok(manifest.version)
    }

    fn start(&mut self, request: StartRequest) {
        self.board = self.board.restarted();
        self.event(Event::Begun);
        self.cancel = CancellationToken::new();
        let (context, board, cancel) = (Arc::clone(&self.context), self.board.clone(), self.cancel.clone());
        self.work.spawn(async move { Done::Booted(boot::boot(context, board, request, cancel).await) });
    }

    async fn pause(&mut self) -> Result<Status, Problem> {
        let Some(live) = &self.live else { return Err(busy("the machine is on its way")) };
        let paused = live.shim.pause().await;
        paused.map_err(|error| Problem::from_error("machine-pause", &error))?;
        self.event(Event::Paused);
        Ok(self.board.now())
    }

    async fn resume(&mut self) -> Result<Status, Problem> {
        let Some(live) = &self.live else { return Err(busy("the machine is on its way")) };
        let resumed = live.shim.resume().await;
        resumed.map_err(|error| Problem::from_error("machine-resume", &error))?;
        // Its clock stood still too.
        live.guest.set_clock(CLOCK).await;
        self.event(Event::Resumed);
        // What was known before still holds, most likely; if not, the agent is about to say so.
        self.look_inside();
        Ok(self.board.now())
    }

    fn stop(&mut self, request: &StopRequest) {
        let was = self.board.now().state;
        self.event(Event::StopBegun);
        match (was, self.live.take()) {
            // A boot ends its machine itself.
            (State::Starting, None) => self.cancel.cancel(),
            (State::Failed, _) => self.board.change(|status| status.problem = None),
            (_, Some(live)) => {
                let request = request.clone();
                self.work.spawn(async move {
                    if was == State::Paused
                        && !request.force
                        && let Err(error) = live.shim.resume().await
                    {
                        tracing::warn!(%error, "the machine does not go on to end in order");
                    }
                    down(live, &request).await;
                    Done::Stopped
                });
            }
            // It is on its way down already, and is to hurry.
            (_, None) if request.force => {
                if let Some(shim) = self.tell_shim.borrow().clone() {
                    self.work.spawn(async move {
                        boot::end(&shim).await;
                        Done::Stopped
                    });
                } else {
                    self.cancel.cancel();
                }
            }
            (_, None) => {}
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Booted(Ok(live)) if self.board.now().state == State::Starting => {
                self.tell_shim.send_replace(Some(live.shim.clone()));
                self.live = Some(live);
                self.look_inside();
            }
            // A stop came between the engine's answer and this.
            Done::Booted(Ok(live)) => {
                self.tell_shim.send_replace(Some(live.shim.clone()));
                self.work.spawn(async move {
                    down(live, &StopRequest::default()).await;
                    Done::Stopped
                });
            }
            Done::Booted(Err(problem)) => {
                if self.board.now().state == State::Starting {
                    tracing::error!(code = problem.code, message = problem.message, causes = ?problem.causes, "the start failed");
                    self.board.fail(problem);
                }
                self.gone(Event::BootFailed);
            }
            // A forced stop after an orderly one ends twice; by then a new machine may be on its way.
            Done::Stopped if self.board.now().state == State::Stopping => self.gone(Event::Ended),
            Done::Stopped => {}
        }
    }

    /// No machine is left.
    fn gone(&mut self, event: Event) {
        self.live = None;
        self.tell_shim.send_replace(None);
        self.context.ports.send_replace(Vec::new());
        self.board.change(|status| {
            status.machine = None;
            status.engine = None;
            status.running_since = None;
            status.notices.clear();
            status.services.clear();
            status.pending_settings.clear();
        });
        self.event(event);
    }

    /// The machine or something in it changed.
    fn look_inside(&mut self) {
        let Some(live) = &mut self.live else { return };
        if *live.shim.life().borrow() != Life::Runs {
            let problem = boot::ended_problem(&self.context, &live.shim, false);
            tracing::error!(code = problem.code, causes = ?problem.causes, "the machine ended");
            self.board.fail(problem);
            self.gone(Event::Ended);
            return;
        }
        let inside = live.guest.inside.borrow_and_update().clone();
        let stall = *live.stall.borrow_and_update();
        // That it does not answer is what was asked for.
        if self.board.now().state == State::Paused {
            return;
        }
        let event =
            if inside.engine.is_some() && stall.is_none() { Event::EngineReady } else { Event::EngineLost };
        self.board.change(|status| {
            status.engine.clone_from(&inside.engine);
            match (stall, &inside.lost) {
                (Some(stall), _) => status.problem = Some(boot::stall_problem(&self.context, stall)),
                (None, None) => {
                    status.problem = None;
                    status.running_since.get_or_insert(logs::unix_ms() / 1000);
                }
                (None, Some(why)) => {
                    let problem =
                        Problem::new("engine-lost", "the engine does not answer").because(why.clone());
                    status.problem = Some(
                        problem
                            .hint("`slipway logs --unit dockerd` says more; `slipway restart` starts anew"),
                    );
                }
            }
        });
        self.event(event);
    }
}

/// Ready when the machine's life or its inside changed; never without a machine.
async fn changed(live: Option<&mut Live>) {
    let Some(live) = live else { return std::future::pending().await };
    let mut life = live.shim.life();
    tokio::select! {
        _ = life.wait_for(|life| *life != Life::Runs) => {}
        Ok(()) = live.guest.inside.changed() => {}
        Ok(()) = live.stall.changed() => {}
    }
}

/// Ends a machine: in order when the agent answers, by force otherwise.
async fn down(mut live: Live, request: &StopRequest) {
    live.guest.leave_engine();
    let time = request.timeout_s.map_or(live.stop_timeout, Duration::from_secs);
    let agent = live.guest.inside.borrow().agent.clone();
    let mut life = live.shim.life();
    if let (false, Some(agent)) = (request.force, agent) {
        let asked = agent.power_off(time).await;
        if let Err(error) = &asked {
            tracing::warn!(%error, "the guest could not be asked to power off");
        }
        if asked.is_ok() && timeout(time + WAY_DOWN, life.wait_for(|l| *l != Life::Runs)).await.is_ok() {
            return;
        }
        tracing::warn!("the guest did not power off in time; the machine is ended");
    }
    boot::end(&live.shim).await;
}

fn busy(what: &str) -> Problem {
    Problem::new("busy", what).hint("try again in a moment; `slipway status` shows when it is done")
}

pub(crate) fn not_running() -> Problem {
    Problem::new("not-running", "no machine runs").hint("run `slipway start`")
}

fn not_paused(state: State) -> Problem {
    match state {
        State::Stopped | State::Failed => not_running(),
        other => busy(&format!("the machine is {other}")),
    }
}

fn running(what: &str) -> Problem {
    Problem::new("machine-runs", what).hint("run `slipway stop` first")
}
