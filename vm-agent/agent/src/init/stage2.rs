//! PID 1 on the real root: mounts, disks, network, services, and the conversation with the host; see the module above.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use slipway_protocol::v1::PhaseState;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{STAGE1_AT, emulators, load_module, mounts, power, power::Running};
use crate::{
    clock,
    configuration::Configuration,
    data_disk, emulation, engine,
    guest::{self, ServiceSpec},
    iptables,
    listen::{self, Listener},
    logs::Logs,
    network::{self, Asked, Network, dhcp},
    phases::Board,
    ports::{self, Ports},
    reaper::Reaper,
    serve::Guest,
    service::Keeper,
    shares::Shares,
    splice,
};

/// How long the data disk may take to appear.
const DISK_PATIENCE: Duration = Duration::from_secs(20);
/// How long the network card may take to appear after its module was loaded.
const CARD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the network may take to give an address, where it is to give one. The boot goes on without, and the address is taken later.
const LEASE_PATIENCE: Duration = Duration::from_secs(15);
/// The network card.
const CARD: &str = "eth0";
/// How long the host may take to say what it shares.
const SHARES_PATIENCE: Duration = Duration::from_secs(10);
/// How long the host may take to say what its settings are.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(10);
/// Name and socket of the service that the engine builds on.
const CONTAINERD: (&str, &str) = ("containerd", "/run/containerd/containerd.sock");
/// Streams take two descriptors each.
const DESCRIPTORS: Rlimit = Rlimit { current: Some(1 << 19), maximum: Some(1 << 19) };

