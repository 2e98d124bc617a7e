//! Tests that need a home, and sometimes a machine, of their own.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_test_harness::{Built, Command, Home};

use crate::Alone;

pub(crate) const TESTS: &[Alone] = &[
    ("alone_a_home_with_spaces_boots", spaces),
    ("alone_a_machine_waits_for_room_on_the_host_and_loses_nothing", waits_for_room),
    ("alone_a_damaged_data_disk_is_refused_and_kept", damaged_disk),
    ("alone_a_start_can_be_taken_back", taken_back),
    ("alone_an_image_that_does_not_boot_makes_room_for_the_one_before", does_not_boot),
];

fn spaces(built: &Built) {
    let home = Home::empty_at(built, "my home, with ünïcode");
    home.install();
    home.start();
    let version = home.docker(["version", "--format", "{{.Server.Os}}"]).run().ok();
    assert_eq!(version.text(), "linux");
    // What a reset takes, it names; what it does not, it keeps.
    home.slipway(["stop"]).run().ok();
    let ran = home.slipway(["reset", "--data", "--yes"]).run().ok();
    assert!(ran.err.contains("containers, images and volumes"), "{ran}");
    assert!(!home.file("machine/data.raw").exists() && home.file("settings.toml").exists());
}

fn damaged_disk(built: &Built) {
    let home = Home::new(built);
    let disk = home.file("machine/data.raw");
    fs::create_dir_all(disk.parent().expect("a folder")).expect("made");
    let mut file = fs::File::create(&disk).expect("made");
    // Whatever this once was, it is not blank, and not ours.
    file.write_all(&[0x5a; 4096]).expect("written");
    file.set_len(1 << 30).expect("sparse");
    file.write_at(b"precious", 700 << 20).expect("written");
    home.slipway(["config", "set", "machine.disk", "1GiB"]).run().ok();
    let ran = home.slipway(["start"]).within(Duration::from_secs(200)).run();
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.err.contains("data disk is damaged") && ran.err.contains("hint: "), "{ran}");
    assert_eq!(home.slipway(["status"]).run().code, 1);
    assert!(home.machine_pid().is_none(), "no machine is left behind");
    let mut word = [0; 8];
    let file = fs::File::open(&disk).expect("there");
    file.read_exact_at(&mut word, 700 << 20).expect("read");
    assert_eq!(&word, b"precious");
    let mut start = [0; 4096];
    file.read_exact_at(&mut start, 0).expect("read");
    assert_eq!(start, [0x5a; 4096], "never formatted");
}

/// The built image, made to look for its first program where there is none, and signed by somebody else.
fn broken_image(built: &Built, dir: &Path) -> PathBuf {
    let dir = dir.join("broken");
    Command::new("cp").arg("-r").arg(&built.image).arg(&dir).run().ok();
    let path = dir.join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    manifest["version"] = "broken".into();
    manifest["cmdline"].as_array_mut().expect("words").push("rdinit=/nonexistent".into());
    let json = serde_json::to_vec(&manifest).expect("JSON");
    let minisign::KeyPair { pk, sk } = minisign::KeyPair::generate_unencrypted_keypair().expect("a key");
    let signature = minisign::sign(Some(&pk), &sk, json.as_slice(), None, None).expect("signed");
    fs::write(path, json).expect("written");
    fs::write(dir.join("manifest.json.minisig"), signature.into_string()).expect("written");
    fs::write(dir.join("key.pub"), pk.to_base64()).expect("written");
    dir
}

fn does_not_boot(built: &Built) {
    let home = Home::new(built);
    let images = || -> serde_json::Value {
        serde_json::from_slice(&home.slipway(["image", "ls", "--json"]).run().ok().out).expect("JSON")
    };
    let good = images()["current"]["version"].clone();
    let broken = broken_image(built, home.path());
    let refused = home.slipway(["image", "install"]).arg(&broken).run();
    assert!(refused.code == 1 && refused.err.contains("--trust-key"), "{refused}");
    home.slipway(["image", "install", "--trust-key"]).arg(&broken).run().ok();
    let ran = home.slipway(["start"]).within(Duration::from_secs(200)).run();
    let told =
        ["broken never booted here before", good.as_str().expect("a version"), "is in its place again"];
    assert!(ran.code == 1 && told.iter().all(|words| ran.err.contains(words)), "{ran}");
    let now = images();
    assert_eq!((&now["current"]["version"], &now["previous"]["version"]), (&good, &"broken".into()));
    home.start();
}

fn taken_back(built: &Built) {
    let home = Home::new(built);
    home.slipway(["start", "--detach"]).run().ok();
    home.wait_for("a machine is there", Duration::from_secs(60), |home| home.machine_pid().is_some());
    let pid = home.machine_pid().expect("just seen");
    home.slipway(["stop"]).run().ok();
    assert_eq!(home.slipway(["status"]).run().code, 3);
    home.wait_for("its process is gone", Duration::from_secs(10), |_| {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
}

fn waits_for_room(built: &Built) {
    let home = Home::empty(built);
    let disk = Mounted::tmpfs(&home.file("machine"), "1g");
    let Some(disk) = disk else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    home.install();
    home.start();
    home.busybox_image();
    // All but 100 MB are taken by somebody else.
    let ballast = disk.0.join("ballast");
    let free = Command::new("df").args(["--output=avail", "-B1"]).arg(&disk.0).run().ok().text();
    let free: u64 = free.lines().last().and_then(|l| l.trim().parse().ok()).expect("a number");
    let taken = free.saturating_sub(100 << 20).to_string();
    Command::new("fallocate").args(["-l", &taken]).arg(&ballast).run().ok();

    let script = "dd if=/dev/urandom of=/v/big bs=1M count=200 conv=fsync 2>/dev/null && sha256sum /v/big";
    let writer = home.docker(["run", "-i", "--name", "writer", "-v", "big:/v", "box", "sh", "-c", script]);
    let writer = writer.within(Duration::from_secs(300)).spawn();
    home.wait_for("the machine says that it waits", Duration::from_secs(200), |home| {
        home.status()["problem"]["code"] == "host-disk-full"
    });
    let status = home.slipway(["status"]).run();
    assert_eq!(status.code, 4, "degraded: {status}");
    assert!(status.text().contains("free some space"), "{status}");

    fs::remove_file(&ballast).expect("removed");
    let sum = writer.end().ok().text();
    let again = home.docker(["run", "--rm", "-v", "big:/v", "box", "sha256sum", "/v/big"]).run().ok().text();
    assert_eq!(sum, again, "what was written while there was no room is there");
    home.wait_for("it runs again", Duration::from_secs(60), |home| home.slipway(["status"]).run().code == 0);
    home.slipway(["stop"]).run().ok();
}

/// A file system of the test's own; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// An empty one in memory, at a folder that is made for it; `None` where mounting is not allowed.
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("made");
        let options = format!("size={size},mode=700");
        let ran = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).run();
        (ran.code == 0).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).run();
    }
}
