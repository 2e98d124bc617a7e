//! What the pages can ask of the window: the bridge, the host's dialogs, and nothing else.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::{HeaderMap, header::HeaderName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_api::Problem;
use tauri::{
    AppHandle, Manager, State,
    ipc::{Channel, InvokeBody, InvokeResponseBody, Request},
};
use tauri_plugin_autostart::ManagerExt;
use tauri_plugin_dialog::{DialogExt, FilePath};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{Shared, open, spawn, tell};
use crate::{
    HistoryVerb, Rebuild, Transfer,
    bridge::{Answer, Ask, Target, broken},
    daemon,
    platform::Platform,
};

/// Bytes that are gathered before a page is told; below it small pieces go as they come.
const GATHER: usize = 256 << 10;
/// After so many bytes at once: a page shows far less in a second, and what waits, waits in the engine and not in memory.
const REST: Duration = Duration::from_millis(8);
/// Writes of a page that wait for a slow program. Beyond it the page waits.
const WRITES: usize = 64;

/// What is open of a page, by the page's own numbers.
#[derive(Debug, Default)]
pub(super) struct Streams {
    running: Mutex<HashMap<u64, CancellationToken>>,
    writers: Mutex<HashMap<u64, mpsc::Sender<Write>>>,
}

#[derive(Debug)]
enum Write {
    Bytes(Bytes),
    End,
}

impl Streams {
    fn running(&self) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writers(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Write>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers `id` until the answer is dropped.
    fn begin(&self, id: u64) -> Result<Running<'_>, Problem> {
        let end = CancellationToken::new();
        match self.running().entry(id) {
            // It stays whose it is.
            Entry::Occupied(_) => {
                return Err(Problem::new("bad-request", format!("there is a stream {id} already")));
            }
            Entry::Vacant(free) => free.insert(end.clone()),
        };
        Ok(Running { streams: self, id, end, kept: false })
    }

    fn end(&self, id: u64) {
        if let Some(end) = self.running().get(&id) {
            end.cancel();
        }
    }

    /// The page is another one, or gone.
    pub(super) fn end_all(&self) {
        for (_, end) in self.running().drain() {
            end.cancel();
        }
        self.writers().clear();
    }
}

struct Running<'a> {
    streams: &'a Streams,
    id: u64,
    end: CancellationToken,
    kept: bool,
}

impl Running<'_> {
    /// Leaves it registered: somebody else ends it.
    fn keep(mut self) -> CancellationToken {
        self.kept = true;
        self.end.clone()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // After a reload the number may be another stream's, whose end is not ours to forget.
        if !self.end.is_cancelled() {
            self.streams.running().remove(&self.id);
        } else {
            self.streams.running().retain(|_, end| !end.is_cancelled());
        }
    }
}

fn cancelled() -> Problem {
    Problem::new("cancelled", "it was cancelled")
}

/// One question of a page.
#[derive(Debug, Deserialize)]
pub(super) struct Question {
    target: Target,
    method: String,
    path: String,
    body: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Question {
    fn ask(&self) -> Result<Ask, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // What is no header at all is as if it were not for the one who is asked.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value.parse()) {
                headers.insert(name, value);
            }
        }
        Ok(Ask::new(self.target, &self.method, &self.path)?.headers(&headers))
    }
}

/// How a stream ended.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    status: u16,
}

#[tauri::command]
pub(super) async fn bridge_request(
    shared: State<'_, Shared>,
    target: Target,
    method: String,
    path: String,
    body: Option<Value>,
    headers: Option<BTreeMap<String, String>>,
) -> Result<Answer, Problem> {
    let question = Question { target, method, path, body, headers: headers.unwrap_or_default() };
    shared.bridge.request(question.ask()?, question.body.as_ref()).await
}

#[tauri::command]
#[expect(clippy::too_many_arguments, reason = "a page names them")]
pub(super) async fn bridge_stream(
    shared: State<'_, Shared>,
    streams: State<'_, Streams>,
    id: u64,
    target: Target,
    method: String,
    path: String,
    body: Option<Value>,
    headers: Option<BTreeMap<String, String>>,
    channel: Channel<InvokeResponseBody>,
) -> Result<Ended, Problem> {
    let question = Question { target, method, path, body, headers: headers.unwrap_or_default() };
    let running = streams.begin(id)?;
    let streaming = async {
        let response = shared.bridge.stream(question.ask()?, question.body.as_ref()).await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut gathered = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let mut next = Some(frame);
            // What is there already goes along.
            while let Some(frame) = next.take() {
                if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
                    gathered.extend_from_slice(&data);
                }
                if gathered.len() < GATHER {
                    next = body.frame().now_or_never().flatten();
                }
            }
            let much = gathered.len() >= GATHER;
            if channel.send(raw(gathered.split())).is_err() {
                return Err(cancelled());
            }
            if much {
                tokio::time::sleep(REST).await;
            }
        }
        Ok(Ended { status })
    };
    tokio::select! {
        ended = streaming => ended,
        () = running.end.cancelled() => Err(cancelled()),
    }
}

