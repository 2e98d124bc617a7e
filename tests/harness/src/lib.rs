//! A real machine for the end-to-end tests: the real program, the real image under QEMU, real docker clients.
//!
//! ```text
//!   Home::new ─▶ image installed ─▶ Home::start ─▶ tests share it ─▶ dropped: machine and daemon end, folder goes
//! ```
//!
//! Knows Slipway as a person does, by its commands; nothing here looks below them.

mod command;
mod greeter;
mod initramfs;
mod lines;
mod logind;
mod proxy;
mod registry;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use command::{Command, Ran, Running};
pub use greeter::Greeter;
pub use initramfs::initramfs;
pub use lines::Lines;
pub use logind::Logind;
pub use proxy::Proxy;
pub use registry::{Authority, Registry};

/// Built program and image, as `tests/run` names them in the environment.
#[derive(Debug, Clone)]
pub struct Built {
    /// The program `slipway`.
    pub slipway: PathBuf,
    /// The folder that the image builder wrote.
    pub image: PathBuf,
    /// Docker's clients for this host: an image brings those of its own processor.
    pub tools: PathBuf,
}

impl Built {
    /// From `SLIPWAY_TEST_BIN` and `SLIPWAY_TEST_IMAGE`.
    ///
    /// # Errors
    /// What to run instead, when they are not set.
    pub fn of_environment() -> Result<Self, String> {
        let var = |name: &str| std::env::var_os(name).map(PathBuf::from).ok_or_else(|| name.to_owned());
        match (var("SLIPWAY_TEST_BIN"), var("SLIPWAY_TEST_IMAGE")) {
            (Ok(slipway), Ok(image)) => {
                let tools = image.join("host-tools");
                Ok(Self { slipway, image, tools })
            }
            (Err(name), _) | (_, Err(name)) => {
                Err(format!("{name} is not set: `tests/run` builds what these tests need and sets it"))
            }
        }
    }
}

/// Debian's node with its libraries and a shell, as packages for [`Home::debian_image`].
pub const NODE: &[&str] = &[
    "busybox-static",
    "nodejs",
    "libnode108",
    "gcc-12-base",
    "libbrotli1",
    "libc-ares2",
    "libc6",
    "libgcc-s1",
    "libicu72",
    "libnghttp2-14",
    "libssl3",
    "libstdc++6",
    "libuv1",
    "node-acorn",
    "node-busboy",
    "node-cjs-module-lexer",
    "node-undici",
    "node-xtend",
    "zlib1g",
];

/// A static busybox with every applet in its `/bin`, as `docker import` takes it.
///
/// # Panics
/// Without `/bin/busybox`.
pub fn busybox_archive() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    std::fs::create_dir_all(dir.join("bin")).expect("made");
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("busybox-static is installed");
    let applets = Command::new("/bin/busybox").args(["--list"]).run().ok().text();
    for applet in applets.lines().filter(|a| *a != "busybox") {
        let link = dir.join("bin").join(applet);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("busybox", link).expect("linked");
        }
    }
    for folder in ["tmp", "etc", "root", "proc", "dev", "sys"] {
        std::fs::create_dir_all(dir.join(folder)).expect("made");
    }
    Command::new("tar").args(["-c", "-C"]).arg(dir).arg(".").run().ok().out
}

/// A person's home with Slipway in it. Dropped, it takes its machine and its daemon along.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
    home: PathBuf,
    built: Built,
    user: Option<u32>,
}

impl Home {
    /// An empty one. Nothing is installed.
    ///
    /// # Panics
    /// Where there is no room for a temporary folder.
    pub fn empty(built: &Built) -> Self {
        // Short: sockets go below it.
        let dir = tempfile::Builder::new().prefix("slipway-").tempdir().expect("a temporary folder");
        let home = dir.path().to_owned();
        Self { dir, home, built: built.clone(), user: None }
    }

