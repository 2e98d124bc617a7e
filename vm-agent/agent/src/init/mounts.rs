//! What a Linux system has mounted before anything runs. The root is read-only and the same at each boot; what is written
//! besides the data disk is in memory and gone with it.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use rustix::mount::{MountFlags, mount, mount_bind};

/// Where the data disk is.
pub(super) const DATA: &str = "/data";

/// Mounts all but the data disk.
pub(super) fn base() -> io::Result<()> {
    let strict = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let lax = MountFlags::NOSUID | MountFlags::NODEV;
    one("tmpfs", "/run", lax, "mode=755")?;
    one("tmpfs", "/tmp", lax, "mode=1777")?;
    one("tmpfs", "/var", lax, "mode=755")?;
    one("tmpfs", "/root", lax, "mode=700")?;
    one("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "gid=5,mode=620,ptmxmode=666")?;
    one("tmpfs", "/dev/shm", lax, "mode=1777")?;
    one("mqueue", "/dev/mqueue", strict, "")?;
    one("cgroup2", "/sys/fs/cgroup", strict, "nsdelegate")?;
    // What some containers look for; a kernel without them is no reason not to boot.
    let _ = one("bpf", "/sys/fs/bpf", strict, "mode=700");
    let _ = one("tracefs", "/sys/kernel/tracing", strict, "");
    for dir in ["/var/lib/docker", "/var/lib/containerd", "/var/log", "/var/tmp", "/run/lock"] {
        fs::create_dir_all(dir)?;
    }
    fs::set_permissions("/var/tmp", fs::Permissions::from_mode(0o1777))?;
    std::os::unix::fs::symlink("/run", "/var/run")?;
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let _ = std::os::unix::fs::symlink(target, Path::new("/dev").join(link));
    }
    // Containers' limits need the controllers below the root group.
    if let Ok(controllers) = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        for controller in controllers.split_whitespace() {
            for group in ["/sys/fs/cgroup", "/sys/fs/cgroup/slipway"] {
                let _ = fs::create_dir_all(group);
                let _ = fs::write(format!("{group}/cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    // A mount that a container makes below a shared folder is to be seen where the container says so.
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::SHARED | rustix::mount::MountPropagationFlags::REC,
    )?;
    Ok(())
}

fn one(kind: &str, target: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    // Below the read-only root the folder is the image's to bring; below /dev and /sys it can be made.
    let _ = fs::create_dir_all(target);
    let options = std::ffi::CString::new(options)?;
    mount(kind, target, kind, flags, Some(options.as_c_str()))
        .map_err(|error| io::Error::new(error.kind(), format!("failed to mount {target}: {error}")))
}

/// Where the data disk goes before it is mounted: below /run, when the image brings no folder for it.
pub(super) fn data_target() -> io::Result<&'static Path> {
    let target = Path::new(DATA);
    if target.is_dir() {
        return Ok(target);
    }
    let below_run = Path::new("/run/data");
    fs::create_dir_all(below_run)?;
    Ok(below_run)
}

/// Puts the engine's folders on the data disk.
pub(super) fn engine_folders(data: &Path) -> io::Result<()> {
    for (name, target) in [("docker", "/var/lib/docker"), ("containerd", "/var/lib/containerd")] {
        let source = data.join(name);
        fs::create_dir_all(&source)?;
        mount_bind(&source, target)?;
    }
    Ok(())
}

/// Kernel settings: forwarding for containers, and limits that developers' tools run into. The path below `/proc/sys`.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // Published ports may name an address that only the host has.
    ("net/ipv4/ip_nonlocal_bind", "1"),
    ("net/ipv6/ip_nonlocal_bind", "1"),
    ("net/core/somaxconn", "8192"),
    ("fs/inotify/max_user_watches", "1048576"),
    ("fs/inotify/max_user_instances", "8192"),
    ("vm/max_map_count", "1048576"),
    ("kernel/keys/maxkeys", "20000"),
    ("kernel/keys/maxbytes", "2000000"),
    // Containers' cores stay where the program ran instead of being piped to a program that is not there.
    ("kernel/core_pattern", "core"),
];

/// Sets what can be set; a kernel without one of them works without it.
pub(super) fn sysctls() {
    for (name, value) in SYSCTLS {
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
}
