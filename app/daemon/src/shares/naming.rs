//! How the host's system writes paths, and where those are in the guest. Pure but for [`Naming::canonical`], so that what a
//! Windows client names is tested on every system.

use std::{
    io,
    path::{Path, PathBuf},
};

use slipway_share::{
    bind_source::{self, Refused},
    guest_path::{self, Whose},
};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    Unix,
    /// Paths have drives, and other places in the guest.
    Windows,
}

/// What a client names as the source of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// What is the machine's own, on any host: the engine's socket, a device.
    Machine,
    /// In a folder that is the machine's, but nothing that it has.
    Neither(PathBuf),
    /// As the host writes it, with no `.` and `..` in it.
    Host(PathBuf),
}

impl Naming {
    /// This host's.
    pub(super) const HERE: Self = if cfg!(windows) { Self::Windows } else { Self::Unix };

    /// `SOURCE:TARGET[:OPTIONS]` into source and the rest with its colon; `None` without a target.
    pub(super) fn split(self, bind: &str) -> Option<(&str, &str)> {
        match self {
            // The engine splits at every colon, so a source with one cannot be said in this form.
            Self::Unix => bind.find(':').map(|at| bind.split_at(at)),
            Self::Windows => bind_source::split(bind),
        }
    }

    /// Understands a source; `None` for what is no path: a volume's name, or the engine's to refuse.
    ///
    /// # Errors
    /// Why it can be nothing of the host's.
    pub(super) fn read(self, source: &str) -> Option<Result<Named, Refused>> {
        let path = source.starts_with('/').then(|| clean(source));
        match self {
            Self::Unix => path.map(|path| {
                Ok(match guest_path::whose(&path) {
                    Whose::Machine => Named::Machine,
                    Whose::Neither => Named::Neither(path),
                    Whose::Host => Named::Host(path),
                })
            }),
            Self::Windows => {
                // Git Bash wants two slashes before what it is not to translate; what else has two is a computer's name.
                let one = |path: &Path| path.starts_with("/var/run") || !source.starts_with("//");
                if path.is_some_and(|path| one(&path) && guest_path::whose(&path) == Whose::Machine) {
                    return Some(Ok(Named::Machine));
                }
                bind_source::parse(source).map(|read| read.map(|found| Named::Host(found.host.into())))
            }
        }
    }

    /// Where an export of `path` is in the guest. It must be as [`Naming::canonical`] writes it.
    pub(super) fn in_guest(self, path: &Path) -> PathBuf {
        match self {
            Self::Unix => guest_path::in_guest(path),
            Self::Windows => parsed(path).map_or_else(|_| path.to_owned(), |found| found.guest.into()),
        }
    }

    /// A path of the guest as it is on the host.
    pub(super) fn on_host(self, path: &Path) -> PathBuf {
        match self {
            Self::Unix => path
                .strip_prefix(guest_path::ASIDE)
                .map_or_else(|_| path.to_owned(), |rest| Path::new("/").join(rest)),
            Self::Windows => parsed(path).map_or_else(|_| path.to_owned(), |found| found.host.into()),
        }
    }

    /// The one way to write what is there: without links, and on Windows with the letters as the disk has them.
    ///
    /// # Errors
    /// What the host says of it; on Windows also what leads to where nothing can be shared, as a network's drive does.
    pub(super) fn canonical(self, path: &Path) -> io::Result<PathBuf> {
        let path = path.canonicalize()?;
        match self {
            Self::Unix => Ok(path),
            // `\\?\C:\x`, which nobody writes and many programs do not understand.
            Self::Windows => parsed(&path).map(|found| found.host.into()).map_err(io::Error::other),
        }
    }

    /// A path as a shell takes it.
    pub(super) fn quoted(self, path: &Path) -> String {
        let text = path.to_string_lossy();
        let plain = |c: char| {
            c.is_ascii_alphanumeric() || "/._-+@%".contains(c) || (self == Self::Windows && r"\:".contains(c))
        };
        match self {
            _ if text.chars().all(plain) => text.into_owned(),
            Self::Unix => format!("'{}'", text.replace('\'', r"'\''")),
            // For each of its shells; no name there has such a mark in it.
            Self::Windows => format!("\"{text}\""),
        }
    }
}

/// A path of a Windows host, or of its guest.
fn parsed(path: &Path) -> Result<bind_source::BindSource, Refused> {
    let text = path.to_string_lossy();
    bind_source::parse(&text).unwrap_or_else(|| Err(Refused::Relative(text.into_owned())))
}

/// The engine's own way with a path: `//a/./b/../c/` is `/a/c`.
fn clean(path: &str) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    PathBuf::from(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_the_engine_does() {
        for (path, is) in [("//a/./b/../c/", "/a/c"), ("/..", "/"), ("/a b", "/a b")] {
            assert_eq!(clean(path), Path::new(is));
        }
    }

    #[test]
    fn what_is_the_machines_own_is_so_on_every_host() {
        for source in ["/var/run/docker.sock", "//var/run/docker.sock", "/dev/fuse", "/", "/lib/modules"] {
            for naming in [Naming::Unix, Naming::Windows] {
                assert_eq!(naming.read(source), Some(Ok(Named::Machine)), "{source}");
            }
        }
        let network = Refused::Network("//dev/share".into());
        assert_eq!(Naming::Windows.read("//dev/share"), Some(Err(network)), "a computer of that name");
    }

    #[test]
    fn a_path_leads_to_the_guest_and_back() {
        for (naming, host, guest) in [
            (Naming::Unix, "/home/a b", "/home/a b"),
            (Naming::Unix, "/etc/localtime", "/run/host/etc/localtime"),
            (Naming::Windows, r"C:\Users\me", "/c/Users/me"),
            (Naming::Windows, r"D:\", "/d"),
        ] {
            assert_eq!(naming.in_guest(Path::new(host)), Path::new(guest));
            assert_eq!(naming.on_host(Path::new(guest)), Path::new(host));
        }
    }

    #[test]
    fn a_path_is_said_as_a_shell_takes_it() {
        for (naming, path, said) in [
            (Naming::Unix, "/srv/data", "/srv/data"),
            (Naming::Unix, "/a b/it's", r"'/a b/it'\''s'"),
            (Naming::Unix, r"/a\b", r"'/a\b'"),
            (Naming::Windows, r"C:\Users\me", r"C:\Users\me"),
            (Naming::Windows, r"C:\some data", r#""C:\some data""#),
        ] {
            assert_eq!(naming.quoted(Path::new(path)), said);
        }
    }
}
