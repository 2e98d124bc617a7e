//! Where a path of the host is in the guest: at the same place, unless the guest's own system is there.

use std::path::{Path, PathBuf};

/// Where exports go whose own place is taken by the guest's system.
pub const ASIDE: &str = "/run/host";

/// What of the guest's root is the guest's: nothing is mounted over it.
const SYSTEM: &[&str] = &["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot"];

/// What a container means when it names it: the machine's kernel and engine, never a folder of the host.
const MACHINE: &[&str] = &[
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/var/run",
    "/lib/modules",
    "/usr/lib/modules",
    "/usr/src",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/data",
];

/// Sockets of the machine that containers ask for.
const SOCKETS: &[&str] = &["docker.sock", "containerd/containerd.sock"];

/// Whose a path is that a container wants mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The guest's: its kernel, its devices, its engine's socket.
    Machine,
    /// In a folder that is the guest's, but nothing that it has: only the host could mean it.
    Neither,
    /// The host's.
    Host,
}

/// Whose `path` is. It must be absolute and without `.` and `..`.
pub fn whose(path: &Path) -> Whose {
    if path == Path::new("/") {
        return Whose::Machine;
    }
    let below = |base: &&str| path.strip_prefix(base).ok();
    for base in ["/run", "/var/run"] {
        if let Some(rest) = path.strip_prefix(base).ok().filter(|rest| !rest.as_os_str().is_empty()) {
            let known = SOCKETS.iter().any(|socket| rest == Path::new(socket))
                || ["docker", "containerd", "lock"].iter().any(|dir| rest.starts_with(dir))
                || path.starts_with(ASIDE);
            return if known { Whose::Machine } else { Whose::Neither };
        }
    }
    if MACHINE.iter().any(|base| below(base).is_some()) { Whose::Machine } else { Whose::Host }
}

/// Where an export of `path` is in the guest.
pub fn in_guest(path: &Path) -> PathBuf {
    if SYSTEM.iter().any(|base| path.starts_with(base)) {
        join(Path::new(ASIDE), path)
    } else {
        path.to_owned()
    }
}

fn join(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_keeps_what_is_its_own() {
        for path in [
            "/",
            "/dev",
            "/dev/kvm",
            "/proc",
            "/sys/fs/cgroup",
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/lib/modules",
            "/var/lib/docker/volumes/x/_data",
        ] {
            assert_eq!(whose(Path::new(path)), Whose::Machine, "{path}");
        }
        for path in ["/home/a", "/srv", "/etc/localtime", "/tmp/x", "/var/lib/postgres", "/devices"] {
            assert_eq!(whose(Path::new(path)), Whose::Host, "{path}");
        }
        for path in ["/run/user/1000/bus", "/var/run/postgresql"] {
            assert_eq!(whose(Path::new(path)), Whose::Neither, "{path}");
        }
    }

    #[test]
    fn a_path_is_the_same_in_the_guest_unless_the_guest_lives_there() {
        for (path, there) in [
            ("/home/a b", "/home/a b"),
            ("/root", "/root"),
            ("/tmp/x", "/tmp/x"),
            ("/etc/localtime", "/run/host/etc/localtime"),
            ("/usr/share/zoneinfo", "/run/host/usr/share/zoneinfo"),
        ] {
            assert_eq!(in_guest(Path::new(path)), Path::new(there));
        }
    }
}
