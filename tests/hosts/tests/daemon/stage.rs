//! A home, a daemon, the agent beside it, and docker's part.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use minisign::KeyPair;
use serde_json::Value;
use slipway_manifest::{MANIFEST, Manifest, Part, SIGNATURE};
use slipway_settings::paths::{self, Env, Paths};
use slipway_vm::GuestArch;
use slipway_vsock::endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    time::timeout,
};

/// The variable with the address of `slipway-test-beside`: it is there before this program, where that runs under Wine.
pub(crate) const BESIDE: &str = "SLIPWAY_TEST_BESIDE";
pub(crate) const PROFILE: &str = paths::DEFAULT_PROFILE;
/// For whatever has to happen; nothing here takes a second but Wine's starts of programs.
const PATIENCE: Duration = Duration::from_secs(60);

const QUIT: &str = "POST /v1/quit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

/// A client's end of the engine's endpoint.
pub(crate) type Stream = endpoint::Stream;

pub(crate) struct Stage {
    dir: tempfile::TempDir,
    slipway: PathBuf,
    beside: String,
    inside: Option<Child>,
    daemon: Option<Child>,
    runtime: Runtime,
}

impl Stage {
    /// Or why there can be none.
    pub(crate) fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("folder");
        let slipway = match std::env::var_os("SLIPWAY_TEST_BIN") {
            Some(program) if cfg!(unix) => PathBuf::from(program),
            _ => sibling("slipway")?,
        };
        let (inside, beside) = match std::env::var(BESIDE) {
            Ok(address) => (None, address),
            Err(_) => inside(&dir.path().join("beside"))?,
        };
        let runtime = Runtime::new().expect("a runtime");
        Ok(Self { dir, slipway, beside, inside, daemon: None, runtime })
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn paths(&self) -> Paths {
        let env = Env { slipway_home: Some(self.home().into()), ..Env::default() };
        Paths::resolve(&env, PROFILE).expect("short enough")
    }

