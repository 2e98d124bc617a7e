//! Linux: the share server as the shim's child, started before the VM, asked one thing at a time, gone with the shim.

use std::{io, os::fd::OwnedFd, path::Path, process::Stdio, sync::Arc, time::Duration};

use bytes::Bytes;
use slipway_protocol::ports::FILE_EVENTS;
use slipway_share::{
    packets,
    wire::{Answer, Call},
};
use slipway_vsock::Transport;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{ShareConfig, failed};
use crate::{server::Act, wire::packets::Peer};

/// How long the share server may take to be confined and to open what is shared.
const START: Duration = Duration::from_secs(10);
/// How long it may take for an answer: a large folder is walked before it is watched.
const PATIENCE: Duration = Duration::from_secs(60);

type Asked = (Call, Option<OwnedFd>, oneshot::Sender<Answer>);

/// Asks the share server. Clones ask the same one.
#[derive(Clone)]
pub(crate) struct Share {
    calls: mpsc::Sender<Asked>,
    transport: Option<Arc<dyn Transport>>,
}

impl Share {
    /// Starts `exe share`, confined, and waits until it listens.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub(crate) async fn start(exe: &Path, config: &ShareConfig, tasks: &TaskTracker) -> Result<Self, String> {
        let said = |error: io::Error| format!("failed to start the share server: {error}");
        let (ours, theirs) = packets::pair().map_err(said)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| said(e.into()))?;
        let socket = Peer::from_fd(ours).map_err(said)?;
        let child = Command::new(exe)
            .arg("share")
            .stdin(Stdio::from(theirs))
            .kill_on_drop(true)
            .spawn()
            .map_err(said)?;
        let ShareConfig { socket: device, exports, hidden } = config.clone();
        let start = Call::Start { socket: device, exports, hidden };
        let answer = timeout(START, ask(&socket, &start, None)).await;
        match answer.unwrap_or_else(|_| failed("silent", "the share server does not answer")) {
            Answer::Status(status) => {
                for (id, why) in &status.failed {
                    tracing::warn!(id, why, "not shared");
                }
                tracing::info!(pid = status.sandbox.pid, "the share server is confined");
            }
            Answer::Failed { message, .. } => return Err(message),
            Answer::Done => return Err("the share server does not say how it is confined".into()),
        }
        let (calls, asked) = mpsc::channel(16);
        tasks.spawn(serve(child, socket, asked));
        Ok(Self { calls, transport: None })
    }

    /// With the way into the guest, for its events. The machine itself is asked nothing.
    pub(crate) fn with_machine(mut self, transport: Arc<dyn Transport>, _acts: mpsc::Sender<Act>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Asks one thing. [`Call::Events`] makes the stream first.
    pub(crate) async fn ask(&self, call: Call) -> Answer {
        let fd = match (&call, &self.transport) {
            (Call::Events, Some(transport)) => match events(&**transport).await {
                Ok(stream) => Some(stream),
                Err(why) => return failed("events", why),
            },
            (Call::Start { .. }, _) => return failed("invalid", "it has started already"),
            _ => None,
        };
        let gone = || failed("gone", "the share server has ended; `slipway restart` brings it back");
        let (reply, answer) = oneshot::channel();
        if self.calls.send((call, fd, reply)).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

/// A stream of events into the guest; the end that the share server gets.
async fn events(transport: &dyn Transport) -> Result<OwnedFd, String> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|e| e.to_string())?;
    let spliced = transport.splice(FILE_EVENTS, theirs.into(), Bytes::new()).await;
    spliced.map(|()| ours.into()).map_err(|(error, _)| error.to_string())
}

/// Owns the child: asks it what comes, in order, until the last asker is gone or it ends.
async fn serve(mut child: Child, socket: Peer, mut asked: mpsc::Receiver<Asked>) {
    loop {
        let (call, fd, reply) = tokio::select! {
            asked = asked.recv() => match asked {
                Some(asked) => asked,
                None => break,
            },
            ended = child.wait() => {
                tracing::warn!(?ended, "the share server ended");
                return;
            }
        };
        let answer = match timeout(PATIENCE, ask(&socket, &call, fd)).await {
            Ok(answer) => answer,
            Err(_) => {
                // Its next word would answer another question.
                tracing::error!("the share server does not answer");
                break;
            }
        };
        // An asker that has left needs no answer.
        let _ = reply.send(answer);
    }
    let _ = child.kill().await;
}

async fn ask(socket: &Peer, call: &Call, fd: Option<OwnedFd>) -> Answer {
    let broken = |error: io::Error| failed("gone", format!("the share server cannot be asked: {error}"));
    if let Err(error) = socket.send(call, fd.as_ref()).await {
        return broken(error);
    }
    match socket.receive::<Answer>().await {
        Ok(Some((answer, _))) => answer,
        Ok(None) => failed("gone", "the share server has ended"),
        Err(error) => broken(error),
    }
}
