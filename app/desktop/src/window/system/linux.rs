//! Linux: GTK, its web view, and a tray by a library that need not be there.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use tauri::{Manager, WebviewWindow};

use crate::window::commands::Streams;

/// What a tray is shown with, by the names that are tried when one is made.
const LIBRARIES: [&str; 2] = ["libayatana-appindicator3.so.1", "libappindicator3.so.1"];

/// Why no window can be opened. Without a screen GTK ends the process in its own way, so it is looked for first.
pub(in super::super) fn no_screen() -> Option<&'static str> {
    let screen = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    (!screen("DISPLAY") && !screen("WAYLAND_DISPLAY"))
        .then_some("there is no screen to open a window on: neither DISPLAY nor WAYLAND_DISPLAY is set")
}

/// Whether there is what a tray needs. Making one without it ends the program, so it is looked for first.
pub(in super::super) fn can_show_tray() -> bool {
    let configured = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64"].map(PathBuf::from);
    let multiarch =
        ["/usr/lib", "/lib"].map(|dir| PathBuf::from(format!("{dir}/{}-linux-gnu", std::env::consts::ARCH)));
    let mut dirs = std::env::split_paths(&configured).chain(usual).chain(multiarch);
    dirs.any(|dir| LIBRARIES.iter().any(|library| dir.join(library).exists()))
}

/// What only the web view itself can be told.
pub(in super::super) fn settle(window: &WebviewWindow) -> tauri::Result<()> {
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
}
