//! macOS and Windows: a person's session has a screen and a place for trays, and the web view is left as it is.

use tauri::WebviewWindow;

/// None is missing.
pub(in super::super) fn no_screen() -> Option<&'static str> {
    None
}

/// It is the system's own.
pub(in super::super) fn can_show_tray() -> bool {
    true
}

/// Nothing to tell.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(in super::super) fn settle(_window: &WebviewWindow) -> tauri::Result<()> {
    Ok(())
}
