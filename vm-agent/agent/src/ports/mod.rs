//! The ports that the host is to listen on for the guest, and what the host said to each.
//!
//! The guest never dials: the host opens the ports stream, and only on it can the agent ask. So the table outlives every
//! host: whoever comes next is told all of it first, and drops what it holds beyond it.
//!
//! ```text
//!            bind asked (a stand-in, the watcher)
//!                 │                       host answers
//!                 ▼                  ┌──── bound ────▶ BOUND ◀──┐ again, after the host had to give it up
//!              WAITING ──────────────┤                  │       │
//!                 │                  └── failure ─▶ REFUSED ────┘ (a stand-in gives up then, the watcher keeps it)
//!                 │ dropped              dropped        │ dropped
//!                 └───────────────▶ RELEASING ◀─────────┘──── host says released, or is not there ──▶ forgotten
//! ```

mod flows;
pub(crate) mod forward;
pub(crate) mod ingress;
mod listening;
pub(crate) mod local;
mod sockets;
pub mod stand_in;
pub(crate) mod watcher;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slipway_protocol::{
    frame,
    v1::{self, ports_answer, ports_ask},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::serve::{self, ServeError, Stream};

/// How long the host may take to answer a bind. dockerd gives a stand-in 16 s.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a release may take: after it the port is the host's problem, which it solves when it connects again.
const RELEASE: Duration = Duration::from_secs(2);
/// How long an old holder of a port has to vanish when its successor asks: its end is on its way to us.
const SUCCESSION: Duration = Duration::from_secs(1);
/// Asks that wait for the host's stream; a host that is further behind is cut off, and told all when it comes again.
const BEHIND: usize = 1024;

/// What the host said to a port.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Nothing yet.
    None,
    /// It listens.
    Bound,
    /// It does not.
    Refused(v1::Failure),
    /// It listened and does not any more, as was asked.
    Released,
}

#[derive(Debug)]
struct Entry {
    bind: v1::PortBind,
    answer: watch::Sender<Answer>,
    releasing: bool,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    /// The host's stream, while it is open. The only sender, so that taking it away ends the stream.
    host: Option<mpsc::Sender<v1::PortsAsk>>,
    /// Which of the host's streams that is.
    generation: u64,
}

impl Table {
    /// Asks the host, if there is one; whoever comes later is told by the table.
    fn ask(&mut self, ask: ports_ask::Ask) {
        let message = v1::PortsAsk { ask: Some(ask) };
        if self.host.as_ref().is_some_and(|host| host.try_send(message).is_err()) {
            // Ends its stream.
            self.host = None;
        }
    }

    /// A release that no host will hear of is done: the next host closes whatever it does not hear of.
    fn forget_releasing(&mut self) {
        self.entries.retain(|_, entry| {
            if entry.releasing {
                entry.answer.send_replace(Answer::Released);
            }
            !entry.releasing
        });
    }
}

/// All ports of the guest. Clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct Ports(Arc<Mutex<Table>>);

impl Ports {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a port, which is held until the claim is dropped or released. Waits for a stale holder of the same port.
    pub(crate) async fn claim(&self, mut bind: v1::PortBind) -> Claim {
        let same = |other: &v1::PortBind| {
            (other.protocol, &other.host_ip, other.host_port)
                == (bind.protocol, &bind.host_ip, bind.host_port)
        };
        let older = self.table().entries.values().find(|e| same(&e.bind)).map(|e| e.answer.subscribe());
        if let Some(mut older) = older {
            // An error means that it is gone, which is what is waited for.
            let _ = timeout(SUCCESSION, older.wait_for(|answer| *answer == Answer::Released)).await;
        }
        let mut table = self.table();
        table.next += 1;
        bind.id = table.next;
        let (answer, answered) = watch::channel(Answer::None);
        table.entries.insert(bind.id, Entry { bind: bind.clone(), answer, releasing: false });
        let id = bind.id;
        table.ask(ports_ask::Ask::Bind(bind));
        drop(table);
        Claim { ports: self.clone(), id, answered }
    }

