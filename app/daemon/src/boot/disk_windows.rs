//! The data disk as Hyper-V has it: in a format of its own, which Windows makes.

use std::{io, path::Path};

use slipway_api::Problem;
use slipway_shim::drivers::disk::{self, DiskError};

use super::not_prepared;

/// Makes it, or makes it larger.
pub(crate) fn prepare(path: &Path, bytes: u64) -> Result<(), Problem> {
    disk::prepare(path, bytes).map_err(|error| not_prepared(path, &error, hint(&error)))
}

/// What it may take at most.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    // Of one that is not there, that is to be said; it is not asked of what else may be missing.
    std::fs::metadata(path)?;
    disk::size(path).map_err(io::Error::other)
}

fn hint(error: &DiskError) -> Option<&'static str> {
    match error {
        DiskError::FileSystem { .. } => Some("set SLIPWAY_HOME to a folder on a disk with NTFS"),
        DiskError::Limitation(_) => {
            Some("in the folder's properties (General, Advanced) switch compression and encryption off")
        }
        DiskError::TooLarge => {
            Some("`slipway config set machine.disk 1TiB`: it takes room only as it is written to")
        }
        error if error.is_full() => Some("free some space on this computer"),
        DiskError::Library(_) | DiskError::Failed { .. } => None,
    }
}
