//! Follows the machine for the tray: its status and its containers, by events and never by asking again and again.

use std::{collections::HashMap, time::Duration};

use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use slipway_api::{State, Status, client::Lines};
use tauri::{AppHandle, Manager};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Shared, tell, tell_problem, tray};
use crate::{
    Answered,
    bridge::{Ask, Bridge, Target},
    daemon,
};

/// Events come in swarms; the menu is made once for each.
const SWARM: Duration = Duration::from_millis(200);
/// Between two looks at how much room this computer has: no event tells of it.
const LOOK: Duration = Duration::from_secs(60);
/// Free bytes below which the person should know, before the machine has to wait for room.
const SHORT: u64 = 5 << 30;
/// Until a daemon that went is looked for again, first and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// A container, as far as the tray cares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: String,
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) state: String,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default)]
    pub(super) labels: HashMap<String, String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Port {
    pub(super) public_port: Option<u16>,
    #[serde(rename = "Type")]
    pub(super) protocol: String,
}

/// What the tray shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Picture {
    /// None while no daemon answers.
    pub(super) status: Option<Status>,
    /// All of them, the newest first.
    pub(super) containers: Vec<Container>,
    /// Bytes that the data disk takes on this computer.
    pub(super) disk: Option<u64>,
    /// Bytes that are left on this computer for it, where that is little.
    pub(super) short: Option<u64>,
}

/// Keeps the tray true until the program ends.
pub(super) async fn follow(app: AppHandle) {
    let mut again = AGAIN[0];
    loop {
        let shared = app.state::<Shared>();
        let began = Instant::now();
        match daemon::ensure(&shared.profile).await {
            Ok(()) => {
                if let Ok(lines) = shared.bridge.api().watch().await {
                    follow_daemon(&app, &shared.bridge, lines).await;
                }
            }
            Err(problem) => eprintln!("error: {problem}"),
        }
        tray::update(&app, &Picture::default());
        // One that lived for a while went for a reason of its own, and is looked for at once.
        again = if began.elapsed() > AGAIN[1] { AGAIN[0] } else { (again * 2).min(AGAIN[1]) };
        sleep(again).await;
    }
}

async fn follow_daemon(app: &AppHandle, bridge: &Bridge, mut lines: Lines<Status>) {
    let mut picture = Picture::default();
    let mut events: Option<Answered> = None;
    let mut refresh: Option<Instant> = None;
    let mut look = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(look), if picture.status.as_ref().is_some_and(engine_answers) => {
                look = Instant::now() + LOOK;
                let short = short(bridge).await;
                if let (None, Some(left)) = (picture.short, short) {
                    tell(app, "This computer runs out of room", &tray::left_line(left));
                }
                if picture.short.is_some() || short.is_some() {
                    picture.short = short;
                    tray::update(app, &picture);
                }
            }
            line = lines.next() => {
                let Ok(Some(status)) = line else { return };
                told(app, picture.status.as_ref(), &status);
                let answers = engine_answers(&status);
                picture.status = Some(status);
                if answers && events.is_none() {
                    events = subscribe(bridge).await;
                    refresh = Some(Instant::now());
                } else if !answers {
                    events = None;
                    picture.containers.clear();
                }
                if picture.disk.is_none() || !answers {
                    picture.disk = bridge.api().holdings().await.ok().and_then(|held| held.data_bytes);
                }
                tray::update(app, &picture);
            }
            more = next(&mut events) => {
                match more {
                    true => { refresh.get_or_insert(Instant::now() + SWARM); }
                    // The engine went; the status says what became of it, and when it is back.
                    false => events = None,
                }
            }
            () = at(refresh) => {
                refresh = None;
                picture.containers = containers(bridge).await;
                picture.disk = bridge.api().holdings().await.ok().and_then(|held| held.data_bytes);
                tray::update(app, &picture);
            }
        }
    }
}

/// What is left on the file system of the data disk, if that is little.
async fn short(bridge: &Bridge) -> Option<u64> {
    let disk = bridge.api().holdings().await.ok()?.data_disk;
    let left = tokio::task::spawn_blocking(move || fs4::available_space(disk)).await.ok()?.ok()?;
    Some(left).filter(|left| *left < SHORT)
}

fn engine_answers(status: &Status) -> bool {
    matches!(status.state, State::Running | State::Degraded) && status.engine.is_some()
}

/// What the person must know, once, when it becomes so.
fn told(app: &AppHandle, before: Option<&Status>, now: &Status) {
    // What was there when we came is in the menu; what is new is said.
    let Some(before) = before else { return };
    match (&now.problem, now.state) {
        (Some(problem), State::Failed) if before.state != State::Failed => {
            tell_problem(app, "The machine failed", problem);
        }
        (Some(problem), State::Degraded) if before.state != State::Degraded => {
            tell_problem(app, "Not everything works", problem);
        }
        _ => {}
    }
    if let Some(update) = now.news()
        && before.news().is_none_or(|known| known.to != update.to)
    {
        tell(app, "An update is ready", &format!("Guest image {}: Settings, Guest image", update.to.version));
    }
    for notice in now.notices.iter().filter(|notice| !before.notices.contains(notice)) {
        tell(app, "Slipway", notice);
    }
}

async fn subscribe(bridge: &Bridge) -> Option<Answered> {
    let filters = json!({ "type": ["container"], "event": ["create", "start", "die", "destroy", "rename", "pause", "unpause"] });
    let escaped: String = filters.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let ask = Ask::new(Target::Engine, "GET", &format!("/events?filters={escaped}")).ok()?;
    Some(bridge.stream(ask, None).await.ok()?.into_body())
}

/// Whether there was an event. Cancel-safe; waits for ever without a stream.
async fn next(events: &mut Option<Answered>) -> bool {
    match events {
        Some(events) => matches!(events.frame().await, Some(Ok(_))),
        None => std::future::pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

async fn containers(bridge: &Bridge) -> Vec<Container> {
    let Ok(ask) = Ask::new(Target::Engine, "GET", "/containers/json?all=1") else { return Vec::new() };
    let answer = bridge.request(ask, None).await;
    answer.ok().and_then(|answer| serde_json::from_value(answer.body).ok()).unwrap_or_default()
}
