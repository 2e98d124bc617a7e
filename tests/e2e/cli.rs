//! The verbs on a machine that runs.

use std::{fs, time::Duration};

use slipway_test_harness::Home;

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("cli_status_says_what_runs", status),
    ("cli_start_again_is_quick_and_says_so", start_again),
    ("cli_shell_passes_streams_and_exit_codes_on", shell),
    ("cli_logs_of_every_part", logs),
    ("cli_settings_hold_from_the_next_start", settings),
    ("cli_context_and_env", context_and_env),
    ("cli_reset_refuses_while_the_machine_runs", reset),
    ("cli_other_contexts_and_the_configuration_stay_as_they_were", others_stay),
    ("cli_the_clock_is_the_hosts", clock),
];

fn status(home: &Home) {
    let ran = home.slipway(["status"]).run().ok();
    for word in ["running", "engine", "socket", "slipway"] {
        assert!(ran.text().contains(word), "{ran}");
    }
    let status = home.status();
    assert_eq!(status["state"], "running");
    let phases = status["phases"].as_array().expect("a list");
    for name in ["image", "machine", "agent", "kernel", "data-disk", "network", "containerd", "engine"] {
        let phase = phases.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name}: {status}"));
        assert!(phase["state"] == "done" && phase["ended_ms"].is_u64(), "{phase}");
    }
    let machine = &status["machine"];
    if machine["accel"] == "tcg" {
        assert!(
            machine["accel_reason"].is_string() && ran.text().contains("without hardware acceleration"),
            "{ran}"
        );
    }
}

fn start_again(home: &Home) {
    let ran = home.slipway(["start"]).run().ok();
    assert!(ran.err.contains("runs already"), "{ran}");
}

fn shell(home: &Home) {
    let ran =
        home.slipway(["shell", "--", "sh", "-c", "tr a-z A-Z; echo err >&2; exit 5"]).stdin("loud").run();
    assert_eq!((ran.code, ran.text().as_str(), ran.err.trim()), (5, "LOUD", "err"));
    let big = vec![b'x'; 20 << 20];
    let ran = home.slipway(["shell", "--", "cat"]).stdin(big.clone()).run();
    assert!(ran.out == big, "{} bytes of {}", ran.out.len(), big.len());
    let ran = home.slipway(["shell", "--", "nonesuch"]).run();
    assert!(ran.code != 0 && ran.err.contains("nonesuch"), "{ran}");
}

fn logs(home: &Home) {
    for unit in ["agent", "dockerd", "containerd", "kernel", "daemon", "shim"] {
        let ran = home.slipway(["logs", "--unit", unit, "-n", "5"]).run().ok();
        assert!(!ran.text().is_empty(), "{unit} has said something");
    }
    let line = home.slipway(["logs", "-n", "1", "--json"]).run().ok();
    serde_json::from_slice::<serde_json::Value>(&line.out).expect("JSON");
    assert_eq!(home.slipway(["logs", "--since", "0s"]).run().ok().text(), "");
}

fn settings(home: &Home) {
    home.slipway(["config", "set", "stop.timeout", "20"]).run().ok();
    assert_eq!(home.slipway(["config", "get", "stop.timeout"]).run().ok().text(), "20");
    home.slipway(["config", "set", "machine.cpus", "1"]).run().ok();
    let ran = home.slipway(["status"]).run().ok();
    assert!(ran.text().contains("machine.cpus") && ran.text().contains("slipway restart"), "{ran}");
    home.slipway(["config", "unset", "machine.cpus"]).run().ok();
    let ran = home.slipway(["status"]).run().ok();
    assert!(!ran.text().contains("slipway restart"), "{ran}");
}

fn context_and_env(home: &Home) {
    let shown = home.slipway(["context", "show"]).run().ok();
    assert_eq!(shown.text(), "slipway");
    let env = home.slipway(["env", "--shell", "sh"]).run().ok();
    let socket = home.docker_sock();
    assert!(
        env.text().contains(&format!("DOCKER_HOST='unix://{}'", socket.display()))
            || env.text().contains(&format!("DOCKER_HOST=unix://{}", socket.display())),
        "{env}"
    );
    assert!(home.slipway(["completion", "bash"]).run().ok().text().contains("_slipway"));
    home.slipway(["version"]).run().ok();
}

fn reset(home: &Home) {
    let ran = home.slipway(["reset", "--data", "--yes"]).run();
    assert!(ran.code == 1 && ran.err.contains("slipway stop"), "{ran}");
    home.docker(["image", "inspect", "box"]).run().ok();
}

fn others_stay(home: &Home) {
    let docker = home.path().join(".docker");
    let other = "ab".repeat(32);
    let meta = docker.join("contexts/meta").join(&other).join("meta.json");
    fs::create_dir_all(meta.parent().expect("a folder")).expect("made");
    let theirs = r#"{"Name":"theirs","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1"}}}"#;
    fs::write(&meta, theirs).expect("written");
    let config = docker.join("config.json");
    let mine = "{\n\t\"auths\": { \"r.example\": { \"auth\": \"eDp5\" } },\n\t\"currentContext\": \"slipway\",\n\t\"psFormat\": \"x\"\n}\n";
    let before = fs::read(&config).expect("read");
    fs::write(&config, mine).expect("written");
    home.slipway(["start"]).run().ok();
    home.slipway(["context", "use"]).run().ok();
    assert_eq!(fs::read_to_string(&config).expect("read"), mine, "byte for byte");
    assert_eq!(fs::read_to_string(&meta).expect("read"), theirs, "byte for byte");
    fs::write(&config, before).expect("written");
    fs::remove_dir_all(meta.parent().expect("a folder")).expect("removed");
}

fn clock(home: &Home) {
    let set = home.slipway(["shell", "--", "date", "-s", "2001-02-03 04:05:06"]).run().ok();
    assert!(set.text().contains("2001"), "{set}");
    home.wait_for("the guest's clock is the host's again", Duration::from_secs(20), |home| {
        let guest: i64 =
            home.slipway(["shell", "--", "date", "+%s"]).run().ok().text().parse().expect("a number");
        let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        (guest - host.as_secs() as i64).abs() <= 3
    });
}
