//! Starts processes and learns how they ended.
//!
//! PID 1 inherits every orphan, so it must wait for any child; a library that waits for its own children would race
//! with that. Hence one table, one waiter: a child is entered while the table is locked, and the waiter takes the
//! same lock, so no exit can be missed and no process id can be signalled after it was given back.

use std::{
    collections::HashMap,
    fmt, io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait, waitpid};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => Self::Signal(signal),
            (code, None) => Self::Code(code.unwrap_or(-1)),
        }
    }
}

/// What a short-lived program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    /// stdout and stderr in the order of writing, cut at 64 KiB.
    pub(crate) text: String,
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) exit: oneshot::Receiver<Exit>,
}

/// The table of children of this process.
#[derive(Debug)]
pub struct Reaper {
    children: Mutex<HashMap<i32, oneshot::Sender<Exit>>>,
    /// PID 1 waits for everybody; elsewhere other code may have children of its own.
    adopts_orphans: bool,
}

impl Reaper {
    /// An empty table; `adopts_orphans` for PID 1.
    pub fn new(adopts_orphans: bool) -> Arc<Self> {
        Arc::new(Self { children: Mutex::default(), adopts_orphans })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Starts `command`. The returned child's pipes are the caller's; its end comes through [`Started::exit`].
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Started)> {
        let mut children = self.lock();
        let child = command.spawn()?;
        let pid = child.id() as i32;
        let (sender, exit) = oneshot::channel();
        children.insert(pid, sender);
        Ok((child, Started { pid, exit }))
    }

    /// Sends a signal, unless the process has ended already.
    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        self.send(pid, signal, rustix::process::kill_process);
    }

    /// Sends a signal to the process group that `pid` leads, unless the leader has ended already.
    pub(crate) fn signal_group(&self, pid: i32, signal: Signal) {
        self.send(pid, signal, rustix::process::kill_process_group);
    }

    fn send(&self, pid: i32, signal: Signal, how: fn(Pid, Signal) -> rustix::io::Result<()>) {
        let children = self.lock();
        if let (true, Some(target)) = (children.contains_key(&pid), Pid::from_raw(pid)) {
            // It may be a zombie that the waiter is about to collect: nothing to do then.
            let _ = how(target, signal);
        }
    }

    /// Collects the ended children for ever.
    pub(crate) async fn run(self: Arc<Self>) -> io::Result<()> {
        let mut changed = signal(SignalKind::child())?;
        loop {
            self.sweep();
            if changed.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn sweep(&self) {
        let mut children = self.lock();
        let mut ended = Vec::new();
        if self.adopts_orphans {
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                ended.push((pid.as_raw_nonzero().get(), status));
            }
        } else {
            for pid in children.keys() {
                if let Ok(Some((_, status))) = waitpid(Pid::from_raw(*pid), WaitOptions::NOHANG) {
                    ended.push((*pid, status));
                }
            }
        }
        for (pid, status) in ended {
            if let Some(sender) = children.remove(&pid) {
                // Whoever started it may not care any more.
                let _ = sender.send(status.into());
            }
        }
    }

    /// Runs a short-lived program to its end; past `limit` it is killed.
    pub(crate) async fn run_to_end(&self, command: &mut Command, limit: Duration) -> io::Result<Output> {
        let (reader, writer) = io::pipe()?;
        let second = writer.try_clone()?;
        command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
        let (_child, mut started) = self.spawn(command)?;
        // `command` still owns our ends of the pipe; without this the read below would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
        let mut text = Vec::new();
        let finished = tokio::time::timeout(limit, async {
            let mut chunk = [0u8; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                text.extend_from_slice(&chunk[..count.min((64 << 10) - text.len().min(64 << 10))]);
            }
            (&mut started.exit).await
        })
        .await;
        match finished {
            Ok(Ok(exit)) => Ok(Output { exit, text: String::from_utf8_lossy(&text).into_owned() }),
            Ok(Err(_)) => Err(io::Error::other("its end was not seen")),
            Err(_) => {
                self.signal_group(started.pid, Signal::KILL);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaper() -> (Arc<Reaper>, tokio::task::JoinHandle<io::Result<()>>) {
        let reaper = Reaper::new(false);
        (reaper.clone(), tokio::spawn(reaper.run()))
    }

    #[tokio::test]
    async fn exit_codes_output_and_signals_are_reported() {
        let (reaper, task) = reaper();
        tokio::task::yield_now().await;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo out; echo err >&2; exit 7"]);
        let output = reaper.run_to_end(&mut command, Duration::from_secs(10)).await.unwrap();
        assert_eq!((output.exit, output.text.as_str()), (Exit::Code(7), "out\nerr\n"));

        let (_child, started) = reaper.spawn(Command::new("/bin/sleep").arg("60")).unwrap();
        reaper.signal(started.pid, Signal::KILL);
        assert_eq!(started.exit.await.unwrap(), Exit::Signal(9));
        task.abort();
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_killed_at_its_limit() {
        let (reaper, task) = reaper();
        let mut command = Command::new("/bin/sleep");
        let error = reaper.run_to_end(command.arg("60"), Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        task.abort();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_and_no_child() {
        let (reaper, task) = reaper();
        assert!(reaper.spawn(&mut Command::new("/nonexistent")).is_err());
        assert!(reaper.lock().is_empty());
        task.abort();
    }
}
