//! Runs a program for the host: `slipway shell`. With a terminal of its own, or with pipes and half-closes.
//!
//! ```text
//! Exec ─▶ started ─▶ frames both ways ─▶ program ended ─▶ rest of its output ─▶ Exit
//!            └─ Failure                      host gone ─▶ SIGHUP, then SIGKILL, to its process group
//! ```

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use slipway_protocol::{
    frame,
    v1::{Exec, ExecFrame, Exit as ExitFrame, Failure, Resize, exec_frame::Kind},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
    time::timeout,
};

use crate::{
    reaper::{Exit, Reaper, Started},
    serve::{ServeError, Stream, first},
};

/// Bytes of one output frame.
const CHUNK: usize = 32 << 10;
/// How long output is waited for after the program's end: a child of its own may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Between SIGHUP and SIGKILL when the host is gone.
const GRACE: Duration = Duration::from_secs(2);
/// What a terminal turns into the end of the input.
const END_OF_TRANSMISSION: u8 = 4;
/// Search path of what is started without one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Serves one stream of the exec port.
pub(crate) async fn serve(mut stream: impl Stream, reaper: &Reaper) -> Result<(), ServeError> {
    let Some(exec) = first::<Exec>(&mut stream).await? else { return Ok(()) };
    let mut program = match start(&exec, reaper) {
        Ok(program) => program,
        Err(error) => {
            let name = exec.argv.first().map_or("the shell", String::as_str);
            let message = format!("failed to start `{name}`: {error}");
            let code = if error.kind() == io::ErrorKind::NotFound { "not-found" } else { "exec" };
            send(&mut stream, Kind::Failure(Failure { code: code.into(), message, hint: String::new() }))
                .await?;
            return stream.shutdown().await.map_err(ServeError::Io);
        }
    };
    let pid = program.started.pid;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let input = async {
        while let Some(ExecFrame { kind }) = frame::read::<ExecFrame, _>(&mut reader).await? {
            match kind {
                // A program that does not read any more is no reason to end the stream.
                Some(Kind::Stdin(bytes)) => program.input.write(&bytes).await,
                Some(Kind::StdinEof(_)) => program.input.end().await,
                Some(Kind::Resize(size)) => program.input.resize(&size),
                _ => {}
            }
        }
        Ok::<_, ServeError>(())
    };
    let output = async {
        let exit = copy_out(&mut program.outputs, program.started, &mut writer).await?;
        let frame = match exit {
            Exit::Code(code) => ExitFrame { code, signal: 0 },
            Exit::Signal(signal) => ExitFrame { code: 128 + signal, signal },
        };
        send(&mut writer, Kind::Exit(frame)).await?;
        writer.shutdown().await.map_err(ServeError::Io)
    };
    let ended = tokio::select! {
        ended = output => return ended,
        ended = input => ended,
    };
    // The host closed or broke the stream before the program ended.
    reaper.signal_group(pid, Signal::HUP);
    tokio::time::sleep(GRACE).await;
    reaper.signal_group(pid, Signal::KILL);
    ended
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), kind: Kind) -> Result<(), ServeError> {
    frame::write(writer, &ExecFrame { kind: Some(kind) }).await.map_err(ServeError::Frame)
}

/// Sends both outputs in the order of arrival until the program has ended and its outputs are empty.
async fn copy_out(
    outputs: &mut mpsc::Receiver<Kind>,
    mut started: Started,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<Exit, ServeError> {
    let exit = loop {
        tokio::select! {
            exit = &mut started.exit => break exit.unwrap_or(Exit::Code(-1)),
            Some(chunk) = outputs.recv() => send(writer, chunk).await?,
        }
    };
    while let Ok(Some(chunk)) = timeout(LAST_WORDS, outputs.recv()).await {
        send(writer, chunk).await?;
    }
    Ok(exit)
}

struct Program {
    started: Started,
    input: Input,
    outputs: mpsc::Receiver<Kind>,
    /// Ends the readers with the stream.
    _readers: tokio::task::JoinSet<()>,
}

enum Input {
    Pipe(Option<pipe::Sender>),
    Terminal { master: OwnedFd, writer: File },
}

impl Input {
    async fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Pipe(Some(pipe)) => {
                if pipe.write_all(bytes).await.is_err() {
                    *self = Self::Pipe(None);
                }
            }
            Self::Pipe(None) => {}
            Self::Terminal { writer, .. } => {
                // Flushed, because a tokio file buffers what its thread has not written yet.
                let _ = writer.write_all(bytes).await;
                let _ = writer.flush().await;
            }
        }
    }

    async fn end(&mut self) {
        match self {
            Self::Pipe(pipe) => *pipe = None,
            Self::Terminal { .. } => self.write(&[END_OF_TRANSMISSION]).await,
        }
    }

    fn resize(&self, size: &Resize) {
        if let Self::Terminal { master, .. } = self {
            // A terminal without a size still works.
            let _ = tcsetwinsize(master, winsize(size.rows, size.columns));
        }
    }
}

fn winsize(rows: u32, columns: u32) -> Winsize {
    let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize { ws_row: cells(rows), ws_col: cells(columns), ws_xpixel: 0, ws_ypixel: 0 }
}

fn command(exec: &Exec) -> Command {
    let shell = if std::path::Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let mut command = match exec.argv.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => {
            let mut command = Command::new(shell);
            command.arg("-l");
            command
        }
    };
    command.env_clear().env("PATH", PATH).env("HOME", "/root").env("USER", "root").env("SHELL", shell);
    command.env("DOCKER_HOST", format!("unix://{}", crate::engine::SOCKET));
    for pair in &exec.env {
        if let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) {
            command.env(name, value);
        }
    }
    command.current_dir(if std::path::Path::new("/root").is_dir() { "/root" } else { "/" });
    command
}

