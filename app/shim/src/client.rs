//! The daemon's half: asks a living shim, and is told when its machine ends.

#[cfg_attr(unix, path = "client/handed.rs")]
#[cfg_attr(windows, path = "client/copied.rs")]
mod streams;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use slipway_protocol::ports::GuestPort;
use slipway_relay::{
    http::{Review, Verdict},
    ports::{PortSpec, PublishedPort},
};
use slipway_vm::{ExitReason, Stall};
use slipway_vsock::ConnectError;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use crate::wire::{
    self, Answer, Beside, Call, Failure, FailureKind, Peer, PortFailure, Reply, Request, Status, Word,
    bytes_of,
};

/// How long a shim may take to answer; beyond its own deadline for the guest, which is 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// The shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimClientError {
    /// No shim listens there.
    #[error("failed to reach the shim at `{path}`")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer came.
    #[error("the shim went away")]
    Gone,
    /// The shim lives and does not answer.
    #[error("the shim did not answer in {} s", PATIENCE.as_secs())]
    Silent,
    /// The host does not listen on that port.
    #[error("{}", .0.message)]
    NotPublished(PortFailure),
    /// The shim says no.
    #[error("{}", .0.message)]
    Failed(Failure),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<(Answer, Option<Beside>)>>>>;

/// How the machine stands, as far as its shim has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// The shim is connected and has said nothing of an end.
    Runs,
    /// The machine ended.
    Ended(ExitReason),
    /// The connection ended without that word: the shim itself was killed, and the VM with it.
    Lost,
}

/// A request to the engine that waits for a word; to be answered by [`ShimClient::reviewed`].
#[derive(Debug)]
pub struct Asked {
    /// Its number.
    pub ask: u64,
    /// The request.
    pub review: Review,
}

/// A connection to a shim. Clones share it.
#[derive(Debug, Clone)]
pub struct ShimClient {
    socket: Arc<Peer>,
    #[cfg_attr(unix, allow(dead_code))] // They go beside messages there.
    streams: streams::Way,
    waiting: Waiting,
    next_id: Arc<Mutex<u64>>,
    life: watch::Receiver<Life>,
    stall: watch::Receiver<Option<Stall>>,
    reviews: Arc<Mutex<Option<mpsc::Receiver<Asked>>>>,
    _reader: Arc<AbortOnDropHandle<()>>,
}

