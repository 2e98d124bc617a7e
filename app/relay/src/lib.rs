//! The engine's socket on the host.
//!
//! A client's connection is not copied here: the socket itself is handed to whoever reaches the guest, before a byte
//! of it is read. So requests, hijacked streams and half-closes arrive as they were sent, and a daemon that dies takes no
//! connection with it. Where a client's connection cannot change hands (a named pipe of Windows'), the transport copies it.
//!
//! ```text
//!   accept ─► gate open ──► splice to the engine's port ─► out of our hands
//!               │ wait ────► held until the gate changes, [`HOLD`] at the most
//!               │ closed ──► request head is read, answered with 503 and the reason
//! ```

mod answer;
pub mod http;
pub mod ports;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use slipway_protocol::ports::{ENGINE, GuestPort};
use slipway_vsock::{
    ConnectError, HostSocket, Transport,
    endpoint::{self, Client, Listener},
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client waits for a machine that is starting.
pub const HOLD: Duration = Duration::from_secs(120);
/// Connections that wait for the gate or for the guest at once; later ones wait in the kernel's queue.
const WAITING: usize = 4096;
/// How long a refused stream is tried again: the engine's listener is short of backlog, or just restarting.
const RETRY_FOR: Duration = Duration::from_secs(2);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// May connections pass?
#[derive(Clone)]
pub enum Gate {
    /// The engine answers; this reaches it.
    Open(Arc<dyn Transport>),
    /// It is starting: connections are held.
    Wait,
    /// It does not run.
    Closed {
        /// Why, for a person: `slipway is not running`.
        reason: String,
        /// What to do: `slipway start`.
        hint: String,
    },
}

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on `{path}`")]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The listening socket; nothing is accepted before [`Relay::run`].
#[derive(Debug)]
pub struct Relay {
    listener: Listener,
}

impl Relay {
    /// Listens on `path`, replacing a socket that an earlier daemon left. The caller owns the folder (0700) and holds
    /// the lock that says so. Only this user may use it.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let listener = Listener::bind(path);
        let listener = listener.map_err(|source| ListenError { path: path.to_owned(), source })?;
        Ok(Self { listener })
    }

    /// Accepts until `stop`; connections that wait then are closed, those handed over go on without us. The socket is
    /// removed at the end.
    pub async fn run(mut self, gate: watch::Receiver<Gate>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let waiting = Arc::new(Semaphore::new(WAITING));
        loop {
            let permit = tokio::select! {
                permit = waiting.clone().acquire_owned() => permit,
                () = stop.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok(client) => {
                    let (gate, stop) = (gate.clone(), stop.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = pass(client, gate) => {}
                            () = stop.cancelled() => {}
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors: give the open ones time to close.
                    tracing::warn!(%error, "a client could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
        self.listener.remove();
    }
}

async fn pass(client: Client, mut gate: watch::Receiver<Gate>) {
    let Some(gate_now) = settled(&mut gate).await else { return };
    let (client, reason, hint) = match gate_now {
        Gate::Closed { reason, hint } => (client, reason, hint),
        Gate::Wait => return,
        Gate::Open(transport) => match hand_over(client, &*transport).await {
            Ok(()) => return,
            Err((_, None)) => return,
            Err((error, Some(client))) => {
                (client, format!("the engine cannot be reached: {error}"), "slipway status".into())
            }
        },
    };
    answer::unavailable(client, &reason, &hint).await;
}

/// What the gate says once it does not say wait; `None` when the daemon ends. Cancel-safe.
async fn settled(gate: &mut watch::Receiver<Gate>) -> Option<Gate> {
    let ready = gate.wait_for(|g| !matches!(g, Gate::Wait));
    match timeout_at(Instant::now() + HOLD, ready).await {
        Ok(gate) => gate.ok().map(|g| g.clone()),
        Err(_) => Some(Gate::Closed {
            reason: format!("slipway has not become ready in {} s", HOLD.as_secs()),
            hint: "slipway status".into(),
        }),
    }
}

/// Gives the client's socket away; on error it comes back, so that the client gets an answer and not a closed door.
async fn hand_over(client: Client, transport: &dyn Transport) -> Result<(), (ConnectError, Option<Client>)> {
    let io = |source| (ConnectError::Io { port: ENGINE, source }, None);
    let socket = endpoint::give(client).map_err(io)?;
    splice(transport, ENGINE, socket, Bytes::new())
        .await
        .map_err(|(error, back)| (error, endpoint::take_back(back).ok()))
}

/// Hands a socket over, and tries again for a while when the guest's listener is short of backlog.
async fn splice(
    transport: &dyn Transport,
    port: GuestPort,
    mut socket: HostSocket,
    head: Bytes,
) -> Result<(), (ConnectError, HostSocket)> {
    let deadline = Instant::now() + RETRY_FOR;
    loop {
        match transport.splice(port, socket, head.clone()).await {
            Err((ConnectError::Refused { .. }, back)) if Instant::now() < deadline => {
                socket = back;
                sleep(RETRY_EVERY).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
