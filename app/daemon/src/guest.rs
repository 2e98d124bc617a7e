//! The daemon's view of one running machine's inside: speaks to the agent, writes what it tells on the board, keeps the
//! guest's clock right and its logs flowing, and connects again when a stream breaks.
//!
//! ```text
//!   connect ─▶ clock ─▶ snapshot ─▶ events … ─▶ stream ended ─┬─ machine lives: connect again
//!      ▲        ▲                     └─ host woke ─┬─▶ silent ─┤  machine ended: over
//!      │        └───────────────────────────────────┘           │
//!      └────────────────────────────────────────────────────────┘
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use slipway_agent_client::{AgentClient, CallError};
use slipway_api::{LogLine, Phase, PhaseState, Problem, Service, State};
use slipway_protocol::{
    frame,
    ports::{CONTROL, LOGS},
    v1::{self, event::Kind},
};
use slipway_shim::client::ShimClient;
use slipway_vsock::Transport;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinSet,
    time::{Instant, interval_at, sleep, timeout},
};

use crate::{
    Context,
    board::Board,
    configure,
    logs::{self, Origin},
    names, ports, shares,
    sleep::Sleep,
};

/// How this daemon calls itself.
const BUILD: &str = concat!("slipway ", env!("CARGO_PKG_VERSION"));
/// Between two attempts to reach the agent: it listens some hundred milliseconds after it was reached in vain.
const RETRY: Duration = Duration::from_millis(50);
/// Between two looks at the guest's clock: so long may it be wrong where the host does not tell that it woke up.
const CLOCK: Duration = Duration::from_secs(5);
/// How long an agent may be silent after the host woke until its stream counts as dead.
const WAKING: Duration = Duration::from_secs(3);

/// What the inside looks like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inside {
    /// Speaks to the agent, while it answers.
    pub(crate) agent: Option<AgentClient>,
    /// Version of the engine, while it answers.
    pub(crate) engine: Option<String>,
    /// Why it does not any more.
    pub(crate) lost: Option<String>,
    /// A phase of the guest's boot that failed, and why.
    pub(crate) failed: Option<(String, String)>,
    /// How often the host had woken when the guest's clock was set last.
    pub(crate) woken: u64,
}

/// The tasks that look inside; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) inside: watch::Receiver<Inside>,
    /// Those that listen to the engine's events.
    listeners: JoinSet<()>,
    _tasks: JoinSet<()>,
}

impl Guest {
    /// Begins to look. `power_on_ms` is when the machine was started, on the board's clock.
    pub(crate) fn watch(
        shim: ShimClient,
        machine: u32,
        context: &Arc<Context>,
        board: Board,
        power_on_ms: u64,
    ) -> Self {
        let (tell, inside) = watch::channel(Inside::default());
        let (mut tasks, mut listeners) = (JoinSet::new(), JoinSet::new());
        listeners.spawn(ports::follow(shim.clone(), Arc::clone(context)));
        tasks.spawn(names::follow(shim.clone(), Arc::clone(context)));
        tasks.spawn(configure::attend(Arc::clone(context), board.clone(), inside.clone()));
        tasks.spawn(follow_logs(shim.clone(), machine, Arc::clone(context)));
        let shares = &context.shares;
        tasks.spawn(Arc::clone(shares).attend(shim.clone(), inside.clone()));
        if let Some(asked) = shim.take_reviews() {
            let reviewer = shares::Reviewer::new(Arc::clone(shares), context.paths.clone());
            tasks.spawn(reviewer.run(shim.clone(), asked));
        }
        listeners.spawn(shares::follow(Arc::clone(shares), shim.clone(), inside.clone(), board.clone()));
        let sleep = context.sleep.subscribe();
        tasks.spawn(Looker { shim, board, power_on_ms, tell, sleep }.run());
        Self { inside, listeners, _tasks: tasks }
    }

    /// Sets the guest's clock, if its agent takes that within `patience`. Otherwise it is done in some seconds.
    pub(crate) async fn set_clock(&self, patience: Duration) {
        let agent = self.inside.borrow().agent.clone();
        if let Some(agent) = agent {
            let _ = timeout(patience, set_clock(&agent)).await;
        }
    }

    /// Leaves the engine alone: dockerd waits five seconds at its end for whoever still listens to its events.
    pub(crate) fn leave_engine(&mut self) {
        self.listeners.abort_all();
    }
}

/// The agent, on a stream of its own.
pub(crate) async fn agent(shim: &ShimClient) -> Result<AgentClient, Problem> {
    let stream = shim.connect(CONTROL).await.map_err(|error| Problem::from_error("agent", &error))?;
    let connected = AgentClient::connect(stream, BUILD).await;
    connected.map(|(agent, _hello)| agent).map_err(|error| Problem::from_error("agent", &error))
}

struct Looker {
    shim: ShimClient,
    board: Board,
    power_on_ms: u64,
    tell: watch::Sender<Inside>,
    sleep: watch::Receiver<Sleep>,
}

impl Looker {
    async fn run(mut self) {
        while self.shim.runs() {
            if let Ok(agent) = agent(&self.shim).await {
                self.speak(agent).await;
                self.tell.send_modify(|inside| {
                    inside.agent = None;
                    inside.engine = None;
                    inside.lost = Some("the guest's agent does not answer".into());
                });
            }
            sleep(RETRY).await;
        }
    }

