//! What the image says about itself: `/etc/slipway/guest.json`, written by the image builder.

use std::{io, path::PathBuf};

/// Where the builder puts the file.
pub(crate) const PATH: &str = "/etc/slipway/guest.json";

/// The image could not say what it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    #[error("failed to read {PATH}")]
    Read(#[source] io::Error),
    #[error("failed to parse {PATH}")]
    Parse(#[source] serde_json::Error),
}

/// The image's own description. Unknown keys belong to newer builders and are ignored.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct Guest {
    /// Kernel modules in load order: names, or absolute paths.
    #[serde(default)]
    pub(crate) modules: Vec<String>,
    /// The same where the machine is Hyper-V's.
    #[serde(default)]
    pub(crate) modules_hyperv: Vec<String>,
    /// What to keep running.
    #[serde(default)]
    pub(crate) services: Vec<ServiceSpec>,
    /// Image archives for the first start; `welcome.tar` holds the repository `slipway/welcome`.
    #[serde(default)]
    pub(crate) images: Vec<PathBuf>,
    /// The module that delivers the host's file events, below the kernel's modules.
    #[serde(default)]
    pub(crate) file_events: Option<PathBuf>,
    /// Why the image has none.
    #[serde(default)]
    pub(crate) file_events_missing: String,
}

/// One program to keep running.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct ServiceSpec {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    /// `NAME=value`.
    #[serde(default)]
    pub(crate) env: Vec<String>,
}

/// Reads the description.
pub(crate) fn load() -> Result<Guest, GuestError> {
    let bytes = std::fs::read(PATH).map_err(GuestError::Read)?;
    serde_json::from_slice(&bytes).map_err(GuestError::Parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_newer_builders_are_ignored_and_missing_ones_are_empty() {
        let guest: Guest =
            serde_json::from_str(r#"{"services":[{"name":"x","argv":["/bin/x"]}],"tomorrow":1}"#).unwrap();
        assert!(guest.modules.is_empty() && guest.images.is_empty());
        assert_eq!(guest.services[0].argv, ["/bin/x"]);
    }
}
