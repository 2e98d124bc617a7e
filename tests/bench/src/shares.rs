//! Host folders against plain virtiofsd (`--cache auto`): both are devices of one guest, which measures them in turns.
//!
//! ```text
//!   `slipway share` ◀─ exports, watched as for a running container ─┐
//!   virtiofsd ◀──────── the same tree ───────────────────────────────┴─ QEMU ─ guest: tests/guest/src/bench.rs ─ console ─▶ rows
//! ```
//!
//! Nobody changes the host's files meanwhile, so that the events that the watcher sends are read and dropped here. This guest
//! has not our kernel module: it asks twice for each write to ours, which a machine of Slipway's does not.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use clap::Parser;
use slipway_share::{
    packets,
    wire::{Answer, Call, Export},
};
use slipway_test_harness::initramfs;

use crate::figures::{Pair, Row, Sample, quantiles, table};

/// Compares shares with a virtiofsd.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The program `slipway`, built for release.
    #[arg(long)]
    slipway: PathBuf,
    /// The peer.
    #[arg(long)]
    virtiofsd: PathBuf,
    /// The kernel that `tests/kernel` names; its modules lie beside it.
    #[arg(long)]
    kernel: PathBuf,
    /// The static program of `tests/guest`.
    #[arg(long)]
    guest: PathBuf,
    /// Pairs of every row.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Only rows that have this in their name.
    #[arg(long, default_value = "")]
    rows: String,
    /// QEMU's accelerator.
    #[arg(long, default_value = "tcg,thread=single")]
    accel: String,
    /// QEMU's processor.
    #[arg(long, default_value = "max,-la57,-cx16")]
    cpu: String,
}

/// For the guest's boot, and for the longest row.
const PATIENCE: Duration = Duration::from_secs(300);

/// In load order; whatever is built in is not there as a file.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "fs/fuse/fuse.ko",
    "fs/fuse/virtiofs.ko",
];

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tree(root: &Path) {
    for folder in 0..50 {
        let path = root.join(format!("tree/folder {folder}"));
        fs::create_dir_all(&path).expect("made");
        for file in 0..40 {
            fs::write(path.join(format!("file {}", folder * 40 + file)), [7; 4096]).expect("written");
        }
    }
    fs::write(root.join("big"), vec![7; 32 << 20]).expect("written");
}

/// The share server as the shim has it.
struct Share {
    control: std::os::fd::OwnedFd,
    child: Option<Ended>,
    /// Reads what it tells of the host's files.
    reader: Option<JoinHandle<()>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        // The reader ends with it.
        drop(self.child.take());
        if let Some(reader) = self.reader.take() {
            // What it panicked with was printed.
            let _ = reader.join();
        }
    }
}

