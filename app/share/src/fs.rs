//! The device's file system: a root that exists nowhere, and below it one `PassthroughFs` for each export.
//!
//! ```text
//!   inode of the guest = number of the export << 48 | inode of the export's own file system        1 = our root
//! ```
//!
//! So nothing has to be looked up to find whose a request is, and an export that is gone answers `ESTALE`. What is added to
//! the library's behaviour: names that lead elsewhere are refused before anything is opened; owners ([`crate::owner`]);
//! how long the guest may keep what it saw; and what it did, told to the watcher ([`crate::echo`]).

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use virtiofsd::{
    filesystem::{Context, Entry, Extensions, FileSystem, FsOptions, OpenOptions},
    fuse::{ATTR_SUBMOUNT, Attr, ROOT_ID, SetattrIn},
    passthrough::{CachePolicy, Config, PassthroughFs},
    soft_idmap::{GuestGid, GuestUid, Id},
};

use crate::{
    echo::{Deed, Echo, Teller},
    owner::Owner,
    sandbox,
};

mod listing;
mod ops;
mod owners;
mod room;
mod root;

pub(crate) use room::put_off;

/// How long the guest may believe what it saw where nobody tells it of changes.
const FRESH: Duration = Duration::from_secs(1);
/// The same where the watcher tells it at once, and the guest itself lets go of everything when it hears no more. Not for ever, as
/// both may fail in a way that nobody has thought of.
const VOUCHED: Duration = Duration::from_secs(600);
/// How long a request may be under way that has read attributes before a loan ended.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Bits of an inode that are the export's own.
const BITS: u32 = 48;
const OWN: u64 = (1 << BITS) - 1;

/// File systems that keep their files elsewhere: NFS, CIFS, SMB 2 and older, AFS, Ceph, 9p, and FUSE, of which sshfs is one.
const REMOTE: [u32; 8] =
    [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x517b, 0x5346_414f, 0x00c3_6400, 0x0102_1997, 0x6573_5546];

pub(crate) fn errno(code: libc::c_int) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// What is known of an inode that the guest knows.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// How often it was handed out and not given back.
    refs: i64,
    /// Inode in which it was found last; its own for the export's root.
    parent: u64,
    /// The host's inode number.
    ino: u64,
    /// Of a link or a pipe, which can carry no attribute, it lasts as long as the guest knows the inode.
    owner: Owner,
    dir: bool,
    /// The watcher tells of changes here, as long as this pledge is kept; 0 is none.
    vouched: u64,
}

/// One export.
pub(crate) struct Export {
    number: u64,
    pub(crate) id: String,
    /// The only name of its folder that may be seen: the export is one file.
    only: Option<CString>,
    fs: PassthroughFs,
    /// What is shared; entered when the library opens it.
    tree: OwnedFd,
    /// It lies on another computer, which may refuse at a close what it has taken before.
    remote: bool,
    known: RwLock<HashMap<u64, Known>>,
}

/// The topmost of a tree that is vouched for. It is kept known, or there would be nothing to inherit from.
struct Held {
    export: Arc<Export>,
    inode: u64,
    pledge: u64,
}

/// The file system that the device serves. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Inner>);

impl std::ops::Deref for Shares {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

pub(crate) struct Inner {
    exports: RwLock<BTreeMap<u64, Arc<Export>>>,
    next: AtomicU64,
    /// How often exports came or went.
    changes: AtomicU64,
    options: RwLock<Option<FsOptions>>,
    /// The folder of this process's descriptors.
    proc_fd: File,
    /// Where a thread is when it is nowhere else.
    home: File,
    echo: Teller,
    echoing: AtomicBool,
    /// Numbers pledges.
    pledges: AtomicU64,
    /// What is vouched for.
    held: RwLock<Vec<Held>>,
    /// Names of folders that are not watched, wherever they are.
    skipped: RwLock<Vec<Vec<u8>>>,
    ids: (u32, u32),
    room: room::Room,
    streams: listing::Streams,
    /// One loan at a time, or one that ends would end another's.
    loan: Mutex<()>,
    /// Whose permissions were lent, and when last; see [`Inner::lending`].
    lent: RwLock<HashMap<(u64, u64), Instant>>,
    lends: AtomicBool,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Who asks, for the library: it must never change its own user, because it cannot.
fn nobody(context: Context) -> Context {
    Context { uid: GuestUid::from(0), gid: GuestGid::from(0), pid: context.pid }
}

/// A name of a folder's entry, and nothing that leads out of it. The guest's kernel sends no other; a hostile one may.
fn plain(name: &CStr) -> io::Result<&CStr> {
    let bytes = name.to_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(errno(libc::EINVAL));
    }
    Ok(name)
}

impl Shares {
    /// Nothing is shared yet. `proc_fd` is the folder of this process's descriptors, `files` how many may be open, and
    /// `threads` how many may wait for room.
    pub(crate) fn new(proc_fd: File, echo: Teller, files: u64, threads: usize) -> io::Result<Self> {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self(Arc::new(Inner {
            exports: RwLock::default(),
            next: AtomicU64::new(1),
            changes: AtomicU64::new(1),
            options: RwLock::new(None),
            proc_fd,
            home: File::open("/")?,
            echo,
            echoing: AtomicBool::new(false),
            pledges: AtomicU64::new(1),
            held: RwLock::default(),
            skipped: RwLock::default(),
            ids,
            room: room::Room::new(files, threads),
            streams: listing::Streams::default(),
            loan: Mutex::default(),
            lent: RwLock::default(),
            lends: AtomicBool::new(false),
        })))
    }
}

