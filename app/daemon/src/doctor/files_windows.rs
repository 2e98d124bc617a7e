//! Slipway's own files on Windows: folders inherit who may use them from the user's own, and pipes leave nothing behind.

use slipway_api::Problem;

use super::{Finding, Ward, folders::folder, told};
use crate::system;

pub(super) fn home(ward: &Ward) -> Finding {
    let paths = ward.paths();
    for dir in [paths.root(), paths.run_dir()] {
        match folder(dir) {
            Ok(Some(_)) => {}
            Ok(None) => continue,
            Err(wrong) => return wrong,
        }
        if let Err(error) = system::writable(dir) {
            return Finding::failed(format!("{} cannot be written", told(dir)))
                .because(error.to_string())
                .hint("set SLIPWAY_HOME to a folder of yours that can be written");
        }
    }
    Finding::ok(told(paths.root()))
}

/// Nothing that [`home`] finds can be mended.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(super) fn mend_home(_: &Ward) -> Result<(), Problem> {
    Ok(())
}

pub(super) fn sockets(ward: &Ward) -> Finding {
    Finding::ok(format!("docker's clients reach `{}`", ward.paths().docker_sock().display()))
}

pub(super) fn leftovers(_: &Ward) -> Finding {
    Finding::ok("none: a pipe goes with its process")
}

/// Nothing is left.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(super) fn mend_leftovers(_: &Ward) -> Result<(), Problem> {
    Ok(())
}
