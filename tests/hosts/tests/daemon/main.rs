//! The real daemon, shim, relay and commands of this system, with the real agent beside them; only the machine is fake. This is as much
//! of the whole as can be run for Windows without Windows; on Linux it holds that the story is true where everything is real.
//!
//! ```text
//!   slipway (program) ─▶ api ─┐
//!   docker's part here ─▶ engine's endpoint ─▶ daemon ─▶ shim (both this program) ─▶ beside: agent ─▶ engine's part
//! ```
//!
//! As `daemon` and `shim` this program is what `slipway` is as these, but for the driver.

mod machine;
mod stage;

use std::process::ExitCode;
#[cfg(target_os = "linux")]
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
#[cfg(target_os = "linux")]
use slipway_test_harness::Logind;
use stage::{Stage, rest, talk};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("daemon") => return machine::daemon(),
        Some("shim") => return machine::shim(words.last().expect("a file").as_ref()),
        // Nobody shares folders with a machine that is none.
        Some("share") => return ExitCode::FAILURE,
        _ => {}
    }
    let arguments = Arguments::from_args();
    // One story: its parts need those before them.
    let story = Trial::test("daemon_and_engine_from_start_to_stop", || with_stage(story));
    let mut trials = vec![story];
    if cfg!(windows) {
        trials
            .push(Trial::test("without_hyper_v_the_program_says_what_is_missing", || with_stage(no_hyper_v)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn with_stage(test: fn(&mut Stage)) -> Result<(), Failed> {
    match Stage::new() {
        Ok(mut stage) => test(&mut stage),
        // Not silent: the test's output is shown when it is asked for, this always.
        Err(why) => eprintln!("skipped: {why}"),
    }
    Ok(())
}

fn story(stage: &mut Stage) {
    #[cfg(target_os = "linux")]
    let logind = Logind::on(&stage.bus());
    stage.daemon();
    settings(stage);
    start(stage);
    requests(stage);
    folders(stage);
    desktop(stage);
    half_closes(stage);
    // The next daemon finds no bus.
    #[cfg(target_os = "linux")]
    match logind {
        Some(logind) => sleeps(stage, &logind),
        None => eprintln!("skipped: no `dbus-daemon` to play logind on (the Debian package of that name)"),
    }
    another_daemon(stage);
    stop(stage);
}

fn settings(stage: &Stage) {
    let (code, status) = stage.status();
    assert_eq!((code, &status["state"]), (3, &Value::from("stopped")), "{status}");
    stage.slipway(&["config", "set", "machine.cpus", "1"]);
    assert_eq!(stage.slipway(&["config", "get", "machine.cpus"]).trim(), "1");
    let refused = stage.refused(&["config", "set", "machine.cpus", "many"]);
    assert!(refused.contains("machine.cpus"), "{refused}");
    assert_eq!(stage.slipway(&["config", "get", "machine.cpus"]).trim(), "1", "as it was");
}

fn start(stage: &Stage) {
    // Before a start nobody answers, and whoever asks is told.
    let answer = stage.ask("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("slipway start"), "{answer}");
    let refused = stage.refused(&["start"]);
    assert!(refused.contains("guest image") && refused.contains("slipway image install"), "{refused}");
    stage.image();
    stage.slipway(&["mount", "add", &stage.folder().to_string_lossy()]);
    stage.slipway(&["config", "set", "machine.disk", "20GiB"]);
    stage.slipway(&["start"]);
    // Made by the start, as large as was said, of which nearly nothing is taken.
    let usage: Value = serde_json::from_str(&stage.slipway(&["disk", "usage", "--json"])).expect("JSON");
    assert_eq!(usage["limit_bytes"], 20u64 << 30, "{usage}");
    assert!(usage["host_bytes"].as_u64().is_some_and(|taken| taken < 8 << 20), "{usage}");
    let refused = stage.refused(&["disk", "resize", "10GiB"]);
    assert!(refused.contains("20GiB"), "{refused}");
    let (_, status) = stage.status();
    assert_eq!(status["engine"], "28.5.1", "{status}");
    assert_eq!(
        (&status["machine"]["vmm"], &status["machine"]["cpus"]),
        (&"fake".into(), &1.into()),
        "{status}"
    );
}

fn requests(stage: &Stage) {
    for _ in 0..20 {
        let answer = stage.ask("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"), "{answer}");
    }
}

/// The pages' door, with the program that has it: both of whom it asks, over this system's own endpoints.
fn desktop(stage: &Stage) {
    let Some(mut door) = stage.desktop() else { return };
    let status = door.ask("GET", "/bridge/control/v1/status");
    assert!(status.starts_with("HTTP/1.1 200") && status.contains(r#""engine":"28.5.1""#), "{status}");
    let answer = door.ask("GET", "/bridge/engine/_ping");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("OK"), "{answer}");
    let refused = door.ask("GET", "/bridge/engine/nothing");
    assert!(refused.starts_with("HTTP/1.1 404") && refused.contains("page not found"), "{refused}");
    // It finds the program beside it, which finds the daemon.
    let started = door.ask("POST", "/bridge/start-daemon");
    assert!(started.starts_with("HTTP/1.1 200"), "{started}");
}

/// A folder of this system in a request is what the guest has, or the request is refused with what to do.
fn folders(stage: &Stage) {
    let (shared, other) = (stage.folder(), tempfile::tempdir().expect("folder"));
    let create = |source: &str| {
        stage.create(&serde_json::json!({ "HostConfig": { "Binds": [format!("{source}:/x:ro")] } }))
    };
    let there = shared.to_str().expect("text");
    let there = if cfg!(windows) {
        let (drive, rest) = there.split_once(':').expect("a drive");
        format!("/{}{}", drive.to_lowercase(), rest.replace('\\', "/"))
    } else {
        there.to_owned()
    };
    let mut spellings = vec![shared.to_str().expect("text").to_owned(), there.clone()];
    if cfg!(windows) {
        spellings.extend([shared.to_str().expect("text").to_uppercase(), format!("/{there}")]);
    }
    for source in spellings {
        let answer = create(&source);
        let asked_for = format!(r#"{{"HostConfig":{{"Binds":["{there}:/x:ro"]}}}}"#);
        assert!(answer.starts_with("HTTP/1.1 201") && answer.ends_with(&asked_for), "{source}: {answer}");
    }
    let refused = |source: &str, why: &str| {
        let answer = create(source);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(why), "{source}: {answer}");
    };
    refused(&other.path().to_string_lossy(), "is not shared with Slipway");
    if cfg!(windows) {
        refused(r"\\nas\home", "is on a network share");
        refused("/home/me", "write the whole path with its drive");
    }
}

/// Each end of a stream may end its direction first, and the other one stays open.
fn half_closes(stage: &Stage) {
    let body = vec![b'q'; 1 << 20];
    // Neither: what is sent comes back while both directions are open.
    let echoed = stage.attach("echo", async |stream| {
        let mut got = Vec::new();
        for piece in body.chunks(100_000) {
            got.extend(talk(stream, piece).await);
        }
        got
    });
    assert!(echoed == body, "{} of {} bytes, or not those", echoed.len(), body.len());
    // The client: what it then hears was said after it had ended.
    let count = stage.attach("reads", async |stream| rest(stream, &body).await);
    assert_eq!(String::from_utf8_lossy(&count), body.len().to_string());
    // Nothing at all but the end.
    let count = stage.attach("reads", async |stream| rest(stream, b"").await);
    assert_eq!(String::from_utf8_lossy(&count), "0");
    // The engine: what the client says afterwards is heard.
    let speech = stage.attach("speaks", async |stream| {
        let speech = rest_first(stream).await;
        assert_eq!(rest(stream, &body).await, b"", "it had ended");
        speech
    });
    assert_eq!(speech.len(), 300_000);
    let heard = || stage.ask("GET /heard HTTP/1.1\r\nHost: x\r\n\r\n");
    let heard = stage::until(heard, |answer| !answer.ends_with("nothing yet"));
    assert!(heard.ends_with(&format!("\r\n\r\n{}", body.len())), "{heard}");
    // Both, at once: a client is not left waiting.
    assert_eq!(stage.attach("leaves", rest_first), b"");
}

async fn rest_first(stream: &mut stage::Stream) -> Vec<u8> {
    stage::to_the_end(stream).await
}

/// As logind tells it.
#[cfg(target_os = "linux")]
fn sleeps(stage: &Stage, logind: &Logind) {
    let told = || {
        // Until the daemon listens nobody does.
        logind.says_that_it_sleeps(true);
        stage.slipway(&["logs", "--unit", "daemon"])
    };
    let log = stage::until(told, |log| log.contains("Sleeps"));
    assert!(log.contains("Sleeps"), "{log}");
    let ask = || stage.ask("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::scope(|scope| {
        let asked = scope.spawn(ask);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!asked.is_finished(), "a client is let through to a guest whose clock may be wrong");
        logind.says_that_it_sleeps(false);
        let answer = asked.join().expect("asked");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    });
    // An agent that the sleep cost its stream: told, and reached anew as soon as that is possible.
    stage.stop_inside(true);
    logind.says_that_it_sleeps(false);
    let (code, status) = stage::until(|| stage.status(), |(code, _)| *code == 4);
    assert_eq!((code, &status["problem"]["code"]), (4, &"engine-lost".into()), "{status}");
    stage.stop_inside(false);
    let (code, status) = stage::until(|| stage.status(), |(code, _)| *code == 0);
    assert_eq!(code, 0, "{status}");
    assert!(ask().starts_with("HTTP/1.1 200 OK"));
}

fn another_daemon(stage: &mut Stage) {
    stage.kill_daemon();
    stage.daemon();
    let (_, status) = stage::until(|| stage.status(), |(_, status)| status["engine"] == "28.5.1");
    assert_eq!(status["machine"]["vmm"], "fake", "{status}");
    requests(stage);
}

fn stop(stage: &mut Stage) {
    stage.slipway(&["stop"]);
    let (code, status) = stage.status();
    assert_eq!((code, &status["state"]), (3, &Value::from("stopped")), "{status}");
    // The agent was told, and ended; and so did the shim, whose lock is free.
    assert!(stage::until(|| stage.machine_has_ended(), |ended| *ended), "the shim lives");
    stage.quit_daemon();
}

/// With the program itself as daemon and shim.
fn no_hyper_v(stage: &mut Stage) {
    stage.image();
    let refused = stage.refused(&["start"]);
    assert!(refused.contains("Hyper-V") && refused.contains("machine"), "{refused}");
    let (code, status) = stage.status();
    assert_eq!((code, &status["state"]), (1, &Value::from("failed")), "{status}");
    stage.quit_daemon();
}
