//! Linux: QEMU, a program that may be missing.

use slipway_api::Problem;
use slipway_vm::GuestArch;

/// The VM program for a guest's processor.
pub(crate) fn qemu_for(guest: GuestArch) -> &'static str {
    match guest {
        GuestArch::X86_64 => "qemu-system-x86_64",
        GuestArch::Aarch64 => "qemu-system-aarch64",
    }
}

/// Whether it is there.
pub(crate) fn find(guest: GuestArch) -> Result<(), Problem> {
    let program = qemu_for(guest);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        return Ok(());
    }
    let debian = qemu_package(guest);
    let fedora = match guest {
        GuestArch::X86_64 => "qemu-system-x86",
        GuestArch::Aarch64 => "qemu-system-aarch64",
    };
    let mut problem = Problem::new("qemu-missing", format!("`{program}` is not installed"));
    if guest != GuestArch::HOST {
        problem = problem.because(format!("the guest image is for {}, which is emulated here", guest.name()));
    }
    Err(problem.hint(format!(
        "install it: `sudo apt install {debian}` on Debian and Ubuntu, `sudo dnf install {fedora}` on Fedora"
    )))
}

/// What brings it on Debian.
pub(crate) fn qemu_package(guest: GuestArch) -> &'static str {
    match guest {
        GuestArch::X86_64 => "qemu-system-x86",
        GuestArch::Aarch64 => "qemu-system-arm",
    }
}
