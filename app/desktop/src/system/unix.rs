//! Unix: modes and signals.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;
use tokio::process::Child;

/// Whether it can be run.
pub(crate) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Asks a program to end, in its own time. One that has ended is left alone.
pub(crate) fn ask_to_end(child: &mut Child) -> io::Result<()> {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    pid.map_or(Ok(()), |pid| Ok(kill_process(pid, Signal::TERM)?))
}

/// A new file as other programs make theirs: what the person's umask leaves.
pub(crate) fn new_file(dir: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    let mode = PermissionsExt::from_mode(0o666);
    tempfile::Builder::new().prefix(prefix).permissions(mode).tempfile_in(dir)
}