impl Inner {
    /// Shares what is behind `tree`, as `id`. With `only`, that one name in it.
    pub(crate) fn add(&self, id: &str, tree: OwnedFd, only: Option<CString>) -> io::Result<()> {
        let config = Config {
            entry_timeout: FRESH,
            attr_timeout: FRESH,
            cache_policy: CachePolicy::Auto,
            // Entered before: no path is ever opened.
            root_dir: ".".into(),
            xattr: true,
            proc_sfd_rawfd: Some(self.proc_fd.try_clone()?),
            announce_submounts: true,
            // Or each write would ask for an attribute first. The kernel itself clears what must be cleared.
            killpriv_v2: true,
            guest_fd_limit: self.room.files,
            ..Config::default()
        };
        let fs = self.inside(&tree, || PassthroughFs::new(config))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let remote = rustix::fs::fstatfs(&tree).is_ok_and(|found| REMOTE.contains(&(found.f_type as u32)));
        let export = Export { number, id: id.to_owned(), only, fs, tree, remote, known: RwLock::default() };
        if let Some(options) = *read(&self.options) {
            self.open_root(&export, options)?;
        }
        self.remove(id);
        write(&self.exports).insert(number, Arc::new(export));
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Shares it no longer.
    pub(crate) fn remove(&self, id: &str) {
        write(&self.exports).retain(|_, export| export.id != id);
        self.streams.retain(|number| read(&self.exports).contains_key(&number));
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn open_root(&self, export: &Export, options: FsOptions) -> io::Result<()> {
        write(&export.known).clear();
        self.inside(&export.tree, || export.fs.init(options))?;
        let (attr, _) = export.fs.getattr(context(), ROOT_ID, None)?;
        let owner = self.read_owner(export, ROOT_ID);
        let known = Known { refs: 1, parent: ROOT_ID, ino: attr.ino, owner, dir: true, vouched: 0 };
        write(&export.known).insert(ROOT_ID, known);
        Ok(())
    }

    /// Does something in a folder, and comes back.
    fn inside<T>(&self, folder: impl AsFd, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        sandbox::enter(folder)?;
        let done = act();
        sandbox::enter(&self.home)?;
        done
    }

    /// Vouches for exactly these: an export's id, and a path in it. Below them, folders named as one of `skipped` are not
    /// watched. `echoing`: somebody wants to hear what the guest does.
    ///
    /// What was vouched for and still is stays so with all that is below it: another container's start makes nobody forget.
    pub(crate) fn vouch(&self, paths: &[(String, Vec<CString>)], skipped: Vec<Vec<u8>>, echoing: bool) {
        let same_rules = *read(&self.skipped) == skipped;
        *write(&self.skipped) = skipped;
        self.echoing.store(echoing, Ordering::Relaxed);
        let exports: Vec<_> = read(&self.exports).values().cloned().collect();
        let mut now = Vec::new();
        for (id, names) in paths {
            let Some(export) = exports.iter().find(|export| export.id == *id) else { continue };
            let mut at = ROOT_ID;
            let mut found = vec![];
            for name in names {
                let Ok(entry) = export.fs.lookup(context(), at, name) else { break };
                self.enter(export, at, name, &entry);
                at = entry.inode;
                found.push(at);
            }
            if found.len() == names.len() {
                let is_it =
                    |held: &&Held| same_rules && held.inode == at && Arc::ptr_eq(&held.export, export);
                let kept = read(&self.held).iter().find(is_it).map(|held| held.pledge);
                let pledge = kept.unwrap_or_else(|| self.pledges.fetch_add(1, Ordering::Relaxed));
                if let Some(known) = write(&export.known).get_mut(&at) {
                    known.vouched = pledge;
                }
                found.pop();
                now.push(Held { export: Arc::clone(export), inode: at, pledge });
            }
            found.into_iter().for_each(|inode| self.leave(export, inode, 1));
        }
        let before = std::mem::replace(&mut *write(&self.held), now);
        before.into_iter().for_each(|held| self.leave(&held.export, held.inode, 1));
    }

    fn export(&self, inode: u64) -> io::Result<(Arc<Export>, u64)> {
        let export = read(&self.exports).get(&(inode >> BITS)).cloned();
        Ok((export.ok_or_else(|| errno(libc::ESTALE))?, inode & OWN))
    }

    /// The export of a folder in which a name is to change; a file's export has none.
    fn folder(&self, inode: u64) -> io::Result<(Arc<Export>, u64)> {
        if inode == ROOT_ID {
            return Err(errno(libc::EROFS));
        }
        let (export, inode) = self.export(inode)?;
        if export.only.is_some() && inode == ROOT_ID { Err(errno(libc::EROFS)) } else { Ok((export, inode)) }
    }

    /// Both folders of a request, which must be of one export.
    fn folders(&self, one: u64, other: u64) -> io::Result<(Arc<Export>, u64, u64)> {
        let (export, first) = self.folder(one)?;
        let (second, inode) = self.folder(other)?;
        if export.number == second.number { Ok((export, first, inode)) } else { Err(errno(libc::EXDEV)) }
    }

    /// The guest gets to know `entry`, found as `name` in `parent`.
    fn enter(&self, export: &Export, parent: u64, name: &CStr, entry: &Entry) {
        let (above, seen) = {
            let known = read(&export.known);
            (known.get(&parent).copied(), known.get(&entry.inode).copied())
        };
        let dir = entry.attr.mode & libc::S_IFMT == libc::S_IFDIR;
        let plain = entry.attr.mode & libc::S_IFMT == libc::S_IFREG;
        let skipped = dir && read(&self.skipped).iter().any(|skipped| skipped == name.to_bytes());
        let vouched = above.filter(|above| !skipped && self.vouches(above)).map_or(0, |above| above.vouched);
        // Not under the lock: it reads from the disk.
        let owner = match seen {
            Some(seen) => seen.owner,
            None if dir || plain && above.is_some_and(|above| above.owner.below) => {
                self.read_owner(export, entry.inode)
            }
            None => Owner::default(),
        };
        let mut known = write(&export.known);
        let fresh = Known { refs: 0, parent, ino: entry.attr.ino, owner, dir, vouched };
        let found = known.entry(entry.inode).or_insert(fresh);
        found.refs += 1;
        found.parent = parent;
        // Not where it is the topmost itself.
        if !self.keeps(found.vouched) {
            found.vouched = vouched;
        }
        let grown = if found.refs == 1 { known.len() } else { 1 };
        drop(known);
        self.look_for_room(grown);
    }

    fn leave(&self, export: &Export, inode: u64, count: u64) {
        if inode == ROOT_ID {
            return;
        }
        export.fs.forget(context(), inode, count);
        let mut known = write(&export.known);
        if let Some(found) = known.get_mut(&inode) {
            found.refs = found.refs.saturating_sub_unsigned(count);
            if found.refs <= 0 {
                known.remove(&inode);
            }
        }
    }

    /// An entry as the guest gets it.
    fn hand_out(&self, export: &Export, parent: u64, name: &CStr, mut entry: Entry) -> Entry {
        self.enter(export, parent, name, &entry);
        let timeout = self.dress(export, entry.inode, &mut entry.attr);
        entry.attr_timeout = timeout;
        entry.entry_timeout = timeout;
        entry.inode |= export.number << BITS;
        entry
    }

    /// Attributes as the guest is to see them, and for how long it may believe them.
    fn dress(&self, export: &Export, inode: u64, attr: &mut Attr) -> Duration {
        let Some(known) = read(&export.known).get(&inode).copied() else { return FRESH };
        if let Some((uid, gid)) = known.owner.ids {
            attr.uid = GuestUid::from(uid);
            attr.gid = GuestGid::from(gid);
        }
        if self.lends.load(Ordering::Acquire) {
            self.undo_loan(export, inode, attr);
        }
        self.timeout(&known)
    }

    fn timeout(&self, known: &Known) -> Duration {
        if self.vouches(known) { VOUCHED } else { FRESH }
    }

    fn vouches(&self, known: &Known) -> bool {
        self.keeps(known.vouched)
    }

    fn keeps(&self, pledge: u64) -> bool {
        pledge != 0 && read(&self.held).iter().any(|held| held.pledge == pledge)
    }

    fn vouched(&self, export: &Export, inode: u64) -> bool {
        read(&export.known).get(&inode).is_some_and(|known| self.vouches(known))
    }

    /// A file is opened: the guest may keep what it has read of it, where it would hear of changes.
    fn opened(&self, export: &Export, inode: u64, options: OpenOptions) -> OpenOptions {
        if self.vouched(export, inode) { options | OpenOptions::KEEP_CACHE } else { options }
    }

    /// Tells the watcher that the guest did something to a name.
    fn did(&self, deed: Deed, export: &Export, folder: u64, name: &CStr) {
        if !self.echoing.load(Ordering::Relaxed) {
            return;
        }
        if let Some(known) = read(&export.known).get(&folder) {
            self.echo.tell(&Echo::Name(deed, known.ino, name.to_bytes().to_vec()));
        }
    }

    /// Tells the watcher how the guest left a file.
    fn left(&self, export: &Export, inode: u64) {
        if self.echoing.load(Ordering::Relaxed)
            && let Ok((attr, _)) = export.fs.getattr(context(), inode, None)
        {
            let mtime = attr.mtime.saturating_mul(1_000_000_000).saturating_add(attr.mtimensec.into());
            self.echo.tell(&Echo::Content { ino: attr.ino, mtime, size: attr.size });
        }
    }

    fn touched(&self, export: &Export, inode: u64) {
        if self.echoing.load(Ordering::Relaxed)
            && let Some(known) = read(&export.known).get(&inode)
        {
            self.echo.tell(&Echo::Attributes(known.ino));
        }
    }

    /// Does something that the guest's kernel has allowed, and the host's may not: the person's own file may forbid its
    /// owner what root in a container can do. The permission is lent for the moment and taken back, and the guest never
    /// sees it.
    fn lending<T>(&self, export: &Export, inode: u64, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let act = || self.with_room(&act);
        let refused = match act() {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => error,
            done => return done,
        };
        let ours = || match export.fs.getattr(context(), inode, None) {
            // The library maps no ids: what it shows is what the host has.
            Ok((attr, _)) if attr.uid.into_inner() == self.ids.0 => Some(attr),
            _ => None,
        };
        if ours().is_none() {
            return Err(refused);
        }
        // A rename needs two, of one thread.
        let loan = (!LENDING.get()).then(|| self.loan.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(attr) = ours() else { return Err(refused) };
        let needed = if attr.mode & libc::S_IFMT == libc::S_IFDIR { 0o700 } else { 0o600 };
        if attr.mode & needed == needed {
            return act();
        }
        let chmod = |mode: u32| {
            let set = SetattrIn { mode, ..SetattrIn::default() };
            self.touched(export, inode);
            export.fs.setattr(context(), inode, set, None, virtiofsd::fuse::SetattrValid::MODE)
        };
        self.lent_now(export, inode);
        let outermost = !LENDING.replace(true);
        let done = chmod(attr.mode & 0o7777 | needed).and_then(|_| act());
        // Unless somebody has set another meanwhile.
        let now = export.fs.getattr(context(), inode, None);
        if now.is_ok_and(|(now, _)| now.mode == attr.mode | needed) {
            let _ = chmod(attr.mode & 0o7777);
        }
        if outermost {
            LENDING.set(false);
        }
        self.lent_now(export, inode);
        drop(loan);
        done
    }

    fn lent_now(&self, export: &Export, inode: u64) {
        let mut lent = write(&self.lent);
        lent.retain(|_, last| last.elapsed() < UNDER_WAY);
        lent.insert((export.number, inode), Instant::now());
        self.lends.store(true, Ordering::Release);
    }

    /// What was just read of a file may be what was lent: it is read again while nothing is.
    fn undo_loan(&self, export: &Export, inode: u64, attr: &mut Attr) {
        let last = read(&self.lent).get(&(export.number, inode)).copied();
        if last.is_none_or(|last| last.elapsed() > UNDER_WAY) {
            return;
        }
        let _loan = (!LENDING.get()).then(|| self.loan.lock().unwrap_or_else(PoisonError::into_inner));
        if let Ok((now, _)) = export.fs.getattr(context(), inode, None) {
            attr.mode = now.mode;
        }
    }
}

thread_local! {
    /// This thread has the loan.
    static LENDING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Our own requests.
fn context() -> Context {
    Context { uid: GuestUid::from(0), gid: GuestGid::from(0), pid: 0 }
}

/// The library is told of no groups and labels: it could not take them on.
fn bare() -> Extensions {
    Extensions::default()
}

/// The export's root, as an entry of ours: a file system of its own to the guest, so that inode numbers cannot clash.
fn as_submount(attr: &mut Attr) {
    attr.flags |= ATTR_SUBMOUNT;
}

#[cfg(test)]
mod tests;
