//! A shell or a command in the machine, as if it ran here: terminal, pipes, sizes, end of input, exit code.

use std::io::{self, IsTerminal, Read, Write};

use bytes::Bytes;
use slipway_api::{
    Problem,
    exec::{ExecRequest, Frame},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    reach::Session,
    say::Fail,
    terminal::{self, Ends, Raw, Resizes},
};

/// Bytes of input in one frame.
const CHUNK: usize = 32 * 1024;

/// Runs it and returns its exit code.
///
/// # Errors
/// No machine runs; the program cannot be run; the connection breaks.
pub(crate) async fn shell(session: &Session, command: Vec<String>) -> Result<u8, Fail> {
    let Some(api) = session.found().await? else {
        let problem = Problem::new("not-running", "no machine runs");
        return Err(problem.hint("run `slipway start`").into());
    };
    let tty = io::stdin().is_terminal() && io::stdout().is_terminal();
    let env = if tty { environment(|name| std::env::var(name).ok()) } else { Vec::new() };
    let request = ExecRequest { argv: command, env, tty: tty.then(terminal::size) };
    // Before raw mode, so that a failure is told on a terminal that works.
    let mut ends = Ends::listen()?;
    let resizes = Resizes::listen()?;
    let stream = api.exec(&request).await?;
    let raw = if tty { Some(Raw::enter()?) } else { None };

    let (mut from_guest, to_guest) = tokio::io::split(stream);
    let (frames, queue) = mpsc::channel::<Frame>(8);
    // A thread of its own: a read of a terminal cannot be cancelled, and must not keep the process from ending.
    std::thread::Builder::new().name("stdin".into()).spawn(move || pump(io::stdin().lock(), &frames))?;
    // A task of its own: output that nobody takes must not hold up input.
    let mut input = JoinSet::new();
    input.spawn(send(to_guest, queue, resizes, tty));
    let (stdout, stderr) = (terminal::forgiving(io::stdout()), terminal::forgiving(io::stderr()));
    let ended = tokio::select! {
        ended = output(&mut from_guest, stdout, stderr) => ended,
        code = ends.next() => Ok(code),
    };
    input.shutdown().await;
    drop(raw);
    ended
}

/// Input, and each size of the terminal, to the guest. Does not return: closing our half would end the whole connection.
async fn send(
    mut to_guest: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Frame>,
    mut resizes: Resizes,
    tty: bool,
) {
    loop {
        let frame = tokio::select! {
            Some(frame) = queue.recv() => frame,
            () = resizes.next(), if tty => {
                let (rows, columns) = terminal::size();
                Frame::Resize(rows, columns)
            }
            else => break,
        };
        // What is lost here is told by the other direction.
        if to_guest.write_all(&frame.encode()).await.is_err() || to_guest.flush().await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// What a program needs to know about the terminal here.
fn environment(var: impl Fn(&str) -> Option<String>) -> Vec<String> {
    ["TERM", "COLORTERM", "LANG"].iter().filter_map(|name| Some(format!("{name}={}", var(name)?))).collect()
}

/// Input to the guest, with its end. Ends with the input or with the connection.
fn pump(mut stdin: impl Read, frames: &mpsc::Sender<Frame>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match stdin.read(&mut chunk) {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // An input that fails has ended.
            Err(_) => 0,
        };
        let frame = Frame::Stdin(Bytes::copy_from_slice(&chunk[..read]));
        if frames.blocking_send(frame).is_err() || read == 0 {
            return;
        }
    }
}

/// Output of the guest, until the program ends.
async fn output(
    from_guest: &mut (impl AsyncRead + Unpin),
    mut stdout: impl Write,
    mut stderr: impl Write,
) -> Result<u8, Fail> {
    loop {
        match Frame::read(from_guest).await {
            Ok(Some(Frame::Stdout(bytes))) => {
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
            Ok(Some(Frame::Stderr(bytes))) => {
                stderr.write_all(&bytes)?;
                stderr.flush()?;
            }
            // Codes beyond a byte are cut as the system cuts them.
            Ok(Some(Frame::Exit(code))) => return Ok((code & 0xff) as u8),
            Ok(Some(Frame::Failed(problem))) => return Err(problem.into()),
            Ok(Some(Frame::Stdin(_) | Frame::Resize(..))) => {}
            Ok(None) => return Err(broke().into()),
            Err(error) => return Err(broke().because(error.to_string()).into()),
        }
    }
}

fn broke() -> Problem {
    Problem::new("exec-broken", "the connection to the machine broke").hint("run `slipway status`")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(frames: &[Frame]) -> (Result<u8, Fail>, Vec<u8>, Vec<u8>) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended = output(&mut bytes.as_slice(), &mut out, &mut err).await;
        (ended, out, err)
    }

    #[tokio::test]
    async fn output_and_exit_code_arrive() {
        let frames = [
            Frame::Stdout(Bytes::from_static(b"a")),
            Frame::Stderr(Bytes::from_static(b"b")),
            Frame::Stdout(Bytes::from_static(b"c")),
            Frame::Exit(143),
        ];
        let (ended, out, err) = outcome(&frames).await;
        assert_eq!((ended.expect("ended"), out.as_slice(), err.as_slice()), (143, &b"ac"[..], &b"b"[..]));
    }

    #[tokio::test]
    async fn a_program_that_cannot_run_and_a_connection_that_breaks_are_told() {
        let (ended, ..) = outcome(&[Frame::Failed(Problem::new("not-found", "there is no `x`"))]).await;
        assert!(matches!(ended, Err(Fail::Problem(p)) if p.code == "not-found"));
        let (ended, ..) = outcome(&[Frame::Stdout(Bytes::from_static(b"a"))]).await;
        assert!(matches!(ended, Err(Fail::Problem(p)) if p.code == "exec-broken"));
    }

    #[test]
    fn input_ends_with_an_empty_frame() {
        let (frames, mut queue) = mpsc::channel(8);
        pump(&b"hello"[..], &frames);
        assert_eq!(queue.blocking_recv(), Some(Frame::Stdin(Bytes::from_static(b"hello"))));
        assert_eq!(queue.blocking_recv(), Some(Frame::Stdin(Bytes::new())));
        drop(queue);
        pump(io::repeat(0), &frames);
    }

    #[test]
    fn only_what_is_set_is_passed_on() {
        assert_eq!(environment(|name| (name == "TERM").then(|| "xterm".into())), ["TERM=xterm"]);
    }
}
