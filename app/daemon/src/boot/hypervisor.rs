//! macOS and Windows: the system's own hypervisor, which emulates no other processor and says at the start itself what it lacks.

use slipway_api::Problem;
use slipway_vm::GuestArch;

/// Whether a guest of this processor can run here.
pub(crate) fn find(guest: GuestArch) -> Result<(), Problem> {
    let hypervisor = if cfg!(windows) { "Hyper-V" } else { "Virtualization.framework" };
    guest.here(hypervisor).map_err(|error| Problem::from_error("image-processor", &error))
}
