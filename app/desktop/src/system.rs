//! What the desktop asks of the system itself and differs by system: programs, their ends, new files.

#[cfg_attr(unix, path = "system/unix.rs")]
#[cfg_attr(windows, path = "system/windows.rs")]
mod here;

pub(crate) use here::{ask_to_end, is_program, new_file};
