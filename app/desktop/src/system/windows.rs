//! Windows: names that end in `.exe`, and rights that files have from their folder.

use std::{io, path::Path};

use tempfile::NamedTempFile;
use tokio::process::Child;

/// Whether it can be run: who looks has given it the ending that says so.
pub(crate) fn is_program(file: &Path) -> bool {
    file.is_file()
}

/// Ends a program: one without a console has no ear for a wish. docker's plugins see its end, and end in their own time.
pub(crate) fn ask_to_end(child: &mut Child) -> io::Result<()> {
    match child.id() {
        Some(_) => child.start_kill(),
        None => Ok(()),
    }
}

/// A new file with the rights of its folder.
pub(crate) fn new_file(dir: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(prefix).tempfile_in(dir)
}
