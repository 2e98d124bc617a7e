//! The architecture as a test: which crate of the workspace may name which.
//!
//! Reads `cargo metadata`, so what is checked is what is built. A crate that is new must be added here, with its arrows.

use std::{collections::BTreeMap, process::Command};

/// Crate, and what of the workspace it may depend on. Anything else is a new arrow and wants a reason.
const ALLOWED: &[(&str, &[&str])] = &[
    ("slipway-protocol", &[]),
    ("slipway-settings", &[]),
    ("slipway-agent-client", &["slipway-protocol"]),
    // What they say to each other inside the guest.
    ("slipway-agent", &["slipway-protocol", "slipway-iptables"]),
    ("slipway-iptables", &[]),
    ("slipway-vsock", &["slipway-protocol"]),
    ("slipway-vm", &["slipway-vsock"]),
    ("slipway-vm-qemu", &["slipway-vm", "slipway-vsock"]),
    ("slipway-vm-vz", &["slipway-vm", "slipway-vsock"]),
    ("slipway-vm-hyperv", &["slipway-vm", "slipway-vsock"]),
    // The engine's port is the protocol's to name.
    ("slipway-relay", &["slipway-vsock", "slipway-protocol"]),
    // Its frames of events are the protocol's.
    ("slipway-share", &["slipway-protocol"]),
    // Published ports, and streams to the engine that are looked into, live in the process that outlives the daemon.
    (
        "slipway-shim",
        &[
            "slipway-vm",
            "slipway-vm-qemu",
            "slipway-vm-vz",
            "slipway-vm-hyperv",
            "slipway-share",
            "slipway-vsock",
            "slipway-relay",
            "slipway-protocol",
        ],
    ),
    // Clients find the daemon's socket where the settings' paths say.
    ("slipway-api", &["slipway-settings"]),
    // Signs nothing and builds nothing: what builder and daemon must agree on.
    ("slipway-manifest", &[]),
    (
        "slipway-daemon",
        &[
            "slipway-api",
            "slipway-settings",
            "slipway-relay",
            // Its client half; `drivers` is for the shim's own process.
            "slipway-shim",
            // What it says to the share server, and where paths are in the guest.
            "slipway-share",
            "slipway-agent-client",
            "slipway-protocol",
            "slipway-manifest",
            "slipway-vm",
            "slipway-vsock",
        ],
    ),
    // Daemon and shim are named by `inner.rs` alone, which starts them; a test below says so.
    ("slipway", &["slipway-api", "slipway-daemon", "slipway-share", "slipway-shim"]),
    // The window is a client like the verbs, and of the engine too: how its endpoint is opened and half-closed is vsock's to know.
    ("slipway-desktop", &["slipway-api", "slipway-vsock"]),
    ("slipway-image", &["slipway-manifest"]),
    ("slipway-welcome", &[]),
    ("slipway-tests", &[]),
    ("slipway-test-ui", &["slipway-test-harness"]),
    // The agent's own mounts, where a machine has not what they are for, and the words in which it is told of them.
    ("slipway-test-guest", &["slipway-agent", "slipway-protocol"]),
    ("slipway-test-harness", &[]),
    // The real agent, where no machine runs.
    ("slipway-test-hosts", &["slipway-agent"]),
    // It is the shim of a share server that it measures.
    ("slipway-bench", &["slipway-test-harness", "slipway-share"]),
];

fn arrows() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo speaks JSON");
    let list = |v: &serde_json::Value| v.as_array().cloned().expect("a list");
    let text = |v: &serde_json::Value| v.as_str().expect("text").to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let dependencies = list(&package["dependencies"]);
            let ours = dependencies.iter().filter(|d| d["path"].is_string() && d["kind"] != "dev");
            (text(&package["name"]), ours.map(|d| text(&d["name"])).collect())
        })
        .collect()
}

#[test]
fn every_crate_keeps_to_its_arrows() {
    let arrows = arrows();
    assert!(arrows.len() >= ALLOWED.len(), "the workspace was read: {arrows:?}");
    let mut wrong = Vec::new();
    for (from, to) in &arrows {
        match ALLOWED.iter().find(|(name, _)| name == from) {
            None => wrong.push(format!("`{from}` is new: say here what it may depend on")),
            Some((_, allowed)) => wrong.extend(
                to.iter().filter(|t| !allowed.contains(&t.as_str())).map(|t| format!("`{from}` → `{t}`")),
            ),
        }
    }
    assert!(wrong.is_empty(), "arrows that the architecture does not have:\n{}", wrong.join("\n"));
}

#[test]
fn only_one_file_names_a_driver() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../app");
    let output =
        Command::new("grep").args(["-rlE", "slipway_vm_(qemu|vz|hyperv)", root, "--include=*.rs"]).output();
    let named = String::from_utf8(output.expect("grep runs").stdout).expect("paths are text");
    let others: Vec<&str> =
        named.lines().filter(|f| !f.ends_with("shim/src/drivers.rs") && !f.contains("/vm-")).collect();
    assert!(named.contains("shim/src/drivers.rs"), "the search found what must be there: {named}");
    assert!(others.is_empty(), "a driver is named outside `shim/src/drivers.rs`: {others:?}");
}

#[test]
fn the_verbs_know_nothing_below_the_api() {
    let verbs = concat!(env!("CARGO_MANIFEST_DIR"), "/../app/cli/src");
    let output = Command::new("grep").args(["-rlE", "slipway_(daemon|shim|vm|relay|vsock)", verbs]).output();
    let named = String::from_utf8(output.expect("grep runs").stdout).expect("paths are text");
    let files: Vec<&str> = named.lines().collect();
    assert!(matches!(files[..], [only] if only.ends_with("cli/src/inner.rs")), "{files:?}");
}
