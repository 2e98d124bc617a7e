//! What a hostile guest may try: to be led out of an export by a link that takes a folder's place while it is used, and to
//! change what is shared read-only.

use std::{os::unix::fs::symlink, sync::atomic::AtomicBool, thread::Scope};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, inotify};
use virtiofsd::filesystem::SetxattrFlags;

use super::*;

const SWAPS: u64 = 100_000;
/// How often each kind of request must have gone well, or nothing was shown.
const WELL: u64 = 200;

/// Everything about a tree that an access could change, and who watches it.
struct Canary {
    root: std::path::PathBuf,
    before: Vec<String>,
    watch: OwnedFd,
}

fn state(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut below = vec![root.to_owned()];
    while let Some(path) = below.pop() {
        let at = std::fs::symlink_metadata(&path).expect("there");
        let said = [at.ino(), at.nlink(), at.size(), at.mode().into()];
        found.push(format!(
            "{path:?} {said:?} {:?} {:?}",
            (at.mtime(), at.mtime_nsec()),
            (at.ctime(), at.ctime_nsec())
        ));
        if at.is_dir() {
            let names = std::fs::read_dir(&path).expect("lists").flatten().map(|entry| entry.path());
            below.extend(names);
        }
    }
    found.sort();
    found
}

impl Canary {
    fn of(root: &Path) -> Self {
        let before = state(root);
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
        // What is closed was opened, which is told. But one of the descriptors from just now may be closed later: by a child that
        // another test has forked meanwhile.
        let all = inotify::WatchFlags::ALL_EVENTS.difference(inotify::WatchFlags::CLOSE_NOWRITE);
        for folder in [root.to_owned(), root.join("sub")] {
            inotify::add_watch(&watch, folder, all).expect("watched");
        }
        Self { root: root.to_owned(), before, watch }
    }

    /// Nobody was there.
    fn sings(&self) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        if let Ok(event) = events.next() {
            panic!("what lies outside was touched: {event:?}");
        }
        assert_eq!(state(&self.root), self.before, "what lies outside was changed");
    }
}

/// `in/real` and, to take its place, `in/link` to `out`; in both the same names, and `sub` in them likewise.
struct Trap {
    dir: tempfile::TempDir,
    shares: Shares,
    root: u64,
    swaps: AtomicU64,
    done: AtomicBool,
}

