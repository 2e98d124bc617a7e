//! One virtio-fs device of QEMU's or Virtualization.framework's: each share is a folder of it.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, mount};
use slipway_protocol::v1::Share;

use super::{Carrier, DEVICE, DRIVER};

/// The device's tag.
const TAG: &str = "slipway";

#[derive(Debug)]
pub(super) struct Virtiofs;

impl Virtiofs {
    /// Is there a device? An older host gives none.
    pub(super) fn is_there() -> bool {
        let Ok(devices) = std::fs::read_dir("/sys/bus/virtio/devices") else { return false };
        devices.flatten().any(|device| {
            let kind = std::fs::read_to_string(device.path().join("device"));
            // File systems are virtio's device type 26.
            kind.is_ok_and(|kind| kind.trim() == "0x001a")
        })
    }
}

impl Carrier for Virtiofs {
    fn begin(&self) -> io::Result<()> {
        if mounted_at(DEVICE) {
            return Ok(());
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

    fn attach(&self, _share: &Share, _place: &Path) -> io::Result<()> {
        Ok(())
    }

    fn detach(&self, _place: &Path) {}

    fn answers(&self, _place: &Path) -> bool {
        // One device, which ends with the machine.
        true
    }
}

fn mounted_at(target: &str) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(1) == Some(target))
}
