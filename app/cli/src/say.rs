//! How the CLI speaks: data on stdout, talk on stderr, colour only where a person looks, and one way to fail.

use std::io::{self, IsTerminal, Write};

use slipway_api::{Problem, client::ClientError, paths::PathError};

use crate::terminal::shows_escapes;

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Something failed, and the person is told.
    Problem(Problem),
    /// Nobody reads any more: `slipway logs | head`.
    NobodyReads,
}

impl From<Problem> for Fail {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<ClientError> for Fail {
    fn from(error: ClientError) -> Self {
        Self::Problem(error.into_problem())
    }
}

impl From<PathError> for Fail {
    fn from(error: PathError) -> Self {
        let hint = match error {
            PathError::Profile(_) => "choose another name for `--profile`",
            _ => "set SLIPWAY_HOME to a folder of yours that can be written",
        };
        Self::Problem(Problem::from_error("paths", &error).hint(hint))
    }
}

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Problem(Problem::new("io", "failed to read or write").because(error.to_string())),
        }
    }
}

/// Colours, where they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Bare text.
    Plain,
    /// With escape sequences.
    Colour,
}

impl Paint {
    /// The text in green: it went well.
    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }
    /// The text in red: it failed.
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }
    /// The text in yellow: worth a look.
    pub(crate) fn notable(self, text: &str) -> String {
        self.with("33", text)
    }
    /// The text, less loud than the rest.
    pub(crate) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }
    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The two streams to the person.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    quiet: bool,
    out: Paint,
    err: Paint,
    live: bool,
}

impl Say {
    /// As the process's streams and environment are.
    pub(crate) fn of_process(quiet: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let escapes = !dumb && shows_escapes();
        let paint =
            |terminal| if terminal && escapes && !set("NO_COLOR") { Paint::Colour } else { Paint::Plain };
        let err = io::stderr().is_terminal();
        Self { quiet, out: paint(io::stdout().is_terminal()), err: paint(err), live: err && escapes }
    }

    /// Colours of stdout.
    pub(crate) fn out(self) -> Paint {
        self.out
    }
    /// Colours of stderr.
    pub(crate) fn err(self) -> Paint {
        self.err
    }
    /// Whether lines on stderr can be rewritten.
    pub(crate) fn live(self) -> bool {
        self.live
    }
    /// Whether talk is not wanted.
    pub(crate) fn quiet(self) -> bool {
        self.quiet
    }

    /// What was asked for, with its line ends.
    ///
    /// # Errors
    /// [`Fail::NobodyReads`] when the reader has gone.
    pub(crate) fn data(self, text: &str) -> Result<(), Fail> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// What was asked for, as JSON.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub(crate) fn json(self, value: &impl serde::Serialize) -> Result<(), Fail> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.data(&format!("{text}\n"))
    }

    /// A line of talk.
    pub(crate) fn talk(self, line: &str) {
        if !self.quiet {
            self.stderr(&format!("{line}\n"));
        }
    }

    /// A line that is worth a look although nothing failed.
    pub(crate) fn notice(self, line: &str) {
        self.talk(&format!("{} {}", self.err.notable("!"), clean(line)));
    }

    /// A line with what to do.
    pub(crate) fn hint(self, line: &str) {
        self.talk(&format!("{} {}", self.err.faint("hint:"), clean(line)));
    }

    /// Text on stderr, whether talk is wanted or not. That nobody reads it stops nothing.
    pub(crate) fn stderr(self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Tells why a verb ended early; the exit code.
    pub(crate) fn fail(self, fail: &Fail) -> u8 {
        match fail {
            Fail::Problem(problem) => {
                self.stderr(&render(problem, self.err));
                1
            }
            Fail::NobodyReads => 0,
        }
    }
}

/// A problem as a person reads it.
pub(crate) fn render(problem: &Problem, paint: Paint) -> String {
    let mut text = String::new();
    let mut say = |word: String, what: &str| {
        for (at, line) in clean(what).lines().enumerate() {
            let word = if at == 0 { word.as_str() } else { "      " };
            text.push_str(&format!("{word} {line}\n"));
        }
    };
    say(paint.bad("error:"), &problem.message);
    for cause in &problem.causes {
        say(paint.faint("caused by:"), cause);
    }
    if let Some(hint) = &problem.hint {
        say(paint.faint("hint:"), hint);
    }
    text
}

/// Without what would move a terminal's cursor: some of our words come out of containers.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_its_causes_and_what_to_do() {
        let problem = Problem::new("x", "the machine did not start")
            .because("no room")
            .because("disk full")
            .hint("free some");
        assert_eq!(
            render(&problem, Paint::Plain),
            "error: the machine did not start\ncaused by: no room\ncaused by: disk full\nhint: free some\n"
        );
        assert!(render(&problem, Paint::Colour).starts_with("\x1b[1;31merror:\x1b[0m the machine"));
    }

    #[test]
    fn several_lines_stay_together_and_escapes_do_nothing() {
        let problem = Problem::new("x", "first\nsecond\x1b[2J");
        assert_eq!(render(&problem, Paint::Plain), "error: first\n       second\u{fffd}[2J\n");
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Fail::from(gone), Fail::NobodyReads));
        assert!(matches!(Fail::from(io::Error::other("x")), Fail::Problem(_)));
    }
}
