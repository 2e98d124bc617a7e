//! What a person asks when things do not work: with a machine that runs, and with nothing there at all.

use std::path::Path;

use serde_json::Value;
use slipway_test_harness::{Built, Command, Home, Ran, gone, kill};

use crate::{Alone, Shared};

pub(crate) const TESTS: &[Shared] = &[
    ("doctor_finds_a_running_machine_well", running),
    ("doctor_a_bundle_of_a_running_machine_has_no_secret_in_it", bundle),
];

/// No machine is needed.
pub(crate) const WITHOUT: &[Alone] =
    &[("doctor_removes_what_a_killed_daemon_left_and_nothing_that_lives", killed_daemon)];

fn check(ran: &Ran, id: &str) -> Value {
    let report: Value = serde_json::from_slice(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
    let checks = report["checks"].as_array().expect("a list").clone();
    checks.into_iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("{id}: {ran}"))
}

fn running(home: &Home) {
    let ran = home.slipway(["doctor", "--json"]).run();
    for id in ["daemon", "machine", "settings", "image", "qemu", "user-namespaces", "home", "docker-context"]
    {
        assert_eq!(check(&ran, id)["state"], "ok", "{id}: {ran}");
    }
    assert_eq!(check(&ran, "leftovers")["state"], "ok", "what serves is not left over: {ran}");
    assert_ne!(check(&ran, "shares")["state"], "not-applicable", "the daemon tells: {ran}");
    let human = home.slipway(["doctor"]).run();
    assert_eq!((ran.code, human.code), (0, 0), "nothing failed: {human}");
    assert!(human.text().contains("qemu") && human.err.contains("0 failed"), "{human}");

    // The person's `docker` was led elsewhere.
    home.docker(["context", "use", "default"]).run().ok();
    let ran = home.slipway(["doctor", "--json"]).run();
    let context = check(&ran, "docker-context");
    assert!(context["state"] == "warning" && context["fixable"] == true, "{ran}");
    let ran = home.slipway(["doctor", "--fix", "--json"]).run();
    assert_eq!(check(&ran, "docker-context")["fixed"], true, "{ran}");
    assert_eq!(home.slipway(["context", "show"]).run().ok().text(), "slipway");
    let ran = home.slipway(["doctor", "--json"]).env("DOCKER_HOST", "tcp://127.0.0.1:1").run();
    assert_eq!(check(&ran, "docker-environment")["state"], "warning", "{ran}");
}

/// The text of one file of a bundle, or of all.
fn inside(bundle: &Path, pattern: &str) -> String {
    Command::new("tar").arg("-xzOf").arg(bundle).args(["--wildcards", pattern]).run().ok().text()
}

fn bundle(home: &Home) {
    let secret = "Zq7hush-hush8xQ";
    // dockerd tells its log what it cannot reach, with the address as it was given.
    let image = format!("me:{secret}@127.0.0.1:1/x");
    home.docker(["pull", &image]).run();
    home.slipway(["shell", "--", "sh", "-c", &format!("echo MY_TOKEN={secret} > /dev/kmsg")]).run().ok();
    home.wait_for("the kernel's log has it", std::time::Duration::from_secs(30), |home| {
        home.slipway(["logs", "--unit", "kernel"]).run().ok().text().contains(secret)
    });
    let path = home.path().join("bundle.tar.gz");
    let ran = home.slipway(["diagnose", "--output"]).arg(&path).run().ok();
    assert!(ran.text() == path.to_string_lossy() && ran.err.contains("nothing was sent"), "{ran}");
    let all = inside(&path, "*");
    assert!(!all.contains(secret), "{}", all.lines().find(|l| l.contains(secret)).unwrap_or_default());
    assert!(inside(&path, "*/logs/kernel.log").contains("MY_TOKEN=***"));
    assert!(inside(&path, "*/engine/info.json").contains("\"Driver\""), "the engine answered");
    let status: Value = serde_json::from_str(&inside(&path, "*/status.json")).expect("JSON");
    assert_eq!(status["state"], "running");
    assert!(inside(&path, "*/logs/dockerd.log").lines().count() > 3);
    let again = home.slipway(["diagnose", "--output"]).arg(&path).run();
    assert!(again.code == 1 && again.err.contains("is there already"), "{again}");
}

fn killed_daemon(built: &Built) {
    let home = Home::new(built);
    home.slipway(["config", "list"]).run().ok();
    let pid = home.daemon_pid().expect("a daemon");
    let ran = home.slipway(["doctor", "--fix", "--json"]).run();
    assert_eq!(check(&ran, "daemon")["state"], "ok", "{ran}");
    assert!(
        home.file("run/api.sock").exists() && home.daemon_pid() == Some(pid),
        "a living one keeps its own"
    );

    kill(pid, "KILL");
    home.wait_for("it is gone", std::time::Duration::from_secs(10), |_| gone(pid));
    let ran = home.slipway(["doctor", "--json"]).run();
    let left = check(&ran, "leftovers");
    assert!(left["state"] == "warning" && left["fixable"] == true, "{ran}");
    assert!(ran.text().contains("api.sock") && ran.text().contains("docker.sock"), "{ran}");
    assert_eq!(ran.code, 0, "warnings are no failure: {ran}");
    assert!(home.daemon_pid().is_none(), "looking starts nothing");

    let ran = home.slipway(["doctor", "--fix", "--json"]).run();
    assert_eq!(check(&ran, "leftovers")["fixed"], true, "{ran}");
    let sockets = |dir: &Path| {
        let names = std::fs::read_dir(dir).expect("a folder").map(|f| f.expect("a file").file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".sock")).count()
    };
    assert_eq!(sockets(&home.file("run")), 0);
    assert!(home.file("settings.toml").exists() && home.file("image/root.erofs").exists());

    let ran = home.slipway(["diagnose", "--json", "--output"]).arg(home.path()).run().ok();
    let made: Value = serde_json::from_slice(&ran.out).expect("JSON");
    let path = made["path"].as_str().expect("a path");
    assert!(inside(Path::new(path), "*/logs/daemon.log").contains("the daemon is up"), "{ran}");
    assert!(inside(Path::new(path), "*/manifest.json").contains("no daemon runs"), "{ran}");
    assert!(home.daemon_pid().is_none(), "nor does this");

    let ran = home.slipway(["doctor", "--json"]).env("PATH", "/nonexistent").run();
    let qemu = check(&ran, "qemu");
    assert!(
        qemu["state"] == "failed" && qemu["hint"].as_str().is_some_and(|h| h.contains("apt install")),
        "{ran}"
    );
    assert_eq!(ran.code, 1, "{ran}");
}
