//! What the window needs of the system's screen, tray and web view, and differs by system.

#[cfg_attr(target_os = "linux", path = "system/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "system/elsewhere.rs")]
mod here;

pub(super) use here::{can_show_tray, no_screen, settle};
