//! Hyper-V's folders: each share is a file system of its own, on a stream to the host that carries the 9P2000.L protocol.
//!
//! ```text
//!   attach: connect ─▶ mount (version, attach by the share's name) ─▶ the kernel has the stream, and holds it to the last mount
//!   the stream ends: every request fails with EIO ─▶ the host's next SetShares finds no answer there ─▶ attach anew
//! ```

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use slipway_protocol::v1::Share;
use vsock::{VMADDR_CID_HOST, VsockStream};

use super::{Carrier, DRIVER};

/// On what port of the host Hyper-V serves them, as the driver's document says it.
const PORT: u32 = 564;
/// Where the kernel lists the file systems that it has.
const KNOWN: &str = "/proc/filesystems";

/// How a mount behaves.
///
/// - `msize`: the longest message in bytes; Windows' own guests ask for no more.
/// - `cache=mmap`: names and attributes are asked for each time, so that what the host changes is there at once, and a file that is
///   opened again is read again. The modes that keep more keep it without asking until memory is short. Less, and no memory can be
///   mapped for writing, which databases do.
/// - `directio`: what is read and written goes by the pages that are kept for maps, or two who have a file open would not see each
///   other's writes, and the host those of neither, until the kernel finds time to write them back.
/// - `access=client`: each user of the guest attaches as itself, so that the host notes who a file belongs to; who may do what is
///   judged here by the owner and mode that it reports, as on any disk.
const OPTIONS: &str = "trans=fd,version=9p2000.L,msize=65536,cache=mmap,directio,access=client";

/// How a stream to the server is opened.
type Dial = dyn Fn() -> io::Result<OwnedFd> + Send + Sync;

/// Folders over 9P2000.L.
pub struct Plan9 {
    dial: Box<Dial>,
    within: String,
}

impl std::fmt::Debug for Plan9 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan9").field("within", &self.within).finish_non_exhaustive()
    }
}

impl Plan9 {
    /// Hyper-V's: its server knows a share by its name alone.
    pub(super) fn of_hyperv() -> Self {
        // Blocks for two seconds at most, which is the kernel's own patience.
        let dial = || VsockStream::connect_with_cid_port(VMADDR_CID_HOST, PORT).map(OwnedFd::from);
        Self::new(dial, String::new())
    }

    /// A server that `dial` reaches, and that has the shares below `within`, which is put before their names.
    pub fn new(dial: impl Fn() -> io::Result<OwnedFd> + Send + Sync + 'static, within: String) -> Self {
        Self { dial: Box::new(dial), within }
    }
}

impl Carrier for Plan9 {
    fn begin(&self) -> io::Result<()> {
        let deadline = Instant::now() + DRIVER;
        // Its module is loaded with the network's, meanwhile.
        while !std::fs::read_to_string(KNOWN)?.lines().any(|line| line.ends_with("\t9p")) {
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel has no 9p file system"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn attach(&self, share: &Share, place: &Path) -> io::Result<()> {
        if share.file {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "on this host only folders can be shared, and it is a file: share the folder that it is in",
            ));
        }
        let name = format!("{}{}", self.within, share.id);
        // A comma would end the name, and what is behind it be another option.
        if name.contains([',', '\0']) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{name}` is no name of a share"),
            ));
        }
        std::fs::create_dir_all(place)?;
        let during = |act: &str, error: io::Error| io::Error::new(error.kind(), format!("{act}: {error}"));
        let stream = (self.dial)().map_err(|error| during("the host's server cannot be reached", error))?;
        let fd = stream.as_raw_fd();
        let options = CString::new(format!("{OPTIONS},rfdno={fd},wfdno={fd},aname={name}"))?;
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
        if share.read_only {
            flags |= MountFlags::RDONLY;
        }
        mount("slipway", place, "9p", flags, Some(&*options))
            .map_err(|error| during("the host's server does not give it", error.into()))
    }

    fn detach(&self, place: &Path) {
        let _ = unmount(place, UnmountFlags::DETACH);
    }

    fn answers(&self, place: &Path) -> bool {
        rustix::fs::statfs(place).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(id: &str, file: bool) -> String {
        let plan9 = Plan9::new(|| Err(io::Error::from(io::ErrorKind::ConnectionRefused)), String::new());
        let dir = tempfile::tempdir().expect("a folder");
        let share = Share { id: id.into(), path: b"/x".to_vec(), read_only: false, file };
        plan9.attach(&share, &dir.path().join("place")).expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_be_mounted_says_why() {
        assert!(refused("1", true).contains("only folders"));
        assert!(refused("1,access=any", false).contains("no name of a share"));
        let why = refused("1", false);
        assert!(why.contains("cannot be reached") && why.contains("refused"), "{why}");
    }
}