    /// Where the system's bus is, if there is one.
    pub(crate) fn bus(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("SLIPWAY_HOME", self.home())
            .env(paths::HOME, self.dir.path())
            .env("DOCKER_CONFIG", self.dir.path().join("docker"))
            .env(BESIDE, &self.beside)
            // This computer's own is not to be heard.
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.bus().display()))
            .env_remove("SLIPWAY_PROFILE")
            .stdin(Stdio::null());
        command
    }

    /// Starts one, and waits until it answers.
    pub(crate) fn daemon(&mut self) {
        let log = fs::File::create(self.dir.path().join("daemon.log")).expect("log");
        let own = std::env::current_exe().expect("a program");
        let mut command = self.command(own);
        let child = command.arg("daemon").stdout(log.try_clone().expect("twice")).stderr(log).spawn();
        self.daemon = Some(child.expect("starts"));
        let api = self.paths().api_sock();
        until(
            || self.runtime.block_on(endpoint::connect(&api)).map(drop).map_err(|e| e.to_string()),
            Result::is_ok,
        )
        .unwrap_or_else(|why| panic!("the daemon does not listen: {why}\n{}", self.logs()));
    }

    /// As a crash ends it.
    pub(crate) fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("one lives");
        daemon.kill().expect("killed");
        daemon.wait().expect("ended");
    }

    /// Makes all that the agent does stand still, or go on.
    #[cfg(target_os = "linux")]
    pub(crate) fn stop_inside(&self, still: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let inside = self.inside.as_ref().expect("it runs here");
        let signal = if still { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(inside), signal).expect("told");
    }

    /// In order.
    pub(crate) fn quit_daemon(&mut self) {
        let answer = self.api(QUIT);
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        if let Some(mut daemon) = self.daemon.take() {
            let ended = until(|| daemon.try_wait().expect("asked"), Option::is_some);
            assert!(ended.is_some_and(|code| code.success()), "{ended:?}\n{}", self.logs());
        }
        let api = self.paths().api_sock();
        until(|| self.runtime.block_on(endpoint::connect(&api)).is_err(), |gone| *gone);
    }

    /// What the program prints, which must succeed.
    pub(crate) fn slipway(&self, words: &[&str]) -> String {
        let (code, out, err) = self.run(words);
        assert_eq!(code, 0, "slipway {words:?}: {out}{err}\n{}", self.logs());
        out
    }

    /// What it says when it must not.
    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let (code, out, err) = self.run(words);
        assert!(code != 0, "slipway {words:?} succeeds: {out}{err}\n{}", self.logs());
        err
    }

    /// With its exit code.
    pub(crate) fn status(&self) -> (i32, Value) {
        let (code, out, err) = self.run(&["status", "--json"]);
        (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}\n{}", self.logs())))
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = tokio::process::Command::from(self.command(&self.slipway));
        command.args(words).kill_on_drop(true);
        let output = self.within(async { command.output().await }).expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Installs an image that no machine could boot, signed as one that could.
    pub(crate) fn image(&self) {
        let dir = self.dir.path().join("image");
        fs::create_dir(&dir).expect("folder");
        let parts = ["kernel", "initramfs", "root.erofs"].map(|name| {
            fs::write(dir.join(name), name).expect("part");
            let sha256 = slipway_manifest::hash(&mut name.as_bytes()).expect("hashed");
            Part { name: name.into(), size: name.len() as u64, sha256 }
        });
        let arch = GuestArch::HOST.name().into();
        let manifest = Manifest { version: "1".into(), arch, parts: parts.into(), ..Manifest::default() };
        let json = serde_json::to_vec(&manifest).expect("json");
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().expect("key");
        let signature = minisign::sign(Some(&pk), &sk, json.as_slice(), None, None).expect("signs");
        fs::write(dir.join(MANIFEST), json).expect("manifest");
        fs::write(dir.join(SIGNATURE), signature.into_string()).expect("signature");
        fs::write(dir.join("key.pub"), pk.to_base64()).expect("key");
        self.slipway(&["image", "install", &dir.to_string_lossy(), "--trust-key"]);
    }

    /// The pages' door, open; none, with a word, where its program is not built.
    pub(crate) fn desktop(&self) -> Option<Door> {
        let program = sibling("slipway-desktop").inspect_err(|why| eprintln!("skipped: {why}")).ok()?;
        let pages = self.dir.path().join("pages");
        fs::create_dir_all(&pages).expect("folder");
        fs::write(pages.join("index.html"), "").expect("page");
        let mut command = self.command(program);
        command.args(["--serve", "--ui"]).arg(pages).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("told");
        let (address, token) = url
            .trim()
            .strip_prefix("http://")
            .and_then(|url| url.split_once("/?token="))
            .unwrap_or_else(|| panic!("no address: {url}"));
        Some(Door { child, address: address.into(), token: token.into() })
    }

    /// One that is shared, as its own disk writes it.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.dir.path().join("Some folder");
        fs::create_dir_all(&folder).expect("made");
        let real = folder.canonicalize().expect("there");
        // Windows' own longer form is what nobody writes.
        real.to_str().expect("text").trim_start_matches(r"\\?\").into()
    }

    /// One request to the engine, and all of its answer.
    pub(crate) fn ask(&self, request: &str) -> String {
        self.exchange(&self.paths().docker_sock(), request)
    }

    /// Asks the engine for a container as docker does, on a connection that stays; the answer with its head.
    pub(crate) fn create(&self, container: &Value) -> String {
        let body = container.to_string();
        let request = format!(
            "POST /v1.51/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.within(async {
            let mut stream = endpoint::connect(&self.paths().docker_sock()).await.expect("connects");
            stream.write_all(request.as_bytes()).await.expect("asked");
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.expect("a head"));
            }
            let head = String::from_utf8_lossy(&answer).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("a body");
            [answer, body].concat()
        });
        String::from_utf8(answer).expect("text")
    }

    fn api(&self, request: &str) -> String {
        self.exchange(&self.paths().api_sock(), request)
    }

    fn exchange(&self, endpoint: &Path, request: &str) -> String {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = self.within(async {
            let mut stream = endpoint::connect(endpoint).await.expect("connects");
            stream.write_all(request.as_bytes()).await.expect("asked");
            to_the_end(&mut stream).await
        });
        String::from_utf8(answer).expect("text")
    }

    /// Attaches to a container of the engine's part.
    pub(crate) fn attach<T>(&self, container: &str, with: impl AsyncFnOnce(&mut Stream) -> T) -> T {
        let head = format!(
            "POST /v1.51/containers/{container}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        self.within(async {
            let mut stream = endpoint::connect(&self.paths().docker_sock()).await.expect("connects");
            stream.write_all(head.as_bytes()).await.expect("asked");
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.expect("a head"));
            }
            assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
            with(&mut stream).await
        })
    }

    fn within<T>(&self, what: impl Future<Output = T>) -> T {
        let done = self.runtime.block_on(async { timeout(PATIENCE, what).await });
        done.unwrap_or_else(|_| panic!("nothing for {} s\n{}", PATIENCE.as_secs(), self.logs()))
    }

    /// Whether nobody has the shim's lock.
    pub(crate) fn machine_has_ended(&self) -> bool {
        let lock = fs::File::options().write(true).open(self.paths().shim_lock()).expect("there");
        lock.try_lock().is_ok()
    }

    fn logs(&self) -> String {
        let mut files = vec![self.dir.path().join("daemon.log")];
        files.extend(["daemon", "shim"].map(|unit| self.paths().log(unit)));
        let text = |file: PathBuf| {
            format!("== {}\n{}", file.display(), fs::read_to_string(&file).unwrap_or_default())
        };
        files.into_iter().map(text).collect()
    }
}

