//! The image for the other processor: it was built here, across, and its machine is emulated.

use std::{fs, path::PathBuf, time::Duration};

use slipway_test_harness::{Built, Home};

use crate::{Alone, events};

/// Run by `--ignored` alone: an emulated boot of another processor takes a minute, and building the image several.
pub(crate) const ON_DEMAND: &[Alone] = &[("arm64_an_image_built_across_boots_and_runs_containers", machine)];

/// For a host that is busy besides.
const PATIENCE: Duration = Duration::from_secs(900);

/// What says for which processor it was built; `None`, with the reason said, where it could not be built.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("SLIPWAY_TEST_ARM64").filter(|path| !path.is_empty());
    if program.is_none() {
        println!("a program for arm64 is not tried: SLIPWAY_TEST_ARM64 is not set");
    }
    program.map(PathBuf::from)
}

fn machine(built: &Built) {
    if cfg!(not(target_arch = "x86_64")) {
        println!("skipped: on this processor every machine is one for arm64");
        return;
    }
    let image = std::env::var_os("SLIPWAY_TEST_IMAGE_ARM64")
        .expect("`tests/arm64` builds the image and sets SLIPWAY_TEST_IMAGE_ARM64");
    let home = Home::new(&Built { image: image.into(), ..built.clone() });
    home.slipway(["config", "set", "start.timeout", &PATIENCE.as_secs().to_string()]).run().ok();
    let doctor = home.slipway(["doctor"]).run();
    assert!(doctor.text().contains("for arm64, and this computer's processor is not"), "{doctor}");
    home.start_within(PATIENCE);

    // Not degraded: every module that the agent asks for fits this kernel, our own as well.
    let status = home.slipway(["status"]).run();
    assert_eq!(status.code, 0, "{status}");
    let machine = home.status()["machine"].clone();
    assert_eq!(machine["accel"], "tcg", "{machine}");
    assert!(machine["accel_reason"].as_str().is_some_and(|why| why.contains("arm64")), "{machine}");
    assert!(!home.file("bin/docker").exists(), "the image's client is for another processor");

    let version = home.docker(["version", "-f", "{{.Server.Os}}/{{.Server.Arch}}"]).run().ok();
    assert_eq!(version.text(), "linux/arm64");
    let kernel = home.slipway(["shell", "--", "uname", "-m"]).within(PATIENCE).run().ok();
    assert_eq!(kernel.text(), "aarch64");
    // dockerd's rules for the port were set by the stand-in for iptables and the agent.
    let publish = ["run", "-d", "--name", "welcome", "-p", "127.0.0.1:0:80", "slipway/welcome"];
    home.docker(publish).within(PATIENCE).run().ok();
    let port = home.docker(["port", "welcome", "80/tcp"]).within(PATIENCE).run().ok().text();
    let page = format!("http://{port}/");
    let page = home.slipway(["shell", "--", "wget", "-qO-", &page]).within(PATIENCE).run().ok();
    assert!(page.text().contains("Slipway works"), "{page}");
    home.docker(["rm", "-f", "welcome"]).within(PATIENCE).run().ok();

    // The host's own programs, for its own processor, are the foreign ones there.
    home.busybox_image();
    let foreign = home.docker(["run", "--rm", "box", "uname", "-m"]).within(PATIENCE).run().ok();
    assert_eq!(foreign.text(), "x86_64");
    if let Some(program) = program() {
        let dir = home.path().join("own");
        fs::create_dir_all(&dir).expect("made");
        fs::copy(program, dir.join("arch")).expect("copied");
        let bind = format!("{}:/own:ro", dir.display());
        let run = ["run", "--rm", "--network", "none", "-v", &bind, "box", "/own/arch"];
        let own = home.docker(run).within(PATIENCE).run().ok();
        assert_eq!(own.text(), "aarch64 aarch64 euid 0");
    }
    events::editor(&home);
    home.slipway(["stop"]).within(PATIENCE).run().ok();
    assert!(home.machine_pid().is_none(), "it ended in order");
}
