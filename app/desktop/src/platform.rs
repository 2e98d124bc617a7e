//! What the pages must know of the host.

use std::path::PathBuf;

use serde::Serialize;

use crate::credentials;

/// The host, as far as the pages care.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// Slipway's version.
    pub version: String,
    /// The folder of the person's docker configuration, for a start to set up.
    pub docker_config: Option<PathBuf>,
    /// The profile that is shown.
    pub profile: String,
    /// Whether this is the window and not a plain browser.
    pub window: bool,
}

impl Platform {
    /// As this process's environment is.
    pub fn of_process(profile: &str, window: bool) -> Self {
        let docker_config = credentials::config_dir();
        Self {
            os: std::env::consts::OS.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            docker_config: docker_config.and_then(|dir| std::path::absolute(dir).ok()),
            profile: profile.into(),
            window,
        }
    }
}
