//! Where the image's programs `docker`, `docker-buildx` and `docker-compose`, which are Linux programs, do not run: none is put in place,
//! and what the person has is looked for where docker looks.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use slipway_manifest::Manifest;

use crate::system;

const PLUGINS: [&str; 2] = ["docker-buildx", "docker-compose"];
/// Where docker, Docker Desktop and Homebrew put plugins of the whole system.
const SYSTEM_PLUGINS: &[&str] = if cfg!(windows) {
    &[r"C:\ProgramData\Docker\cli-plugins", r"C:\Program Files\Docker\cli-plugins"]
} else {
    &[
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/opt/homebrew/lib/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/libexec/docker/cli-plugins",
    ]
};

/// A tool that was put in place: never, here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// `docker`, `docker-buildx`, `docker-compose`.
    pub tool: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// A tool could not be put in place: never, here.
#[derive(Debug, thiserror::Error)]
#[error("failed to install `{path}`")]
pub struct ToolError {
    /// What was to be written.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Puts nothing in place: the image's tools are Linux programs.
///
/// # Errors
/// None here.
pub fn install(
    _image_dir: &Path,
    _image: &Manifest,
    _bin_dir: &Path,
    _docker_config_dir: &Path,
    _path_env: &OsStr,
) -> Result<Vec<Installed>, ToolError> {
    Ok(Vec::new())
}

/// The plugins that the person's `docker` does not find.
pub(crate) fn plugins_missing(docker_config_dir: &Path) -> Vec<&'static str> {
    let config = std::fs::read(docker_config_dir.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    let extra = config["cliPluginsExtraDirs"].as_array().cloned().unwrap_or_default();
    let extra = extra.iter().filter_map(|dir| dir.as_str()).map(PathBuf::from);
    let own = docker_config_dir.join("cli-plugins");
    let dirs: Vec<PathBuf> = SYSTEM_PLUGINS.iter().map(PathBuf::from).chain(extra).chain([own]).collect();
    PLUGINS.into_iter().filter(|plugin| !dirs.iter().any(|dir| runs(&dir.join(plugin)))).collect()
}

/// Whether it is a program.
pub(crate) fn runs(file: &Path) -> bool {
    system::is_program(file)
}
