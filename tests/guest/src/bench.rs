//! What file systems cost, measured in one container that has them all, in turns, so that each meets the same noise.
//!
//! `bench ROUNDS COUNT ROWS NAME=FOLDER...`: of each row with ROWS in its name that many rounds, in each of these folders, with
//! COUNT files where a row is about many. Prints `row NAME`, and of each folder microseconds and how often its device has
//! interrupted meanwhile; then, from one round more, `asked NAME`, a side's name, and the requests that it made: all with tabs
//! between.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

mod requests;

/// Before each measurement: what may be believed for a second only has to be asked for again, as between two commands of a
/// person.
const REST: Duration = Duration::from_millis(1500);
/// Files of a tree in one folder.
const EACH: usize = 40;
/// The big file.
const BIG: usize = 32 << 20;
/// In the image, where there is one: a project with its lock, npm and npm's cache.
const NPM: &str = "/npm";
/// Made here: what is unpacked.
const ARCHIVE: &str = "/tmp/archive.tar";

/// In a folder, with that many files.
type Work = fn(&Path, usize) -> io::Result<Duration>;

const WORK: &[(&str, Work)] = &[
    ("stat of every file", stat),
    ("stat of as many missing names", missing),
    ("list and stat all", walk),
    ("open, read, close every file", read),
    ("create files of 4 KiB", create),
    ("remove them", remove),
    ("write 32 MiB", |root, _| write_big(root)),
    ("read 32 MiB, nothing kept", |root, _| read_cold(root)),
    ("read 32 MiB again", |root, _| read_big(root)),
    ("write 4 KiB at 500 places", |root, _| write_places(root)),
    ("read 4 KiB at 500 places, nothing kept", |root, _| read_places(root)),
    ("tar -x, 300 files", |root, _| untar(root)),
    ("git status, nothing kept", |root, _| git_cold(root)),
    ("git status again", |root, _| git(root)),
    ("npm ci", |root, _| npm(root)),
];

/// What is measured in one folder.
struct Side {
    name: String,
    root: PathBuf,
    /// Its device's name among interrupts, where it has one.
    device: Option<String>,
}

/// Measures.
pub(crate) fn run(words: &[&str]) -> io::Result<()> {
    let [rounds, count, rows, sides @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
    let [rounds, count]: [usize; 2] = [number(rounds)?, number(count)?];
    let sides: Vec<Side> = sides.iter().map(|side| Side::of(side)).collect::<io::Result<_>>()?;
    for side in &sides {
        tree(&side.root, count)?;
    }
    archive(&sides[0].root)?;
    println!("ready");
    for (name, work) in WORK.iter().filter(|(name, _)| name.contains(rows)) {
        // What is loaded once is not what is compared, nor what was seen before the watcher was there.
        for side in &sides {
            work(&side.root, count)?;
        }
        for round in 0..rounds {
            let mut measured = vec![(Duration::ZERO, 0); sides.len()];
            // The one that goes first changes from round to round.
            for turn in 0..sides.len() {
                let at = (round + turn) % sides.len();
                let side = &sides[at];
                thread::sleep(REST);
                let before = side.interrupts()?;
                let took = work(&side.root, count)?;
                measured[at] = (took, side.interrupts()? - before);
            }
            let numbers = measured.iter().map(|(took, told)| format!("\t{}\t{told}", took.as_micros()));
            println!("row {name}{}", numbers.collect::<String>());
        }
        for side in sides.iter().filter(|side| side.device.is_some()) {
            thread::sleep(REST);
            let asked = requests::asked(|| work(&side.root, count).map(drop))?;
            println!("asked {name}\t{}\t{asked}", side.name);
        }
    }
    println!("done");
    Ok(())
}

fn number(word: &str) -> io::Result<usize> {
    word.parse().map_err(io::Error::other)
}

impl Side {
    /// `virtiofs` mounts are devices in the order in which the machine has them: ours is the first, then the peer's.
    fn of(word: &str) -> io::Result<Self> {
        let (name, root) = word.split_once('=').ok_or(io::ErrorKind::InvalidInput)?;
        let place = match name {
            "slipway" => Some(0),
            "virtiofsd" => Some(1),
            _ => None,
        };
        let mut devices: Vec<(u32, String)> = fs::read_dir("/sys/bus/virtio/drivers/virtiofs")?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Some((name.strip_prefix("virtio")?.parse().ok()?, name)))
            .collect();
        devices.sort_unstable();
        let device = place.and_then(|place: usize| devices.get(place)).map(|(_, name)| name.clone());
        Ok(Self { name: name.to_owned(), root: root.into(), device })
    }

    /// How often the device has interrupted so far: each time for an answer, or for several at once.
    fn interrupts(&self) -> io::Result<u64> {
        let Some(device) = &self.device else { return Ok(0) };
        let all = fs::read_to_string("/proc/interrupts")?;
        let queue = format!("{device}-");
        let lines = all
            .lines()
            .filter(|line| line.split_whitespace().last().is_some_and(|it| it.starts_with(&queue)));
        let count = |line: &str| {
            let counts = line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
            counts.sum::<u64>()
        };
        Ok(lines.map(count).sum())
    }
}

