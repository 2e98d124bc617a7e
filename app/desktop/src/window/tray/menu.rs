//! What the menu says, as a value: made from the picture alone, so that it can be tested without a tray.

use serde::{Deserialize, Serialize};
use slipway_api::{State, Status};

use crate::window::follow::{Container, Picture};

/// Most containers and projects in the menu; the window has them all.
const MOST: usize = 12;
/// Longest name in the menu, in characters.
const LONGEST: usize = 48;

/// One line of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A line between groups.
    Separator,
    /// Something to read.
    Line(String),
    /// Something to do.
    Act(String, Action),
    /// A menu of its own.
    More(String, Vec<Item>),
}

/// What is done when a line is chosen. Travels as JSON in the line's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(super) enum Action {
    /// Show the window, at a page.
    Open { page: Option<String> },
    /// Show a page of the web.
    Browse { url: String },
    /// The machine.
    Start,
    /// The machine.
    Stop,
    /// The machine.
    Restart,
    /// The machine's processors.
    Pause,
    /// The machine's processors.
    Resume,
    /// Some containers.
    Containers { ids: Vec<String>, verb: Verb },
    /// This program; with `stop` the machine as well.
    Quit { stop: bool },
}

/// What to do with containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verb {
    /// Those that do not run.
    Start,
    /// Those that run.
    Stop,
    /// Those that run.
    Restart,
}

