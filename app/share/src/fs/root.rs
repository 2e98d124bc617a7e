//! Our own root, which lists the exports, and the listing of a folder, which is ours or the library's.

use std::{ffi::CString, time::Duration};

use virtiofsd::{
    filesystem::{DirEntry, DirectoryIterator},
    fuse::{Attr, ROOT_ID},
    read_dir::ReadDir,
    soft_idmap::{GuestGid, GuestUid},
};

/// How long the guest may believe our root: what is shared changes seldom, and is asked for by name.
pub(super) const TIMEOUT: Duration = Duration::ZERO;

/// The attributes of our root, in which exports came or went `changes` times: by its time the guest knows whether a listing
/// that it remembers still holds.
pub(super) fn attr(changes: u64) -> Attr {
    Attr {
        ino: ROOT_ID,
        mtime: changes,
        mode: libc::S_IFDIR | 0o555,
        nlink: 2,
        uid: GuestUid::from(0),
        gid: GuestGid::from(0),
        blksize: 4096,
        ..Attr::default()
    }
}

/// A folder's entries.
pub(crate) enum Listing {
    /// Of the host.
    Host(ReadDir<Vec<u8>>),
    /// Of ours: names, and where the next one is.
    Ours(Vec<(CString, u32)>, usize),
}

impl DirectoryIterator for Listing {
    fn next(&mut self) -> Option<DirEntry<'_>> {
        match self {
            Self::Host(entries) => entries.next(),
            Self::Ours(names, at) => {
                let (name, type_) = names.get(*at)?;
                *at += 1;
                Some(DirEntry { ino: ROOT_ID, offset: *at as u64, type_: *type_, name })
            }
        }
    }
}
