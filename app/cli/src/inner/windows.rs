//! Windows: the starter gave this process no console, so there is none to leave.

use std::io;

use tokio::signal::windows::{ctrl_c, ctrl_shutdown};
use tokio_util::sync::CancellationToken;

/// Done by the starter.
pub(super) fn own_session() {}

/// Cancels when the computer shuts down, or somebody who runs this process by hand ends it.
pub(super) fn cancel_when_told(stop: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut shutdown) = (ctrl_c()?, ctrl_shutdown()?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = shutdown.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