impl Trap {
    fn new() -> Self {
        let (shares, _heard) = shares();
        let dir = tempfile::tempdir().expect("folder");
        for tree in ["in/real", "out"] {
            std::fs::create_dir_all(dir.path().join(tree).join("sub")).expect("makes");
        }
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::write(inside.join("real/file"), "inside").expect("writes");
        std::fs::write(inside.join("real/sub/file"), "inside").expect("writes");
        // What every kind of request is after; `made` is missing, for it would be made.
        for name in ["file", "file2", "victim", "old", "new", "secret"] {
            std::fs::write(outside.join(name), "the secret").expect("writes");
            std::fs::write(outside.join("sub").join(name), "the secret").expect("writes");
        }
        symlink("../out", inside.join("link")).expect("links");
        symlink(outside.join("sub"), inside.join("real/lower")).expect("links");
        std::fs::write(inside.join("top"), "inside").expect("writes");
        shares.add("one", tree(&inside), None).expect("adds");
        let root = walk(&shares, &["one"]).expect("there").inode;
        Self { dir, shares, root, swaps: AtomicU64::new(0), done: AtomicBool::new(false) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Swaps two names of a folder, which is held open, until the race is over.
    fn swap<'s>(&'s self, scope: &'s Scope<'s, '_>, folder: &str, one: &'static str, other: &'static str) {
        let at = rustix::fs::open(self.path(folder), OFlags::PATH, Mode::empty()).expect("opens");
        scope.spawn(move || {
            while !self.done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&at, one, &at, other, RenameFlags::EXCHANGE).expect("swaps");
                self.swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// A thread of the guest that goes to `real`, or to `lower` in what it found as `real`, and does something there.
    /// Returns how often that went well.
    fn attack<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        act: impl Fn(&Shares, u64) -> io::Result<()> + Send + 's,
    ) -> std::thread::ScopedJoinHandle<'s, u64> {
        scope.spawn(move || {
            sandbox::own_folder().expect("own folder");
            let mut well = 0;
            let deadline = Instant::now() + Duration::from_secs(60);
            while (self.swaps.load(Ordering::Relaxed) < SWAPS || well < WELL) && Instant::now() < deadline {
                let Ok(real) = self.shares.lookup(who(0), self.root, c"real") else { continue };
                well += u64::from(act(&self.shares, real.inode).is_ok());
                // `lower` is a folder as often as it is a link to one outside.
                if let Ok(lower) = self.shares.lookup(who(0), real.inode, c"lower") {
                    well += u64::from(act(&self.shares, lower.inode).is_ok());
                    self.shares.forget(who(0), lower.inode, 1);
                }
                self.shares.forget(who(0), real.inode, 1);
            }
            well
        })
    }
}

fn open_and_write(shares: &Shares, folder: u64) -> io::Result<()> {
    let file = shares.lookup(who(0), folder, c"file")?;
    let done = (|| {
        assert_eq!(file.attr.size, 6, "a file outside was found");
        let flags = libc::O_RDWR as u32;
        let (handle, _) = shares.open(who(0), file.inode, false, flags)?;
        let handle = handle.expect("a handle");
        let set = SetattrIn { mode: 0o640, size: 6, ..SetattrIn::default() };
        shares.setattr(who(0), file.inode, set, Some(handle), SetattrValid::SIZE | SetattrValid::MODE)?;
        // Where the file system has no attributes, there are none to misuse.
        let _ = shares.setxattr(who(0), file.inode, c"user.mark", b"x", 0, SetxattrFlags::empty());
        shares.release(who(0), file.inode, flags, handle, false, false, None)
    })();
    shares.forget(who(0), file.inode, 1);
    done
}

fn create_rename_unlink(shares: &Shares, folder: u64) -> io::Result<()> {
    let flags = (libc::O_CREAT | libc::O_RDWR) as u32;
    let (made, handle, _) = shares.create(who(0), folder, c"old", 0o644, false, flags, 0, bare())?;
    shares.release(who(0), made.inode, flags, handle.expect("open"), false, false, None)?;
    shares.forget(who(0), made.inode, 1);
    let _ = shares.rename(who(0), folder, c"old", folder, c"new", 0);
    shares.unlink(who(0), folder, c"new")
}

fn make_and_remove(shares: &Shares, folder: u64) -> io::Result<()> {
    let made = shares.mkdir(who(0), folder, c"made", 0o755, 0, bare())?;
    shares.forget(who(0), made.inode, 1);
    shares.rmdir(who(0), folder, c"made")
}

#[test]
fn swapping_folders_for_links_a_hundred_thousand_times_reaches_nothing_outside() {
    let trap = Trap::new();
    // The lower one is swapped in what is `real` at first, by its descriptor, wherever it is.
    std::fs::create_dir(trap.path("in/real/folder")).expect("makes");
    std::fs::write(trap.path("in/real/folder/file"), "inside").expect("writes");
    let canary = Canary::of(&trap.path("out"));
    let reached = std::thread::scope(|scope| {
        // The lower one first: where it is must not be a link yet.
        trap.swap(scope, "in/real", "folder", "lower");
        trap.swap(scope, "in", "real", "link");
        let root = trap.root;
        let threads = [
            ("open", trap.attack(scope, open_and_write)),
            ("create, rename, unlink", trap.attack(scope, create_rename_unlink)),
            ("mkdir, rmdir", trap.attack(scope, make_and_remove)),
            (
                "link",
                trap.attack(scope, move |shares, folder| {
                    let top = shares.lookup(who(0), root, c"top")?;
                    let linked = shares.link(who(0), top.inode, folder, c"victim");
                    shares.forget(who(0), top.inode, 1);
                    let linked = linked?;
                    shares.forget(who(0), linked.inode, 1);
                    shares.unlink(who(0), folder, c"victim")
                }),
            ),
            (
                "rename from above",
                trap.attack(scope, move |shares, folder| {
                    let link = shares.symlink(who(0), c"/etc", root, c"mover", bare())?;
                    shares.forget(who(0), link.inode, 1);
                    let there = shares.rename(who(0), root, c"mover", folder, c"file2", 0);
                    let back =
                        there.and_then(|()| shares.rename(who(0), folder, c"file2", root, c"mover", 0));
                    shares.unlink(who(0), root, c"mover").and(back)
                }),
            ),
            (
                "attributes, also of the link itself",
                trap.attack(scope, |shares, folder| {
                    let set = SetattrIn { mode: 0o755, mtime: 1, atime: 1, ..SetattrIn::default() };
                    let times = SetattrValid::MTIME | SetattrValid::ATIME;
                    let _ = shares.setxattr(who(0), folder, c"user.mark", b"x", 0, SetxattrFlags::empty());
                    let _ = shares.open(who(0), folder, false, (libc::O_RDWR | libc::O_TRUNC) as u32);
                    shares.setattr(who(0), folder, set, None, times)?;
                    shares.setattr(who(0), folder, set, None, SetattrValid::MODE).map(drop)
                }),
            ),
            (
                "readdir",
                trap.attack(scope, |shares, folder| {
                    let mut listing = shares.readdir(who(0), folder, 0, 4096, 0)?;
                    while let Some(entry) = virtiofsd::filesystem::DirectoryIterator::next(&mut listing) {
                        assert_ne!(entry.name, c"secret", "a folder outside was listed");
                    }
                    Ok(())
                }),
            ),
        ];
        let reached = threads.map(|(what, thread)| (what, thread.join()));
        trap.done.store(true, Ordering::Relaxed);
        reached
    });
    for (what, times) in reached {
        let times = times.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(times >= WELL, "{what} went well only {times} times");
    }
    canary.sings();
    assert!(trap.swaps.load(Ordering::Relaxed) >= SWAPS);
}

#[test]
fn what_is_to_be_shared_is_not_looked_for_behind_a_link() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path().canonicalize().expect("real");
    std::fs::create_dir_all(dir.join("out/sub")).expect("makes");
    std::fs::create_dir_all(dir.join("in/sub")).expect("makes");
    let open = |name: &str| sandbox::open_exactly(&dir.join(name), OFlags::PATH);
    open("in/sub").expect("opens");
    std::fs::rename(dir.join("in"), dir.join("was")).expect("renames");
    symlink("out", dir.join("in")).expect("links");
    // `in` itself opens as the link that it is, which is neither a folder nor a file.
    let link = rustix::fs::fstat(open("in").expect("opens")).expect("there");
    assert!(rustix::fs::FileType::from_raw_mode(link.st_mode).is_symlink());
    assert_eq!(open("in/sub").err().and_then(|error| error.raw_os_error()), Some(libc::ELOOP));
}