impl Share {
    fn start(args: &Args, socket: &Path, export: &Path) -> Self {
        let (control, theirs) = packets::pair().expect("sockets");
        let child =
            Command::new(&args.slipway).arg("share").stdin(Stdio::from(theirs)).spawn().expect("starts");
        let share = Self { control, child: Some(Ended(child)), reader: None };
        let exports = vec![Export::new(export.to_owned(), false)];
        let start = Call::Start { socket: socket.to_owned(), exports, hidden: Vec::new() };
        match share.ask(&start, None) {
            Answer::Status(status) if status.failed.is_empty() => share,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, call: &Call, stream: Option<&UnixStream>) -> Answer {
        packets::send(&self.control, call, stream.map(AsFd::as_fd)).expect("asks");
        packets::receive(&self.control).expect("answers").expect("does not end").0
    }

    /// As when a container that mounts the folder has started.
    fn watch(&mut self, export: &Path) {
        let (mut ours, theirs) = UnixStream::pair().expect("sockets");
        assert_eq!(self.ask(&Call::Events, Some(&theirs)), Answer::Done);
        self.reader = Some(std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while ours.read(&mut bytes).is_ok_and(|count| count > 0) {}
        }));
        let watch = Call::Watch { paths: vec![export.to_owned()], exclude: Vec::new(), vouch: true };
        match self.ask(&watch, None) {
            Answer::Status(status) if status.unwatched.is_none() && status.watches > 50 => {}
            other => panic!("{other:?}"),
        }
    }
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn qemu(args: &Args, dir: &Path) -> Command {
    let asked = format!("{} {}", args.pairs, args.rows);
    let archive = initramfs(&args.kernel, &args.guest, MODULES, &[("bench", asked.as_bytes())]);
    fs::write(dir.join("initramfs"), archive).expect("written");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "q35,memory-backend=mem0", "-m", "1024M", "-smp", "1", "-nodefaults"]);
    command.args([
        "-object",
        "memory-backend-memfd,id=mem0,size=1024M,share=on",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.args(["-accel", &args.accel, "-cpu", &args.cpu, "-serial", "stdio", "-kernel"]);
    command.arg(&args.kernel).arg("-initrd").arg(dir.join("initramfs"));
    command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    for (tag, socket) in [("slipway", "ours.sock"), ("plain", "peer.sock")] {
        command.arg("-chardev").arg(format!("socket,id={tag},path={}", dir.join(socket).display()));
        command.args(["-device", &format!("vhost-user-fs-pci,chardev={tag},tag={tag},queue-size=1024")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A row's name, a pair of it, and how often each device has interrupted for it.
fn row(line: &str) -> Option<(&str, Pair, [u64; 2])> {
    let mut words = line.strip_prefix("row ")?.split('\t');
    let name = words.next()?;
    let mut number = || words.next()?.trim().parse().ok();
    let mut sample = || Some(Sample { wall: Duration::from_micros(number()?), cpu: 0.0 });
    let pair = Pair { ours: sample()?, peer: sample()? };
    Some((name, pair, [number()?, number()?]))
}

/// Measures, and prints the table.
///
/// # Panics
/// When a part of it does not start, with what it said.
pub(crate) fn run(args: &Args) {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().canonicalize().expect("real");
    let (ours, peer) = (dir.join("ours"), dir.join("peer"));
    tree(&ours);
    tree(&peer);
    let mut share = Share::start(args, &dir.join("ours.sock"), &ours);
    let mut virtiofsd = Command::new(&args.virtiofsd);
    virtiofsd.args(["--cache", "auto", "--socket-path"]).arg(dir.join("peer.sock"));
    let virtiofsd =
        virtiofsd.arg("--shared-dir").arg(&peer).stderr(Stdio::null()).spawn().expect("virtiofsd starts");
    let _virtiofsd = Ended(virtiofsd);
    wait_for(&dir.join("ours.sock"));
    wait_for(&dir.join("peer.sock"));
    let mut machine = Ended(qemu(args, &dir).spawn().expect("QEMU starts"));
    let mut rows: Vec<(String, Row, [Vec<f64>; 2])> = Vec::new();
    let mut said = Vec::new();
    let mut done = false;
    let console = BufReader::new(machine.0.stdout.take().expect("a pipe"));
    for line in console.lines().map_while(Result::ok) {
        let line = line.trim_end();
        if line == "mounted" {
            share.watch(&ours);
            fs::write(peer.join("go"), "").expect("written");
        } else if let Some((name, pair, told)) = row(line) {
            if rows.last().is_none_or(|(last, ..)| last != name) {
                eprintln!("{name}");
                rows.push((name.to_owned(), Row::new(name), Default::default()));
            }
            eprintln!("  {:?} : {:?}", pair.ours.wall, pair.peer.wall);
            let (_, row, all) = rows.last_mut().expect("just pushed");
            row.pairs.push(pair);
            all.iter_mut().zip(told).for_each(|(all, told)| all.push(told as f64));
        } else {
            done |= line == "done";
            said.push(line.to_owned());
        }
    }
    assert!(done, "the guest did not come to its end:\n{}", said.join("\n"));
    let (rows, told): (Vec<Row>, Vec<_>) =
        rows.into_iter().map(|(name, row, told)| (row, (name, told))).unzip();
    println!("{}", table(&rows));
    println!(
        "the guest's requests, its preparations' too, as interrupts of the device; median, ours : virtiofsd"
    );
    for (name, told) in told {
        let [mine, theirs] = told.map(|all| quantiles(all, [0.5]).map_or(0.0, |[median]| median));
        println!("  {name:<38} {mine:>8} : {theirs}");
    }
}
