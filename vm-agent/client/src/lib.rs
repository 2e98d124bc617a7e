//! Typed calls to the guest agent, over any stream.
//!
//! ```text
//!   connect: Hello ─►  ◄─ Hello, versions negotiated ─► Ping ─► client
//!   then: one task reads; replies go to their askers by id, events to all who listen
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use slipway_protocol::{
    MAX_VERSION, NoCommonVersion,
    frame::{self, FrameError},
    v1::{self, reply, request},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    sync::{Mutex as AsyncMutex, broadcast, oneshot, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// How long the agent may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// How long the agent may take to answer an ordinary call.
pub const CALL: Duration = Duration::from_secs(10);
/// Events that a slow listener may be behind; beyond them it is told that it missed some.
const EVENTS: usize = 256;

/// What a stream to the agent can do.
pub trait Stream: AsyncRead + AsyncWrite + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + 'static> Stream for T {}

/// The agent could not be greeted.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It did not greet in time.
    #[error("the agent did not greet in {} s", GREETING.as_secs())]
    Silent,
    /// The stream ended instead.
    #[error("the agent closed the stream before its greeting")]
    Closed,
    /// The greeting could not be sent or read.
    #[error("failed to exchange greetings with the agent")]
    Frame(#[source] FrameError),
    /// Host and image are too far apart in age.
    #[error("the guest image does not fit this version of Slipway")]
    Version(#[source] NoCommonVersion),
    /// It greeted and does not answer.
    #[error("the agent greeted but did not answer a ping")]
    Ping(#[source] CallError),
}

/// The agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The stream ended.
    #[error("the stream to the agent ended")]
    Closed,
    /// No answer in time.
    #[error("the agent did not answer in {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The agent says no.
    #[error("{}", .0.message)]
    Failed(v1::Failure),
    /// The answer is none to this call.
    #[error("the agent's answer does not fit the call")]
    Unexpected,
    /// The call could not be sent.
    #[error("failed to send a call to the agent")]
    Send(#[source] FrameError),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<reply::Result>>>>;

/// A connection to the agent's control port. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct AgentClient {
    // Async, because a frame must go whole before the next one starts.
    writer: Arc<AsyncMutex<Box<dyn AsyncWrite + Send + Unpin>>>,
    waiting: Waiting,
    next_id: Arc<Mutex<u64>>,
    events: broadcast::Sender<v1::Event>,
    open: watch::Receiver<bool>,
    _reader: Arc<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient").field("open", &*self.open.borrow()).finish_non_exhaustive()
    }
}

impl AgentClient {
    /// Greets the agent, agrees on a version and sees that it answers: a stream can be open and lead nowhere.
    ///
    /// # Errors
    /// See [`ConnectError`]; the stream is closed.
    pub async fn connect(stream: impl Stream, build: &str) -> Result<(Self, v1::Hello), ConnectError> {
        let (mut reader, mut writer) = tokio::io::split(Box::pin(stream));
        let ours = slipway_protocol::hello(build, &[]);
        let greet = async {
            frame::write(&mut writer, &ours).await.map_err(ConnectError::Frame)?;
            let theirs = frame::read::<v1::Hello, _>(&mut reader).await.map_err(ConnectError::Frame)?;
            theirs.ok_or(ConnectError::Closed)
        };
        let theirs = timeout(GREETING, greet).await.map_err(|_| ConnectError::Silent)??;
        let version = slipway_protocol::negotiate(&ours, &theirs).map_err(ConnectError::Version)?;
        debug_assert!(version <= MAX_VERSION);
        let client = Self::run(reader, writer);
        client.ping().await.map_err(ConnectError::Ping)?;
        Ok((client, theirs))
    }

    fn run<S: Stream>(
        reader: ReadHalf<std::pin::Pin<Box<S>>>,
        writer: WriteHalf<std::pin::Pin<Box<S>>>,
    ) -> Self {
        let waiting = Waiting::default();
        let (events, _) = broadcast::channel(EVENTS);
        let (tell, open) = watch::channel(true);
        let read = read(reader, Arc::clone(&waiting), events.clone(), tell);
        Self {
            writer: Arc::new(AsyncMutex::new(Box::new(writer))),
            waiting,
            next_id: Arc::new(Mutex::new(0)),
            events,
            open,
            _reader: Arc::new(AbortOnDropHandle::new(tokio::spawn(read))),
        }
    }

    /// What the agent tells unasked, from now on.
    pub fn events(&self) -> broadcast::Receiver<v1::Event> {
        self.events.subscribe()
    }

    /// Resolves when the stream has ended. Cancel-safe.
    pub async fn closed(&self) {
        // The reader dropped its end: closed as well.
        let _ = self.open.clone().wait_for(|open| !*open).await;
    }

    /// Is the agent there?
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn ping(&self) -> Result<(), CallError> {
        self.done(request::Call::Ping(v1::Ping {}), CALL).await
    }

    /// Phases, services, memory and disk as they are now.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn status(&self) -> Result<v1::Status, CallError> {
        match self.call(request::Call::GetStatus(v1::GetStatus {}), CALL).await? {
            reply::Result::Status(status) => Ok(status),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Sets the guest's clock, in nanoseconds since the epoch.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn set_clock(&self, unix_nanos: u64) -> Result<(), CallError> {
        self.done(request::Call::SetClock(v1::SetClock { unix_nanos }), CALL).await
    }

    /// Stops containers within `within` and powers off. Answered when it has begun: the end is the machine's own.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn power_off(&self, within: Duration) -> Result<(), CallError> {
        let timeout_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        self.done(request::Call::PowerOff(v1::PowerOff { timeout_ms, reboot: false }), CALL).await
    }

    /// Gives unused blocks of the data disk back; returns how many bytes.
    ///
    /// # Errors
    /// See [`CallError`]. Takes up to `patience`: it reads the whole file system's maps.
    pub async fn trim(&self, patience: Duration) -> Result<u64, CallError> {
        match self.call(request::Call::Trim(v1::Trim {}), patience).await? {
            reply::Result::Trimmed(trimmed) => Ok(trimmed.bytes),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Has exactly these folders of the host from now on.
    ///
    /// # Errors
    /// See [`CallError`]; shares that could not be had are in the answer.
    pub async fn set_shares(&self, shares: Vec<v1::Share>) -> Result<v1::SharesState, CallError> {
        let call = request::Call::SetShares(v1::SetShares { shares });
        match self.call(call, CALL * 2).await? {
            reply::Result::Shares(state) => Ok(state),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Puts in force what the host's settings and files say.
    ///
    /// # Errors
    /// See [`CallError`]; what could be put in force is.
    pub async fn configure(&self, wanted: v1::Configure) -> Result<(), CallError> {
        // The engine's configuration is tried by the engine itself.
        self.done(request::Call::Configure(wanted), CALL * 6).await
    }

    async fn done(&self, call: request::Call, patience: Duration) -> Result<(), CallError> {
        match self.call(call, patience).await? {
            reply::Result::Ok(_) => Ok(()),
            _ => Err(CallError::Unexpected),
        }
    }

    async fn call(&self, call: request::Call, patience: Duration) -> Result<reply::Result, CallError> {
        let id = {
            let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let (tell, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        let _forget = Forget { waiting: &self.waiting, id };
        if !*self.open.borrow() {
            return Err(CallError::Closed);
        }
        let asked = async {
            let bytes = frame::encode(&v1::Request { id, call: Some(call) }).map_err(CallError::Send)?;
            let mut writer = self.writer.lock().await;
            tokio::io::AsyncWriteExt::write_all(&mut *writer, &bytes).await.map_err(|_| CallError::Closed)?;
            drop(writer);
            answer.await.map_err(|_| CallError::Closed)
        };
        match timeout(patience, asked).await {
            Ok(Ok(reply::Result::Failure(failure))) => Err(CallError::Failed(failure)),
            Ok(answered) => answered,
            Err(_) => Err(CallError::TimedOut(patience)),
        }
    }
}

/// A call that is given up leaves nothing behind.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    waiting: Waiting,
    events: broadcast::Sender<v1::Event>,
    open: watch::Sender<bool>,
) {
    loop {
        match frame::read::<v1::Reply, _>(&mut reader).await {
            Ok(Some(v1::Reply { result: Some(reply::Result::Event(event)), .. })) => {
                // Nobody listens just now.
                let _ = events.send(event);
            }
            Ok(Some(v1::Reply { id, result })) => {
                let asker = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                match (asker, result) {
                    // The asker may have given up between.
                    (Some(asker), Some(result)) => drop(asker.send(result)),
                    (Some(_), None) => tracing::warn!(id, "the agent gave an answer of a newer protocol"),
                    (None, _) => tracing::debug!(id, "an answer came too late"),
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the stream to the agent failed");
                break;
            }
        }
    }
    open.send_replace(false);
    // After `open`, so that a call that comes later sees it.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

#[cfg(test)]
mod tests;
