//! Unix: sessions.

use rustix::process::{getpgid, getppid, setpgid, setsid};

/// Leaves the starter's session and terminal.
pub(super) fn own_session() {
    if setsid().is_ok() {
        return;
    }
    // The leader of a process group may not, and a starter that shields us from Ctrl-C made us one. In the starter's
    // group for a moment we are not; if the starter has gone, so has its session, nearly always.
    if let Some(parent) = getppid()
        && let Ok(group) = getpgid(Some(parent))
        && setpgid(None, Some(group)).is_ok()
    {
        let _ = setsid();
    }
}