    fn answered(&self, answer: v1::PortsAnswer) {
        let mut table = self.table();
        let Some(entry) = table.entries.get(&answer.id) else { return };
        match answer.result {
            Some(ports_answer::Result::Bound(_)) => drop(entry.answer.send_replace(Answer::Bound)),
            Some(ports_answer::Result::Failure(failure)) => {
                entry.answer.send_replace(Answer::Refused(failure));
            }
            Some(ports_answer::Result::Released(_)) if entry.releasing => {
                entry.answer.send_replace(Answer::Released);
                table.entries.remove(&answer.id);
            }
            // Of a newer protocol, or to a release that nobody asked for.
            Some(ports_answer::Result::Released(_)) | None => {}
        }
    }

    fn release(&self, id: u64) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(&id) else { return };
        if std::mem::replace(&mut entry.releasing, true) {
            return;
        }
        table.ask(ports_ask::Ask::Release(v1::PortRelease { id }));
        if table.host.is_none() {
            table.forget_releasing();
        }
    }

    /// Makes a new stream the one that is asked: its number, what comes first on it, and what comes then.
    fn connected(&self) -> (u64, Vec<v1::PortsAsk>, mpsc::Receiver<v1::PortsAsk>) {
        let (host, asked) = mpsc::channel(BEHIND);
        let mut table = self.table();
        table.forget_releasing();
        let binds = table.entries.values().map(|e| ports_ask::Ask::Bind(e.bind.clone()));
        let synced = ports_ask::Ask::Synced(v1::PortsSynced {});
        let asks = binds.chain([synced]).map(|ask| v1::PortsAsk { ask: Some(ask) }).collect();
        table.host = Some(host);
        table.generation += 1;
        (table.generation, asks, asked)
    }

    /// Serves one ports stream until the host closes it, or another host comes.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(&self, mut stream: impl Stream) -> Result<(), ServeError> {
        if serve::first::<v1::Publish>(&mut stream).await?.is_none() {
            return Ok(());
        }
        let (generation, all, mut asked) = self.connected();
        let _gone = Disconnect { ports: self, generation };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let asking = async {
            for ask in &all {
                frame::write(&mut writer, ask).await?;
            }
            while let Some(ask) = asked.recv().await {
                frame::write(&mut writer, &ask).await?;
            }
            Ok::<_, ServeError>(())
        };
        let answers = async {
            while let Some(answer) = frame::read::<v1::PortsAnswer, _>(&mut reader).await? {
                self.answered(answer);
            }
            Ok::<_, ServeError>(())
        };
        // Either end is the end of both.
        tokio::select! {
            asked = asking => asked,
            answered = answers => answered,
        }
    }
}

/// The end of a host's stream, however it comes.
struct Disconnect<'a> {
    ports: &'a Ports,
    generation: u64,
}

impl Drop for Disconnect<'_> {
    fn drop(&mut self) {
        let mut table = self.ports.table();
        if table.generation == self.generation {
            table.host = None;
            table.forget_releasing();
        }
    }
}

/// A port that is asked for or held. Dropping it gives the port up.
#[derive(Debug)]
pub(crate) struct Claim {
    ports: Ports,
    id: u64,
    answered: watch::Receiver<Answer>,
}

impl Claim {
    /// Waits for the host's answer. Cancel-safe.
    ///
    /// # Errors
    /// Why the host does not listen, or that it does not answer.
    pub(crate) async fn bound(&mut self) -> Result<(), v1::Failure> {
        let answer = timeout(ANSWER, self.answered.wait_for(|answer| *answer != Answer::None)).await;
        let silent = || v1::Failure {
            code: "host-silent".into(),
            message: format!("slipway on the host did not answer in {} s", ANSWER.as_secs()),
            hint: "run `slipway status` on the host".into(),
        };
        match answer {
            Ok(Ok(answer)) => match &*answer {
                Answer::Bound => Ok(()),
                Answer::Refused(failure) => Err(failure.clone()),
                Answer::None | Answer::Released => Err(silent()),
            },
            Ok(Err(_)) | Err(_) => Err(silent()),
        }
    }

    /// Gives the port up and waits until the host has closed it; when this returns the port is free, or the host is away.
    pub(crate) async fn release(mut self) {
        self.ports.release(self.id);
        // An error means that the entry is gone.
        let _ = timeout(RELEASE, self.answered.wait_for(|answer| *answer == Answer::Released)).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.ports.release(self.id);
    }
}

#[cfg(test)]
mod tests;
