//! Registries on the host's loopback, as a person has them there: without TLS, with an authority of their own, and behind
//! a proxy.

use std::{fs, time::Duration};

use slipway_test_harness::{Authority, Built, Home, Proxy, Ran, Registry};

use crate::{Alone, Shared};

pub(crate) const TESTS: &[Shared] = &[
    ("registries_with_an_authority_of_their_own_are_trusted_at_once", own_authority),
    ("registries_without_tls_are_used_when_a_setting_says_so", insecure),
];

pub(crate) const ALONE: &[Alone] = &[("alone_proxies_and_authorities_reach_the_engine", proxies)];

const HOST: &str = "host.docker.internal";
const PATIENCE: Duration = Duration::from_secs(60);

fn skipped() -> bool {
    let missing = !Registry::is_installed();
    if missing {
        println!("skipped: /usr/bin/docker-registry is not installed (package docker-registry)");
    }
    missing
}

/// Pushes `box` there, and says how that went.
fn push(home: &Home, name: &str) -> Ran {
    home.docker(["tag", "box", name]).run().ok();
    home.docker(["push", name]).run()
}

/// Pulls what was pushed, by dockerd and by BuildKit.
fn pull(home: &Home, name: &str) {
    home.docker(["rmi", name]).run().ok();
    home.docker(["pull", name]).run().ok();
    let dockerfile = format!("FROM {name}\nRUN echo built > /built\n");
    let build = ["build", "--pull", "--no-cache", "-q", "-t", "pulled", "-"];
    home.docker(build).stdin(dockerfile).run().ok();
    assert_eq!(home.docker(["run", "--rm", "pulled", "cat", "/built"]).run().ok().text(), "built");
    home.docker(["rmi", name, "pulled"]).run().ok();
}

fn own_authority(home: &Home) {
    if skipped() {
        return;
    }
    let dir = home.path().join("own-authority");
    let authority = Authority::new(&dir.join("authority"));
    let registry = Registry::start(&dir, Some(&authority.certify(HOST)));
    let name = format!("{}/own/box", registry.name());
    let refused = push(home, &name);
    assert!(refused.code != 0 && refused.err.contains("unknown authority"), "{refused}");
    let trusted = home.path().join(".docker/certs.d").join(registry.name());
    fs::create_dir_all(&trusted).expect("made");
    fs::copy(authority.pem(), trusted.join("ca.crt")).expect("copied");
    home.wait_for("it is trusted without a restart", PATIENCE, |home| push(home, &name).code == 0);
    pull(home, &name);
    // As quickly it is not any more.
    fs::remove_dir_all(&trusted).expect("removed");
    home.wait_for("it is not trusted any more", PATIENCE, |home| {
        push(home, &name).err.contains("unknown authority")
    });
    home.docker(["rmi", &name]).run().ok();
}

fn insecure(home: &Home) {
    if skipped() {
        return;
    }
    let registry = Registry::start(&home.path().join("insecure"), None);
    let name = format!("{}/plain/box", registry.name());
    let refused = push(home, &name);
    assert!(refused.code != 0 && refused.err.contains("HTTP response to HTTPS client"), "{refused}");
    let config = format!(r#"{{"insecure-registries": ["{}"]}}"#, registry.name());
    home.slipway(["config", "set", "engine.config", &config]).run().ok();
    home.wait_for("it is used without a restart", PATIENCE, |home| push(home, &name).code == 0);
    pull(home, &name);
    // What dockerd would not start with is refused by it, told, and not in force.
    home.slipway(["config", "set", "engine.config", r#"{"no-such-key": 1}"#]).run().ok();
    home.wait_for("its refusal is told", PATIENCE, |home| {
        let status = home.slipway(["status"]).run().text();
        status.contains("no-such-key")
    });
    let own = home.slipway(["config", "set", "engine.config", r#"{"hosts": ["tcp://0.0.0.0:2375"]}"#]).run();
    assert!(own.code != 0 && own.err.contains("hosts"), "{own}");
    home.slipway(["config", "unset", "engine.config"]).run().ok();
    home.wait_for("all is well", PATIENCE, |home| {
        !home.slipway(["status"]).run().text().contains("no-such-key")
    });
    home.docker(["rmi", &name]).run();
}

/// Read when the engine starts, so the machine is one that starts with them.
fn proxies(built: &Built) {
    if skipped() {
        return;
    }
    let home = Home::new(built);
    let plain = Registry::start(&home.path().join("plain"), None);
    let proxy = Proxy::new(plain.address());
    let authority = Authority::new(&home.path().join("authority"));
    let trusted = Registry::start(&home.path().join("trusted"), Some(&authority.certify(HOST)));
    // The daemon that installed the image has another environment.
    slipway_test_harness::end(home.daemon_pid().expect("it runs"));
    home.slipway(["config", "set", "network.authorities"])
        .arg(authority.pem())
        .env("HTTP_PROXY", proxy.url())
        .env("HTTPS_PROXY", proxy.url())
        .env("NO_PROXY", "direct.example")
        .run()
        .ok();
    let config = r#"{"insecure-registries": ["registry.example"]}"#;
    home.slipway(["config", "set", "engine.config", config]).run().ok();
    // Forbidden to containers, and not to the engine.
    home.slipway(["config", "set", "network.reach-host", "false"]).run().ok();
    home.start();
    home.busybox_image();
    let info =
        home.docker(["info", "--format", "{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}"]).run().ok().text();
    assert!(info.contains("direct.example") && info.contains(HOST), "{info}");
    // Only the proxy knows where that is.
    push(&home, "registry.example/far/box").ok();
    pull(&home, "registry.example/far/box");
    let asked = proxy.asked();
    for what in ["CONNECT registry.example:443", "/v2/far/box/blobs/uploads/", "/v2/far/box/manifests/latest"]
    {
        assert!(asked.iter().any(|line| line.contains(what)), "{what}: {asked:#?}");
    }
    let through = proxy.url().replace("127.0.0.1", "10.0.2.2");
    let ran = home.docker(["run", "--rm", "box", "wget", "-qO-", &through]).run();
    assert!(ran.code != 0 && ran.err.contains("refused"), "{ran}");

    home.slipway(["config", "unset", "network.reach-host"]).run().ok();
    let name = format!("{}/trusted/box", trusted.name());
    home.wait_for("the authority is trusted", PATIENCE, |home| push(home, &name).code == 0);
    pull(&home, &name);
}
