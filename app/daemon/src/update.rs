//! Another guest image in place of the one in use: whether there is one, and the way to it and, if need be, back.
//!
//! ```text
//!   examined ─▶ machine stopped ─▶ installed ─▶ started ─▶ runs
//!                                     │            └─fails─▶ the one before is put back ─▶ started
//!                                     └─fails─▶ started as it was
//! ```
//!
//! A start takes the image of a newer package by itself ([`image::provide`]). So what is told here is news only while a machine runs
//! with the older one, or after the person went back from it.

use std::{path::PathBuf, sync::Arc};

use slipway_api::{
    ImageRequest, Problem, StartRequest, State, Status, StopRequest, Update, UpdateRequest, Updated,
};
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Context, blocking, board::Board, configure, failed, image, owner::Owner};

/// Keeps the status's word about the image beside the program true, until `stop`.
pub(crate) async fn attend(context: Arc<Context>, board: Board, stop: CancellationToken) {
    let mut status = board.subscribe();
    loop {
        let (tell, mut files) = watch::channel(());
        let place = image::package(&context.exe);
        // Before it is looked at: a change between the two is seen twice rather than never.
        let _watching = place.and_then(|place| configure::watch_files(vec![place], tell));
        let seen = key(&status.borrow_and_update());
        let looking = Arc::clone(&context);
        let ready = tokio::task::spawn_blocking(move || image::ready(&looking.paths, &looking.exe)).await;
        board.change(|status| status.update = ready.unwrap_or_default());
        tokio::select! {
            () = stop.cancelled() => return,
            // The image in use is exchanged between a machine's end and the next one's boot.
            changed = status.wait_for(|status| key(status) != seen) => if changed.is_err() { return },
            () = configure::settled(&mut files) => {}
        }
    }
}

/// What of a status may come with another image in use.
fn key(status: &Status) -> (State, Option<String>) {
    (status.state, status.image.clone())
}

/// The way to another image; one at a time, and to its end whether somebody waits or not.
#[derive(Debug, Clone)]
pub(crate) struct Updates {
    context: Arc<Context>,
    owner: Owner,
    one: Arc<Mutex<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Updates {
    pub(crate) fn new(
        context: Arc<Context>,
        owner: Owner,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { context, owner, one: Arc::default(), tasks, stop }
    }

    /// Checks the image that is to be taken: all of it.
    pub(crate) async fn examine(&self, dir: Option<PathBuf>) -> Result<Update, Problem> {
        let context = Arc::clone(&self.context);
        blocking(move || image::examine(&context.paths, &context.exe, dir)).await?
    }

    /// Takes it. The machine runs afterwards if it ran before.
    pub(crate) async fn update(&self, request: UpdateRequest) -> Result<Updated, Problem> {
        let this = self.clone();
        let work = async move {
            let Ok(_one) = this.one.try_lock() else {
                return Err(
                    Problem::new("busy", "another update goes on").hint("`slipway status` shows how it goes")
                );
            };
            tokio::select! {
                done = this.go(request) => done,
                // The next daemon finds the machine as it is then.
                () = this.stop.cancelled() => Err(Problem::new("daemon-ending", "the daemon is about to end")),
            }
        };
        self.tasks.spawn(work).await.map_err(|error| failed(&error))?
    }

    async fn go(&self, request: UpdateRequest) -> Result<Updated, Problem> {
        let Update { from, to, .. } = self.examine(request.dir).await?;
        let runs = match self.state() {
            State::Stopped | State::Failed => false,
            State::Running | State::Degraded | State::Paused => true,
            state @ (State::Starting | State::Stopping) => {
                return Err(
                    Problem::new("busy", format!("the machine is {state}")).hint("try again in a moment")
                );
            }
        };
        let start = StartRequest { docker_config: request.docker_config, ..StartRequest::default() };
        if runs {
            self.owner.stop(StopRequest::default()).await?;
            self.wait(|state| matches!(state, State::Stopped | State::Failed)).await?;
        }
        let installed = self.owner.install(ImageRequest { dir: to.dir, trust_key: false }).await;
        if let (Err(problem), true) = (&installed, runs) {
            let again = self.start(&start).await?;
            return Err(went_back(problem.clone(), &to.version, from.as_deref(), &again));
        }
        let version = installed?;
        if !runs {
            return Ok(Updated { from, to: version, state: State::Stopped });
        }
        let status = self.start(&start).await?;
        let Some(problem) = status.problem.filter(|_| status.state == State::Failed) else {
            return Ok(Updated { from, to: version, state: status.state });
        };
        // A boot puts the image before back only where the new one is to blame for sure. Here it is the likeliest cause of all.
        if status.image.as_ref() == Some(&version) {
            self.owner.roll_back_image().await?;
        }
        let again = self.start(&start).await?;
        Err(went_back(problem, &version, from.as_deref(), &again))
    }

    fn state(&self) -> State {
        self.owner.status.borrow().state
    }

    /// Starts the machine, and waits until that has ended, well or not.
    async fn start(&self, request: &StartRequest) -> Result<Status, Problem> {
        self.owner.start(request.clone()).await?;
        self.wait(|state| state != State::Starting).await
    }

    /// Starts and stops end in time by themselves.
    async fn wait(&self, reached: impl Fn(State) -> bool) -> Result<Status, Problem> {
        let mut status = self.owner.status.clone();
        let reached = status.wait_for(|status| reached(status.state)).await;
        reached
            .map(|status| status.clone())
            .map_err(|_| Problem::new("daemon-ending", "the daemon is about to end"))
    }
}

/// Why the new image was not taken, and what runs instead.
fn went_back(problem: Problem, to: &str, from: Option<&str>, now: &Status) -> Problem {
    let mut told =
        Problem::new("update-failed", format!("guest image {to} was not taken")).because(problem.message);
    told.causes.extend(problem.causes);
    let before = from.map_or_else(String::new, |from| format!(" with image {from}, as before"));
    match now.state {
        State::Running | State::Degraded => {
            told.hint(format!("the machine runs{before}; `slipway logs` says more"))
        }
        _ => told.hint(format!("the machine does not run{before}: `slipway status` says why")),
    }
}
