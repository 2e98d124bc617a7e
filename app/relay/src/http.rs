//! The engine's HTTP/1.1, read as far as it must be: to see each request's head on a connection that carries several, and
//! to hold back those that create something with folders of the host until somebody has said yes.
//!
//! ```text
//!   client ─▶ head ─┬─ creates something ─▶ whole body ─▶ review ─▶ pass | other body | refusal ─▶ next head
//!                   ├─ ordinary ──────────▶ body as it comes ─────────────────────────────────▶ next head
//!                   └─ hijack, upgrade, last of its connection, no HTTP at all ─▶ bytes, to the end
//!   client ◀──────────────────────────────── bytes, always
//! ```
//!
//! Every byte passes as it came, but for bodies that the review replaces and requests that it refuses. Each direction ends
//! on its own. What is not understood is never held back: it becomes bytes. Only a body that is to be reviewed and cannot be
//! read whole (too long, cut off, in broken chunks) goes nowhere: the engine might make more of it than the review.

use std::io;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Mutex,
};

mod head;

pub use head::{Body, Head, Kind, Parsed, creates, parse};

/// Longest body in bytes that is held back for a review.
const LONGEST: usize = 4 << 20;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A request that waits for a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// As in the request's first line.
    pub path: String,
    /// Whole, and without its framing.
    pub body: Vec<u8>,
}

/// That word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// As it is.
    Pass,
    /// With this body.
    Replace(Vec<u8>),
    /// Not at all; the client hears why, in Docker's own form.
    Refuse {
        /// HTTP's.
        status: u16,
        /// For a person.
        message: String,
    },
}

/// Says that word.
#[async_trait]
pub trait Reviewer: Send + Sync {
    /// Judges a request; bounded in time.
    async fn review(&self, asked: Review) -> Verdict;
}

/// Carries one connection of a client to the engine until both directions have ended.
///
/// # Errors
/// The client can be written to no more: both directions end. An engine that takes no more does not, because its last answer
/// may still be on its way.
pub async fn carry(
    client: impl AsyncRead + AsyncWrite,
    engine: impl AsyncRead + AsyncWrite,
    reviewer: &dyn Reviewer,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_engine, to_engine) = tokio::io::split(engine);
    // Refusals are ours to write, between two answers of the engine.
    let to_client = Mutex::new(to_client);
    let requests = async {
        let mut requests = Requests {
            from: from_client,
            to: to_engine,
            read: BytesMut::new(),
            answers: &to_client,
            reviewer,
        };
        if let Err(error) = requests.carry().await {
            tracing::debug!(%error, "a client's requests broke off");
        }
        let _ = requests.to.shutdown().await;
        Ok(())
    };
    let answers = async {
        let mut from = from_engine;
        let mut piece = BytesMut::with_capacity(PIECE);
        loop {
            piece.clear();
            if from.read_buf(&mut piece).await? == 0 {
                return to_client.lock().await.shutdown().await;
            }
            to_client.lock().await.write_all(&piece).await?;
        }
    };
    tokio::try_join!(requests, answers).map(drop)
}