    /// The same with the home itself at `below` its temporary folder.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn empty_at(built: &Built, below: &str) -> Self {
        let mut home = Self::empty(built);
        home.home = home.dir.path().join(below);
        std::fs::create_dir_all(&home.home).expect("made");
        home
    }

    /// Like [`Home::new`] of another user, whose programs run as they. Only root can ask for it.
    ///
    /// # Panics
    /// When the image is refused, or by anybody but root.
    pub fn of_user(built: &Built, user: u32) -> Self {
        let mut home = Self::empty(built);
        std::os::unix::fs::chown(&home.home, Some(user), Some(user)).expect("given away");
        home.user = Some(user);
        home.install();
        home
    }

    /// With the built image, and a machine small enough for a shared host.
    ///
    /// # Panics
    /// When the image is refused.
    pub fn new(built: &Built) -> Self {
        let home = Self::empty(built);
        home.install();
        home
    }

    /// Installs the built image.
    ///
    /// # Panics
    /// When it is refused.
    pub fn install(&self) {
        self.slipway(["image", "install"]).arg(&self.built.image).run().ok();
        self.slipway(["config", "set", "machine.memory", "2GiB"]).run().ok();
    }

    /// Boots.
    ///
    /// # Panics
    /// With everything that was said, when the engine does not answer.
    pub fn start(&self) {
        self.start_within(Duration::from_secs(400));
    }

    /// Boots, for at most that long by the test's clock.
    ///
    /// # Panics
    /// As [`Home::start`].
    pub fn start_within(&self, patience: Duration) {
        let ran = self.slipway(["start"]).within(patience).run();
        if ran.code != 0 {
            let logs = self.slipway(["logs", "-n", "80"]).run();
            panic!("the machine did not start\n{ran}\n{logs}");
        }
    }

    /// `HOME`.
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// A file below `~/.slipway`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.join(".slipway").join(name)
    }

    /// The engine's socket.
    ///
    /// # Panics
    /// When `slipway status` does not name it.
    pub fn docker_sock(&self) -> PathBuf {
        PathBuf::from(self.status()["socket"].as_str().expect("a path"))
    }

    /// The program, in this home and nowhere else.
    pub fn slipway<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.at_home(Command::new(&self.built.slipway)).args(args)
    }

    /// The docker client that comes with the image, in this home: it finds the engine as a person's does.
    pub fn docker<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.at_home(Command::new(self.built.tools.join("docker"))).args(args)
    }

    fn at_home(&self, command: Command) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let command = command.env_clear().env("PATH", path).env("HOME", &self.home).env("TERM", "dumb");
        // Not in a folder that they may not enter.
        match self.user {
            Some(user) => command.as_user(user).in_dir(&self.home),
            None => command,
        }
    }

    /// `slipway status --json`.
    ///
    /// # Panics
    /// When it is no JSON.
    pub fn status(&self) -> serde_json::Value {
        let ran = self.slipway(["status", "--json"]).run();
        serde_json::from_slice(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"))
    }

    /// The daemon's process, when one answers.
    pub fn daemon_pid(&self) -> Option<u32> {
        let ran = self.slipway(["version", "--json"]).run();
        let version: serde_json::Value = serde_json::from_slice(&ran.out).ok()?;
        u32::try_from(version["daemon"]["pid"].as_u64()?).ok()
    }

    /// The machine's process, when one runs.
    pub fn machine_pid(&self) -> Option<u32> {
        u32::try_from(self.status()["machine"]["pid"].as_u64()?).ok()
    }

    /// A static busybox as the image `box`, with every applet in its `/bin`.
    ///
    /// # Panics
    /// Without `/bin/busybox`, or when the engine refuses it.
    pub fn busybox_image(&self) {
        self.docker(["import", "-c", "CMD [\"/bin/sh\"]", "-", "box"]).stdin(busybox_archive()).run().ok();
    }

    /// An image of Debian packages, which are fetched on first use; the caller names their libraries, too. Takes up to `patience`
    /// twice.
    ///
    /// # Panics
    /// When a package cannot be had, or the engine refuses the image.
    pub fn debian_image<P: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        packages: impl IntoIterator<Item = P>,
        patience: Duration,
    ) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../debian");
        let archive = Command::new(script).arg(name).args(packages).within(patience).run().ok().text();
        self.docker(["import", &archive, name]).within(patience).run().ok();
    }

    /// Waits until the host watches a folder for a container, which it does as soon as that has started.
    ///
    /// # Panics
    /// When it does not within half a minute.
    pub fn wait_watched(&self, folder: &Path) {
        self.wait_for("the folder is watched", Duration::from_secs(30), |home| {
            let list = home.slipway(["mount", "ls", "--json"]).run().ok();
            let list: serde_json::Value = serde_json::from_slice(&list.out).expect("JSON");
            let watched = list["mounts"].as_array().into_iter().flatten();
            let mut watched = watched.flat_map(|mount| mount["watched"].as_array().into_iter().flatten());
            watched.any(|path| path.as_str() == folder.to_str())
        });
    }

    /// Waits until `done` says so.
    ///
    /// # Panics
    /// With `what`, when it does not in `patience`.
    pub fn wait_for(&self, what: &str, patience: Duration, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not within {} s", patience.as_secs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let stopped = self.slipway(["stop", "--timeout", "5"]).within(Duration::from_secs(60)).run();
        if stopped.code != 0 {
            eprintln!("a machine was not stopped in order: {stopped}");
            self.slipway(["stop", "--force"]).run();
        }
        if let Some(pid) = self.daemon_pid() {
            end(pid);
        }
    }
}

/// Ends one process in order, and waits until it is gone, ten seconds at most.
///
/// # Panics
/// Without `kill`.
pub fn end(pid: u32) {
    kill(pid, "TERM");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to one process.
///
/// # Panics
/// Without `kill`.
pub fn kill(pid: u32, signal: &str) {
    Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).run();
}

/// Whether the process has ended.
pub fn gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}
