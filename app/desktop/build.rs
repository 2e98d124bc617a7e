//! Builds what the window needs besides code: its permissions, and a check that its pages are there.

fn main() {
    #[cfg(feature = "window")]
    window();
}

#[cfg(feature = "window")]
fn window() {
    let pages = "../../ui/dist";
    println!("cargo::rerun-if-changed={pages}");
    // Who names others, as `installer/check-cross` does, is told by Tauri what is wrong with those.
    let others = std::env::var_os("TAURI_CONFIG").is_some();
    if !others && !std::path::Path::new(pages).join("index.html").is_file() {
        println!(
            "cargo::error=the window's pages are not built: run `npm ci && npm run build` in ui/, then this again"
        );
        return;
    }
    const COMMANDS: &[&str] = &[
        "bridge_request",
        "bridge_stream",
        "bridge_cancel",
        "bridge_open",
        "bridge_write",
        "bridge_close_write",
        "bridge_close",
        "bridge_upload",
        "bridge_download",
        "bridge_rebuild",
        "choose_file",
        "choose_save_file",
        "choose_folder",
        "open_external",
        "notify",
        "start_daemon",
        "build_history",
        "platform",
        "autostart",
        "set_autostart",
    ];
    // Named here, so that a command is refused unless `capabilities/` gives it to the window.
    let manifest = tauri_build::AppManifest::new().commands(COMMANDS);
    if let Err(error) = tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest)) {
        println!("cargo::error={error:#}");
    }
}
