//! Each request of the guest, taken to the export that it is for.

use std::{
    ffi::{CStr, CString},
    io,
    sync::atomic::Ordering,
    time::Duration,
};

use virtiofsd::{
    filesystem::{
        Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
        SerializableFileSystem, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
    },
    fuse::{Attr, ROOT_ID, SetattrIn},
};

use super::{
    BITS, Export, Inner, Shares, as_submount, bare, context, errno, nobody, plain, read,
    root::{self, Listing},
    write,
};
use crate::{echo::Deed, owner::ATTRIBUTE};

/// Nothing of a running machine moves to another host.
impl SerializableFileSystem for Shares {}

/// Attributes that are ours, or that only a label's owner may set.
fn hidden(name: &CStr) -> bool {
    name == ATTRIBUTE
}

fn writes(flags: u32) -> bool {
    flags as i32 & libc::O_ACCMODE != libc::O_RDONLY
}

impl FileSystem for Shares {
    type Inode = u64;
    type Handle = u64;
    type DirIter = Listing;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        *write(&self.options) = Some(capable);
        let exports: Vec<_> = read(&self.exports).values().cloned().collect();
        for export in exports {
            if let Err(error) = self.open_root(&export, capable) {
                eprintln!("share: failed to open the export {}: {error}", export.id);
                write(&self.exports).remove(&export.number);
            }
        }
        // What the exports' own file systems would ask for: they are all set up alike.
        let wanted = FsOptions::DO_READDIRPLUS
            | FsOptions::READDIRPLUS_AUTO
            | FsOptions::HANDLE_KILLPRIV_V2
            | FsOptions::ZERO_MESSAGE_OPENDIR;
        Ok(wanted & capable)
    }

    fn destroy(&self) {
        *write(&self.options) = None;
        for export in read(&self.exports).values() {
            export.fs.destroy();
            write(&export.known).clear();
        }
        self.streams.retain(|_| false);
    }

    fn lookup(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        let name = plain(name)?;
        if parent == ROOT_ID {
            let found = read(&self.exports).values().find(|e| e.id.as_bytes() == name.to_bytes()).cloned();
            let export = found.ok_or_else(|| errno(libc::ENOENT))?;
            let (mut attr, _) = export.fs.getattr(context(), ROOT_ID, None)?;
            self.dress(&export, ROOT_ID, &mut attr);
            as_submount(&mut attr);
            let inode = export.number << BITS | ROOT_ID;
            return Ok(Entry {
                inode,
                generation: 0,
                attr,
                attr_timeout: root::TIMEOUT,
                entry_timeout: root::TIMEOUT,
            });
        }
        let (export, parent) = self.export(parent)?;
        if export.only.as_deref().is_some_and(|only| parent == ROOT_ID && only != name) {
            return Err(errno(libc::ENOENT));
        }
        match self.lending(&export, parent, || export.fs.lookup(nobody(ctx), parent, name)) {
            Ok(entry) => Ok(self.hand_out(&export, parent, name, entry)),
            // That it is not there is worth remembering where its coming will be told.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && self.vouched(&export, parent) => {
                let attr = Attr::default();
                let entry_timeout = super::VOUCHED;
                Ok(Entry { inode: 0, generation: 0, attr, attr_timeout: Duration::ZERO, entry_timeout })
            }
            Err(error) => Err(error),
        }
    }

    fn forget(&self, _ctx: Context, inode: u64, count: u64) {
        if let Ok((export, inode)) = self.export(inode) {
            self.leave(&export, inode, count);
        }
    }

    fn getattr(&self, ctx: Context, inode: u64, handle: Option<u64>) -> io::Result<(Attr, Duration)> {
        if inode == ROOT_ID {
            return Ok((root::attr(self.changes.load(Ordering::Relaxed)), root::TIMEOUT));
        }
        let (export, inode) = self.export(inode)?;
        let (mut attr, _) = export.fs.getattr(nobody(ctx), inode, handle)?;
        let timeout = self.dress(&export, inode, &mut attr);
        Ok((attr, timeout))
    }

    fn setattr(
        &self,
        _ctx: Context,
        inode: u64,
        mut attr: SetattrIn,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        let (export, inode) = self.folder(inode)?;
        attr.mode &= 0o7777;
        let done = self.change(&export, inode, attr, handle, valid)?;
        let mut again = done;
        let timeout = self.dress(&export, inode, &mut again);
        Ok((done, timeout))
    }

    fn readlink(&self, ctx: Context, inode: u64) -> io::Result<Vec<u8>> {
        let (export, inode) = self.export(inode)?;
        export.fs.readlink(nobody(ctx), inode)
    }

    fn symlink(
        &self,
        ctx: Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
        _extensions: Extensions,
    ) -> io::Result<Entry> {
        let (export, parent) = self.folder(parent)?;
        let name = plain(name)?;
        self.make_room()?;
        let entry =
            self.lending(&export, parent, || export.fs.symlink(nobody(ctx), target, parent, name, bare()))?;
        self.did(Deed::Create, &export, parent, name);
        Ok(self.new_entry(&export, parent, name, entry, &ctx))
    }

    fn mknod(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
        _extensions: Extensions,
    ) -> io::Result<Entry> {
        let (export, parent) = self.folder(parent)?;
        let name = plain(name)?;
        self.make_room()?;
        let entry = self.lending(&export, parent, || {
            export.fs.mknod(nobody(ctx), parent, name, mode, rdev, umask, bare())
        })?;
        self.did(Deed::Create, &export, parent, name);
        Ok(self.new_entry(&export, parent, name, entry, &ctx))
    }

    fn mkdir(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
        _extensions: Extensions,
    ) -> io::Result<Entry> {
        let (export, parent) = self.folder(parent)?;
        let name = plain(name)?;
        self.make_room()?;
        let entry = self
            .lending(&export, parent, || export.fs.mkdir(nobody(ctx), parent, name, mode, umask, bare()))?;
        self.did(Deed::Create, &export, parent, name);
        Ok(self.new_entry(&export, parent, name, entry, &ctx))
    }

    fn unlink(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        let (export, parent) = self.folder(parent)?;
        let name = plain(name)?;
        self.lending(&export, parent, || export.fs.unlink(nobody(ctx), parent, name))?;
        self.did(Deed::Delete, &export, parent, name);
        Ok(())
    }

    fn rmdir(&self, ctx: Context, parent: u64, name: &CStr) -> io::Result<()> {
        let (export, parent) = self.folder(parent)?;
        let name = plain(name)?;
        self.lending(&export, parent, || export.fs.rmdir(nobody(ctx), parent, name))?;
        self.did(Deed::Delete, &export, parent, name);
        Ok(())
    }

    fn rename(
        &self,
        ctx: Context,
        old: u64,
        old_name: &CStr,
        new: u64,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        let (export, old, new) = self.folders(old, new)?;
        let (old_name, new_name) = (plain(old_name)?, plain(new_name)?);
        let act = || export.fs.rename(nobody(ctx), old, old_name, new, new_name, flags);
        self.lending(&export, old, || self.lending(&export, new, act))?;
        self.did(Deed::MovedFrom, &export, old, old_name);
        self.did(Deed::MovedTo, &export, new, new_name);
        if flags & libc::RENAME_EXCHANGE != 0 {
            self.did(Deed::MovedFrom, &export, new, new_name);
            self.did(Deed::MovedTo, &export, old, old_name);
        }
        if old != new
            && let Ok(entry) = export.fs.lookup(nobody(ctx), new, new_name)
        {
            self.enter(&export, new, new_name, &entry);
            self.came(&export, new, entry.inode);
            self.leave(&export, entry.inode, 1);
        }
        Ok(())
    }

    fn link(&self, ctx: Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        let (export, inode, parent) = self.folders(inode, parent)?;
        let name = plain(name)?;
        self.make_room()?;
        let entry = self.lending(&export, parent, || export.fs.link(nobody(ctx), inode, parent, name))?;
        self.did(Deed::Create, &export, parent, name);
        self.touched(&export, inode);
        let entry = self.hand_out(&export, parent, name, entry);
        self.came(&export, parent, inode);
        Ok(entry)
    }

    fn open(
        &self,
        ctx: Context,
        inode: u64,
        kill: bool,
        flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        let (export, inode) = self.folder(inode)?;
        let open = || export.fs.open(nobody(ctx), inode, kill, flags);
        let (handle, options) = self.lending(&export, inode, open)?;
        if flags as i32 & libc::O_TRUNC != 0 {
            self.left(&export, inode);
        }
        Ok((handle, self.opened(&export, inode, options)))
    }

    fn create(
        &self,
        ctx: Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        kill: bool,
        flags: u32,
        umask: u32,
        _extensions: Extensions,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions)> {
        let (export, parent) = self.folder(parent)?;
        let name = plain(name)?;
        self.make_room()?;
        // Whether it was there is known by the open alone: first as if it must not be.
        let new = |flags: i32| {
            let flags = flags as u32;
            export.fs.create(nobody(ctx), parent, name, mode, kill, flags, umask, bare())
        };
        let made = self.lending(&export, parent, || new(flags as i32 | libc::O_EXCL));
        let (entry, handle, options, fresh) = match made {
            Ok((entry, handle, options)) => (entry, handle, options, true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && flags as i32 & libc::O_EXCL == 0 => {
                let (entry, handle, options) = self.lending(&export, parent, || new(flags as i32))?;
                (entry, handle, options, false)
            }
            Err(error) => return Err(error),
        };
        let inode = entry.inode;
        let entry = if fresh {
            self.did(Deed::Create, &export, parent, name);
            self.new_entry(&export, parent, name, entry, &ctx)
        } else {
            self.hand_out(&export, parent, name, entry)
        };
        Ok((entry, handle, self.opened(&export, inode, options)))
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        to: W,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        let (export, inode) = self.export(inode)?;
        export.fs.read(nobody(ctx), inode, handle, to, size, offset, owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        from: R,
        size: u32,
        offset: u64,
        owner: Option<u64>,
        delayed: bool,
        kill: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let (export, inode) = self.export(inode)?;
        let done =
            export.fs.write(nobody(ctx), inode, handle, from, size, offset, owner, delayed, kill, flags)?;
        if self.vouched(&export, inode) {
            self.left(&export, inode);
        }
        Ok(done)
    }

    fn flush(&self, ctx: Context, inode: u64, handle: u64, owner: u64) -> io::Result<()> {
        // A close has nothing to tell of files on this computer. The guest asks no more then, for no export; what is added
        // later from another one is looked after by `release`.
        if !read(&self.exports).values().any(|export| export.remote) {
            return Err(errno(libc::ENOSYS));
        }
        let (export, inode) = self.export(inode)?;
        export.fs.flush(nobody(ctx), inode, handle, owner)
    }

    fn fsync(&self, ctx: Context, inode: u64, datasync: bool, handle: u64) -> io::Result<()> {
        let (export, inode) = self.export(inode)?;
        export.fs.fsync(nobody(ctx), inode, datasync, handle)
    }

    fn fallocate(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let (export, inode) = self.export(inode)?;
        export.fs.fallocate(nobody(ctx), inode, handle, mode, offset, length)?;
        self.left(&export, inode);
        Ok(())
    }

    fn release(
        &self,
        ctx: Context,
        inode: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock: bool,
        owner: Option<u64>,
    ) -> io::Result<()> {
        let (export, inode) = self.export(inode)?;
        if writes(flags) {
            self.left(&export, inode);
            if export.remote
                && let Err(error) = export.fs.flush(nobody(ctx), inode, handle, 0)
            {
                eprintln!("share: what was written to a file of the export {} is lost: {error}", export.id);
            }
        }
        export.fs.release(nobody(ctx), inode, flags, handle, flush, flock, owner)
    }

    fn statfs(&self, ctx: Context, inode: u64) -> io::Result<libc::statvfs64> {
        if inode == ROOT_ID {
            // SAFETY: numbers only; all zero is a valid value.
            let mut st: libc::statvfs64 = unsafe { std::mem::zeroed() };
            st.f_namemax = 255;
            st.f_bsize = 4096;
            st.f_frsize = 4096;
            return Ok(st);
        }
        let (export, inode) = self.export(inode)?;
        export.fs.statfs(nobody(ctx), inode)
    }

    fn setxattr(
        &self,
        ctx: Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra: SetxattrFlags,
    ) -> io::Result<()> {
        if hidden(name) {
            return Err(errno(libc::EPERM));
        }
        let (export, inode) = self.folder(inode)?;
        self.touched(&export, inode);
        let set = || export.fs.setxattr(nobody(ctx), inode, name, value, flags, extra);
        self.lending(&export, inode, set)
    }

    fn getxattr(&self, ctx: Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        if inode == ROOT_ID || hidden(name) {
            return Err(errno(libc::ENODATA));
        }
        // The kernel's own limit, so that a guest cannot ask for gigabytes.
        if size > 1 << 16 {
            return Err(errno(libc::E2BIG));
        }
        let (export, inode) = self.export(inode)?;
        self.lending(&export, inode, || export.fs.getxattr(nobody(ctx), inode, name, size))
    }

    fn listxattr(&self, ctx: Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        if inode == ROOT_ID {
            return Ok(if size == 0 { ListxattrReply::Count(0) } else { ListxattrReply::Names(Vec::new()) });
        }
        if size > 1 << 16 {
            return Err(errno(libc::E2BIG));
        }
        let (export, inode) = self.export(inode)?;
        match self.lending(&export, inode, || export.fs.listxattr(nobody(ctx), inode, size))? {
            ListxattrReply::Names(names) => {
                let kept =
                    names.split_inclusive(|b| *b == 0).filter(|name| *name != ATTRIBUTE.to_bytes_with_nul());
                Ok(ListxattrReply::Names(kept.flatten().copied().collect()))
            }
            count => Ok(count),
        }
    }

    fn removexattr(&self, ctx: Context, inode: u64, name: &CStr) -> io::Result<()> {
        if hidden(name) {
            return Err(errno(libc::EPERM));
        }
        let (export, inode) = self.folder(inode)?;
        self.touched(&export, inode);
        self.lending(&export, inode, || export.fs.removexattr(nobody(ctx), inode, name))
    }

    fn opendir(&self, _ctx: Context, _inode: u64, _flags: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        let spared = read(&self.options).is_some_and(|known| known.contains(FsOptions::ZERO_MESSAGE_OPENDIR));
        // "Not known here": the kernel opens each folder without us from now on. See `listing`.
        if spared { Err(errno(libc::ENOSYS)) } else { Ok((None, OpenOptions::empty())) }
    }

    fn readdir(&self, ctx: Context, inode: u64, _handle: u64, size: u32, offset: u64) -> io::Result<Listing> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let dots = |mut names: Vec<(CString, u32)>| {
            let kind = u32::from(libc::DT_DIR);
            names.splice(0..0, [(c".".to_owned(), kind), (c"..".to_owned(), kind)]);
            Ok(Listing::Ours(names, from))
        };
        if inode == ROOT_ID {
            let ids = read(&self.exports)
                .values()
                .filter_map(|e| CString::new(e.id.as_str()).ok())
                .collect::<Vec<_>>();
            return dots(ids.into_iter().map(|id| (id, u32::from(libc::DT_DIR))).collect());
        }
        let (export, inode) = self.export(inode)?;
        if let Some(only) = export.only.clone().filter(|_| inode == ROOT_ID) {
            return dots(vec![(only, u32::from(libc::DT_UNKNOWN))]);
        }
        self.list(ctx, &export, inode, size, offset).map(Listing::Host)
    }

    fn fsyncdir(&self, ctx: Context, inode: u64, datasync: bool, _handle: u64) -> io::Result<()> {
        let (export, inode) = self.folder(inode)?;
        self.sync_folder(ctx, &export, inode, datasync)
    }

    fn releasedir(&self, _ctx: Context, _inode: u64, _flags: u32, _handle: u64) -> io::Result<()> {
        Ok(())
    }

    fn access(&self, _ctx: Context, _inode: u64, _mask: u32) -> io::Result<()> {
        // The guest's kernel decides by what it is shown; asked here, the host would decide for the wrong person.
        Err(errno(libc::ENOSYS))
    }

    fn lseek(&self, ctx: Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        let (export, inode) = self.folder(inode)?;
        export.fs.lseek(nobody(ctx), inode, handle, offset, whence)
    }

    fn copyfilerange(
        &self,
        ctx: Context,
        from: u64,
        from_handle: u64,
        from_offset: u64,
        to: u64,
        to_handle: u64,
        to_offset: u64,
        length: u64,
        flags: u64,
    ) -> io::Result<usize> {
        let (export, from, to) = self.folders(from, to)?;
        let done = export.fs.copyfilerange(
            nobody(ctx),
            from,
            from_handle,
            from_offset,
            to,
            to_handle,
            to_offset,
            length,
            flags,
        )?;
        self.left(&export, to);
        Ok(done)
    }

    fn syncfs(&self, ctx: Context, inode: u64) -> io::Result<()> {
        if inode == ROOT_ID {
            return Ok(());
        }
        let (export, inode) = self.export(inode)?;
        export.fs.syncfs(nobody(ctx), inode)
    }
}

impl Inner {
    /// Hands out what a container just made, as its maker's.
    fn new_entry(&self, export: &Export, parent: u64, name: &CStr, entry: Entry, maker: &Context) -> Entry {
        let (inode, mode) = (entry.inode, entry.attr.mode);
        let mut entry = self.hand_out(export, parent, name, entry);
        self.made(export, inode, maker, mode);
        self.dress(export, inode, &mut entry.attr);
        entry
    }
}
