//! Unix: modes, owners, signals.

use std::{
    fs::{DirBuilder, File, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{Access, CWD, RenameFlags, renameat_with};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Makes a folder, and those above it, with this mode.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(dir)
}

/// Makes a file that was not there, with this mode as far as the umask lets it.
pub(crate) fn create_new(file: &Path, mode: u32) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(mode).open(file)
}

/// A file's rights.
pub(crate) fn mode(found: &Metadata) -> u32 {
    found.mode() & 0o7777
}

/// Gives a file these rights, whatever the umask says.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

/// Gives a file the owner that another has. Only root can, and only root needs to.
pub(crate) fn owned_as(file: &File, there: &Metadata) {
    let _ = std::os::unix::fs::fchown(file, Some(there.uid()), Some(there.gid()));
}

/// Waits until what was renamed in a folder is on the disk.
pub(crate) fn settle(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether it is a program.
pub(crate) fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// Whether this user may write there.
pub(crate) fn writable(path: &Path) -> io::Result<()> {
    rustix::fs::access(path, Access::WRITE_OK).map_err(Into::into)
}

/// Two folders in each other's place; where `to` is not there, `from` is moved. `Unsupported`: the file system cannot do it at once.
pub(crate) fn exchange(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::NOENT) => std::fs::rename(from, to),
        Err(rustix::io::Errno::INVAL) => Err(io::ErrorKind::Unsupported.into()),
        done => done.map_err(Into::into),
    }
}

/// The ways in which a person or the system tells a process to end.
#[derive(Debug)]
pub struct Ends {
    terminate: Signal,
    interrupt: Signal,
    // A closed terminal is no reason to end.
    _hangup: Signal,
}

impl Ends {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// That of the system.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves when told. Cancel-safe.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
