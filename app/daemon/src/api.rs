//! The control API's server: translates HTTP to the owner's commands, and problems to status codes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRequest, Path, Query, Request, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use slipway_api::{
    Bundle, ContextRequest, DaemonSeen, DiagnoseRequest, DiskTrim, DiskUsage, DockerSetup, DoctorReport,
    DoctorRequest, GuestImages, Holdings, ImageRequest, LogLine, LogQuery, MountRequest, Mounts, Port,
    Problem, ResetRequest, Setting, SettingValue, StartRequest, Status, StopRequest, UNITS, Update,
    UpdateRequest, Updated, Version,
    exec::{ExecRequest, UPGRADE},
    log_files,
    paths::Paths,
};
use slipway_vsock::endpoint::{Client, Listener};
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::OpenApi;

use crate::{
    Context, config, diagnose, doctor, exec, holdings,
    owner::{self, Owner},
    setup,
    update::Updates,
};

/// What every answer is made from.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) context: Arc<Context>,
    pub(crate) owner: Owner,
    pub(crate) updates: Updates,
    pub(crate) quit: CancellationToken,
    /// What goes on after its answer; the daemon's end waits for it.
    pub(crate) tasks: TaskTracker,
}

/// Serves until `stop`; streams that are open then are closed.
pub(crate) async fn serve(listener: Listener, app: App, stop: CancellationToken) {
    let router = router(app);
    let serving = axum::serve(Clients(listener), router).into_future();
    tokio::select! {
        ended = serving => if let Err(error) = ended { tracing::error!(%error, "the API ended") },
        () = stop.cancelled() => {}
    }
}

/// Clients on this host, as axum takes them.
struct Clients(Listener);

impl axum::serve::Listener for Clients {
    type Io = Client;
    type Addr = ();

    async fn accept(&mut self) -> (Client, ()) {
        loop {
            match self.0.accept().await {
                Ok(client) => return (client, ()),
                Err(error) => {
                    // Out of descriptors: give the open ones time to close.
                    tracing::warn!(%error, "a client of the API could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn router(app: App) -> Router {
    let v1 = Router::new()
        .route("/version", get(version))
        .route("/status", get(status))
        .route("/status/watch", get(watch_status))
        .route("/start", post(start))
        .route("/stop", post(stop))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/quit", post(quit))
        .route("/settings", get(settings))
        .route("/settings/{name}", put(set).delete(unset))
        .route("/logs", get(logs))
        .route("/ports", get(ports))
        .route("/ports/watch", get(watch_ports))
        .route("/context", post(use_context))
        .route("/doctor", post(examine))
        .route("/diagnose", post(diagnose))
        .route("/holdings", get(holding))
        .route("/disk", get(disk))
        .route("/disk/trim", post(trim_disk))
        .route("/disk/resize", post(resize_disk))
        .route("/reset", post(reset))
        .route("/image", post(install_image))
        .route("/image/rollback", post(roll_back_image))
        .route("/images", get(images))
        .route("/update", post(update))
        .route("/update/check", post(check_update))
        .route("/mounts", get(mounts).post(add_mount))
        .route("/mounts/remove", post(remove_mount))
        .route("/exec", post(run))
        .route("/openapi.json", get(|| async { Json(openapi()) }));
    Router::new()
        .nest(slipway_api::PREFIX, v1)
        .fallback(|| async { Refusal(Problem::new("not-found", "there is no such thing in this API")) })
        .method_not_allowed_fallback(|| async {
            Refusal(Problem::new("not-found", "that cannot be done here"))
        })
        .with_state(app)
}

/// The API as an OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(
        info(title = "Slipway", description = "The control API of one profile, over `api.sock`."),
        servers((url = "/v1")),
        paths(version, status, watch_status, start, stop, pause, resume, quit, settings, set, unset, logs, ports, watch_ports,
              use_context, examine, diagnose, holding, disk, trim_disk, resize_disk, reset,
              install_image, roll_back_image, images, update, check_update, run, mounts, add_mount, remove_mount)
    )]
    struct Document;
    Document::openapi()
}

/// A problem as an answer.
struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            "not-found" => StatusCode::NOT_FOUND,
            "bad-request" | "disk-shrink" | "mount-path" | "settings-wrong" | "settings-too-much" => {
                StatusCode::BAD_REQUEST
            }
            "busy" | "machine-runs" | "not-running" | "paused" | "image-key" | "image-no-previous"
            | "update-none" | "file-exists" => StatusCode::CONFLICT,
            "daemon-ending" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

/// A JSON body, with our own words when it is none.
struct Asked<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bad =
            |why: String| Refusal(Problem::new("bad-request", "the request is not understood").because(why));
        let bytes = Bytes::from_request(request, state).await.map_err(|e| bad(e.to_string()))?;
        // An empty body asks for the defaults.
        let json = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        serde_json::from_slice(&json).map(Self).map_err(|e| bad(e.to_string()))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    crate::blocking(work).await.map_err(Refusal)
}

#[utoipa::path(get, path = "/version", responses((status = 200, body = Version)))]
async fn version(Shared(app): Shared<App>) -> Json<Version> {
    Json(version_of(&app.owner.status.borrow()))
}

fn version_of(status: &Status) -> Version {
    Version {
        slipway: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        engine: status.engine.clone(),
        image: status.image.clone(),
    }
}

#[utoipa::path(get, path = "/status", responses((status = 200, body = Status)))]
async fn status(Shared(app): Shared<App>) -> Json<Status> {
    Json(app.owner.status.borrow().clone())
}

#[utoipa::path(get, path = "/status/watch", responses((status = 200, description = "a JSON line for each change", body = Status)))]
async fn watch_status(Shared(app): Shared<App>) -> Response {
    changes(app.owner.status.clone())
}

/// A line now, and one after every change.
fn changes<T: Serialize + Send + Sync + 'static>(mut seen: watch::Receiver<T>) -> Response {
    seen.mark_changed();
    lines(stream::unfold(seen, |mut seen| async move {
        seen.changed().await.ok()?;
        let line = line(&*seen.borrow_and_update());
        Some((line, seen))
    }))
}

