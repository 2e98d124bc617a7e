//! Requests of the pages to the daemon and to the engine, carried unread.
//!
//! Every request has a connection of its own: it ends when its asker goes, and none is kept that a machine which ended
//! could have left behind. What is collected is bounded; what is long is streamed.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
    http::uri::PathAndQuery,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_api::{
    Problem,
    client::{ApiClient, ClientError},
    exec,
};

use crate::{
    credentials,
    exchange::{Answered, ExchangeError, exchange},
};

/// Longest answer that is collected, in bytes.
pub const LONGEST_ANSWER: usize = 64 << 20;
/// Longest refusal that is read, in bytes.
const LONGEST_REFUSAL: usize = 64 << 10;
/// Longest path with its query, in bytes.
const LONGEST_PATH: usize = 32 << 10;
/// Who asks a registry, for the engine to say there.
const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");
/// Headers of a page that are passed on; the rest is between the page and its front.
const PASSED: [HeaderName; 3] =
    [header::CONTENT_TYPE, REGISTRY_AUTH, HeaderName::from_static("x-registry-config")];

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The daemon's control API.
    Control,
    /// The engine's own API.
    Engine,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Engine => "engine",
        }
    }

    /// The word for an upgraded connection.
    fn upgrade(self) -> &'static str {
        match self {
            Self::Control => exec::UPGRADE,
            Self::Engine => "tcp",
        }
    }
}

/// One question, without its body.
#[derive(Debug, Clone)]
pub struct Ask {
    target: Target,
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
}

impl Ask {
    /// A question as a page words it: `path` is whole and has its query.
    ///
    /// # Errors
    /// `bad-request` for a method or a path that is none.
    pub fn new(target: Target, method: &str, path: &str) -> Result<Self, Problem> {
        let bad = |what: &str| Problem::new("bad-request", format!("`{}` is no {what}", brief(path)));
        if !path.starts_with('/') || path.len() > LONGEST_PATH {
            return Err(bad("path of a request"));
        }
        let parsed = path.parse().map_err(|_| bad("path of a request"))?;
        let method = method
            .parse()
            .map_err(|_| Problem::new("bad-request", format!("`{}` is no method", brief(method))))?;
        Ok(Self { target, method, path: parsed, headers: HeaderMap::new() })
    }

    /// Adds those of `headers` that are for the one who is asked.
    #[must_use]
    pub fn headers(mut self, headers: &HeaderMap) -> Self {
        let passed =
            PASSED.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)));
        self.headers.extend(passed);
        self
    }

    fn json(mut self) -> Self {
        self.headers
            .entry(header::CONTENT_TYPE)
            .or_insert_with(|| HeaderValue::from_static("application/json"));
        self
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    /// JSON, or text where it is none.
    pub body: Value,
}

/// The way to one profile's daemon and engine. Clones are the same.
#[derive(Debug, Clone)]
pub struct Bridge {
    api: ApiClient,
    control: PathBuf,
    /// Where the daemon said that the engine is. Forgotten when nobody is there.
    engine: Arc<Mutex<Option<PathBuf>>>,
    tools: Option<PathBuf>,
    docker_config: Option<PathBuf>,
}

impl Bridge {
    /// To the daemon at `api_sock`. Nothing is connected before the first question.
    pub fn new(api_sock: &Path) -> Self {
        Self {
            api: ApiClient::new(api_sock),
            control: api_sock.to_owned(),
            engine: Arc::new(Mutex::new(None)),
            tools: None,
            docker_config: credentials::config_dir(),
        }
    }

    /// With the folder of the docker client that Slipway brought, for a computer that has no other.
    #[must_use]
    pub fn with_tools(mut self, dir: PathBuf) -> Self {
        self.tools = Some(dir);
        self
    }

    /// With another folder of docker's configuration than this process's own.
    #[must_use]
    pub fn with_docker_config(mut self, dir: PathBuf) -> Self {
        self.docker_config = Some(dir);
        self
    }

    pub(crate) fn tools(&self) -> Option<&Path> {
        self.tools.as_deref()
    }

    /// The same daemon, with types.
    pub fn api(&self) -> &ApiClient {
        &self.api
    }

    /// Asks, and collects the answer, whatever its status.
    ///
    /// # Errors
    /// Nobody answers, or with more than [`LONGEST_ANSWER`].
    pub async fn request(&self, ask: Ask, body: Option<&Value>) -> Result<Answer, Problem> {
        let response = self.send(json(ask, body)?).await?;
        let status = response.status().as_u16();
        let is_json = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let bytes = Limited::new(response.into_body(), LONGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| broken(&*error))?
            .to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = match bytes.is_empty() {
            true => Value::Null,
            false if is_json => serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
            false => text(),
        };
        Ok(Answer { status, body })
    }

    /// Asks, and gives the answer as it comes. Dropping it ends the request.
    ///
    /// # Errors
    /// Nobody answers, or with a refusal.
    pub async fn stream(&self, ask: Ask, body: Option<&Value>) -> Result<Response<Answered>, Problem> {
        let target = ask.target;
        accepted(target, self.send(json(ask, body)?).await?).await
    }

