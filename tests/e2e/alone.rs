//! Tests that need a home, and sometimes a machine, of their own.

use std::{fs, io::Write, os::unix::fs::FileExt, time::Duration};

use slipway_test_harness::{Built, Home};

use crate::Alone;

pub(crate) const TESTS: &[Alone] = &[
    ("alone_a_home_with_spaces_boots", spaces),
    ("alone_a_damaged_data_disk_is_refused_and_kept", damaged_disk),
    ("alone_a_start_can_be_taken_back", taken_back),
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
