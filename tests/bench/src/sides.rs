//! The two machines that are compared, as the same few acts.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use slipway_test_harness::{Built, Command, Home, busybox_archive, end};

use crate::figures::Sample;

/// How long a peer may take until its engine answers.
const PATIENCE: Duration = Duration::from_secs(600);

/// A machine with an engine.
pub(crate) trait Side {
    /// The engine's socket on this host.
    fn socket(&self) -> PathBuf;
    /// The same docker client for both.
    fn client(&self) -> PathBuf;
    /// CPU seconds that its processes have used on this host so far.
    fn cpu_seconds(&self) -> f64;

    fn docker(&self, args: &[&str]) -> Command {
        let socket = format!("unix://{}", self.socket().display());
        Command::new(self.client()).env("DOCKER_HOST", socket).args(args).within(PATIENCE)
    }

    fn version(&self) -> String {
        let format =
            "engine {{.Server.Version}}, kernel {{.Server.KernelVersion}}, client {{.Client.Version}}";
        self.docker(&["version", "--format", format]).run().ok().text()
    }

    /// An image and a container to work with.
    fn prepare(&self) {
        busybox_image(self, "bench");
        self.docker(&["run", "-d", "--name", "bench", "bench", "sleep", "1000000"]).run().ok();
        // What is loaded once is not what is compared.
        run(self);
    }
}

/// A static busybox as an image of that name.
pub(crate) fn busybox_image(side: &(impl Side + ?Sized), name: &str) {
    side.docker(&["import", "-", name]).stdin(busybox_archive()).run().ok();
}

/// A process that ends with its owner.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Until something has made `path`.
pub(crate) fn wait_for(path: &Path, patience: Duration) {
    let deadline = Instant::now() + patience;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// CPU seconds of processes and of what they have waited for; 0 for one that is gone.
pub(crate) fn cpu_of(pids: &[u32]) -> f64 {
    // Linux counts in hundredths of a second here, whatever its own clock does.
    let ticks = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces; nothing after its `)` does.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        fields.get(11..15)?.iter().map(|f| f.parse::<u64>().ok()).sum::<Option<u64>>()
    };
    pids.iter().filter_map(ticks).sum::<u64>() as f64 / 100.0
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The process and all that it has started, and they.
fn family(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut strangers: Vec<(u32, u32)> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(pid) = family.get(at).copied() {
        family.extend(strangers.extract_if(.., |(_, parent)| *parent == pid).map(|(pid, _)| pid));
        at += 1;
    }
    family
}

/// A search path that begins with a QEMU in `dir` whose arguments a line of shell changes, when it starts a machine.
pub(crate) fn qemu(dir: &Path, change: &str) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    let real = std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|file| file.is_file());
    let real = real.expect("QEMU is installed");
    // It is also asked for its version, and whether an accelerator runs a guest.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *user,id=net0*)\n{change}\nesac\nexec '{}' \"$@\"\n",
        real.display()
    );
    let file = dir.join(name);
    fs::write(&file, script).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("made a program");
    std::env::join_paths([dir.to_owned()].into_iter().chain(std::env::split_paths(&path)))
        .expect("a search path")
}

/// Slipway in a home of its own.
pub(crate) struct Ours {
    pub(crate) home: Home,
    client: PathBuf,
}

impl Ours {
    /// As after an installation: nothing was started yet.
    pub(crate) fn new(built: &Built) -> Self {
        let home = Home::new(built);
        // As much as the peer has.
        home.slipway(["config", "set", "machine.memory", "3GiB"]).run().ok();
        home.slipway(["config", "set", "machine.cpus", "2"]).run().ok();
        Self { home, client: client(built) }
    }

    pub(crate) fn start(&self) -> Sample {
        let began = Instant::now();
        self.home.start();
        self.docker(&["version"]).run().ok();
        Sample { wall: began.elapsed(), cpu: self.cpu_seconds() }
    }

    /// Boots with another search path for programs, which a new daemon takes over.
    pub(crate) fn start_with(&self, path: &OsStr) {
        end(self.home.daemon_pid().expect("it installed the image"));
        self.home.slipway(["start"]).env("PATH", path).within(PATIENCE).run().ok();
    }

    /// Name, start and end of each phase.
    pub(crate) fn phases(&self) -> String {
        let status = self.home.status();
        let phases = status["phases"].as_array().cloned().unwrap_or_default();
        let seconds =
            |ms: &serde_json::Value| ms.as_f64().map_or("-".into(), |ms| format!("{:.1}", ms / 1000.0));
        phases
            .iter()
            .map(|p| {
                let name = p["name"].as_str().unwrap_or_default();
                format!("  {name:<24} {:>6} – {:>6}\n", seconds(&p["started_ms"]), seconds(&p["ended_ms"]))
            })
            .collect()
    }
}

