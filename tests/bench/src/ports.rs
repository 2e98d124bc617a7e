//! A published port against QEMU's own forwarding, in turns, into one server in one guest.
//!
//! ```text
//!   127.0.0.1:S ─ shim ─ vsock ─ agent ─┐
//!                                       ├─▶ the server, in the guest's own network
//!   127.0.0.1:F ─ QEMU's hostfwd ───────┘
//! ```
//!
//! One guest, so that nothing differs but the way in: its machine is Slipway's, started by a QEMU that adds the forwarding to
//! the network device. CPU seconds are those of machine, shim and daemon, the guest's share of the work included.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use slipway_test_harness::{Built, Command};

use crate::{
    figures::{Pair, Row, Sample, in_turns, quartiles, table},
    sides::{self, Ours, Side},
};

/// Compares a published port with QEMU's hostfwd.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The static program `slipway-test-guest`; the server lies beside it.
    #[arg(long)]
    guest: PathBuf,
    /// Pairs of every row.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// What a sample of throughput moves, in MiB, over all its connections.
    #[arg(long, default_value_t = 32)]
    mib: u64,
}

const PATIENCE: Duration = Duration::from_secs(120);
/// After this much of nothing a connection counts as broken.
const SILENCE: Duration = Duration::from_secs(20);
/// Datagrams of one sample, and how many a second.
const DATAGRAMS: u32 = 1000;
const EVERY: Duration = Duration::from_millis(1);

/// What a row measures.
enum Work {
    Up(u64),
    Down(u64),
    /// Bytes there and back on one connection.
    Dialogue(usize),
    /// Connections one after the other, each with one byte there and back.
    Connections(usize),
}

const WORK: &[(&str, Work)] = &[
    ("up, 1 connection", Work::Up(1)),
    ("up, 4 connections", Work::Up(4)),
    ("up, 64 connections", Work::Up(64)),
    ("down, 1 connection", Work::Down(1)),
    ("down, 4 connections", Work::Down(4)),
    ("down, 64 connections", Work::Down(64)),
    ("request and response, 200 times", Work::Dialogue(200)),
    ("100 connections, one after the other", Work::Connections(100)),
];

fn connect(port: u16, act: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(&[act])?;
    Ok(stream)
}

fn up(port: u16, bytes: u64) -> io::Result<()> {
    let mut stream = connect(port, b'u')?;
    let block = vec![0; 128 << 10];
    for _ in 0..bytes / block.len() as u64 {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    whole(u64::from_le_bytes(count), bytes)
}

fn down(port: u16, bytes: u64) -> io::Result<()> {
    let mut stream = connect(port, b'd')?;
    stream.write_all(&bytes.to_le_bytes())?;
    let mut block = vec![0; 128 << 10];
    let mut got = 0;
    loop {
        match stream.read(&mut block)? {
            0 => break,
            length => got += length as u64,
        }
    }
    whole(got, bytes)
}

/// A connection that ended early is as broken as one that was reset.
fn whole(got: u64, bytes: u64) -> io::Result<()> {
    if got == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn word(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0];
    stream.write_all(b"?")?;
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"?");
    Ok(())
}

impl Work {
    /// How long it took, and how many of its connections broke.
    fn run(&self, port: u16, bytes: u64) -> (Duration, usize) {
        let together = |connections: u64, act: fn(u16, u64) -> io::Result<()>| {
            thread::scope(|scope| {
                let acts = (0..connections).map(|_| scope.spawn(move || act(port, bytes / connections)));
                let acts: Vec<_> = acts.collect();
                acts.into_iter().map(|act| act.join().expect("no panic")).filter(Result::is_err).count()
            })
        };
        let began = Instant::now();
        let broken = match self {
            Self::Up(connections) => together(*connections, up),
            Self::Down(connections) => together(*connections, down),
            Self::Dialogue(times) => {
                let said = connect(port, b'e').and_then(|mut s| (0..*times).try_for_each(|_| word(&mut s)));
                usize::from(said.is_err())
            }
            Self::Connections(times) => {
                let one = |_: &usize| connect(port, b'e').and_then(|mut s| word(&mut s)).is_err();
                (0..*times).filter(one).count()
            }
        };
        (began.elapsed(), broken)
    }
}

/// How many of a sample's datagrams did not come back within a second after the last.
fn lost(port: u16) -> usize {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    socket.connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    let receiver = socket.try_clone().expect("cloned");
    let receiving = thread::spawn(move || {
        let mut came = vec![false; DATAGRAMS as usize];
        let mut datagram = [0; 128];
        while came.contains(&false)
            && let Ok(length) = receiver.recv(&mut datagram)
        {
            let number = datagram[..length].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            came[number.expect("as long as it was sent") as usize] = true;
        }
        came.iter().filter(|came| !**came).count()
    });
    let began = Instant::now();
    for number in 0..DATAGRAMS {
        let mut datagram = [0; 100];
        datagram[..4].copy_from_slice(&number.to_le_bytes());
        // One that is refused is lost.
        let _ = socket.send(&datagram);
        thread::sleep((EVERY * (number + 1)).saturating_sub(began.elapsed()));
    }
    receiving.join().expect("no panic")
}

