//! `slipway.yaml` as types. What is not understood is an error: a misspelt key must not silently leave something out.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Definition {
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) kernel: Kernel,
    pub(crate) packages: Packages,
    pub(crate) host_tools: HostTools,
    pub(crate) drop: Vec<String>,
    pub(crate) applets: String,
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) folders: Vec<String>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) services: Vec<Service>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Kernel {
    pub(crate) suite: String,
    pub(crate) package: String,
    /// Written without its decompressor.
    pub(crate) unpacked: bool,
    pub(crate) cmdline: Vec<String>,
    pub(crate) initramfs: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) file_events: FileEvents,
}

/// The module of our own, and what it is compiled with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEvents {
    /// Folder beside the definition.
    pub(crate) source: String,
    pub(crate) install: Vec<String>,
    pub(crate) without: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Packages {
    pub(crate) suite: String,
    pub(crate) install: Vec<String>,
    pub(crate) without: Vec<String>,
    /// Package, and the patterns of the only paths that are taken out of it.
    #[serde(default)]
    pub(crate) only: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostTools {
    pub(crate) suite: String,
    /// Package, and the program's path in it.
    pub(crate) programs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
}

impl Definition {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        serde_yaml_ng::from_str(&text).with_context(|| format!("failed to understand `{}`", path.display()))
    }

    /// Every suite that packages come from, each once.
    pub(crate) fn suites(&self) -> Vec<&str> {
        let mut suites = vec![self.kernel.suite.as_str(), &self.packages.suite, &self.host_tools.suite];
        suites.sort_unstable();
        suites.dedup();
        suites
    }

    /// Changes with whatever decides which packages are needed, and with nothing else.
    pub(crate) fn fingerprint(&self) -> String {
        let decides = (
            &self.arch,
            (&self.kernel.suite, &self.kernel.package),
            (&self.kernel.file_events.install, &self.kernel.file_events.without),
            &self.packages,
            (&self.host_tools.suite, self.host_tools.programs.keys().collect::<Vec<_>>()),
        );
        let json = serde_json::to_vec(&decides).unwrap_or_default();
        hex(&Sha256::digest(json))
    }
}

/// In lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_definition_is_understood() {
        let definition = Definition::read(Path::new("../slipway.yaml")).expect("reads");
        assert!(definition.services.iter().any(|s| s.name == "dockerd"));
        assert_eq!(definition.suites(), ["testing", "trixie"]);
    }
}
