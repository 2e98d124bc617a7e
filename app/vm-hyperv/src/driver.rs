//! Hyper-V as a driver.
//!
//! ```text
//!   probe: load computecore.dll ─► does the service answer this user?
//!   start: endpoint on a network ─► root image as VHD ─► files granted to the machine ─► created from its document ─► started ─► Machine
//!          (any failure: the system's handle closes, HCS takes down what there was, and the endpoint goes)
//! ```

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::Deserialize;
use slipway_vm::{
    Accel, AccelChoice, Capabilities, Driver, DriverError, ExitReason, GuestArch, Machine, MachineSpec,
    SharedFolder, Stall,
    console::{self, Tail},
};
use slipway_vsock::{Transport, af_hyperv::HyperVSocket, pipe};
use tokio::{
    net::windows::named_pipe::ServerOptions,
    sync::watch,
    task::{JoinSet, spawn_blocking},
};

use crate::{
    document::{self, Host, ShareChange},
    exit,
    hcn::{Endpoint, Hcn, HcnError},
    hcs::{self, Act, Hcs, HcsError, System},
    library::LibraryError,
    network::{self, Adapter},
    vhd,
};

/// How long HCS may take to create, start or change a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Machines that this process started: what the last one left may still be closing when the next one starts.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// Where the driver finds things.
#[derive(Debug, Clone, Default)]
pub struct HypervConfig {
    /// Another `computecore.dll` than the system's, with a `computenetwork.dll` beside it, for tests.
    pub dll: Option<PathBuf>,
    /// What the machine's image is for.
    pub guest: GuestArch,
}

/// Hyper-V as a [`Driver`].
#[derive(Debug)]
pub struct HypervDriver {
    config: HypervConfig,
}

impl HypervDriver {
    /// A driver; nothing is loaded yet.
    pub fn new(config: HypervConfig) -> Self {
        Self { config }
    }

    async fn service(&self) -> Result<Arc<Hcs>, DriverError> {
        let dll = self.config.dll.clone();
        blocking("ask the Host Compute Service", move || {
            let hcs = Hcs::load(dll.as_deref())?;
            hcs.service_properties()?;
            Ok(Arc::new(hcs))
        })
        .await
    }

    /// The machine's place on a network of this Windows.
    async fn network(&self, spec: &MachineSpec) -> Result<(Endpoint, Adapter), DriverError> {
        let dll = self.config.dll.as_ref().map(|dll| dll.with_file_name("computenetwork.dll"));
        let id = network::endpoint_id(spec.id());
        let machine = format!("slipway-{}", spec.name);
        let (endpoint, said) = blocking("give the machine a network", move || {
            Ok(Hcn::load(dll.as_deref())?.endpoint(id, &machine)?)
        })
        .await?;
        let adapter = endpoint.adapter(&said)?;
        Ok((endpoint, adapter))
    }
}

#[async_trait]
impl Driver for HypervDriver {
    async fn probe(&self, choice: AccelChoice) -> Result<Capabilities, DriverError> {
        if choice != AccelChoice::Auto {
            return Err(DriverError::NoAccelerator {
                accel: format!("{choice:?}").to_lowercase(),
                why: "on Windows machines run on Hyper-V".into(),
            });
        }
        self.service().await.map(|_| capabilities())
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, DriverError> {
        self.config.guest.here("Hyper-V")?;
        let failed = |act: &'static str| move |source| DriverError::Io { act: act.into(), source };
        let started = STARTED.fetch_add(1, Ordering::Relaxed);
        let id = format!("slipway-{}-{}-{started}", spec.name, std::process::id());
        let user_sid = pipe::user_sid().map_err(failed("find out who this user is"))?;
        let hcs = self.service().await?;
        let (endpoint, network) = self.network(spec).await?;
        let host = Host {
            user_sid,
            root_vhd: spec.run_dir.join("root.vhd"),
            console_pipe: format!(r"\\.\pipe\slipway_console-{id}"),
            network,
        };
        let document = document::machine(spec, &host)?;
        // HCS writes to the console as a client of ours, and there is one.
        let console = ServerOptions::new()
            .first_pipe_instance(true)
            .reject_remote_clients(true)
            .max_instances(1)
            .create(&host.console_pipe)
            .map_err(failed("listen for the machine's console"))?;
        let ended: Arc<watch::Sender<Option<ExitReason>>> = Arc::new(watch::Sender::new(None));
        let killed = Arc::new(AtomicBool::new(false));
        let (spec, told) = (spec.clone(), tell(Arc::clone(&ended), Arc::clone(&killed)));
        let log = spec.console_log.clone();
        let (system, vm) = blocking("start the machine on Hyper-V", move || {
            write_vhd(&spec.root_image, &host.root_vhd)?;
            for file in [&spec.kernel, &spec.initramfs, &host.root_vhd, &spec.data_disk] {
                hcs.grant_access(&id, file)?;
            }
            let system = hcs.create(&id, &document, PATIENCE)?;
            system.on_event(told)?;
            let vm = runtime_id(&system.properties(PATIENCE)?)?;
            system.act(Act::Start, PATIENCE)?;
            Ok((Arc::new(system), vm))
        })
        .await?;
        let tail = Tail::default();
        let mut readers = JoinSet::new();
        let kept = tail.clone();
        readers.spawn(async move {
            if console.connect().await.is_ok() {
                console::keep(console, log, kept).await;
            }
        });
        let transport = Arc::new(HyperVSocket::new(vm));
        Ok(Box::new(HypervMachine {
            system,
            _endpoint: endpoint,
            transport,
            ended,
            killed,
            tail,
            shared: Vec::new(),
            stall: watch::Sender::new(None),
            _readers: readers,
        }))
    }
}

/// What HCS says while the machine lives becomes the reason of its end; the first counts.
fn tell(ended: Arc<watch::Sender<Option<ExitReason>>>, killed: Arc<AtomicBool>) -> Box<hcs::Told> {
    Box::new(move |kind, data| {
        let reason = match kind {
            hcs::SYSTEM_EXITED => exit::reason(data, killed.load(Ordering::Acquire)),
            hcs::SERVICE_DISCONNECT => {
                ExitReason::Crashed { detail: "the Host Compute Service itself ended".into() }
            }
            _ => return,
        };
        ended.send_if_modified(|ended| ended.is_none() && ended.replace(reason).is_none());
    })
}

fn capabilities() -> Capabilities {
    Capabilities {
        vmm: "hyper-v".into(),
        accel: Accel::Hyperv,
        accel_reason: None,
        transport: "hvsocket".into(),
    }
}

struct HypervMachine {
    system: Arc<System>,
    /// After the system, which uses it.
    _endpoint: Endpoint,
    transport: Arc<HyperVSocket>,
    ended: Arc<watch::Sender<Option<ExitReason>>>,
    killed: Arc<AtomicBool>,
    tail: Tail,
    shared: Vec<SharedFolder>,
    /// Never set: of the events of HCS none tells it.
    stall: watch::Sender<Option<Stall>>,
    /// The console's reader; it ends with the machine.
    _readers: JoinSet<()>,
}

impl HypervMachine {
    async fn act(&self, what: &'static str, act: Act, patience: Duration) -> Result<(), DriverError> {
        let system = Arc::clone(&self.system);
        blocking(what, move || Ok(system.act(act, patience)?)).await
    }
}

#[async_trait]
impl Machine for HypervMachine {
    fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport) as Arc<dyn Transport>
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    /// The machine is in a process of the system's, which is none of ours to count.
    fn pid(&self) -> Option<u32> {
        None
    }

