//! The window and the tray, with Tauri.
//!
//! The window is made when it is asked for and gone when it is closed: with the tray alone no web view runs. Its pages are
//! built in, nothing remote is loaded, and links leave for the person's browser.

mod commands;
mod follow;
mod open;
mod system;
mod tray;

use std::time::Duration;

use slipway_api::Problem;
use tauri::{App, AppHandle, Manager, RunEvent};
use tauri_plugin_notification::NotificationExt;
use tauri_plugin_window_state::StateFlags;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{bridge::Bridge, daemon};

/// What commands, tray and window share.
pub(crate) struct Shared {
    bridge: Bridge,
    profile: String,
    tasks: TaskTracker,
    ending: CancellationToken,
    has_tray: bool,
}

/// Opens the window of a profile, or with `minimized` only its tray, and returns when the person quits.
///
/// # Errors
/// No screen, or no web view.
pub fn run(bridge: Bridge, profile: String, minimized: bool) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(why) = system::no_screen() {
        return Err(why.into());
    }
    let shared = Shared {
        bridge,
        profile: profile.clone(),
        tasks: TaskTracker::new(),
        ending: CancellationToken::new(),
        has_tray: system::can_show_tray(),
    };
    let mut context = tauri::generate_context!();
    // Each profile has a window of its own, that remembers its own place.
    let instance = format!("dev.slipway.desktop.profile_{}", profile.replace('-', "_"));
    if profile != slipway_api::paths::DEFAULT_PROFILE {
        context.config_mut().identifier = instance.replace('_', "-");
    }
    let single = tauri_plugin_single_instance::Builder::new()
        .dbus_id(instance)
        .callback(|app, _, _| open::show(app, None))
        .build();
    // When it is shown is ours to say: with its first page in it.
    let remembered = StateFlags::SIZE | StateFlags::POSITION | StateFlags::MAXIMIZED | StateFlags::FULLSCREEN;
    let app = tauri::Builder::default()
        .plugin(single)
        .plugin(tauri_plugin_window_state::Builder::new().with_state_flags(remembered).build())
        .plugin(tauri_plugin_autostart::Builder::new().arg("--minimized").build())
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_notification::init())
        .plugin(tauri_plugin_opener::Builder::new().open_js_links_on_click(false).build())
        .manage(shared)
        .manage(commands::Streams::default())
        .invoke_handler(tauri::generate_handler![
            commands::bridge_request,
            commands::bridge_stream,
            commands::bridge_cancel,
            commands::bridge_open,
            commands::bridge_write,
            commands::bridge_close_write,
            commands::bridge_close,
            commands::bridge_upload,
            commands::bridge_download,
            commands::bridge_rebuild,
            commands::choose_file,
            commands::choose_save_file,
            commands::choose_folder,
            commands::open_external,
            commands::notify,
            commands::start_daemon,
            commands::build_history,
            commands::platform,
            commands::autostart,
            commands::set_autostart,
        ])
        .setup(move |app| setup(app, minimized))
        .build(context)?;
    app.run(|app, event| match event {
        // The last window closed: the tray stays.
        RunEvent::ExitRequested { code: None, api, .. } if app.state::<Shared>().has_tray => {
            api.prevent_exit()
        }
        RunEvent::Exit => {
            let shared = app.state::<Shared>();
            shared.ending.cancel();
            shared.tasks.close();
            // They end by themselves; what hangs in a broken system is not waited for.
            tauri::async_runtime::block_on(async {
                let _ = tokio::time::timeout(Duration::from_secs(2), shared.tasks.wait()).await;
            });
        }
        _ => {}
    });
    Ok(())
}

fn setup(app: &mut App, minimized: bool) -> Result<(), Box<dyn std::error::Error>> {
    let app = app.handle().clone();
    let has_tray = app.state::<Shared>().has_tray;
    if has_tray {
        tray::show(&app)?;
        spawn(&app, follow::follow(app.clone()));
    } else {
        let starting = app.clone();
        spawn(&app, async move {
            if let Err(problem) = daemon::ensure(&starting.state::<Shared>().profile).await {
                eprintln!("error: {problem}");
            }
        });
    }
    // Without a tray a hidden program could never be reached again.
    if !minimized || !has_tray {
        open::show(&app, None);
    }
    Ok(())
}

/// Runs a task until it ends or the program does.
fn spawn(app: &AppHandle, task: impl Future<Output = ()> + Send + 'static) {
    let shared = app.state::<Shared>();
    let ending = shared.ending.clone();
    let handle = tauri::async_runtime::handle();
    shared.tasks.spawn_on(
        async move {
            tokio::select! {
                () = task => {}
                () = ending.cancelled() => {}
            }
        },
        handle.inner(),
    );
}

/// Tells the person something that they should know although they are not looking.
fn tell(app: &AppHandle, title: &str, body: &str) {
    // It says that it worked even where nobody shows notifications, so there is nothing to learn from it.
    let _ = app.notification().builder().title(title).body(body).show();
}

fn tell_problem(app: &AppHandle, title: &str, problem: &Problem) {
    let hint = problem.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    tell(app, title, &format!("{}{hint}", problem.message));
}
