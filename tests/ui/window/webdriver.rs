//! The window's pages, through WebDriver: what is clicked is clicked by the web view itself, at what a person can see.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use slipway_test_harness::{Command, Running};

use crate::{processes::Processes, screen::Screen};

/// The name of an element in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Finds what can be used and is in sight, by what a screen reader says of it.
const FIND: &str = r#"
    const [kind, name] = arguments;
    const kinds = { button: 'button, [role=button], [role=menuitem], a', tab: '[role=tab]', field: 'input, textarea, select' };
    const said = (e) => (e.getAttribute('aria-label') ?? e.innerText ?? '').trim();
    const labelled = (e) => e.labels && [...e.labels].some((l) => l.innerText.trim() === name);
    const seen = (e) => e.getClientRects().length > 0 && !e.disabled;
    return [...document.querySelectorAll(kinds[kind])].filter(seen).find((e) => said(e) === name || labelled(e)) ?? null;
"#;

/// One session with one window.
pub(crate) struct Driver {
    base: String,
    session: String,
    running: Running,
}

impl Driver {
    /// Starts the program on the screen, through WebKit's own driver.
    pub(crate) fn start(screen: &Screen, program: &Path, env: &[(&str, String)]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        // What the window says goes to a file: a pipe that nobody reads would stop it when it is full.
        std::fs::create_dir_all(screenshots()).expect("made");
        let log = screenshots().join("window.log");
        let script = format!("exec WebKitWebDriver --port={port} >>'{}' 2>&1", log.display());
        let mut driver = Command::new("sh").args(["-c", &script]).env_clear();
        for (name, value) in screen.env.iter().chain(env) {
            driver = driver.env(name, value);
        }
        // What Tauri's own driver sets.
        let running =
            driver.env("TAURI_AUTOMATION", "true").env("TAURI_WEBVIEW_AUTOMATION", "true").spawn_silent();
        let mut new = Self { base: format!("http://127.0.0.1:{port}"), session: String::new(), running };
        let wanted = json!({ "webkitgtk:browserOptions": { "binary": program, "args": [] } });
        let asked = json!({ "capabilities": { "alwaysMatch": wanted } });
        new.session = eventually("the window opens", Duration::from_secs(60), || {
            let said = new.ask("POST", "/session", Some(&asked));
            said["sessionId"].as_str().map(str::to_owned)
        });
        // Of scripts that answer in their own time, on a busy host.
        new.on_session("POST", "/timeouts", Some(&json!({ "script": 50_000 })));
        new
    }

    /// WebDriver's answer, or its error.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut curl = Command::new("curl")
            .args(["-sS", "--max-time", "60", "-X", method, "-H", "Content-Type: application/json"])
            .arg(format!("{}{path}", self.base));
        if let Some(body) = body {
            curl = curl.args(["--data-binary", "@-"]).stdin(body.to_string());
        }
        let ran = curl.run();
        let said: Value = serde_json::from_slice(&ran.out)
            .unwrap_or_else(|_| json!({ "value": { "error": ran.to_string() } }));
        said["value"].clone()
    }

    fn on_session(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    /// What a script of the page gives back.
    pub(crate) fn script(&self, script: &str, arguments: Value) -> Value {
        self.on_session("POST", "/execute/sync", Some(&json!({ "script": script, "args": arguments })))
    }

    /// The same for a script that takes its time: its last argument is the function that it answers by.
    pub(crate) fn script_async(&self, script: &str, arguments: Value) -> Value {
        self.on_session("POST", "/execute/async", Some(&json!({ "script": script, "args": arguments })))
    }

    /// The window's own processes.
    pub(crate) fn processes(&self) -> Processes {
        Processes::below(self.running.id())
    }

    /// All the text in sight.
    pub(crate) fn text(&self) -> String {
        self.script("return document.body.innerText", json!([])).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page says it.
    #[track_caller]
    pub(crate) fn wait_text(&self, wanted: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.text().contains(wanted) {
            assert!(Instant::now() < deadline, "the page does not say `{wanted}`, but:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    #[track_caller]
    fn find(&self, kind: &str, name: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.script(FIND, json!([kind, name]));
            if let Some(id) = found[ELEMENT].as_str() {
                return id.to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "there is no {kind} `{name}` ({found}), but:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Clicks a button, link or menu entry.
    #[track_caller]
    pub(crate) fn click(&self, name: &str) {
        self.click_kind("button", name);
    }

    /// Clicks one of the kinds of [`FIND`]. What moves meanwhile is looked for again.
    #[track_caller]
    pub(crate) fn click_kind(&self, kind: &str, name: &str) {
        for _ in 0..5 {
            let id = self.find(kind, name);
            let said = self.on_session("POST", &format!("/element/{id}/click"), Some(&json!({})));
            if said.is_null() {
                return;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("{kind} `{name}` cannot be clicked:\n{}", self.text());
    }

    /// Types into a field; `\n` is the enter key.
    #[track_caller]
    pub(crate) fn type_into(&self, name: &str, text: &str) {
        let id = self.find("field", name);
        let text = text.replace('\n', "\u{e007}");
        let said = self.on_session("POST", &format!("/element/{id}/value"), Some(&json!({ "text": text })));
        assert!(said.is_null(), "`{name}` cannot be typed into: {said}");
    }

    /// Goes to a page of the window.
    pub(crate) fn go(&self, hash: &str) {
        self.script("location.hash = arguments[0]", json!([hash]));
    }

    /// A picture of the window, after what is on its way has been drawn.
    pub(crate) fn screenshot(&self, name: &str) {
        // What changes its colour by and by has its last one.
        let drawn = "const done = arguments[0]; requestAnimationFrame(() => { \
                     document.getAnimations().filter((a) => a instanceof CSSTransition).forEach((a) => a.finish()); \
                     requestAnimationFrame(() => requestAnimationFrame(() => done(1))) })";
        self.script_async(drawn, json!([]));
        // A page without layers is pictured when it next changes, and one that stands still never is: one dot at its edge changes.
        let change = "const dot = document.createElement('i'); dot.id = 'changing'; let n = 0; \
                      dot.style.cssText = 'position: fixed; inset: 0 auto auto 0; width: 1px; height: 1px'; \
                      document.body.append(dot); const change = () => { if (!dot.isConnected) return; \
                      dot.style.background = `rgb(128 128 128 / ${1 + (n++ % 2)}%)`; requestAnimationFrame(change) }; change()";
        self.script(change, json!([]));
        let picture = self.on_session("GET", "/screenshot", None);
        self.script("document.getElementById('changing').remove()", json!([]));
        let Some(base64) = picture.as_str() else { panic!("no picture: {picture}") };
        let png = Command::new("base64").arg("-d").stdin(base64).run().ok().out;
        assert!(png.starts_with(b"\x89PNG"), "a picture");
        std::fs::write(screenshots().join(format!("{name}.png")), png).expect("written");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A window that is left would start the daemon of its home again.
        self.processes().kill();
    }
}

/// Where pictures and the window's own words go.
fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots")
}

/// Waits until there is something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}
