//! The tray: where most people look most of the time.
//!
//! On Linux it is a StatusNotifierItem. Its menu is the whole of it, for there is no click to hear.

mod menu;

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use slipway_api::{StartRequest, State, StopRequest};
use tauri::{
    AppHandle, Manager, Wry,
    image::Image,
    menu::{IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu},
    tray::TrayIconBuilder,
};

pub(super) use self::menu::left_line;
use self::menu::{Action, Item};
use super::{Shared, follow::Picture, open, spawn, tell_problem};
use crate::{
    bridge::{Ask, Target},
    platform::Platform,
};

/// The tray's name within the program.
const ID: &str = "main";
/// What is shown, so that only changes are sent: an open menu closes when it is replaced.
#[derive(Debug, Default)]
struct Shown(Mutex<(Option<State>, Vec<Item>)>);

/// Shows it, with nothing known yet.
pub(super) fn show(app: &AppHandle) -> tauri::Result<()> {
    app.manage(Shown::default());
    let items = menu::menu(&Picture::default());
    TrayIconBuilder::with_id(ID)
        .icon(icon(None))
        .tooltip("Slipway")
        .title("Slipway")
        .menu(&build(app, &items)?)
        .on_menu_event(|app, event| match serde_json::from_str(&event.id.0) {
            Ok(action) => act(app, action),
            Err(_) => eprintln!("error: the menu has no `{}`", event.id.0),
        })
        .build(app)?;
    Ok(())
}

/// Makes it what the picture says.
pub(super) fn update(app: &AppHandle, picture: &Picture) {
    let state = picture.status.as_ref().map(|status| status.state);
    let items = menu::menu(picture);
    let handle = app.clone();
    let work = move || {
        let app = handle;
        let shown = app.state::<Shown>();
        let mut shown = shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tray) = app.tray_by_id(ID) else { return };
        if shown.0 != state || shown.1.is_empty() {
            let _ = tray.set_icon(Some(icon(state)));
        }
        if shown.1 != items {
            match build(&app, &items).and_then(|menu| tray.set_menu(Some(menu))) {
                Ok(()) => *shown = (state, items),
                Err(error) => eprintln!("error: the tray's menu was not made: {error}"),
            }
        }
    };
    // Menus belong to the main thread.
    if let Err(error) = app.run_on_main_thread(work) {
        eprintln!("error: the tray was not brought up to date: {error}");
    }
}

fn icon(state: Option<State>) -> Image<'static> {
    match state {
        None | Some(State::Stopped) => tauri::include_image!("./icons/tray/stopped.png"),
        Some(State::Starting | State::Stopping) => tauri::include_image!("./icons/tray/starting.png"),
        Some(State::Running) => tauri::include_image!("./icons/tray/running.png"),
        Some(State::Paused) => tauri::include_image!("./icons/tray/paused.png"),
        Some(State::Degraded) => tauri::include_image!("./icons/tray/degraded.png"),
        Some(State::Failed) => tauri::include_image!("./icons/tray/failed.png"),
    }
}

fn build(app: &AppHandle, items: &[Item]) -> tauri::Result<Menu<Wry>> {
    let menu = Menu::new(app)?;
    for item in items {
        menu.append(&*entry(app, item)?)?;
    }
    Ok(menu)
}

fn entry(app: &AppHandle, item: &Item) -> tauri::Result<Box<dyn IsMenuItem<Wry>>> {
    Ok(match item {
        Item::Separator => Box::new(PredefinedMenuItem::separator(app)?),
        Item::Line(text) => Box::new(MenuItem::new(app, text, false, None::<&str>)?),
        Item::Act(text, action) => {
            let id = serde_json::to_string(action).unwrap_or_default();
            Box::new(MenuItem::with_id(app, id, text, true, None::<&str>)?)
        }
        Item::More(text, items) => {
            let submenu = Submenu::new(app, text, true)?;
            for item in items {
                submenu.append(&*entry(app, item)?)?;
            }
            Box::new(submenu)
        }
    })
}

/// Does what was chosen. What fails is told: the menu is closed by then.
fn act(app: &AppHandle, action: Action) {
    match action {
        Action::Open { page } => open::show(app, page.as_deref()),
        Action::Browse { url } => {
            if let Ok(url) = url.parse() {
                open::browse(app, &url);
            }
        }
        Action::Quit { stop: false } => app.exit(0),
        action => {
            let owner = app.clone();
            spawn(app, async move {
                let quits = matches!(action, Action::Quit { .. });
                if let Err((title, problem)) = ask(&owner.state::<Shared>(), action).await {
                    tell_problem(&owner, title, &problem);
                } else if quits {
                    owner.exit(0);
                }
            });
        }
    }
}

async fn ask(shared: &Shared, action: Action) -> Result<(), (&'static str, slipway_api::Problem)> {
    let api = shared.bridge.api();
    let start = || StartRequest {
        docker_config: Platform::of_process(&shared.profile, true).docker_config,
        ..StartRequest::default()
    };
    let stop = StopRequest::default();
    let problem =
        |title: &'static str| move |error: slipway_api::client::ClientError| (title, error.into_problem());
    match action {
        Action::Start => api.start(&start()).await.map(drop).map_err(problem("The machine did not start")),
        Action::Stop | Action::Quit { .. } => {
            api.stop(&stop).await.map(drop).map_err(problem("The machine did not stop"))
        }
        Action::Restart => {
            restart(shared, &start()).await.map_err(|problem| ("The machine did not restart", problem))
        }
        Action::Pause => api.pause().await.map(drop).map_err(problem("The machine was not paused")),
        Action::Resume => api.resume().await.map(drop).map_err(problem("The machine does not go on")),
        Action::Containers { ids, verb } => {
            let asked = ids.iter().map(|id| async move {
                let path = format!("/containers/{id}/{}", verb.path());
                shared.bridge.stream(Ask::new(Target::Engine, "POST", &path)?, None).await.map(drop)
            });
            let failed = join_all(asked).await.into_iter().find_map(Result::err);
            failed.map_or(Ok(()), |problem| Err(("The container did not obey", problem)))
        }
        Action::Open { .. } | Action::Browse { .. } => Ok(()),
    }
}

/// Stops, waits until it is stopped, starts.
async fn restart(shared: &Shared, start: &StartRequest) -> Result<(), slipway_api::Problem> {
    use slipway_api::client::ClientError;
    let api = shared.bridge.api();
    let mut lines = api.watch().await.map_err(ClientError::into_problem)?;
    api.stop(&StopRequest::default()).await.map_err(ClientError::into_problem)?;
    // Ends when the daemon does; how long a stop may take is the daemon's to bound.
    while let Some(status) = lines.next().await.map_err(ClientError::into_problem)? {
        if matches!(status.state, State::Stopped | State::Failed) {
            break;
        }
    }
    api.start(start).await.map(drop).map_err(ClientError::into_problem)
}
