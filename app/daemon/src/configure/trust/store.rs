//! macOS and Windows: the system's store, through the library by which programs in Rust ask it. It has no file that could be watched: it is
//! read at each start.

use std::path::{Path, PathBuf};

use super::{Trust, pem};

/// Nothing to look at.
pub(super) fn places() -> impl Iterator<Item = PathBuf> {
    std::iter::empty()
}

/// Adds whom the system trusts.
pub(super) fn add_to(trust: &mut Trust) {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        trust.problems.push(format!("{} cannot all be read: {error}", super::THIS_COMPUTERS));
    }
    let bundle: String = found.certs.iter().map(|certificate| pem::certificate(certificate)).collect();
    trust.add(Path::new(super::THIS_COMPUTERS), bundle.into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_authorities_are_found_and_each_is_whole() {
        let mut trust = Trust::default();
        add_to(&mut trust);
        let pem = String::from_utf8(trust.authorities).expect("text");
        let (begun, ended) =
            (pem.matches("-----BEGIN CERTIFICATE-----\n"), pem.matches("-----END CERTIFICATE-----\n"));
        let count = begun.count();
        assert!(count > 10 && count == ended.count(), "{count} {:?}", trust.problems);
    }
}
