//! How things stand on the disk, with no link followed: a guest may put one in a folder's place at any moment, and is to hear
//! of no name outside of what is shared.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, statat};

use super::tree::{Kind, State};

fn open(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    return crate::sandbox::open_exactly(folder, flags);
    #[cfg(not(target_os = "linux"))]
    {
        // Of all of the path, where O_NOFOLLOW is of its last name.
        let anywhere = OFlags::from_bits_retain(libc::O_NOFOLLOW_ANY as _);
        Ok(rustix::fs::open(folder, flags | anywhere, rustix::fs::Mode::empty())?)
    }
}

/// How what is at `path` stands; `None` when nothing is, or a link leads there.
pub(super) fn state(path: &Path) -> Option<State> {
    let folder = open(path.parent()?).ok()?;
    statat(&folder, path.file_name()?, AtFlags::SYMLINK_NOFOLLOW).ok().map(|found| read(&found))
}

/// What is in a folder. `None`: it is gone, or a link by now, or not ours to look into.
pub(super) fn list(folder: &Path) -> Option<Vec<(OsString, State)>> {
    let folder = open(folder).ok()?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&folder).ok()?.flatten() {
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        if let Ok(state) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            found.push((OsStr::from_bytes(name.to_bytes()).to_owned(), read(&state)));
        }
    }
    Some(found)
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // The system's types differ.
fn read(found: &Stat) -> State {
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => Kind::Folder,
        FileType::RegularFile => Kind::File,
        _ => Kind::Other,
    };
    State {
        kind,
        id: found.st_ino as u64,
        size: found.st_size as u64,
        changed: i128::from(found.st_mtime as i64) * 1_000_000_000 + i128::from(found.st_mtime_nsec as i64),
        attributes: [u32::from(found.st_mode) & 0o7777, found.st_uid as u32, found.st_gid as u32],
        linked: kind == Kind::File && found.st_nlink as u64 > 1,
    }
}
