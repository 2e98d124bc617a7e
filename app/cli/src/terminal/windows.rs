//! Windows: the console's modes and events.

use std::{
    io::{self, Write},
    time::Duration,
};

use tokio::{
    signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
    },
    time::sleep,
};
use winapi_util::{
    HandleRef,
    console::{mode, set_mode},
};

use super::{ended_by, size};

/// `ENABLE_PROCESSED_INPUT | ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT`.
const COOKED_INPUT: u32 = 0x1 | 0x2 | 0x4;
/// `ENABLE_VIRTUAL_TERMINAL_INPUT`: arrows and the like as escape sequences.
const ESCAPES_IN: u32 = 0x200;
/// `ENABLE_VIRTUAL_TERMINAL_PROCESSING`.
const ESCAPES_OUT: u32 = 0x4;
/// `DISABLE_NEWLINE_AUTO_RETURN`.
const BARE_NEWLINES: u32 = 0x8;
/// Between two looks at the size, of whose changes only a reader of the console's events would be told.
const LOOK: Duration = Duration::from_millis(500);

/// How a console is.
#[derive(Debug)]
pub(super) struct Modes {
    input: u32,
    output: u32,
}

impl Modes {
    /// As it is now.
    pub(super) fn now() -> io::Result<Self> {
        Ok(Self { input: mode(HandleRef::stdin())?, output: mode(HandleRef::stdout())? })
    }

    /// The same in raw mode.
    pub(super) fn raw(&self) -> Self {
        Self {
            input: self.input & !COOKED_INPUT | ESCAPES_IN,
            output: self.output | ESCAPES_OUT | BARE_NEWLINES,
        }
    }

    /// Makes it so.
    pub(super) fn set(&self) -> io::Result<()> {
        set_mode(HandleRef::stdin(), self.input)?;
        set_mode(HandleRef::stdout(), self.output)
    }
}

/// What ends a session from outside.
#[derive(Debug)]
pub(crate) struct Ends {
    interrupt: CtrlC,
    quit: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Ends {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            quit: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Waits for one; the exit code. Cancel-safe.
    pub(crate) async fn next(&mut self) -> u8 {
        ended_by(tokio::select! {
            _ = self.close.recv() => 1,
            _ = self.interrupt.recv() => 2,
            _ = self.quit.recv() => 3,
            _ = self.shutdown.recv() => 15,
        })
    }
}

/// New sizes of the terminal.
#[derive(Debug)]
pub(crate) struct Resizes((u16, u16));

impl Resizes {
    /// Looks from now on.
    ///
    /// # Errors
    /// None here.
    #[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self(size()))
    }

    /// Waits for one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        loop {
            sleep(LOOK).await;
            let now = size();
            if now != self.0 {
                self.0 = now;
                return;
            }
        }
    }
}

/// A console takes text alone: what is none becomes the sign for that.
#[derive(Debug)]
pub(crate) struct Forgiving<W>(W);

/// Where any bytes can be written.
pub(crate) fn forgiving<W: Write>(out: W) -> Forgiving<W> {
    Forgiving(out)
}

impl<W: Write> Write for Forgiving<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData && !bytes.is_empty() => {
                self.0.write_all("\u{fffd}".as_bytes())?;
                Ok(1)
            }
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Does a terminal here do what escape sequences say? It has to be asked to, and old ones cannot.
pub(crate) fn shows_escapes() -> bool {
    let asked = |handle: HandleRef| mode(&handle).and_then(|now| set_mode(&handle, now | ESCAPES_OUT));
    // Whichever is a console.
    let (out, err) = (asked(HandleRef::stdout()), asked(HandleRef::stderr()));
    out.is_ok() || err.is_ok()
}

/// Is there a screen that a window can be opened on? If not, why.
#[allow(clippy::unnecessary_wraps)] // Elsewhere there may be none.
pub(crate) fn has_screen() -> Result<(), &'static str> {
    Ok(())
}
