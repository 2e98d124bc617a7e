//! Which driver runs machines on this system: the only place that names one.

use slipway_vm::Driver;
use slipway_vm_qemu::{QemuConfig, QemuDriver};

use crate::server::ShimConfig;

/// The driver of this system.
pub fn driver(config: &ShimConfig) -> Box<dyn Driver> {
    Box::new(QemuDriver::new(QemuConfig {
        binary: config.vmm_binary.clone(),
        guest: config.guest,
        probe_kernel: config.spec.kernel.clone(),
        verdict_file: config.accel_verdict.clone(),
    }))
}
