//! `slipway.ARCH.lock`: every package with its hash. Paths are relative to a mirror, so that any mirror serves.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::definition::{Arch, hex};

/// What a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Kernel,
    /// Compiles our kernel module on the processor that it is for, and is not in the image.
    Compiler,
    /// The same on the other processor.
    CrossCompiler,
    Guest,
    HostTool,
}

impl Role {
    /// What compiles an image's module on this computer.
    pub(crate) fn compiler_for(arch: Arch) -> Self {
        if arch == Arch::HOST { Self::Compiler } else { Self::CrossCompiler }
    }

    pub(crate) fn is_compiler(self) -> bool {
        matches!(self, Self::Compiler | Self::CrossCompiler)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Locked {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) role: Role,
    pub(crate) suite: String,
    /// Relative to the mirror.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    /// Fingerprint of the definition that it was resolved from.
    pub(crate) definition: String,
    pub(crate) packages: Vec<Locked>,
}

impl Lock {
    /// `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("failed to understand `{}`", path.display()))
    }

    pub(crate) fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Hash of the lock, for the manifest.
    pub(crate) fn hash(&self) -> String {
        hex(&Sha256::digest(self.text()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.text()).with_context(|| format!("failed to write `{}`", path.display()))
    }

    /// What is other than before, a line each.
    pub(crate) fn changes_from(&self, old: Option<&Self>) -> Vec<String> {
        let table = |lock: &Self| -> BTreeMap<(Role, String), String> {
            lock.packages.iter().map(|p| ((p.role, p.name.clone()), p.version.clone())).collect()
        };
        let (new, old) = (table(self), old.map(table).unwrap_or_default());
        let added = new.iter().filter_map(|(key, version)| match old.get(key) {
            None => Some(format!("+ {} {version}", key.1)),
            Some(before) if before != version => Some(format!("~ {} {before} -> {version}", key.1)),
            Some(_) => None,
        });
        let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
        added.chain(gone.map(|(key, version)| format!("- {} {version}", key.1))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(versions: &[(&str, &str)]) -> Lock {
        let packages = versions.iter().map(|(name, version)| Locked {
            name: (*name).into(),
            version: (*version).into(),
            role: Role::Guest,
            suite: "testing".into(),
            path: format!("pool/{name}.deb"),
            size: 1,
            sha256: "00".into(),
        });
        Lock { definition: "d".into(), packages: packages.collect() }
    }

    #[test]
    fn it_comes_back_as_it_was_written_and_tells_what_changed() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("slipway.lock");
        assert_eq!(Lock::read(&path).expect("reads"), None);
        let old = lock(&[("a", "1"), ("b", "1")]);
        old.write(&path).expect("writes");
        assert_eq!(Lock::read(&path).expect("reads"), Some(old.clone()));
        let new = lock(&[("a", "2"), ("c", "1")]);
        assert_eq!(new.changes_from(Some(&old)), ["~ a 1 -> 2", "+ c 1", "- b 1"]);
        assert!(old.changes_from(Some(&old)).is_empty());
    }
}