fn raw(bytes: BytesMut) -> InvokeResponseBody {
    InvokeResponseBody::Raw(bytes.freeze().into())
}

#[tauri::command]
pub(super) fn bridge_cancel(streams: State<'_, Streams>, id: u64) {
    streams.end(id);
}

#[tauri::command]
#[expect(clippy::too_many_arguments, reason = "a page names them")]
pub(super) async fn bridge_open(
    app: AppHandle,
    shared: State<'_, Shared>,
    streams: State<'_, Streams>,
    id: u64,
    target: Target,
    method: String,
    path: String,
    body: Option<Value>,
    channel: Channel<InvokeResponseBody>,
) -> Result<(), Problem> {
    let question = Question { target, method, path, body, headers: BTreeMap::new() };
    let running = streams.begin(id)?;
    let stream = tokio::select! {
        opened = shared.bridge.open(question.ask()?, question.body.as_ref()) => opened?,
        () = running.end.cancelled() => return Err(cancelled()),
    };
    let end = running.keep();
    let (writes, mut written) = mpsc::channel(WRITES);
    streams.writers().insert(id, writes);
    let owner = app.clone();
    spawn(&app, async move {
        let (mut reader, mut writer) = split(stream);
        let down = async {
            let mut bytes = BytesMut::with_capacity(GATHER);
            while matches!(reader.read_buf(&mut bytes).await, Ok(1..)) {
                let much = bytes.len() >= GATHER / 4;
                if channel.send(raw(bytes.split())).is_err() {
                    return;
                }
                if much {
                    tokio::time::sleep(REST).await;
                }
                bytes.reserve(GATHER);
            }
        };
        let up = async {
            while let Some(write) = written.recv().await {
                let done = match write {
                    Write::Bytes(bytes) => writer.write_all(&bytes).await,
                    Write::End => writer.shutdown().await,
                };
                if done.is_err() {
                    break;
                }
            }
            // The program may go on to speak.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = down => {}
            () = up => {}
            () = end.cancelled() => {}
        }
        // An empty message is the end.
        let _ = channel.send(InvokeResponseBody::Raw(Vec::new()));
        if !end.is_cancelled() {
            let streams = owner.state::<Streams>();
            streams.running().remove(&id);
            streams.writers().remove(&id);
        }
    });
    Ok(())
}

async fn write(streams: &Streams, id: u64, what: Write) -> Result<(), Problem> {
    let gone = || Problem::new("stream-gone", "the connection has ended");
    let writer = streams.writers().get(&id).cloned().ok_or_else(gone)?;
    writer.send(what).await.map_err(|_| gone())
}

#[tauri::command]
pub(super) async fn bridge_write(streams: State<'_, Streams>, request: Request<'_>) -> Result<(), Problem> {
    let id = request.headers().get("slipway-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (Some(id), InvokeBody::Raw(bytes)) = (id, request.body()) else {
        return Err(Problem::new("bad-request", "bytes and the header `slipway-id` are needed"));
    };
    write(&streams, id, Write::Bytes(Bytes::copy_from_slice(bytes))).await
}

#[tauri::command]
pub(super) async fn bridge_close_write(streams: State<'_, Streams>, id: u64) -> Result<(), Problem> {
    write(&streams, id, Write::End).await
}

#[tauri::command]
pub(super) fn bridge_close(streams: State<'_, Streams>, id: u64) {
    streams.writers().remove(&id);
    streams.end(id);
}

#[tauri::command]
pub(super) async fn bridge_upload(
    shared: State<'_, Shared>,
    streams: State<'_, Streams>,
    id: u64,
    method: Option<String>,
    path: String,
    host_file: PathBuf,
    channel: Channel<Transfer>,
) -> Result<(), Problem> {
    let running = streams.begin(id)?;
    let method = method.as_deref().unwrap_or("POST");
    let tell = |transfer| drop(channel.send(transfer));
    tokio::select! {
        ended = shared.bridge.upload(method, &path, &host_file, tell) => ended,
        () = running.end.cancelled() => Err(cancelled()),
    }
}

