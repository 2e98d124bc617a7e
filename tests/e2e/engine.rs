//! What people do with an engine, with the real clients: run, exec, logs, cp, save and load, build, compose, volumes,
//! networks, events, stats, swarm, a registry.

use std::{fs, path::PathBuf, time::Duration};

use slipway_test_harness::Home;

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("engine_is_the_docker_context_of_the_person", context),
    ("engine_runs_the_welcome_container", welcome),
    ("engine_run_exec_logs_and_exit_codes", run_exec_logs),
    ("engine_cp_keeps_bytes_modes_and_folders", cp),
    ("engine_save_and_load_of_500_mb", save_and_load),
    ("engine_builds_stages_cache_secrets_and_a_200_mb_context", build),
    ("engine_buildx_is_there_and_shows_its_builder", buildx),
    ("engine_compose_two_services", compose),
    ("engine_volumes_networks_and_names", volumes_and_networks),
    ("engine_events_and_stats", events_and_stats),
    ("engine_limits_and_the_second_runtime", limits),
    ("engine_swarm_service", swarm),
    ("engine_pushes_to_and_pulls_from_a_registry", registry),
];

fn context(home: &Home) {
    let version = home.docker(["version", "--format", "{{.Server.Version}}"]).run().ok();
    assert_eq!(home.status()["engine"].as_str(), Some(version.text().as_str()));
    assert_eq!(home.docker(["context", "show"]).run().ok().text(), "slipway");
}

fn welcome(home: &Home) {
    home.docker(["run", "-d", "--name", "welcome", "-p", "8080:80", "slipway/welcome"]).run().ok();
    let page = home.slipway(["shell", "--", "wget", "-qO-", "http://127.0.0.1:8080/"]).run().ok();
    assert!(page.text().contains("Slipway works"), "{page}");
    home.docker(["stop", "welcome"]).run().ok();
    let code = home.docker(["inspect", "-f", "{{.State.ExitCode}}", "welcome"]).run().ok();
    assert_eq!(code.text(), "0", "it ends by itself when it is asked to");
    home.docker(["rm", "welcome"]).run().ok();
}

fn run_exec_logs(home: &Home) {
    let ran = home.docker(["run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 7"]).run();
    assert_eq!((ran.code, ran.text().as_str(), ran.err.trim()), (7, "out", "err"));
    let missing = home.docker(["run", "--rm", "box", "nonesuch"]).run();
    assert_eq!(missing.code, 127, "{missing}");

    let script = "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; sleep 1000";
    home.docker(["run", "-d", "--name", "talker", "box", "sh", "-c", script]).run().ok();
    let follow = home.docker(["logs", "-f", "talker"]).spawn();
    let exec =
        home.docker(["exec", "-e", "A=b c", "-w", "/tmp", "talker", "sh", "-c", "echo $A $(pwd)"]).run();
    assert_eq!(exec.ok().text(), "b c /tmp");
    home.docker(["kill", "talker"]).run().ok();
    let lines = follow.end().text();
    assert!(lines.starts_with("line 0\nline 1\n"), "{lines}");
    let code = home.docker(["wait", "talker"]).run().ok();
    assert_eq!(code.text(), "137");
    home.docker(["rm", "talker"]).run().ok();
}

fn cp(home: &Home) {
    let dir = home.path().join("cp");
    fs::create_dir_all(dir.join("deep/er")).expect("made");
    fs::write(dir.join("deep/er/a file"), vec![7u8; 3 << 20]).expect("written");
    fs::write(dir.join("run.sh"), "#!/bin/sh\n").expect("written");
    home.docker(["create", "--name", "store", "box", "true"]).run().ok();
    home.docker(["cp"]).arg(&dir).arg("store:/root/").run().ok();
    home.docker(["cp", "store:/root/cp"]).arg(home.path().join("back")).run().ok();
    assert_eq!(fs::read(home.path().join("back/deep/er/a file")).expect("there"), vec![7u8; 3 << 20]);
    let missing = home.docker(["cp", "store:/nonesuch", "-"]).run();
    assert!(missing.code != 0 && missing.err.contains("nonesuch"), "{missing}");
    home.docker(["rm", "store"]).run().ok();
}

