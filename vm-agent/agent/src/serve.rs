//! Answers the host. One function for each port; whoever listens hands the accepted streams in.
//!
//! ```text
//!   control: Hello ─► Hello ─► the board as events ─► replies and events, until the host closes
//!   dial:    Dial ─► DialReply ─► raw bytes        engine: raw bytes at once        logs: Follow ─► LogRecord …
//! ```
//!
//! Bytes from the host are trusted no more than the guest's are on the host: a stream that does not speak the protocol is
//! closed, and nothing else happens.

use std::{io, os::fd::AsFd, path::PathBuf, sync::Arc, time::Duration};

use slipway_protocol::{
    frame::{self, FrameError},
    v1::{self, DialReply, Failure, dial::Target, reply, request::Call},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::{broadcast::error::RecvError, mpsc},
    time::timeout,
};

use crate::{
    clock, configuration::Configuration, data_disk, logs::Logs, phases::Board, ports::Ports, reaper::Reaper,
    shares::Shares, splice,
};

/// How long the host may take for the first frame of a stream, and a target for accepting a dial.
const FIRST: Duration = Duration::from_secs(10);
/// Log records that are copied out of the memory at once.
const PAGE: usize = 256;

/// A stream to the host.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream ended otherwise than by the host's closing it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It did not speak the protocol, or broke.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No version in common.
    #[error(transparent)]
    Version(slipway_protocol::NoCommonVersion),
    /// The first frame did not come in time.
    #[error("no first frame within {} s", FIRST.as_secs())]
    Silent,
    /// A target of the stream could not be reached, or the copy broke.
    #[error("{0}")]
    Io(io::Error),
}

/// What control streams act on.
#[derive(Debug)]
pub struct Guest {
    /// Where the boot writes what it does.
    pub board: Arc<Board>,
    /// What every unit said.
    pub logs: Arc<Logs>,
    /// The data disk's mount point, for its size and free space.
    pub data: PathBuf,
    /// Told when the host wants the guest to power off, with the milliseconds that containers get.
    pub power_off: mpsc::Sender<u32>,
    /// Sets the time of day in nanoseconds since the epoch and says whether it had to; on a host it must not.
    pub set_clock: fn(u64) -> io::Result<bool>,
    /// Starts the programs that the host wants run.
    pub reaper: Arc<Reaper>,
    /// The engine's socket.
    pub engine: PathBuf,
    /// What the host is to listen on.
    pub ports: Ports,
    /// The host's folders.
    pub shares: Shares,
    /// What the host's settings say.
    pub configuration: Configuration,
}

impl Guest {
    /// Serves one control stream until the host closes it.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn control(&self, mut stream: impl Stream, build: &str) -> Result<(), ServeError> {
        let ours = slipway_protocol::hello(build, &[]);
        let Some(theirs) = first::<v1::Hello>(&mut stream).await? else { return Ok(()) };
        // Sent even when no version fits, so that the host can say which versions met.
        frame::write(&mut stream, &ours).await?;
        slipway_protocol::negotiate(&ours, &theirs).map_err(ServeError::Version)?;
        // Subscribed before the snapshot: a change between the two is told twice rather than never.
        let mut events = self.board.subscribe();
        let (mut reader, mut writer) = tokio::io::split(stream);
        for event in self.board.snapshot().into_events() {
            tell(&mut writer, event).await?;
        }
        // Frames are read in a future of their own, because a frame half read must not be given up.
        let (asked, mut requests) = mpsc::channel::<v1::Request>(16);
        let reading = async move {
            while let Some(request) = frame::read::<v1::Request, _>(&mut reader).await? {
                if asked.send(request).await.is_err() {
                    break;
                }
            }
            Ok::<_, ServeError>(())
        };
        let answering = async {
            loop {
                tokio::select! {
                    request = requests.recv() => {
                        let Some(request) = request else { return Ok::<_, ServeError>(()) };
                        let result = Some(self.answer(request.call).await);
                        frame::write(&mut writer, &v1::Reply { id: request.id, result }).await?;
                    }
                    event = events.recv() => match event {
                        Ok(event) => tell(&mut writer, event).await?,
                        Err(RecvError::Lagged(_)) => {
                            for event in self.board.snapshot().into_events() {
                                tell(&mut writer, event).await?;
                            }
                        }
                        Err(RecvError::Closed) => return Ok(()),
                    }
                }
            }
        };
        tokio::try_join!(reading, answering)?;
        Ok(())
    }

    async fn answer(&self, call: Option<Call>) -> reply::Result {
        match call {
            Some(Call::Ping(_)) => reply::Result::Ok(v1::Ok {}),
            Some(Call::SetClock(time)) => match (self.set_clock)(time.unix_nanos) {
                Ok(stepped) => {
                    if stepped {
                        self.logs.say("the clock was set to the host's");
                    }
                    reply::Result::Ok(v1::Ok {})
                }
                Err(error) => failed("clock", format!("failed to set the clock: {error}")),
            },
            Some(Call::PowerOff(how)) => match self.power_off.send(how.timeout_ms).await {
                Ok(()) => reply::Result::Ok(v1::Ok {}),
                Err(_) => failed("power-off", "the guest is on its way down already".into()),
            },
            Some(Call::GetStatus(_)) => reply::Result::Status(self.status()),
            Some(Call::Trim(_)) => self.trim().await,
            Some(Call::SetShares(wanted)) => reply::Result::Shares(self.shares.set(wanted).await),
            Some(Call::Configure(wanted)) => {
                match self.configuration.set(wanted, &self.reaper, &self.board).await {
                    Ok(()) => reply::Result::Ok(v1::Ok {}),
                    Err(error) => failed("configure", error.to_string()),
                }
            }
            None => failed("unsupported", "this agent does not know the call".into()),
        }
    }

    async fn trim(&self) -> reply::Result {
        let data = self.data.clone();
        // The disk is busy for as long as it takes; other calls of this stream wait, other streams do not.
        match tokio::task::spawn_blocking(move || data_disk::trim(&data)).await {
            Ok(Ok(bytes)) => reply::Result::Trimmed(v1::Trimmed { bytes }),
            Ok(Err(error)) => failed("trim", format!("failed to trim the data disk: {error}")),
            Err(error) => failed("trim", format!("failed to trim the data disk: {error}")),
        }
    }

    fn status(&self) -> v1::Status {
        let now = self.board.snapshot();
        let disk = rustix::fs::statvfs(&self.data).ok();
        let bytes = |blocks: fn(&rustix::fs::StatVfs) -> u64| {
            disk.as_ref().map_or(0, |d| blocks(d).saturating_mul(d.f_frsize))
        };
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        v1::Status {
            engine_ready: now.engine.is_some(),
            phases: now.phases,
            services: now.services,
            unix_nanos: clock::unix_nanos(),
            data_disk_bytes: bytes(|d| d.f_blocks),
            data_disk_free_bytes: bytes(|d| d.f_bavail),
            memory_bytes: meminfo(&memory, "MemTotal:"),
            memory_available_bytes: meminfo(&memory, "MemAvailable:"),
        }
    }
}