fn line(value: &impl Serialize) -> Result<Bytes, Infallible> {
    let mut json = serde_json::to_vec(value).unwrap_or_default();
    json.push(b'\n');
    Ok(json.into())
}

fn lines(lines: impl stream::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

#[utoipa::path(post, path = "/start", request_body = StartRequest, responses((status = 200, body = Status), (status = 409, body = Problem)))]
async fn start(Shared(app): Shared<App>, Asked(request): Asked<StartRequest>) -> Answer<Status> {
    // Mistakes are the asker's to hear at once, and no failed start.
    let (context, overrides) = (Arc::clone(&app.context), request.overrides.clone());
    blocking(move || config::with(&context.paths, &overrides)).await??;
    Ok(Json(app.owner.start(request).await?))
}

#[utoipa::path(post, path = "/stop", request_body = StopRequest, responses((status = 200, body = Status)))]
async fn stop(Shared(app): Shared<App>, Asked(request): Asked<StopRequest>) -> Answer<Status> {
    Ok(Json(app.owner.stop(request).await?))
}

#[utoipa::path(post, path = "/pause", responses((status = 200, body = Status), (status = 409, body = Problem)))]
async fn pause(Shared(app): Shared<App>) -> Answer<Status> {
    Ok(Json(app.owner.pause().await?))
}

#[utoipa::path(post, path = "/resume", responses((status = 200, body = Status), (status = 409, body = Problem)))]
async fn resume(Shared(app): Shared<App>) -> Answer<Status> {
    Ok(Json(app.owner.resume().await?))
}

#[utoipa::path(post, path = "/quit", responses((status = 200, description = "the daemon ends; the machine goes on")))]
async fn quit(Shared(app): Shared<App>) -> Json<()> {
    // After the answer is out.
    app.tasks.spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        app.quit.cancel();
    });
    Json(())
}

#[utoipa::path(get, path = "/settings", responses((status = 200, body = Vec<Setting>)))]
async fn settings(Shared(app): Shared<App>) -> Answer<Vec<Setting>> {
    with_settings(&app, config::list).await
}

#[utoipa::path(put, path = "/settings/{name}", params(("name" = String, Path)), request_body = SettingValue, responses((status = 200, body = Setting), (status = 400, body = Problem)))]
async fn set(
    Shared(app): Shared<App>,
    Path(name): Path<String>,
    Asked(value): Asked<SettingValue>,
) -> Answer<Setting> {
    with_settings(&app, move |paths| config::change(paths, &name, Some(&value.value))).await
}

#[utoipa::path(delete, path = "/settings/{name}", params(("name" = String, Path)), responses((status = 200, body = Setting), (status = 400, body = Problem)))]
async fn unset(Shared(app): Shared<App>, Path(name): Path<String>) -> Answer<Setting> {
    with_settings(&app, move |paths| config::change(paths, &name, None)).await
}

/// Reads or changes the settings; a person may have edited the file too, so the status is brought up to date each time.
async fn with_settings<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Paths) -> Result<T, Problem> + Send + 'static,
) -> Answer<T> {
    let context = Arc::clone(&app.context);
    let done = blocking(move || work(&context.paths)).await??;
    app.owner.settings_changed().await?;
    app.context.settings.send_replace(());
    Ok(Json(done))
}

