//! Linux: one file, which the system's own tools write.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Trust;

/// Where systems keep their authorities in one file: Debian's family, Fedora's, SUSE's, Alpine's.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is looked at, whether it is there or not.
pub(super) fn places() -> impl Iterator<Item = PathBuf> {
    BUNDLES.iter().map(PathBuf::from)
}

/// Adds whom the system trusts.
pub(super) fn add_to(trust: &mut Trust) {
    let bundle = BUNDLES.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    trust.add(Path::new(super::THIS_COMPUTERS), bundle);
}
