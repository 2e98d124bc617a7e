//! What the window costs, measured where it is tested: printed, and only bounded where it must do nothing at all.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use slipway_test_harness::{Command, Running};

use crate::{
    day::Day,
    processes::Processes,
    screen::first_line,
    webdriver::{Driver, eventually},
};

const SOON: Duration = Duration::from_secs(60);
/// How long a tray without a window is watched.
const IDLE: Duration = Duration::from_secs(60);

/// Scrolls a list in 180 frames, or as far as it comes in 20 s on a host that has much else to do: by so many pixels each, or from
/// end to end; gives their number, those that came late, and what is in the page.
const SCROLL: &str = r#"
    const [selector, by, done] = arguments;
    const list = document.querySelector(selector), times = [], steps = 180;
    const frame = (i) => requestAnimationFrame((time) => {
        times.push(time);
        list.scrollTop = i * (by || list.scrollHeight / steps);
        if (i < steps && time - times[0] < 20000) return frame(i + 1);
        const gaps = times.slice(1).map((t, n) => t - times[n]).sort((a, b) => a - b);
        const rows = list.querySelectorAll('[role=row], .line').length;
        const late = gaps.filter((gap) => gap > 34).length;
        done({ frames: gaps.length, late, median: gaps[gaps.length >> 1], worst: gaps.at(-1), rows, height: list.scrollHeight });
    });
    frame(0);
"#;

/// What Mesa calls its threads where there is no graphics card, and something is drawn as if there were.
const RASTERIZER: &str = "llvmpipe";

/// Milliseconds of the clock at which the page was first painted; none before.
const PAINTED: &str = "const paint = performance.getEntriesByName('first-contentful-paint')[0]; \
                       return paint ? performance.timeOrigin + paint.startTime : null";

fn say(figure: &str) {
    println!("figure: {figure}");
}

/// The window opened while the machine runs: until it is painted, and until its list shows a container.
pub(crate) fn launch(day: &mut Day) {
    day.quit();
    let wall = SystemTime::now();
    let began = Instant::now();
    day.open();
    let seen =
        "return [...document.querySelectorAll('[role=row]')].some((row) => row.innerText.includes('talker'))";
    eventually("the list shows a container", SOON, || {
        day.driver.script(seen, json!([])).as_bool().filter(|seen| *seen)
    });
    let listed = began.elapsed();
    let painted = eventually("the page is painted", SOON, || day.driver.script(PAINTED, json!([])).as_f64());
    let started = wall.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1000.0;
    say(&format!(
        "launch to first paint {:.0} ms, to a live list {} ms",
        painted - started,
        listed.as_millis()
    ));
    assert!(painted > started, "{painted} {started}");
}

/// The program with its tray alone, while the machine and its containers run.
pub(crate) fn hidden(day: &mut Day) {
    day.quit();
    let log = day.home.path().join("minimized.log");
    let script = format!("exec '{}' --minimized >'{}' 2>&1", day.window.display(), log.display());
    let mut sh = Command::new("sh").args(["-c", &script]).env_clear();
    for (name, value) in day.screen.env.iter().chain(&day.env) {
        sh = sh.env(name, value);
    }
    let program = sh.spawn_silent();
    day.panel.wait_entry("Running", SOON);
    // What a start does is over.
    std::thread::sleep(Duration::from_secs(3));
    let before = Processes::of(program.id()).cpu();
    std::thread::sleep(IDLE);
    let processes = Processes::of(program.id());
    let used = processes.cpu().saturating_sub(before);
    say(&format!(
        "tray without a window: {} ms of processor time in {} s, {} MB in {} process(es)",
        used.as_millis(),
        IDLE.as_secs(),
        processes.memory() / 1_000_000,
        processes.count()
    ));
    assert!(processes.memory() > 10_000_000, "it runs");
    assert!(used < IDLE / 20, "it does something: {used:?}");
    day.quit();
    drop(program);
    day.open();
}

/// A daemon and an engine with very much, played by the scripts of the pages' own tests.
struct Crowd {
    driver: Driver,
    _script: Running,
    _home: tempfile::TempDir,
}

