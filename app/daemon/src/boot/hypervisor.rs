//! macOS and Windows: the system's own hypervisor, which emulates no other processor and says at the start itself what it lacks.

use std::path::Path;

use slipway_api::Problem;
use slipway_vm::GuestArch;

/// Whether a guest of this processor can run here.
pub(crate) fn find(guest: GuestArch) -> Result<(), Problem> {
    let hypervisor = if cfg!(windows) { "Hyper-V" } else { "Virtualization.framework" };
    guest.here(hypervisor).map_err(|error| Problem::from_error("image-processor", &error))
}

/// Makes the data disk, or makes it larger: a sparse file on macOS. Hyper-V wants a disk in its own format, which is not made here yet.
pub(super) fn make_disk(
    path: &Path,
    bytes: u64,
    failed: impl Fn(std::io::Error) -> Problem + Copy,
) -> Result<(), Problem> {
    if cfg!(windows) {
        if path.is_file() {
            return Ok(());
        }
        return Err(Problem::new("data-disk", format!("there is no data disk `{}`", path.display()))
            .because("this version of Slipway does not make Hyper-V's disks itself")
            .hint(format!(
                "in an elevated PowerShell: `New-VHD -Dynamic -SizeBytes {bytes} -Path '{}'`",
                path.display()
            )));
    }
    super::sparse_disk(path, bytes, failed)
}
