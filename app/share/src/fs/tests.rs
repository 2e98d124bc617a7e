use std::{os::unix::fs::MetadataExt, path::Path};

use virtiofsd::fuse::SetattrValid;

use super::*;
use crate::echo;

mod durable;
mod escape;
mod listing;
mod ordinary;

/// Shares in this thread's own current folder, as the worker has them but for its confinement.
fn shares() -> (Shares, File) {
    roomy(10_000)
}

/// The same with room for so many files.
fn roomy(files: u64) -> (Shares, File) {
    sandbox::own_folder().expect("own folder");
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let proc_fd = rustix::fs::open("/proc/self/fd", flags, rustix::fs::Mode::empty()).expect("proc");
    let (teller, heard) = echo::channel().expect("channel");
    let shares = Shares::new(proc_fd.into(), teller, files, 4).expect("shares");
    shares.init(FsOptions::empty()).expect("init");
    (shares, heard)
}

fn tree(path: &Path) -> OwnedFd {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("opens")
}

fn who(uid: u32) -> Context {
    Context { uid: GuestUid::from(uid), gid: GuestGid::from(uid), pid: 1 }
}

fn name(text: &str) -> CString {
    CString::new(text).expect("a name")
}

fn walk(shares: &Shares, path: &[&str]) -> io::Result<Entry> {
    let mut at = ROOT_ID;
    let mut entry = None;
    for part in path {
        let found = shares.lookup(who(0), at, &name(part))?;
        at = found.inode;
        entry = Some(found);
    }
    Ok(entry.expect("a path"))
}

#[test]
fn exports_come_and_go_below_a_root_of_their_own() {
    let (shares, _heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("a b"), "x").expect("writes");
    assert_eq!(walk(&shares, &["one"]).err().and_then(|e| e.raw_os_error()), Some(libc::ENOENT));
    shares.add("one", tree(dir.path()), None).expect("adds");
    let file = walk(&shares, &["one", "a b"]).expect("there");
    assert_eq!(file.attr.size, 1);
    let root = walk(&shares, &["one"]).expect("there");
    assert_ne!(root.attr.flags & ATTR_SUBMOUNT, 0, "a file system of its own to the guest");
    shares.remove("one");
    assert_eq!(
        shares.getattr(who(0), file.inode, None).err().and_then(|e| e.raw_os_error()),
        Some(libc::ESTALE)
    );
    assert_eq!(walk(&shares, &["one"]).err().and_then(|e| e.raw_os_error()), Some(libc::ENOENT));
}

