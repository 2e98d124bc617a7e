//! The shim process: owns one VM from its start to its end, whatever happens to daemons meanwhile.
//!
//! ```text
//!   lock ─► start the VM ─► listen on shim.sock ─► serve daemons, one after the other or several ─► VM ended
//!                                                                                                     │
//!                              exit.json ◄─ the reason, for a daemon that is not there just now ◄─────┘
//! ```
//!
//! One task holds the [`Machine`]; daemons' requests reach it by a channel. Splices do not: they go straight to the
//! transport, so that a machine that answers slowly delays no stream.

#[cfg_attr(unix, path = "server/handed.rs")]
#[cfg_attr(windows, path = "server/copied.rs")]
mod streams;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use slipway_relay::ports::{BindError, PortSpec, Publisher};
use slipway_vm::{
    Driver, DriverError, ExitReason, GuestArch, Machine, MachineSpec, SharedFolder, Stall, room,
};
use slipway_vsock::{ConnectError, Transport};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    reviews::Reviews,
    share::{Share, ShareConfig},
    wire::{
        Answer, Beside, Call, Failure, FailureKind, Listener, Peer, PortFailure, Reply, Request, Status,
        VERSION,
    },
};

/// Bytes of the console that travel with a status.
const CONSOLE_IN_STATUS: usize = 16 * 1024;
/// How long a shim that is told to end by signal gives its machine.
const SIGNAL_GRACE: Duration = Duration::from_secs(5);
/// How often a host without room is looked at again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(2);
/// Free bytes with which a machine that had no room goes on: with less it would stop again at once.
const ROOM: u64 = 64 << 20;

/// What a shim is started with; written by the daemon, read by `slipway shim --config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimConfig {
    /// The machine to run.
    pub spec: MachineSpec,
    /// Locked for as long as the shim lives.
    pub lock: PathBuf,
    /// Where daemons connect.
    pub socket: PathBuf,
    /// Where the reason of the machine's end is left.
    pub exit_file: PathBuf,
    /// Where the accelerator's verdict is remembered.
    pub accel_verdict: PathBuf,
    /// What kernel and image are for; the host's processor where it is not said.
    #[serde(default)]
    pub guest: GuestArch,
    /// The VM program; `None` searches `PATH`.
    pub vmm_binary: Option<PathBuf>,
    /// Host folders; `None` for a machine without the device.
    #[serde(default)]
    pub share: Option<ShareConfig>,
}

