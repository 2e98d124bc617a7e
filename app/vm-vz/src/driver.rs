//! Virtualization.framework as a driver.

use std::io;

use async_trait::async_trait;
use objc2_virtualization::VZVirtualMachine;
use slipway_vm::{
    Accel, AccelChoice, Capabilities, Driver, DriverError, GuestArch, Machine, MachineSpec,
    console::{self, Tail},
};
use tokio::{net::unix::pipe, task::JoinSet};

use crate::{
    configuration::{Configuration, Host},
    machine, objects,
};

/// Virtualization.framework as a [`Driver`]. The process that starts a machine needs the entitlement
/// `com.apple.security.virtualization`; without it the framework refuses the configuration and says so.
#[derive(Debug, Default)]
pub struct VzDriver {
    guest: GuestArch,
}

impl VzDriver {
    /// A driver for machines whose image is for `guest`.
    pub fn new(guest: GuestArch) -> Self {
        Self { guest }
    }
}

pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        vmm: "virtualization.framework".into(),
        accel: Accel::Vz,
        accel_reason: None,
        transport: "vz-vsock".into(),
    }
}

#[async_trait]
impl Driver for VzDriver {
    async fn probe(&self, choice: AccelChoice) -> Result<Capabilities, DriverError> {
        let refused = |why: &str| DriverError::NoAccelerator {
            accel: format!("{choice:?}").to_lowercase(),
            why: why.into(),
        };
        if choice != AccelChoice::Auto {
            return Err(refused("on macOS machines run on Virtualization.framework"));
        }
        // SAFETY: a class method without arguments.
        if !unsafe { VZVirtualMachine::isSupported() } {
            return Err(refused("this Mac cannot run virtual machines"));
        }
        Ok(capabilities())
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, DriverError> {
        self.guest.here("Virtualization.framework")?;
        self.probe(spec.accel).await?;
        let configuration = Configuration::new(spec, Host { rosetta: objects::rosetta() })?;
        let failed = |source: io::Error| DriverError::Io { act: "make the machine's console".into(), source };
        let (theirs, ours) = pipe::pipe().map_err(failed)?;
        let theirs_to_write = theirs.into_blocking_fd().map_err(failed)?;
        let tail = Tail::default();
        let mut readers = JoinSet::new();
        readers.spawn(console::keep(ours, spec.console_log.clone(), tail.clone()));
        machine::start(move || objects::build(&configuration, theirs_to_write), tail, readers).await
    }
}
