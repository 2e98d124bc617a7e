//! Unix: `statvfs` and `stat`.

use std::{io, os::unix::fs::MetadataExt, path::Path};

pub(super) fn free(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

pub(super) fn taken(file: &Path) -> io::Result<u64> {
    // In blocks of 512 bytes, whatever the file system's own are.
    Ok(std::fs::metadata(file)?.blocks().saturating_mul(512))
}