impl Side for Ours {
    fn socket(&self) -> PathBuf {
        self.home.docker_sock()
    }

    fn client(&self) -> PathBuf {
        self.client.clone()
    }

    fn cpu_seconds(&self) -> f64 {
        // The shim's are the machine and the share server.
        let shim = self.home.machine_pid().and_then(parent);
        let pids: Vec<u32> = shim.into_iter().flat_map(family).chain(self.home.daemon_pid()).collect();
        cpu_of(&pids)
    }
}

/// The guest that Lima and Colima stand for, reached as they reach it: `ssh -L`.
pub(crate) struct Peer {
    dir: PathBuf,
    up: PathBuf,
    client: PathBuf,
}

impl Peer {
    pub(crate) fn new(dir: &Path, up: &Path, built: &Built) -> Self {
        Self { dir: dir.to_owned(), up: up.to_owned(), client: client(built) }
    }

    /// Boots a throw-away copy: its first start.
    pub(crate) fn start(&self) -> Sample {
        let began = Instant::now();
        // QEMU 7.2's emulation dies at cmpxchg16b; the script leaves the machine running, its pipes too.
        let up = format!(
            "'{}' '{}' keep > '{}/up.log' 2>&1",
            self.up.display(),
            self.dir.display(),
            self.dir.display()
        );
        Command::new("sh")
            .args(["-c", &up])
            .env("FRESH", "1")
            .env("CPU", "max,-cx16")
            .within(PATIENCE)
            .run()
            .ok();
        self.docker(&["version"]).run().ok();
        Sample { wall: began.elapsed(), cpu: self.cpu_seconds() }
    }

    /// As `ssh -L` leads a port on this host to one in the guest.
    pub(crate) fn forward(&self, from: u16, to: u16) {
        let forward = format!("127.0.0.1:{from}:127.0.0.1:{to}");
        self.ssh(&["-O", "forward", "-L", &forward]).run().ok();
    }

    /// Speaks to the connection that the script left.
    fn ssh(&self, words: &[&str]) -> Command {
        let path = format!("ControlPath={}/cm", self.dir.display());
        Command::new("ssh").args(words).args(["-o", &path, "dev@127.0.0.1"])
    }

    fn pids(&self) -> Vec<u32> {
        let machine =
            fs::read_to_string(self.dir.join("qemu.pid")).ok().and_then(|pid| pid.trim().parse().ok());
        let master = self.ssh(&["-O", "check"]).run();
        // `Master running (pid=123)`
        let ssh = master.err.split_once("pid=").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
        [machine, ssh].into_iter().flatten().collect()
    }
}

impl Side for Peer {
    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    fn client(&self) -> PathBuf {
        self.client.clone()
    }

    fn cpu_seconds(&self) -> f64 {
        cpu_of(&self.pids())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.pids().into_iter().for_each(end);
    }
}

fn client(built: &Built) -> PathBuf {
    built.image.join("host-tools/docker")
}

fn answer(stream: &mut UnixStream) {
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    // `_ping` answers `OK` after its head.
    while !answer.ends_with(b"\r\n\r\nOK") {
        let length = stream.read(&mut chunk).expect("an answer");
        assert!(length > 0, "the engine answers: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..length]);
    }
}

/// Asks `count` times, one after the other, on one connection or each on its own.
pub(crate) fn pings(socket: &Path, count: usize, one: bool) -> Duration {
    let connect = || {
        let stream = UnixStream::connect(socket).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
    };
    let mut kept = one.then(connect);
    let began = Instant::now();
    for _ in 0..count {
        let mut fresh = None;
        let stream = match &mut kept {
            Some(stream) => stream,
            None => fresh.insert(connect()),
        };
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").expect("asked");
        answer(stream);
    }
    began.elapsed()
}

/// Streams through `docker exec -i`: `input` zero bytes in, whatever the script says out.
pub(crate) fn bulk(side: &dyn Side, script: &str, input: usize) -> Duration {
    let command = side.docker(&["exec", "-i", "bench", "sh", "-c", script]).stdin(vec![0; input]);
    let began = Instant::now();
    command.run().ok();
    began.elapsed()
}

/// One container, from nothing to its end.
pub(crate) fn run(side: &(impl Side + ?Sized)) -> Duration {
    let began = Instant::now();
    side.docker(&["run", "--rm", "--network", "none", "bench", "true"]).run().ok();
    began.elapsed()
}

/// This host: processors, kernel, QEMU.
pub(crate) fn host() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let qemu = Command::new("qemu-system-x86_64").args(["--version"]).run().ok().text();
    format!("{cpus} processors, Linux {}, {}", kernel.trim(), qemu.lines().next().unwrap_or_default())
}
