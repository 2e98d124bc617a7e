//! One program run to its end, within a time, with all that it said.

use std::{
    ffi::OsStr,
    fmt,
    io::{Read, Write},
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A program to run. Its input is empty unless it is given one.
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
    stdin: Option<Vec<u8>>,
    within: Duration,
    name: String,
}

impl Command {
    /// Runs `program`.
    pub fn new(program: impl AsRef<Path>) -> Self {
        let program = program.as_ref();
        Self {
            inner: std::process::Command::new(program),
            stdin: None,
            within: Duration::from_secs(120),
            name: program.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.name.push(' ');
        self.name.push_str(&arg.as_ref().to_string_lossy());
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Starts from no variables.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.inner.env_clear();
        self
    }

    /// Runs as another user of this host, without any group but theirs.
    #[must_use]
    pub fn as_user(mut self, id: u32) -> Self {
        self.inner.uid(id).gid(id);
        self
    }

    /// Runs in a folder.
    #[must_use]
    pub fn in_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Gives it input, which ends after these bytes.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// How long it may take; two minutes unless said otherwise.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Starts it with pipes on all its streams, for a test that plays with them.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(mut self) -> Running {
        self.inner.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.started()
    }

    fn started(mut self) -> Running {
        match self.inner.spawn() {
            Ok(child) => Running { child, name: self.name, within: self.within },
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    /// Starts it without pipes: for a program that runs on and says much.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_silent(mut self) -> Running {
        self.inner.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.started()
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end in its time.
    pub fn run(mut self) -> Ran {
        let input = self.stdin.take();
        let mut running = self.spawn();
        let stdin = running.stdin.take();
        let writer = std::thread::spawn(move || {
            if let (Some(mut pipe), Some(bytes)) = (stdin, input) {
                // A program that does not read its input is judged by what it says.
                let _ = pipe.write_all(&bytes);
            }
        });
        let ran = running.end();
        // It ends with the program: its pipe has no reader any more.
        writer.join().expect("wrote");
        ran
    }
}

/// A program that runs, with its pipes; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    within: Duration,
}

impl Running {
    /// Waits for its end; what was not read from its pipes is in the answer, and an input still held stays open.
    ///
    /// # Panics
    /// When it does not end in its time, counted from now.
    pub fn end(mut self) -> Ran {
        let out = collect(self.child.stdout.take());
        let err = collect(self.child.stderr.take());
        let deadline = Instant::now() + self.within;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                break status;
            }
            if Instant::now() > deadline {
                self.kill();
                let (out, err) = (text(out), text(err));
                panic!("`{}` did not end within {} s\n{out}\n{err}", self.name, self.within.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let name = std::mem::take(&mut self.name);
        Ran { name, code: status.code().unwrap_or(-1), out: out.join().expect("read"), err: text(err) }
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until it broke is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ran {
    name: String,
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// Itself, when it succeeded.
    ///
    /// # Panics
    /// With all that was said, when it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "{self}");
        self
    }

    /// Its standard output as text, without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end().to_owned()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text().chars().take(4000).collect();
        write!(f, "`{}` ended with {}\n{shown}\n{}", self.name, self.code, self.err)
    }
}
