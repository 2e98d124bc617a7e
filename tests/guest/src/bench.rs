//! What file systems cost, measured in the guest: two devices in one guest, in turns, so that both meet the same noise.
//!
//! ```text
//!   /bench says how many pairs, and of which rows ─▶ mount both ─▶ `mounted` ─▶ wait for the peer's file `go` ─▶ `row NAME OURS PEER` (µs, interrupts) … ─▶ `done`
//! ```

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{FileExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::mount::{MountFlags, mount, mount_bind};

/// Before each measurement: what may be believed for a second only has to be asked for again, as between two commands of a
/// person.
const REST: Duration = Duration::from_millis(1500);
/// The big file.
const BIG: usize = 32 << 20;

type Work = fn(&Path) -> io::Result<Duration>;

const WORK: &[(&str, Work)] = &[
    ("stat of 2,000 files", stat),
    ("stat of 2,000 missing names", missing),
    ("list and stat all (as git status)", walk),
    ("open, read, close 2,000 files", read),
    ("create 300 files of 4 KiB", create),
    ("unpack 300 files (as tar)", unpack),
    ("remove 300 files", remove),
    ("write 32 MiB", write_big),
    ("read 32 MiB, nothing kept", read_cold),
    ("read 32 MiB again", read_big),
    ("write 4 KiB at 500 places", write_places),
    ("read 4 KiB at 500 places, nothing kept", read_places),
];

/// Measures; to be called with the modules loaded.
pub(crate) fn run() -> io::Result<()> {
    let asked = fs::read_to_string("/bench")?;
    let (pairs, rows) = asked.split_once(' ').unwrap_or((&asked, ""));
    let pairs: u32 = pairs.parse().map_err(io::Error::other)?;
    for (tag, place) in [("slipway", "/ours"), ("plain", "/peer")] {
        fs::create_dir_all(place)?;
        mount(tag, place, "virtiofs", MountFlags::empty(), None)?;
    }
    fs::create_dir_all("/proc")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    // Ours has the one export as a folder of its own, which the agent puts where it is on the host.
    let export = fs::read_dir("/ours")?.next().ok_or_else(|| io::Error::other("nothing is shared"))??.path();
    fs::metadata(export.join("tree"))?;
    let ours = PathBuf::from("/export");
    fs::create_dir_all(&ours)?;
    mount_bind(&export, &ours)?;
    println!("mounted");
    let peer = PathBuf::from("/peer");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !peer.join("go").exists() {
        if Instant::now() > deadline {
            return Err(io::Error::other("nobody said go"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    for (name, work) in WORK.iter().filter(|(name, _)| name.contains(rows)) {
        // What is loaded once is not what is compared, nor what was seen before the watcher was there.
        for _ in 0..2 {
            work(&ours)?;
            work(&peer)?;
            thread::sleep(REST);
        }
        for pair in 0..pairs {
            let (mut took, mut told) = ([Duration::ZERO; 2], [0; 2]);
            // The one that goes first changes from pair to pair.
            for turn in 0..2 {
                let side = ((pair + turn) % 2) as usize;
                thread::sleep(REST);
                let before = interrupts(side)?;
                took[side] = work([&ours, &peer][side])?;
                told[side] = interrupts(side)? - before;
            }
            let [mine, theirs] = took.map(|took| took.as_micros());
            println!("row {name}\t{mine}\t{theirs}\t{}\t{}", told[0], told[1]);
        }
    }
    println!("done");
    Ok(())
}

/// How often a device has interrupted so far: each time for an answer, or for several at once. Ours is the first device.
fn interrupts(device: usize) -> io::Result<u64> {
    let all = fs::read_to_string("/proc/interrupts")?;
    let queue = format!("virtio{device}-");
    let lines =
        all.lines().filter(|line| line.split_whitespace().last().is_some_and(|it| it.starts_with(&queue)));
    Ok(lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

fn timed(act: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

fn files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let tree = root.join("tree");
    (0..2000).map(move |n| tree.join(format!("folder {}/file {n}", n / 40)))
}

fn stat(root: &Path) -> io::Result<Duration> {
    let files: Vec<PathBuf> = files(root).collect();
    timed(|| files.iter().try_for_each(|file| fs::symlink_metadata(file).map(drop)))
}

fn missing(root: &Path) -> io::Result<Duration> {
    let files: Vec<PathBuf> = files(root).map(|file| file.with_extension("missing")).collect();
    timed(|| {
        let there = files.iter().find(|file| file.exists());
        there.map_or(Ok(()), |file| Err(io::Error::other(format!("{} is there", file.display()))))
    })
}

fn walk(root: &Path) -> io::Result<Duration> {
    timed(|| {
        let mut seen = 0;
        let mut below = vec![root.join("tree")];
        while let Some(folder) = below.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if fs::symlink_metadata(&path)?.is_dir() {
                    below.push(path);
                } else {
                    seen += 1;
                }
            }
        }
        if seen == 2000 { Ok(()) } else { Err(io::Error::other(format!("{seen} files"))) }
    })
}

fn read(root: &Path) -> io::Result<Duration> {
    let files: Vec<PathBuf> = files(root).collect();
    timed(|| files.iter().try_for_each(|file| fs::read(file).map(drop)))
}

fn make(folder: &Path) -> io::Result<()> {
    (0..300).try_for_each(|n| fs::write(folder.join(n.to_string()), [7; 4096]))
}

fn create(root: &Path) -> io::Result<Duration> {
    let folder = root.join("new");
    fs::create_dir(&folder)?;
    let took = timed(|| make(&folder))?;
    fs::remove_dir_all(folder)?;
    Ok(took)
}

/// With owner, mode and time of each, as root's tar sets them.
fn unpack(root: &Path) -> io::Result<Duration> {
    let folder = root.join("unpacked");
    let took = timed(|| {
        (0..300).try_for_each(|n| {
            let below = folder.join(format!("folder {}", n / 30));
            if n % 30 == 0 {
                fs::create_dir_all(&below)?;
            }
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).open(below.join(n.to_string()))?;
            file.write_all(&[7; 4096])?;
            fchown(&file, Some(0), Some(0))?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        })
    })?;
    fs::remove_dir_all(folder)?;
    Ok(took)
}

fn remove(root: &Path) -> io::Result<Duration> {
    let folder = root.join("old");
    fs::create_dir(&folder)?;
    make(&folder)?;
    let took = timed(|| (0..300).try_for_each(|n| fs::remove_file(folder.join(n.to_string()))))?;
    fs::remove_dir(folder)?;
    Ok(took)
}

fn write_big(root: &Path) -> io::Result<Duration> {
    let piece = vec![7; 1 << 20];
    timed(|| {
        let mut file = fs::File::create(root.join("big"))?;
        (0..BIG >> 20).try_for_each(|_| file.write_all(&piece))
    })
}

fn read_big(root: &Path) -> io::Result<Duration> {
    let mut piece = vec![0; 1 << 20];
    timed(|| {
        let mut file = fs::File::open(root.join("big"))?;
        let mut left = BIG;
        while left > 0 {
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
        }
        Ok(())
    })
}

fn read_cold(root: &Path) -> io::Result<Duration> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    read_big(root)
}

/// The same places each time, in no order.
fn places() -> impl Iterator<Item = u64> {
    let mut at: u32 = 1;
    (0..500).map(move |_| {
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u64::from(at >> 8) % (BIG as u64 / 4096) * 4096
    })
}

fn write_places(root: &Path) -> io::Result<Duration> {
    let file = fs::OpenOptions::new().write(true).open(root.join("big"))?;
    timed(|| places().try_for_each(|place| file.write_all_at(&[7; 4096], place)))
}

fn read_places(root: &Path) -> io::Result<Duration> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let file = fs::File::open(root.join("big"))?;
    let mut piece = [0; 4096];
    timed(|| places().try_for_each(|place| file.read_exact_at(&mut piece, place)))
}