/// Pseudo-random bytes, so that nothing on the way can be clever.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut word = seed | 1;
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn save_and_load(home: &Home) {
    let layer = home.path().join("big.tar");
    let dir = home.path().join("big");
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join("noise"), noise(500 << 20, 11)).expect("written");
    slipway_test_harness::Command::new("tar")
        .args(["-cf"])
        .arg(&layer)
        .arg("-C")
        .arg(&dir)
        .arg("noise")
        .run()
        .ok();
    // Half a gigabyte thrice through an emulated machine on a busy host.
    let long = Duration::from_secs(900);
    home.docker(["import"]).arg(&layer).arg("big").within(long).run().ok();
    let id = home.docker(["images", "-q", "--no-trunc", "big"]).run().ok().text();
    let archive = home.path().join("saved.tar");
    home.docker(["save", "-o"]).arg(&archive).arg("big").within(long).run().ok();
    home.docker(["rmi", "big"]).run().ok();
    home.docker(["load", "-i"]).arg(&archive).within(long).run().ok();
    assert_eq!(
        home.docker(["images", "-q", "--no-trunc", "big"]).run().ok().text(),
        id,
        "the same image came back"
    );
    home.docker(["rmi", "big"]).run().ok();
    for file in [layer, archive, dir.join("noise")] {
        fs::remove_file(file).expect("removed");
    }
}

fn build(home: &Home) {
    let dir = home.path().join("build");
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join("noise"), noise(200 << 20, 5)).expect("written");
    fs::write(dir.join("secret"), "swordfish").expect("written");
    let dockerfile = "FROM box AS maker\n\
        RUN --mount=type=cache,target=/cache echo built >> /cache/log && cp /cache/log /log\n\
        RUN --mount=type=secret,id=word test \"$(cat /run/secrets/word)\" = swordfish\n\
        COPY noise /noise\nRUN sha256sum /noise | cut -d' ' -f1 > /sum\n\
        FROM scratch\nCOPY --from=maker /sum /log /\nCOPY --from=maker /bin /bin\nARG WORD\nENV WORD=$WORD\n\
        CMD [\"/bin/sh\", \"-c\", \"cat /sum; echo $WORD\"]\n";
    fs::write(dir.join("Dockerfile"), dockerfile).expect("written");
    let build = |word: &str| {
        home.docker([
            "build",
            "--progress=plain",
            "--secret",
            "id=word,src=secret",
            "-t",
            "made",
            "--build-arg",
        ])
        .arg(format!("WORD={word}"))
        .arg(".")
        .in_dir(&dir)
        .within(Duration::from_secs(300))
        .run()
        .ok()
    };
    build("first");
    let again = build("second");
    assert!(again.err.contains("CACHED"), "{again}");
    let sum = slipway_test_harness::Command::new("sha256sum").arg(dir.join("noise")).run().ok().text();
    let ran = home.docker(["run", "--rm", "made"]).run().ok();
    assert_eq!(ran.text(), format!("{}\nsecond", &sum[..64]));
    fs::write(dir.join("Dockerfile"), "FROM box\nRUN false\n").expect("written");
    let failed = home.docker(["build", "."]).in_dir(&dir).run();
    assert!(failed.code == 1 && failed.err.contains("Dockerfile:2"), "{failed}");
    home.docker(["rmi", "made"]).run().ok();
    fs::remove_dir_all(&dir).expect("removed");
}

fn buildx(home: &Home) {
    let listed = home.docker(["buildx", "ls"]).run().ok();
    assert!(listed.text().contains("slipway") && listed.text().contains("running"), "{listed}");
    let usage = home.docker(["buildx", "du"]).run().ok();
    assert!(usage.text().contains("Total:"), "{usage}");
}

