//! Unix: sessions and signals.

use std::io;

use rustix::process::{getpgid, getppid, setpgid, setsid};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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

/// Cancels when a signal says that this process is to end.
pub(super) fn cancel_when_told(stop: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Its terminal went away before it had a session of its own: nothing to end a machine for.
    let hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let _hangup = hangup;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
