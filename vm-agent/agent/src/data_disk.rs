//! The data disk: everything that a person keeps lives on it, so it is formatted only when it is blank.
//!
//! ```text
//!            ┌─ ext4 magic ──▶ dirty? ─▶ e2fsck -p ──▶ mount ─▶ grown? resize2fs
//! look at it ┼─ blank ───────▶ mkfs.ext4 ────────────▶ mount
//!            └─ anything else ▶ refused, untouched
//! ```
//!
//! Blank means more than an empty first sector: a disk whose beginning was wiped still has ext4's backup superblocks,
//! and those make it a damaged disk, not a new one.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::mount::{MountFlags, mount};

use crate::{
    emulation,
    reaper::{Exit, Reaper},
};

/// ext4's superblock lies here, 1,024 bytes long.
const SUPERBLOCK: u64 = 1024;
/// Bytes looked at, at the beginning and at each place where a backup would be.
const LOOK: usize = 64 << 10;
/// A group of 4-KiB blocks; `sparse_super` keeps backups in groups 1 and powers of 3, 5 and 7.
const GROUP: u64 = 128 << 20;
const BACKUPS: [u64; 8] = [1, 3, 5, 7, 9, 25, 27, 49];
/// A check or a format of a large disk on a slow host.
const LIMIT: Duration = Duration::from_secs(600);

/// The data disk cannot be used. It was left as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// It did not appear.
    #[error("the data disk is not attached")]
    Missing,
    /// It could not be read.
    #[error("failed to read the data disk: {0}")]
    Read(io::Error),
    /// It holds something that is no ext4 file system.
    #[error(
        "the data disk is damaged or is not Slipway's: its beginning is no file system, but it is not blank; \
         it was left untouched"
    )]
    Foreign,
    /// A program said no; its words.
    #[error("{what}; the data disk was left as it is: {said}")]
    Tool {
        /// The act that failed.
        what: &'static str,
        /// The program's words.
        said: String,
    },
    /// It could not be mounted.
    #[error("failed to mount the data disk: {0}")]
    Mount(io::Error),
}

/// What a look at the disk told.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Blank,
    Ext4 { clean: bool, bytes: u64 },
    Foreign,
}

/// Makes the disk ready and mounts it on `target`; says what was done.
pub(crate) async fn prepare(device: &Path, target: &Path, reaper: &Reaper) -> Result<String, DiskError> {
    let file = File::open(device).map_err(DiskError::Read)?;
    let size = size_of_device(&file).map_err(DiskError::Read)?;
    let mut done = Vec::new();
    let bytes = match look(&file, size).map_err(DiskError::Read)? {
        Found::Foreign => return Err(DiskError::Foreign),
        Found::Blank => {
            // Tables are written when they are first needed: a new disk of any size is ready at once.
            let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
            let mut mkfs = Command::new("/usr/sbin/mkfs.ext4");
            mkfs.args(["-q", "-F", "-m", "0", "-b", "4096", "-L", "slipway-data", "-E", options]).arg(device);
            run(reaper, &mut mkfs, "failed to format the new data disk", |code| code == 0).await?;
            done.push("formatted");
            size
        }
        Found::Ext4 { clean: true, bytes } => bytes,
        Found::Ext4 { clean: false, bytes } => {
            let mut fsck = Command::new("/usr/sbin/e2fsck");
            fsck.arg("-p").arg(device);
            // 1: repaired; 2: repaired, and mounted disks would want a reboot, but this one is not mounted.
            run(reaper, &mut fsck, "the data disk did not pass its check", |code| code <= 2).await?;
            done.push("checked");
            bytes
        }
    };
    drop(file);
    let flags = MountFlags::NOATIME;
    mount(device, target, "ext4", flags, Some(c"discard")).map_err(|e| DiskError::Mount(e.into()))?;
    // Smaller differences are what a whole number of blocks leaves over.
    if size > bytes.saturating_add(GROUP / 2) {
        let mut resize = Command::new("/usr/sbin/resize2fs");
        run(reaper, resize.arg(device), "failed to grow the file system of the data disk", |c| c == 0)
            .await?;
        done.push("grown");
    }
    Ok(done.join(", "))
}

