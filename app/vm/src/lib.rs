//! The driver contract: how one Linux machine is run, whatever runs it.
//!
//! Calls arrive in the order `probe`, `start`; `start` returns when the VM process exists, not when the guest has booted.

pub mod console;
pub mod contract;
pub mod fake;
pub mod room;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use slipway_vsock::Transport;
use tokio::sync::watch;

/// What a machine is made of. Paths are absolute; a driver refuses what it would otherwise silently ignore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Name of the profile, for process titles and logs.
    pub name: String,
    /// Virtual CPUs, at least 1.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs with the agent as `/init`.
    pub initramfs: PathBuf,
    /// Read-only erofs root, first virtio-blk disk (`/dev/vda`).
    pub root_image: PathBuf,
    /// Raw data disk, second virtio-blk disk (`/dev/vdb`); must exist.
    pub data_disk: PathBuf,
    /// Words added to the kernel command line.
    pub cmdline: Vec<String>,
    /// Folder for sockets and pid-like state of the run; 0700, short enough for unix sockets.
    pub run_dir: PathBuf,
    /// Where the guest's serial console is appended.
    pub console_log: PathBuf,
    /// Which accelerator to use.
    pub accel: AccelChoice,
    /// Where the share server listens (vhost-user-fs, tag `slipway`); `None`: no such device.
    #[serde(default)]
    pub share_socket: Option<PathBuf>,
}

impl MachineSpec {
    /// A number that is this machine's at each of its starts and no other's, for what a hypervisor is to know it by.
    pub fn id(&self) -> u128 {
        // FNV-1a, because the number has to stay what it is.
        let folder = self.run_dir.to_string_lossy();
        folder.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
    }
}

/// The processor that a guest's kernel and programs are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestArch {
    /// amd64.
    #[serde(rename = "amd64")]
    X86_64,
    /// arm64.
    #[serde(rename = "arm64")]
    Aarch64,
}

impl GuestArch {
    /// This host's: the only one whose guests can run without emulation.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// By Debian's name, which is an image's.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::X86_64, Self::Aarch64].into_iter().find(|arch| arch.name() == name)
    }

    /// Debian's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// For a hypervisor that emulates no other processor.
    ///
    /// # Errors
    /// [`DriverError::BadSpec`]: the guest is for another one than the host's.
    pub fn here(self, hypervisor: &str) -> Result<(), DriverError> {
        if self == Self::HOST {
            return Ok(());
        }
        Err(DriverError::BadSpec(format!(
            "the guest image is for {}, this computer's processor is {}, and {hypervisor} emulates none; \
             install an image for {}: `slipway image install DIR`",
            self.name(),
            Self::HOST.name(),
            Self::HOST.name()
        )))
    }
}

impl Default for GuestArch {
    fn default() -> Self {
        Self::HOST
    }
}

/// What the person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// The best one that actually runs a guest here.
    #[default]
    Auto,
    /// Hardware, or fail.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// What the machine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Linux hardware virtualisation.
    Kvm,
    /// Software emulation.
    Tcg,
    /// macOS' Virtualization.framework.
    Vz,
    /// Windows' Hyper-V.
    Hyperv,
}

/// What a driver found out about this host; shown by `status` and `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Driver and version, e.g. `qemu 7.2.22`.
    pub vmm: String,
    /// What the machine runs on.
    pub accel: Accel,
    /// Why it is not the faster one, when it is not; for a person.
    pub accel_reason: Option<String>,
    /// `vhost-user-vsock`, `vsock`, `vz-vsock` or `hvsocket`.
    pub transport: String,
}

/// A folder that the hypervisor itself shares with the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// The name by which the guest finds it.
    pub name: String,
    /// Where it is on the host.
    pub path: PathBuf,
    /// The guest cannot change it.
    pub read_only: bool,
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum ExitReason {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset,
    /// We ended it on request.
    Killed,
    /// The VM process ended by itself, or the guest panicked.
    Crashed {
        /// What the process said or by which signal it ended.
        detail: String,
    },
}

/// Why the virtual CPUs stand still although nobody asked for it. They go on by [`Machine::resume`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stall {
    /// The host has no room for what the guest wrote. The write waits and is not lost.
    HostDiskFull,
}

