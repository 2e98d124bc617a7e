//! The boot, in two lives of PID 1.
//!
//! ```text
//! power-on ─kernel─▶ stage 1 (initramfs): modules, root disk, switch root ─exec─▶ stage 2 (real root):
//!   mounts ─┬─ listen on vsock
//!           ├─ data-disk ─▶ containerd ────────────┐
//!           ├─ modules, emulators, network ────────┴─▶ dockerd ─▶ engine answers ─▶ images
//!           └─ power-off asked ─▶ services stop ─▶ unmount ─▶ off
//! ```

use std::{ffi::CString, fs::File, io, path::Path};

mod emulators;
mod mounts;
mod power;
mod stage1;
mod stage2;

pub use stage1::run as stage1;
pub use stage2::run as stage2;

/// Tells stage 2 when stage 1 began, in milliseconds since power-on.
const STAGE1_AT: &str = "SLIPWAY_STAGE1_MS";

/// Loads one kernel module; one that is there already is fine.
fn load_module(path: &Path) -> io::Result<()> {
    match rustix::system::finit_module(&File::open(path)?, &CString::default(), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
