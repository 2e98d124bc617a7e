//! The data disk as QEMU and Virtualization.framework have it: a sparse file.

use std::{fs::File, io, path::Path};

use slipway_api::Problem;

use super::not_prepared;

/// Makes it, or makes it larger.
pub(crate) fn prepare(path: &Path, bytes: u64) -> Result<(), Problem> {
    let prepared = || {
        let disk = File::options().create(true).truncate(false).write(true).open(path)?;
        if disk.metadata()?.len() < bytes {
            disk.set_len(bytes)?;
        }
        disk.sync_all()
    };
    prepared().map_err(|error| {
        let full = error.kind() == io::ErrorKind::StorageFull;
        not_prepared(path, &error, full.then_some("free some space on this computer"))
    })
}

/// What it may take at most.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}