struct Requests<'a, R, W, A> {
    from: R,
    to: W,
    /// Read, and not yet passed on.
    read: BytesMut,
    answers: &'a Mutex<A>,
    reviewer: &'a dyn Reviewer,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin, A: AsyncWrite + Unpin> Requests<'_, R, W, A> {
    /// False at the end.
    async fn more(&mut self) -> io::Result<bool> {
        self.read.reserve(PIECE);
        Ok(self.from.read_buf(&mut self.read).await? > 0)
    }

    async fn pass(&mut self, count: usize) -> io::Result<()> {
        let bytes = self.read.split_to(count);
        self.to.write_all(&bytes).await
    }

    async fn carry(&mut self) -> io::Result<()> {
        loop {
            let head = loop {
                match parse(&self.read) {
                    Parsed::Head(head) => break head,
                    Parsed::More => {
                        if !self.more().await? {
                            return self.bytes().await;
                        }
                    }
                    Parsed::Other => return self.bytes().await,
                }
            };
            match (&head.creates, head.body) {
                (Some(_), Body::Length(_) | Body::Chunked) => match self.create(&head).await? {
                    None if head.last => return self.bytes().await,
                    None => {}
                    Some((status, message)) => return self.end(status, message).await,
                },
                _ if head.last => return self.bytes().await,
                (_, Body::Length(length)) => {
                    self.pass(head.length).await?;
                    self.body(length).await?;
                }
                (_, Body::Chunked) => {
                    self.pass(head.length).await?;
                    if self.chunks(None, 0).await?.is_none() {
                        return self.bytes().await;
                    }
                }
            }
        }
    }

    /// Everything that is left, as it comes.
    async fn bytes(&mut self) -> io::Result<()> {
        loop {
            self.pass(self.read.len()).await?;
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    async fn body(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            if self.read.is_empty() && !self.more().await? {
                return Ok(());
            }
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(self.read.len());
            self.pass(here).await?;
            length -= here as u64;
        }
        Ok(())
    }

    /// One body in chunks that begins at `from`: passed on, or with `into` put together there and left unread otherwise.
    /// Says where it ends in what is still unread; none when it is no such body, and nothing is lost then.
    async fn chunks(&mut self, mut into: Option<&mut Vec<u8>>, from: usize) -> io::Result<Option<usize>> {
        // How far the body was understood, while it is not passed on.
        let mut at = from;
        loop {
            let Some(line) = self.line(at).await? else { return Ok(None) };
            let size = &self.read[at..at + line];
            let digits = size.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let Some(size) =
                std::str::from_utf8(&size[..digits]).ok().and_then(|d| u64::from_str_radix(d, 16).ok())
            else {
                return Ok(None);
            };
            at += line;
            if size == 0 {
                // Trailers, and the empty line that ends them.
                loop {
                    let Some(line) = self.line(at).await? else { return Ok(None) };
                    at += line;
                    if self.read[at - line..at].iter().all(|b| *b == b'\r' || *b == b'\n') {
                        break;
                    }
                }
                if into.is_none() {
                    self.pass(at).await?;
                    at = 0;
                }
                return Ok(Some(at));
            }
            match &mut into {
                None => {
                    self.pass(at).await?;
                    // With the line's end after it.
                    self.body(size.saturating_add(2)).await?;
                    at = 0;
                }
                Some(body) => {
                    let Some(end) =
                        usize::try_from(size).ok().filter(|s| *s <= LONGEST - body.len().min(LONGEST))
                    else {
                        return Ok(None);
                    };
                    while self.read.len() < at + end + 2 {
                        if !self.more().await? {
                            return Ok(None);
                        }
                    }
                    body.extend_from_slice(&self.read[at..at + end]);
                    at += end + 2;
                }
            }
        }
    }

    /// Length of the line at `at`, with its end; none when there is no such line.
    async fn line(&mut self, at: usize) -> io::Result<Option<usize>> {
        loop {
            if let Some(end) = self.read[at..].iter().take(head::LONGEST).position(|b| *b == b'\n') {
                return Ok(Some(end + 1));
            }
            if self.read.len() - at > head::LONGEST || !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Refuses what cannot be read as a request, and with it the rest of the connection. What the client still sends is read,
    /// or it would not hear why.
    async fn end(&mut self, status: u16, message: &str) -> io::Result<()> {
        let answer = refusal(status, message, true);
        self.answers.lock().await.write_all(&answer).await?;
        loop {
            self.read.clear();
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// Holds one request back for its review. Says why when its body cannot be read whole.
    async fn create(&mut self, head: &Head) -> io::Result<Option<(u16, &'static str)>> {
        let too_long = Some((413, "the request's body is longer than 4 MiB, and is not passed on unseen"));
        let broken = Some((400, "the request's body is cut off or broken"));
        if matches!(head.body, Body::Length(length) if length > LONGEST as u64) {
            return Ok(too_long);
        }
        if head.expects {
            self.answers.lock().await.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let (body, end) = match head.body {
            Body::Length(length) => {
                let end = head.length + length as usize;
                while self.read.len() < end {
                    if !self.more().await? {
                        return Ok(broken);
                    }
                }
                (self.read[head.length..end].to_vec(), end)
            }
            Body::Chunked => {
                let mut body = Vec::new();
                match self.chunks(Some(&mut body), head.length).await? {
                    Some(end) => (body, end),
                    None if self.read.len() > LONGEST => return Ok(too_long),
                    None => return Ok(broken),
                }
            }
        };
        let asked = Review { path: head.path.clone(), body };
        match self.reviewer.review(asked).await {
            Verdict::Pass => self.pass(end).await?,
            Verdict::Replace(body) => {
                let fresh = head.with_length(&self.read[..head.length], body.len());
                self.read.advance(end);
                self.to.write_all(&fresh).await?;
                self.to.write_all(&body).await?;
            }
            Verdict::Refuse { status, message } => {
                self.read.advance(end);
                let answer = refusal(status, &message, false);
                self.answers.lock().await.write_all(&answer).await?;
            }
        }
        Ok(None)
    }
}

fn refusal(status: u16, message: &str, last: bool) -> Bytes {
    let body = serde_json::json!({ "message": message }).to_string();
    let reason = match status {
        413 => "Content Too Large",
        503 => "Service Unavailable",
        _ => "Bad Request",
    };
    let fields = "Content-Type: application/json\r\nServer: Slipway";
    let close = if last { "Connection: close\r\n" } else { "" };
    let length = body.len();
    format!("HTTP/1.1 {status} {reason}\r\n{fields}\r\n{close}Content-Length: {length}\r\n\r\n{body}").into()
}

#[cfg(test)]
mod tests;
