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
    ("alone_a_machine_takes_the_address_that_its_network_gives", address_by_dhcp),
    ("alone_an_update_is_told_taken_and_gone_back_from_when_it_does_not_boot", updates),
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

/// Images made of the built one, all signed with one key.
struct Images<'a> {
    built: &'a Built,
    key: minisign::KeyPair,
}

impl Images<'_> {
    /// Puts the built image into `dir`, with a version and words for its kernel's command line.
    fn make(&self, dir: &Path, version: &str, words: &[&str]) {
        Command::new("cp").arg("-r").arg(&self.built.image).arg(dir).run().ok();
        let path = dir.join("manifest.json");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        manifest["version"] = version.into();
        manifest["cmdline"].as_array_mut().expect("words").extend(words.iter().map(|word| (*word).into()));
        let json = serde_json::to_vec(&manifest).expect("JSON");
        let minisign::KeyPair { pk, sk } = &self.key;
        let signature = minisign::sign(Some(pk), sk, json.as_slice(), None, None).expect("signed");
        fs::write(path, json).expect("written");
        fs::write(dir.join("manifest.json.minisig"), signature.into_string()).expect("written");
        fs::write(dir.join("key.pub"), pk.to_base64()).expect("written");
    }
}

/// As on macOS, where the hypervisor's network hands addresses out: QEMU's does so, too, when it is asked.
fn address_by_dhcp(built: &Built) {
    let dir = tempfile::tempdir().expect("a folder");
    let images = Images { built, key: minisign::KeyPair::generate_unencrypted_keypair().expect("a key") };
    let image = dir.path().join("image");
    images.make(&image, "dhcp", &["slipway.net=dhcp"]);
    let home = Home::empty(built);
    home.slipway(["config", "set", "machine.memory", "2GiB"]).run().ok();
    home.slipway(["image", "install"]).arg(&image).arg("--trust-key").run().ok();
    home.start();
    let inside = |words: &str| home.slipway(["shell", "--", "sh", "-c", words]).run().ok().text();
    assert_eq!(inside("cat /proc/1/net/route | grep -c '^eth0.00000000.0202000A'"), "1", "one way out");
    assert!(inside("ip -4 addr show dev eth0").contains("inet 10.0.2.15/24"));
    assert!(inside("ps").contains("busybox udhcpc -f -i eth0"), "it asks again in time");
    let status = home.status();
    assert_eq!((&status["state"], status.get("degraded")), (&"running".into(), None), "{status}");
    // The client tells of another address, as when it was given one.
    let lease = "ip=10.0.2.16 mask=24 router=10.0.2.2 dns=10.0.2.3 mtu=1400";
    // Its output is the agent's to read.
    let tell = format!(
        "for p in /proc/[0-9]*; do grep -q '[u]dhcpc' $p/cmdline && env {lease} /usr/bin/slipway-dhcp renew >$p/fd/1; done"
    );
    home.slipway(["shell", "--", "sh", "-c", &tell]).run();
    home.wait_for("the other address is taken", Duration::from_secs(30), |home| {
        let shown = home.slipway(["shell", "--", "ip", "-4", "addr", "show", "dev", "eth0"]).run();
        shown.text().contains("inet 10.0.2.16/24") && shown.text().contains("mtu 1400")
    });
    assert_eq!(inside("grep -c '^eth0.00000000' /proc/net/route"), "1", "still one");
    // Names are answered there, too.
    home.wait_for("names are answered", Duration::from_secs(30), |home| {
        home.slipway(["shell", "--", "nslookup", "-type=a", "host.docker.internal"]).run().code == 0
    });
}

/// A program with an image beside it, as a package lays them out, in a machine's whole life of updates.
fn updates(built: &Built) {
    let prefix = tempfile::Builder::new().prefix("slipway-usr-").tempdir().expect("a folder");
    let (program, image) = (prefix.path().join("bin/slipway"), prefix.path().join("share/slipway/image"));
    for dir in [&program, &image].map(|path| path.parent().expect("a folder")) {
        fs::create_dir_all(dir).expect("made");
    }
    fs::copy(&built.slipway, &program).expect("copied");
    let images = Images { built, key: minisign::KeyPair::generate_unencrypted_keypair().expect("a key") };
    images.make(&image, "first", &[]);
    let home = Home::empty(&Built { slipway: program, ..built.clone() });
    home.slipway(["config", "set", "machine.memory", "2GiB"]).run().ok();
    home.start();
    assert_eq!((&home.status()["image"], home.status().get("update")), (&"first".into(), None));
    home.docker(["run", "-d", "--name", "stays", "--restart", "always", "slipway/welcome"]).run().ok();
    let runs = || home.docker(["inspect", "-f", "{{.State.Running}}", "stays"]).run().text() == "true";

    // A newer package comes while the machine runs, with an image that looks for its first program where there is none.
    fs::remove_dir_all(&image).expect("removed");
    images.make(&image, "broken", &["rdinit=/nonexistent"]);
    home.wait_for("the update is told", Duration::from_secs(10), |home| {
        home.status()["update"]["to"]["version"] == "broken"
    });
    let told = home.slipway(["status"]).run();
    assert!(told.text().contains("guest image broken is ready: `slipway update`"), "{told}");
    let ran = home.slipway(["update", "--yes"]).within(Duration::from_secs(400)).run();
    let told =
        ["broken was not taken", "never booted here before", "the machine runs with image first, as before"];
    assert!(ran.code == 1 && told.iter().all(|words| ran.err.contains(words)), "{ran}");
    assert_eq!(home.slipway(["status", "--quiet"]).run().code, 0);
    home.wait_for("its container is up again", Duration::from_secs(30), |_| runs());
    let status = home.status();
    assert_eq!(
        (&status["image"], &status["update"]["declined"]),
        (&"first".into(), &true.into()),
        "{status}"
    );

    // The next one is whole.
    fs::remove_dir_all(&image).expect("removed");
    images.make(&image, "second", &[]);
    home.wait_for("the update is told", Duration::from_secs(10), |home| {
        home.status()["update"]["to"]["version"] == "second"
    });
    let ran = home.slipway(["update", "--yes"]).within(Duration::from_secs(400)).run().ok();
    assert!(ran.err.contains("✓ engine ready") && ran.err.contains("runs with guest image second"), "{ran}");
    assert_eq!((&home.status()["image"], home.status().get("update")), (&"second".into(), None));
    home.wait_for("its container is up again", Duration::from_secs(30), |_| runs());
    assert_eq!(home.slipway(["update", "--check"]).run().code, 3, "there is no other");
    assert!(home.slipway(["image", "ls"]).run().ok().text().contains("first  previous"));
    // One whose image is damaged keeps the machine from nothing.
    fs::remove_dir_all(&image).expect("removed");
    images.make(&image, "third", &[]);
    fs::write(image.join("manifest.json.minisig"), "no signature").expect("written");
    let ran = home.slipway(["restart"]).within(Duration::from_secs(400)).run().ok();
    assert!(ran.err.contains("the guest image beside the program was not taken"), "{ran}");
    assert_eq!(home.status()["image"], "second");
    let refused = home.slipway(["update", "--check", "--from"]).arg(&built.image).run();
    assert!(refused.code == 1 && refused.err.contains("another key"), "{refused}");
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
