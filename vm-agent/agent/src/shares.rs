//! The host's folders: what carries them, and each of them where it is on the host.
//!
//! ```text
//!   host: SetShares ─▶ begin (once) ─▶ unmount what is no longer shared, ─▶ attach and bind what is new ─▶ SharesState
//!                                        or whose server is gone                boot: the engine starts after the first of these
//!
//!   /run/slipway/share/ID ─bind─▶ the share's own path
//!     virtiofs: a folder of the one device          plan9: a file system of its own, on a stream to the host
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use slipway_protocol::v1::{Failure, SetShares, Share, SharesState};
use tokio::{sync::watch, time::timeout};

mod plan9;
mod virtiofs;

pub use plan9::Plan9;

use crate::{
    emulation,
    file_events::{FileEvents, Root},
};
use virtiofs::Virtiofs;

/// Where shares are by their ids in a guest; no container has a reason to look there.
const DEVICE: &str = "/run/slipway/share";
/// How long the driver may take to appear after the agent was asked.
const DRIVER: Duration = Duration::from_secs(10);

/// What brings the host's folders into the guest. All of it may wait for the host.
trait Carrier: std::fmt::Debug + Send + Sync {
    /// Before each change: makes ready what all shares need.
    fn begin(&self) -> io::Result<()>;
    /// Makes a share appear at its place there.
    fn attach(&self, share: &Share, place: &Path) -> io::Result<()>;
    /// Takes it away. Who uses it, a container, goes on until the host has taken it away.
    fn detach(&self, place: &Path);
    /// Does the host still answer for it?
    fn answers(&self, place: &Path) -> bool;
}

/// What is shared with this guest.
#[derive(Debug)]
pub struct Shares {
    /// Where shares are by their ids.
    at: PathBuf,
    carrier: Option<Arc<dyn Carrier>>,
    mounted: Arc<Mutex<BTreeMap<PathBuf, Share>>>,
    /// The host has said what is shared.
    told: watch::Sender<bool>,
    /// Delivers what happens in them.
    pub events: Arc<FileEvents>,
}

impl Default for Shares {
    fn default() -> Self {
        Self::new()
    }
}

impl Shares {
    /// Nothing is shared yet. Carried by what this machine has.
    pub fn new() -> Self {
        let carrier: Option<Arc<dyn Carrier>> = if Virtiofs::is_there() {
            Some(Arc::new(Virtiofs))
        } else if emulation::is_hyperv() {
            Some(Arc::new(Plan9::of_hyperv()))
        } else {
            None
        };
        Self::carried(carrier)
    }

    /// Nothing is shared yet. Carried by that server, whatever this machine has, and by their ids at `at`. Nobody brings its events.
    pub fn by_plan9(server: Plan9, at: PathBuf) -> Self {
        let shares = Self { at, ..Self::carried(Some(Arc::new(server))) };
        shares.events.set(Err("they are not told of this server".into()));
        shares
    }

    fn carried(carrier: Option<Arc<dyn Carrier>>) -> Self {
        Self {
            at: DEVICE.into(),
            carrier,
            mounted: Arc::default(),
            told: watch::Sender::new(false),
            events: Arc::default(),
        }
    }

    /// Can the host share anything at all? An older one cannot.
    pub fn can_be_had(&self) -> bool {
        self.carrier.is_some()
    }

    /// Waits until the host has said what is shared; false when it did not in time. Cancel-safe.
    pub async fn told(&self, patience: Duration) -> bool {
        let mut told = self.told.subscribe();
        timeout(patience, told.wait_for(|told| *told)).await.is_ok_and(|told| told.is_ok())
    }

    /// Shares exactly this from now on.
    pub async fn set(&self, wanted: SetShares) -> SharesState {
        let (mounted, events) = (Arc::clone(&self.mounted), Arc::clone(&self.events));
        let (at, carrier) = (self.at.clone(), self.carrier.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = apply(&at, carrier.as_deref(), &mut mounted, wanted.shares);
            let root = |(path, share): (&PathBuf, &Share)| {
                let root = Root::open(&at.join(&share.id), share.file).ok()?;
                Some((path.clone(), root))
            };
            events.set_roots(mounted.iter().filter_map(root).collect());
            failed
        })
        .await;
        let failed = done.unwrap_or_else(|error| vec![failure(String::new(), error.to_string())]);
        self.told.send_replace(true);
        if self.can_be_had() {
            self.events.settled(DRIVER).await;
        }
        let why_not = self.events.why_not();
        SharesState { failed, events: why_not.is_none(), events_reason: why_not.unwrap_or_default() }
    }
}

