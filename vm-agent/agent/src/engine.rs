//! The engine as the agent sees it: whether it answers, and the images that it gets on its first start.
//!
//! The socket's being there is not readiness: dockerd listens seconds before it answers.

use std::{io, path::Path, time::Duration};

use slipway_protocol::v1::PhaseState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use crate::{logs::Logs, phases::Board};

/// Where dockerd listens in the guest.
pub(crate) const SOCKET: &str = "/run/docker.sock";
/// Between two questions while it does not answer: its own first answer takes longer than this.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two questions while it does.
const CARE: Duration = Duration::from_secs(5);
/// After this a phase is called failed, with its program's last lines. The longest that `start.timeout` may be: within it the
/// host decides how long a start may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3600);
/// How long an image may take to be loaded.
const LOAD: Duration = Duration::from_secs(600);
/// One question's time. Long, because a busy engine is not a dead one.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const LONGEST: u64 = 1 << 20;

/// Asks the engine for ever and writes on the board whether it answers.
pub(crate) async fn watch(board: &Board, logs: &Logs, socket: &Path) {
    loop {
        let version = answers(board, logs, socket).await;
        board.engine_ready(&version);
        lost(board, logs, socket).await;
    }
}

/// Returns the engine's version when it answers. The host is not told yet: there may be something to do before.
pub(crate) async fn answers(board: &Board, logs: &Logs, socket: &Path) -> String {
    board.begin("engine");
    let deadline = Instant::now() + DEADLINE;
    let mut told = false;
    let version = loop {
        match ping(socket).await {
            Ok(version) => break version,
            Err(error) if !told && Instant::now() > deadline => {
                told = true;
                let tail = logs.tail("dockerd", 20);
                let why = format!("no answer within {} s: {error}\n{tail}", DEADLINE.as_secs());
                board.end("engine", PhaseState::Failed, why);
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    };
    board.end("engine", PhaseState::Done, format!("dockerd {version}"));
    logs.say(format!("the engine answers: dockerd {version}"));
    version
}

/// Returns when an engine that answered does not any more.
pub(crate) async fn lost(board: &Board, logs: &Logs, socket: &Path) {
    let why = loop {
        sleep(CARE).await;
        if let Err(error) = ping(socket).await {
            break error;
        }
    };
    logs.say(format!("the engine does not answer: {why}"));
    board.engine_lost(&why.to_string());
}

/// The engine's version, from the answer to `_ping`.
pub(crate) async fn ping(socket: &Path) -> io::Result<String> {
    let answer = ask(socket, b"GET /_ping HTTP/1.0\r\n\r\n", None, PATIENCE).await?;
    if answer.status != 200 {
        return Err(io::Error::other(format!("it answered with status {}", answer.status)));
    }
    // "Server: Docker/28.5.2 (linux)"
    let server = answer.header("server").unwrap_or("unknown");
    let version = server.strip_prefix("Docker/").unwrap_or(server);
    Ok(version.split_whitespace().next().unwrap_or(version).to_owned())
}

/// Gives the engine an image archive, as `docker load` does.
pub(crate) async fn load(socket: &Path, archive: &[u8]) -> io::Result<()> {
    let head = format!(
        "POST /images/load?quiet=1 HTTP/1.0\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        archive.len()
    );
    let answer = ask(socket, head.as_bytes(), Some(archive), LOAD).await?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 || text.contains("\"errorDetail\"") {
        return Err(io::Error::other(format!("status {}: {}", answer.status, text.trim())));
    }
    Ok(())
}

/// The engine's answer to a GET.
pub(crate) async fn get(socket: &Path, path: &str) -> io::Result<Answer> {
    ask(socket, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(), None, PATIENCE).await
}

/// What the engine said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.lines().next()?.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body: bytes[end + 4..].to_vec() })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One HTTP/1.0 exchange: the answer ends with the connection, so neither lengths nor chunks have to be understood.
async fn ask(socket: &Path, head: &[u8], body: Option<&[u8]>, limit: Duration) -> io::Result<Answer> {
    timeout(limit, async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(head).await?;
        if let Some(body) = body {
            stream.write_all(body).await?;
        }
        let mut bytes = Vec::new();
        stream.take(LONGEST).read_to_end(&mut bytes).await?;
        Answer::parse(&bytes).ok_or_else(|| io::Error::other("its answer is no HTTP"))
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn answering(
        answer: &'static [u8],
    ) -> (tempfile::TempDir, std::path::PathBuf, tokio::task::JoinHandle<Vec<u8>>) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).expect("listens");
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut asked = vec![0; 4096];
            let count = stream.read(&mut asked).await.expect("reads");
            stream.write_all(answer).await.expect("answers");
            asked.truncate(count);
            asked
        });
        (dir, path, serving)
    }

    #[tokio::test]
    async fn the_version_comes_from_the_servers_name() {
        let answer = b"HTTP/1.0 200 OK\r\nserver: Docker/28.5.2 (linux)\r\n\r\nOK";
        let (_dir, path, serving) = answering(answer).await;
        assert_eq!(ping(&path).await.expect("answers"), "28.5.2");
        assert!(serving.await.expect("joins").starts_with(b"GET /_ping "));
    }

    #[tokio::test]
    async fn an_engine_that_answers_with_an_error_is_not_ready() {
        let (_dir, path, _) = answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert!(ping(&path).await.expect_err("not ready").to_string().contains("503"));
        let (_dir, path, _) = answering(b"garbage").await;
        assert!(ping(&path).await.is_err());
    }

    #[tokio::test]
    async fn an_error_inside_a_stream_that_began_well_is_an_error() {
        let answer = b"HTTP/1.0 200 OK\r\n\r\n{\"errorDetail\":{\"message\":\"no space\"}}";
        let (_dir, path, serving) = answering(answer).await;
        assert!(load(&path, b"tar").await.expect_err("failed").to_string().contains("no space"));
        assert!(serving.await.expect("joins").starts_with(b"POST /images/load?quiet=1 "));
    }
}