fn read_pipe(
    mut output: pipe::Receiver,
    kind: fn(Vec<u8>) -> Kind,
    sender: mpsc::Sender<Kind>,
    readers: &mut tokio::task::JoinSet<()>,
) {
    readers.spawn(async move {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = output.read(&mut chunk).await {
            if sender.send(kind(chunk[..count].to_vec())).await.is_err() {
                break;
            }
        }
    });
}

fn start(exec: &Exec, reaper: &Reaper) -> io::Result<Program> {
    let mut command = command(exec);
    let (sender, outputs) = mpsc::channel(4);
    let mut readers = tokio::task::JoinSet::new();
    if exec.tty {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let terminal = || {
            let path = OsStr::from_bytes(name.as_bytes());
            std::fs::File::options().read(true).write(true).open(path)
        };
        tcsetwinsize(&master, winsize(exec.rows.max(1), exec.columns.max(1)))?;
        command.stdin(terminal()?).stdout(terminal()?).stderr(terminal()?);
        // SAFETY: only async-signal-safe system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                let _ = std::fs::write("/proc/self/oom_score_adj", "0");
                Ok(())
            });
        }
        let (_child, started) = reaper.spawn(&mut command)?;
        let file = |fd: OwnedFd| File::from_std(std::fs::File::from(fd));
        let mut output = file(master.as_fd().try_clone_to_owned()?);
        let writer = file(master.as_fd().try_clone_to_owned()?);
        readers.spawn(async move {
            let mut chunk = vec![0; CHUNK];
            // EIO is how a terminal says that nobody has it open any more.
            while let Ok(count @ 1..) = output.read(&mut chunk).await {
                if sender.send(Kind::Stdout(chunk[..count].to_vec())).await.is_err() {
                    break;
                }
            }
        });
        return Ok(Program {
            started,
            input: Input::Terminal { master, writer },
            outputs,
            _readers: readers,
        });
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let (mut child, started) = reaper.spawn(&mut command)?;
    let taken = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
    let ((stdin, stdout), stderr) = taken.ok_or_else(|| io::Error::other("a pipe is missing"))?;
    let input = Input::Pipe(Some(pipe::Sender::from_owned_fd(stdin.into())?));
    for (fd, kind) in [(OwnedFd::from(stdout), Kind::Stdout as fn(_) -> _), (stderr.into(), Kind::Stderr)] {
        read_pipe(pipe::Receiver::from_owned_fd(fd)?, kind, sender.clone(), &mut readers);
    }
    Ok(Program { started, input, outputs, _readers: readers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    /// Runs `argv` with `input`; returns (stdout, stderr, last frame).
    async fn run(argv: &[&str], tty: bool, input: &[u8]) -> (Vec<u8>, Vec<u8>, Kind) {
        let reaper = Reaper::new(false);
        let reaping = tokio::spawn(reaper.clone().run());
        let (host, guest) = duplex(1024);
        let serving = tokio::spawn(async move { serve(guest, &reaper).await });
        let (mut reader, mut writer) = tokio::io::split(host);
        let argv = argv.iter().map(ToString::to_string).collect();
        let exec = Exec { argv, tty, rows: 24, columns: 80, env: vec!["GREETING=hi".into()] };
        frame::write(&mut writer, &exec).await.expect("writes");
        let sending = async {
            for chunk in input.chunks(1000) {
                let stdin = ExecFrame { kind: Some(Kind::Stdin(chunk.to_vec())) };
                frame::write(&mut writer, &stdin).await.expect("writes");
            }
            let end = ExecFrame { kind: Some(Kind::StdinEof(Default::default())) };
            // The program may have ended without reading.
            let _ = frame::write(&mut writer, &end).await;
        };
        let receiving = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            loop {
                let read = frame::read::<ExecFrame, _>(&mut reader).await.expect("reads").expect("a frame");
                match read.kind.expect("a kind") {
                    Kind::Stdout(bytes) => out.extend(bytes),
                    Kind::Stderr(bytes) => err.extend(bytes),
                    last => return (out, err, last),
                }
            }
        };
        let ((), got) = tokio::join!(sending, receiving);
        drop((reader, writer));
        serving.await.expect("joins").expect("a clean end");
        reaping.abort();
        got
    }

    #[tokio::test]
    async fn pipes_carry_both_outputs_the_end_of_input_and_the_exit_code() {
        let input = vec![b'x'; 200_000];
        let (out, err, last) =
            run(&["/bin/sh", "-c", "wc -c; echo $GREETING >&2; exit 7"], false, &input).await;
        assert_eq!(String::from_utf8_lossy(&out).trim(), "200000");
        assert_eq!(err, b"hi\n");
        assert_eq!(last, Kind::Exit(ExitFrame { code: 7, signal: 0 }));
    }

    #[tokio::test]
    async fn a_terminal_is_one_and_has_its_size() {
        let (out, _, last) = run(&["/bin/sh", "-c", "test -t 0 && stty size; kill -9 $$"], true, b"").await;
        assert!(String::from_utf8_lossy(&out).contains("24 80"), "{out:?}");
        assert_eq!(last, Kind::Exit(ExitFrame { code: 137, signal: 9 }));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_said() {
        let (_, _, last) = run(&["/nonexistent"], false, b"").await;
        assert!(
            matches!(last, Kind::Failure(f) if f.code == "not-found" && f.message.contains("/nonexistent"))
        );
    }

    #[tokio::test]
    async fn a_background_child_does_not_hold_the_end_up() {
        let (out, _, last) = run(&["/bin/sh", "-c", "sleep 5 & echo done"], false, b"").await;
        assert_eq!(out, b"done\n");
        assert_eq!(last, Kind::Exit(ExitFrame { code: 0, signal: 0 }));
    }
}
