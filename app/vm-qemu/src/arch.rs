//! What QEMU calls things for each processor that a guest can be built for.

/// The processor of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestArch {
    /// amd64.
    X86_64,
    /// arm64.
    Aarch64,
}

impl GuestArch {
    /// This host's: the one that can be faster than emulation.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// The program, as searched in `PATH` and as shown to a person.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The board, with what it has that no machine of ours needs switched off.
    pub(crate) fn board(self) -> &'static str {
        match self {
            Self::X86_64 => "q35,vmport=off,smm=off",
            // The interrupt controller of the host under KVM, the newest one otherwise.
            Self::Aarch64 => "virt,gic-version=max,highmem=on",
        }
    }

    /// The kernel's words for the board's serial port, and for talking to it before there is a driver.
    pub(crate) fn early_console(self) -> &'static str {
        match self {
            Self::X86_64 => "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1",
            Self::Aarch64 => "console=ttyAMA0 earlycon panic=-1",
        }
    }
}