    /// Asks for the connection itself, as `docker exec` and `attach` do. Dropping it closes it.
    ///
    /// # Errors
    /// Nobody answers, with a refusal, or without giving the connection.
    pub async fn open(&self, ask: Ask, body: Option<&Value>) -> Result<TokioIo<Upgraded>, Problem> {
        let target = ask.target;
        let (mut ask, body) = json(ask, body)?;
        ask.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        ask.headers.insert(header::UPGRADE, HeaderValue::from_static(target.upgrade()));
        let mut response = accepted(target, self.send((ask, body)).await?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Problem::new("not-upgraded", "the answer is no connection to type into"));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| broken(&error))?;
        Ok(TokioIo::new(upgraded))
    }

    /// Asks with a body as it is, and gives the answer as it is: refusals too.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn forward(&self, ask: Ask, body: Body) -> Result<Response<Answered>, Problem> {
        self.send((ask, body)).await
    }

    async fn send(&self, (mut ask, body): (Ask, Body)) -> Result<Response<Answered>, Problem> {
        let socket = self.socket(ask.target).await?;
        if let Some(auth) = self.registry_auth(&ask).await {
            ask.headers.insert(REGISTRY_AUTH, auth);
        }
        let mut request =
            Request::builder().method(ask.method).uri(ask.path.as_str()).header(header::HOST, "slipway");
        if let Some(headers) = request.headers_mut() {
            headers.extend(ask.headers);
        }
        let request = request.body(body).map_err(|error| broken(&error))?;
        exchange(&socket, request).await.map_err(|error| match (&error, ask.target) {
            (ExchangeError::Broken(source), _) => broken(source),
            (ExchangeError::Connect(source), Target::Control) => {
                let what = format!("failed to reach the daemon at `{}`", socket.display());
                Problem::new("daemon-unreachable", what)
                    .because(source.to_string())
                    .hint("run `slipway start`")
            }
            (ExchangeError::Connect(source), Target::Engine) => {
                *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let what = format!("failed to reach the engine at `{}`", socket.display());
                Problem::new("engine-unreachable", what)
                    .because(source.to_string())
                    .hint("run `slipway status`")
            }
        })
    }

    /// What the person's docker configuration knows for the registry that is asked for, unless the page brought its own.
    async fn registry_auth(&self, ask: &Ask) -> Option<HeaderValue> {
        if ask.target != Target::Engine || ask.headers.contains_key(REGISTRY_AUTH) {
            return None;
        }
        let (method, path, dir) = (ask.method.clone(), ask.path.clone(), self.docker_config.clone()?);
        tokio::task::spawn_blocking(move || credentials::header(&method, &path, &dir)).await.ok()?
    }

    async fn socket(&self, target: Target) -> Result<PathBuf, Problem> {
        if target == Target::Control {
            return Ok(self.control.clone());
        }
        let known = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(socket) = known {
            return Ok(socket);
        }
        let socket = self.api.status().await.map_err(ClientError::into_problem)?.socket;
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.clone());
        Ok(socket)
    }
}

fn json(ask: Ask, body: Option<&Value>) -> Result<(Ask, Body), Problem> {
    let Some(body) = body else { return Ok((ask, Body::empty())) };
    let bytes = serde_json::to_vec(body).map_err(|error| broken(&error))?;
    Ok((ask.json(), Body::from(bytes)))
}

/// The answer, unless it says no.
pub(crate) async fn accepted(
    target: Target,
    response: Response<Answered>,
) -> Result<Response<Answered>, Problem> {
    let status = response.status();
    // Among what is not refused is 304: it stands as it was asked to be.
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    let read = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
    Err(refusal(target, status, &read.map(|body| body.to_bytes()).unwrap_or_default()))
}

/// What the one who was asked says against it: the daemon's problem as it is, the engine's message, or any text.
fn refusal(target: Target, status: StatusCode, body: &Bytes) -> Problem {
    if let (Target::Control, Ok(problem)) = (target, serde_json::from_slice::<Problem>(body)) {
        return problem;
    }
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let text = match serde_json::from_slice::<Message>(body) {
        Ok(said) => said.message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let text = if text.is_empty() { format!("the answer was {status}") } else { text };
    Problem::new(&format!("{}-refused", target.name()), text)
}

pub(crate) fn broken(error: &dyn Error) -> Problem {
    Problem::new("connection-broken", "the connection broke").because(error.to_string()).because_of(error)
}

/// Enough of what a page sent to know it again.
fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_refused_and_never_panics() {
        let long = format!("/{}", "x".repeat(70_000));
        for path in ["", "containers/json", "//\u{0}", "/a b", "/\n", "http://elsewhere/", &long] {
            let refused = Ask::new(Target::Engine, "GET", path).expect_err(path);
            assert_eq!(refused.code, "bad-request");
            assert!(refused.message.len() < 200, "{}", refused.message.len());
        }
        assert!(Ask::new(Target::Engine, "G T", "/").is_err());
        let fits = format!("/{}", "x".repeat(LONGEST_PATH - 1));
        Ask::new(Target::Engine, "GET", &fits).expect("fits");
    }

    #[test]
    fn a_page_cannot_pass_any_header_it_likes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-registry-auth", "a"), ("host", "b"), ("cookie", "c"), ("connection", "d")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let ask = Ask::new(Target::Engine, "POST", "/images/create").expect("asks").headers(&headers);
        let passed: Vec<&str> = ask.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(passed, ["x-registry-auth"]);
    }

    #[test]
    fn refusals_are_told_in_the_words_of_who_refused() {
        let told = |target, body: &str| {
            let problem = refusal(target, StatusCode::CONFLICT, &Bytes::copy_from_slice(body.as_bytes()));
            (problem.code, problem.message)
        };
        let pair = |code: &str, message: &str| (code.to_owned(), message.to_owned());
        assert_eq!(told(Target::Engine, r#"{"message":"in use"}"#), pair("engine-refused", "in use"));
        assert_eq!(told(Target::Engine, "plain\n"), pair("engine-refused", "plain"));
        assert_eq!(told(Target::Control, r#"{"code":"busy","message":"wait"}"#), pair("busy", "wait"));
        assert_eq!(told(Target::Control, ""), pair("control-refused", "the answer was 409 Conflict"));
    }
}