/// Where the files of a tree are.
fn files(root: &Path, count: usize) -> impl Iterator<Item = PathBuf> {
    let tree = root.join("tree");
    (0..count).map(move |n| tree.join(format!("folder {}/file {n}", n / EACH)))
}

fn tree(root: &Path, count: usize) -> io::Result<()> {
    for (number, file) in files(root, count).enumerate() {
        if number % EACH == 0 {
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
        }
        fs::write(file, [7; 4096])?;
    }
    fs::write(root.join("big"), vec![7; BIG])
}

fn tar(words: &[&str]) -> io::Result<()> {
    quiet(Command::new("tar").args(words))
}

/// Runs a program that has nothing to say that matters here.
fn quiet(command: &mut Command) -> io::Result<()> {
    let ran = command.stdin(Stdio::null()).output()?;
    if ran.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&ran.stderr))))
}

fn archive(root: &Path) -> io::Result<()> {
    let folder = root.join("packed");
    for below in 0..10 {
        let below = folder.join(format!("folder {below}"));
        fs::create_dir_all(&below)?;
        (0..30).try_for_each(|n| fs::write(below.join(n.to_string()), [7; 4096]))?;
    }
    tar(&["-c", "-f", ARCHIVE, "-C", &folder.to_string_lossy(), "."])?;
    fs::remove_dir_all(folder)
}

fn timed(act: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

fn stat(root: &Path, count: usize) -> io::Result<Duration> {
    let files: Vec<PathBuf> = files(root, count).collect();
    timed(|| files.iter().try_for_each(|file| fs::symlink_metadata(file).map(drop)))
}

fn missing(root: &Path, count: usize) -> io::Result<Duration> {
    let files: Vec<PathBuf> = files(root, count).map(|file| file.with_extension("missing")).collect();
    timed(|| {
        let there = files.iter().find(|file| file.exists());
        there.map_or(Ok(()), |file| Err(io::Error::other(format!("{} is there", file.display()))))
    })
}

fn walk(root: &Path, count: usize) -> io::Result<Duration> {
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
        if seen == count { Ok(()) } else { Err(io::Error::other(format!("{seen} files"))) }
    })
}

fn read(root: &Path, count: usize) -> io::Result<Duration> {
    let files: Vec<PathBuf> = files(root, count).collect();
    timed(|| files.iter().try_for_each(|file| fs::read(file).map(drop)))
}

fn make(folder: &Path, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|n| fs::write(folder.join(n.to_string()), [7; 4096]))
}

fn create(root: &Path, count: usize) -> io::Result<Duration> {
    let folder = root.join("new");
    fs::create_dir(&folder)?;
    let took = timed(|| make(&folder, count))?;
    fs::remove_dir_all(folder)?;
    Ok(took)
}

/// As root's tar does it: with owner, mode and time of each.
fn untar(root: &Path) -> io::Result<Duration> {
    let folder = root.join("unpacked");
    fs::create_dir(&folder)?;
    let took = timed(|| tar(&["-x", "-f", ARCHIVE, "-C", &folder.to_string_lossy()]))?;
    fs::remove_dir_all(folder)?;
    Ok(took)
}

/// In a repository that the host has put there.
fn git(root: &Path) -> io::Result<Duration> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root.join("repository")).args(["-c", "safe.directory=*", "status", "--porcelain"]);
    timed(|| quiet(&mut git))
}

fn git_cold(root: &Path) -> io::Result<Duration> {
    drop_caches()?;
    git(root)
}

/// Puts a project's packages where they belong, from npm's own cache.
fn npm(root: &Path) -> io::Result<Duration> {
    let folder = root.join("project");
    fs::create_dir(&folder)?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(Path::new(NPM).join(name), folder.join(name))?;
    }
    let mut npm = Command::new("node");
    npm.arg(format!("{NPM}/cli/bin/npm-cli.js")).args([
        "ci",
        "--offline",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]);
    npm.arg(format!("--cache={NPM}/cache")).current_dir(&folder);
    let took = timed(|| quiet(&mut npm))?;
    fs::remove_dir_all(folder)?;
    Ok(took)
}

fn remove(root: &Path, count: usize) -> io::Result<Duration> {
    let folder = root.join("old");
    fs::create_dir(&folder)?;
    make(&folder, count)?;
    let took = timed(|| (0..count).try_for_each(|n| fs::remove_file(folder.join(n.to_string()))))?;
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

fn drop_caches() -> io::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3")
}

fn read_cold(root: &Path) -> io::Result<Duration> {
    drop_caches()?;
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
    drop_caches()?;
    let file = fs::File::open(root.join("big"))?;
    let mut piece = [0; 4096];
    timed(|| places().try_for_each(|place| file.read_exact_at(&mut piece, place)))
}