async fn run(
    reaper: &Reaper,
    command: &mut Command,
    what: &'static str,
    fine: fn(i32) -> bool,
) -> Result<(), DiskError> {
    match reaper.run_to_end(command, LIMIT).await {
        Ok(output) if matches!(output.exit, Exit::Code(code) if fine(code)) => Ok(()),
        Ok(output) => {
            Err(DiskError::Tool { what, said: format!("{} ({})", output.text.trim(), output.exit) })
        }
        Err(error) => Err(DiskError::Tool { what, said: error.to_string() }),
    }
}

fn size_of_device(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    (&*file).seek(SeekFrom::End(0))
}

fn look(file: &File, size: u64) -> io::Result<Found> {
    let mut start = vec![0u8; LOOK];
    let count = file.read_at(&mut start, 0)?;
    start.truncate(count);
    if let Some(found) = start.get(SUPERBLOCK as usize..).and_then(ext4) {
        return Ok(found);
    }
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if !is_zero(&start) {
        return Ok(Found::Foreign);
    }
    let mut piece = vec![0u8; LOOK];
    let ends = [size.saturating_sub(LOOK as u64)];
    for at in BACKUPS.iter().map(|group| group * GROUP).chain(ends).filter(|at| *at < size) {
        let count = file.read_at(&mut piece, at)?;
        if !is_zero(&piece[..count]) {
            return Ok(Found::Foreign);
        }
    }
    Ok(Found::Blank)
}

/// Reads an ext4 superblock; `None` when it is none.
fn ext4(superblock: &[u8]) -> Option<Found> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(superblock.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(superblock.get(at..at + 4)?.try_into().ok()?));
    if u16_at(0x38)? != 0xEF53 {
        return None;
    }
    let state = u16_at(0x3A)?;
    let incompatible = u32_at(0x60)?;
    // Unmounted in order, no error remembered, and no journal to replay.
    let clean = state & 0x3 == 1 && incompatible & 0x4 == 0;
    let block = 1024u64.checked_shl(u32_at(0x18)?)?;
    let high = if incompatible & 0x80 != 0 { u64::from(u32_at(0x150)?) << 32 } else { 0 };
    Some(Found::Ext4 { clean, bytes: (u64::from(u32_at(0x04)?) | high).saturating_mul(block) })
}

/// A disk of the machine: what the host calls it, and where it is on Hyper-V's controller, whose disks have no names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostDisk {
    serial: &'static str,
    unit: u32,
}

/// The image.
pub(crate) const ROOT: HostDisk = HostDisk { serial: "root", unit: 0 };
/// What a person keeps.
pub(crate) const DATA: HostDisk = HostDisk { serial: "data", unit: 1 };

/// The device of a disk, once it is there.
pub(crate) fn of_host(disk: HostDisk) -> Option<PathBuf> {
    let name = by_serial(Path::new("/sys/block"), disk.serial).or_else(|| {
        // Only there: a disk that happens to be in that place elsewhere is not the machine's.
        emulation::is_hyperv().then(|| by_unit(Path::new("/sys/bus/scsi/devices"), disk.unit)).flatten()
    })?;
    Some(Path::new("/dev").join(name)).filter(|device| device.exists())
}

/// The disk that has the serial number: virtio's `vda`, …
fn by_serial(blocks: &Path, serial: &str) -> Option<OsString> {
    std::fs::read_dir(blocks).ok()?.flatten().find_map(|entry| {
        let said = std::fs::read_to_string(entry.path().join("serial")).ok()?;
        (said.trim() == serial).then(|| entry.file_name())
    })
}

/// The disk that is this unit of the first target of a SCSI controller: `sda`, …, named as they are found, not as they are attached.
fn by_unit(devices: &Path, unit: u32) -> Option<OsString> {
    let place = format!(":0:0:{unit}");
    std::fs::read_dir(devices).ok()?.flatten().find_map(|entry| {
        if !entry.file_name().to_string_lossy().ends_with(&place) {
            return None;
        }
        let mut blocks = std::fs::read_dir(entry.path().join("block")).ok()?;
        Some(blocks.next()?.ok()?.file_name())
    })
}