/// A driver could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The VM program is not installed.
    #[error("`{program}` is not installed")]
    NotInstalled {
        /// The program's name.
        program: String,
    },
    /// The VM program is too old.
    #[error("`{program}` is version {found}; at least {needed} is needed")]
    TooOld {
        /// The program's name.
        program: String,
        /// What is there.
        found: String,
        /// What is needed.
        needed: String,
    },
    /// The accelerator that the person insists on does not run a guest.
    #[error("accelerator `{accel}` does not work here: {why}")]
    NoAccelerator {
        /// Its name.
        accel: String,
        /// What was seen.
        why: String,
    },
    /// The machine cannot be built from this spec.
    #[error("machine cannot be run: {0}")]
    BadSpec(String),
    /// A step on the way failed.
    #[error("failed to {act}")]
    Io {
        /// The step, with its path.
        act: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The VM process ended before the guest could start.
    #[error("the VM process ended at once: {detail}")]
    EndedEarly {
        /// The end of what it printed.
        detail: String,
    },
}

/// A way of running one Linux machine.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Finds out what this host offers: programs, versions, accelerator that really ran a guest (bounded to 10 s).
    ///
    /// # Errors
    /// [`DriverError`] when no machine can run here at all.
    async fn probe(&self, choice: AccelChoice) -> Result<Capabilities, DriverError>;

    /// Starts the machine. The caller owns what comes back; dropping it kills the VM process.
    ///
    /// # Errors
    /// [`DriverError`]; nothing is left running.
    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, DriverError>;
}

/// One running machine; owned by exactly one task.
#[async_trait]
pub trait Machine: Send {
    /// Streams into the guest.
    fn transport(&self) -> Arc<dyn Transport>;
    /// What the machine really runs on (may differ from the probe when a fallback happened at start).
    fn capabilities(&self) -> Capabilities;
    /// Process id of the VM, for accounting.
    fn pid(&self) -> Option<u32>;
    /// Stops the virtual CPUs.
    ///
    /// # Errors
    /// [`DriverError`] when the VM does not answer.
    async fn pause(&mut self) -> Result<(), DriverError>;
    /// Lets the virtual CPUs run again.
    ///
    /// # Errors
    /// [`DriverError`] when the VM does not answer.
    async fn resume(&mut self) -> Result<(), DriverError>;
    /// Ends the VM process: politely (VMM quit), then by signal after `grace`. Idempotent.
    ///
    /// # Errors
    /// [`DriverError`] when the process cannot be ended.
    async fn kill(&mut self, grace: Duration) -> Result<(), DriverError>;
    /// Whether and why the virtual CPUs stand still unasked.
    fn stall(&self) -> watch::Receiver<Option<Stall>>;
    /// Shares exactly these folders from now on, where the hypervisor shares folders itself.
    ///
    /// # Errors
    /// [`DriverError`]; with QEMU always, because there the share server does it.
    async fn share(&mut self, _folders: &[SharedFolder]) -> Result<(), DriverError> {
        Err(DriverError::BadSpec("this hypervisor shares no folders itself".into()))
    }
    /// The end of what the guest wrote to its console, at most 64 KiB: the evidence when a boot fails.
    fn console_tail(&self) -> Vec<u8>;
    /// Resolves once the VM ended. Cancel-safe.
    async fn wait(&mut self) -> ExitReason;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let mut spec = contract::spec(dir.path(), "/k".into()).expect("files");
        let mut id_in = |run_dir: &str| {
            spec.run_dir = run_dir.into();
            spec.id()
        };
        // Hypervisors remember it, so it stays what it is.
        assert_eq!(id_in("/r"), 0x0880_948e_cbab_1be9_5aa0_7330_5546_c64c);
        assert_ne!(id_in("/s"), id_in("/r"));
    }

    #[test]
    fn a_hypervisor_that_emulates_nothing_refuses_an_image_of_another_processor() {
        GuestArch::HOST.here("Hyper-V").expect("its own");
        let other = match GuestArch::HOST {
            GuestArch::X86_64 => GuestArch::Aarch64,
            GuestArch::Aarch64 => GuestArch::X86_64,
        };
        let said = other.here("Hyper-V").expect_err("another").to_string();
        assert!(said.contains(other.name()) && said.contains("slipway image install"), "{said}");
    }
}
