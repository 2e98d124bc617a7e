//! Where no machine can be run yet: the verbs are there and say so.

use std::{path::Path, process::ExitCode};

/// Would be the daemon.
pub(crate) fn daemon(_profile: String) -> ExitCode {
    not_here()
}

/// Would own a machine.
pub(crate) fn shim(_config: &Path) -> ExitCode {
    not_here()
}

/// Would serve host folders.
pub(crate) fn share() -> ExitCode {
    not_here()
}

/// The last words go to the log, from where the starter repeats them.
fn not_here() -> ExitCode {
    eprintln!("this version of Slipway runs machines on Linux only, and this is {}", std::env::consts::OS);
    ExitCode::FAILURE
}