impl Verb {
    /// The last part of the engine's path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

fn act(text: impl Into<String>, action: Action) -> Item {
    Item::Act(text.into(), action)
}

fn page(page: &str) -> Action {
    Action::Open { page: Some(page.into()) }
}

/// The whole menu.
pub(super) fn menu(picture: &Picture) -> Vec<Item> {
    let status = picture.status.as_ref();
    let mut items = vec![Item::Line(state_line(status))];
    items.extend(
        status.into_iter().flat_map(|s| &s.notices).map(|notice| Item::Line(short(&format!("! {notice}")))),
    );
    items.extend(picture.short.map(|left| Item::Line(format!("! {}", left_line(left)))));
    if let Some(update) = status.and_then(Status::news) {
        items.push(act(
            short(&format!("Update to guest image {} …", update.to.version)),
            page("#/settings/image"),
        ));
    }
    items.push(Item::Separator);
    items.push(act("Open Slipway", Action::Open { page: None }));
    match status.map(|s| s.state) {
        Some(State::Stopped | State::Failed) => items.push(act("Start", Action::Start)),
        Some(State::Running | State::Degraded) => {
            let acts = [("Stop", Action::Stop), ("Restart", Action::Restart), ("Pause", Action::Pause)];
            items.extend(acts.map(|(text, action)| act(text, action)));
        }
        Some(State::Paused) => {
            items.extend([act("Resume", Action::Resume), act("Stop", Action::Stop)]);
        }
        Some(State::Starting) => items.push(act("Stop", Action::Stop)),
        Some(State::Stopping) | None => {}
    }
    let running: Vec<&Container> = picture.containers.iter().filter(|c| c.state == "running").collect();
    if !running.is_empty() {
        items.push(Item::Separator);
        items.push(Item::Line(format!("{} running", count(running.len(), "container"))));
        items.extend(running.iter().take(MOST).map(|c| container(c)));
        if running.len() > MOST {
            items.push(act(format!("{} more …", running.len() - MOST), page("#/containers")));
        }
    }
    let projects = projects(&picture.containers);
    if !projects.is_empty() {
        items.push(Item::Separator);
        items.push(Item::Line("Compose projects".into()));
        items.extend(projects);
    }
    if let Some(line) = use_line(picture) {
        items.extend([Item::Separator, Item::Line(line)]);
    }
    items.extend([
        Item::Separator,
        act("Settings …", page("#/settings")),
        act("Diagnostics …", page("#/troubleshoot")),
        Item::Separator,
    ]);
    match status.map(|s| s.state) {
        // Which of the two is meant only the person knows.
        Some(State::Running | State::Degraded | State::Starting | State::Paused) => items.push(Item::More(
            "Quit".into(),
            vec![
                act("Quit, containers go on", Action::Quit { stop: false }),
                act("Quit and stop the machine", Action::Quit { stop: true }),
            ],
        )),
        _ => items.push(act("Quit", Action::Quit { stop: false })),
    }
    items
}

fn state_line(status: Option<&Status>) -> String {
    let Some(status) = status else { return "Slipway does not answer".into() };
    let reason = status.problem.as_ref().map(|problem| format!(": {}", problem.message)).unwrap_or_default();
    short(&match status.state {
        State::Stopped => "Stopped".into(),
        State::Starting => match status.phases.iter().rfind(|phase| phase.ended_ms.is_none()) {
            Some(phase) => format!("Starting: {}", phase.name),
            None => "Starting".into(),
        },
        State::Running => match &status.engine {
            Some(engine) => format!("Running · Docker {engine}"),
            None => "Running".into(),
        },
        State::Degraded => format!("Degraded{reason}"),
        State::Paused => "Paused".into(),
        State::Stopping => "Stopping".into(),
        State::Failed => format!("Failed{reason}"),
    })
}

fn container(container: &Container) -> Item {
    let name = container.names.first().map_or(&container.id, |name| name);
    let mut ports: Vec<u16> =
        container.ports.iter().filter(|p| p.protocol == "tcp").filter_map(|p| p.public_port).collect();
    ports.sort_unstable();
    ports.dedup();
    let ids = || vec![container.id.clone()];
    let open = ports.iter().map(|port| {
        act(format!("Open localhost:{port}"), Action::Browse { url: format!("http://localhost:{port}/") })
    });
    let mut items: Vec<Item> = open.collect();
    items.extend([
        act("Logs", page(&format!("#/containers/{}/logs", container.id))),
        act("Stop", Action::Containers { ids: ids(), verb: Verb::Stop }),
        act("Restart", Action::Containers { ids: ids(), verb: Verb::Restart }),
    ]);
    Item::More(short(name.trim_start_matches('/')), items)
}

/// One line each, in the order of their newest container.
fn projects(containers: &[Container]) -> Vec<Item> {
    let mut projects: Vec<(&str, Vec<&Container>)> = Vec::new();
    for container in containers {
        let Some(name) = container.labels.get("com.docker.compose.project") else { continue };
        match projects.iter_mut().find(|(known, _)| known == name) {
            Some((_, of)) => of.push(container),
            None => projects.push((name, vec![container])),
        }
    }
    let item = |(name, of): &(&str, Vec<&Container>)| {
        let ids = |runs: bool| -> Vec<String> {
            of.iter().filter(|c| (c.state == "running") == runs).map(|c| c.id.clone()).collect()
        };
        let (running, stopped) = (ids(true), ids(false));
        let text = format!("{} ({} of {} run)", short(name), running.len(), of.len());
        let mut items = Vec::new();
        if !stopped.is_empty() {
            items.push(act("Start", Action::Containers { ids: stopped, verb: Verb::Start }));
        }
        if !running.is_empty() {
            items.push(act("Stop", Action::Containers { ids: running, verb: Verb::Stop }));
        }
        Item::More(text, items)
    };
    projects.iter().take(MOST).map(item).collect()
}

fn use_line(picture: &Picture) -> Option<String> {
    let machine = picture.status.as_ref().and_then(|status| status.machine.as_ref());
    let mut parts = Vec::new();
    if let Some(machine) = machine {
        parts.push(count(machine.cpus as usize, "CPU"));
        parts.push(format!("{} memory", bytes(machine.memory_mib << 20)));
    }
    parts.extend(picture.disk.map(|disk| format!("{} on disk", bytes(disk))));
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// How little is left on this computer.
pub(crate) fn left_line(left: u64) -> String {
    format!("Only {} are free for the data disk", bytes(left))
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

fn bytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.0} MiB") }
}

/// Names come out of images and of strangers' files: cut to a line, and without what a menu takes for a sign of its own.
fn short(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if text.chars().count() > LONGEST {
        short.push('…');
    }
    // An ampersand alone would underline the next letter.
    short.replace('&', "&&")
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn picture(state: &str, containers: serde_json::Value) -> Picture {
        let status = json!({ "profile": "default", "state": state, "engine": "28.5.2", "socket": "/s", "image": null,
            "machine": { "cpus": 4, "memory_mib": 2048, "pid": 1, "vmm": "qemu", "accel": "kvm", "transport": "vsock" },
            "docker": null, "running_since": 1, "problem": { "code": "x", "message": "no room" },
            "notices": ["no acceleration"],
            "phases": [{ "name": "image", "state": "done", "started_ms": 0, "ended_ms": 1 },
                { "name": "engine", "state": "running", "started_ms": 1, "ended_ms": null }] });
        Picture {
            status: Some(from_value(status).expect("a status")),
            containers: from_value(containers).expect("containers"),
            disk: Some(3 << 29),
            short: None,
        }
    }

    fn texts(items: &[Item]) -> Vec<String> {
        let text = |item: &Item| match item {
            Item::Separator => "-".to_owned(),
            Item::Line(text) | Item::Act(text, _) => text.clone(),
            Item::More(text, items) => format!("{text} [{}]", texts(items).join(", ")),
        };
        items.iter().map(text).collect()
    }

    #[test]
    fn every_state_says_what_it_is_and_offers_what_can_be_done() {
        let top = |state: &str| {
            let mut texts = texts(&menu(&picture(state, json!([]))));
            texts.truncate(6);
            texts.join(" | ")
        };
        let noted = "! no acceleration | - | Open Slipway";
        assert_eq!(top("stopped"), format!("Stopped | {noted} | Start | -"));
        assert_eq!(top("starting"), format!("Starting: engine | {noted} | Stop | -"));
        assert_eq!(top("running"), format!("Running · Docker 28.5.2 | {noted} | Stop | Restart"));
        assert_eq!(top("degraded"), format!("Degraded: no room | {noted} | Stop | Restart"));
        assert_eq!(top("paused"), format!("Paused | {noted} | Resume | Stop"));
        assert_eq!(
            top("stopping"),
            format!("Stopping | {noted} | - | 4 CPUs · 2.0 GiB memory · 1.5 GiB on disk")
        );
        assert_eq!(top("failed"), format!("Failed: no room | {noted} | Start | -"));
        let alone = texts(&menu(&Picture::default()));
        assert_eq!(
            alone,
            ["Slipway does not answer", "-", "Open Slipway", "-", "Settings …", "Diagnostics …", "-", "Quit"]
        );
    }

    #[test]
    fn containers_and_projects_are_there_with_what_they_can_do() {
        let containers = json!([
            { "Id": "a", "Names": ["/web"], "State": "running", "Labels": { "com.docker.compose.project": "shop" },
              "Ports": [{ "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }, { "PublicPort": 8080, "Type": "tcp" },
                        { "PublicPort": 53, "Type": "udp" }, { "PrivatePort": 9, "Type": "tcp" }] },
            { "Id": "b", "Names": ["/db"], "State": "exited", "Labels": { "com.docker.compose.project": "shop" } },
        ]);
        let items = menu(&picture("running", containers));
        let texts = texts(&items);
        assert!(texts.contains(&"1 container running".into()), "{texts:?}");
        assert!(texts.contains(&"web [Open localhost:8080, Logs, Stop, Restart]".into()), "{texts:?}");
        assert!(texts.contains(&"shop (1 of 2 run) [Start, Stop]".into()), "{texts:?}");
        assert!(
            texts.contains(&"Quit [Quit, containers go on, Quit and stop the machine]".into()),
            "{texts:?}"
        );
        let shop = items.iter().find_map(|item| match item {
            Item::More(text, items) if text.starts_with("shop") => Some(items),
            _ => None,
        });
        let start = Action::Containers { ids: vec!["b".into()], verb: Verb::Start };
        assert_eq!(shop.expect("the project")[0], act("Start", start), "only what does not run");
    }

    #[test]
    fn little_room_is_said_at_the_top() {
        let full = Picture { short: Some(700 << 20), ..picture("running", json!([])) };
        assert_eq!(texts(&menu(&full))[2], "! Only 700 MiB are free for the data disk");
    }

    #[test]
    fn an_update_leads_to_where_it_is_taken() {
        let mut picture = picture("running", json!([]));
        let update = |declined: bool| json!({ "from": "0.1", "to": { "version": "0.2", "dir": "/usr/share/slipway/image" }, "declined": declined });
        let mut told = |update: serde_json::Value| {
            picture.status.as_mut().expect("a status").update = Some(from_value(update).expect("an update"));
            menu(&picture)[2].clone()
        };
        assert_eq!(told(update(false)), act("Update to guest image 0.2 …", page("#/settings/image")));
        assert_eq!(told(update(true)), Item::Separator);
        picture.status.as_mut().expect("a status").machine = None;
        assert_eq!(menu(&picture)[2], Item::Separator, "the next start takes it");
    }

    #[test]
    fn strange_names_stay_one_short_line_and_many_are_cut() {
        let many: Vec<_> = (0..30)
            .map(|n| json!({ "Id": n.to_string(), "Names": [format!("/a&b\n{}{n}", "x".repeat(100))], "State": "running" }))
            .collect();
        let texts = texts(&menu(&picture("running", json!(many))));
        assert!(texts.contains(&"18 more …".into()), "{texts:?}");
        assert!(texts.iter().filter(|t| t.starts_with("a&&b")).all(|t| t.contains('…') && !t.contains('\n')));
    }

    #[test]
    fn actions_travel_in_the_menu_and_back() {
        for action in [
            Action::Open { page: None },
            Action::Start,
            Action::Quit { stop: true },
            Action::Containers { ids: vec!["a".into()], verb: Verb::Restart },
        ] {
            let id = serde_json::to_string(&action).expect("JSON");
            assert_eq!(serde_json::from_str::<Action>(&id).expect("the same"), action);
        }
    }
}
