//! Windows: named pipes, whose namespace all users and homes of the computer share, so their names say whose they are. Folders below
//! the user's profile inherit that only this user, and administrators, may enter.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{DEFAULT_PROFILE, Env, PathError, Paths, fnv1a};

/// A path as the settings file shows one.
pub(crate) const EXAMPLE_FILE: &str = "C:/certs/example.pem";
/// The machine's data disk, in a form that the system's hypervisor takes.
pub(super) const DATA_DISK: &str = "machine/data.vhdx";
/// The variable with the user's home.
pub const HOME: &str = "USERPROFILE";

/// The pipe of one service: `\\.\pipe\slipway_engine` for docker's clients, as docker's own is `docker_engine`.
pub(super) fn endpoint(paths: &Paths, service: &str) -> PathBuf {
    let service = if service == "docker" { "engine" } else { service };
    let mut name = format!(r"\\.\pipe\slipway_{service}");
    if paths.profile != DEFAULT_PROFILE {
        name.push_str(&format!("-{}", paths.profile));
    }
    // A home that was chosen may stand beside the usual one.
    if paths.home.file_name().is_none_or(|folder| folder != ".slipway") {
        name.push_str(&format!("-{:016x}", fnv1a(paths.home.as_os_str().as_encoded_bytes())));
    }
    PathBuf::from(name)
}

/// An engine's endpoint as docker's clients name it.
pub fn docker_host(socket: &Path) -> String {
    format!("npipe://{}", socket.display().to_string().replace('\\', "/"))
}

/// Makes a folder.
pub(super) fn create(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

/// NTFS writes renames to its journal in order, and no ordinary program may flush a folder.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn settle(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Beside the rest: pipes have no place in a folder, so no path is too long for them.
pub(super) fn run_dir(root: &Path, _env: &Env) -> Result<PathBuf, PathError> {
    Ok(root.join("run"))
}

/// A folder is what it has to be; who may enter it is inherited.
pub(super) fn private(dir: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(dir)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_of_profiles_and_homes_never_meet() {
        let at = |home: &str, profile: &str| {
            let env = Env { slipway_home: Some(home.into()), ..Env::default() };
            Paths::resolve(&env, profile).expect("resolves").docker_sock()
        };
        let usual = r"C:\Users\me\.slipway";
        assert_eq!(at(usual, "default"), Path::new(r"\\.\pipe\slipway_engine"));
        assert_eq!(at(usual, "work"), Path::new(r"\\.\pipe\slipway_engine-work"));
        assert_ne!(at(r"C:\a", "default"), at(r"C:\b", "default"));
    }
}
