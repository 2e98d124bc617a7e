//! How the two processes are confined, and how what is shared becomes a mount that leads nowhere else.
//!
//! ```text
//!   outer:  user, mount, pid, ipc, uts, network namespaces; its own user only; host's mounts arrive, none leave
//!   worker: a mount namespace more, empty read-only root, capabilities gone for ever, system calls filtered
//! ```
//!
//! Whoever cannot be confined so does not start. Inside, a user is who they are outside: uid 1000 is mapped to itself and
//! nobody else exists, so an ordinary user's server and root's work alike.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags},
};
use virtiofsd::seccomp::{SeccompAction, enable_seccomp};

use crate::wire::Sandbox;

/// A step towards confinement failed, and the process must not go on.
#[derive(Debug, thiserror::Error)]
#[error("failed to {act}")]
pub(crate) struct SandboxError {
    act: &'static str,
    #[source]
    source: io::Error,
}

fn step<T, E: Into<io::Error>>(act: &'static str, done: Result<T, E>) -> Result<T, SandboxError> {
    done.map_err(|source| SandboxError { act, source: source.into() })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Enters the outer process's namespaces, all but the worker's own (see [`fork_into_own_pids`]).
///
/// # Errors
/// [`SandboxError`]; the process may be half confined and must end.
pub(crate) fn enter_outer() -> Result<(), SandboxError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let spaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET;
    // SAFETY: takes no pointers; the process has one thread.
    step("make namespaces", check(unsafe { libc::unshare(spaces) }))?;
    step("deny groups", std::fs::write("/proc/self/setgroups", "deny"))?;
    step("map the user", std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))?;
    step("map the group", std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")))?;
    // What the host mounts later must arrive, or it could not be shared; nothing of ours goes back.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    step("part the mounts", rustix::mount::mount_change("/", slave))
}

/// Puts an empty folder that cannot be written to over `path`, for this process and what it shares from now on.
///
/// # Errors
/// That of the system call that failed.
pub(crate) fn cover(path: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", path, "tmpfs", flags, Some(c"size=4k,mode=700")).map_err(Into::into)
}

/// Ends this process when its parent does.
pub(crate) fn die_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into)
}

