//! The real program against a daemon that plays a part: what is printed where, and with which exit code.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use slipway_api::{
    Problem,
    exec::{ExecRequest, Frame, UPGRADE},
    paths::{self, Env, Paths},
};
use slipway_vsock::endpoint::{Client, Listener};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    task::JoinSet,
    time::timeout,
};

/// The daemon's endpoint: a socket, on Windows a named pipe.
struct Endpoint(Listener);

impl axum::serve::Listener for Endpoint {
    type Io = Client;
    type Addr = ();

    async fn accept(&mut self) -> (Client, ()) {
        (self.0.accept().await.expect("accepted"), ())
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the daemon says, and what it heard.
#[derive(Default)]
struct Part {
    status: Value,
    watch: Vec<Value>,
    heard: Vec<(String, Value)>,
}

struct Home {
    dir: tempfile::TempDir,
    part: Arc<Mutex<Part>>,
    /// Plays the daemon, as long as there is this home.
    daemon: JoinSet<()>,
}

fn status(state: &str) -> Value {
    json!({"profile": "default", "state": state, "engine": null, "socket": "/s", "machine": null, "image": null,
        "docker": null, "running_since": null})
}

fn phase(name: &str, state: &str, ended_ms: Option<u64>) -> Value {
    json!({"name": name, "state": state, "started_ms": 0, "ended_ms": ended_ms})
}

impl Home {
    fn empty() -> Self {
        let part = Part { status: status("stopped"), ..Part::default() };
        Self {
            dir: tempfile::tempdir().expect("folder"),
            part: Arc::new(Mutex::new(part)),
            daemon: JoinSet::new(),
        }
    }

    /// With a daemon.
    fn new() -> Self {
        let mut home = Self::empty();
        let router = router(home.part.clone());
        home.serve(router);
        home
    }

    /// Plays the daemon.
    fn serve(&mut self, router: Router) {
        std::fs::create_dir(self.path("run")).expect("made");
        let endpoint = Endpoint(Listener::bind(&self.paths().api_sock()).expect("bound"));
        self.daemon.spawn(async move { axum::serve(endpoint, router).await.expect("serves") });
    }

    fn paths(&self) -> Paths {
        let env = Env { slipway_home: Some(self.dir.path().into()), home: None, runtime_dir: None };
        Paths::resolve(&env, paths::DEFAULT_PROFILE).expect("a place")
    }

    fn say(&self, status: Value, watch: Vec<Value>) {
        let mut part = self.part.lock().expect("whole");
        part.status = status;
        part.watch = watch;
    }

    fn heard(&self, what: &str) -> Option<Value> {
        let part = self.part.lock().expect("whole");
        part.heard.iter().find(|(path, _)| path == what).map(|(_, body)| body.clone())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(paths::HOME, self.dir.path())
            .env("SLIPWAY_HOME", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> (i32, String, String) {
        ended(self.command(args)).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

async fn ended(mut command: Command) -> (i32, String, String) {
    let output = timeout(Duration::from_secs(30), command.output()).await.expect("ends").expect("runs");
    told(output)
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

fn router(part: Arc<Mutex<Part>>) -> Router {
    let version = json!({"slipway": env!("CARGO_PKG_VERSION"), "pid": 1, "engine": "28.5.1", "image": null});
    let setting = json!({"name": "machine.cpus", "value": "4", "set": true, "doc": "Virtual CPUs.",
        "expected": "a number", "needs_restart": true});
    let (now, watch, start, update, reset) = (part.clone(), part.clone(), part.clone(), part.clone(), part);
    let list = json!([setting]);
    Router::new()
        .route("/v1/version", get(async || Json(version)))
        .route("/v1/status", get(async move || Json(now.lock().expect("whole").status.clone())))
        .route(
            "/v1/status/watch",
            get(async move || {
                let lines: String =
                    watch.lock().expect("whole").watch.iter().map(|s| format!("{s}\n")).collect();
                Body::from(lines)
            }),
        )
        .route(
            "/v1/start",
            post(async move |Json(body): Json<Value>| {
                start.lock().expect("whole").heard.push(("start".into(), body));
                Json(status("starting"))
            }),
        )
        .route(
            "/v1/settings",
            get(async move || {
                let home = list;
                Json(home)
            }),
        )
        .route(
            "/v1/settings/{name}",
            put(async move |Path(name): Path<String>, Json(_): Json<Value>| -> Response {
                if name == "machine.cpus" {
                    return Json(setting).into_response();
                }
                let problem =
                    Problem::new("x", format!("there is no setting `{name}`; did you mean `machine.cpus`?"));
                (StatusCode::BAD_REQUEST, Json(problem)).into_response()
            }),
        )
        .route(
            "/v1/holdings",
            get(async || Json(json!({"data_disk": "/d", "data_bytes": 5_000_000, "settings": []}))),
        )
        .route(
            "/v1/reset",
            post(async move |Json(body): Json<Value>| {
                reset.lock().expect("whole").heard.push(("reset".into(), body));
                Json(())
            }),
        )
        .route(
            "/v1/logs",
            get(async || {
                let line = json!({"unix_ms": 1000, "unit": "agent", "line": "hello"});
                Body::from(format!("{line}\n").repeat(50_000))
            }),
        )
        .route(
            "/v1/update/check",
            post(async |Json(body): Json<Value>| -> Response {
                if body["dir"].is_null() {
                    let none = Problem::new(
                        "update-none",
                        "guest image 0.1 is in use, and none lies beside the program",
                    );
                    return (StatusCode::CONFLICT, Json(none)).into_response();
                }
                Json(json!({"from": "0.1", "to": {"version": "0.2", "dir": body["dir"]}, "declined": false}))
                    .into_response()
            }),
        )
        .route(
            "/v1/update",
            post(async move |Json(body): Json<Value>| -> Response {
                let mut part = update.lock().expect("whole");
                part.heard.push(("update".into(), body.clone()));
                let state = part.watch.last().map_or(json!("stopped"), |last| last["state"].clone());
                if state == "failed" {
                    let problem = Problem::new("update-failed", "guest image 0.2 was not taken")
                        .because("the guest panicked");
                    return (StatusCode::INTERNAL_SERVER_ERROR, Json(problem)).into_response();
                }
                Json(json!({"from": "0.1", "to": "0.2", "state": state})).into_response()
            }),
        )
        .route("/v1/exec", post(exec))
}

/// Answers input with itself in capitals, and ends with the length of it when it has ended.
async fn exec(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
    let asked: ExecRequest = serde_json::from_slice(&body).expect("a request");
    assert!(asked.tty.is_none(), "no terminal here");
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
        let mut length = 0;
        while let Some(Frame::Stdin(bytes)) = Frame::read(&mut stream).await.expect("a frame") {
            if bytes.is_empty() {
                break;
            }
            length += bytes.len();
            let loud = bytes.to_ascii_uppercase();
            stream.write_all(&Frame::Stdout(loud.into()).encode()).await.expect("sent");
        }
        let said = asked.argv.join(" ").into_bytes();
        stream.write_all(&Frame::Stderr(said.into()).encode()).await.expect("sent");
        stream.write_all(&Frame::Exit(length as i32).encode()).await.expect("sent");
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    response.header("connection", "upgrade").header("upgrade", UPGRADE).body(Body::empty()).expect("built")
}

#[tokio::test]
async fn nothing_runs_and_nothing_is_started_to_find_that_out() {
    let home = Home::empty();
    let (code, out, _) = home.run(&["status"]).await;
    assert_eq!((code, out.as_str()), (3, "state     stopped\n"));
    let (code, out, _) = home.run(&["ls", "--json"]).await;
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &json["state"]), (3, &json!("stopped")));
    assert_eq!(json["socket"], json!(home.paths().docker_sock()));
    assert_eq!(home.run(&["stop"]).await.0, 0);
    assert_eq!(home.run(&["version"]).await.1, format!("slipway {}\n", env!("CARGO_PKG_VERSION")));
    let (code, _, err) = home.run(&["shell", "--", "true"]).await;
    assert_eq!((code, err.as_str()), (1, "error: no machine runs\nhint: run `slipway start`\n"));
    let (code, _, err) = home.run(&["logs", "-f"]).await;
    assert!(code == 1 && err.contains("nothing to follow"), "{err}");
    let (_, out, _) = home.run(&["config", "path"]).await;
    assert_eq!(out.trim_end(), home.path("settings.toml").to_str().expect("text"));
    assert_eq!(std::fs::read_dir(home.dir.path()).expect("list").count(), 0, "nothing was made");
}

#[cfg(target_os = "linux")] // Looks by the daemon's own code.
#[tokio::test]
async fn a_doctor_looks_without_a_daemon_and_makes_nothing() {
    let home = Home::empty();
    let (code, out, err) = home.run(&["doctor"]).await;
    assert_eq!(code, 1, "there is no image: {out}");
    assert!(out.contains("✗ image ") && out.contains("hint: ") && err.contains("1 failed"), "{out}{err}");
    let (_, out, _) = home.run(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["checks"][0]["id"], "daemon");
    assert_eq!(std::fs::read_dir(home.dir.path()).expect("list").count(), 0, "nothing was made");

    // One whose daemon is of another mind is told what it says.
    let home = Home::new();
    let mut degraded = status("degraded");
    degraded["problem"] =
        json!({"code": "x", "message": "events are lost", "causes": ["a limit"], "hint": "raise it"});
    home.say(degraded, Vec::new());
    let (_, out, _) = home.run(&["doctor"]).await;
    assert!(out.contains("events are lost\n") && out.contains("caused by: a limit\n"), "{out}");
    assert!(out.contains("hint: raise it\n"), "{out}");
}

#[cfg(target_os = "linux")] // Made without a daemon by the daemon's own code.
#[tokio::test]
async fn a_bundle_is_one_file_where_it_was_asked_for() {
    let home = Home::empty();
    let mut command = home.command(&["diagnose"]);
    command.current_dir(home.dir.path());
    let (code, out, err) = ended(command).await;
    let path = PathBuf::from(out.trim_end());
    assert!(code == 0 && path.is_file() && err.contains("nothing was sent"), "{out}{err}");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("slipway-diagnose-") && name.ends_with("Z.tar.gz"), "{name}");
    assert_eq!(std::fs::read_dir(home.dir.path()).expect("list").count(), 1, "nothing else was made");
    let (code, _, err) = home.run(&["diagnose", "-o", path.to_str().expect("text")]).await;
    assert!(code == 1 && err.contains("is there already") && err.contains("hint: "), "{err}");
}

#[tokio::test]
async fn wrong_profiles_and_usage_are_told() {
    let home = Home::empty();
    let (code, _, err) = home.run(&["status", "--profile", "a/b"]).await;
    assert!(code == 1 && err.starts_with("error: `a/b` is not a profile name"), "{err}");
    assert_eq!(home.run(&["strat"]).await.0, 2);
    let (code, out, _) = home.run(&["--help"]).await;
    assert!(code == 0 && out.contains("examples:"), "{out}");
    for shell in ["bash", "fish", "zsh"] {
        assert!(home.run(&["completion", shell]).await.1.contains("slipway"), "{shell}");
    }
}

#[tokio::test]
async fn an_update_is_told_asked_for_and_shown() {
    let home = Home::new();
    let (code, out, err) = home.run(&["update", "--check"]).await;
    assert_eq!((code, out.as_str()), (3, ""), "a script can tell: {err}");
    assert_eq!(err, "there is no update: guest image 0.1 is in use, and none lies beside the program\n");
    let dir = home.path("new");
    let from = dir.to_str().expect("text");
    let ready = format!("guest image 0.1 is in use; 0.2 is ready in `{from}`\n");
    let (code, out, _) = home.run(&["update", "--from", from, "--check"]).await;
    assert_eq!((code, out), (0, ready.clone()));
    let (_, out, _) = home.run(&["update", "--from", from, "--check", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["to"]["version"], "0.2");
    assert!(home.heard("update").is_none(), "nothing was changed");

    // A machine that runs is not restarted unasked.
    home.say(status("running"), vec![status("stopping")]);
    let (code, _, err) = home.run(&["update", "--from", from]).await;
    assert!(code == 1 && err.contains("its containers are stopped") && err.contains("add `--yes`"), "{err}");
    assert!(home.heard("update").is_none(), "nothing was changed");
    home.say(status("running"), vec![status("stopping"), status("starting"), status("running")]);
    let (code, _, err) = home.run(&["update", "--from", from, "--yes"]).await;
    assert!(code == 0 && err.ends_with("the machine runs with guest image 0.2\n"), "{err}");
    assert_eq!(home.heard("update").expect("asked")["dir"], json!(from));
    home.say(status("running"), vec![status("stopping"), status("failed")]);
    let (code, _, err) = home.run(&["update", "--from", from, "--yes"]).await;
    assert!(code == 1 && err.contains("0.2 was not taken\ncaused by: the guest panicked"), "{err}");

    // One that is stopped has nothing to lose.
    home.say(status("stopped"), Vec::new());
    let (code, out, err) = home.run(&["update", "--from", from, "--json"]).await;
    let done: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &done["to"], &done["state"]), (0, &json!("0.2"), &json!("stopped")), "{err}");
    assert!(err.ends_with("guest image 0.2 boots from the next start on\n"), "{err}");
}

#[tokio::test]
async fn a_start_shows_each_phase_and_what_is_worth_knowing() {
    let home = Home::new();
    let image = phase("image", "done", Some(112));
    let mut starting = status("starting");
    starting["phases"] = json!([image, phase("machine", "running", None)]);
    let mut running = status("running");
    running["phases"] =
        json!([image, phase("machine", "done", Some(290)), phase("engine", "done", Some(2300))]);
    running["machine"] = json!({"cpus": 2, "memory_mib": 2048, "pid": 1, "vmm": "qemu", "accel": "tcg",
        "accel_reason": "no /dev/kvm", "transport": "vsock"});
    running["docker"] = json!({"context": "slipway", "current": true});
    home.say(status("stopped"), vec![status("starting"), starting, running]);
    let (code, out, err) = home.run(&["start", "-c", "2", "--timeout", "9"]).await;
    assert_eq!(
        err,
        "✓ image verified (0.1 s)\n✓ machine started (0.2 s)\n✓ engine ready (2.3 s)\n\
         ! running without hardware acceleration: no /dev/kvm; everything works, several times slower\n\
         docker context is now `slipway`\n"
    );
    assert_eq!((code, out.as_str()), (0, ""), "talk goes to stderr");
    assert_eq!(
        home.heard("start").expect("asked"),
        json!({"overrides": [["machine.cpus", "2"]], "timeout_s": 9, "docker_config": home.path(".docker")})
    );
    let mut command = home.command(&["start", "-q"]);
    command.env("DOCKER_HOST", "tcp://x");
    assert_eq!(ended(command).await.2, "", "quiet is quiet");
    let (code, _, err) = home.run(&["start", "--detach"]).await;
    assert!(code == 0 && err.starts_with("starting in the background\n"), "{err}");
}

#[tokio::test]
async fn starts_that_go_wrong_say_why() {
    let home = Home::new();
    let mut failed = status("failed");
    failed["problem"] = json!({"code": "x", "message": "the agent did not answer", "causes": ["no vsock"],
        "hint": "slipway logs"});
    home.say(status("stopped"), vec![failed]);
    let (code, _, err) = home.run(&["start"]).await;
    assert_eq!(
        (code, err.as_str()),
        (1, "error: the agent did not answer\ncaused by: no vsock\nhint: slipway logs\n")
    );
    home.say(status("stopped"), vec![status("degraded")]);
    assert_eq!(home.run(&["start"]).await.0, 4);
    home.say(status("stopped"), vec![status("starting")]);
    let (code, _, err) = home.run(&["start"]).await;
    assert!(code == 1 && err.starts_with("error: the daemon ended meanwhile\n"), "{err}");
    home.say(status("stopped"), vec![status("stopped")]);
    assert!(home.run(&["start"]).await.2.starts_with("error: the machine was stopped while it started"));
}

#[cfg(unix)] // Left by a signal.
#[tokio::test]
async fn leaving_a_start_leaves_it_going() {
    use futures_util::StreamExt;
    let mut home = Home::empty();
    let endless = Router::new().route(
        "/v1/status/watch",
        get(async || {
            // One line, then silence.
            let first = format!("{}\n", status("starting"));
            let lines = futures_util::stream::once(async { std::io::Result::Ok(first) });
            Body::from_stream(lines.chain(futures_util::stream::pending()))
        }),
    );
    let version = json!({"slipway": env!("CARGO_PKG_VERSION"), "pid": 1, "engine": null, "image": null});
    let router = endless
        .route("/v1/version", get(async || Json(version)))
        .route("/v1/status", get(async || Json(status("stopped"))))
        .route("/v1/start", post(async || Json(status("starting"))));
    home.serve(router);
    let child = home.command(&["start"]).spawn().expect("runs");
    let pid = child.id().expect("runs").to_string();
    // Long enough to be in the middle; too early is told apart by what it says.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.expect("kill runs").success());
    let output =
        timeout(Duration::from_secs(10), child.wait_with_output()).await.expect("ends").expect("ended");
    let (code, _, err) = told(output);
    assert_eq!(code, 130);
    assert_eq!(
        err,
        "the start goes on in the background\nhint: `slipway status` shows it, `slipway stop` ends it\n"
    );
}

#[tokio::test]
async fn settings_are_read_and_changed() {
    let home = Home::new();
    assert_eq!(home.run(&["config", "get", "machine.cpus"]).await.1, "4\n");
    assert_eq!(home.run(&["config", "list"]).await.1, "machine.cpus  4  Virtual CPUs.\n");
    let (code, _, err) = home.run(&["config", "set", "machine.cpus", "4"]).await;
    assert_eq!((code, err.as_str()), (0, "machine.cpus = 4\n"));
    let wanted = "error: there is no setting `cpu`; did you mean `machine.cpus`?\n";
    assert_eq!(home.run(&["config", "set", "cpu", "4"]).await, (1, String::new(), wanted.into()));
    assert!(
        home.run(&["config", "get", "cpus"]).await.2.starts_with("error: there is no setting `cpus`; did")
    );
}

#[cfg(unix)] // Its editors are scripts.
#[tokio::test]
async fn an_edit_is_saved_or_kept() {
    let home = Home::new();
    let edit = |script: &str| {
        let mut command = home.command(&["config", "edit"]);
        command.env("EDITOR", format!("sh -c '{script}' sh"));
        ended(command)
    };
    assert_eq!(edit("true").await.2, "nothing changed\n");
    assert!(!home.path("settings.toml").exists() && !home.path("settings.edit.toml").exists());
    assert_eq!(edit("echo \"# mine\" >> \"$1\"").await.2, "saved\n");
    let text = std::fs::read_to_string(home.path("settings.toml")).expect("read");
    assert!(text.contains("# cpus = 4\n") && text.ends_with("# mine\n"), "{text}");
    let (code, _, err) = edit("echo lost >> \"$1\"; exit 3").await;
    assert!(code == 1 && err.contains("your edit is in"), "{err}");
    let kept = std::fs::read_to_string(home.path("settings.edit.toml")).expect("kept");
    assert!(kept.ends_with("lost\n"), "{kept}");
    assert!(edit("true").await.2.starts_with("! going on with the edit that was left"), "and offered again");
}

#[tokio::test]
async fn nothing_is_forgotten_without_a_yes() {
    let home = Home::new();
    let (code, _, err) = home.run(&["reset", "--data"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("all containers, images and volumes: 5.0 MB in `/d`"), "{err}");
    assert!(err.ends_with("hint: add `--yes` when you are sure\n"), "{err}");
    assert!(home.heard("reset").is_none());
    assert_eq!(home.run(&["delete", "--yes"]).await.0, 0);
    assert_eq!(home.heard("reset").expect("asked"), json!({"what": "all"}));
    home.say(status("running"), Vec::new());
    assert!(home.run(&["reset", "--data", "--yes"]).await.2.contains("slipway stop"));
}

#[tokio::test]
async fn a_command_gets_its_input_and_its_code_comes_back() {
    let home = Home::new();
    let mut command = home.command(&["shell", "--", "tr", "-a", "b"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("piped").write_all(b"hello").await.expect("written");
    let output =
        timeout(Duration::from_secs(10), child.wait_with_output()).await.expect("ends").expect("ended");
    assert_eq!(told(output), (5, "HELLO".into(), "tr -a b".into()));
    // Input that never ends does not keep it.
    let (code, _, _) = home.run(&["shell", "true"]).await;
    assert_eq!(code, 0);
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let home = Home::new();
    let mut child = home.command(&["logs"]).spawn().expect("runs");
    let mut some = [0; 24];
    child.stdout.take().expect("piped").read_exact(&mut some).await.expect("read");
    assert_eq!(&some, b"1970-01-01T00:00:01.000Z");
    let output =
        timeout(Duration::from_secs(10), child.wait_with_output()).await.expect("ends").expect("ended");
    assert_eq!(told(output), (0, String::new(), String::new()));
}

#[cfg(unix)] // Its window is a script.
#[tokio::test]
async fn a_window_that_cannot_open_says_why() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    // Beside the program is what counts, so it gets a folder of its own.
    let program = home.path("slipway");
    std::fs::copy(env!("CARGO_BIN_EXE_slipway"), &program).expect("copied");
    let open = |screen: &'static str| {
        let mut command = Command::new(&program);
        command.arg("desktop").env_clear().env("HOME", home.dir.path()).env("SLIPWAY_HOME", home.dir.path());
        if !screen.is_empty() {
            command.env("DISPLAY", screen);
        }
        ended(command)
    };
    let (code, _, err) = open(":1").await;
    assert!(code == 1 && err.contains("there is no `") && err.contains("hint: "), "{code} {err}");
    let window = home.path("slipway-desktop");
    std::fs::write(&window, "#!/bin/sh\necho \"$@\" >>\"$SLIPWAY_HOME/opened\"\n").expect("written");
    std::fs::set_permissions(&window, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let (code, _, err) = open("").await;
    assert!(code == 1 && err.contains("no screen"), "{code} {err}");
    assert_eq!(open(":1").await.0, 0);
    assert_eq!(std::fs::read_to_string(home.path("opened")).expect("it ran"), "--profile default\n");
    std::fs::write(&window, "#!/bin/sh\necho no web view >&2\nexit 3\n").expect("written");
    let (code, _, err) = open(":1").await;
    assert!(code == 1 && err.contains("exit status: 3") && err.contains("desktop.log"), "{code} {err}");
}

#[tokio::test]
async fn a_daemon_that_lives_is_found_and_not_started_again() {
    let home = Home::new();
    assert_eq!(home.run(&["daemon", "--detach"]).await, (0, String::new(), String::new()));
    assert!(!home.path("logs").exists(), "nothing was started");
}
