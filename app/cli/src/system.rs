//! What files and processes need that differs by system.

#[cfg_attr(unix, path = "system/unix.rs")]
#[cfg_attr(windows, path = "system/windows.rs")]
mod host;

pub(crate) use host::{DEFAULT_EDITOR, DEFAULT_SHELL, edit, in_background, private, same_rights};