/// Never returns when all goes well.
pub fn run() -> ExitCode {
    let boot = Boot { board: Arc::new(Board::new()), logs: Arc::new(Logs::new()), reaper: Reaper::new(true) };
    let stage1 = std::env::var(STAGE1_AT).ok().and_then(|at| at.parse().ok()).unwrap_or_else(clock::boot_ms);
    boot.board.begin_at("kernel", 0);
    boot.board.end_at("kernel", stage1, PhaseState::Done, "");
    boot.board.begin_at("mounts", stage1);
    match mounts::base() {
        Ok(()) => boot.board.end("mounts", PhaseState::Done, ""),
        Err(error) => boot.board.end("mounts", PhaseState::Failed, error.to_string()),
    }
    mounts::sysctls();
    let _ = rustix::system::sethostname(b"slipway");
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = setrlimit(Resource::Nofile, DESCRIPTORS);
    let _ = setrlimit(Resource::Nproc, Rlimit { current: None, maximum: None });
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if emulation::is_software() {
        // QEMU emulates all processors in one thread: waking a second one is work, and nobody is the faster for it.
        runtime.worker_threads(1);
    }
    let ended = runtime.enable_all().build().and_then(|runtime| runtime.block_on(boot.serve()));
    if let Err(error) = ended {
        eprintln!("slipway-agent: failed: {error}");
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    ExitCode::FAILURE
}

/// Addresses that the network gives.
struct Leases {
    client: dhcp::Client,
    /// The last one, if there was any.
    network: Option<Network>,
    /// What went wrong with the network before.
    wrong: Vec<String>,
}

struct Boot {
    board: Arc<Board>,
    logs: Arc<Logs>,
    reaper: Arc<Reaper>,
}

impl Boot {
    async fn serve(self) -> std::io::Result<()> {
        let (tell, mut power_off) = mpsc::channel(1);
        let data = mounts::data_target()?.to_owned();
        let guest = Arc::new(Guest {
            board: Arc::clone(&self.board),
            logs: Arc::clone(&self.logs),
            data: data.clone(),
            power_off: tell,
            set_clock: clock::set_unix_nanos,
            reaper: Arc::clone(&self.reaper),
            engine: PathBuf::from(engine::SOCKET),
            ports: Ports::default(),
            shares: Shares::new(),
            configuration: Configuration::of_guest(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self.reaper).run());
        for port in listen::ports() {
            tasks.spawn(listen::run(Listener::vsock(port)?, port, Arc::clone(&guest)));
        }
        let (ports, logs) = (guest.ports.clone(), Arc::clone(&self.logs));
        tasks.spawn(async move { ports::local::run(Path::new(ports::local::SOCKET), ports, &logs).await });
        let (ports, logs) = (guest.ports.clone(), Arc::clone(&self.logs));
        tasks.spawn(async move { ports::watcher::run(ports::watcher::CGROUPS.into(), ports, &logs).await });
        let (reaper, logs) = (Arc::clone(&self.reaper), Arc::clone(&self.logs));
        tasks.spawn(async move { iptables::server::run(reaper, &logs).await });
        let logs = Arc::clone(&self.logs);
        // A thread, because /dev/kmsg blocks; it ends with the machine.
        std::thread::Builder::new().name("kmsg".into()).spawn(move || logs.collect_kernel())?;

        let (mut services, mut disk) = (Vec::new(), None);
        let mut booting = JoinSet::new();
        let (arrived, mut arrivals) = mpsc::channel(8);
        let boot = Arc::new(self);
        booting.spawn(Arc::clone(&boot).bring_up(data, Arc::clone(&guest), arrived));
        let time = loop {
            tokio::select! {
                time = power_off.recv() => break time.unwrap_or(0),
                Some(arrival) = arrivals.recv() => match arrival {
                    Arrival::Disk(path) => disk = Some(path),
                    Arrival::Service(service) => services.push(service),
                },
                // A listener that ended means that the host is cut off: the host sees that, and stops the machine.
                Some(ended) = tasks.join_next() => boot.logs.say(format!("a task of the agent ended: {ended:?}")),
            }
        };
        booting.shutdown().await;
        power::off(services, disk.as_deref(), Duration::from_millis(time.into()), &boot.logs).await;
        Ok(())
    }

    /// Everything between the mounts and the first image. What must be undone at power-off is sent to `arrived`.
    async fn bring_up(self: Arc<Self>, data: PathBuf, guest: Arc<Guest>, arrived: mpsc::Sender<Arrival>) {
        let image = match guest::load() {
            Ok(image) => image,
            Err(error) => {
                self.board.end("data-disk", PhaseState::Failed, error.to_string());
                return;
            }
        };
        let guest::Guest { modules, modules_hyperv, services, images, file_events, file_events_missing } =
            image;
        let modules = if emulation::is_hyperv() { modules_hyperv } else { modules };
        let file_events = file_events.ok_or(file_events_missing);
        let network = {
            let (boot, guest) = (Arc::clone(&self), Arc::clone(&guest));
            async move { boot.network(modules, &guest).await }
        };
        let disk = async {
            if !self.data_disk(&data).await {
                return None;
            }
            let _ = arrived.send(Arrival::Disk(data.clone())).await;
            let (first, later): (Vec<_>, Vec<_>) = services.into_iter().partition(|s| s.name == CONTAINERD.0);
            if !first.is_empty() {
                self.board.begin(CONTAINERD.0);
            }
            for spec in first {
                let _ = arrived.send(Arrival::Service(self.keep(spec, &guest))).await;
            }
            Some(later)
        };
        // Containers that start with the engine find their folders.
        let shares = self.shares(&guest, file_events);
        let settings = async {
            match guest.configuration.ready(SETTINGS_PATIENCE, &self.reaper).await {
                Ok(true) => {}
                Ok(false) => self
                    .logs
                    .say("the host did not say what its settings are; the engine starts without them"),
                Err(error) => self.logs.say(format!("failed to write the engine's own files: {error}")),
            }
        };
        let (later, leases, (), ()) = tokio::join!(disk, network, shares, settings);
        let Some(later) = later else { return };
        for spec in later {
            let _ = arrived.send(Arrival::Service(self.keep(spec, &guest))).await;
        }
        let socket = Path::new(engine::SOCKET);
        let engine = async {
            let version = engine::answers(&self.board, &self.logs, socket).await;
            // Before the host hears of the engine: what comes with the image is there for the first `docker run`.
            self.images(&images, &data).await;
            self.board.engine_ready(&version);
            let watched = async {
                engine::lost(&self.board, &self.logs, socket).await;
                engine::watch(&self.board, &self.logs, socket).await;
            };
            // From here on, so that nobody asks an engine that is not there yet; and it ends before the engine is to end, which
            // waits for whoever listens to its events.
            tokio::join!(watched, ports::ingress::run(socket, guest.ports.clone()));
        };
        let leases = async {
            if let Some(leases) = leases {
                self.leases(leases, &guest).await;
            }
        };
        tokio::join!(self.containerd(), engine, leases);
    }

    async fn data_disk(&self, target: &Path) -> bool {
        self.board.begin("data-disk");
        let deadline = Instant::now() + DISK_PATIENCE;
        let device = loop {
            match data_disk::of_host(data_disk::DATA) {
                Some(device) => break Ok(device),
                None if Instant::now() > deadline => break Err(data_disk::DiskError::Missing),
                None => sleep(Duration::from_millis(2)).await,
            }
        };
        let prepared = match device {
            Ok(device) => data_disk::prepare(&device, target, &self.reaper).await,
            Err(missing) => Err(missing),
        };
        let done = prepared.map_err(|e| e.to_string()).and_then(|done| {
            let made = mounts::engine_folders(target);
            made.map(|()| done)
                .map_err(|e| format!("failed to put the engine's folders on the data disk: {e}"))
        });
        match done {
            Ok(done) => {
                self.board.end("data-disk", PhaseState::Done, done);
                true
            }
            Err(error) => {
                self.logs.say(&error);
                self.board.end("data-disk", PhaseState::Failed, error);
                false
            }
        }
    }

    /// Loads the modules, registers the emulators and configures the network. Without one of them something may not work;
    /// without all nothing stops. Where the network gives the address, it may give another one later: who hears of that is returned.
    async fn network(self: Arc<Self>, modules: Vec<String>, guest: &Guest) -> Option<Leases> {
        self.board.begin("network");
        let boot = Arc::clone(&self);
        let loaded = tokio::task::spawn_blocking(move || {
            let mut wrong = boot.modules(&modules);
            if let Err(error) = splice::loaded() {
                boot.logs.say(format!("streams are copied, for want of {}: {error}", splice::DEVICE));
            }
            wrong.extend(emulators::register());
            wrong
        });
        let loaded = loaded.await;
        let wrong = loaded.unwrap_or_else(|error| vec![error.to_string()]);
        // Again, because some keys appear with their modules.
        mounts::sysctls();
        let deadline = Instant::now() + CARD_PATIENCE;
        while !Path::new("/sys/class/net").join(CARD).exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(2)).await;
        }
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let (given, client) = match Asked::from_cmdline(&cmdline) {
            Asked::Host(network) => (Ok(network), None),
            Asked::Network => match network::bring_up(CARD)
                .and_then(|()| dhcp::Client::start(CARD, &self.reaper))
            {
                Ok(mut client) => {
                    let given = timeout(LEASE_PATIENCE, client.lease()).await.unwrap_or_else(|_| {
                        let why = format!("the network gave no address in {} s", LEASE_PATIENCE.as_secs());
                        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
                    });
                    (given, Some(client))
                }
                Err(error) => (Err(error), None),
            },
        };
        let network = match given {
            Ok(network) => {
                self.attach(&network, &wrong, guest).await;
                Some(network)
            }
            Err(error) => {
                self.attached("", [wrong.clone(), vec![error.to_string()]].concat());
                None
            }
        };
        client.map(|client| Leases { client, network, wrong })
    }

    /// Takes each address that is another one than before, until the client ends.
    async fn leases(&self, mut leases: Leases, guest: &Guest) {
        loop {
            match leases.client.lease().await {
                Ok(network) if leases.network.as_ref() == Some(&network) => {}
                Ok(network) => {
                    self.logs.say(format!("the network gave {}", network.address));
                    self.attach(&network, &leases.wrong, guest).await;
                    leases.network = Some(network);
                }
                Err(error) => return self.logs.say(format!("{error}: the address stays as it is")),
            }
        }
    }

    /// Puts a network in force. `wrong`: what has failed before.
    async fn attach(&self, network: &Network, wrong: &[String], guest: &Guest) {
        let applied = network.apply(CARD);
        let known = guest.configuration.network_is_up(network, &self.reaper).await;
        let failed =
            [applied, known].into_iter().filter_map(|done| done.err().map(|error| error.to_string()));
        self.attached(&network.address.to_string(), wrong.iter().cloned().chain(failed).collect());
    }

    fn attached(&self, address: &str, wrong: Vec<String>) {
        if wrong.is_empty() {
            self.board.end("network", PhaseState::Done, address);
        } else {
            self.logs.say(wrong.join("; "));
            self.board.end("network", PhaseState::Degraded, wrong.join("; "));
        }
    }

    /// Loads what the image lists, in its order; returns what failed.
    fn modules(&self, listed: &[String]) -> Vec<String> {
        let base = modules_dir();
        let failed = |module: &String| match load_module(&base.join(module)) {
            Ok(()) => None,
            Err(error) => Some(format!("failed to load {module}: {error}")),
        };
        listed.iter().filter_map(failed).collect()
    }

    /// Waits until the host has said what it shares. A guest without it works, but for what needs it.
    async fn shares(&self, guest: &Guest, module: Result<PathBuf, String>) {
        if !guest.shares.can_be_had() {
            return;
        }
        self.board.begin("shares");
        let loaded = match module {
            Ok(path) => {
                let path = modules_dir().join(path);
                let loaded = tokio::task::spawn_blocking(move || {
                    load_module(&path).map_err(|error| format!("failed to load {}: {error}", path.display()))
                });
                loaded.await.unwrap_or_else(|error| Err(error.to_string()))
            }
            Err(why) if why.is_empty() => Err("the image has no module for events".into()),
            Err(why) => Err(format!("the image was built without the module for events: {why}")),
        };
        guest.shares.events.set(loaded);
        if !guest.shares.told(SHARES_PATIENCE).await {
            self.board.end("shares", PhaseState::Degraded, "the host did not say what it shares");
            return;
        }
        match guest.shares.events.why_not() {
            None => self.board.end("shares", PhaseState::Done, ""),
            Some(why) => {
                let why = format!("changes on the host show as changes of attributes only: {why}");
                self.logs.say(&why);
                self.board.end("shares", PhaseState::Degraded, why);
            }
        }
    }

    fn keep(&self, spec: ServiceSpec, guest: &Guest) -> Running {
        let keeper = Keeper {
            reaper: Arc::clone(&self.reaper),
            board: Arc::clone(&self.board),
            logs: Arc::clone(&self.logs),
            environment: guest.configuration.environment(),
        };
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        let name = spec.name.clone();
        task.spawn(keeper.keep(spec, stopped, watch::Sender::new(false)));
        Running { name, stop, task }
    }

    async fn containerd(&self) {
        let deadline = Instant::now() + engine::DEADLINE;
        while tokio::net::UnixStream::connect(CONTAINERD.1).await.is_err() {
            if Instant::now() > deadline {
                let why = format!("it does not listen\n{}", self.logs.tail(CONTAINERD.0, 20));
                self.board.end(CONTAINERD.0, PhaseState::Failed, why);
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.board.end(CONTAINERD.0, PhaseState::Done, "");
    }

    /// Gives the engine the image's own images, each content once: one that was removed on purpose does not come back.
    async fn images(&self, archives: &[PathBuf], data: &Path) {
        self.board.begin("images");
        let marks = data.join("slipway/images");
        let mut wrong = Vec::new();
        for archive in archives {
            if let Err(error) = self.image(archive, &marks).await {
                wrong.push(format!("failed to load {}: {error}", archive.display()));
            }
        }
        if wrong.is_empty() {
            self.board.end("images", PhaseState::Done, "");
        } else {
            self.logs.say(wrong.join("; "));
            self.board.end("images", PhaseState::Degraded, wrong.join("; "));
        }
    }

    async fn image(&self, archive: &Path, marks: &Path) -> std::io::Result<()> {
        let bytes = tokio::fs::read(archive).await?;
        // FNV-1a, to tell contents apart; nothing rests on its being hard to forge.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mark = marks.join(format!("{hash:016x}"));
        if mark.exists() {
            return Ok(());
        }
        engine::load(Path::new(engine::SOCKET), &bytes).await?;
        std::fs::create_dir_all(marks)?;
        std::fs::write(mark, archive.as_os_str().as_encoded_bytes())
    }
}

/// Where this kernel's modules are.
fn modules_dir() -> PathBuf {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Path::new("/usr/lib/modules").join(release.trim())
}

/// What the way down has to undo.
enum Arrival {
    Disk(PathBuf),
    Service(Running),
}
