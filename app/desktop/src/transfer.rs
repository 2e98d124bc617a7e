//! Files of the host as bodies: an image archive to load, a volume to import, an image to save.
//!
//! The bytes never pass through a page; it gets figures. A file that is written is whole or not there.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::{HeaderMap, header, http::HeaderValue};
use serde::Serialize;
use slipway_api::Problem;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    time::{MissedTickBehavior, interval},
};

use crate::{
    bridge::{Ask, Bridge, Target, accepted, broken},
    system,
};

/// Between two figures.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Bytes that are read from a file at once.
const CHUNK: usize = 256 << 10;
/// Longest line of an answer that is kept together, in bytes.
const LONGEST_LINE: usize = 1 << 20;

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Transfer {
    /// To the engine.
    Sent {
        /// Bytes so far.
        sent: u64,
        /// Bytes of the file.
        total: u64,
    },
    /// What the engine says meanwhile: whole lines.
    Chunk {
        /// The lines.
        chunk: String,
    },
    /// From the engine.
    Received {
        /// Bytes so far.
        received: u64,
    },
}

impl Bridge {
    /// Sends a file of the host as the body of a request to the engine, and tells `on` how it goes. Dropping the future
    /// ends the request; what the engine did until then is the engine's to undo.
    ///
    /// # Errors
    /// A file that is none or cannot be read, and the engine's refusals, also those within its answer.
    pub async fn upload(
        &self,
        method: &str,
        path: &str,
        file: &Path,
        mut on: impl FnMut(Transfer) + Send,
    ) -> Result<(), Problem> {
        let (source, total) = regular(file).await?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        let ask = Ask::new(Target::Engine, method, path)?.headers(&headers);
        let sent = Arc::new(AtomicU64::new(0));
        let sending = self.forward(ask, body_of(source, Arc::clone(&sent)));
        tokio::pin!(sending);
        let mut tick = interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        let mut tell = |on: &mut dyn FnMut(Transfer)| {
            let now = sent.load(Ordering::Relaxed);
            if told.replace(now) != Some(now) {
                on(Transfer::Sent { sent: now, total });
            }
        };
        let response = loop {
            tokio::select! {
                response = &mut sending => break response?,
                _ = tick.tick() => tell(&mut on),
            }
        };
        // The engine may answer while it still reads.
        let mut body = accepted(Target::Engine, response).await?.into_body();
        let mut lines = Lines::default();
        loop {
            tokio::select! {
                frame = body.frame() => {
                    let Some(frame) = frame else { break };
                    if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
                        lines.push(&data, &mut on);
                    }
                }
                _ = tick.tick() => tell(&mut on),
            }
        }
        tell(&mut on);
        lines.end(&mut on)
    }

    /// Writes the engine's answer to a file of the host, and tells `on` how it goes. The file is there when all of it is;
    /// dropping the future leaves nothing.
    ///
    /// # Errors
    /// A file that cannot be written, and the engine's refusals.
    pub async fn download(
        &self,
        path: &str,
        file: &Path,
        mut on: impl FnMut(Transfer) + Send,
    ) -> Result<(), Problem> {
        let failed = |error: std::io::Error| {
            Problem::new("file-write", format!("failed to write `{}`", file.display()))
                .because(error.to_string())
        };
        let dir = absolute(file)?.parent().unwrap_or(Path::new("/"));
        let mut body = self.stream(Ask::new(Target::Engine, "GET", path)?, None).await?.into_body();
        let part = system::new_file(dir, ".slipway-").map_err(failed)?;
        let mut target = File::from_std(part.reopen().map_err(failed)?);
        let mut tick = interval(TELL_EVERY);
        let mut received = 0;
        loop {
            tokio::select! {
                frame = body.frame() => {
                    let Some(frame) = frame else { break };
                    if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
                        target.write_all(&data).await.map_err(failed)?;
                        received += data.len() as u64;
                    }
                }
                _ = tick.tick() => on(Transfer::Received { received }),
            }
        }
        target.flush().await.map_err(failed)?;
        target.sync_all().await.map_err(failed)?;
        part.persist(file).map_err(|error| failed(error.error))?;
        on(Transfer::Received { received });
        Ok(())
    }
}

