//! Runs a machine with QEMU, under KVM where KVM really runs a guest and by software emulation elsewhere.
//!
//! ```text
//!   probe: find QEMU ─► its version ─► does a guest's kernel print its first line under KVM? ─► remember the verdict
//!   start: vsock device ─► QEMU process ─► QMP greeting ─► Machine   (any failure: all of it is taken down again)
//! ```
#![allow(unsafe_code)] // One `pre_exec`, so that QEMU dies with the process that owns it.

mod accel;
mod arch;
mod args;
mod machine;
mod version;

use std::path::PathBuf;

use async_trait::async_trait;
use slipway_vm::{Accel, AccelChoice, Capabilities, Driver, DriverError, Machine, MachineSpec};
use slipway_vsock::GuestCid;
use tokio::process::Command;

pub use slipway_vm::GuestArch;

use crate::{
    arch::Board,
    args::Vsock,
    version::{OLDEST, Version},
};

/// Context id of the guest. With our own device it means nothing outside one QEMU; with the kernel's it would clash
/// between machines, so the profile's machine would need its own: see `Vsock::Kernel`.
const CID: u32 = 3;

/// Where the driver finds and keeps things.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// QEMU; `None` searches `PATH`.
    pub binary: Option<PathBuf>,
    /// The processor that the kernel and the image are for.
    pub guest: GuestArch,
    /// Kernel with which an accelerator is tried.
    pub probe_kernel: PathBuf,
    /// Where the accelerator's verdict is remembered until the host or QEMU changes.
    pub verdict_file: PathBuf,
}

/// QEMU as a [`Driver`].
#[derive(Debug)]
pub struct QemuDriver {
    config: QemuConfig,
}

struct Qemu {
    binary: PathBuf,
    version: Version,
    /// The version as QEMU writes it.
    full: String,
}

impl QemuDriver {
    /// A driver; nothing is looked up yet.
    pub fn new(config: QemuConfig) -> Self {
        Self { config }
    }

    async fn qemu(&self) -> Result<Qemu, DriverError> {
        let program = self.config.guest.program();
        let missing = || DriverError::NotInstalled { program: program.into() };
        let binary = self.config.binary.clone().unwrap_or_else(|| program.into());
        let output = Command::new(&binary).arg("--version").output().await.map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                missing()
            } else {
                DriverError::Io { act: format!("run `{} --version`", binary.display()), source }
            }
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let full = text.lines().next().unwrap_or_default().trim_start_matches("QEMU emulator version ");
        let full = full.split(' ').next().unwrap_or_default().to_owned();
        let too_old = |found: String| DriverError::TooOld {
            program: program.into(),
            found,
            needed: OLDEST.to_string(),
        };
        let version = Version::parse(&text).ok_or_else(|| too_old("unknown".into()))?;
        if version < OLDEST {
            return Err(too_old(version.to_string()));
        }
        Ok(Qemu { binary, version, full })
    }

    async fn capabilities(&self, qemu: &Qemu, choice: AccelChoice) -> Result<Capabilities, DriverError> {
        let (accel, accel_reason) = match choice {
            AccelChoice::Tcg => (Accel::Tcg, Some("software emulation was asked for".to_owned())),
            AccelChoice::Auto | AccelChoice::Kvm => match accel::kvm_works(&self.config, qemu).await {
                Ok(()) => (Accel::Kvm, None),
                Err(why) if choice == AccelChoice::Kvm => {
                    return Err(DriverError::NoAccelerator { accel: "kvm".into(), why });
                }
                Err(why) => (Accel::Tcg, Some(why)),
            },
        };
        let transport = match vsock_device() {
            Vsock::Kernel(_) => "vsock",
            Vsock::VhostUser => "vhost-user-vsock",
        };
        Ok(Capabilities {
            vmm: format!("qemu {}", qemu.full),
            accel,
            accel_reason,
            transport: transport.into(),
        })
    }
}

/// The kernel's device where it opens, ours elsewhere.
fn vsock_device() -> Vsock {
    let opens = std::fs::OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock").is_ok();
    match GuestCid::new(CID) {
        Some(cid) if opens => Vsock::Kernel(cid),
        _ => Vsock::VhostUser,
    }
}

/// A command that runs QEMU: it ends when the thread that starts it ends, however that is, and never reads our input.
fn command(qemu: &Qemu) -> Command {
    let mut command = Command::new(&qemu.binary);
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    // SAFETY: prctl is async-signal-safe and the closure touches no memory of the parent. The death signal is bound to
    // the starting thread; the runtime's workers live as long as the process.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .map_err(Into::into)
        });
    }
    command
}

#[async_trait]
impl Driver for QemuDriver {
    async fn probe(&self, choice: AccelChoice) -> Result<Capabilities, DriverError> {
        let qemu = self.qemu().await?;
        self.capabilities(&qemu, choice).await
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, DriverError> {
        if spec.cpus == 0 || spec.memory_mib == 0 {
            return Err(DriverError::BadSpec("it needs at least one CPU and some memory".into()));
        }
        if spec.name.is_empty() || !spec.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            return Err(DriverError::BadSpec(format!("`{}` is not a name", spec.name)));
        }
        let qemu = self.qemu().await?;
        let capabilities = self.capabilities(&qemu, spec.accel).await?;
        machine::start(&qemu, self.config.guest, spec, capabilities, vsock_device()).await
    }
}