/// The shim could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Another shim owns this profile's machine.
    #[error("another shim runs this machine (`{0}` is locked)")]
    AlreadyRuns(PathBuf),
    /// The lock file could not be made.
    #[error("failed to lock `{path}`")]
    Lock {
        /// The lock's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket could not be made.
    #[error("failed to listen on `{path}`")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine did not start.
    #[error("failed to start the machine")]
    Start(#[source] DriverError),
    /// The reason of the end could not be written down.
    #[error("failed to write `{path}`")]
    ExitFile {
        /// The file's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Takes the lock of a machine; `None` when a living shim has it. Let it go with [`File::unlock`], not by closing: a child of
/// this process that has not got to its exec yet has the descriptor, too.
///
/// # Errors
/// That of opening the file.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// What the machine's owner is asked to do.
pub(crate) enum Act {
    Status(oneshot::Sender<Status>),
    Pause(oneshot::Sender<Result<(), DriverError>>),
    Resume(oneshot::Sender<Result<(), DriverError>>),
    Kill(Duration),
    /// Where the hypervisor shares folders itself: exactly these from now on.
    #[cfg_attr(target_os = "linux", allow(dead_code))] // A server of our own does it there.
    Share(Vec<SharedFolder>, oneshot::Sender<Result<(), DriverError>>),
}

/// Runs the machine until it ends, or until `stop` is cancelled (which ends it). Returns why it ended.
///
/// # Errors
/// [`ShimError`]; no machine is left running.
pub async fn run(
    config: &ShimConfig,
    driver: &dyn Driver,
    stop: CancellationToken,
) -> Result<ExitReason, ShimError> {
    let lock = try_lock(&config.lock)
        .map_err(|source| ShimError::Lock { path: config.lock.clone(), source })?
        .ok_or_else(|| ShimError::AlreadyRuns(config.lock.clone()))?;
    // Ours to remove: the lock says that nobody else lives here.
    let _ = std::fs::remove_file(&config.socket);
    let _ = std::fs::remove_file(&config.exit_file);
    let tasks = TaskTracker::new();
    let mut spec = config.spec.clone();
    let share = match &config.share {
        None => Err("host folders are switched off".to_owned()),
        Some(share) => match std::env::current_exe() {
            Ok(exe) => Share::start(&exe, share, &tasks).await,
            Err(error) => Err(format!("failed to find the own program: {error}")),
        },
    };
    match (&share, &config.share) {
        (Ok(_), Some(config)) => spec.share_socket = Some(config.socket.clone()),
        // Containers without host folders are better than none; whoever needs one hears why it is not there.
        (Err(why), Some(_)) => tracing::error!(why, "the machine has no host folders"),
        (_, None) => {}
    }
    let mut machine = driver.start(&spec).await.map_err(ShimError::Start)?;
    let listener = match Listener::bind(&config.socket) {
        Ok(listener) => listener,
        Err(source) => {
            // Dropping the machine ends it too; this way is polite.
            let _ = machine.kill(SIGNAL_GRACE).await;
            return Err(ShimError::Listen { path: config.socket.clone(), source });
        }
    };
    tracing::info!(pid = machine.pid(), accel = ?machine.capabilities().accel, "the machine runs");

    let (acts, act) = mpsc::channel(64);
    let (ended, end) = watch::channel(None);
    let serving = CancellationToken::new();
    let ports = Arc::new(Publisher::new(machine.transport()));
    let daemon = Daemon {
        transport: machine.transport(),
        share: share.map(|share| share.with_machine(machine.transport(), acts.clone())),
        acts,
        ports: Arc::clone(&ports),
        reviews: Arc::default(),
        stall: machine.stall(),
    };
    tasks.spawn(accept(listener, daemon, end, tasks.clone(), serving.clone()));

    let reason = own(&mut *machine, &spec.data_disk, act, stop).await;
    tracing::info!(?reason, "the machine ended");
    ports.close().await;
    let written = write_exit(&config.exit_file, &reason);
    // Daemons get the news on their connections before those close.
    ended.send_replace(Some(reason.clone()));
    drop(ended);
    serving.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await.is_err() {
        tracing::warn!("a connection of a daemon did not end in time");
    }
    let _ = std::fs::remove_file(&config.socket);
    let _ = lock.unlock();
    written.map_err(|source| ShimError::ExitFile { path: config.exit_file.clone(), source })?;
    Ok(reason)
}

fn write_exit(path: &Path, reason: &ExitReason) -> io::Result<()> {
    let bytes = serde_json::to_vec(reason).map_err(io::Error::other)?;
    let aside = path.with_extension("new");
    std::fs::write(&aside, bytes)?;
    std::fs::rename(aside, path)
}

/// The one task that touches the machine.
async fn own(
    machine: &mut dyn Machine,
    data_disk: &Path,
    mut acts: mpsc::Receiver<Act>,
    stop: CancellationToken,
) -> ExitReason {
    let mut paused = false;
    let mut stopping = false;
    let mut stall = machine.stall();
    let mut look = tokio::time::interval(LOOK_FOR_ROOM);
    loop {
        let stalled = *stall.borrow_and_update();
        let act = tokio::select! {
            Ok(()) = stall.changed() => {
                tracing::warn!(stall = ?*stall.borrow(), "the virtual CPUs stand still, or go on");
                look.reset();
                continue;
            }
            // For as long as it takes: only a person can make room.
            _ = look.tick(), if stalled == Some(Stall::HostDiskFull) && !paused && !stopping => {
                if has_room(data_disk) && let Err(error) = machine.resume().await {
                    tracing::error!(%error, "the machine could not go on");
                }
                continue;
            }
            reason = machine.wait() => return reason,
            Some(act) = acts.recv() => act,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                Act::Kill(SIGNAL_GRACE)
            }
        };
        // An asker that has left needs no answer.
        match act {
            Act::Status(reply) => {
                let tail = machine.console_tail();
                let from = tail.len().saturating_sub(CONSOLE_IN_STATUS);
                let _ = reply.send(Status {
                    version: VERSION,
                    pid: machine.pid(),
                    capabilities: machine.capabilities(),
                    paused,
                    console_tail: String::from_utf8_lossy(&tail[from..]).into_owned(),
                });
            }
            Act::Pause(reply) => {
                let answer = machine.pause().await;
                paused |= answer.is_ok();
                let _ = reply.send(answer);
            }
            Act::Resume(reply) => {
                let answer = machine.resume().await;
                paused &= answer.is_err();
                let _ = reply.send(answer);
            }
            Act::Share(folders, reply) => {
                let _ = reply.send(machine.share(&folders).await);
            }
            Act::Kill(grace) => {
                if let Err(error) = machine.kill(grace).await {
                    tracing::error!(%error, "the machine could not be ended");
                }
            }
        }
    }
}

/// Whether the file system of the data disk can take some writes. One that cannot be asked is tried.
fn has_room(data_disk: &Path) -> bool {
    room::free(data_disk).map_or(true, |free| free >= ROOM)
}

async fn accept(
    mut listener: Listener,
    daemon: Daemon,
    end: watch::Receiver<Option<ExitReason>>,
    tasks: TaskTracker,
    serving: CancellationToken,
) {
    loop {
        let connected = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.cancelled() => return,
        };
        match connected {
            Ok(accepted) => {
                let (daemon, end, streams) = (daemon.clone(), end.clone(), tasks.clone());
                tasks.spawn(async move {
                    if let Some(socket) = streams::opened(accepted, &daemon).await {
                        Connected { socket: Arc::new(socket), daemon }.serve(end, streams).await;
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: give the open ones time to close.
                tracing::warn!(%error, "a daemon could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What every daemon acts on.
#[derive(Clone)]
struct Daemon {
    transport: Arc<dyn Transport>,
    /// Or why there is none.
    share: Result<Share, String>,
    /// Requests to the engine that wait for a daemon's word.
    reviews: Arc<Reviews>,
    acts: mpsc::Sender<Act>,
    ports: Arc<Publisher>,
    stall: watch::Receiver<Option<Stall>>,
}

/// One connected daemon.
#[derive(Clone)]
struct Connected {
    socket: Arc<Peer>,
    daemon: Daemon,
}

impl Connected {
    async fn serve(self, end: watch::Receiver<Option<ExitReason>>, tasks: TaskTracker) {
        self.daemon.reviews.connected(Arc::clone(&self.socket));
        self.converse(end, tasks).await;
        self.daemon.reviews.gone(&self.socket);
    }

    async fn converse(&self, mut end: watch::Receiver<Option<ExitReason>>, tasks: TaskTracker) {
        let mut stall = self.daemon.stall.clone();
        if stall.borrow().is_some() {
            stall.mark_changed();
        }
        loop {
            tokio::select! {
                Ok(()) = stall.changed() => {
                    let stall = *stall.borrow_and_update();
                    self.say(0, Answer::Stalled { stall }, None).await;
                }
                reason = ending(&mut end) => {
                    if let Some(reason) = reason {
                        self.say(0, Answer::Exited(reason), None).await;
                    }
                    return;
                }
                received = self.socket.receive::<Request>() => match received {
                    Ok(Some((request, beside))) => {
                        let daemon = self.clone();
                        // Each in its own task: a dial that waits for the guest delays no other request.
                        let streams = tasks.clone();
                        tasks.spawn(async move { daemon.answer(request, beside, &streams).await });
                    }
                    Ok(None) => return,
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                        let failure = Failure { kind: FailureKind::Invalid, message: e.to_string() };
                        self.say(0, Answer::Failed(failure), None).await;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a daemon's connection failed");
                        return;
                    }
                }
            }
        }
    }

    async fn answer(&self, request: Request, beside: Option<Beside>, streams: &TaskTracker) {
        let (answer, back) = match (request.call, beside) {
            (Call::Splice { port, head }, beside) => {
                streams::splice(&self.daemon, port, head, beside, streams).await
            }
            (Call::Publish(port), _) => (self.publish(port).await, None),
            (Call::Withdraw { port }, _) => {
                self.daemon.ports.withdraw(port).await;
                (Answer::Done, None)
            }
            (Call::Ports, _) => (Answer::Ports { ports: self.daemon.ports.list() }, None),
            (Call::Status, _) => (self.act(Act::Status, Answer::Status).await, None),
            (Call::Pause, _) => (self.act(Act::Pause, done).await, None),
            (Call::Resume, _) => (self.act(Act::Resume, done).await, None),
            (Call::Reviewed { ask, word }, body) => {
                self.daemon.reviews.spoken(ask, word, body);
                (Answer::Done, None)
            }
            (Call::Share { ask }, _) => {
                let said = match &self.daemon.share {
                    Ok(share) => share.ask(ask).await,
                    Err(why) => {
                        slipway_share::wire::Answer::Failed { code: "no-shares".into(), message: why.clone() }
                    }
                };
                (Answer::Share { said }, None)
            }
            (Call::Kill { grace_ms }, _) => {
                let sent = self.daemon.acts.send(Act::Kill(Duration::from_millis(grace_ms))).await;
                (sent.map_or_else(|_| gone(), |()| Answer::Done), None)
            }
        };
        self.say(request.id, answer, back).await;
    }

    async fn publish(&self, port: PortSpec) -> Answer {
        let (ports, runtime) = (Arc::clone(&self.daemon.ports), tokio::runtime::Handle::current());
        // Looking for the holder of a taken port reads all of /proc.
        let published = tokio::task::spawn_blocking(move || {
            let _inside = runtime.enter();
            ports.publish(port)
        });
        match published.await {
            Ok(Ok(())) => Answer::Done,
            Ok(Err(error)) => not_published(&error),
            Err(error) => Answer::Failed(Failure {
                kind: FailureKind::Other,
                message: format!("a task failed: {error}"),
            }),
        }
    }

    async fn act<T>(
        &self,
        act: impl FnOnce(oneshot::Sender<T>) -> Act,
        into: impl FnOnce(T) -> Answer,
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.daemon.acts.send(act(reply)).await.is_err() {
            return gone();
        }
        answer.await.map_or_else(|_| gone(), into)
    }

    async fn say(&self, id: u64, answer: Answer, beside: Option<Beside>) {
        let reply = Reply { id, answer };
        if let Err(error) = self.socket.send(&reply, beside.as_ref()).await {
            tracing::debug!(%error, "a daemon left before its answer");
        }
    }
}

/// Resolves when the machine has ended. Cancel-safe.
async fn ending(end: &mut watch::Receiver<Option<ExitReason>>) -> Option<ExitReason> {
    end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone())
}

fn done(result: Result<(), DriverError>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(e) => Answer::Failed(Failure { kind: FailureKind::Other, message: chain(&e) }),
    }
}

fn not_published(error: &BindError) -> Answer {
    Answer::NotPublished(PortFailure {
        code: error.code().to_owned(),
        message: error.to_string(),
        hint: error.hint(),
    })
}

fn gone() -> Answer {
    Answer::Failed(Failure { kind: FailureKind::Closed, message: "the machine has ended".into() })
}

fn failure(error: &ConnectError) -> Failure {
    let kind = match error {
        ConnectError::Refused { .. } => FailureKind::Refused,
        ConnectError::TimedOut { .. } => FailureKind::TimedOut,
        ConnectError::Exhausted { .. } => FailureKind::Exhausted,
        ConnectError::Closed => FailureKind::Closed,
        ConnectError::Io { .. } => FailureKind::Other,
    };
    Failure { kind, message: chain(error) }
}

/// An error and its causes on one line: the chain does not survive the packet otherwise.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