/// A line of `/proc/meminfo`, in bytes; 0 when it is not there.
fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn failed(code: &str, message: String) -> reply::Result {
    reply::Result::Failure(Failure { code: code.into(), message, hint: String::new() })
}

async fn tell(writer: &mut (impl AsyncWrite + Unpin), event: v1::Event) -> Result<(), FrameError> {
    frame::write(writer, &v1::Reply { id: 0, result: Some(reply::Result::Event(event)) }).await
}

pub(crate) async fn first<M: Default + slipway_protocol::Message>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<M>, ServeError> {
    match timeout(FIRST, frame::read(stream)).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(ServeError::Silent),
    }
}

/// Serves one stream of the dial port: reaches the target, says so, then copies, half-closes included.
///
/// # Errors
/// See [`ServeError`]; a target that cannot be reached is the host's to know and no error here.
pub async fn dial(mut stream: impl Stream + AsFd) -> Result<(), ServeError> {
    let Some(dial) = first::<v1::Dial>(&mut stream).await? else { return Ok(()) };
    let reached = match dial.target {
        Some(Target::UnixPath(path)) => reach(UnixStream::connect(path)).await.map(Reached::Unix),
        Some(Target::Tcp(address)) => reach(TcpStream::connect(address)).await.map(Reached::Tcp),
        Some(Target::Udp(_)) | None => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this agent does not know the target"))
        }
    };
    let target = match reached {
        Ok(target) => target,
        Err(error) => {
            let code =
                if error.kind() == io::ErrorKind::ConnectionRefused { "refused" } else { "unreachable" };
            let failure = Failure { code: code.into(), message: error.to_string(), hint: String::new() };
            frame::write(&mut stream, &DialReply { failure: Some(failure) }).await?;
            return stream.shutdown().await.map_err(ServeError::Io);
        }
    };
    frame::write(&mut stream, &DialReply { failure: None }).await?;
    let joined = match target {
        Reached::Unix(target) => splice::join(stream, target).await,
        Reached::Tcp(target) => splice::join(stream, target).await,
    };
    joined.map_err(ServeError::Io)
}

enum Reached {
    Unix(UnixStream),
    Tcp(TcpStream),
}

async fn reach<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(FIRST, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Serves one stream of the engine's port: raw bytes to and from the engine's socket, half-closes included.
///
/// # Errors
/// [`ServeError::Io`].
pub async fn engine(stream: impl Stream + AsFd, socket: &std::path::Path) -> Result<(), ServeError> {
    let engine = reach(UnixStream::connect(socket)).await.map_err(ServeError::Io)?;
    splice::join(stream, engine).await.map_err(ServeError::Io)
}

/// Serves one stream of the logs port: what is remembered, then what comes, until the host closes it.
///
/// # Errors
/// See [`ServeError`].
pub async fn follow(mut stream: impl Stream, logs: &Logs) -> Result<(), ServeError> {
    let Some(follow) = first::<v1::Follow>(&mut stream).await? else { return Ok(()) };
    let mut newest = logs.watch();
    let mut after = follow.after_sequence;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        loop {
            newest.borrow_and_update();
            let page = logs.after(after, PAGE);
            let Some(last) = page.last() else {
                // The memory ends with the agent only.
                if newest.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            };
            after = last.sequence;
            for record in &page {
                frame::write(&mut writer, record).await?;
            }
        }
    };
    let mut sink = tokio::io::sink();
    tokio::select! {
        sent = sending => sent,
        // Nothing is expected from the host but its end.
        ended = tokio::io::copy(&mut reader, &mut sink) => ended.map(drop).map_err(ServeError::Io),
    }
}

#[cfg(test)]
mod tests;
