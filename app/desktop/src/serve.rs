//! The pages and their door over HTTP, for a plain browser on this computer and for tests.
//!
//! Whoever reaches the door can do what the person can, so it is narrow: the loopback address alone, a random token that
//! becomes a cookie which scripts cannot read, and requests only of pages that this server gave (names other than its
//! own in `Host` are refused, which stops rebinding, and so are foreign `Origin`s).

mod assets;
mod guard;
mod socket;

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use slipway_api::Problem;
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    HistoryVerb, Rebuild, Transfer,
    bridge::{Ask, Bridge, Target},
    daemon,
    platform::Platform,
};
use assets::Assets;
use guard::Guard;

/// Marks an answer that is the door's own and not that of the one who was asked.
const PROBLEM: HeaderName = HeaderName::from_static("x-slipway-problem");
/// Headers that belong to one connection and are not carried on.
const HOPS: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, HeaderName::from_static("keep-alive")];

/// The server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The pages are not where they should be.
    #[error("failed to read the pages in `{path}`")]
    Assets {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The port is taken, or may not be listened on.
    #[error("failed to listen on port {port} of 127.0.0.1")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no random bytes.
    #[error("failed to make a token")]
    Token(#[source] getrandom::Error),
}

/// What every answer is made from.
#[derive(Debug)]
struct App {
    bridge: Bridge,
    profile: String,
    assets: Assets,
    guard: Guard,
}

/// A server that listens and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
}

impl Server {
    /// Listens on a port of the loopback address; `0` takes a free one. `pages` is the folder that `npm run build` wrote.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(bridge: Bridge, profile: &str, pages: &Path, port: u16) -> Result<Self, ServeError> {
        let assets =
            Assets::read(pages).map_err(|source| ServeError::Assets { path: pages.to_owned(), source })?;
        let failed = |source| ServeError::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let guard = Guard::new(port).map_err(ServeError::Token)?;
        Ok(Self { listener, app: Arc::new(App { bridge, profile: profile.into(), assets, guard }) })
    }

    /// What a person opens.
    pub fn url(&self) -> String {
        self.app.guard.url()
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// The listener's.
    pub async fn run(self) -> std::io::Result<()> {
        let guarded = middleware::from_fn_with_state(Arc::clone(&self.app), guard::check);
        let router = Router::new()
            .route("/bridge/open/{target}/{*path}", get(socket::open))
            .route("/bridge/stream/{target}/{*path}", get(socket::stream))
            .route("/bridge/upload", post(upload))
            .route("/bridge/download", post(download))
            .route("/bridge/start-daemon", post(start_daemon))
            .route("/bridge/build-history", post(build_history))
            .route("/bridge/rebuild", post(rebuild))
            .route("/bridge/platform", post(platform))
            .route("/bridge/autostart", post(|| async { Json(()) }))
            .route("/bridge/control/{*path}", any(forward))
            .route("/bridge/engine/{*path}", any(forward))
            .fallback(asset)
            .layer(guarded)
            .with_state(self.app);
        axum::serve(self.listener, router).await
    }
}

/// A problem as an answer of the door itself.
struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, [(PROBLEM, "1")], Json(self.0)).into_response()
    }
}

async fn asset(State(app): State<Arc<App>>, request: Request) -> Response {
    app.assets.answer(request.uri().path())
}

async fn platform(State(app): State<Arc<App>>) -> Json<Platform> {
    Json(Platform::of_process(&app.profile, false))
}

async fn start_daemon(State(app): State<Arc<App>>) -> Result<Json<()>, Refusal> {
    Ok(Json(daemon::ensure(&app.profile).await?))
}

/// What a page asks of the history of builds.
#[derive(Debug, Deserialize)]
struct OfHistory {
    verb: HistoryVerb,
    reference: Option<String>,
}

async fn build_history(State(app): State<Arc<App>>, Json(ask): Json<OfHistory>) -> Result<String, Refusal> {
    Ok(app.bridge.build_history(ask.verb, ask.reference.as_deref()).await?)
}

/// Carries a request on, both ways, as it comes.
async fn forward(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let whole = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let (target, path) = target_of(whole)?;
    let ask = Ask::new(target, parts.method.as_str(), path)?.headers(&parts.headers);
    let (mut parts, body) = app.bridge.forward(ask, body).await?.into_parts();
    for hop in &HOPS {
        parts.headers.remove(hop);
    }
    // Whatever a container put into an answer, it is no page and no script of ours.
    parts.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn target_of(whole: &str) -> Result<(Target, &str), Problem> {
    let rest = whole.strip_prefix("/bridge/").unwrap_or_default();
    for (name, target) in [("control", Target::Control), ("engine", Target::Engine)] {
        if let Some(path) = rest.strip_prefix(name).filter(|path| path.starts_with('/')) {
            return Ok((target, path));
        }
    }
    Err(Problem::new("bad-request", "only `control` and `engine` can be asked"))
}

/// A file of this computer and a path of the engine.
#[derive(Debug, Deserialize)]
struct Copy {
    path: String,
    file: PathBuf,
    #[serde(default)]
    method: Option<String>,
}

async fn upload(State(app): State<Arc<App>>, Query(copy): Query<Copy>) -> Response {
    told(move |tell| async move {
        let method = copy.method.as_deref().unwrap_or("POST");
        app.bridge.upload(method, &copy.path, &copy.file, |t| drop(tell.send(line(&t)))).await
    })
}

async fn download(State(app): State<Arc<App>>, Query(copy): Query<Copy>) -> Response {
    told(move |tell| async move {
        app.bridge.download(&copy.path, &copy.file, |t: Transfer| drop(tell.send(line(&t)))).await
    })
}

async fn rebuild(State(app): State<Arc<App>>, Json(asked): Json<Rebuild>) -> Response {
    told(move |tell| async move { app.bridge.rebuild(&asked, |t: Transfer| drop(tell.send(line(&t)))).await })
}

type Tell = mpsc::UnboundedSender<Bytes>;

/// An answer of JSON lines while `work` goes on; a page that leaves ends the work. The lines are few: figures ten times a
/// second, and what the engine says.
fn told<F>(work: impl FnOnce(Tell) -> F) -> Response
where
    F: Future<Output = Result<(), Problem>> + Send + 'static,
{
    let (tell, mut lines) = mpsc::unbounded_channel();
    let working = work(tell.clone());
    let working = stream::once(async move {
        let last = match working.await {
            Ok(()) => line(&serde_json::json!({ "done": true })),
            Err(problem) => line(&serde_json::json!({ "error": problem })),
        };
        drop(tell.send(last));
        None
    });
    let lines = stream::poll_fn(move |context| lines.poll_recv(context)).map(Some);
    let lines = stream::select(lines, working).filter_map(std::future::ready).map(Ok::<_, Infallible>);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    json.push(b'\n');
    json.into()
}
