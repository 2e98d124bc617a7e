//! What the daemon asks of the system itself and differs by system: modes of files, room for a disk, words to end.

#[cfg_attr(unix, path = "system/unix.rs")]
#[cfg_attr(windows, path = "system/windows.rs")]
mod here;

pub use here::Ends;
pub(crate) use here::{
    create_new, exchange, is_program, make_dir, mode, owned_as, set_mode, settle, writable,
};
