//! How long after a change on the host a container's watcher hears of it, against the way of Lima and Colima, in turns.
//!
//! ```text
//!   ours:   write ─ `slipway share` ─ vsock ─ kernel module ─▶ MODIFY ─┐
//!                                                                     ├─ watcher in one container ─ its line ─▶ time
//!   theirs: write ─ watcher ─ stream ─ a process touches the file ─▶ ATTRIB ─┘
//! ```
//!
//! One guest and one container, so that nothing differs but the way. Theirs is done here as they do it, in a folder that
//! Slipway does not watch: Lima's sends each change at once over a stream that is open already, Colima's what changed every
//! half second. Both get more than they have: no ssh, no `sudo chmod` for each file. A line's own way back is in both.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ChildStdin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use slipway_test_harness::{Built, Command, Lines, Running};

use crate::{
    figures::{Pair, Row, Sample, in_turns, quantiles, table},
    sides::{self, Ours, Side},
};

/// Compares events with touches.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The static program `slipway-test-guest`.
    #[arg(long)]
    guest: PathBuf,
    /// Pairs of every row; each has ten edits of each side.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
}

const PATIENCE: Duration = Duration::from_secs(60);
const EDITS: usize = 10;
/// Within this Lima takes a change of the same file for the same change; Colima looks this often.
const LIMA: Duration = Duration::from_millis(10);
const COLIMA: Duration = Duration::from_millis(500);
/// Between two edits, for what else is told of one.
const PAUSE: Duration = Duration::from_millis(60);
/// Left out by the settings' default, so that our own watcher has no part in it.
const UNWATCHED: &str = ".git/objects";

/// Their way: what is heard on the host is touched in the guest.
struct Touches {
    /// The thread ends with what it says.
    watcher: Option<Running>,
    _toucher: Running,
    thread: Option<JoinHandle<()>>,
    /// As Colima does it.
    seldom: Arc<AtomicBool>,
}

impl Touches {
    fn start(ours: &Ours, program: &Path, folder: &Path) -> Self {
        let mut watcher = Command::new(program).arg("hear").arg(folder).spawn();
        let mut toucher = ours.home.slipway(["shell", "--"]).arg(program).arg("touch").spawn();
        let lines = BufReader::new(watcher.stdout.take().expect("a pipe"));
        let stdin = toucher.stdin.take().expect("a pipe");
        let seldom = Arc::<AtomicBool>::default();
        let (how, folder) = (Arc::clone(&seldom), folder.to_owned());
        let thread = thread::spawn(move || {
            pass_on(lines.lines().map_while(Result::ok), stdin, &folder, &how);
        });
        Self { watcher: Some(watcher), _toucher: toucher, thread: Some(thread), seldom }
    }
}

impl Drop for Touches {
    fn drop(&mut self) {
        drop(self.watcher.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked with was printed.
            let _ = thread.join();
        }
    }
}

/// Ends with either.
fn pass_on(lines: impl Iterator<Item = String>, mut to: ChildStdin, folder: &Path, seldom: &AtomicBool) {
    let began = Instant::now();
    let mut last: HashMap<String, Instant> = HashMap::new();
    for line in lines {
        let Some(name) = line.strip_prefix("0 ") else { continue };
        let window = if seldom.load(Ordering::Relaxed) { COLIMA } else { LIMA };
        if last.get(name).is_some_and(|last| last.elapsed() < window) {
            continue;
        }
        if window == COLIMA {
            let since = began.elapsed().as_nanos() % COLIMA.as_nanos();
            thread::sleep(COLIMA - Duration::from_nanos(since as u64));
        }
        last.insert(name.to_owned(), Instant::now());
        let path = folder.join(name);
        let Ok(found) = fs::metadata(&path) else { continue };
        if writeln!(to, "{} {} {}", found.mtime(), found.mtime_nsec(), path.display()).is_err() {
            return;
        }
    }
}

