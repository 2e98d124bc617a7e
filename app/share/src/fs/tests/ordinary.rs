//! The share server of an ordinary user: what containers do as root or as somebody else must work although the host lets
//! this user do none of it.

use std::os::unix::fs::{PermissionsExt, chown, symlink};

use rustix::fs::Mode;

use super::*;

/// Whoever has no files on this host.
const NOBODY: u32 = 64_123;

/// Does something in an empty folder as an ordinary user: as ourselves, or when that is root, as nobody.
fn as_ordinary(act: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().expect("folder");
    let root = rustix::process::geteuid().is_root();
    if root {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if root {
                become_nobody();
                let refused =
                    std::fs::metadata("/proc/1/root").expect_err("an ordinary user may not look there");
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            }
            act(dir.path());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// This thread alone: the system calls know nothing of the C library's promise to change all.
fn become_nobody() {
    // SAFETY: they take numbers, and a null pointer for an empty list.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()), 0);
        assert_eq!(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY), 0);
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("there").mode() & 0o7777
}

/// As `chown UID:UID` in a container, and what it sees then.
fn give(shares: &Shares, inode: u64, uid: u32) -> io::Result<u32> {
    let set = SetattrIn { uid: GuestUid::from(uid), gid: GuestGid::from(uid), ..SetattrIn::default() };
    let (attr, _) = shares.setattr(who(0), inode, set, None, SetattrValid::UID | SetattrValid::GID)?;
    Ok(attr.uid.into_inner())
}

#[test]
fn chown_of_a_whole_tree_works_and_is_remembered_and_the_files_stay_the_persons() {
    as_ordinary(|dir| {
        // As `useradd -m` leaves it, with what is in a person's folders besides.
        for folder in ["home/.config", "home/closed"] {
            std::fs::create_dir_all(dir.join(folder)).expect("makes");
        }
        for file in ["home/.profile", "home/.config/settings", "home/closed/letter", "home/object"] {
            std::fs::write(dir.join(file), file).expect("writes");
        }
        symlink(".profile", dir.join("home/link")).expect("links");
        std::fs::hard_link(dir.join("home/.profile"), dir.join("home/second")).expect("links");
        chmod(&dir.join("home/object"), 0o400);
        chmod(&dir.join("home/closed/letter"), 0);
        chmod(&dir.join("home/closed"), 0);
        let (shares, _heard) = shares();
        shares.add("one", tree(dir), None).expect("adds");
        let files: &[&[&str]] = &[
            &["home"],
            &["home", ".profile"],
            &["home", ".config"],
            &["home", ".config", "settings"],
            &["home", "closed"],
            &["home", "closed", "letter"],
            &["home", "object"],
            &["home", "second"],
        ];
        let at = |path: &[&str]| {
            walk(&shares, &[&["one"], path].concat()).unwrap_or_else(|e| panic!("{path:?}: {e}"))
        };
        for path in files {
            let entry = at(path);
            assert_eq!(give(&shares, entry.inode, 1001).unwrap_or_else(|e| panic!("{path:?}: {e}")), 1001);
        }
        // A link carries no attribute: its owner lasts while the guest knows it.
        assert_eq!(give(&shares, at(&["home", "link"]).inode, 1001).expect("chown -h"), 1001);
        // Another server finds it so.
        shares.add("one", tree(dir), None).expect("adds");
        for path in files {
            let attr = at(path).attr;
            assert_eq!((attr.uid.into_inner(), attr.gid.into_inner()), (1001, 1001), "{path:?}");
        }
        let ours = rustix::process::geteuid().as_raw();
        for path in ["home", "home/.profile", "home/object", "home/closed"] {
            assert_eq!(std::fs::metadata(dir.join(path)).expect("there").uid(), ours, "{path}");
        }
        assert_eq!((mode(&dir.join("home/object")), mode(&dir.join("home/closed"))), (0o400, 0));
        chmod(&dir.join("home/closed"), 0o700);
        assert_eq!(mode(&dir.join("home/closed/letter")), 0, "every permission was given back");
    });
}

#[test]
fn a_database_s_own_files_are_its_own_and_root_in_a_container_reads_them() {
    as_ordinary(|dir| {
        let (shares, _heard) = shares();
        shares.add("one", tree(dir), None).expect("adds");
        let root = walk(&shares, &["one"]).expect("there").inode;
        let data = shares.mkdir(who(0), root, c"data", 0o700, 0, bare()).expect("makes");
        give(&shares, data.inode, 999).expect("chown");
        let flags = (libc::O_CREAT | libc::O_RDWR | libc::O_EXCL) as u32;
        let (made, _, _) =
            shares.create(who(999), data.inode, c"base", 0o600, false, flags, 0, bare()).expect("creates");
        assert_eq!((made.attr.uid.into_inner(), made.attr.mode & 0o777), (999, 0o600));
        // Its folder is closed even to its owner for a moment, as some installers do; root does not mind.
        let set = SetattrIn { mode: 0o100, ..SetattrIn::default() };
        shares.setattr(who(999), data.inode, set, None, SetattrValid::MODE).expect("chmod");
        let (other, _, _) =
            shares.create(who(0), data.inode, c"of root", 0o600, false, flags, 0, bare()).expect("creates");
        shares.open(who(0), other.inode, false, libc::O_RDWR as u32).expect("opens");
        shares.rename(who(0), data.inode, c"of root", data.inode, c"renamed", 0).expect("renames");
        shares.unlink(who(0), data.inode, c"renamed").expect("removes");
        assert_eq!(mode(&dir.join("data")), 0o100);
        // What another user of the host has forbidden stays forbidden.
        if Path::new("/etc/shadow").exists() {
            shares.add("etc", tree(Path::new("/etc")), None).expect("adds");
            let shadow = walk(&shares, &["etc", "shadow"]).expect("it is seen").inode;
            let refused = shares.open(who(0), shadow, false, 0).expect_err("and not read").raw_os_error();
            assert_eq!(refused, Some(libc::EACCES));
            assert!(give(&shares, shadow, 999).is_err());
        }
    });
}

#[test]
fn a_permission_that_is_lent_to_many_at_once_is_given_back_and_never_seen() {
    as_ordinary(|dir| {
        for file in ["object", "other"] {
            std::fs::write(dir.join(file), "x").expect("writes");
            chmod(&dir.join(file), 0o400);
        }
        let (shares, _heard) = shares();
        shares.add("one", tree(dir), None).expect("adds");
        let inode = walk(&shares, &["one", "object"]).expect("there").inode;
        let other = walk(&shares, &["one", "other"]).expect("there").inode;
        let flags = libc::O_RDWR as u32;
        std::thread::scope(|scope| {
            for file in [inode, inode, other] {
                let shares = shares.clone();
                scope.spawn(move || {
                    sandbox::own_folder().expect("own folder");
                    for _ in 0..2000 {
                        let (handle, _) = shares.open(who(0), file, false, flags).expect("opens");
                        let handle = handle.expect("a handle");
                        shares.release(who(0), file, flags, handle, false, false, None).expect("closes");
                        let (attr, _) = shares.getattr(who(0), file, None).expect("there");
                        assert_eq!(attr.mode & 0o777, 0o400, "what is lent is nobody's business");
                    }
                });
            }
        });
        assert_eq!((mode(&dir.join("object")), mode(&dir.join("other"))), (0o400, 0o400));
    });
}

#[test]
fn what_has_no_attributes_keeps_its_owner_while_the_guest_knows_it() {
    as_ordinary(|dir| {
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("pipe"), Mode::from_raw_mode(0o600)).expect("makes");
        let (shares, _heard) = shares();
        shares.add("one", tree(dir), None).expect("adds");
        let pipe = walk(&shares, &["one", "pipe"]).expect("there").inode;
        assert_eq!(give(&shares, pipe, 999).expect("chown"), 999);
        assert_eq!(walk(&shares, &["one", "pipe"]).expect("there").attr.uid.into_inner(), 999);
    });
}
