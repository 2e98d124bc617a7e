//! Host folders against plain virtiofsd (`--cache auto`), sshfs and the guest's own disk: one container has them all, and
//! measures them in turns.
//!
//! ```text
//!   `slipway share` ◀─ a bind mount, watched ────────────┐
//!   virtiofsd ◀──────── a second device of the machine ──┤
//!   sftp-server ◀────── sshfs, without its encryption ───┼─ tests/guest/src/bench.rs in a container ─ rows
//!   the guest's disk ◀─ a volume ────────────────────────┘
//! ```
//!
//! The machine is Slipway's, started by a QEMU that adds the peer's device. Nobody changes the host's files meanwhile. No row
//! for 9p: the guest's kernel has none.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    thread::{self, JoinHandle},
    time::Duration,
};

use clap::Parser;
use slipway_test_harness::{Built, Command, Lines, NODE};

use crate::{
    figures::{Pair, Row, Sample, quantiles, table},
    sides::{self, Ended, Ours, Side},
};

/// Compares shares with what else there is.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The peer.
    #[arg(long)]
    virtiofsd: PathBuf,
    /// The static program `slipway-test-guest`.
    #[arg(long)]
    guest: PathBuf,
    /// Folder with `cli`, `cache`, `package.json` and `package-lock.json`, for `npm ci`.
    #[arg(long)]
    npm: PathBuf,
    /// Pairs of every row.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Files of the rows that are about many files.
    #[arg(long, default_value_t = 2_000)]
    count: usize,
    /// Files in git's repository.
    #[arg(long, default_value_t = 50_000)]
    files: usize,
    /// Only rows that have this in their name.
    #[arg(long, default_value = "")]
    rows: String,
    /// Not against sshfs, by far the slowest.
    #[arg(long)]
    no_sshfs: bool,
}

/// For whatever is prepared, and for one round of the longest row.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What is there beside node.
const MORE: &[&str] =
    &["git", "libacl1", "libfuse3-3", "libglib2.0-0", "libpcre2-8-0", "libselinux1", "sshfs", "tar"];

/// Serves one client of sshfs: on which port, and the thread, which ends with the client.
fn sftp() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let serving = thread::Builder::new().name("sftp".into()).spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        // As sshd has it: an answer that waits for more to say is no answer.
        stream.set_nodelay(true).expect("set");
        let end = || Stdio::from(OwnedFd::from(stream.try_clone().expect("cloned")));
        let mut server = std::process::Command::new("/usr/lib/openssh/sftp-server");
        let _ = server.stdin(end()).stdout(end()).status().expect("openssh-sftp-server is installed");
    });
    (port, serving.expect("a thread"))
}

fn git(folder: &Path, words: &[&str]) {
    Command::new("git").arg("-C").arg(folder).args(words).within(PATIENCE).run().ok();
}

