//! What the host's settings and files make of the guest: kept whole, put in force as soon as what it needs is there.
//!
//! ```text
//!   host: Configure ─┬─▶ files that the engine reads, its environment      boot: the engine starts after the first of these
//!                    ├─▶ names and packet filter as the host says
//!   network is up  ──┘   until then nothing of the host can be reached
//! ```

mod dockerd;
mod proxies;
mod trust;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use slipway_protocol::v1::{Configure, HostName, Proxies};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    names::{self, HostResolver, Known, Names},
    netfilter::{self, Opening},
    network::Network,
    phases::Board,
    reaper::Reaper,
};

/// Where the files are that the engine reads; the image's links and the engine's environment name it.
const FILES: &str = "/run/slipway/engine";
/// What every program of the guest reads; `/etc/resolv.conf` leads there.
const RESOLV_CONF: &str = "/run/resolv.conf";
/// The service that reads its file anew at SIGHUP.
const ENGINE: &str = "dockerd";

/// See the module.
#[derive(Debug)]
pub struct Configuration {
    /// Where files go; `None` in the agent that runs on a host, which is not its to configure.
    files: Option<PathBuf>,
    state: Mutex<State>,
    /// The host has said something, which is being put in force or is.
    heard: watch::Sender<bool>,
    /// What services find in their environment when they start.
    environment: watch::Sender<Vec<String>>,
    /// What the host says about names.
    known: watch::Sender<Known>,
    /// Asks the host for those that it says nothing about.
    pub(crate) resolver: Arc<HostResolver>,
}

#[derive(Debug, Default)]
struct State {
    reach_host: bool,
    host_names: Vec<HostName>,
    search: Vec<String>,
    proxies: Proxies,
    /// The host's additions to dockerd's configuration, once it is written.
    engine_config: Option<String>,
    network: Option<Up>,
    /// Packets are led to our rules, which is done once.
    led: bool,
}

impl State {
    /// The host as containers see it, once that is known.
    fn gateway(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().map(|up| up.network.gateway)
    }
}

#[derive(Debug)]
struct Up {
    network: Network,
    names: SocketAddrV4,
    answering: AbortOnDropHandle<()>,
}

impl Configuration {
    /// Of the guest.
    pub(crate) fn of_guest() -> Self {
        Self { files: Some(FILES.into()), ..Self::of_nothing() }
    }

    /// Of a place that is not the agent's to configure.
    pub(crate) fn of_nothing() -> Self {
        Self {
            files: None,
            state: Mutex::default(),
            heard: watch::Sender::new(false),
            environment: watch::Sender::default(),
            known: watch::Sender::default(),
            resolver: Arc::default(),
        }
    }