#[test]
fn no_name_leads_out_of_an_export() {
    let (shares, _heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    std::fs::create_dir(dir.path().join("in")).expect("makes");
    std::fs::write(dir.path().join("secret"), "x").expect("writes");
    shares.add("one", tree(&dir.path().join("in")), None).expect("adds");
    let root = walk(&shares, &["one"]).expect("there").inode;
    for bad in ["..", ".", "", "../secret", "/etc/passwd", "a/b"] {
        let bad = name(bad);
        assert!(shares.lookup(who(0), root, &bad).is_err(), "{bad:?}");
        assert!(shares.unlink(who(0), root, &bad).is_err(), "{bad:?}");
        assert!(shares.mkdir(who(0), root, &bad, 0o755, 0, bare()).is_err(), "{bad:?}");
        assert!(shares.symlink(who(0), c"x", root, &bad, bare()).is_err(), "{bad:?}");
        assert!(shares.rename(who(0), root, &bad, root, c"y", 0).is_err(), "{bad:?}");
        assert!(shares.rename(who(0), root, c"y", root, &bad, 0).is_err(), "{bad:?}");
        assert!(shares.create(who(0), root, &bad, 0o644, false, 1, 0, bare()).is_err(), "{bad:?}");
    }
    assert!(dir.path().join("secret").exists());
    // Nor does an inode that was never handed out.
    for inode in [0, 2, 1 << 60, u64::MAX, root + 999] {
        assert!(shares.getattr(who(0), inode, None).is_err(), "{inode}");
    }
}

#[test]
fn of_a_file_that_is_shared_its_neighbours_are_not_seen() {
    let (shares, _heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    for file in ["mine", "other"] {
        std::fs::write(dir.path().join(file), file).expect("writes");
    }
    shares.add("one", tree(dir.path()), Some(name("mine"))).expect("adds");
    assert!(walk(&shares, &["one", "mine"]).is_ok());
    assert_eq!(walk(&shares, &["one", "other"]).err().and_then(|e| e.raw_os_error()), Some(libc::ENOENT));
    let root = walk(&shares, &["one"]).expect("there").inode;
    assert!(shares.unlink(who(0), root, c"other").is_err() && shares.open(who(0), root, false, 0).is_err());
    assert!(shares.rename(who(0), root, c"other", root, c"mine", 0).is_err());
    let mut listing = shares.readdir(who(0), root, 0, 4096, 0).expect("lists");
    let mut names = Vec::new();
    while let Some(entry) = virtiofsd::filesystem::DirectoryIterator::next(&mut listing) {
        names.push(entry.name.to_owned());
    }
    assert_eq!(names, [name("."), name(".."), name("mine")]);
}

#[test]
fn an_owner_that_a_container_sets_is_remembered_and_the_file_stays_the_persons() {
    let (shares, _heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    let export = || shares.add("one", tree(dir.path()), None).expect("adds");
    export();
    let root = walk(&shares, &["one"]).expect("there").inode;
    // As `install -d -o 999 data`, then the database itself makes its files.
    let data = shares.mkdir(who(0), root, c"data", 0o700, 0, bare()).expect("makes");
    let set = SetattrIn { uid: GuestUid::from(999), gid: GuestGid::from(999), ..SetattrIn::default() };
    let (attr, _) =
        shares.setattr(who(0), data.inode, set, None, SetattrValid::UID | SetattrValid::GID).expect("chown");
    assert_eq!((attr.uid.into_inner(), attr.gid.into_inner()), (999, 999));
    let flags = (libc::O_CREAT | libc::O_RDWR | libc::O_EXCL) as u32;
    let (made, _, _) =
        shares.create(who(999), data.inode, c"base", 0o600, false, flags, 0, bare()).expect("creates");
    assert_eq!(made.attr.uid.into_inner(), 999);
    let host = std::fs::metadata(dir.path().join("data/base")).expect("there");
    assert_eq!((host.uid(), host.mode() & 0o777), (rustix::process::geteuid().as_raw(), 0o600));
    // Even when the server is another one.
    export();
    let again = walk(&shares, &["one", "data", "base"]).expect("there");
    assert_eq!((again.attr.uid.into_inner(), again.attr.gid.into_inner()), (999, 999));
    // What root makes is the person's, and nobody may see or change how it is kept.
    let root = walk(&shares, &["one"]).expect("there").inode;
    let (plain, _, _) =
        shares.create(who(0), root, c"plain", 0o644, false, flags, 0, bare()).expect("creates");
    assert_eq!(plain.attr.uid.into_inner(), rustix::process::geteuid().as_raw());
    let owner = crate::owner::ATTRIBUTE;
    assert!(
        shares
            .setxattr(who(0), again.inode, owner, b"0:0", 0, virtiofsd::filesystem::SetxattrFlags::empty())
            .is_err()
    );
    assert!(shares.getxattr(who(0), again.inode, owner, 64).is_err());
    let virtiofsd::filesystem::ListxattrReply::Names(names) =
        shares.listxattr(who(0), again.inode, 4096).expect("lists")
    else {
        panic!("a list was asked for")
    };
    assert!(!names.windows(7).any(|w| w == b"slipway"), "{names:?}");
}

#[test]
fn a_watched_tree_may_be_believed_for_long_and_its_gaps_too() {
    let (shares, mut heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    for sub in ["app/src", "app/objects", "other"] {
        std::fs::create_dir_all(dir.path().join(sub)).expect("makes");
    }
    shares.add("one", tree(dir.path()), None).expect("adds");
    shares.vouch(&[("one".into(), vec![name("app")])], vec![b"objects".to_vec()], true);
    let timeout = |path: &[&str]| walk(&shares, path).expect("there").entry_timeout;
    assert_eq!(timeout(&["one", "app"]), VOUCHED);
    assert_eq!(timeout(&["one", "app", "src"]), VOUCHED);
    assert_eq!(timeout(&["one", "app", "objects"]), FRESH, "nobody watches it");
    assert_eq!(timeout(&["one", "other"]), FRESH);
    let src = walk(&shares, &["one", "app", "src"]).expect("there").inode;
    let missing = shares.lookup(who(0), src, c"missing").expect("remembered");
    assert_eq!((missing.inode, missing.entry_timeout), (0, VOUCHED));
    // What the guest does there is told.
    shares.mkdir(who(0), src, c"new", 0o755, 0, bare()).expect("makes");
    let mut echoes = echo::Echoes::default();
    echoes.hear(&mut heard, std::time::Instant::now());
    let ino = std::fs::metadata(dir.path().join("app/src")).expect("there").ino();
    assert!(echoes.name(Deed::Create, ino, b"new"));
    // What another container mounts makes nobody forget: below what was entered before, files are believed as long as ever.
    shares.vouch(
        &[("one".into(), vec![name("other")]), ("one".into(), vec![name("app")])],
        vec![b"objects".to_vec()],
        true,
    );
    assert_eq!(shares.lookup(who(0), src, c"new").expect("there").entry_timeout, VOUCHED);
    assert_eq!(timeout(&["one", "other"]), VOUCHED);
    // Where other folders are left out than before, nothing of before holds.
    shares.vouch(&[("one".into(), vec![name("app")])], Vec::new(), true);
    assert_eq!(shares.lookup(who(0), src, c"new").expect("there").entry_timeout, FRESH);
    assert_eq!(timeout(&["one", "app", "src"]), VOUCHED);
    // Nothing is vouched for any more.
    shares.vouch(&[], Vec::new(), false);
    assert_eq!(timeout(&["one", "app", "src"]), FRESH);
    assert!(shares.lookup(who(0), src, c"missing").is_err());
}

/// Does something to 1,000 names of a folder where 200 files may be open, for a guest that forgets what was found when it is
/// asked to.
fn crowded(act: impl Fn(&Shares, u64, &CStr) -> Entry) -> tempfile::TempDir {
    let (shares, mut heard) = roomy(200);
    let dir = tempfile::tempdir().expect("folder");
    for number in 0..1000 {
        std::fs::write(dir.path().join(format!("there {number}")), "x").expect("writes");
    }
    shares.add("one", tree(dir.path()), None).expect("adds");
    let root = walk(&shares, &["one"]).expect("there").inode;
    let known = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut echoes = echo::Echoes::default();
            while !done.load(Ordering::Relaxed) {
                echoes.hear(&mut heard, Instant::now());
                if echoes.take_full() {
                    let gone: Vec<u64> = std::mem::take(&mut *known.lock().expect("lock"));
                    gone.into_iter().for_each(|inode| shares.forget(who(0), inode, 1));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for number in 0..1000 {
            let found = act(&shares, root, &name(&format!("there {number}")));
            known.lock().expect("lock").push(found.inode);
        }
        done.store(true, Ordering::Relaxed);
    });
    dir
}

#[test]
fn who_lists_more_files_than_may_be_open_is_served_as_the_guest_lets_go() {
    crowded(|shares, root, name| shares.lookup(who(0), root, name).expect("there is room"));
}

#[test]
fn who_makes_more_files_than_may_be_open_makes_each_once() {
    let flags = (libc::O_CREAT | libc::O_RDWR | libc::O_EXCL) as u32;
    let dir = crowded(|shares, root, there| {
        let new = name(&format!("new {}", there.to_str().expect("text")));
        let (made, handle, _) =
            shares.create(who(999), root, &new, 0o600, false, flags, 0, bare()).expect("it was not there");
        shares
            .release(who(999), made.inode, flags, handle.expect("open"), false, false, None)
            .expect("closes");
        assert_eq!(made.attr.uid.into_inner(), 999);
        made
    });
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 2000);
}

#[test]
fn a_close_is_asked_about_only_where_files_may_lie_elsewhere() {
    let (shares, _heard) = shares();
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("file"), "x").expect("writes");
    shares.add("one", tree(dir.path()), None).expect("adds");
    let file = walk(&shares, &["one", "file"]).expect("there").inode;
    let (handle, _) = shares.open(who(0), file, false, libc::O_RDWR as u32).expect("opens");
    let handle = handle.expect("a handle");
    let refused = shares.flush(who(0), file, handle, 0).expect_err("not asked any more");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSYS));
    for export in write(&shares.exports).values_mut() {
        Arc::get_mut(export).expect("ours alone").remote = true;
    }
    shares.flush(who(0), file, handle, 0).expect("the other computer has taken it");
}