impl ShimClient {
    /// Connects to the shim at `path`.
    ///
    /// # Errors
    /// [`ShimClientError::Connect`]: no shim lives there.
    pub async fn connect(path: &Path) -> Result<Self, ShimClientError> {
        let socket = Peer::connect(path)
            .await
            .map_err(|source| ShimClientError::Connect { path: path.to_owned(), source })?;
        let socket = Arc::new(socket);
        let waiting = Waiting::default();
        let (tell, life) = watch::channel(Life::Runs);
        let (tell_stall, stall) = watch::channel(None);
        let (asking, reviews) = mpsc::channel(64);
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&waiting), tell, tell_stall, asking));
        Ok(Self {
            socket,
            streams: streams::Way::to(path),
            waiting,
            next_id: Arc::new(Mutex::new(1)),
            life,
            stall,
            reviews: Arc::new(Mutex::new(Some(reviews))),
            _reader: Arc::new(AbortOnDropHandle::new(reader)),
        })
    }

    /// Changes once: when the machine, or its shim, ends.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.clone()
    }

    /// Is the machine there, as far as is known?
    pub fn runs(&self) -> bool {
        *self.life.borrow() == Life::Runs
    }

    /// Whether and why the virtual CPUs stand still unasked. The shim lets them go on by itself when the cause is gone.
    pub fn stall(&self) -> watch::Receiver<Option<Stall>> {
        self.stall.clone()
    }

    /// What runs, and on what.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn status(&self) -> Result<Status, ShimClientError> {
        match self.ask(Call::Status, None).await? {
            (Answer::Status(status), _) => Ok(status),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Stops the virtual CPUs.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn pause(&self) -> Result<(), ShimClientError> {
        self.act(Call::Pause).await
    }

    /// Lets the virtual CPUs run again.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn resume(&self) -> Result<(), ShimClientError> {
        self.act(Call::Resume).await
    }

    /// Listens on a port of the host; the same again is fine.
    ///
    /// # Errors
    /// [`ShimClientError::NotPublished`] says why not; see [`ShimClientError`].
    pub async fn publish(&self, port: PortSpec) -> Result<(), ShimClientError> {
        match self.ask(Call::Publish(port), None).await? {
            (Answer::Done, _) => Ok(()),
            (Answer::NotPublished(failure), _) => Err(ShimClientError::NotPublished(failure)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Listens on a port no more; when this returns, the port is free.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn withdraw(&self, port: u64) -> Result<(), ShimClientError> {
        self.act(Call::Withdraw { port }).await
    }

    /// The ports of the host that are listened on.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn ports(&self) -> Result<Vec<PublishedPort>, ShimClientError> {
        match self.ask(Call::Ports, None).await? {
            (Answer::Ports { ports }, _) => Ok(ports),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Ends the machine; [`life`](Self::life) says when it is done.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn kill(&self, grace: Duration) -> Result<(), ShimClientError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.act(Call::Kill { grace_ms }).await
    }

    /// Asks the share server.
    ///
    /// # Errors
    /// See [`ShimClientError`]; what the share server refuses is in its answer.
    pub async fn share(
        &self,
        ask: slipway_share::wire::Call,
    ) -> Result<slipway_share::wire::Answer, ShimClientError> {
        match self.ask(Call::Share { ask }, None).await? {
            (Answer::Share { said }, _) => Ok(said),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Requests to the engine that wait for a word. Given once.
    pub fn take_reviews(&self) -> Option<mpsc::Receiver<Asked>> {
        self.reviews.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says that word.
    ///
    /// # Errors
    /// See [`ShimClientError`].
    pub async fn reviewed(&self, ask: u64, verdict: Verdict) -> Result<(), ShimClientError> {
        let (word, body) = match verdict {
            Verdict::Pass => (Word::Pass, None),
            Verdict::Refuse { status, message } => (Word::Refuse { status, message }, None),
            Verdict::Replace(bytes) => match wire::beside(&bytes) {
                Ok(file) => (Word::Replace, Some(file)),
                Err(error) => (Word::Refuse { status: 503, message: error.to_string() }, None),
            },
        };
        self.ask(Call::Reviewed { ask, word }, body.as_ref()).await.map(drop)
    }

    async fn act(&self, call: Call) -> Result<(), ShimClientError> {
        match self.ask(call, None).await? {
            (Answer::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn ask(
        &self,
        call: Call,
        beside: Option<&Beside>,
    ) -> Result<(Answer, Option<Beside>), ShimClientError> {
        let id = {
            let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let (tell, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        let _forget = Forget { waiting: &self.waiting, id };
        if *self.life.borrow() != Life::Runs {
            return Err(ShimClientError::Gone);
        }
        self.socket.send(&Request { id, call }, beside).await.map_err(|_| ShimClientError::Gone)?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok((Answer::Failed(failure), None))) => Err(ShimClientError::Failed(failure)),
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(_)) => Err(ShimClientError::Gone),
            Err(_) => Err(ShimClientError::Silent),
        }
    }
}

/// An asker that is cancelled leaves nothing behind.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

fn unexpected(answer: &Answer) -> ShimClientError {
    let message = format!("the shim gave an answer that does not fit: {answer:?}");
    ShimClientError::Failed(Failure { kind: FailureKind::Invalid, message })
}

async fn read(
    socket: Arc<Peer>,
    waiting: Waiting,
    tell: watch::Sender<Life>,
    tell_stall: watch::Sender<Option<Stall>>,
    asking: mpsc::Sender<Asked>,
) {
    loop {
        match socket.receive::<Reply>().await {
            Ok(Some((Reply { answer: Answer::Exited(reason), .. }, _))) => {
                tell.send_replace(Life::Ended(reason));
                break;
            }
            Ok(Some((Reply { answer: Answer::Stalled { stall }, .. }, _))) => {
                tell_stall.send_replace(stall);
            }
            Ok(Some((Reply { answer: Answer::Review { ask, path }, .. }, fd))) => {
                let Ok(body) = bytes_of(fd) else { continue };
                // Dropped when nobody takes them: the shim tells its client that there was no answer.
                if asking.try_send(Asked { ask, review: Review { path, body } }).is_err() {
                    tracing::warn!("a request to the engine was not looked at");
                }
            }
            Ok(Some((reply, fd))) => {
                let asker = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply.id);
                // Nobody waits: the asker was cancelled, and the descriptor closes with the packet.
                if let Some(asker) = asker {
                    let _ = asker.send((reply.answer, fd));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(error = %e, "the shim said something that is not understood");
            }
            Ok(None) | Err(_) => {
                tell.send_replace(Life::Lost);
                break;
            }
        }
    }
    // After the end of `life`, so that an asker that comes later sees it.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// What a shim said about a stream that was not opened.
fn not_opened(port: GuestPort, failure: Failure) -> ConnectError {
    match failure.kind {
        FailureKind::Refused => ConnectError::Refused { port },
        FailureKind::TimedOut => ConnectError::TimedOut { port },
        FailureKind::Exhausted => ConnectError::Exhausted { limit: 0 },
        FailureKind::Closed => ConnectError::Closed,
        FailureKind::Invalid | FailureKind::Other => {
            ConnectError::Io { port, source: io::Error::other(failure.message) }
        }
    }
}
