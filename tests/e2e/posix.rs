//! What programs need of a file system beyond reading and writing, on a share: the same program does the same on the host
//! and in a container, and must say the same; and two containers meet in one file.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_test_harness::{Command, Home, Running};

use crate::{Shared, events::program};

pub(crate) const TESTS: &[Shared] = &[
    ("posix_what_programs_do_ends_as_it_does_on_the_host", as_on_the_host),
    ("posix_locks_hold_between_containers", locks),
    ("posix_memory_of_a_file_is_shared_between_containers", memory),
    ("posix_a_write_is_one_request", one_request),
    ("posix_a_folder_of_100000_files_is_listed_whole", many),
];

const FILES: usize = 100_000;

fn folder(home: &Home, name: &str) -> PathBuf {
    let dir = home.path().join("posix").join(name);
    fs::create_dir_all(&dir).expect("made");
    dir
}

/// The tests' program in a container with `dir` at `/x`.
pub(crate) fn posix(home: &Home, dir: &Path, words: &[&str]) -> Command {
    let binds = [format!("{}:/x", dir.display()), format!("{}:/posix:ro", program(home).display())];
    let run = [
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "-v",
        &binds[0],
        "-v",
        &binds[1],
        "box",
        "/posix",
        "posix",
    ];
    home.docker(run).args(words)
}

fn as_on_the_host(home: &Home) {
    let (dir, native) = (folder(home, "as on the host"), folder(home, "native"));
    let wanted = Command::new(program(home)).arg("posix").arg(&native).run().ok().text();
    let found = posix(home, &dir, &["/x"]).run().ok().text();
    assert!(wanted.lines().count() > 15 && !wanted.contains("failed"), "{wanted}");
    let pairs = wanted.lines().zip(found.lines());
    let differ: Vec<_> = pairs.filter(|(wanted, found)| wanted != found).collect();
    assert!(
        differ.is_empty() && wanted.lines().count() == found.lines().count(),
        "host, share: {differ:#?}\n{found}"
    );
}

/// A program that is read line by line.
fn line(running: &mut Running) -> String {
    let mut out = BufReader::new(running.stdout.as_mut().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("read");
    line.trim_end().to_owned()
}

fn locks(home: &Home) {
    let dir = folder(home, "locks");
    let mut holder = posix(home, &dir, &["hold", "/x/file"]).spawn();
    assert_eq!(line(&mut holder), "held");
    let other = || posix(home, &dir, &["try", "/x/file"]).run().ok().text();
    assert_eq!(other(), "flock busy, fcntl busy");
    drop(holder.stdin.take());
    assert_eq!(holder.end().ok().text(), "let go");
    assert_eq!(other(), "flock free, fcntl free");
}

fn memory(home: &Home) {
    memory_in(home, &folder(home, "memory"));
}

pub(crate) fn memory_in(home: &Home, dir: &Path) {
    fs::write(dir.join("file"), [0; 4096]).expect("written");
    let sides = ["even", "odd"].map(|turn| posix(home, dir, &["map", "/x/file", turn]).spawn());
    for side in sides {
        assert_eq!(side.end().ok().text(), "2000");
    }
    let bytes = fs::read(dir.join("file")).expect("there");
    assert_eq!(bytes[..4], 2000u32.to_ne_bytes(), "and the host has it");
}

/// The kernel asks for a file's privileges before each write where it is not told that it need not.
fn one_request(home: &Home) {
    const WRITES: u64 = 2000;
    let dir = folder(home, "writes");
    // Each answer of the device is an interrupt of it, or several are one.
    let script =
        "for d in /sys/bus/virtio/drivers/virtiofs/virtio*; do grep \"${d##*/}-\" /proc/interrupts; done";
    let answers = || -> u64 {
        let lines = home.slipway(["shell", "--", "sh", "-c", script]).run().ok().text();
        assert!(!lines.is_empty(), "the device has interrupts");
        // The first word names the interrupt, and one for each processor follows.
        let counts = |line: &str| -> u64 {
            line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).sum()
        };
        lines.lines().map(counts).sum()
    };
    let bind = format!("{}:/x", dir.display());
    let written = format!("dd if=/dev/zero of=/x/file bs=512 count={WRITES}");
    let before = answers();
    home.docker(["run", "--rm", "--network", "none", "-v", &bind, "box", "sh", "-c", &written]).run().ok();
    let asked = answers() - before;
    assert!((WRITES / 2..WRITES * 3 / 2).contains(&asked), "{asked} requests for {WRITES} writes");
    // They are taken away by a write all the same, also by one that comes after another.
    let script = "cd /x; umask 0; for n in 1 2; do echo $n >> mine; echo $n >> mine; chmod 6777 mine; \
        stat -c %a mine; echo $n >> mine; stat -c %a mine; done";
    let run = ["run", "--rm", "--network", "none", "-u", "1001:1001", "-v", &bind, "box", "sh", "-c", script];
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("set");
    assert_eq!(home.docker(run).run().ok().text(), "6777\n777\n6777\n777");
}

/// More than may be open at once where a system's limit is low: the machine forgets in time.
fn many(home: &Home) {
    let dir = folder(home, "many");
    for number in 0..FILES {
        fs::File::create(dir.join(format!("a file of many, number {number}"))).expect("made");
    }
    let listed = || posix(home, &dir, &["list", "/x"]).within(Duration::from_secs(180)).run().ok().text();
    assert_eq!(listed(), format!("{FILES} listed, {FILES} names"));
    let script = "cd /x; for n in 0 50000 99999; do [ -f \"a file of many, number $n\" ] && echo $n; done; \
        rm 'a file of many, number 77777'";
    let bind = format!("{}:/x", dir.display());
    let ran = home.docker(["run", "--rm", "--network", "none", "-v", &bind, "box", "sh", "-c", script]);
    assert_eq!(ran.run().ok().text(), "0\n50000\n99999");
    assert!(!dir.join("a file of many, number 77777").exists());
    assert_eq!(listed(), format!("{0} listed, {0} names", FILES - 1));
    fs::remove_dir_all(&dir).expect("removed");
}
