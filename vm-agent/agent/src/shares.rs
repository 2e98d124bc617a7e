//! The host's folders: the device that carries them all, and each of them where it is on the host.
//!
//! ```text
//!   host: SetShares ─▶ mount the device (once) ─▶ unmount what is no longer shared ─▶ bind what is new ─▶ SharesState
//!                                                     boot: the engine starts after the first of these
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use slipway_protocol::v1::{Failure, SetShares, Share, SharesState};
use tokio::{sync::watch, time::timeout};

use crate::file_events::{FileEvents, Root};

/// Where the device is mounted; no container has a reason to look there.
const DEVICE: &str = "/run/slipway/share";
/// The device's tag.
const TAG: &str = "slipway";
/// How long the device's driver may take to appear after the agent was asked.
const DRIVER: Duration = Duration::from_secs(10);

/// What is shared with this guest.
#[derive(Debug)]
pub struct Shares {
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
    /// Nothing is shared yet.
    pub fn new() -> Self {
        Self { mounted: Arc::default(), told: watch::Sender::new(false), events: Arc::default() }
    }

    /// Is there a device at all? An older host gives none.
    pub fn has_device() -> bool {
        let Ok(devices) = std::fs::read_dir("/sys/bus/virtio/devices") else { return false };
        devices.flatten().any(|device| {
            let kind = std::fs::read_to_string(device.path().join("device"));
            // File systems are virtio's device type 26.
            kind.is_ok_and(|kind| kind.trim() == "0x001a")
        })
    }

    /// Waits until the host has said what is shared; false when it did not in time. Cancel-safe.
    pub async fn told(&self, patience: Duration) -> bool {
        let mut told = self.told.subscribe();
        timeout(patience, told.wait_for(|told| *told)).await.is_ok_and(|told| told.is_ok())
    }

    /// Shares exactly this from now on.
    pub async fn set(&self, wanted: SetShares) -> SharesState {
        let (mounted, events) = (Arc::clone(&self.mounted), Arc::clone(&self.events));
        let done = tokio::task::spawn_blocking(move || {
            let mut mounted = mounted.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = apply(&mut mounted, wanted.shares);
            let root = |(path, share): (&PathBuf, &Share)| {
                let root = Root::open(&Path::new(DEVICE).join(&share.id), share.file).ok()?;
                Some((path.clone(), root))
            };
            events.set_roots(mounted.iter().filter_map(root).collect());
            failed
        })
        .await;
        let failed = done.unwrap_or_else(|error| vec![failure(String::new(), error.to_string())]);
        self.told.send_replace(true);
        if Self::has_device() {
            self.events.settled(DRIVER).await;
        }
        let why_not = self.events.why_not();
        SharesState { failed, events: why_not.is_none(), events_reason: why_not.unwrap_or_default() }
    }
}

fn failure(code: String, message: String) -> Failure {
    Failure { code, message, hint: String::new() }
}

fn apply(mounted: &mut BTreeMap<PathBuf, Share>, shares: Vec<Share>) -> Vec<Failure> {
    if let Err(error) = device() {
        let why = format!("failed to mount the host's folders: {error}");
        return shares.into_iter().map(|share| failure(share.id, why.clone())).collect();
    }
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
        let _ = unmount(&path, UnmountFlags::DETACH);
        mounted.remove(&path);
    }
    // In the order of paths: what is above comes before what is below.
    for (path, share) in wanted {
        if mounted.contains_key(&path) {
            continue;
        }
        match bind(&path, &share) {
            Ok(()) => drop(mounted.insert(path, share)),
            Err(error) => {
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

fn device() -> io::Result<()> {
    if mounted_at(DEVICE) {
        return Ok(());
    }
    if !Shares::has_device() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the machine has no such device"));
    }
    std::fs::create_dir_all(DEVICE)?;
    let deadline = Instant::now() + DRIVER;
    loop {
        match mount(TAG, DEVICE, "virtiofs", MountFlags::NOSUID | MountFlags::NODEV, None) {
            Ok(()) => return Ok(()),
            // Its module is loaded with the network's, meanwhile.
            Err(rustix::io::Errno::NODEV | rustix::io::Errno::INVAL) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn mounted_at(target: &str) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(1) == Some(target))
}

fn bind(path: &Path, share: &Share) -> io::Result<()> {
    let mut source = Path::new(DEVICE).join(&share.id);
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
        if Shares::has_device() {
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