fn failure(code: String, message: String) -> Failure {
    Failure { code, message, hint: String::new() }
}

fn apply(
    at: &Path,
    carrier: Option<&dyn Carrier>,
    mounted: &mut BTreeMap<PathBuf, Share>,
    shares: Vec<Share>,
) -> Vec<Failure> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the machine has no such device");
    let carrier = carrier.ok_or_else(none).and_then(|carrier| carrier.begin().map(|()| carrier));
    let carrier = match carrier {
        Ok(carrier) => carrier,
        Err(error) => {
            let why = format!("failed to mount the host's folders: {error}");
            return shares.into_iter().map(|share| failure(share.id, why.clone())).collect();
        }
    };
    let place = |share: &Share| at.join(&share.id);
    // What has lost its host is as good as not there.
    mounted.retain(|path, share| {
        let there = carrier.answers(&place(share));
        if !there {
            take_away(carrier, path, &place(share));
        }
        there
    });
    let (mut wanted, mut failed) = (BTreeMap::new(), Vec::new());
    for share in shares {
        match target(&share.path) {
            Some(path) => drop(wanted.insert(path, share)),
            None => failed.push(failure(share.id, "its place in the guest is no path".into())),
        }
    }
    let new =
        |path: &Path, share: &Share, mounted: &BTreeMap<PathBuf, Share>| mounted.get(path) != Some(share);
    // What lies below a new one would be covered by it: it is put on again after it.
    let covered = |path: &Path| wanted.iter().any(|(w, share)| path.starts_with(w) && new(w, share, mounted));
    let leaving: Vec<PathBuf> = mounted
        .iter()
        .filter(|(path, share)| wanted.get(*path) != Some(share) || covered(path))
        .map(|(p, _)| p.clone())
        .collect();
    // Deepest first. Containers have mounts of their own, which go on.
    for path in leaving.into_iter().rev() {
        if let Some(share) = mounted.remove(&path) {
            take_away(carrier, &path, &place(&share));
        }
    }
    // In the order of paths: what is above comes before what is below.
    for (path, share) in wanted {
        if mounted.contains_key(&path) {
            continue;
        }
        let attached = carrier.attach(&share, &place(&share));
        match attached.and_then(|()| bind(&place(&share), &path, &share)) {
            Ok(()) => drop(mounted.insert(path, share)),
            Err(error) => {
                carrier.detach(&place(&share));
                failed.push(failure(share.id, format!("failed to mount `{}`: {error}", path.display())));
            }
        }
    }
    failed
}

/// A place where something may be mounted: absolute, and no way around it.
fn target(bytes: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(bytes));
    let mut parts = path.components();
    let plain = parts.next() == Some(Component::RootDir) && parts.clone().next().is_some();
    (plain && parts.all(|part| matches!(part, Component::Normal(_)))).then(|| path.components().collect())
}

fn take_away(carrier: &dyn Carrier, path: &Path, place: &Path) {
    let _ = unmount(path, UnmountFlags::DETACH);
    carrier.detach(place);
}

fn bind(place: &Path, path: &Path, share: &Share) -> io::Result<()> {
    let mut source = place.to_owned();
    if share.file {
        source.push(path.file_name().unwrap_or_default());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Only to have something to mount on; what is there stays.
        if std::fs::symlink_metadata(path).is_err() {
            std::fs::File::create(path)?;
        }
    } else {
        std::fs::create_dir_all(path)?;
    }
    mount_bind(&source, path)?;
    if share.read_only {
        // The host refuses writes anyway; this way they fail early, and as on a disk that is read-only.
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        let _ = mount_remount(path, flags, c"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_places() {
        assert_eq!(target("/home/a b/ü".as_bytes()), Some(PathBuf::from("/home/a b/ü")));
        assert_eq!(target(b"/home/x/"), Some(PathBuf::from("/home/x")));
        for bad in ["", "/", "home", "/home/../etc", "../x"] {
            assert_eq!(target(bad.as_bytes()), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_guest_without_the_device_says_so_for_each_share() {
        let shares = Shares::new();
        if shares.can_be_had() {
            eprintln!("skipped: this machine has such a device");
            return;
        }
        let share = Share { id: "1".into(), path: b"/home/x".to_vec(), read_only: false, file: false };
        let state = shares.set(SetShares { shares: vec![share] }).await;
        assert_eq!(state.failed.len(), 1);
        assert!(state.failed[0].message.contains("no such device") && !state.events);
        assert!(shares.told(Duration::ZERO).await, "a boot does not wait for what will not come");
    }
}
