//! What a person does wrong, and what the host is short of, as far as no machine is needed: each is told with a hint and
//! the right exit code, and nothing is lost.

use slipway_test_harness::{Built, Home, Ran};

use crate::Alone;

pub(crate) const TESTS: &[Alone] = &[
    ("wrong_setting_names_and_values_are_refused_and_the_file_stays", settings),
    ("wrong_amounts_are_refused_before_anything_starts", amounts),
    ("wrong_home_that_cannot_be_written_is_said", unwritable_home),
    ("wrong_home_whose_path_is_too_long_for_sockets_still_works", long_home),
    ("wrong_image_with_one_flipped_bit_does_not_boot", flipped_bit),
    ("wrong_host_without_qemu_is_told_what_to_install", no_qemu),
    ("wrong_host_with_a_full_disk_does_not_start_a_machine", full_disk),
    ("wrong_state_makes_no_sense_and_says_so", wrong_state),
];

/// It failed as a person should see it: what, and what to do.
#[track_caller]
fn refused(ran: &Ran, code: i32, what: &[&str]) {
    assert_eq!(ran.code, code, "{ran}");
    assert!(ran.err.contains("error: ") && ran.err.contains("hint: "), "{ran}");
    for word in what {
        assert!(ran.err.contains(word), "`{word}` is missing: {ran}");
    }
    assert!(!ran.err.contains("panicked"), "{ran}");
}

fn settings(built: &Built) {
    let home = Home::empty(built);
    home.slipway(["config", "set", "machine.cpus", "1"]).run().ok();
    let before = std::fs::read(home.file("settings.toml")).expect("a file");
    refused(&home.slipway(["config", "set", "machine.cpu", "2"]).run(), 1, &["machine.cpu`", "machine.cpus"]);
    refused(&home.slipway(["config", "set", "machine.memory", "lots"]).run(), 1, &["lots"]);
    refused(&home.slipway(["config", "set", "docker.install-cli", "perhaps"]).run(), 1, &["perhaps"]);
    assert_eq!(std::fs::read(home.file("settings.toml")).expect("a file"), before, "byte for byte");

    // Every mistake of a file at once, and a start does not guess.
    std::fs::write(home.file("settings.toml"), "[machine]\ncpus = 0\nmemroy = \"4GiB\"\n").expect("written");
    refused(&home.slipway(["start"]).run(), 1, &["cpus", "memroy", "machine.memory"]);
}

fn amounts(built: &Built) {
    let home = Home::new(built);
    refused(&home.slipway(["start", "--cpus", "0"]).run(), 1, &["cpus"]);
    refused(&home.slipway(["start", "--cpus", "9999"]).run(), 1, &["9999"]);
    refused(&home.slipway(["start", "--memory", "9999GiB"]).run(), 1, &["memory", "this host has"]);
    refused(&home.slipway(["config", "set", "machine.memory", "9999GiB"]).run(), 1, &["this host has"]);
    assert_eq!(home.slipway(["status"]).run().code, 3, "still stopped");
}

fn unwritable_home(built: &Built) {
    let home = Home::empty(built);
    // Root may write anywhere but where there is no folder to be.
    let file = home.path().join("a file");
    std::fs::write(&file, "").expect("written");
    let ran = home.slipway(["start"]).env("SLIPWAY_HOME", file.join("below")).run();
    refused(&ran, 1, &["failed to prepare the folder", "a file", "SLIPWAY_HOME"]);
}

fn long_home(built: &Built) {
    let home = Home::empty_at(built, &format!("{}/with spaces and ünïcode", "long".repeat(40)));
    let ran = home.slipway(["config", "list"]).run().ok();
    assert!(ran.text().contains("machine.cpus"), "{ran}");
    assert!(home.docker_sock().as_os_str().len() <= 107, "{:?}", home.docker_sock());
}

fn flipped_bit(built: &Built) {
    let home = Home::new(built);
    let root = home.file("image/root.erofs");
    let mut bytes = std::fs::read(&root).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&root, bytes).expect("written");
    refused(&home.slipway(["start"]).run(), 1, &["root.erofs", "image install"]);
    assert_eq!(home.slipway(["status"]).run().code, 1, "failed");

    // Nor does it get in.
    let damaged = home.file("image");
    let other = Home::empty(built);
    refused(&other.slipway(["image", "install"]).arg(&damaged).run(), 1, &["root.erofs"]);
}

fn no_qemu(built: &Built) {
    let home = Home::new(built);
    // The daemon was started with the test's own path; its successor gets this one.
    home.slipway(["config", "list"]).run().ok();
    if let Some(pid) = home.daemon_pid() {
        slipway_test_harness::kill(pid, "TERM");
        home.wait_for("the daemon ends", std::time::Duration::from_secs(10), |_| {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        });
    }
    let ran = home.slipway(["start"]).env("PATH", "/nonexistent").run();
    refused(&ran, 1, &["qemu-system-", "is not installed", "apt install"]);
}

fn full_disk(built: &Built) {
    let home = Home::empty(built);
    let small = home.path().join(".slipway");
    std::fs::create_dir(&small).expect("made");
    let mount = slipway_test_harness::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=500m,mode=700", "tmpfs"])
        .arg(&small)
        .run();
    if mount.code != 0 {
        println!("skipped: a small file system cannot be mounted here: {}", mount.err.trim());
        return;
    }
    home.install();
    let ran = home.slipway(["start"]).run();
    let daemon = home.daemon_pid();
    if let Some(pid) = daemon {
        slipway_test_harness::kill(pid, "TERM");
        home.wait_for("the daemon ends", std::time::Duration::from_secs(10), |_| {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        });
    }
    slipway_test_harness::Command::new("umount").args(["-l"]).arg(&small).run().ok();
    refused(&ran, 1, &["is full", "free some space"]);
}

fn wrong_state(built: &Built) {
    let home = Home::empty(built);
    refused(&home.slipway(["start"]).run(), 1, &["no guest image", "image install"]);
    refused(&home.slipway(["shell", "--", "true"]).run(), 1, &["slipway start"]);
    let stopped = home.slipway(["stop"]).run().ok();
    assert!(stopped.err.contains("nothing to stop"), "{stopped}");
    refused(&home.slipway(["image", "install", "/nonexistent"]).run(), 1, &["/nonexistent"]);
    let nobody = home.slipway(["reset", "--all"]).run();
    assert!(nobody.code == 0 || nobody.err.contains("--yes"), "{nobody}");
    assert_eq!(home.slipway(["frobnicate"]).run().code, 2, "usage");
    assert_eq!(home.slipway(["--profile", "../x", "status"]).run().code, 1, "no such name");
}