/// A repository in which nothing has changed.
fn repository(root: &Path, files: usize) {
    let repository = root.join("repository");
    fs::create_dir_all(&repository).expect("made");
    git(&repository, &["init", "--quiet"]);
    for file in 0..files {
        let folder = repository.join(format!("folder {}/{}", file / 1000, file / 50 % 20));
        if file % 50 == 0 {
            fs::create_dir_all(&folder).expect("made");
        }
        fs::write(folder.join(file.to_string()), file.to_string()).expect("written");
    }
    git(&repository, &["add", "."]);
    // By itself it would pack them beside us, while they are copied.
    let who = ["-c", "gc.auto=0", "-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    git(&repository, &[&who[..], &["commit", "--quiet", "-m", "all"]].concat());
    git(&repository, &["gc", "--quiet"]);
}

/// A row's name, and of each side how long it took and how often its device was asked.
fn row(line: &str) -> Option<(&str, Vec<(Duration, f64)>)> {
    let mut words = line.strip_prefix("row ")?.split('\t');
    let name = words.next()?;
    let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let sides = numbers.chunks_exact(2).map(|side| (Duration::from_micros(side[0]), side[1] as f64));
    Some((name, sides.collect()))
}

/// Measures, and prints the table.
///
/// # Panics
/// When a part of it does not start, with what it said.
pub(crate) fn run(args: &Args, built: &Built) {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().canonicalize().expect("real");
    let socket = dir.join("peer.sock");
    let ours = Ours::new(built);
    let folders = ["slipway", "virtiofsd", "sshfs"].map(|name| ours.home.path().join("bench").join(name));
    let [mine, plain, ssh] = &folders;
    repository(mine, args.files);
    for folder in [plain, ssh] {
        Command::new("cp").arg("-a").args([mine, folder]).within(PATIENCE).run().ok();
    }
    let virtiofsd = std::process::Command::new(&args.virtiofsd)
        .args(["--cache", "auto", "--socket-path"])
        .arg(&socket)
        .arg("--shared-dir")
        .arg(plain)
        .stderr(Stdio::null())
        .spawn();
    let _virtiofsd = Ended(virtiofsd.expect("virtiofsd starts"));
    sides::wait_for(&socket, PATIENCE);
    let device = format!(
        "set -- \"$@\" -chardev socket,id=plain,path='{}' -device vhost-user-fs-pci,chardev=plain,tag=plain,queue-size=1024",
        socket.display()
    );
    ours.start_with(&sides::qemu(&dir, &device));

    ours.home.debian_image("bench", NODE.iter().chain(MORE), PATIENCE);
    let docker = |words: &[&str]| ours.docker(words).within(PATIENCE);
    let program = ours.home.path().join("measure");
    fs::copy(&args.guest, &program).expect("copied");
    let binds = [format!("{}:/slipway", mine.display()), format!("{}:/measure:ro", program.display())];
    let run = ["run", "-d", "--init", "--privileged", "--name", "bench", "-v", &binds[0], "-v", &binds[1]];
    docker(&run).args(["-v", "local:/local", "bench", "busybox", "sleep", "1000000"]).run().ok();
    docker(&["cp"]).arg(&args.npm).arg("bench:/npm").run().ok();
    let exec = |words: &[&str]| docker(&["exec", "bench"]).args(words).run().ok();
    exec(&["busybox", "mkdir", "/virtiofsd", "/sshfs"]);
    exec(&["busybox", "mount", "-t", "virtiofs", "plain", "/virtiofsd"]);
    exec(&["busybox", "mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"]);
    let mut sides = vec!["slipway=/slipway", "virtiofsd=/virtiofsd", "guest's disk=/local"];
    let mut serving = None;
    if !args.no_sshfs {
        let (port, thread) = sftp();
        serving = Some(thread);
        let options = format!("directport={port}");
        let from = format!("host.docker.internal:{}", ssh.display());
        exec(&["sshfs", "-o", &options, &from, "/sshfs"]);
        sides.push("sshfs=/sshfs");
    }
    exec(&["busybox", "cp", "-a", "/virtiofsd/repository", "/local/"]);
    ours.home.wait_watched(mine);

    let mut rows: Vec<(String, Vec<Row>, Vec<Vec<f64>>)> = Vec::new();
    let mut requests = Vec::new();
    let [pairs, count] = [args.pairs, args.count].map(|number| number.to_string());
    let measure = docker(&["exec", "bench", "/measure", "bench", &pairs, &count, &args.rows]).args(&sides);
    let lines = Lines::of(measure);
    loop {
        let (_, line) = lines.next(PATIENCE).expect("the container measures to its end");
        if line == "done" {
            break;
        }
        if let Some(asked) = line.strip_prefix("asked ") {
            requests.push(asked.replace('\t', ": "));
        }
        let Some((name, all)) = row(&line) else { continue };
        let [own, peers @ ..] = all.as_slice() else { continue };
        let took: Vec<String> =
            [own].into_iter().chain(peers).map(|(took, _)| format!("{took:.1?}")).collect();
        eprintln!("{name}: {}", took.join(" : "));
        if rows.last().is_none_or(|(last, ..)| last != name) {
            let peers = sides[1..].iter().map(|side| side.split('=').next().unwrap_or_default());
            let own = peers.map(|peer| Row::new(&format!("{name} : {peer}"))).collect();
            rows.push((name.to_owned(), own, vec![Vec::new(); 2]));
        }
        let (_, row, asked) = rows.last_mut().expect("just pushed");
        let sample = |wall: Duration| Sample { wall, cpu: f64::NAN };
        for (row, peer) in row.iter_mut().zip(peers) {
            row.pairs.push(Pair { ours: sample(own.0), peer: sample(peer.0) });
        }
        asked.iter_mut().zip([own].into_iter().chain(peers)).for_each(|(all, (_, told))| all.push(*told));
    }
    for peer in 0..sides.len() - 1 {
        let of: Vec<Row> =
            rows.iter_mut().map(|(_, row, _)| std::mem::replace(&mut row[peer], Row::new(""))).collect();
        println!("{}", table(&of));
    }
    println!(
        "interrupts of the device, one for each answer or for several at once; median, ours : virtiofsd"
    );
    for (name, _, asked) in rows {
        let median = |all: Vec<f64>| quantiles(all, [0.5]).map_or(0.0, |[median]| median);
        let [own, theirs] = [0, 1].map(|side| median(asked[side].clone()));
        println!("  {name:<38} {own:>8} : {theirs}");
    }
    println!("requests of one round more");
    requests.iter().for_each(|asked| println!("  {asked}"));
    println!("files {count}, of git {}", args.files);
    println!("host  {}", sides::host());
    // With the machine its client goes.
    drop(ours);
    if let Some(serving) = serving {
        serving.join().expect("it served");
    }
}
