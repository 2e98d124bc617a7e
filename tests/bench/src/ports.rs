//! A published port against what else leads into a guest, in turns, each into the same server.
//!
//! ```text
//!   127.0.0.1:S ─ shim ─ vsock ─ agent ─┐
//!   127.0.0.1:F ─ QEMU's hostfwd ───────┼─▶ the server, in a container that publishes its port
//!   127.0.0.1:P ─ passt, if it is there ┘
//!   127.0.0.1:L ─ ssh -L ───────────────▶ the same server in the guest that Lima and Colima stand for, if it is there
//! ```
//!
//! One guest for all but `ssh -L`, so that nothing differs but the way in: its machine is Slipway's, started by a QEMU that
//! adds the forwarding to the network device, and a second one for passt. CPU seconds are those of the machine and of whatever
//! carries bytes for that way, the guest's share of the work included.
//!
//! The rows of the outbound network compare the two ways for which no root is needed, from a container to a server on the
//! host's loopback: QEMU's user network, which a machine has, and passt.

mod work;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use slipway_test_harness::Built;

use self::work::{DATAGRAMS, WORK, connect, lost, word};
use crate::{
    figures::{Pair, Row, Sample, quartiles, table},
    sides::{self, Ended, Ours, Peer, Side, cpu_of},
};

/// Compares a published port with other ways into a guest.
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
    /// Only rows that have this in their name.
    #[arg(long, default_value = "")]
    rows: String,
    /// Folder that `lima-like-build` wrote, for `ssh -L`.
    #[arg(long, requires = "peer_up")]
    peer: Option<PathBuf>,
    /// The script that boots it.
    #[arg(long)]
    peer_up: Option<PathBuf>,
}

const PATIENCE: Duration = Duration::from_secs(120);
/// The guest's address on passt's network, and there the host's.
const GUEST: &str = "10.9.0.15";
const HOST: &str = "10.9.0.2";
/// The host's address on QEMU's user network.
const USER_HOST: &str = "10.0.2.2";

/// A way to the server.
struct Way<'a> {
    name: &'static str,
    port: u16,
    /// CPU seconds so far of what carries its bytes.
    cpu: Box<dyn Fn() -> f64 + 'a>,
}

/// A port that nobody has at this moment.
fn free() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    listener.local_addr().expect("an address").port()
}

/// What makes QEMU forward `from` on this host to `to` in the guest, and with `passt`'s socket gives it a second network.
fn forwarding(from: u16, to: u16, passt: Option<&Path>) -> String {
    let forward =
        ["tcp", "udp"].map(|kind| format!(",hostfwd={kind}:127.0.0.1:{from}-10.0.2.15:{to}")).concat();
    let second = passt.map_or(String::new(), |socket| {
        format!(
            "\nset -- \"$@\" -netdev stream,id=passt,server=off,addr.type=unix,addr.path='{}' \
             -device virtio-net-pci,netdev=passt,mac=52:54:00:12:34:99",
            socket.display()
        )
    });
    format!(
        "for word; do\n    shift\n    case $word in user,id=net0*) word=$word{forward} ;; esac\n    \
         set -- \"$@\" \"$word\"\ndone{second}"
    )
}

/// passt, with a port that leads to `to` in the guest; `None` where it is not installed. As root it becomes `nobody`.
fn passt(socket: &Path, from: u16, to: u16) -> Option<Ended> {
    let mut passt = std::process::Command::new("passt");
    passt.args([
        "--foreground",
        "--quiet",
        "--address",
        GUEST,
        "--netmask",
        "24",
        "--gateway",
        HOST,
        "--socket",
    ]);
    passt.arg(socket).args(["--tcp-ports", &format!("127.0.0.1/{from}:{to}")]);
    passt.args(["--udp-ports", &format!("127.0.0.1/{from}:{to}")]);
    let passt = Ended(passt.stderr(std::process::Stdio::null()).spawn().ok()?);
    sides::wait_for(socket, PATIENCE);
    Some(passt)
}

/// The server as a container with a published port, on either side. From the guest's address Docker's own rules lead to it.
fn serve(side: &dyn Side, server: &Path, port: u16) {
    let number = port.to_string();
    let published = ["tcp", "udp"].map(|kind| format!("{port}:{port}/{kind}"));
    let [tcp, udp] = published.each_ref().map(String::as_str);
    let create = ["create", "--name", "ports", "-p", tcp, "-p", udp, "box", "/bin/ports", &number];
    side.docker(&create).run().ok();
    side.docker(&["cp"]).arg(server).arg("ports:/bin/ports").run().ok();
    side.docker(&["start", "ports"]).run().ok();
}

