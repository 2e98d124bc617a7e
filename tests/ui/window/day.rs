//! The first day: start, a container, its logs and a terminal, an image from a file, a machine that dies, the tray.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_test_harness::{Built, Command, Home, kill};

use crate::{
    screen::Screen,
    tray::Panel,
    webdriver::{Driver, eventually},
};

const SOON: Duration = Duration::from_secs(30);
/// An emulated machine on a shared host.
const BOOT: Duration = Duration::from_secs(400);

/// A test and its name.
pub(crate) type Named = (&'static str, fn(&mut Day));

/// In their order: each finds what the one before has left.
pub(crate) const TESTS: &[Named] = &[
    ("window_first_run_starts_the_machine_and_opens_the_welcome_container", first_run),
    ("window_logs_are_followed", logs),
    ("window_a_terminal_is_typed_into", terminal),
    ("window_an_image_is_loaded_from_a_file", image),
    ("window_builds_are_told_with_their_steps_and_their_error", builds),
    ("window_a_build_is_done_again_and_can_be_cancelled", build_again),
    ("window_every_screen_is_pictured_in_both_themes", screens),
    ("window_the_tray_shows_and_acts", tray),
    ("window_an_update_is_told_once_and_offered", update),
    ("window_the_pages_work_through_the_http_door_in_chromium", crate::pages::real),
    ("window_a_killed_machine_is_told_and_started_again_from_the_tray", killed),
    ("window_a_second_start_brings_the_first_to_the_front", second),
    ("window_quit_leaves_the_machine_and_a_new_start_finds_it", crate::figures::launch),
    ("window_a_tray_without_a_window_does_no_work", crate::figures::hidden),
    ("window_quit_stops_the_machine_and_ends", quit),
    ("window_a_thousand_containers_and_a_hundred_thousand_lines_scroll", crate::figures::crowd),
];

/// What the tests share. Fields are dropped in this order: the window before its machine.
pub(crate) struct Day {
    pub(crate) driver: Driver,
    pub(crate) panel: Panel,
    pub(crate) home: Home,
    pub(crate) screen: Screen,
    pub(crate) built: Built,
    pub(crate) window: PathBuf,
    pub(crate) env: [(&'static str, String); 2],
    opened: PathBuf,
    /// Programs and image as a package lays them out.
    prefix: tempfile::TempDir,
}

impl Day {
    pub(crate) fn begin(built: &Built, window: &Path) -> Self {
        let prefix = tempfile::Builder::new().prefix("slipway-usr-").tempdir().expect("a temporary folder");
        let installed = |program: &Path| {
            let to = prefix.path().join("bin").join(program.file_name().expect("a program"));
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            std::fs::copy(program, &to).expect("copied");
            to
        };
        let window = installed(window);
        let built = &Built { slipway: installed(&built.slipway), ..built.clone() };
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
        let driver = Driver::start(&screen, &window, &env);
        Self { driver, panel, home, screen, built: built.clone(), window, env, opened, prefix }
    }

    /// Ends the window and its tray, not the machine.
    pub(crate) fn quit(&self) {
        let asks = !self.panel.wait_entry("Quit", SOON).below.is_empty();
        self.panel.choose(if asks { &["Quit", "Quit, containers"] } else { &["Quit"] });
        eventually("the tray goes", SOON, || (!self.panel.has_tray()).then_some(()));
    }

    /// Opens them again.
    pub(crate) fn open(&mut self) {
        self.driver = Driver::start(&self.screen, &self.window, &self.env);
    }

    /// A picture in each theme, changed as another tab of a browser would change it.
    fn pictures(&self, name: &str) {
        const CHANGE: &str = "localStorage.setItem('slipway.theme', arguments[0]); \
                              dispatchEvent(new StorageEvent('storage', { key: 'slipway.theme' }))";
        for theme in ["light", "dark"] {
            self.driver.script(CHANGE, serde_json::json!([theme]));
            self.driver.screenshot(&format!("{name}-{theme}"));
        }
        self.driver.script(CHANGE, serde_json::json!(["system"]));
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
    let archive = day.home.path().join("q.tar");
    // An image of its own: a second name of one that is there would share its row.
    day.home.docker(["commit", "-m", "to a file", "talker", "from-a-file:1"]).run().ok();
    day.home.docker(["save", "-o"]).arg(&archive).arg("from-a-file:1").run().ok();
    day.home.docker(["rmi", "from-a-file:1"]).run().ok();
    day.driver.go("#/images");
    day.driver.wait_text("slipway/welcome", SOON);
    day.driver.click("Actions");
    day.driver.click("Load from a file");
    // The host's own dialog, which no web view drives: a path is typed and entered. Slowly, and a short one, because the dialog
    // completes what is typed in its own time.
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
    keys(&["type", "--delay", "300", "~/q.tar"]).ok();
    std::thread::sleep(Duration::from_secs(1));
    keys(&["key", "Return"]).ok();
    day.driver.wait_text("from-a-file", SOON * 2);
    day.home.docker(["image", "inspect", "from-a-file:1"]).run().ok();
    day.pictures("images");
}

fn builds(day: &mut Day) {
    let build = |name: &str, dockerfile: &str| {
        let dir = day.home.path().join(name);
        std::fs::create_dir(&dir).expect("made");
        std::fs::write(dir.join("Dockerfile"), dockerfile).expect("written");
        day.home.docker(["build", "-q", "-t", name]).arg(&dir).within(BOOT).run()
    };
    build("good", "FROM box\nRUN echo said by a step\n").ok();
    assert_ne!(build("bad", "FROM box\nRUN echo going to fail; exit 7\n").code, 0);
    let driver = &day.driver;
    driver.go("#/builds");
    driver.wait_text("Failed", SOON);
    driver.wait_text("Done", SOON);
    let open = |name: &str| {
        driver.script(
            "[...document.querySelectorAll('[role=row]')].find((row) => row.getAttribute('aria-label')?.includes(arguments[0])).click()",
            serde_json::json!([name]),
        )
    };
    open("Failed");
    driver.wait_text("exit code: 7", SOON);
    driver.wait_text(">>> RUN echo going to fail; exit 7", SOON);
    day.pictures("build-failed");
    open("Done");
    driver.wait_text("RUN echo said by a step", SOON);
    day.pictures("build-done");
}

/// Finds what the builds before have left.
fn build_again(day: &mut Day) {
    let driver = &day.driver;
    let dockerfile = day.home.path().join("good/Dockerfile");
    let made = || day.home.docker(["image", "inspect", "-f", "{{.Id}}", "good"]).run().ok().text();
    let before = made();
    let open = |name: &str| {
        driver.go("#/builds");
        driver.wait_text(name, SOON);
        driver.script(
            "[...document.querySelectorAll('[role=row]')].find((row) => row.getAttribute('aria-label')?.startsWith(arguments[0])).click()",
            serde_json::json!([name]),
        );
    };
    std::fs::write(&dockerfile, "FROM box\nRUN echo said by another step; echo now > /when\n")
        .expect("written");
    open("good");
    driver.click("Build again");
    driver.wait_text("Name of the image", SOON);
    // Of the image that it made, which is there under this name.
    let named = driver.script("return document.querySelector('.dialog input').value", serde_json::json!([]));
    assert_eq!(named, "good:latest");
    driver.click("Start the build");
    driver.wait_text("RUN echo said by another step", SOON);
    driver.wait_text("Built", BOOT);
    assert_ne!(made(), before, "there is another image under its name");
    day.pictures("build-again");

    std::fs::write(&dockerfile, "FROM box\nRUN echo for ever; exec sleep 6000\n").expect("written");
    open("good");
    driver.click("Build again");
    driver.wait_text("Name of the image", SOON);
    driver.click("Start the build");
    // What the step that goes on says is in sight.
    driver.wait_text("for ever", SOON * 2);
    driver.click("Cancel");
    driver.wait_text("The build was cancelled", SOON);
    eventually("the engine ends it", SOON, || {
        // The newest; buildx's list has no word of its own for it.
        let newest = ["buildx", "history", "inspect", "--format", "json"];
        day.home.docker(newest).run().ok().text().contains(r#""Status": "canceled""#).then_some(())
    });

    let cancelled = "return document.querySelector(\"[role=row][aria-label='good, Cancelled']\") !== null";
    eventually("the list says how it ended", SOON, || {
        driver.script(cancelled, serde_json::json!([])).as_bool().filter(|cancelled| *cancelled)
    });
    std::fs::rename(day.home.path().join("good"), day.home.path().join("moved")).expect("moved");
    open("good");
    driver.click("Build again");
    driver.wait_text("Name of the image", SOON);
    driver.click("Start the build");
    driver.wait_text("the folder that it was built from is gone", SOON);
}

/// The rest of the screens: each is there with what the machine has, and is pictured.
fn screens(day: &mut Day) {
    let id = day.home.docker(["inspect", "-f", "{{.Id}}", "talker"]).run().ok().text();
    let welcome = day.home.docker(["inspect", "-f", "{{.Id}}", "slipway-welcome"]).run().ok().text();
    let tab = |id: &str, name: &str| format!("#/containers/{id}/{name}");
    for (name, hash, says) in [
        ("container-stats", tab(&id, "stats"), "CPU"),
        ("container-files", tab(&id, "files"), "etc"),
        ("container-inspect", tab(&id, "inspect"), "HostConfig"),
        ("container-mounts", tab(&welcome, "mounts"), "Listening"),
        ("volumes", "#/volumes".into(), "Volumes"),
        ("networks", "#/networks".into(), "bridge"),
        ("settings-resources", "#/settings/resources".into(), "Memory"),
        ("settings-folders", "#/settings/folders".into(), "Folders"),
        ("settings-network", "#/settings/network".into(), "Network"),
        ("settings-engine", "#/settings/engine".into(), "Engine"),
        ("settings-image", "#/settings/image".into(), "Guest image"),
        ("settings-advanced", "#/settings/advanced".into(), "Stop timeout"),
        ("troubleshoot-checks", "#/troubleshoot/checks".into(), "QEMU"),
        ("troubleshoot-logs", "#/troubleshoot/logs".into(), "dockerd"),
        ("troubleshoot-shell", "#/troubleshoot/shell".into(), "Shell"),
        ("troubleshoot-reset", "#/troubleshoot/reset".into(), "Reset"),
    ] {
        day.driver.go(&hash);
        day.driver.wait_text(says, SOON);
        // Figures and lists come in.
        std::thread::sleep(Duration::from_secs(2));
        day.pictures(name);
    }
}

fn tray(day: &mut Day) {
    let talker = day.panel.wait_entry("talker", SOON);
    let below: Vec<&str> = talker.below.iter().map(|e| e.label.as_str()).collect();
    assert_eq!(below, ["Logs", "Stop", "Restart"]);
    day.panel.choose(&["talker", "Logs"]);
    // The last ones are in sight; how many came before depends on the day.
    eventually("its log is shown", SOON, || {
        let text = day.driver.text();
        (0..10).any(|digit| text.contains(&format!("line {digit}"))).then_some(())
    });
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
    let running = day.panel.icon();
    day.panel.choose(&["Pause"]);
    day.panel.wait_entry("Paused", SOON);
    eventually("the icon has the form of a paused machine", SOON, || {
        let icon = day.panel.icon();
        (icon.starts_with(b"\x89PNG") && icon != running).then_some(())
    });
    assert_eq!(day.home.status()["state"], "paused", "and so says the CLI");
    day.driver.wait_text("The machine is paused", SOON);
    day.pictures("paused");
    day.panel.choose(&["Resume"]);
    day.panel.wait_entry("Running", SOON * 2);
    eventually("the icon has its form again", SOON, || (day.panel.icon() == running).then_some(()));
    day.panel.choose(&["Settings"]);
    day.driver.wait_text("Resources", SOON);
    day.pictures("settings");
    day.panel.choose(&["Diagnostics"]);
    day.driver.wait_text("Guest image verified", SOON);
    day.pictures("troubleshoot");
}

/// A newer package comes while the machine runs. What it brings is looked at no further until somebody takes it.
fn update(day: &mut Day) {
    let image = day.prefix.path().join("share/slipway/image");
    std::fs::create_dir_all(&image).expect("made");
    std::fs::copy(day.built.image.join("key.pub"), image.join("key.pub")).expect("copied");
    let manifest = std::fs::read_to_string(day.built.image.join("manifest.json")).expect("read");
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["version"] = "9.9.9".into();
    std::fs::write(image.join("manifest.json"), manifest.to_string()).expect("written");
    let told = || day.panel.told().into_iter().filter(|(title, _)| title == "An update is ready").count();
    day.panel.wait_entry("Update to guest image 9.9.9", SOON);
    eventually("the person is told", SOON, || (told() > 0).then_some(()));
    day.panel.choose(&["Update to guest image"]);
    day.driver.wait_text("A newer image came with", SOON);
    day.driver.wait_text("9.9.9", SOON);
    day.pictures("update");
    // What cannot be verified is not taken, and nothing is stopped for it.
    day.driver.click("Update");
    day.driver.click("Update and restart");
    day.driver.wait_text("The guest image was not updated", SOON);
    day.driver.wait_text("Running", SOON);
    std::fs::remove_dir_all(&image).expect("removed");
    eventually("nothing is offered any more", SOON, || {
        (!day.panel.entries().iter().any(|e| e.label.starts_with("Update to"))).then_some(())
    });
    assert_eq!(told(), 1, "once");
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
