//! Which driver runs machines on this system, and what it wants of the data disk: the only place that names one.

use slipway_vm::Driver;
#[cfg(windows)]
pub use slipway_vm_hyperv::disk;

use crate::server::ShimConfig;

/// The driver of this system.
#[cfg(target_os = "linux")]
pub fn driver(config: &ShimConfig) -> Box<dyn Driver> {
    use slipway_vm_qemu::{QemuConfig, QemuDriver};
    Box::new(QemuDriver::new(QemuConfig {
        binary: config.vmm_binary.clone(),
        guest: config.guest,
        probe_kernel: config.spec.kernel.clone(),
        verdict_file: config.accel_verdict.clone(),
    }))
}

/// The driver of this system.
#[cfg(target_os = "macos")]
pub fn driver(config: &ShimConfig) -> Box<dyn Driver> {
    Box::new(slipway_vm_vz::VzDriver::new(config.guest))
}

/// The driver of this system. `vmm_binary` names another `computecore.dll` than the system's.
#[cfg(windows)]
pub fn driver(config: &ShimConfig) -> Box<dyn Driver> {
    use slipway_vm_hyperv::{HypervConfig, HypervDriver};
    Box::new(HypervDriver::new(HypervConfig { dll: config.vmm_binary.clone(), guest: config.guest }))
}
