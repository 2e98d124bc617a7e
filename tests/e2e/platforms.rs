//! Containers for another processor than the machine's.

use std::{fs, path::PathBuf};

use slipway_test_harness::{Command, Home};

use crate::Shared;

pub(crate) const TESTS: &[Shared] = &[
    ("platforms_arm64_containers_run_and_are_built", arm64),
    ("platforms_setuid_programs_of_arm64_get_their_rights", setuid),
];

/// The static arm64 program; `None`, with the reason said, where it could not be built.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("SLIPWAY_TEST_ARM64").filter(|path| !path.is_empty());
    if program.is_none() {
        println!(
            "skipped: SLIPWAY_TEST_ARM64 is not set: `tests/run` builds a program for arm64 where rustup has its target"
        );
    }
    program.map(PathBuf::from)
}

fn arm64(home: &Home) {
    let Some(program) = program() else { return };
    let dir = home.path().join("arm64");
    fs::create_dir_all(&dir).expect("made");
    fs::copy(program, dir.join("arch")).expect("copied");
    // It runs while the image is made and when the image runs.
    let dockerfile = "FROM scratch AS made\nARG TARGETARCH\nCOPY arch /arch-$TARGETARCH\nRUN [\"/arch-arm64\"]\n\
        FROM made\nENTRYPOINT [\"/arch-arm64\"]\n";
    fs::write(dir.join("Dockerfile"), dockerfile).expect("written");
    let build = ["build", "--progress=plain", "--platform", "linux/arm64", "-t", "foreign", "."];
    let built = home.docker(build).in_dir(&dir).run().ok();
    assert!(built.err.contains("aarch64 aarch64 euid 0"), "{built}");
    let kind = home.docker(["image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "foreign"]).run().ok();
    assert_eq!(kind.text(), "linux/arm64");
    let ran = home.docker(["run", "--rm", "--platform", "linux/arm64", "foreign"]).run().ok();
    assert_eq!(ran.text(), "aarch64 aarch64 euid 0");
    let builder = home.docker(["buildx", "inspect"]).run().ok();
    assert!(builder.text().contains("linux/arm64"), "{builder}");
    home.docker(["rmi", "foreign"]).run().ok();
}

fn setuid(home: &Home) {
    let Some(program) = program() else { return };
    let dir = home.path().join("setuid");
    fs::create_dir_all(&dir).expect("made");
    fs::copy(program, dir.join("arch")).expect("copied");
    Command::new("chmod").arg("4755").arg(dir.join("arch")).run().ok();
    let tar =
        Command::new("tar").args(["-c", "--owner=0", "--group=0", "-C"]).arg(&dir).arg("arch").run().ok().out;
    home.docker(["import", "--platform", "linux/arm64", "-", "setuid"]).stdin(tar).run().ok();
    let ran = home.docker(["run", "--rm", "--user", "1000:1000", "setuid", "/arch"]).run().ok();
    assert_eq!(ran.text(), "aarch64 aarch64 euid 0", "{ran}");
    home.docker(["rmi", "setuid"]).run().ok();
}
