//! Linux: a unit of the person's systemd, wanted by their default target.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{KeepError, at, entry::Entry};

/// Is there when systemd started this system.
const BOOTED: &str = "/run/systemd/system";
/// Where packages put theirs.
const PACKAGED: &str = "/usr/lib/systemd/user";
/// What the target of each session is called, and what it wants.
const WANTS: &str = "default.target.wants";

/// A person's units.
#[derive(Debug)]
pub(super) struct Place {
    units: PathBuf,
    packaged: PathBuf,
}

impl Place {
    pub(super) fn of_process() -> Result<Self, KeepError> {
        if !Path::new(BOOTED).is_dir() {
            return Err(KeepError::Nobody("this system was not started by systemd"));
        }
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let config = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|home| home.join(".config")));
        let config = config.ok_or(KeepError::Nobody("neither HOME nor XDG_CONFIG_HOME is set"))?;
        Ok(Self { units: config.join("systemd/user"), packaged: PACKAGED.into() })
    }

    fn file(&self, entry: &Entry) -> PathBuf {
        self.units.join(format!("{}.service", entry.name()))
    }

    fn link(&self, entry: &Entry) -> PathBuf {
        self.units.join(WANTS).join(format!("{}.service", entry.name()))
    }

    pub(super) fn name(&self, entry: &Entry) -> String {
        self.link(entry).display().to_string()
    }

    /// As `systemctl --user is-enabled`, which needs the session's bus.
    #[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
    pub(super) fn is_enabled(&self, entry: &Entry) -> Result<bool, KeepError> {
        // A link to nothing is what a removed package leaves.
        Ok(self.link(entry).exists())
    }

    pub(super) fn enable(&self, entry: &Entry) -> Result<(), KeepError> {
        let link = self.link(entry);
        let wants = self.units.join(WANTS);
        fs::create_dir_all(&wants).map_err(at("make", wants.display()))?;
        let unit = match self.packaged(entry) {
            Some(unit) => {
                // One of an earlier program would hide it.
                gone(&self.file(entry))?;
                unit
            }
            None => {
                let file = self.file(entry);
                fs::write(&file, entry.unit()?).map_err(at("write", file.display()))?;
                file
            }
        };
        gone(&link)?;
        symlink(unit, &link).map_err(at("make", link.display()))?;
        reread();
        Ok(())
    }

    pub(super) fn disable(&self, entry: &Entry) -> Result<(), KeepError> {
        gone(&self.link(entry))?;
        gone(&self.file(entry))?;
        reread();
        Ok(())
    }

    /// The package's unit, if it starts this program as it is.
    fn packaged(&self, entry: &Entry) -> Option<PathBuf> {
        let file = self.packaged.join(format!("{}.service", entry.name()));
        let start = format!("ExecStart={} start", entry.program().display());
        let unit = fs::read_to_string(&file).ok()?;
        (entry.is_plain() && unit.lines().any(|line| line == start)).then_some(file)
    }
}

/// Removes what may not be there.
fn gone(file: &Path) -> Result<(), KeepError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", file.display())(error)),
        _ => Ok(()),
    }
}

/// For a systemd that runs on between logins. One that is not there reads it when it starts.
fn reread() {
    let mut command = Command::new("systemctl");
    command
        .args(["--user", "daemon-reload"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ = command.status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_made_linked_and_taken_away_again() {
        let dir = tempfile::tempdir().expect("folder");
        let place = Place { units: dir.path().join("units"), packaged: dir.path().join("packaged") };
        let entry = Entry::of("work", Path::new("/opt/slipway/bin/slipway"), None);
        assert!(!place.is_enabled(&entry).expect("asked"));
        place.disable(&entry).expect("nothing to do");
        for _ in 0..2 {
            place.enable(&entry).expect("made");
            assert!(place.is_enabled(&entry).expect("asked"));
        }
        let link = dir.path().join("units/default.target.wants/slipway-work.service");
        assert_eq!(fs::read_to_string(&link).expect("followed"), entry.unit().expect("named"));
        place.disable(&entry).expect("taken away");
        assert!(
            !place.is_enabled(&entry).expect("asked")
                && !dir.path().join("units/slipway-work.service").exists()
        );
    }

    #[test]
    fn the_packages_own_unit_is_taken_for_the_packages_own_program_only() {
        let dir = tempfile::tempdir().expect("folder");
        let place = Place { units: dir.path().join("units"), packaged: dir.path().join("packaged") };
        fs::create_dir(&place.packaged).expect("made");
        let unit = place.packaged.join("slipway.service");
        fs::write(&unit, include_str!("../../../../installer/linux/slipway.service")).expect("written");
        let link = place.units.join("default.target.wants/slipway.service");
        let of =
            |program, home: Option<&str>| Entry::of("default", Path::new(program), home.map(PathBuf::from));
        for (entry, packaged) in [
            (of("/opt/slipway", None), false),
            (of("/usr/bin/slipway", None), true),
            (of("/usr/bin/slipway", Some("/data")), false),
        ] {
            place.enable(&entry).expect("made");
            assert_eq!(fs::read_link(&link).expect("a link") == unit, packaged, "{entry:?}");
            assert_eq!(place.units.join("slipway.service").exists(), !packaged, "{entry:?}");
        }
        // With the package goes what the link leads to.
        place.enable(&of("/usr/bin/slipway", None)).expect("made");
        fs::remove_file(unit).expect("removed");
        assert!(!place.is_enabled(&of("/usr/bin/slipway", None)).expect("asked"));
    }
}