    /// Returns when the agent is gone.
    async fn speak(&mut self, agent: AgentClient) {
        let mut events = agent.events();
        if !self.wake(&agent).await {
            return;
        }
        let mut clock = interval_at(Instant::now() + CLOCK, CLOCK);
        // After the subscription, so that nothing falls between the two; and before the agent is there for others, so that what
        // came before it is known before it.
        self.take_all(&agent).await;
        self.tell.send_modify(|inside| inside.agent = Some(agent.clone()));
        loop {
            tokio::select! {
                // What stands still answers nothing, and whoever lets it go on sets its clock.
                _ = clock.tick() => if !self.paused() { set_clock(&agent).await.ok(); },
                // The sender lives in the context, which outlives this.
                Ok(()) = self.sleep.changed() => if !self.wake(&agent).await { return },
                () = agent.closed() => return,
                event = events.recv() => match event {
                    Ok(v1::Event { kind: Some(kind) }) => self.take(kind),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.take_all(&agent).await,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// The host's time is the guest's from here on, unless the host sleeps. False: the agent is silent.
    async fn wake(&mut self, agent: &AgentClient) -> bool {
        let Sleep { asleep, woken } = *self.sleep.borrow_and_update();
        if !asleep && !self.paused() {
            match timeout(WAKING, set_clock(agent)).await {
                // One that cannot set it says so, and is there.
                Ok(Ok(()) | Err(CallError::Failed(_))) => {}
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        self.tell.send_if_modified(|inside| std::mem::replace(&mut inside.woken, woken) != woken);
        true
    }

    fn paused(&self) -> bool {
        self.board.now().state == State::Paused
    }

    async fn take_all(&self, agent: &AgentClient) {
        let Ok(status) = agent.status().await else { return };
        let engine = status.phases.iter().find(|p| p.name == "engine");
        let version =
            engine.map_or("", |p| p.detail.strip_prefix("dockerd ").unwrap_or(&p.detail)).to_owned();
        for phase in status.phases {
            self.take(Kind::Phase(phase));
        }
        for service in status.services {
            self.take(Kind::Service(service));
        }
        if status.engine_ready {
            self.take(Kind::EngineReady(v1::EngineReady { version }));
        }
    }

    fn take(&self, kind: Kind) {
        match kind {
            Kind::Phase(phase) => {
                if phase.state() == v1::PhaseState::Failed {
                    let failed = Some((phase.name.clone(), phase.detail.clone()));
                    self.tell.send_modify(|inside| inside.failed = failed);
                }
                self.board.put(self.phase(phase));
            }
            Kind::Service(service) => self.board.change(|status| {
                let service = Service {
                    name: service.name,
                    running: service.pid != 0,
                    restarts: service.restarts,
                    last_exit: service.last_exit,
                };
                match status.services.iter_mut().find(|s| s.name == service.name) {
                    Some(old) => *old = service,
                    None => status.services.push(service),
                }
            }),
            Kind::EngineReady(ready) => self.tell.send_modify(|inside| {
                inside.engine = Some(ready.version);
                inside.lost = None;
                inside.failed = None;
            }),
            // Without a reason it tells how things stand, and nothing was lost.
            Kind::EngineLost(lost) if lost.reason.is_empty() => {}
            Kind::EngineLost(lost) => self.tell.send_modify(|inside| {
                inside.engine = None;
                inside.lost = Some(lost.reason);
            }),
        }
    }

    fn phase(&self, phase: v1::Phase) -> Phase {
        let state = match phase.state() {
            v1::PhaseState::Done => PhaseState::Done,
            v1::PhaseState::Degraded => PhaseState::Degraded,
            v1::PhaseState::Failed => PhaseState::Failed,
            v1::PhaseState::Running | v1::PhaseState::Unspecified => PhaseState::Running,
        };
        let at = |ms: u64| self.power_on_ms.saturating_add(ms);
        Phase {
            name: phase.name,
            state,
            started_ms: at(phase.started_ms),
            ended_ms: (state != PhaseState::Running).then(|| at(phase.ended_ms)),
            detail: phase.detail,
        }
    }
}

async fn set_clock(agent: &AgentClient) -> Result<(), CallError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let set = agent.set_clock(nanos).await;
    set.inspect_err(|error| tracing::warn!(%error, "the guest's clock could not be set"))
}

/// Copies the guest's logs into ours for as long as the machine lives.
async fn follow_logs(shim: ShimClient, machine: u32, context: Arc<Context>) {
    let units = ["agent", "containerd", "dockerd", "kernel"];
    let mut after = units.iter().map(|unit| context.logs.newest(unit, machine)).max().unwrap_or(0);
    while shim.runs() {
        if let Ok(mut stream) = shim.connect(LOGS).await {
            let follow = v1::Follow { after_sequence: after };
            if frame::write(&mut stream, &follow).await.is_ok() {
                while let Ok(Some(record)) = frame::read::<v1::LogRecord, _>(&mut stream).await {
                    after = record.sequence;
                    // A guest may not choose the files that it writes to.
                    if !units.contains(&record.unit.as_str()) {
                        continue;
                    }
                    let unix_ms = match record.unix_nanos / 1_000_000 {
                        0 => logs::unix_ms(),
                        ms => ms,
                    };
                    let text = String::from_utf8_lossy(&record.line).into_owned();
                    let line = LogLine { unix_ms, unit: record.unit, line: text };
                    context.logs.push(line, Some(Origin { machine, sequence: record.sequence }));
                }
            }
        }
        sleep(RETRY).await;
    }
}