/// The host's end of outbound rows, for that many connections: takes what comes, or gives this many bytes.
fn host_server(bytes: u64, connections: usize) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let serving = thread::Builder::new().name("outbound".into()).spawn(move || {
        for stream in listener.incoming().take(connections) {
            let Ok(mut stream) = stream else { continue };
            let block = vec![0; 128 << 10];
            let mut act = [0];
            if stream.read_exact(&mut act).is_ok() && act == *b"d" {
                // Who has hung up is missed by the other end.
                let _ = (0..bytes / block.len() as u64).try_for_each(|_| stream.write_all(&block));
            } else {
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        }
    });
    (port, serving.expect("a thread"))
}

/// From a container to this host and back, by one of its addresses.
fn outbound(ours: &Ours, host: &str, port: u16, up: bool, mib: u64) -> Duration {
    let port = port.to_string();
    let script = if up {
        format!("{{ echo u; head -c {} /dev/zero; }} | nc {host} {port}", mib << 20)
    } else {
        // No byte more, or the host's end closes with one unread: a reset. And writing stays open: after a half-close of the
        // guest's Debian 12's passt does not come to the end.
        format!("mkfifo /way; nc {host} {port} </way | wc -c & exec 3>/way; printf d >&3; wait; rm /way")
    };
    let began = Instant::now();
    let said = ours.docker(&["exec", "out", "sh", "-c", &script]).run().ok().text();
    let took = began.elapsed();
    assert!(up || said.trim() == (mib << 20).to_string(), "all of it came: {said}");
    took
}

