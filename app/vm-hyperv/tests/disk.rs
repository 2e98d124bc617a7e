//! The data disk, against a `virtdisk.dll` that plays its part (`tests/windows/virtdisk.c`), which `tests/windows/run` puts where Windows
//! has its own.
#![cfg(windows)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use slipway_vm_hyperv::disk::{self, DiskError};

const GIB: u64 = 1 << 30;

/// A folder and a disk's name; `None`: this run has no library that makes disks.
fn stage() -> Option<(tempfile::TempDir, PathBuf)> {
    if std::env::var_os("SLIPWAY_TEST_HCS").is_none() {
        println!("skipped: no tests/windows/run, which has a virtdisk.dll that makes disks");
        return None;
    }
    let dir = tempfile::tempdir().expect("folder");
    let disk = dir.path().join("data.vhdx");
    Some((dir, disk))
}

/// Refuses a call for a disk by Windows' number.
fn refuse(disk: &Path, call: &str, code: u32) {
    let mut name = disk.as_os_str().to_owned();
    name.push(".refuse");
    fs::write(name, format!("{call} {code}")).expect("written");
}

/// What is in the folder besides what this test put there.
fn left(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("read").map(|e| e.expect("entry").file_name().into_string());
    names.map(|name| name.expect("text")).filter(|name| !name.ends_with(".refuse")).collect()
}

#[test]
fn a_disk_is_made_and_grown_and_never_made_smaller() {
    let Some((dir, path)) = stage() else { return };
    assert!(disk::size(&path).is_err(), "there is none");
    // Not a whole number of anything.
    disk::prepare(&path, 20_000_000_001).expect("made");
    let made = disk::size(&path).expect("asked");
    assert!(made >= 20_000_000_001 && made.is_multiple_of(1 << 20), "{made}");
    assert_eq!(left(dir.path()), ["data.vhdx"]);
    assert!(fs::metadata(&path).expect("there").len() < 1 << 20, "it takes room as it is written to");
    disk::prepare(&path, 10 * GIB).expect("as it is");
    assert_eq!(disk::size(&path).expect("asked"), made);
    disk::prepare(&path, 40 * GIB).expect("grown");
    assert_eq!(disk::size(&path).expect("asked"), 40 * GIB);
    let error = disk::prepare(&path, u64::MAX).expect_err("more than there can be");
    assert!(matches!(error, DiskError::TooLarge), "{error}");
}

#[test]
fn what_is_no_disk_is_left_as_it_is() {
    let Some((_dir, path)) = stage() else { return };
    fs::write(&path, "a letter").expect("written");
    let error = disk::prepare(&path, GIB).expect_err("no disk");
    assert!(matches!(&error, DiskError::Failed { call: "OpenVirtualDisk", .. }), "{error}");
    assert_eq!(fs::read(&path).expect("read"), b"a letter");
}

#[test]
fn what_a_crash_left_half_made_is_made_anew() {
    let Some((dir, path)) = stage() else { return };
    fs::write(dir.path().join("data.new.vhdx"), "half").expect("written");
    disk::prepare(&path, GIB).expect("made");
    assert_eq!(left(dir.path()), ["data.vhdx"]);
    assert_eq!(disk::size(&path).expect("asked"), GIB);
}

#[test]
fn a_disk_that_cannot_be_made_leaves_nothing_and_says_why() {
    let Some((dir, path)) = stage() else { return };
    let aside = dir.path().join("data.new.vhdx");
    refuse(&aside, "CreateVirtualDisk", 112);
    let error = disk::prepare(&path, GIB).expect_err("no room");
    assert!(error.is_full() && error.to_string().contains("CreateVirtualDisk"), "{error}");
    assert!(left(dir.path()).is_empty(), "{:?}", left(dir.path()));
    refuse(&aside, "CreateVirtualDisk", 0xC03A_001A);
    let error = disk::prepare(&path, GIB).expect_err("compressed");
    assert!(!error.is_full() && error.to_string().contains("encrypted or compressed"), "{error}");
    assert!(left(dir.path()).is_empty(), "{:?}", left(dir.path()));
}

#[test]
fn a_disk_that_a_machine_has_is_measured_and_not_touched() {
    let Some((_dir, path)) = stage() else { return };
    disk::prepare(&path, GIB).expect("made");
    // Held as a machine holds it: others may look.
    use std::os::windows::fs::OpenOptionsExt;
    const SHARE_READ: u32 = 1;
    let held = fs::File::options().read(true).write(true).share_mode(SHARE_READ).open(&path).expect("held");
    assert_eq!(disk::size(&path).expect("asked"), GIB);
    let error = disk::prepare(&path, 2 * GIB).expect_err("it is in use");
    assert!(matches!(&error, DiskError::Failed { call: "OpenVirtualDisk", .. }), "{error}");
    drop(held);
    assert_eq!(disk::size(&path).expect("asked"), GIB);
}
