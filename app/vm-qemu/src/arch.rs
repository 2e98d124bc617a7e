//! What QEMU calls things for each processor that a guest can be built for.

use slipway_vm::GuestArch;

/// QEMU's side of a processor.
pub(crate) trait Board {
    /// The program, as searched in `PATH` and as shown to a person.
    fn program(self) -> &'static str;
    /// The board, with what it has that no machine of ours needs switched off.
    fn board(self) -> &'static str;
    /// The kernel's words for the board's serial port, and for talking to it before there is a driver.
    fn early_console(self) -> &'static str;
}

impl Board for GuestArch {
    fn program(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    fn board(self) -> &'static str {
        match self {
            Self::X86_64 => "q35,vmport=off,smm=off",
            // The interrupt controller of the host under KVM, the newest one otherwise.
            Self::Aarch64 => "virt,gic-version=max,highmem=on",
        }
    }

    fn early_console(self) -> &'static str {
        match self {
            Self::X86_64 => "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1",
            Self::Aarch64 => "console=ttyAMA0 earlycon panic=-1",
        }
    }
}
