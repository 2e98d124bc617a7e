//! The one window: made, shown, sent to a page, and kept from going anywhere else.

use std::{fs::OpenOptions, path::Path};

use tauri::{
    AppHandle, Manager, Url, WebviewUrl, WebviewWindow, WebviewWindowBuilder,
    webview::{NewWindowResponse, PageLoadEvent},
};
use tauri_plugin_opener::OpenerExt;

use super::{commands::Streams, tell};

/// The window's name in `capabilities/`.
const LABEL: &str = "main";

/// Shows the window, at `page` (`#/settings`) if one is named.
pub(super) fn show(app: &AppHandle, page: Option<&str>) {
    let shown = match app.get_webview_window(LABEL) {
        Some(window) => front(&window, page),
        None => make(app, page),
    };
    if let Err(error) = shown {
        eprintln!("error: the window did not open: {error}");
        tell(app, "The window did not open", &error.to_string());
    }
}

fn front(window: &WebviewWindow, page: Option<&str>) -> tauri::Result<()> {
    if let Some(page) = page {
        // As JSON it is a string of the page's language, whatever is in it.
        let page = serde_json::to_string(page).unwrap_or_default();
        window.eval(format!("location.hash = {page}"))?;
    }
    window.unminimize()?;
    window.show()?;
    window.set_focus()
}

fn make(app: &AppHandle, page: Option<&str>) -> tauri::Result<()> {
    let url = format!("index.html{}", page.unwrap_or_default());
    let (elsewhere, links) = (app.clone(), app.clone());
    let window = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App(url.into()))
        .title("Slipway")
        .inner_size(1180.0, 760.0)
        .min_inner_size(760.0, 480.0)
        // Shown with its first page in it, and not as an empty frame before.
        .visible(false)
        .on_navigation(move |url| {
            let ours = url.scheme() == "tauri";
            if !ours {
                browse(&elsewhere, url);
            }
            ours
        })
        .on_new_window(move |url, _| {
            browse(&links, &url);
            NewWindowResponse::Deny
        })
        .on_page_load(|window, load| match load.event() {
            // What the page before this one had open is nobody's.
            PageLoadEvent::Started => window.state::<Streams>().end_all(),
            PageLoadEvent::Finished => {
                let _ = window.show();
            }
        })
        .build()?;
    settle(&window)
}

/// What only the web view itself can be told.
fn settle(window: &WebviewWindow) -> tauri::Result<()> {
    let app = window.app_handle().clone();
    window.with_webview(move |view| {
        use webkit2gtk::{HardwareAccelerationPolicy, SettingsExt, WebViewExt};
        let view = view.inner();
        // Layers are put together by a graphics card. Where the processor does it, at every frame and for the whole window, nearly
        // all frames of a long list come late (`tests/ui/window/figures.rs`); without layers it draws what changed and no more.
        if let Some(settings) = view.settings().filter(|_| !graphics_card(Path::new("/dev"))) {
            settings.set_hardware_acceleration_policy(HardwareAccelerationPolicy::Never);
        }
        // A web process that died, for want of memory most likely, leaves a window without a page: it is loaded again.
        view.connect_web_process_terminated(move |view, reason| {
            eprintln!("error: the window's web process ended: {reason:?}");
            app.state::<Streams>().end_all();
            view.reload();
        });
    })
}

/// Whether there is a graphics card that this person may draw with: a node of the kernel's for it that opens.
fn graphics_card(devices: &Path) -> bool {
    let opens = |path: &Path| OpenOptions::new().read(true).write(true).open(path).is_ok();
    let nodes = std::fs::read_dir(devices.join("dri")).into_iter().flatten().flatten();
    let mut nodes = nodes.filter(|node| node.file_name().as_encoded_bytes().starts_with(b"renderD"));
    // Nvidia's own driver has one of its own.
    nodes.any(|node| opens(&node.path())) || opens(&devices.join("nvidiactl"))
}

/// Opens a link in the person's browser. Only the web's own: any other scheme starts a program of this computer.
pub(super) fn browse(app: &AppHandle, url: &Url) -> bool {
    let web = is_web(url);
    if web && let Err(error) = app.opener().open_url(url.as_str(), None::<&str>) {
        tell(app, "No browser was opened", &error.to_string());
    }
    web
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graphics_card_is_a_node_that_opens() {
        let devices = tempfile::tempdir().expect("made");
        let at = |name: &str| devices.path().join(name);
        assert!(!graphics_card(devices.path()), "nothing at all");
        std::fs::create_dir(at("dri")).expect("made");
        // What shows pictures, and draws none.
        std::fs::write(at("dri/card0"), "").expect("written");
        // One that cannot be opened, for root neither.
        std::fs::create_dir(at("dri/renderD128")).expect("made");
        assert!(!graphics_card(devices.path()));
        std::fs::write(at("dri/renderD129"), "").expect("written");
        assert!(graphics_card(devices.path()));
        std::fs::remove_dir_all(at("dri")).expect("removed");
        std::fs::write(at("nvidiactl"), "").expect("written");
        assert!(graphics_card(devices.path()));
    }

    #[test]
    fn only_links_of_the_web_leave_for_the_browser() {
        let web = |url: &str| is_web(&url.parse().expect(url));
        assert!(web("https://example.org/a") && web("http://localhost:8080/"));
        for url in [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "ssh://host/",
            "tauri://localhost/",
            "mailto:a@b",
            "data:,x",
        ] {
            assert!(!web(url), "{url}");
        }
    }
}
