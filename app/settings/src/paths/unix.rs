//! Unix: sockets in a folder that only this user may enter.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{Env, PathError, Paths, fnv1a};

/// A path as the settings file shows one.
pub(crate) const EXAMPLE_FILE: &str = "/etc/ssl/certs/example.pem";
/// The machine's data disk, in a form that the system's hypervisor takes.
pub(super) const DATA_DISK: &str = "machine/data.raw";
/// The variable with the user's home.
pub const HOME: &str = "HOME";
/// Longest path in bytes that fits in a unix socket's address on every system that we know (macOS: 104 with its NUL).
pub const LONGEST_SOCKET: usize = 103;
/// The longest socket name in the run folder, with its slash.
const LONGEST_NAME: usize = "/docker.sock".len();

/// The socket of one service.
pub(super) fn endpoint(paths: &Paths, service: &str) -> PathBuf {
    paths.run.join(format!("{service}.sock"))
}

/// An engine's endpoint as docker's clients name it.
pub fn docker_host(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// Makes a folder for this user alone.
pub(super) fn create(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Waits until what was renamed in a folder is on the disk.
pub(crate) fn settle(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

/// Beside the rest where sockets fit there; else in the runtime folder, or in /tmp, under a name made from the path.
pub(super) fn run_dir(root: &Path, env: &Env) -> Result<PathBuf, PathError> {
    let fits = |dir: &Path| dir.as_os_str().len() + LONGEST_NAME <= LONGEST_SOCKET;
    let beside = root.join("run");
    if fits(&beside) {
        return Ok(beside);
    }
    let name = format!("{:016x}", fnv1a(root.as_os_str().as_encoded_bytes()));
    let elsewhere = match &env.runtime_dir {
        Some(dir) => Path::new(dir).join("slipway").join(name),
        None => PathBuf::from(format!("/tmp/slipway-{}", rustix::process::getuid().as_raw())).join(name),
    };
    if fits(&elsewhere) { Ok(elsewhere) } else { Err(PathError::TooLong(beside)) }
}

/// Refuses a folder that another user made first, as anybody can in /tmp.
pub(super) fn private(dir: &Path) -> io::Result<()> {
    let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned());
    let mut checked = vec![dir];
    // The folder above a run folder in /tmp is guessable too.
    if let Some(parent) = dir.parent().filter(|p| p.parent() == Some(Path::new("/tmp"))) {
        checked.push(parent);
    }
    for dir in checked {
        let found = std::fs::symlink_metadata(dir)?;
        if !found.is_dir() {
            return Err(denied("it is not a folder"));
        }
        if found.uid() != rustix::process::getuid().as_raw() {
            return Err(denied("another user owns it"));
        }
        if found.mode() & 0o077 != 0 {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}