#[test]
fn what_is_shared_read_only_cannot_be_changed_whatever_the_guest_sends() {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::create_dir(dir.path().join("sub")).expect("makes");
    std::fs::write(dir.path().join("file"), "as it was").expect("writes");
    let place = rustix::fs::openat(CWD, dir.path(), OFlags::PATH, Mode::empty()).expect("opens");
    let tree = match sandbox::detached(place, true) {
        Ok(tree) => tree,
        // The share server has a namespace in which it may; a test of an ordinary user has not.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("skipped: only root can make a mount in this process: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let before = state(dir.path());
    let (shares, _heard) = shares();
    shares.add("one", tree, None).expect("adds");
    let root = walk(&shares, &["one"]).expect("there").inode;
    let file = walk(&shares, &["one", "file"]).expect("there").inode;
    let set = SetattrIn { mode: 0o777, uid: GuestUid::from(999), ..SetattrIn::default() };
    let create = (libc::O_CREAT | libc::O_RDWR) as u32;
    let none = SetxattrFlags::empty();
    let (handle, _) = shares.open(who(0), file, false, libc::O_RDONLY as u32).expect("it may be read");
    let handle = handle.expect("a handle");
    let tries: [(&str, &dyn Fn() -> io::Result<()>); 14] = [
        ("open to write", &|| shares.open(who(0), file, false, libc::O_RDWR as u32).map(drop)),
        ("open to cut", &|| {
            shares.open(who(0), file, false, (libc::O_WRONLY | libc::O_TRUNC) as u32).map(drop)
        }),
        ("create", &|| shares.create(who(0), root, c"new", 0o644, false, create, 0, bare()).map(drop)),
        ("mknod", &|| shares.mknod(who(0), root, c"pipe", libc::S_IFIFO | 0o600, 0, 0, bare()).map(drop)),
        ("mkdir", &|| shares.mkdir(who(0), root, c"new", 0o755, 0, bare()).map(drop)),
        ("symlink", &|| shares.symlink(who(0), c"/etc", root, c"new", bare()).map(drop)),
        ("link", &|| shares.link(who(0), file, root, c"new").map(drop)),
        ("unlink", &|| shares.unlink(who(0), root, c"file")),
        ("rmdir", &|| shares.rmdir(who(0), root, c"sub")),
        ("rename", &|| shares.rename(who(0), root, c"file", root, c"new", 0)),
        ("chmod", &|| shares.setattr(who(0), file, set, None, SetattrValid::MODE).map(drop)),
        ("chown", &|| shares.setattr(who(0), file, set, None, SetattrValid::UID).map(drop)),
        ("setxattr", &|| shares.setxattr(who(0), file, c"user.x", b"x", 0, none)),
        ("truncate by a handle", &|| {
            shares.setattr(who(0), file, set, Some(handle), SetattrValid::SIZE).map(drop)
        }),
    ];
    for (what, act) in tries {
        let refused = act().expect_err(what).raw_os_error();
        let wanted = if what.ends_with("handle") { Some(libc::EINVAL) } else { Some(libc::EROFS) };
        assert_eq!(refused, wanted, "{what}");
    }
    // A handle that was opened to read writes nothing either.
    let refused = shares.fallocate(who(0), file, handle, 0, 0, 1 << 20).expect_err("fallocate");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    assert_eq!(state(dir.path()), before);
}
