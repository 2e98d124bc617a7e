//! The welcome image as `docker load` takes it: one layer with one program, the same bytes each time.

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::definition::hex;

/// Where the program is in its image.
const PROGRAM: &str = "slipway-welcome";

pub(crate) fn archive(program: &[u8], arch: &str) -> Result<Vec<u8>> {
    let layer = tar(&[(PROGRAM, 0o755, program)])?;
    let config = serde_json::json!({
        "architecture": arch,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": [format!("/{PROGRAM}")],
            "ExposedPorts": { "80/tcp": {} },
            "Labels": { "org.opencontainers.image.title": "Slipway welcome" },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&Sha256::digest(&layer)))] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "slipway-image" }],
    })
    .to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    let manifest = serde_json::json!([{
        "Config": config_name, "RepoTags": ["slipway/welcome:latest"], "Layers": ["layer.tar"],
    }])
    .to_string();
    tar(&[
        ("manifest.json", 0o644, manifest.as_bytes()),
        (&config_name, 0o644, config.as_bytes()),
        ("layer.tar", 0o644, &layer),
    ])
}

fn tar(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        tar.append_data(&mut header, path, *bytes)?;
    }
    Ok(tar.into_inner()?)
}
