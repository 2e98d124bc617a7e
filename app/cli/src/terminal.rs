//! The person's terminal: its size, raw mode and out of it again whatever happens, and what ends or resizes a session in it.

#[cfg_attr(unix, path = "terminal/unix.rs")]
#[cfg_attr(windows, path = "terminal/windows.rs")]
mod system;

use std::{
    io,
    sync::{Mutex, PoisonError},
};

pub(crate) use system::{Ends, Resizes, forgiving, has_screen, shows_escapes};
use terminal_size::{Height, Width, terminal_size_of};

/// How the terminal was. Outside of [`Raw`], because a panic that aborts drops nothing.
static BEFORE: Mutex<Option<system::Modes>> = Mutex::new(None);

/// As long as it lives, keys go to the guest as they are pressed.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Puts the terminal of stdin into raw mode.
    ///
    /// # Errors
    /// Stdin is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = system::Modes::now()?;
        let raw = before.raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            told(panic);
        }));
        raw.set()?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that has gone needs nothing.
        let _ = before.set();
    }
}

/// Rows and columns.
pub(crate) fn size() -> (u16, u16) {
    match terminal_size_of(io::stdout()) {
        // Serial lines say 0 for what they do not know.
        Some((Width(columns @ 1..), Height(rows @ 1..))) => (rows, columns),
        _ => (24, 80),
    }
}

/// Columns of the terminal that talk goes to, if there is one.
pub(crate) fn talk_width() -> Option<u16> {
    terminal_size_of(io::stderr()).map(|(Width(columns), _)| columns)
}

/// The exit code of a program that was ended by a signal.
fn ended_by(signal: u8) -> u8 {
    128 + signal
}
