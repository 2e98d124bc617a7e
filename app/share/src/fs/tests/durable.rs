//! What a guest is told to be on the disk is there after a crash. The crash is a copy of the disk as it is at that moment.

use std::{path::PathBuf, process::Command};

use super::*;

/// A file system on a disk of its own, which writes nothing by itself for five minutes.
struct Disk {
    dir: tempfile::TempDir,
}

fn run(program: &str, args: &[&std::ffi::OsStr]) -> Result<String, String> {
    let done = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    // e2fsck says with 1 that it has mended something.
    if done.status.success() || program == "e2fsck" && done.status.code() == Some(1) {
        Ok(said)
    } else {
        Err(format!("{program}: {said}{}", String::from_utf8_lossy(&done.stderr)))
    }
}

impl Disk {
    fn mounted() -> Result<Self, String> {
        let disk = Self { dir: tempfile::tempdir().expect("folder") };
        std::fs::create_dir(disk.root()).expect("makes");
        let image = disk.dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("makes");
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()])?;
        let options = "loop,commit=300";
        run("mount", &["-o".as_ref(), options.as_ref(), image.as_ref(), disk.root().as_ref()])?;
        Ok(disk)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// What a path says on the disk after a crash now; none when there is no such file.
    fn after_crash(&self, path: &str) -> Option<String> {
        let copy = self.dir.path().join("copy");
        std::fs::copy(self.dir.path().join("image"), &copy).expect("copies");
        run("e2fsck", &["-fy".as_ref(), copy.as_ref()]).expect("it can be mended");
        let there = run("debugfs", &["-R".as_ref(), format!("stat {path}").as_ref(), copy.as_ref()])
            .expect("debugfs");
        let says =
            run("debugfs", &["-R".as_ref(), format!("cat {path}").as_ref(), copy.as_ref()]).expect("debugfs");
        there.contains("Inode:").then_some(says)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // One that was never mounted has nothing to unmount.
        let _ = run("umount", &["-l".as_ref(), self.root().as_ref()]);
    }
}

#[test]
fn what_was_synced_survives_a_crash_and_what_was_not_does_not() {
    let disk = match Disk::mounted() {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: a disk cannot be mounted here: {why}");
            return;
        }
    };
    let (shares, _heard) = shares();
    shares.add("one", tree(&disk.root()), None).expect("adds");
    let root = walk(&shares, &["one"]).expect("there").inode;
    let flags = (libc::O_CREAT | libc::O_RDWR) as u32;
    let make = |file: &CStr| {
        let (entry, handle, _) =
            shares.create(who(0), root, file, 0o644, false, flags, 0, bare()).expect("creates");
        let path = disk.root().join(file.to_str().expect("text"));
        // Written by another way: who writes does not matter, only who syncs. Not cut first, or ext4 itself would hurry.
        let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
        std::io::Write::write_all(&mut file, b"safe").expect("writes");
        (entry.inode, handle.expect("a handle"))
    };
    let (kept, handle) = make(c"kept");
    make(c"lost");
    assert_ne!(disk.after_crash("/kept").as_deref(), Some("safe"), "nothing was synced yet");
    shares.fsync(who(0), kept, false, handle).expect("syncs");
    assert_eq!(disk.after_crash("/kept").as_deref(), Some("safe"));
    assert_ne!(disk.after_crash("/lost").as_deref(), Some("safe"), "it was synced by nobody");
    // A folder's sync keeps its names.
    shares.mkdir(who(0), root, c"folder", 0o755, 0, bare()).expect("makes");
    assert_eq!(disk.after_crash("/folder"), None);
    shares.fsyncdir(who(0), root, false, 0).expect("syncs");
    assert!(disk.after_crash("/folder").is_some());
}
