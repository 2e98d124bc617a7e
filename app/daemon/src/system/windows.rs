//! Windows: rights are inherited from the user's folder, and consoles and sessions end, not processes by signals.

use std::{
    fs::{File, Metadata},
    io,
    path::Path,
};

use tokio::signal::windows::{CtrlC, CtrlShutdown, ctrl_c, ctrl_shutdown};

/// Makes a folder, and those above it.
pub(crate) fn make_dir(dir: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

/// Makes a file that was not there.
pub(crate) fn create_new(file: &Path, _mode: u32) -> io::Result<File> {
    File::options().write(true).create_new(true).open(file)
}

/// No file has one.
pub(crate) fn mode(_found: &Metadata) -> u32 {
    0
}

/// Nothing to give.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// A new file belongs to who makes it, as its folder says.
pub(crate) fn owned_as(_file: &File, _there: &Metadata) {}

/// NTFS writes renames to its journal in order, and no ordinary program may flush a folder.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn settle(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether it is a program: its name says so. One without `.exe` is looked for with it.
pub(crate) fn is_program(file: &Path) -> bool {
    let is = |file: &Path| {
        file.is_file() && file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("exe"))
    };
    is(file) || is(&file.with_extension("exe"))
}

/// Whether this user may write there: tried, because access lists of groups and inheritance are the system's to read.
pub(crate) fn writable(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return tempfile::tempfile_in(path).map(drop);
    }
    File::options().append(true).open(path).map(drop)
}

/// Windows exchanges nothing at once; where `to` is not there, `from` is moved.
pub(crate) fn exchange(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::rename(from, to),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The ways in which a person or the system tells a process to end.
#[derive(Debug)]
pub struct Ends {
    interrupt: CtrlC,
    shutdown: CtrlShutdown,
}

impl Ends {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// That of the system.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: ctrl_c()?, shutdown: ctrl_shutdown()? })
    }

    /// Resolves when told. Cancel-safe.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
