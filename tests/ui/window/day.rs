//! The first day: start, a container, its logs and a terminal, an image from a file, a machine that dies, the tray.

use std::{path::Path, time::Duration};

use slipway_test_harness::{Built, Command, Home, kill};

use crate::{
    screen::Screen,
    tray::Panel,
    webdriver::{Driver, eventually},
};

const SOON: Duration = Duration::from_secs(30);
/// An emulated machine on a shared host.
const BOOT: Duration = Duration::from_secs(400);

/// In their order: each finds what the one before has left.
pub(crate) const TESTS: &[(&str, fn(&mut Day))] = &[
    ("window_first_run_starts_the_machine_and_opens_the_welcome_container", first_run),
    ("window_logs_are_followed", logs),
    ("window_a_terminal_is_typed_into", terminal),
    ("window_an_image_is_loaded_from_a_file", image),
    ("window_the_tray_shows_and_acts", tray),
    ("window_a_killed_machine_is_told_and_started_again_from_the_tray", killed),
    ("window_a_second_start_brings_the_first_to_the_front", second),
    ("window_quit_stops_the_machine_and_ends", quit),
];

/// What the tests share. Fields are dropped in this order: the window before its machine.
pub(crate) struct Day {
    driver: Driver,
    panel: Panel,
    home: Home,
    screen: Screen,
    window: std::path::PathBuf,
    opened: std::path::PathBuf,
}

