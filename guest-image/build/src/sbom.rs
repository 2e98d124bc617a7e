//! What is in the image, as CycloneDX: each Debian package with its hash.

use crate::{
    lock::{Lock, Role},
    module::Compiled,
};

pub(crate) fn cyclonedx(lock: &Lock, compiled: &Compiled, version: &str, arch: &str) -> String {
    let mut components: Vec<_> = lock
        .packages
        .iter()
        .map(|package| {
            let purl = format!(
                "pkg:deb/debian/{}@{}?arch={arch}&distro={}",
                package.name,
                package.version.replace('+', "%2B").replace('~', "%7E").replace(':', "%3A"),
                package.suite
            );
            serde_json::json!({
                "type": if package.role == Role::HostTool { "application" } else { "library" },
                // What compiles the module is in no image.
                "scope": if package.role.is_compiler() { "excluded" } else { "required" },
                "bom-ref": purl,
                "name": package.name,
                "version": package.version,
                "purl": purl,
                "hashes": [{ "alg": "SHA-256", "content": package.sha256 }],
                "properties": [{ "name": "slipway:role", "value": package.role }],
            })
        })
        .collect();
    let ours = compiled.modules.iter().map(|module| (module.name.as_str(), version));
    let of_kernel = compiled.of_kernel.iter().map(|(path, _)| (path.as_str(), compiled.release.as_str()));
    components.extend(ours.chain(of_kernel).map(|(name, version)| {
        serde_json::json!({
            "type": "library",
            "bom-ref": name,
            "name": name,
            "version": version,
            "licenses": [{ "license": { "id": "GPL-2.0-only" } }],
            "properties": [{ "name": "slipway:role", "value": "kernel" }],
        })
    }));
    let hash = lock.hash();
    // A UUID must look random and the same lock must give the same bytes: the lock's hash is both.
    let serial = format!(
        "urn:uuid:{}-{}-4{}-8{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[13..16],
        &hash[17..20],
        &hash[20..32]
    );
    let document = serde_json::json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial,
        "version": 1,
        "metadata": { "component": { "type": "operating-system", "name": "slipway-guest", "version": version } },
        "components": components,
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}