/// A port that nobody has at this moment.
fn free() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    listener.local_addr().expect("an address").port()
}

/// A folder with a QEMU that forwards `from` on this host to `to` in the guest; a search path that begins with it.
fn forwarding(dir: &Path, from: u16, to: u16) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    let real = std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|file| file.is_file());
    let real = real.expect("QEMU is installed");
    let forward =
        ["tcp", "udp"].map(|kind| format!(",hostfwd={kind}:127.0.0.1:{from}-10.0.2.15:{to}")).concat();
    let script = format!(
        "#!/bin/sh\nfor word; do\n    shift\n    case $word in user,id=net0*) word=$word{forward} ;; esac\n    \
         set -- \"$@\" \"$word\"\ndone\nexec '{}' \"$@\"\n",
        real.display()
    );
    let file = dir.join(name);
    fs::write(&file, script).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("made a program");
    std::env::join_paths([dir.to_owned()].into_iter().chain(std::env::split_paths(&path)))
        .expect("a search path")
}

/// Measures, and prints the table.
///
/// # Panics
/// When a part of it does not start, with what it said.
pub(crate) fn run(args: &Args, built: &Built) {
    let dir = tempfile::tempdir().expect("a folder");
    // Datagrams of those ports that clients get in the guest are not taken for a server's.
    let port =
        (20_000..30_000).find(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("one");
    let forwarded = free();
    let ours = Ours::new(built);
    ours.start_with(&forwarding(dir.path(), forwarded, port));
    ours.home.busybox_image();
    let server = args.guest.with_file_name("slipway-test-ports");
    let docker = |words: &[&str]| -> Command { ours.docker(words) };
    let number = port.to_string();
    docker(&["create", "--name", "ports", "--network", "host", "box", "/bin/ports", &number]).run().ok();
    docker(&["cp"]).arg(&server).arg("ports:/bin/ports").run().ok();
    docker(&["start", "ports"]).run().ok();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "the port does not appear on this host");
        thread::sleep(Duration::from_millis(100));
    }
    for port in [port, forwarded] {
        connect(port, b'e')
            .and_then(|mut stream| word(&mut stream))
            .expect("both ways in lead to the server");
    }

    let bytes = args.mib << 20;
    let mut rows: Vec<Row> = WORK.iter().map(|(name, _)| Row::new(name)).collect();
    let mut walls: Vec<Vec<f64>> = WORK.iter().map(|_| Vec::new()).collect();
    let mut broken = (0, 0);
    let mut losses = [Vec::new(), Vec::new()];
    for n in 1..=args.pairs {
        let sample = |work: &Work, port| {
            let before = ours.cpu_seconds();
            let (wall, broken) = work.run(port, bytes);
            (Sample { wall, cpu: ours.cpu_seconds() - before }, broken)
        };
        for (((name, work), row), mine) in WORK.iter().zip(&mut rows).zip(&mut walls) {
            let (ours, peer) = in_turns(n, || sample(work, port), || sample(work, forwarded));
            eprintln!(
                "{n} of {}: {name}: {} ({} broken), hostfwd {} ({} broken)",
                args.pairs, ours.0, ours.1, peer.0, peer.1
            );
            broken = (broken.0 + ours.1, broken.1 + peer.1);
            if ours.1 == 0 {
                mine.push(ours.0.wall.as_secs_f64());
            }
            // What was not done is not compared.
            if ours.1 + peer.1 == 0 {
                row.pairs.push(Pair { ours: ours.0, peer: peer.0 });
            }
        }
        for (losses, port) in losses.iter_mut().zip([port, forwarded]) {
            losses.push(lost(port) as f64);
        }
    }
    println!("{}", table(&rows));
    let median = |values: Vec<f64>| quartiles(values).map_or(0.0, |[_, median, _]| median);
    println!("CPU seconds for each GiB, ours : hostfwd");
    for ((name, _), row) in
        WORK.iter().zip(&rows).filter(|((_, work), _)| matches!(work, Work::Up(_) | Work::Down(_)))
    {
        let each =
            |of: fn(&Pair) -> f64| median(row.pairs.iter().map(of).collect()) * 1024.0 / args.mib as f64;
        if row.pairs.is_empty() {
            continue;
        }
        println!("  {name:<38} {:.2} : {:.2}", each(|p| p.ours.cpu), each(|p| p.peer.cpu));
    }
    for (direction, one) in [("up", 0), ("down", 3)] {
        let share = median(walls[one].clone()) / median(walls[one + 2].clone());
        println!("ours {direction}: 64 connections move {share:.2} of what one does (of medians)");
    }
    println!("connections that broke, whose pairs are left out: {} : {}", broken.0, broken.1);
    let [mine, theirs] = losses.map(median);
    println!("datagrams lost of {DATAGRAMS}, 1000 a second, median: {mine} : {theirs}");
    println!("host  {}", sides::host());
}
