//! The one window: made, shown, sent to a page, and kept from going anywhere else.

use tauri::{
    AppHandle, Manager, Url, WebviewUrl, WebviewWindow, WebviewWindowBuilder,
    webview::{NewWindowResponse, PageLoadEvent},
};
use tauri_plugin_opener::OpenerExt;

use super::{commands::Streams, system, tell};

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
            let ours = is_ours(url);
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
    system::settle(&window)
}

/// Opens a link in the person's browser. Only the web's own: any other scheme starts a program of this computer.
pub(super) fn browse(app: &AppHandle, url: &Url) -> bool {
    let web = is_web(url);
    if web && let Err(error) = app.opener().open_url(url.as_str(), None::<&str>) {
        tell(app, "No browser was opened", &error.to_string());
    }
    web
}

/// Whether it is one of the built-in pages. Windows' web view knows no scheme of a program's own.
fn is_ours(url: &Url) -> bool {
    if cfg!(windows) {
        is_web(url) && url.host_str() == Some("tauri.localhost")
    } else {
        url.scheme() == "tauri"
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

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
