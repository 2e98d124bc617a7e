//! What of Slipway's own files is checked alike on every system: the settings, and that its folders are folders.

use std::{fs::Metadata, io, path::Path};

use slipway_api::CheckState;

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

/// One of Slipway's folders; `None`: it is not there yet, and can be made.
///
/// # Errors
/// What is wrong with it.
pub(super) fn folder(dir: &Path) -> Result<Option<Metadata>, Finding> {
    let another_home = "set SLIPWAY_HOME to a folder of yours that can be written";
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(Some(found)),
        Ok(_) => Err(Finding::failed(format!("{} is not a folder", told(dir)))
            .hint("move it away, or set SLIPWAY_HOME to another place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = room::nearest(dir);
            system::writable(&above).map(|()| None).map_err(|error| {
                Finding::failed(format!("{} cannot be made", told(dir)))
                    .because(format!("{}: {error}", told(&above)))
                    .hint(another_home)
            })
        }
        Err(error) => Err(Finding::failed(format!("{} cannot be looked at", told(dir)))
            .because(error.to_string())
            .hint(another_home)),
    }
}
