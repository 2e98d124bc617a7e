//! What a reset takes away, and the taking.

use std::{io, path::Path};

use slipway_api::{Holdings, Problem, Reset, UNITS, paths::Paths};
use slipway_settings::file::SettingsFile;

use crate::disk;

/// What is there now.
pub(crate) fn look(paths: &Paths) -> Holdings {
    let data_bytes = disk::on_host(paths).ok().flatten().map(|(bytes, _)| bytes);
    let raw = SettingsFile::new(paths.settings_file()).read().unwrap_or_default();
    Holdings {
        data_disk: paths.data_disk(),
        data_bytes,
        settings: raw.keys().map(|name| (*name).to_owned()).collect(),
    }
}

/// Takes it away. The machine must not run.
pub(crate) fn reset(paths: &Paths, what: Reset) -> Result<(), Problem> {
    if matches!(what, Reset::Settings | Reset::All) {
        remove(&paths.settings_file())?;
    }
    if matches!(what, Reset::Data | Reset::All) {
        remove(&paths.data_disk())?;
    }
    if what == Reset::All {
        remove(&paths.accel_verdict())?;
        // The daemon's own log goes on.
        for unit in UNITS.iter().filter(|unit| **unit != crate::logs::DAEMON) {
            remove(&paths.log(unit))?;
            remove(&paths.log(unit).with_extension("log.1"))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Problem> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Problem::new("reset", format!("failed to remove `{}`", path.display()))
            .because(error.to_string())),
    }
}
