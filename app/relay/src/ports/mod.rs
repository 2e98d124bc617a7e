//! Published ports: listeners on the host whose connections and datagrams go to a container.
//!
//! They live in the shim, so that a daemon that dies takes no listener and no connection with it. A connection is not copied
//! here: its socket is handed to the transport, as the engine's clients are.
//!
//! ```text
//!   publish ─► bind on the host ──┬─ TCP: accept ─► splice to the guest ─► out of our hands
//!                │ refused        └─ UDP: datagrams of all clients ◄─► one stream to the guest
//!                ▼
//!   why, and by whom the port is held          withdraw ─► listener closed ─► answered
//! ```

mod bind;
mod holder;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;
mod tcp;
mod udp;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

pub use bind::{BindError, Holder};
use serde::{Deserialize, Serialize};
use slipway_vsock::Transport;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What travels on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The guest's name for it; never used twice for different ports of one machine.
    pub id: u64,
    /// What travels on it.
    pub protocol: Protocol,
    /// Where the host listens, literally.
    pub host: SocketAddr,
    /// Where it leads, inside the guest: `172.17.0.2:80`.
    pub target: SocketAddr,
}

/// A port that is listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// What was asked for.
    pub spec: PortSpec,
    /// Since when, in milliseconds since the epoch.
    pub since_unix_ms: u64,
    /// False for `::` on a host without IPv6: there is nothing to listen on, and nobody who could connect.
    pub listens: bool,
}

struct Entry {
    port: PublishedPort,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// All published ports of one machine. Dropping it closes the listeners; connections go on with the transport.
pub struct Publisher {
    transport: Arc<dyn Transport>,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("ports", &self.entries().len()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Publishes nothing yet; clients will be led to the guest by `transport`.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, entries: Mutex::new(BTreeMap::new()) }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens. A port that is published already stays as it is. Needs a tokio runtime; looks for whoever holds a taken port,
    /// which blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`BindError`]; nothing is left listening.
    pub fn publish(&self, spec: PortSpec) -> Result<(), BindError> {
        let mut entries = self.entries();
        if entries.get(&spec.id).is_some_and(|entry| entry.port.spec == spec) {
            return Ok(());
        }
        // The same name for another port: the old one is not wanted any more.
        if let Some(old) = entries.remove(&spec.id) {
            old.stop.cancel();
        }
        let stop = CancellationToken::new();
        let task = match spec.protocol {
            Protocol::Tcp => bind::tcp(spec.host)?.map(|listener| {
                tokio::spawn(tcp::run(listener, spec.target, Arc::clone(&self.transport), stop.clone()))
            }),
            Protocol::Udp => bind::udp(spec.host)?.map(|socket| {
                tokio::spawn(udp::run(socket, spec.target, Arc::clone(&self.transport), stop.clone()))
            }),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let port = PublishedPort {
            spec: spec.clone(),
            since_unix_ms: u64::try_from(now).unwrap_or(u64::MAX),
            listens: task.is_some(),
        };
        entries.insert(spec.id, Entry { port, stop, task });
        Ok(())
    }

    /// Stops listening; returns when the port is free. False when there is no such port. Connections go on.
    pub async fn withdraw(&self, id: u64) -> bool {
        let Some(mut entry) = self.entries().remove(&id) else { return false };
        entry.stop.cancel();
        if let Some(task) = entry.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "a published port's task failed");
        }
        true
    }

    /// What is published now, by id.
    pub fn list(&self) -> Vec<PublishedPort> {
        self.entries().values().map(|entry| entry.port.clone()).collect()
    }

    /// Stops listening on everything; returns when all ports are free.
    pub async fn close(&self) {
        let ids: Vec<u64> = self.entries().keys().copied().collect();
        for id in ids {
            self.withdraw(id).await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