#[tauri::command]
pub(super) async fn bridge_download(
    shared: State<'_, Shared>,
    streams: State<'_, Streams>,
    id: u64,
    path: String,
    host_file: PathBuf,
    channel: Channel<Transfer>,
) -> Result<(), Problem> {
    let running = streams.begin(id)?;
    let tell = |transfer| drop(channel.send(transfer));
    tokio::select! {
        ended = shared.bridge.download(&path, &host_file, tell) => ended,
        () = running.end.cancelled() => Err(cancelled()),
    }
}

/// Files to choose among.
#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    name: String,
    extensions: Vec<String>,
}

type Chosen = Option<PathBuf>;

async fn chosen(ask: impl FnOnce(oneshot::Sender<Option<FilePath>>)) -> Chosen {
    let (answer, asked) = oneshot::channel();
    ask(answer);
    // A dialog that goes without an answer chose nothing.
    asked.await.ok().flatten()?.into_path().ok()
}

#[tauri::command]
pub(super) async fn choose_file(app: AppHandle, title: String, filters: Vec<Filter>) -> Chosen {
    let mut dialog = app.dialog().file().set_title(title);
    for Filter { name, extensions } in filters {
        let extensions: Vec<&str> = extensions.iter().map(String::as_str).collect();
        dialog = dialog.add_filter(name, &extensions);
    }
    chosen(|answer| dialog.pick_file(move |file| drop(answer.send(file)))).await
}

#[tauri::command]
pub(super) async fn choose_save_file(app: AppHandle, title: String, name: String) -> Chosen {
    let dialog = app.dialog().file().set_title(title).set_file_name(name);
    chosen(|answer| dialog.save_file(move |file| drop(answer.send(file)))).await
}

#[tauri::command]
pub(super) async fn choose_folder(app: AppHandle, title: String) -> Chosen {
    let dialog = app.dialog().file().set_title(title);
    chosen(|answer| dialog.pick_folder(move |folder| drop(answer.send(folder)))).await
}

#[tauri::command]
pub(super) fn open_external(app: AppHandle, url: &str) -> Result<(), Problem> {
    let opened = url.parse().is_ok_and(|url| open::browse(&app, &url));
    if opened { Ok(()) } else { Err(Problem::new("bad-request", "only http and https links are opened")) }
}

#[tauri::command]
pub(super) fn notify(app: AppHandle, title: &str, body: &str) {
    tell(&app, title, body);
}

#[tauri::command]
pub(super) async fn start_daemon(shared: State<'_, Shared>) -> Result<(), Problem> {
    daemon::ensure(&shared.profile).await
}

#[tauri::command]
pub(super) async fn build_history(
    shared: State<'_, Shared>,
    verb: HistoryVerb,
    reference: Option<String>,
) -> Result<String, Problem> {
    shared.bridge.build_history(verb, reference.as_deref()).await
}

#[tauri::command]
pub(super) async fn bridge_rebuild(
    shared: State<'_, Shared>,
    streams: State<'_, Streams>,
    id: u64,
    rebuild: Rebuild,
    channel: Channel<Transfer>,
) -> Result<(), Problem> {
    let running = streams.begin(id)?;
    let tell = |transfer| drop(channel.send(transfer));
    tokio::select! {
        ended = shared.bridge.rebuild(&rebuild, tell) => ended,
        () = running.end.cancelled() => Err(cancelled()),
    }
}

#[tauri::command]
pub(super) fn platform(shared: State<'_, Shared>) -> Platform {
    Platform::of_process(&shared.profile, true)
}

#[tauri::command]
pub(super) fn autostart(app: AppHandle) -> Result<bool, Problem> {
    app.autolaunch().is_enabled().map_err(|error| Problem::from_error("autostart", &error))
}

#[tauri::command]
pub(super) fn set_autostart(app: AppHandle, on: bool) -> Result<(), Problem> {
    let launch = app.autolaunch();
    let done = if on { launch.enable() } else { launch.disable() };
    done.map_err(|error| Problem::from_error("autostart", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_its_stream_has_ended() {
        let streams = Streams::default();
        let first = streams.begin(1).expect("begins");
        assert!(streams.begin(1).is_err(), "taken");
        assert!(streams.begin(2).is_ok());
        streams.end(1);
        assert!(first.end.is_cancelled());
        drop(first);
        let again = streams.begin(1).expect("free");
        streams.end_all();
        assert!(again.end.is_cancelled(), "the page went");
        let after = streams.begin(1).expect("another page's");
        drop(again);
        streams.end(1);
        assert!(after.end.is_cancelled(), "the old page's end did not take the new one's");
    }
}