/// Opens what is at `path` and nowhere else: a link in any part of it is an error. A guest that may write above could put one
/// there at any moment, and would be served what it leads to.
///
/// # Errors
/// `ELOOP` for a link; that of the system call otherwise.
pub(crate) fn open_exactly(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// A copy of the mounts at the folder `at`, attached nowhere: `..` ends at its root. What is mounted below comes along.
///
/// # Errors
/// That of the system call that failed.
pub(crate) fn detached(at: impl AsFd, read_only: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(at, c"", flags)?;
    let mut set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    if read_only {
        set |= MOUNT_ATTR_RDONLY;
    }
    let attr = MountAttr { attr_set: set, attr_clr: 0, propagation: libc::MS_SLAVE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a string that lives, the structure is of the size that is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Confines the worker for good, and looks whether it is. `keep` are the descriptors that it needs; every other is
/// closed. Returns the folder of its own descriptors, by which a file that it has is opened anew.
///
/// # Errors
/// [`SandboxError`]; the process must end.
pub(crate) fn confine(keep: &[RawFd]) -> Result<(File, Sandbox), SandboxError> {
    step("follow the parent", die_with_parent())?;
    step("close descriptors", close_all_but(keep))?;
    let pid = step("read the process id", own_pid())?;
    let outside = namespace_ids();
    // The guest has applied its own; threads made from here on have none. The library clears it in one of them alone.
    rustix::process::umask(Mode::empty());
    // Its own copy, so that what it mounts is nobody else's.
    // SAFETY: takes no pointers; the process has one thread.
    step("make a mount namespace", check(unsafe { libc::unshare(libc::CLONE_NEWNS) }))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let proc_fd = step("keep the own descriptors", rustix::mount::open_tree(CWD, "/proc/self/fd", flags))?;
    step("empty the root", empty_root())?;
    step("give up capabilities", drop_capabilities())?;
    step(
        "filter system calls",
        enable_seccomp(SeccompAction::Kill, false).map_err(|e| io::Error::other(e.to_string())),
    )?;
    let found = Sandbox {
        pid,
        // Looked at before the root was gone: the namespaces are those that the outer process made for us.
        namespaces: outside.is_some(),
        empty_root: root_is_empty(),
        no_capabilities: has_no_capabilities(),
        seccomp: is_filtered(),
    };
    Ok((File::from(proc_fd), found))
}

/// The own process id as the host knows it: `/proc` is the host's.
fn own_pid() -> io::Result<u32> {
    let link = std::fs::read_link("/proc/self")?;
    link.to_string_lossy().parse().map_err(|_| io::Error::other("/proc/self is no process"))
}

/// Set when this process's user, pid and network namespaces are not those of the first process.
fn namespace_ids() -> Option<()> {
    // A user namespace that maps one user only is one that was made for us.
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let mut words = map.split_whitespace();
    let single = (words.next()?, words.next()?, words.next()?, words.next());
    // The first of its pid namespace.
    (single.2 == "1" && single.3.is_none() && std::process::id() == 1).then_some(())
}

fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.push(2);
    keep.sort_unstable();
    let mut from = 0u32;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(from: u32, to: u32) -> io::Result<()> {
    // SAFETY: closes descriptors that no object of this process uses from here on.
    if unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn empty_root() -> io::Result<()> {
    // Any folder that is always there; it is covered in this namespace only, and gone a moment later.
    let place = "/proc";
    let strict = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", place, "tmpfs", strict, Some(c"size=4k,mode=0555"))?;
    rustix::process::chdir(place)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::mount::mount_remount("/", MountFlags::BIND | strict | MountFlags::RDONLY, c"")?;
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    // SAFETY: prctl with these options takes numbers only.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
        // Until the kernel knows no more of them.
        for capability in 0..=63 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break;
            }
        }
    }
    let none = [CapData::default(); 2];
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    // SAFETY: version 3 takes two data structures, and both pointers are to live ones.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } as libc::c_int)?;
    Ok(())
}

const CAP_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn has_no_capabilities() -> bool {
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut found = [CapData { effective: 1, ..CapData::default() }; 2];
    // SAFETY: version 3 fills two data structures, and both pointers are to live ones.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, found.as_mut_ptr()) };
    // SAFETY: takes numbers only.
    let locked = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 1;
    done == 0 && locked && found == [CapData::default(); 2]
}

fn is_filtered() -> bool {
    // SAFETY: takes numbers only. 2 is a filter.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) == 2 }
}

fn root_is_empty() -> bool {
    let Ok(root) = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = rustix::fs::RawDir::new(root.as_fd(), buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        if ![b".".as_slice(), b".."].contains(&entry.file_name().to_bytes()) {
            return false;
        }
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open("/x", flags, Mode::RUSR).err() == Some(rustix::io::Errno::ROFS)
}

/// The current folder becomes the one behind `fd`.
pub(crate) fn enter(fd: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(fd).map_err(Into::into)
}

/// This thread's current folder and umask are its own from now on.
pub(crate) fn own_folder() -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// Makes the worker: the first process of a pid namespace. Returns twice: `None` in the worker, the process to wait for in the
/// caller. That one lies between the two, because a process whose children live in another namespace can have no threads.
pub(crate) fn fork_into_own_pids() -> io::Result<Option<libc::pid_t>> {
    let between = fork()?;
    if between != 0 {
        return Ok(Some(between));
    }
    let ended = |code: i32| -> ! {
        // SAFETY: ends this process at once; nothing of the caller's is to be flushed twice.
        unsafe { libc::_exit(code) }
    };
    // SAFETY: takes no pointers; the process has one thread.
    if die_with_parent().is_err() || check(unsafe { libc::unshare(libc::CLONE_NEWPID) }).is_err() {
        ended(1);
    }
    match fork() {
        Ok(0) => Ok(None),
        Ok(worker) => {
            let waited = rustix::process::waitpid(
                rustix::process::Pid::from_raw(worker),
                rustix::process::WaitOptions::empty(),
            );
            ended(i32::from(
                !waited.is_ok_and(|ended| ended.is_some_and(|(_, status)| status.exit_status() == Some(0))),
            ))
        }
        Err(_) => ended(1),
    }
}

/// Another process, as `fork`: 0 in the child.
pub(crate) fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: the process has one thread, so nothing is locked in the child that nobody would unlock.
    check(unsafe { libc::fork() })
}

/// Takes a descriptor that this process was started with.
pub(crate) fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller says that the descriptor is open and its own.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// As many open files as the hard limit grants: each file that the guest knows is one.
pub(crate) fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(most)
}