impl Day {
    pub(crate) fn begin(built: &Built, window: &Path) -> Self {
        let home = Home::new(built);
        let screen = Screen::new(home.path());
        let panel = Panel::new(&screen.bus);
        // A browser that writes down what it was to open.
        let bin = home.path().join("bin");
        let opened = home.path().join("opened");
        std::fs::create_dir(&bin).expect("made");
        let script = format!("#!/bin/sh\necho \"$1\" >>'{}'\n", opened.display());
        for name in ["xdg-open", "x-www-browser"] {
            std::fs::write(bin.join(name), &script).expect("written");
            Command::new("chmod").arg("755").arg(bin.join(name)).run().ok();
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let env = [("HOME", home.path().display().to_string()), ("PATH", path)];
        let driver = Driver::start(&screen, window, &env);
        Self { driver, panel, home, screen, window: window.to_owned(), opened }
    }

    /// A picture in each theme.
    fn pictures(&self, name: &str) {
        for theme in ["light", "dark"] {
            self.driver
                .script("document.documentElement.dataset.theme = arguments[0]", serde_json::json!([theme]));
            self.driver.screenshot(&format!("{name}-{theme}"));
        }
        self.driver.script("delete document.documentElement.dataset.theme", serde_json::json!([]));
    }
}

fn first_run(day: &mut Day) {
    let driver = &day.driver;
    driver.wait_text("Docker, in a machine of its own", SOON);
    day.panel.wait_entry("Stopped", SOON);
    let stopped = day.panel.icon();
    assert!(stopped.starts_with(b"\x89PNG"), "an icon");
    day.pictures("first-run");
    driver.click("Start Slipway");
    day.panel.wait_entry("Starting", SOON);
    assert_ne!(day.panel.icon(), stopped, "the icon has another form");
    day.pictures("starting");
    driver.wait_text("Slipway is ready", BOOT);
    day.panel.wait_entry("Running · Docker", SOON);
    assert_eq!(day.home.slipway(["status", "--quiet"]).run().code, 0, "and so says the CLI");
    assert_eq!(day.home.docker(["context", "show"]).run().ok().text(), "slipway", "docker is set up as well");
    driver.click("Run the welcome container");
    driver.wait_text("slipway-welcome", BOOT);
    eventually("the browser was opened", SOON * 2, || {
        std::fs::read_to_string(&day.opened).ok().filter(|urls| urls.contains("http://localhost:"))
    });
    let url = std::fs::read_to_string(&day.opened).expect("written");
    let page =
        Command::new("curl").args(["-sSf", "--retry", "5", "--retry-connrefused", url.trim()]).run().ok();
    assert!(page.text().contains("<html"), "the container's page: {page}");
    day.pictures("containers");
}

fn logs(day: &mut Day) {
    let script = "echo first; sleep 2; i=0; while true; do echo line $i; i=$((i+1)); sleep 1; done";
    day.home.busybox_image();
    let id = day.home.docker(["run", "-d", "--name", "talker", "box", "sh", "-c", script]).run().ok().text();
    day.driver.wait_text("talker", SOON);
    day.driver.go(&format!("#/containers/{id}/logs"));
    day.driver.wait_text("first", SOON);
    day.driver.wait_text("line 3", SOON);
    day.pictures("logs");
}

fn terminal(day: &mut Day) {
    let id = day.home.docker(["inspect", "-f", "{{.Id}}", "talker"]).run().ok().text();
    day.driver.go(&format!("#/containers/{id}/terminal"));
    std::thread::sleep(Duration::from_secs(2));
    day.driver.type_into("Terminal 1, talker", "echo $((40+2))-here > /tmp/typed; cat /tmp/typed\n");
    eventually("the container has what was typed", SOON, || {
        let typed = day.home.docker(["exec", "talker", "cat", "/tmp/typed"]).run();
        (typed.text() == "42-here").then_some(())
    });
    day.driver.wait_text("42-here", SOON);
    day.pictures("terminal");
}

fn image(day: &mut Day) {
    let archive = day.home.path().join("box.tar");
    day.home.docker(["tag", "box", "from-a-file:1"]).run().ok();
    day.home.docker(["save", "-o"]).arg(&archive).arg("from-a-file:1").run().ok();
    day.home.docker(["rmi", "from-a-file:1"]).run().ok();
    day.driver.go("#/images");
    day.driver.wait_text("slipway/welcome", SOON);
    day.driver.click("Actions");
    day.driver.click("Load from a file");
    // The host's own dialog, which no web view drives: a path is typed and entered.
    let keys = |args: &[&str]| {
        let mut tool = Command::new("xdotool");
        for (name, value) in &day.screen.env {
            tool = tool.env(name, value);
        }
        tool.args(args).run()
    };
    eventually("the dialog opens", SOON, || {
        let found = keys(&["search", "--onlyvisible", "--class", "slipway-desktop"]).text();
        (found.lines().count() > 1).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    keys(&["type", "--delay", "20", &archive.display().to_string()]).ok();
    std::thread::sleep(Duration::from_millis(500));
    keys(&["key", "Return"]).ok();
    day.driver.wait_text("from-a-file", SOON * 2);
    day.home.docker(["image", "inspect", "from-a-file:1"]).run().ok();
    day.pictures("images");
}

fn tray(day: &mut Day) {
    let talker = day.panel.wait_entry("talker", SOON);
    let below: Vec<&str> = talker.below.iter().map(|e| e.label.as_str()).collect();
    assert_eq!(below, ["Logs", "Stop", "Restart"]);
    day.panel.choose(&["talker", "Logs"]);
    day.driver.wait_text("line 1", SOON);
    std::fs::write(&day.opened, "").expect("written");
    day.panel.choose(&["slipway-welcome", "Open localhost:"]);
    eventually("the browser was opened", SOON, || {
        std::fs::read_to_string(&day.opened).ok().filter(|urls| urls.starts_with("http://localhost:"))
    });
    day.panel.choose(&["talker", "Stop"]);
    eventually("it is stopped", SOON * 2, || {
        let state = day.home.docker(["inspect", "-f", "{{.State.Status}}", "talker"]).run().ok().text();
        (state == "exited").then_some(())
    });
    eventually("the menu has it no longer", SOON, || {
        (!day.panel.entries().iter().any(|e| e.label == "talker")).then_some(())
    });
    day.panel.choose(&["Settings"]);
    day.driver.wait_text("Resources", SOON);
    day.pictures("settings");
    day.panel.choose(&["Diagnostics"]);
    day.driver.wait_text("Phases", SOON);
    day.pictures("troubleshoot");
}

fn killed(day: &mut Day) {
    day.driver.go("#/containers");
    kill(day.home.machine_pid().expect("it runs"), "KILL");
    day.driver.wait_text("The machine failed", SOON);
    day.panel.wait_entry("Failed", SOON);
    eventually("the person is told", SOON, || {
        day.panel.told().iter().any(|(title, _)| title == "The machine failed").then_some(())
    });
    day.pictures("failed");
    day.panel.choose(&["Start"]);
    day.panel.wait_entry("Running", BOOT);
    // Only what was there before is there again: the data disk is whole.
    day.driver.wait_text("talker", SOON);
}

fn second(day: &mut Day) {
    let mut again =
        Command::new(&day.window).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", day.home.path());
    for (name, value) in &day.screen.env {
        again = again.env(name, value);
    }
    again.within(SOON).run().ok();
    day.driver.wait_text("talker", SOON);
}

fn quit(day: &mut Day) {
    day.panel.choose(&["Quit", "Quit and stop"]);
    eventually("the tray goes", SOON, || (!day.panel.has_tray()).then_some(()));
    day.home.wait_for("the machine stops", Duration::from_secs(90), |home| {
        home.slipway(["status", "--quiet"]).run().code == 3
    });
}