    async fn pause(&mut self) -> Result<(), DriverError> {
        self.act("pause the machine", Act::Pause, PATIENCE).await
    }

    async fn resume(&mut self) -> Result<(), DriverError> {
        self.act("resume the machine", Act::Resume, PATIENCE).await
    }

    async fn kill(&mut self, grace: Duration) -> Result<(), DriverError> {
        if self.ended.borrow().is_some() {
            return Ok(());
        }
        self.killed.store(true, Ordering::Release);
        self.act("end the machine", Act::Terminate, grace.max(Duration::from_secs(10))).await
    }

    fn stall(&self) -> watch::Receiver<Option<Stall>> {
        self.stall.subscribe()
    }

    fn console_tail(&self) -> Vec<u8> {
        self.tail.bytes()
    }

    async fn share(&mut self, folders: &[SharedFolder]) -> Result<(), DriverError> {
        let change = |folder: &SharedFolder, change| document::share(&folder.name, &folder.path, change);
        let gone = self.shared.iter().filter(|folder| !folders.contains(folder));
        let gone = gone.map(|folder| change(folder, ShareChange::Remove));
        let new = folders.iter().filter(|folder| !self.shared.contains(folder));
        let new = new.map(|folder| change(folder, ShareChange::Add { read_only: folder.read_only }));
        let documents: Vec<String> = gone.chain(new).collect::<Result<_, _>>()?;
        let system = Arc::clone(&self.system);
        blocking("share folders with the machine", move || {
            documents.iter().try_for_each(|document| Ok(system.modify(document, PATIENCE)?))
        })
        .await?;
        self.shared = folders.to_vec();
        Ok(())
    }

    async fn wait(&mut self) -> ExitReason {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::Killed),
            // The sender is ours.
            Err(_) => ExitReason::Killed,
        }
    }
}

/// HCS's basic properties of a machine.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Properties {
    runtime_id: String,
}

/// The id by which sockets find the machine.
fn runtime_id(properties: &str) -> io::Result<u128> {
    let found: Properties = serde_json::from_str(properties)?;
    let digits: String = found.runtime_id.chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is no machine's id", found.runtime_id))
    })
}

/// The image with a VHD's footer behind it. Written beside and renamed: a half one is never attached.
fn write_vhd(image: &Path, vhd: &Path) -> io::Result<()> {
    let aside = vhd.with_extension("new");
    let mut from = File::open(image)?;
    let mut to = File::create(&aside)?;
    let size = io::copy(&mut from, &mut to)?;
    // A disk for the machine only, so any id does.
    to.write_all(&vhd::footer(size, *b"slipway-rootdisk").map_err(io::Error::other)?)?;
    drop(to);
    std::fs::rename(aside, vhd)
}

/// Calls of HCS block.
async fn blocking<T: Send + 'static>(
    act: &'static str,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    let failed = |source| DriverError::Io { act: act.into(), source };
    let done = spawn_blocking(call).await.map_err(|e| failed(io::Error::other(e)))?;
    done.map_err(|source| {
        let inner = source.get_ref();
        let hcs = inner.and_then(|e| e.downcast_ref::<HcsError>());
        let hcn = inner.and_then(|e| e.downcast_ref::<HcnError>());
        let missing = |program: &str| DriverError::NotInstalled { program: program.into() };
        match (hcs, hcn) {
            (Some(HcsError::Library(LibraryError::Absent { .. })), _) => missing("Hyper-V (computecore.dll)"),
            (_, Some(HcnError::Library(LibraryError::Absent { .. }))) => {
                missing("Hyper-V (computenetwork.dll)")
            }
            _ => failed(source),
        }
    })
}

impl From<HcsError> for io::Error {
    fn from(error: HcsError) -> Self {
        io::Error::other(error)
    }
}