    /// Waits until what the host says is in force. When it says nothing in time, what the engine reads is written without it, and
    /// the answer is false.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) async fn ready(&self, patience: Duration, reaper: &Reaper) -> io::Result<bool> {
        let mut heard = self.heard.subscribe();
        // The sender lives in this; in vain is what the next line sees.
        let _ = timeout(patience, heard.wait_for(|heard| *heard)).await;
        // Whoever was heard has the lock until all is written, and that may take longer than hearing: dockerd is asked.
        let mut state = self.state.lock().await;
        let heard = *heard.borrow();
        if !heard {
            self.write(&Configure::default(), &mut state, reaper).await?;
        }
        Ok(heard)
    }

    /// What services find in their environment when they start.
    pub(crate) fn environment(&self) -> watch::Receiver<Vec<String>> {
        self.environment.subscribe()
    }

    /// Puts in force what the host says; a running engine is told if it is to read its file anew.
    ///
    /// # Errors
    /// What could not be; the rest is in force.
    pub(crate) async fn set(&self, configure: Configure, reaper: &Reaper, board: &Board) -> io::Result<()> {
        let mut state = self.state.lock().await;
        self.heard.send_replace(true);
        let written = self.write(&configure, &mut state, reaper).await;
        state.reach_host = configure.reach_host;
        state.host_names = configure.host_names;
        state.search = configure.search;
        state.proxies = configure.proxies.unwrap_or_default();
        let opened = self.open(&state, false, reaper).await;
        if *written.as_ref().unwrap_or(&false)
            && let Some(engine) = board.snapshot().services.iter().find(|service| service.name == ENGINE)
        {
            reaper.signal(i32::try_from(engine.pid).unwrap_or(0), Signal::HUP);
        }
        written.and(opened)
    }

    /// The network can be used, or is another one from now on: what was said before comes in force, and names are answered.
    ///
    /// # Errors
    /// What could not be put in force.
    pub(crate) async fn network_is_up(&self, network: &Network, reaper: &Reaper) -> io::Result<()> {
        let mut state = self.state.lock().await;
        // Who answered on another one before makes room, which may be at the same address.
        if let Some(Up { answering, .. }) = state.network.take() {
            answering.abort();
            let _ = answering.await;
        }
        let listening = Names::listen(network, self.known.subscribe(), Arc::clone(&self.resolver)).await;
        let server = listening.map_err(|error| {
            io::Error::new(error.kind(), format!("failed to listen for questions about names: {error}"))
        })?;
        state.network = Some(Up {
            network: network.clone(),
            names: SocketAddrV4::new(network.address, names::PORT),
            answering: AbortOnDropHandle::new(tokio::spawn(server.run())),
        });
        let rewritten = match (&self.files, &state.engine_config) {
            // A running engine does not read this anew, and containers that are there keep what they have.
            (Some(root), Some(addition)) => {
                dockerd::write(root, addition, state.gateway(), reaper).await.map(drop)
            }
            _ => Ok(()),
        };
        let opened = self.open(&state, !state.led, reaper).await;
        state.led |= opened.is_ok();
        rewritten.and(opened)
    }

    /// Opens the network as far as the host says.
    async fn open(&self, state: &State, first: bool, reaper: &Reaper) -> io::Result<()> {
        let Some(up) = &state.network else { return Ok(()) };
        let (variables, proxy_ports) = proxies::environment(&state.proxies, up.network.gateway);
        self.environment.send_replace(variables);
        if self.files.is_some() {
            // Containers get a copy when they are made.
            replace(
                Path::new(RESOLV_CONF),
                names::resolv_conf(up.network.resolver, &state.search).as_bytes(),
            )?;
        }
        // A name that leads nowhere is better than an address that does not.
        self.known.send_replace(Known::new(state.reach_host, &state.host_names));
        let opening = Opening { names: up.names, reach_host: state.reach_host, proxy_ports };
        netfilter::apply(&up.network, &opening, first, reaper).await
    }

    /// Writes the engine's files; says whether it is to read its configuration anew.
    async fn write(&self, configure: &Configure, state: &mut State, reaper: &Reaper) -> io::Result<bool> {
        let Some(root) = &self.files else { return Ok(false) };
        fs::create_dir_all(root)?;
        let trusted = trust::write(root, &configure.authorities, &configure.registry_files);
        let configured = dockerd::write(root, &configure.engine_config, state.gateway(), reaper).await;
        state.engine_config = Some(configure.engine_config.clone());
        trusted.and(configured)
    }
}

/// Replaces a file whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, bytes)?;
    fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when the engine takes long to judge its own configuration, while an emulated machine boots.
    #[tokio::test]
    async fn what_was_heard_is_waited_for_however_long_it_takes_and_not_written_over() {
        let files = tempfile::tempdir().expect("folder");
        let (reaper, board) = (Reaper::new(false), Board::new());
        let configuration = Configuration { files: Some(files.path().into()), ..Configuration::of_nothing() };
        let pem = || std::fs::read(files.path().join("authorities.pem")).expect("written");
        let patience = Duration::from_millis(20);
        let asked = Configure { authorities: b"the host's".to_vec(), ..Configure::default() };
        let slow = async {
            let mut state = configuration.state.lock().await;
            configuration.heard.send_replace(true);
            tokio::time::sleep(patience * 10).await;
            configuration.write(&asked, &mut state, &reaper).await.expect("written");
            drop(state);
        };
        let (ready, ()) = tokio::join!(configuration.ready(patience, &reaper), slow);
        assert!(ready.expect("written"));
        assert_eq!(pem(), b"the host's");

        let silent = Configuration { files: Some(files.path().into()), ..Configuration::of_nothing() };
        assert!(!silent.ready(patience, &reaper).await.expect("written"), "nobody said anything");
        assert_ne!(pem(), b"the host's");
        silent.set(asked, &reaper, &board).await.expect("written");
        assert!(silent.ready(patience, &reaper).await.expect("written"));
        assert_eq!(pem(), b"the host's");
    }
}
