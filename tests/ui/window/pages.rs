//! The same pages in a plain browser, through the program's HTTP door, against the machine that the window has.

use std::time::Duration;

use slipway_test_harness::Command;

use crate::{day::Day, figures::ui, screen::first_line};

/// Runs `ui/e2e/real.test.mjs`, which says in its own words what fails.
pub(crate) fn real(day: &mut Day) {
    let tools = day.built.image.join("host-tools");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut door = Command::new(&day.window)
        .args(["--serve", "--ui"])
        .arg(ui().join("dist"))
        .env_clear()
        .env("HOME", day.home.path())
        .env("PATH", &path)
        .spawn();
    let url = first_line(&mut door);
    let ran = Command::new("node")
        .args(["--test", "e2e/real.test.mjs"])
        .in_dir(ui())
        .env("HOME", day.home.path().display().to_string())
        .env("PATH", &path)
        .env("SLIPWAY_UI_URL", &url)
        .env("DOCKER_HOST", format!("unix://{}", day.home.docker_sock().display()))
        .within(Duration::from_secs(900))
        .run();
    // Skipped tests are no failure to node.
    assert!(ran.code == 0 && !ran.text().contains("# pass 0\n"), "{ran}");
}