#[utoipa::path(get, path = "/logs", params(LogQuery), responses((status = 200, description = "a JSON line for each line", body = LogLine)))]
async fn logs(Shared(app): Shared<App>, query: Query<LogQuery>) -> Result<Response, Refusal> {
    let Query(query) = query;
    if let Some(unit) = query.unit.as_deref().filter(|unit| !UNITS.contains(unit)) {
        let problem = Problem::new("bad-request", format!("there is no unit `{unit}`"));
        return Err(problem.hint(format!("the units are {}", UNITS.join(", "))).into());
    }
    // Subscribed before the files are read: a line between the two comes twice rather than never.
    let live = app.context.logs.follow();
    let (paths, wanted) = (app.context.paths.clone(), query.clone());
    let old = blocking(move || log_files::read(&paths, &wanted)).await??;
    let old = stream::iter(old.into_iter().map(|l| line(&l)));
    if !query.follow {
        return Ok(lines(old));
    }
    let new = stream::unfold((live, query.unit), |(mut live, unit)| async move {
        loop {
            match live.recv().await {
                Ok(new) if unit.as_ref().is_none_or(|unit| *unit == new.unit) => {
                    return Some((line(&new), (live, unit)));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(lines(futures_util::StreamExt::chain(old, new)))
}

#[utoipa::path(get, path = "/ports", responses((status = 200, body = Vec<Port>)))]
async fn ports(Shared(app): Shared<App>) -> Json<Vec<Port>> {
    Json(app.context.ports.borrow().clone())
}

#[utoipa::path(get, path = "/ports/watch", responses((status = 200, description = "a JSON line with all ports for each change", body = Vec<Port>)))]
async fn watch_ports(Shared(app): Shared<App>) -> Response {
    changes(app.context.ports.subscribe())
}

#[utoipa::path(post, path = "/context", request_body = ContextRequest, responses((status = 200, body = DockerSetup)))]
async fn use_context(Shared(app): Shared<App>, Asked(request): Asked<ContextRequest>) -> Answer<DockerSetup> {
    let context = Arc::clone(&app.context);
    let current = blocking(move || setup::point(&context.paths, &request.docker_config, true)).await??;
    let done = DockerSetup { context: setup::context_name(&app.context.paths), current, problem: None };
    app.owner.docker(done.clone()).await;
    Ok(Json(done))
}

/// What the doctor looks at when the daemon itself is asked.
async fn subject(app: &App, docker_config: Option<std::path::PathBuf>) -> doctor::Subject {
    let status = app.owner.status.borrow().clone();
    let version = version_of(&status);
    let mounts = app.context.shares.list().await.ok();
    doctor::Subject {
        paths: app.context.paths.clone(),
        exe: app.context.exe.clone(),
        docker_config,
        shell: None,
        seen: DaemonSeen::Answers { version, status: Box::new(status), mounts },
    }
}

#[utoipa::path(post, path = "/doctor", request_body = DoctorRequest, responses((status = 200, body = DoctorReport)))]
async fn examine(Shared(app): Shared<App>, Asked(request): Asked<DoctorRequest>) -> Answer<DoctorReport> {
    let subject = subject(&app, request.docker_config.clone()).await;
    let report = doctor::examine(subject, doctor::Fix::Only(request.fix)).await?;
    let mended = report.checks.iter().any(|check| check.fixed && check.id == slipway_api::DOCKER_CONTEXT);
    if let Some(dir) = request.docker_config.filter(|_| mended) {
        // The status tells of it, too. Nothing is left to be written.
        let context = Arc::clone(&app.context);
        let current = blocking(move || setup::point(&context.paths, &dir, false)).await??;
        let context = setup::context_name(&app.context.paths);
        app.owner.docker(DockerSetup { context, current, problem: None }).await;
    }
    Ok(Json(report))
}

#[utoipa::path(post, path = "/diagnose", request_body = DiagnoseRequest, responses((status = 200, body = Bundle), (status = 409, body = Problem)))]
async fn diagnose(Shared(app): Shared<App>, Asked(request): Asked<DiagnoseRequest>) -> Answer<Bundle> {
    let subject = subject(&app, request.docker_config).await;
    Ok(Json(diagnose::bundle(subject, request.path).await?))
}

#[utoipa::path(get, path = "/holdings", responses((status = 200, body = Holdings)))]
async fn holding(Shared(app): Shared<App>) -> Answer<Holdings> {
    Ok(Json(blocking(move || holdings::look(&app.context.paths)).await?))
}

#[utoipa::path(get, path = "/disk", responses((status = 200, body = DiskUsage)))]
async fn disk(Shared(app): Shared<App>) -> Answer<DiskUsage> {
    Ok(Json(crate::disk::usage(&app.context.paths, app.owner.awake()).await?))
}

#[utoipa::path(post, path = "/disk/trim", responses((status = 200, body = DiskTrim), (status = 409, body = Problem)))]
async fn trim_disk(Shared(app): Shared<App>) -> Answer<DiskTrim> {
    Ok(Json(crate::disk::trim(&app.context.paths, app.owner.awake()?).await?))
}

#[utoipa::path(post, path = "/disk/resize", request_body = SettingValue, responses((status = 200, body = Setting), (status = 400, body = Problem)))]
async fn resize_disk(Shared(app): Shared<App>, Asked(size): Asked<SettingValue>) -> Answer<Setting> {
    with_settings(&app, move |paths| crate::disk::resize(paths, &size.value)).await
}

#[utoipa::path(post, path = "/reset", request_body = ResetRequest, responses((status = 200), (status = 409, body = Problem)))]
async fn reset(Shared(app): Shared<App>, Asked(request): Asked<ResetRequest>) -> Answer<()> {
    Ok(Json(app.owner.reset(request.what).await?))
}

#[utoipa::path(post, path = "/image", request_body = ImageRequest, responses((status = 200, body = String), (status = 409, body = Problem)))]
async fn install_image(Shared(app): Shared<App>, Asked(request): Asked<ImageRequest>) -> Answer<String> {
    Ok(Json(app.owner.install(request).await?))
}

#[utoipa::path(post, path = "/image/rollback", responses((status = 200, body = String), (status = 409, body = Problem)))]
async fn roll_back_image(Shared(app): Shared<App>) -> Answer<String> {
    Ok(Json(app.owner.roll_back_image().await?))
}

#[utoipa::path(get, path = "/images", responses((status = 200, body = GuestImages)))]
async fn images(Shared(app): Shared<App>) -> Answer<GuestImages> {
    Ok(Json(blocking(move || crate::image::images(&app.context.paths)).await?))
}

#[utoipa::path(post, path = "/update", request_body = UpdateRequest, responses((status = 200, body = Updated), (status = 409, body = Problem)))]
async fn update(Shared(app): Shared<App>, Asked(request): Asked<UpdateRequest>) -> Answer<Updated> {
    Ok(Json(app.updates.update(request).await?))
}

#[utoipa::path(post, path = "/update/check", request_body = UpdateRequest, responses((status = 200, body = Update), (status = 409, body = Problem)))]
async fn check_update(Shared(app): Shared<App>, Asked(request): Asked<UpdateRequest>) -> Answer<Update> {
    Ok(Json(app.updates.examine(request.dir).await?))
}

#[utoipa::path(get, path = "/mounts", responses((status = 200, body = Mounts)))]
async fn mounts(Shared(app): Shared<App>) -> Answer<Mounts> {
    Ok(Json(app.context.shares.list().await?))
}

#[utoipa::path(post, path = "/mounts", request_body = MountRequest, responses((status = 200, body = Mounts), (status = 400, body = Problem), (status = 409, body = Problem)))]
async fn add_mount(Shared(app): Shared<App>, Asked(request): Asked<MountRequest>) -> Answer<Mounts> {
    // Shared it is when the guest has it, too.
    app.owner.awake()?;
    Ok(Json(app.context.shares.add(&request).await?))
}

#[utoipa::path(post, path = "/mounts/remove", request_body = MountRequest, responses((status = 200, body = Mounts), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove_mount(Shared(app): Shared<App>, Asked(request): Asked<MountRequest>) -> Answer<Mounts> {
    app.owner.awake()?;
    Ok(Json(app.context.shares.remove(&request.path).await?))
}

#[utoipa::path(post, path = "/exec", request_body = ExecRequest, responses((status = 101, description = "frames, see `slipway_api::exec`"), (status = 409, body = Problem)))]
async fn run(Shared(app): Shared<App>, mut request: Request) -> Result<Response, Refusal> {
    let upgrade = hyper::upgrade::on(&mut request);
    let wants =
        request.headers().get(header::UPGRADE).is_some_and(|word| word.as_bytes() == UPGRADE.as_bytes());
    if !wants {
        let problem = Problem::new("bad-request", "a program's streams need an upgraded connection");
        return Err(problem.hint(format!("send `Upgrade: {UPGRADE}`")).into());
    }
    let Asked(what) = Asked::<ExecRequest>::from_request(request, &()).await?;
    let shim = app.owner.awake()?.ok_or_else(owner::not_running)?;
    let guest = exec::open(&shim, &what).await?;
    // It ends with the program, the client, the machine or the daemon.
    app.tasks.spawn(app.quit.run_until_cancelled_owned(async move {
        match upgrade.await {
            Ok(client) => {
                if let Err(error) = exec::bridge(TokioIo::new(client), guest).await {
                    tracing::debug!(%error, "a program's stream broke");
                }
            }
            Err(error) => tracing::debug!(%error, "a program's stream was not upgraded"),
        }
    }));
    let switch = [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, switch).into_response())
}