/// What of a row's pairs is told of CPU: seconds for each GiB, ours and the peer's.
fn per_gib(row: &Row, mib: u64) -> Option<[f64; 2]> {
    let each = |of: fn(&Pair) -> f64| {
        quartiles(row.pairs.iter().map(of).collect()).map(|[_, median, _]| median * 1024.0 / mib as f64)
    };
    Some([each(|p| p.ours.cpu)?, each(|p| p.peer.cpu)?])
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
    let (forwarded, passed, tunnelled) = (free(), free(), free());
    let (open, entered) = (fs::Permissions::from_mode(0o777), fs::Permissions::from_mode(0o711));
    let room = dir.path().join("passt");
    fs::create_dir(&room).and_then(|()| fs::set_permissions(&room, open)).expect("a folder for anybody");
    fs::set_permissions(dir.path(), entered).expect("may be entered");
    let socket = room.join("socket");
    let passt = passt(&socket, passed, port);
    let peer = args.peer.as_ref().zip(args.peer_up.as_ref()).map(|(dir, up)| Peer::new(dir, up, built));
    let ours = Ours::new(built);
    let change = forwarding(forwarded, port, passt.as_ref().map(|_| socket.as_path()));
    ours.start_with(&sides::qemu(dir.path(), &change));
    ours.home.busybox_image();
    let server = args.guest.with_file_name("slipway-test-ports");
    serve(&ours, &server, port);
    let mut ways = vec![
        Way { name: "slipway", port, cpu: Box::new(|| ours.cpu_seconds()) },
        Way { name: "hostfwd", port: forwarded, cpu: Box::new(|| ours.cpu_seconds()) },
    ];
    if let Some(passt) = &passt {
        let network = ["shell", "--", "sh", "-c"];
        let script = format!("ip link set eth1 up && ip addr add {GUEST}/24 dev eth1");
        ours.home.slipway(network).arg(script).run().ok();
        let pid = passt.0.id();
        let ours = &ours;
        let cpu = Box::new(move || ours.cpu_seconds() + cpu_of(&[pid]));
        ways.push(Way { name: "passt", port: passed, cpu });
    }
    if let Some(peer) = &peer {
        peer.start();
        sides::busybox_image(peer, "box");
        serve(peer, &server, port);
        peer.forward(tunnelled, port);
        ways.push(Way { name: "ssh -L", port: tunnelled, cpu: Box::new(|| peer.cpu_seconds()) });
    }
    for way in &ways {
        let deadline = Instant::now() + PATIENCE;
        while connect(way.port, b'e').and_then(|mut stream| word(&mut stream)).is_err() {
            assert!(Instant::now() < deadline, "{} leads to no server", way.name);
            thread::sleep(Duration::from_millis(100));
        }
    }

    let bytes = args.mib << 20;
    let work: Vec<_> = WORK.iter().filter(|(name, _)| name.contains(&args.rows)).collect();
    let mut rows: Vec<Vec<Row>> = ways[1..]
        .iter()
        .map(|way| work.iter().map(|(name, _)| Row::new(&format!("{name} : {}", way.name))).collect())
        .collect();
    let mut walls: Vec<Vec<f64>> = work.iter().map(|_| Vec::new()).collect();
    let mut broken = vec![0; ways.len()];
    let mut losses = vec![Vec::new(); ways.len()];
    for n in 0..args.pairs {
        for (at, (name, work)) in work.iter().enumerate() {
            let mut samples = vec![None; ways.len()];
            // The one that goes first changes from round to round.
            for turn in 0..ways.len() {
                let way = (n + turn) % ways.len();
                let before = (ways[way].cpu)();
                let (wall, failed) = work.run(ways[way].port, bytes);
                let sample = Sample { wall, cpu: (ways[way].cpu)() - before };
                broken[way] += failed;
                // What was not done is not compared.
                samples[way] = (failed == 0).then_some(sample);
            }
            let told: Vec<String> = ways
                .iter()
                .zip(&samples)
                .map(|(way, sample)| {
                    sample.map_or(format!("{} broke", way.name), |sample| format!("{} {sample}", way.name))
                })
                .collect();
            eprintln!("{} of {}: {name}: {}", n + 1, args.pairs, told.join(", "));
            let Some(ours) = samples[0] else { continue };
            walls[at].push(ours.wall.as_secs_f64());
            for (rows, peer) in rows.iter_mut().zip(&samples[1..]) {
                rows[at].pairs.extend(peer.map(|peer| Pair { ours, peer }));
            }
        }
        for (losses, way) in losses.iter_mut().zip(&ways).filter(|(_, way)| way.name != "ssh -L") {
            losses.push(lost(way.port) as f64);
        }
    }
    for rows in &rows {
        println!("{}", table(rows));
    }
    println!("CPU seconds for each GiB, ours : theirs");
    for row in rows.iter().flatten().filter(|row| row.is_called("up") || row.is_called("down")) {
        if let Some([mine, theirs]) = per_gib(row, args.mib) {
            println!("  {:<38} {mine:.2} : {theirs:.2}", row.name());
        }
    }
    let median = |values: Vec<f64>| quartiles(values).map_or(f64::NAN, |[_, median, _]| median);
    let wall = |of: &str| {
        let at = work.iter().position(|(name, _)| *name == of);
        at.map_or(f64::NAN, |at| median(walls[at].clone()))
    };
    for direction in ["up", "down"] {
        let share =
            wall(&format!("{direction}, 1 connection")) / wall(&format!("{direction}, 64 connections"));
        println!("ours {direction}: 64 connections move {share:.2} of what one does (of medians)");
    }
    for ((way, broken), losses) in ways.iter().zip(broken).zip(losses) {
        let lost = median(losses);
        println!(
            "{}: {broken} connections broke, whose pairs are left out; of {DATAGRAMS} datagrams, 1000 a second, {lost} were lost (median)",
            way.name
        );
    }
    let outbound: Vec<_> = OUTBOUND.into_iter().filter(|(name, _)| name.contains(&args.rows)).collect();
    if let (Some(passt), false) = (&passt, outbound.is_empty()) {
        ours.docker(&["run", "-d", "--name", "out", "--network", "host", "box", "sleep", "1000000"])
            .run()
            .ok();
        println!("{}", table(&outward(args, &outbound, &ours, passt.0.id())));
    }
    println!("host  {}, passt {}", sides::host(), if passt.is_some() { "is there" } else { "is not there" });
}

/// The rows of the outbound network, and whether bytes leave.
const OUTBOUND: [(&str, bool); 2] =
    [("outbound up, user network : passt", true), ("outbound down, user network : passt", false)];

/// Measures those of them.
fn outward(args: &Args, wanted: &[(&str, bool)], ours: &Ours, passt: u32) -> Vec<Row> {
    // Two ways.
    let (port, serving) = host_server(args.mib << 20, 2 * wanted.len() * args.pairs);
    let measured = wanted.iter().map(|&(name, up)| {
        let mut row = Row::new(name);
        for n in 1..=args.pairs {
            let sample = |host| {
                let before = ours.cpu_seconds() + cpu_of(&[passt]);
                let wall = outbound(ours, host, port, up, args.mib);
                Sample { wall, cpu: ours.cpu_seconds() + cpu_of(&[passt]) - before }
            };
            let (user, peer) = crate::figures::in_turns(n, || sample(USER_HOST), || sample(HOST));
            eprintln!("{n} of {}: {name}: {user}, {peer}", args.pairs);
            row.pairs.push(Pair { ours: user, peer });
        }
        row
    });
    let rows = measured.collect();
    serving.join().expect("it served");
    rows
}
