//! Slipway's own files: settings, folders and their rights, sockets, and what dead processes left.

use std::{
    fs::{File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use slipway_api::{Problem, lock, paths::LONGEST_SOCKET};

use super::{Finding, Ward, folders::folder, told};
use crate::system;

/// Rights of others to change.
const OTHERS_WRITE: u32 = 0o022;
/// Any rights of others.
const OTHERS: u32 = 0o077;

pub(super) fn home(ward: &Ward) -> Finding {
    let paths = ward.paths();
    for (dir, forbidden) in [(paths.root(), OTHERS_WRITE), (paths.run_dir(), OTHERS)] {
        let found = match folder(dir) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(wrong) => return wrong,
        };
        let us = rustix::process::geteuid().as_raw();
        if found.uid() != us {
            return Finding::failed(format!("{} belongs to another user", told(dir)))
                .because(format!("its owner is user {}, and this is user {us}", found.uid()))
                .hint(format!("`sudo chown -R $USER {}`, if all in it is yours", told(dir)));
        }
        if let Err(error) = system::writable(dir) {
            return Finding::failed(format!("{} cannot be written", told(dir)))
                .because(error.to_string())
                .hint(format!("`chmod u+rwx {}`", told(dir)));
        }
        if found.mode() & forbidden != 0 {
            return Finding::warning(format!("other users may use {}", told(dir)))
                .because(format!("its mode is {:o}", found.mode() & 0o7777))
                .hint(format!("`chmod go-{} {}`", if forbidden == OTHERS { "rwx" } else { "w" }, told(dir)))
                .fixable();
        }
    }
    Finding::ok(told(paths.root()))
}

/// Takes rights from others; gives none to anybody.
pub(super) fn mend_home(ward: &Ward) -> Result<(), Problem> {
    let paths = ward.paths();
    for (dir, forbidden) in [(paths.root(), OTHERS_WRITE), (paths.run_dir(), OTHERS)] {
        let Ok(found) = std::fs::metadata(dir) else { continue };
        let mode = found.mode() & 0o7777;
        if mode & forbidden != 0 {
            std::fs::set_permissions(dir, Permissions::from_mode(mode & !forbidden)).map_err(|error| {
                Problem::new("paths", format!("failed to change the mode of {}", told(dir)))
                    .because(error.to_string())
            })?;
        }
    }
    Ok(())
}

pub(super) fn sockets(ward: &Ward) -> Finding {
    let paths = ward.paths();
    let length = paths.docker_sock().as_os_str().len();
    let run = paths.run_dir();
    if run.starts_with(paths.root()) {
        return Finding::ok(format!("their paths have {length} of {LONGEST_SOCKET} bytes"));
    }
    Finding::ok(format!(
        "they are in {}, because {} is too long a path for them",
        told(run),
        told(paths.root())
    ))
}

/// A socket without anybody behind it, and the lock whose holder would be behind it.
struct Leftover {
    path: PathBuf,
    lock: PathBuf,
}

/// Sockets in the run folder that no living process serves. Nothing is asked of those that one may serve.
fn left(ward: &Ward) -> Vec<Leftover> {
    let paths = ward.paths();
    let daemons = [paths.api_sock(), paths.docker_sock()];
    let mut left = Vec::new();
    for entry in std::fs::read_dir(paths.run_dir()).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            continue;
        }
        let file = if daemons.contains(&path) { paths.daemon_lock() } else { paths.shim_lock() };
        if !lock::held(&file) && is_dead(&path) {
            left.push(Leftover { path, lock: file });
        }
    }
    left.sort_by(|a, b| a.path.cmp(&b.path));
    left
}

/// Whether nobody listens there. What cannot be told is not dead.
fn is_dead(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

pub(super) fn leftovers(ward: &Ward) -> Finding {
    let left = left(ward);
    if left.is_empty() {
        return Finding::ok("none");
    }
    let message = match left.len() {
        1 => "a socket is left of a process that died".to_owned(),
        n => format!("{n} sockets are left of processes that died"),
    };
    let found = left.iter().fold(Finding::warning(message), |found, one| found.because(told(&one.path)));
    found
        .hint("`slipway doctor --fix` removes what no living process holds; the next start does it, too")
        .fixable()
}

/// Removes them, each while its lock is ours: so nobody who could have made it new is alive.
pub(super) fn mend_leftovers(ward: &Ward) -> Result<(), Problem> {
    for Leftover { path, lock } in left(ward) {
        let failed = |error: io::Error| {
            Problem::new("leftovers", format!("failed to remove {}", told(&path))).because(error.to_string())
        };
        let file = File::options().create(true).truncate(false).write(true).open(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            // Somebody has come meanwhile, and it is theirs.
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let removed = if is_dead(&path) { std::fs::remove_file(&path) } else { Ok(()) };
        // Not by closing: a child that has not got to its exec yet has the descriptor, too.
        let _ = file.unlock();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}
