//! The programs `docker`, `docker-buildx` and `docker-compose` for hosts that have none.
//!
//! They come with the guest image, as Linux programs; elsewhere the person brings them. What the person has already is theirs:
//! nothing is put in its place, and nothing that Slipway did not put there is ever overwritten. The files lie in Slipway's own
//! `bin`; docker finds its plugins by links.

#[cfg_attr(target_os = "linux", path = "host_tools/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "host_tools/elsewhere.rs")]
mod system;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use system::install;

const PLUGINS: [&str; 2] = ["docker-buildx", "docker-compose"];
/// Where docker, Docker Desktop and Homebrew put plugins of the whole system.
const SYSTEM_PLUGINS: &[&str] = if cfg!(windows) {
    &[r"C:\ProgramData\Docker\cli-plugins", r"C:\Program Files\Docker\cli-plugins"]
} else if cfg!(target_os = "macos") {
    &[
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/opt/homebrew/lib/docker/cli-plugins",
    ]
} else {
    &[
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/libexec/docker/cli-plugins",
    ]
};

/// A tool that was put in place, or brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// `docker`, `docker-buildx`, `docker-compose`.
    pub tool: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// A tool could not be put in place; what was there before still is.
#[derive(Debug, thiserror::Error)]
#[error("failed to install `{path}`")]
pub struct ToolError {
    /// What was to be written.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The plugins that the person's `docker` does not find.
pub(crate) fn plugins_missing(docker_config_dir: &Path) -> Vec<&'static str> {
    let own = docker_config_dir.join("cli-plugins");
    let dirs: Vec<PathBuf> =
        SYSTEM_PLUGINS.iter().map(PathBuf::from).chain(extra(docker_config_dir)).chain([own]).collect();
    PLUGINS.into_iter().filter(|plugin| !dirs.iter().any(|dir| runs(&dir.join(plugin)))).collect()
}

/// Folders that the person told docker to look for plugins in, as Homebrew asks people to.
fn extra(docker_config_dir: &Path) -> Vec<PathBuf> {
    let config = std::fs::read(docker_config_dir.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    let dirs = config["cliPluginsExtraDirs"].as_array().cloned().unwrap_or_default();
    dirs.iter().filter_map(|d| d.as_str()).map(PathBuf::from).collect()
}

/// Whether it is a program.
pub(crate) fn runs(file: &Path) -> bool {
    crate::system::is_program(file)
}
