//! How much room a file system has for a machine's disk: asked by whoever starts a machine, and by whoever lets one go on that stood still.

#[cfg_attr(unix, path = "room/unix.rs")]
#[cfg_attr(windows, path = "room/windows.rs")]
mod system;

use std::{io, path::Path};

/// Bytes that this user may still write to the file system that `path`, which must be there, lies on.
///
/// # Errors
/// That of the system.
pub fn free(path: &Path) -> io::Result<u64> {
    system::free(path)
}

/// Bytes that a file takes of its disk: less than its length where it is sparse or compressed.
///
/// # Errors
/// That of the system.
pub fn taken(file: &Path) -> io::Result<u64> {
    system::taken(file)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_folder_has_some_room_and_one_that_is_not_there_cannot_be_asked() {
        let dir = tempfile::tempdir().expect("folder");
        assert!(super::free(dir.path()).expect("asked") > 0);
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert!(super::free(&file).expect("a file's own file system") > 0);
        assert!(super::free(&dir.path().join("nowhere/at/all")).is_err());
        assert!(super::taken(&file).is_ok() && super::taken(&dir.path().join("none")).is_err());
    }
}
