//! macOS: a launch agent of the person's, which launchd reads at each login.

use std::{fs, io, path::PathBuf};

use super::{KeepError, at, entry::Entry};

/// A person's launch agents.
#[derive(Debug)]
pub(super) struct Place {
    agents: PathBuf,
}

impl Place {
    pub(super) fn of_process() -> Result<Self, KeepError> {
        let home = std::env::var_os("HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = home.ok_or(KeepError::Nobody("HOME is not set"))?;
        Ok(Self { agents: home.join("Library/LaunchAgents") })
    }

    fn file(&self, entry: &Entry) -> PathBuf {
        self.agents.join(format!("{}.plist", entry.label()))
    }

    pub(super) fn name(&self, entry: &Entry) -> String {
        self.file(entry).display().to_string()
    }

    #[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
    pub(super) fn is_enabled(&self, entry: &Entry) -> Result<bool, KeepError> {
        Ok(self.file(entry).is_file())
    }

    pub(super) fn enable(&self, entry: &Entry) -> Result<(), KeepError> {
        let file = self.file(entry);
        fs::create_dir_all(&self.agents).map_err(at("make", self.agents.display()))?;
        fs::write(&file, entry.plist()?).map_err(at("write", file.display()))
    }

    pub(super) fn disable(&self, entry: &Entry) -> Result<(), KeepError> {
        let file = self.file(entry);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", file.display())(error)),
            _ => Ok(()),
        }
    }
}