/// Gives the host back what is free on the file system at `mounted`; the bytes that were.
pub(crate) fn trim(mounted: &Path) -> io::Result<u64> {
    #[repr(C)]
    struct Range {
        start: u64,
        length: u64,
        minimum: u64,
    }
    const FITRIM: libc::Ioctl = 0xC018_5879_u32 as libc::Ioctl;
    let dir = File::open(mounted)?;
    // What was deleted a moment ago is free only when the journal says so.
    rustix::fs::syncfs(&dir)?;
    let mut range = Range { start: 0, length: u64::MAX, minimum: 0 };
    // SAFETY: the request reads and writes one `fstrim_range`, which is what `Range` lays out.
    if unsafe { libc::ioctl(dir.as_raw_fd(), FITRIM, &raw mut range) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(range.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(size: u64) -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().expect("file");
        file.as_file().set_len(size).expect("sparse");
        let open = file.reopen().expect("opens");
        (file, open)
    }

    #[test]
    fn a_disk_is_found_by_its_serial_number_or_its_place() {
        let sys = tempfile::tempdir().expect("folder");
        let put = |path: &str, text: &str| {
            let path = sys.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let blocks = sys.path().join("block");
        for (name, serial) in [("vda", "data\n"), ("vdb", "root\n"), ("vdc", "other")] {
            put(&format!("block/{name}/serial"), serial);
        }
        put("block/loop0/size", "0");
        assert_eq!(by_serial(&blocks, "root").as_deref(), Some("vdb".as_ref()));
        assert_eq!(by_serial(&blocks, "none"), None);
        assert_eq!(by_serial(&sys.path().join("nothing"), "root"), None);

        // As the kernel names them: the second that is attached may be found first.
        let devices = sys.path().join("scsi");
        put("scsi/0:0:0:1/block/sda/size", "2");
        put("scsi/0:0:0:0/block/sdb/size", "1");
        put("scsi/0:0:0:11/block/sdc/size", "1");
        put("scsi/0:0:1:0/block/sdd/size", "1");
        put("scsi/host0/scsi_host/name", "");
        put("scsi/target0:0:0/uevent", "");
        assert_eq!(by_unit(&devices, ROOT.unit).as_deref(), Some("sdb".as_ref()));
        assert_eq!(by_unit(&devices, DATA.unit).as_deref(), Some("sda".as_ref()));
        assert_eq!(by_unit(&devices, 2), None, "not there yet");
    }

    #[test]
    fn only_zeroes_everywhere_are_blank() {
        let size = 8 << 30;
        let (_kept, file) = disk(size);
        assert_eq!(look(&file, size).expect("reads"), Found::Blank);
        for at in [0, 511, 40_000, GROUP, 3 * GROUP + 1024, 49 * GROUP + 1080, size - 1] {
            let (_kept, file) = disk(size);
            file.write_at(&[1], at).expect("writes");
            assert_eq!(look(&file, size).expect("reads"), Found::Foreign, "a byte at {at}");
        }
    }

    #[test]
    fn a_real_file_system_is_known_and_known_again_when_its_beginning_is_wiped() {
        let size = 1 << 30;
        let (kept, file) = disk(size);
        let made =
            Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F", "-b", "4096"]).arg(kept.path()).status();
        let Ok(made) = made else {
            eprintln!("skipped: /usr/sbin/mkfs.ext4 is not installed");
            return;
        };
        assert!(made.success());
        assert_eq!(look(&file, size).expect("reads"), Found::Ext4 { clean: true, bytes: size });
        let mut state = [0u8; 2];
        file.read_exact_at(&mut state, SUPERBLOCK + 0x3A).expect("reads");
        file.write_at(&[0, 0], SUPERBLOCK + 0x3A).expect("writes");
        assert_eq!(look(&file, size).expect("reads"), Found::Ext4 { clean: false, bytes: size });
        file.write_at(&vec![0; 4 << 20], 0).expect("wipes");
        assert_eq!(look(&file, size).expect("reads"), Found::Foreign);
    }
}