fn absolute(file: &Path) -> Result<&Path, Problem> {
    if file.is_absolute() {
        return Ok(file);
    }
    Err(Problem::new("bad-request", format!("`{}` is no absolute path", file.display())))
}

async fn regular(file: &Path) -> Result<(File, u64), Problem> {
    let failed =
        |why: String| Problem::new("file-read", format!("failed to read `{}`", file.display())).because(why);
    let path: PathBuf = absolute(file)?.to_owned();
    // Looked at before it is opened: opening a pipe waits for its other end.
    let found = tokio::fs::metadata(&path).await.map_err(|error| failed(error.to_string()))?;
    if !found.is_file() {
        return Err(failed("it is no file".into()));
    }
    let source = File::open(&path).await.map_err(|error| failed(error.to_string()))?;
    Ok((source, found.len()))
}

fn body_of(source: File, sent: Arc<AtomicU64>) -> Body {
    let chunks = stream::unfold(source, |mut source| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match source.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk.freeze()), source)),
            Err(error) => Some((Err(error), source)),
        }
    });
    Body::from_stream(chunks.map(move |chunk: std::io::Result<Bytes>| {
        chunk.inspect(|chunk| {
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        })
    }))
}

/// The engine's answer in whole lines. An answer that began well says in a line of its own that it failed.
#[derive(Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    error: Option<String>,
}

impl Lines {
    pub(crate) fn push(&mut self, data: &[u8], on: &mut dyn FnMut(Transfer)) {
        self.pending.extend_from_slice(data);
        let whole = match self.pending.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.pending.len() > LONGEST_LINE => self.pending.len(),
            None => return,
        };
        self.tell(whole, on);
    }

    pub(crate) fn end(mut self, on: &mut dyn FnMut(Transfer)) -> Result<(), Problem> {
        self.tell(self.pending.len(), on);
        match self.error {
            Some(error) => Err(Problem::new("engine-refused", error)),
            None => Ok(()),
        }
    }

    fn tell(&mut self, whole: usize, on: &mut dyn FnMut(Transfer)) {
        if whole == 0 {
            return;
        }
        let rest = self.pending.split_off(whole);
        let told = std::mem::replace(&mut self.pending, rest);
        for line in told.split(|byte| *byte == b'\n') {
            if let Ok(serde_json::Value::Object(said)) = serde_json::from_slice(line)
                && let Some(error) = said.get("error").and_then(|error| error.as_str())
            {
                self.error = Some(error.to_owned());
            }
        }
        on(Transfer::Chunk { chunk: String::from_utf8_lossy(&told).into_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_cut_and_an_error_among_them_is_found() {
        let mut told = Vec::new();
        let mut lines = Lines::default();
        let text = "{\"stream\":\"größer\"}\n{\"error\":\"no room\"}\nend";
        for byte in text.as_bytes() {
            lines.push(&[*byte], &mut |t| told.push(t));
        }
        let ended = lines.end(&mut |t| told.push(t));
        assert_eq!(ended.expect_err("it failed").message, "no room");
        let chunks = ["{\"stream\":\"größer\"}\n", "{\"error\":\"no room\"}\n", "end"];
        assert_eq!(told, chunks.map(|c| Transfer::Chunk { chunk: c.into() }));
    }

    #[test]
    fn an_answer_without_lines_is_not_kept_for_ever() {
        let mut told = 0;
        let mut lines = Lines::default();
        for _ in 0..40 {
            lines.push(&[b'x'; 100_000], &mut |t| {
                let Transfer::Chunk { chunk } = t else { panic!("{t:?}") };
                told += chunk.len();
            });
            assert!(lines.pending.len() <= LONGEST_LINE);
        }
        assert!(told >= 3 * LONGEST_LINE);
    }
}
