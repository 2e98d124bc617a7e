//! Unix: termios, and signals.

use std::io::{self, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ended_by;

/// How a terminal is.
#[derive(Debug)]
pub(super) struct Modes(Termios);

impl Modes {
    /// As stdin's is now.
    pub(super) fn now() -> io::Result<Self> {
        Ok(Self(tcgetattr(io::stdin())?))
    }

    /// The same in raw mode.
    pub(super) fn raw(&self) -> Self {
        let mut raw = self.0.clone();
        raw.make_raw();
        Self(raw)
    }

    /// Makes stdin's so.
    pub(super) fn set(&self) -> io::Result<()> {
        Ok(tcsetattr(io::stdin(), OptionalActions::Now, &self.0)?)
    }
}

/// What ends a session from outside.
#[derive(Debug)]
pub(crate) struct Ends {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one; the exit code. Cancel-safe.
    pub(crate) async fn next(&mut self) -> u8 {
        ended_by(tokio::select! {
            _ = self.hangup.recv() => 1,
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        })
    }
}

/// New sizes of the terminal.
#[derive(Debug)]
pub(crate) struct Resizes(Signal);

impl Resizes {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(Self)
    }

    /// Waits for one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Where any bytes can be written.
pub(crate) fn forgiving<W: Write>(out: W) -> W {
    out
}

/// Does a terminal here do what escape sequences say?
pub(crate) fn shows_escapes() -> bool {
    true
}

/// Is there a screen that a window can be opened on? If not, why.
pub(crate) fn has_screen() -> Result<(), &'static str> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if cfg!(target_os = "macos") || set("DISPLAY") || set("WAYLAND_DISPLAY") {
        Ok(())
    } else {
        Err("neither DISPLAY nor WAYLAND_DISPLAY is set")
    }
}