impl Crowd {
    fn open(day: &Day, containers: u32, lines: u32) -> Self {
        // Short: sockets go below it.
        let home = tempfile::Builder::new().prefix("slipway-").tempdir().expect("a temporary folder");
        let run = home.path().join(".slipway/run");
        std::fs::create_dir_all(&run).expect("made");
        let mut script = Command::new("node")
            .args([
                "e2e/sockets.mjs",
                &run.display().to_string(),
                &containers.to_string(),
                &lines.to_string(),
            ])
            .in_dir(ui())
            .spawn();
        assert_eq!(first_line(&mut script), "ready");
        // Beside the window stands a `slipway` that finds the daemon running.
        let program = home.path().join("slipway-desktop");
        std::fs::copy(&day.window, &program).expect("copied");
        let finds = home.path().join("slipway");
        std::fs::write(&finds, "#!/bin/sh\nexit 0\n").expect("written");
        std::fs::set_permissions(&finds, PermissionsExt::from_mode(0o755)).expect("allowed");
        let env = [("HOME", home.path().display().to_string()), ("PATH", "/usr/bin:/bin".into())];
        let driver = Driver::start(&day.screen, &program, &env);
        driver.script("localStorage.setItem('slipway.met', '1')", json!([]));
        Self { driver, _script: script, _home: home }
    }

    /// From end to end, after a stretch of as many pixels for each frame as a wheel gives.
    fn scroll(&self, what: &str, selector: &str) -> Value {
        self.measure(&format!("{what}, by a wheel's steps,"), selector, 40);
        self.measure(&format!("{what}, from end to end,"), selector, 0)
    }

    fn measure(&self, what: &str, selector: &str, by: u32) -> Value {
        let processes = self.driver.processes();
        let (before, layers_before) = (processes.cpu(), processes.cpu_of_threads(RASTERIZER));
        let seen = self.driver.script_async(SCROLL, json!([selector, by]));
        let processes = self.driver.processes();
        let layers = processes.cpu_of_threads(RASTERIZER).saturating_sub(layers_before);
        let used = processes.cpu().saturating_sub(before);
        assert!(layers * 10 < used, "the processor plays a graphics card: {layers:?} of {used:?}");
        let used = used.as_millis() as f64;
        let number = |name: &str| seen[name].as_f64().unwrap_or(f64::NAN);
        // The processor time is the same whatever else this host does.
        say(&format!(
            "{what} scrolled: {} of {} frames late, median {:.0} ms, worst {:.0} ms, {:.0} ms of processor time each, {} in the page",
            seen["late"],
            seen["frames"],
            number("median"),
            number("worst"),
            used / number("frames"),
            seen["rows"]
        ));
        seen
    }
}

/// The pages, beside these tests.
pub(crate) fn ui() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui")
}

/// 1,000 containers and 100,000 lines of a log, in the real window.
pub(crate) fn crowd(day: &mut Day) {
    // One window at a time: a second would bring the first to the front.
    if day.driver.processes().count() > 0 {
        day.quit();
    }
    let crowd = Crowd::open(day, 1000, 100_000);
    crowd.driver.go("#/containers");
    crowd.driver.wait_text("container-0000", SOON);
    std::thread::sleep(Duration::from_secs(3));
    let processes = crowd.driver.processes();
    say(&format!(
        "window with 1,000 containers: {} MB in {} processes",
        processes.memory() / 1_000_000,
        processes.count()
    ));
    let list = crowd.scroll("1,000 containers", ".rows");
    assert!(list["rows"].as_u64().is_some_and(|rows| rows < 80), "only what is in sight: {list}");
    assert!(list["height"].as_u64().is_some_and(|height| height > 40_000), "{list}");
    crowd.driver.go(&format!("#/containers/{}/logs", "01".repeat(32)));
    crowd.driver.wait_text("99999", SOON);
    let log = crowd.scroll("100,000 lines of a log", ".lines");
    assert!(log["rows"].as_u64().is_some_and(|rows| rows < 150), "only what is in sight: {log}");
    assert!(log["height"].as_u64().is_some_and(|height| height >= 1_500_000), "{log}");
    say(&format!("window with 100,000 lines: {} MB", crowd.driver.processes().memory() / 1_000_000));
}
