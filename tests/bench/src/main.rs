//! Slipway against the guest that Lima and Colima stand for, in turns in one run: what a person waits for, as ratios.
//!
//! ```text
//!   cold start:  ours ─ peer ─ ours ─ peer …            each from nothing to an answer of `docker version`
//!   then both stay up, and each row is measured:  ours ─ peer ─ ours ─ peer …
//! ```
//!
//! A shared machine's absolute times mean nothing; a pair's two halves meet the same noise, so ratios are what is printed,
//! the median with the middle half of them beside it, and the host's CPU seconds of each side's processes.

mod events;
mod figures;
mod ports;
mod shares;
mod sides;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use slipway_test_harness::Built;

use figures::{Pair, Row, Sample, in_turns};
use sides::{Ours, Peer, Side};

/// What is compared.
#[derive(Debug, Parser)]
enum Bench {
    /// The machine, with the guest that Lima and Colima stand for.
    Machine(Args),
    /// Host folders, with virtiofsd, sshfs and the guest's disk.
    Shares(shares::Args),
    /// Published ports, with QEMU's hostfwd.
    Ports(ports::Args),
    /// File events, with touched files.
    Events(events::Args),
}

/// Compares Slipway with a peer that `lima-like-build` made.
#[derive(Debug, Parser)]
struct Args {
    /// Folder that `lima-like-build` wrote.
    #[arg(long)]
    peer: PathBuf,
    /// The script that boots it.
    #[arg(long)]
    peer_up: PathBuf,
    /// Pairs of cold starts. Each takes two to three minutes by emulation.
    #[arg(long, default_value_t = 20)]
    cold_pairs: usize,
    /// Pairs of every other row.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
}

/// What is done on a side that is up, and how often in one sample.
type Work = (&'static str, fn(&dyn Side) -> Duration);

const WORK: &[Work] = &[
    ("API round trip, 100 on one connection", |side| sides::pings(&side.socket(), 100, true)),
    ("API round trip, 100 connections", |side| sides::pings(&side.socket(), 100, false)),
    ("exec: 64 MiB in", |side| sides::bulk(side, "cat > /dev/null", 64 << 20)),
    ("exec: 64 MiB out", |side| sides::bulk(side, "head -c 67108864 /dev/zero", 0)),
    ("run --rm true", |side| sides::run(side)),
];

fn main() -> ExitCode {
    let bench = Bench::parse();
    let built = match Built::of_environment() {
        Ok(built) => built,
        Err(why) => {
            eprintln!("error: {why}\nhint: tests/bench/run builds everything and sets it");
            return ExitCode::FAILURE;
        }
    };
    match &bench {
        Bench::Machine(args) => machine(args, &built),
        Bench::Shares(args) => shares::run(args, &built),
        Bench::Ports(args) => ports::run(args, &built),
        Bench::Events(args) => events::run(args, &built),
    }
    ExitCode::SUCCESS
}

/// Measures, and prints the table.
fn machine(args: &Args, built: &Built) {
    let mut rows = Vec::new();
    let mut cold = Row::new("cold start to `docker version`");
    for n in 1..=args.cold_pairs {
        let ours = Ours::new(built);
        let mine = ours.start();
        drop(ours);
        let peer = Peer::new(&args.peer, &args.peer_up, built);
        let theirs = peer.start();
        drop(peer);
        eprintln!("cold start {n} of {}: {mine}, peer {theirs}", args.cold_pairs);
        cold.pairs.push(Pair { ours: mine, peer: theirs });
    }
    rows.push(cold);

    let ours = Ours::new(built);
    ours.start();
    let phases = ours.phases();
    let peer = Peer::new(&args.peer, &args.peer_up, built);
    peer.start();
    ours.prepare();
    peer.prepare();
    for (name, work) in WORK {
        let mut row = Row::new(name);
        for n in 1..=args.pairs {
            let sample = |side: &dyn Side| {
                let before = side.cpu_seconds();
                let wall = work(side);
                Sample { wall, cpu: side.cpu_seconds() - before }
            };
            let (ours, peer) = in_turns(n, || sample(&ours), || sample(&peer));
            row.pairs.push(Pair { ours, peer });
        }
        eprintln!("{name}: {} pairs", args.pairs);
        rows.push(row);
    }
    println!("{}", figures::table(&rows));
    println!("boot phases of ours, in seconds since `slipway start`:\n{phases}");
    println!("versions\n  ours  {}\n  peer  {}\n  host  {}", ours.version(), peer.version(), sides::host());
}
