//! What the host's settings and files make of the guest: kept whole, put in force as soon as what it needs is there.
//!
//! ```text
//!   host: Configure ─┐
//!                    ├─▶ names and packet filter as the host says        boot: the engine starts after the first of these
//!   network is up  ──┘   until then, and on a host without a word: nothing of the host can be reached
//! ```

use std::{
    io,
    net::SocketAddrV4,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use slipway_protocol::v1::Configure;
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{names, names::Names, netfilter, network::Network, reaper::Reaper};

/// See the module.
#[derive(Debug)]
pub struct Configuration {
    wanted: Mutex<Wanted>,
    told: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Wanted {
    reach_host: bool,
    /// Where there is a network to configure; never in the agent that runs on a host.
    network: Option<Up>,
}

#[derive(Debug)]
struct Up {
    network: Network,
    names: SocketAddrV4,
    reach_host: Arc<AtomicBool>,
    _answering: AbortOnDropHandle<()>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { wanted: Mutex::default(), told: watch::Sender::new(false) }
    }
}

impl Configuration {
    /// Waits until the host has said something; false when it did not in time. Cancel-safe.
    pub(crate) async fn told(&self, patience: Duration) -> bool {
        let mut told = self.told.subscribe();
        timeout(patience, told.wait_for(|told| *told)).await.is_ok_and(|told| told.is_ok())
    }

    /// Puts in force what the host says.
    ///
    /// # Errors
    /// What could not be.
    pub(crate) async fn set(&self, configure: Configure, reaper: &Reaper) -> io::Result<()> {
        let mut wanted = self.wanted.lock().await;
        wanted.reach_host = configure.reach_host;
        let done = match &wanted.network {
            Some(up) => up.open(configure.reach_host, false, reaper).await,
            None => Ok(()),
        };
        self.told.send_replace(true);
        done
    }

    /// The network can be used: what was said before comes in force, and names are answered from now on.
    ///
    /// # Errors
    /// What could not be put in force.
    pub(crate) async fn network_is_up(&self, network: &Network, reaper: &Reaper) -> io::Result<()> {
        let mut wanted = self.wanted.lock().await;
        let reach_host = Arc::new(AtomicBool::new(false));
        let server = Names::listen(network, Arc::clone(&reach_host)).await.map_err(|error| {
            io::Error::new(error.kind(), format!("failed to listen for questions about names: {error}"))
        })?;
        let up = Up {
            network: network.clone(),
            names: SocketAddrV4::new(network.address, names::PORT),
            reach_host,
            _answering: AbortOnDropHandle::new(tokio::spawn(server.run())),
        };
        let done = up.open(wanted.reach_host, true, reaper).await;
        wanted.network = Some(up);
        done
    }
}

impl Up {
    async fn open(&self, reach_host: bool, first: bool, reaper: &Reaper) -> io::Result<()> {
        // A name that leads nowhere is better than an address that does not.
        self.reach_host.store(reach_host, Ordering::Relaxed);
        netfilter::apply(&self.network, self.names, reach_host, first, reaper).await
    }
}
