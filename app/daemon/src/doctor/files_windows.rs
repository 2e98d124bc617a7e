//! Slipway's own files on Windows: folders inherit who may use them from the user's own, and pipes leave nothing behind.

use std::io;

use slipway_api::{CheckState, Problem};

use super::{Finding, Ward, room, told};
use crate::system;

pub(super) fn settings(ward: &Ward) -> Finding {
    let file = ward.paths().settings_file();
    match &ward.settings {
        Ok(_) if file.exists() => Finding::ok(format!("{} is understood", told(&file))),
        Ok(_) => Finding::ok("all at their defaults"),
        Err(problem) => Finding::of(CheckState::Failed, problem.clone()),
    }
}

pub(super) fn home(ward: &Ward) -> Finding {
    let paths = ward.paths();
    for dir in [paths.root(), paths.run_dir()] {
        let found = match std::fs::metadata(dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = room::nearest(dir);
                if let Err(error) = system::writable(&above) {
                    return Finding::failed(format!("{} cannot be made", told(dir)))
                        .because(format!("{}: {error}", told(&above)))
                        .hint("set SLIPWAY_HOME to a folder of yours that can be written");
                }
                continue;
            }
            Err(error) => {
                return Finding::failed(format!("{} cannot be looked at", told(dir)))
                    .because(error.to_string())
                    .hint("set SLIPWAY_HOME to a folder of yours that can be written");
            }
        };
        if !found.is_dir() {
            return Finding::failed(format!("{} is not a folder", told(dir)))
                .hint("move it away, or set SLIPWAY_HOME to another place");
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