fn compose(home: &Home) {
    let dir = home.path().join("two-services");
    fs::create_dir_all(&dir).expect("made");
    let yaml = "services:\n  \
        web:\n    image: box\n    command: httpd -f -h /www\n    volumes: [pages:/www]\n    \
        healthcheck: {test: wget -qO- 127.0.0.1, interval: 1s, timeout: 20s, retries: 60}\n  \
        writer:\n    image: box\n    command: sh -c 'echo hello from compose > /www/index.html; sleep 1000'\n    \
        volumes: [pages:/www]\n    stop_grace_period: 1s\nvolumes:\n  pages: {}\n";
    fs::write(dir.join("compose.yaml"), yaml).expect("written");
    let compose = |args: &[&str]| home.docker(["compose"]).args(args).in_dir(&dir);
    compose(&["up", "-d", "--wait", "--wait-timeout", "120"]).run().ok();
    let page = compose(&["exec", "-T", "writer", "wget", "-qO-", "http://web/"]).run().ok();
    assert_eq!(page.text(), "hello from compose", "services find each other by name");
    let listed = compose(&["ps", "--format", "json"]).run().ok();
    assert_eq!(listed.text().lines().count(), 2, "{listed}");
    compose(&["down", "-v", "-t", "1"]).run().ok();
    assert_eq!(
        home.docker(["ps", "-aq", "--filter", "label=com.docker.compose.project"]).run().ok().text(),
        ""
    );
    assert!(!home.docker(["volume", "ls", "-q"]).run().ok().text().contains("pages"));
}

fn volumes_and_networks(home: &Home) {
    home.docker(["volume", "create", "keep"]).run().ok();
    home.docker(["run", "--rm", "-v", "keep:/v", "box", "sh", "-c", "echo kept > /v/f"]).run().ok();
    let read = home.docker(["run", "--rm", "-v", "keep:/v:ro", "box", "cat", "/v/f"]).run().ok();
    assert_eq!(read.text(), "kept");
    home.docker(["network", "create", "--subnet", "10.77.0.0/24", "inner"]).run().ok();
    home.docker([
        "run",
        "-d",
        "--name",
        "there",
        "--network",
        "inner",
        "--ip",
        "10.77.0.9",
        "box",
        "httpd",
        "-f",
    ])
    .run()
    .ok();
    let found = home.docker(["run", "--rm", "--network", "inner", "box", "nslookup", "there"]).run().ok();
    assert!(found.text().contains("10.77.0.9"), "{found}");
    let apart = home.docker(["run", "--rm", "box", "wget", "-T", "2", "-qO-", "http://10.77.0.9/"]).run();
    assert_ne!(apart.code, 0, "networks are kept apart");
    home.docker(["rm", "-f", "there"]).run().ok();
    home.docker(["network", "rm", "inner"]).run().ok();
    home.docker(["volume", "rm", "keep"]).run().ok();
}