/// `slipway-desktop --serve`, as long as this lives.
pub(crate) struct Door {
    child: Child,
    address: String,
    token: String,
}

impl Door {
    /// One request of a page, and all of its answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str) -> String {
        let port = self.address.rsplit(':').next().expect("a port");
        let mut stream = std::net::TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nOrigin: http://{}\r\nCookie: slipway-{port}={}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.address, self.address, self.token
        )
        .expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After a failure they live; the shim ends with the program beside. A daemon that a command started is asked.
        let _ = self.runtime.block_on(async {
            let asking = async {
                let mut stream = endpoint::connect(&self.paths().api_sock()).await?;
                stream.write_all(QUIT.as_bytes()).await?;
                stream.read(&mut [0]).await
            };
            timeout(Duration::from_secs(5), asking).await
        });
        for mut child in [self.daemon.take(), self.inside.take()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program that cargo built beside this one.
fn sibling(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().expect("a program");
    let dir = own.ancestors().nth(2).expect("target's folder");
    let program = dir.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!(
            "`{}` is not built: `cargo build -p slipway`, or set SLIPWAY_TEST_BIN",
            program.display()
        ))
    }
}

/// Starts the agent on this host, and says where.
fn inside(dir: &Path) -> Result<(Option<Child>, String), String> {
    if !cfg!(target_os = "linux") {
        return Err(format!("the agent is Linux's; {BESIDE} says where one runs: see tests/windows/run"));
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_slipway-test-beside"))
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut port = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("told");
    Ok((Some(child), format!("127.0.0.1:{}", port.trim())))
}

/// Asks until the answer is as it should be; the last one, whatever it is, when that takes too long.
pub(crate) fn until<T>(mut ask: impl FnMut() -> T, right: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if right(&answer) || Instant::now() >= deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends some bytes and hears as many, while both directions are open.
pub(crate) async fn talk(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    let mut back = vec![0; bytes.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (sent, heard) = tokio::join!(writer.write_all(bytes), reader.read_exact(&mut back));
    sent.expect("sent");
    heard.expect("heard");
    back
}

/// Sends the last bytes, ends this direction, and hears the other one to its end.
pub(crate) async fn rest(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.expect("sent");
    stream.shutdown().await.expect("half-closed");
    to_the_end(stream).await
}

/// Hears all that comes.
pub(crate) async fn to_the_end(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("heard");
    all
}
