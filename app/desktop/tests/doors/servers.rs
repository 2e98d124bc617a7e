//! A daemon and an engine that answer what the tests ask, over unix sockets in a folder of their own.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::json;
use slipway_desktop::bridge::Bridge;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::JoinHandle,
};

/// Paths whose answers are still being given.
type Open = Arc<Mutex<Vec<String>>>;

pub(crate) struct Servers {
    dir: tempfile::TempDir,
    open: Open,
    control: JoinHandle<()>,
    engine: Mutex<Option<JoinHandle<()>>>,
}

impl Servers {
    /// Both, answering.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let engine = dir.path().join("engine.sock");
        let control = serve(&dir.path().join("api.sock"), Router::new().fallback(daemon).with_state(engine));
        let servers = Self { dir, open: Open::default(), control, engine: Mutex::new(None) };
        servers.start_engine();
        servers
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn bridge(&self) -> Bridge {
        Bridge::new(&self.dir.path().join("api.sock"))
    }

    pub(crate) fn start_engine(&self) {
        let router = Router::new().fallback(any(engine)).with_state(Arc::clone(&self.open));
        let running = serve(&self.dir.path().join("engine.sock"), router);
        *self.engine.lock().expect("lock") = Some(running);
    }

    pub(crate) async fn stop_engine(&self) {
        let running = self.engine.lock().expect("lock").take().expect("it runs");
        running.abort();
        let _ = running.await;
        std::fs::remove_file(self.dir.path().join("engine.sock")).expect("removed");
    }

    /// Waits until nobody reads the answer of `path` any more.
    pub(crate) async fn wait_gone(&self, path: &str) {
        for _ in 0..500 {
            if !self.open.lock().expect("lock").iter().any(|open| open == path) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the answer of {path} is still being given");
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.control.abort();
        if let Some(engine) = self.engine.lock().expect("lock").take() {
            engine.abort();
        }
    }
}

fn serve(socket: &Path, router: Router) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") })
}

async fn daemon(State(engine): State<PathBuf>, request: Request) -> Response {
    match request.uri().path() {
        "/v1/status" => {
            let status = json!({ "profile": "default", "state": "running", "engine": "28", "socket": engine,
                "machine": null, "image": null, "docker": null, "running_since": 1 });
            Json(status).into_response()
        }
        path => {
            (StatusCode::NOT_FOUND, Json(json!({ "code": "not-found", "message": path }))).into_response()
        }
    }
}

/// Remembers that an answer is being given, until it is dropped.
struct Giving(Open, String);

impl Giving {
    fn new(open: Open, path: &str) -> Self {
        open.lock().expect("lock").push(path.to_owned());
        Self(open, path.to_owned())
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        let mut open = self.0.lock().expect("lock");
        if let Some(at) = open.iter().position(|path| *path == self.1) {
            open.remove(at);
        }
    }
}

async fn engine(State(open): State<Open>, mut request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    match path.as_str() {
        "/_ping" => "OK".into_response(),
        "/nothing" => StatusCode::NO_CONTENT.into_response(),
        "/page" => ([(header::CONTENT_TYPE, "text/html")], "<script>alert(1)</script>").into_response(),
        "/echo" => {
            let body = request.into_body().collect().await.expect("read").to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let kind = kind.and_then(|k| k.to_str().map(str::to_owned).ok());
            Json(json!({ "query": query, "body": body, "type": kind })).into_response()
        }
        "/endless" => {
            let giving = Giving::new(open, &path);
            let endless = stream::repeat_with(move || {
                let _giving = &giving;
                Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1 << 20]))
            });
            Body::from_stream(endless).into_response()
        }
        "/events" => {
            let giving = Giving::new(open, &path);
            let events = stream::iter(0..3).chain(stream::pending()).map(move |number: u32| {
                let _giving = &giving;
                Ok::<_, Infallible>(Bytes::from(format!("{{\"event\":{number}}}\n")))
            });
            // Apart, so that each comes as a piece of its own.
            let events = events.then(|event| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                event
            });
            Body::from_stream(events).into_response()
        }
        "/exec/x/start" => {
            let upgrade = hyper::upgrade::on(&mut request);
            assert_eq!(request.headers()[header::UPGRADE], "tcp");
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("upgrades"));
                let mut bytes = [0; 1024];
                loop {
                    match stream.read(&mut bytes).await.expect("reads") {
                        0 => break,
                        read => {
                            let loud = bytes[..read].to_ascii_uppercase();
                            stream.write_all(&loud).await.expect("writes");
                        }
                    }
                }
                stream.write_all(b"bye").await.expect("writes");
                stream.shutdown().await.expect("ends");
            });
            (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "tcp")])
                .into_response()
        }
        "/images/create" => {
            let auth = request.headers().get("x-registry-auth");
            Json(json!({ "auth": auth.map(|a| a.to_str().expect("base64")) })).into_response()
        }
        "/images/load" if query == "broken" => {
            "{\"stream\":\"reading\"}\n{\"error\":\"no archive\"}\n".into_response()
        }
        "/images/load" => {
            let body = request.into_body().collect().await.expect("read").to_bytes();
            let sum: u64 = body.iter().map(|b| u64::from(*b)).sum();
            format!("{{\"stream\":\"{} bytes, sum {sum}\"}}\n", body.len()).into_response()
        }
        "/images/get" => vec![1_u8; 1_000_000].into_response(),
        "/cut" => {
            let pieces = stream::iter([Ok(Bytes::from_static(b"some")), Err("the disk broke")]);
            // The first is on its way before the second: it breaks in the middle of an answer.
            let pieces = pieces.then(|piece| async {
                if piece.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                piece
            });
            Body::from_stream(pieces).into_response()
        }
        _ => (StatusCode::NOT_FOUND, Json(json!({ "message": "no such thing" }))).into_response(),
    }
}