fn events_and_stats(home: &Home) {
    let since = home.docker(["info", "--format", "{{.SystemTime}}"]).run().ok().text();
    home.docker(["run", "-d", "--name", "seen", "box", "sleep", "1000"]).run().ok();
    let stats =
        home.docker(["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "seen"]).run().ok();
    assert!(stats.text().starts_with("seen ") && !stats.text().contains(" 0B /"), "{stats}");
    home.docker(["rm", "-f", "seen"]).run().ok();
    let until = home.docker(["info", "--format", "{{.SystemTime}}"]).run().ok().text();
    let events = home
        .docker([
            "events",
            "--filter",
            "container=seen",
            "--format",
            "{{.Action}}",
            "--since",
            &since,
            "--until",
            &until,
        ])
        .run()
        .ok();
    let actions = events.text();
    let expected = ["create", "start", "die", "destroy"];
    let found: Vec<&str> = actions.lines().filter(|line| expected.contains(line)).collect();
    assert_eq!(found, expected, "{actions}");
}

fn limits(home: &Home) {
    let run = |args: &[&str]| home.docker(["run", "--rm"]).args(args).run();
    let limit = run(&["-m", "64m", "box", "cat", "/sys/fs/cgroup/memory.max"]).ok();
    assert_eq!(limit.text(), (64 << 20).to_string());
    let killed = run(&["-m", "20m", "--memory-swap", "20m", "box", "sh", "-c", "tail /dev/zero"]);
    assert_eq!(killed.code, 137, "{killed}");
    let name = run(&["--runtime", "crun", "box", "hostname"]).ok();
    assert!(!name.text().is_empty(), "the second runtime runs");
    let init = run(&["--init", "box", "sh", "-c", "cat /proc/1/comm"]).ok();
    assert_eq!(init.text(), "docker-init");
    assert_eq!(home.status()["state"], "running", "an engine survives its containers' hunger");
}

fn swarm(home: &Home) {
    home.docker(["swarm", "init", "--advertise-addr", "127.0.0.1"]).run().ok();
    home.docker([
        "service",
        "create",
        "--detach",
        "--name",
        "twice",
        "--replicas",
        "2",
        "box",
        "sleep",
        "1000",
    ])
    .run()
    .ok();
    home.wait_for("two replicas run", Duration::from_secs(90), |home| {
        let listed = home.docker(["service", "ls", "--format", "{{.Replicas}}"]).run().ok();
        listed.text() == "2/2"
    });
    home.docker(["service", "rm", "twice"]).run().ok();
    home.docker(["swarm", "leave", "--force"]).run().ok();
}

/// Debian's registry, inside the machine: the engine reaches it on its own loopback, so no TLS is wanted.
fn registry(home: &Home) {
    let program = PathBuf::from("/usr/bin/docker-registry");
    if !program.exists() {
        println!("skipped: /usr/bin/docker-registry is not installed (package docker-registry)");
        return;
    }
    let dir = home.path().join("registry");
    fs::create_dir_all(&dir).expect("made");
    fs::copy(&program, dir.join("registry")).expect("copied");
    let config = "version: 0.1\nstorage:\n  filesystem: {rootdirectory: /data}\nhttp: {addr: ':5000'}\n";
    fs::write(dir.join("config.yml"), config).expect("written");
    // The program is linked to Debian's libc, which the image brings along.
    let libraries = slipway_test_harness::Command::new("ldd").arg(&program).run();
    let mut dockerfile = String::from("FROM box\nCOPY registry config.yml /\n");
    for path in libraries.text().split_whitespace().filter(|word| word.starts_with('/')) {
        let name = path.rsplit('/').next().expect("a name");
        fs::copy(path, dir.join(name)).expect("copied");
        dockerfile.push_str(&format!("COPY {name} {path}\n"));
    }
    dockerfile.push_str("ENTRYPOINT [\"/registry\", \"serve\", \"/config.yml\"]\n");
    fs::write(dir.join("Dockerfile"), dockerfile).expect("written");
    home.docker(["build", "-q", "-t", "registry", "."]).in_dir(&dir).run().ok();
    home.docker(["run", "-d", "--name", "registry", "--network", "host", "registry"]).run().ok();
    home.docker(["tag", "box", "127.0.0.1:5000/a/box"]).run().ok();
    let pushed = |home: &Home| home.docker(["push", "127.0.0.1:5000/a/box"]).run().code == 0;
    home.wait_for("the registry takes a push", Duration::from_secs(60), pushed);
    home.docker(["rmi", "127.0.0.1:5000/a/box"]).run().ok();
    home.docker(["pull", "127.0.0.1:5000/a/box"]).run().ok();
    let ran = home.docker(["run", "--rm", "127.0.0.1:5000/a/box", "echo", "pulled"]).run().ok();
    assert_eq!(ran.text(), "pulled");
    home.docker(["rm", "-f", "registry"]).run().ok();
    home.docker(["rmi", "127.0.0.1:5000/a/box", "registry"]).run().ok();
}