/// Ten edits of files of a folder, and how long each was unheard in the container, where the folder has this number.
fn edits(folder: &Path, number: usize, heard: &Lines, round: usize) -> Vec<Duration> {
    let edit = |edit: usize| {
        let name = format!("file {edit}");
        let wanted = format!("{number} {name}");
        // Not at the same time of each half second.
        thread::sleep(PAUSE + Duration::from_millis((round * EDITS + edit) as u64 * 37 % 100));
        while heard.next(Duration::ZERO).is_some() {}
        let mut file = fs::OpenOptions::new().write(true).open(folder.join(&name)).expect("opened");
        let began = Instant::now();
        file.write_all(format!("{round:08}").as_bytes()).expect("written");
        loop {
            let (came, line) = heard.next(PATIENCE).expect("it is heard of within a minute");
            if line == wanted {
                return came - began;
            }
        }
    };
    (0..EDITS).map(edit).collect()
}

/// Measures, and prints the table.
///
/// # Panics
/// When a part of it does not start, with what it said.
pub(crate) fn run(args: &Args, built: &Built) {
    let ours = Ours::new(built);
    ours.start();
    ours.home.busybox_image();
    let program = ours.home.path().join("watch");
    fs::copy(&args.guest, &program).expect("copied");
    let own = ours.home.path().join("work");
    let theirs = own.join(UNWATCHED);
    fs::create_dir_all(&theirs).expect("made");
    for (folder, edit) in [&own, &theirs].into_iter().flat_map(|folder| (0..EDITS).map(move |n| (folder, n)))
    {
        fs::write(folder.join(format!("file {edit}")), "before").expect("written");
    }
    let binds = [format!("{}:/x", own.display()), format!("{}:/watch:ro", program.display())];
    let container =
        ["run", "--rm", "-i", "--init", "--network", "none", "-v", &binds[0], "-v", &binds[1], "box"];
    let unwatched = format!("/x/{UNWATCHED}");
    let heard = Lines::of(ours.docker(&container).args(["/watch", "hear", "/x", &unwatched]));
    assert_eq!(heard.next(PATIENCE).expect("it starts").1, "ready");
    ours.home.wait_watched(&own);
    let touches = Touches::start(&ours, &program, &theirs);
    let mut echo = Lines::of(ours.docker(&container).arg("cat"));

    let mut rows = ["ten edits : Lima's way", "ten edits : Colima's way"].map(Row::new);
    let mut delays = [Vec::new(), Vec::new(), Vec::new()];
    let mut there_and_back = Vec::new();
    // What is loaded once is not what is compared.
    edits(&own, 0, &heard, 0);
    edits(&theirs, 1, &heard, 0);
    for n in 1..=args.pairs {
        for (colima, row) in rows.iter_mut().enumerate() {
            touches.seldom.store(colima == 1, Ordering::Relaxed);
            let sample = |folder: &Path, number: usize| {
                let before = ours.cpu_seconds();
                let took = edits(folder, number, &heard, n);
                let sample = Sample { wall: took.iter().sum(), cpu: ours.cpu_seconds() - before };
                (sample, took.iter().map(Duration::as_secs_f64).collect::<Vec<_>>())
            };
            let (mine, peer) = in_turns(n, || sample(&own, 0), || sample(&theirs, 1));
            eprintln!("{n} of {}: {:?} : {:?}", args.pairs, mine.0.wall, peer.0.wall);
            row.pairs.push(Pair { ours: mine.0, peer: peer.0 });
            delays[0].extend(mine.1);
            delays[1 + colima].extend(peer.1);
        }
        let began = Instant::now();
        writeln!(echo.program().stdin.as_mut().expect("a pipe"), "{n}").expect("written");
        there_and_back.push((echo.next(PATIENCE).expect("it answers").0 - began).as_secs_f64());
    }
    println!("{}", table(&rows));
    let told = |name: &str, values: Vec<f64>| {
        let count = values.len();
        if let Some([median, last]) = quantiles(values, [0.5, 0.99]) {
            println!("  {name:<40} {:>8.1} {:>8.1}   of {count}", median * 1000.0, last * 1000.0);
        }
    };
    println!("milliseconds until it is heard of: median, 99 of 100");
    let [mine, lima, colima] = delays;
    told("ours, as a change of contents", mine);
    told("Lima's way, as a change of attributes", lima);
    told("Colima's way, the same", colima);
    told("of that a line, there and back again", there_and_back);
    println!("host  {}", sides::host());
}
