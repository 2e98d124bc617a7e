//! Owners: read with a file's first sight, written when a container sets one.

use std::io;

use virtiofsd::{
    filesystem::{Context, FileSystem, GetxattrReply, SetxattrFlags},
    fuse::{Attr, SetattrIn, SetattrValid},
    soft_idmap::Id,
};

use super::{Export, Inner, context, read, write};
use crate::owner::{ATTRIBUTE, LONGEST, Owner};

impl Inner {
    pub(super) fn read_owner(&self, export: &Export, inode: u64) -> Owner {
        // Also of a folder that its owner has closed to themselves.
        match self.lending(export, inode, || export.fs.getxattr(context(), inode, ATTRIBUTE, LONGEST)) {
            Ok(GetxattrReply::Value(value)) => Owner::parse(&value),
            _ => Owner::default(),
        }
    }

    fn write_owner(&self, export: &Export, inode: u64, owner: Owner) -> io::Result<()> {
        let value = owner.value();
        self.lending(export, inode, || {
            self.touched(export, inode);
            export.fs.setxattr(context(), inode, ATTRIBUTE, value.as_bytes(), 0, SetxattrFlags::empty())
        })
    }

    /// Gives a file an owner in the guest's eyes. A file system without attributes, and what can carry none (links, pipes),
    /// keeps it for as long as the guest knows the file.
    pub(super) fn own(&self, export: &Export, inode: u64, ids: (u32, u32), mode: u32) -> io::Result<()> {
        let Some(known) = read(&export.known).get(&inode).copied() else { return Ok(()) };
        let owner = Owner { ids: Some(ids), ..known.owner };
        if [libc::S_IFDIR, libc::S_IFREG].contains(&(mode & libc::S_IFMT)) {
            match self.write_owner(export, inode, owner) {
                Ok(()) => self.mark_above(export, known.parent, known.dir),
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(known) = write(&export.known).get_mut(&inode) {
            known.owner = owner;
        }
        Ok(())
    }

    /// The folder's other files are looked at from now on.
    fn mark_above(&self, export: &Export, folder: u64, is_dir: bool) {
        // Folders are always looked at.
        let Some(known) = read(&export.known).get(&folder).copied().filter(|_| !is_dir) else { return };
        if known.owner.below {
            return;
        }
        let owner = Owner { below: true, ..known.owner };
        if self.write_owner(export, folder, owner).is_ok()
            && let Some(known) = write(&export.known).get_mut(&folder)
        {
            known.owner = owner;
        }
    }

    /// A file with an owner of its own came into this folder.
    pub(super) fn came(&self, export: &Export, folder: u64, inode: u64) {
        let known = read(&export.known).get(&inode).copied();
        if let Some(known) = known.filter(|known| known.owner.ids.is_some()) {
            self.mark_above(export, folder, known.dir);
        }
    }

    /// Something was made by `maker`. What root makes is the person's, as what the person makes; anybody else's is theirs.
    pub(super) fn made(&self, export: &Export, inode: u64, maker: &Context, mode: u32) {
        let ids = (maker.uid.into_inner(), maker.gid.into_inner());
        if ids.0 == 0 || ids == self.ids {
            return;
        }
        // The file is there; that it seems to be the person's is no reason to fail.
        let _ = self.own(export, inode, ids, mode);
    }

    /// Changes attributes: owners are kept aside, everything else is the host's.
    pub(super) fn change(
        &self,
        export: &Export,
        inode: u64,
        mut attr: SetattrIn,
        handle: Option<u64>,
        mut valid: SetattrValid,
    ) -> io::Result<Attr> {
        let owning = valid & (SetattrValid::UID | SetattrValid::GID);
        valid.remove(SetattrValid::UID | SetattrValid::GID);
        if !owning.is_empty() {
            let (mut now, _) = export.fs.getattr(context(), inode, None)?;
            self.dress(export, inode, &mut now);
            let uid =
                if owning.contains(SetattrValid::UID) { attr.uid.into_inner() } else { now.uid.into_inner() };
            let gid =
                if owning.contains(SetattrValid::GID) { attr.gid.into_inner() } else { now.gid.into_inner() };
            self.own(export, inode, (uid, gid), now.mode)?;
            // As a change of owner does on the host, which does not see this one.
            let bits = libc::S_ISUID | if now.mode & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 };
            let plain = now.mode & libc::S_IFMT == libc::S_IFREG;
            if plain && now.mode & bits != 0 && !valid.contains(SetattrValid::MODE) {
                attr.mode = now.mode & 0o7777 & !bits;
                valid |= SetattrValid::MODE;
            }
        }
        self.touched(export, inode);
        let (mut done, _) =
            self.lending(export, inode, || export.fs.setattr(context(), inode, attr, handle, valid))?;
        if valid.contains(SetattrValid::SIZE) || valid.contains(SetattrValid::MTIME) {
            self.left(export, inode);
        }
        self.dress(export, inode, &mut done);
        Ok(done)
    }
}
