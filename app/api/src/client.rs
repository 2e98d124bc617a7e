//! Asks the daemon.

use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::{client::legacy::Client, rt::TokioIo};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Bundle, ContextRequest, DiagnoseRequest, DiskTrim, DiskUsage, DockerSetup, DoctorReport, DoctorRequest,
    GuestImages, Holdings, ImageRequest, LogLine, LogQuery, MountRequest, Mounts, Port, Problem, Reset,
    ResetRequest, Setting, SettingValue, StartRequest, Status, StopRequest, Update, UpdateRequest, Updated,
    Version, connect,
    exec::{ExecRequest, UPGRADE},
};

/// Longest line of a stream, and longest answer, in bytes.
const LONGEST: usize = 4 << 20;

/// The daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("failed to reach the daemon at `{path}`")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not understood: client and daemon are of different versions.
    #[error("the daemon's answer is not understood")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon says no.
    #[error("{0}")]
    Problem(Box<Problem>),
}

impl ClientError {
    /// The same for a person: what the daemon said, or what became of the connection.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Problem(problem) => *problem,
            Self::Unreachable { .. } => {
                Problem::from_error("daemon-unreachable", &self).hint("run `slipway start`")
            }
            Self::Broken(_) => Problem::from_error("daemon-gone", &self).hint("run `slipway status`"),
            Self::Answer(_) => Problem::from_error("daemon-version", &self)
                .hint("daemon and CLI may be of different versions: run `slipway restart`"),
        }
    }
}

/// A client of one daemon. Clones share its connections.
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: Client<connect::Connector, Full<Bytes>>,
    socket: PathBuf,
}

impl ApiClient {
    /// A client for the daemon at `socket`. Nothing is connected before the first question.
    pub fn new(socket: &Path) -> Self {
        Self { http: connect::client(socket), socket: socket.to_owned() }
    }

    /// Who answers.
    ///
    /// # Errors
    /// See [`ClientError`], as for all that follow.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/version").await
    }

    /// How things stand.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/status").await
    }

    /// How things stand, now and after every change.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(&self) -> Result<Lines<Status>, ClientError> {
        self.lines("/status/watch").await
    }

    /// Begins a start; [`watch`](Self::watch) shows how it goes. Starting what runs is fine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn start(&self, request: &StartRequest) -> Result<Status, ClientError> {
        self.ask(Method::POST, "/start", Some(request)).await
    }

    /// Begins a stop.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stop(&self, request: &StopRequest) -> Result<Status, ClientError> {
        self.ask(Method::POST, "/stop", Some(request)).await
    }

    /// Lets the machine's processors stand still. Pausing what is paused is fine.
    ///
    /// # Errors
    /// See [`ClientError`]; a machine that does not run, or is on its way, is refused.
    pub async fn pause(&self) -> Result<Status, ClientError> {
        self.ask(Method::POST, "/pause", None::<&()>).await
    }

    /// Lets a paused machine go on. Resuming what runs is fine.
    ///
    /// # Errors
    /// See [`ClientError`]; without a machine it is refused.
    pub async fn resume(&self) -> Result<Status, ClientError> {
        self.ask(Method::POST, "/resume", None::<&()>).await
    }

    /// Asks the daemon to end; the machine goes on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn quit(&self) -> Result<(), ClientError> {
        self.ask::<()>(Method::POST, "/quit", None::<&()>).await
    }

    /// Every setting.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn settings(&self) -> Result<Vec<Setting>, ClientError> {
        self.get("/settings").await
    }

    /// Sets one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set(&self, name: &str, value: &str) -> Result<Setting, ClientError> {
        let value = SettingValue { value: value.to_owned() };
        self.ask(Method::PUT, &format!("/settings/{}", segment(name)), Some(&value)).await
    }

    /// Gives one its default back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unset(&self, name: &str) -> Result<Setting, ClientError> {
        self.ask(Method::DELETE, &format!("/settings/{}", segment(name)), None::<&()>).await
    }

    /// Lines of the logs, old ones first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logs(&self, query: &LogQuery) -> Result<Lines<LogLine>, ClientError> {
        let mut path = format!("/logs?follow={}", query.follow);
        if let Some(unit) = &query.unit {
            path.push_str(&format!("&unit={}", segment(unit)));
        }
        if let Some(since) = query.since_ms {
            path.push_str(&format!("&since_ms={since}"));
        }
        if let Some(tail) = query.tail {
            path.push_str(&format!("&tail={tail}"));
        }
        self.lines(&path).await
    }

    /// The published ports.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ports(&self) -> Result<Vec<Port>, ClientError> {
        self.get("/ports").await
    }

    /// The published ports, now and after every change.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch_ports(&self) -> Result<Lines<Vec<Port>>, ClientError> {
        self.lines("/ports/watch").await
    }

    /// Points docker's configuration at this profile and makes it current.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn use_context(&self, request: &ContextRequest) -> Result<DockerSetup, ClientError> {
        self.ask(Method::POST, "/context", Some(request)).await
    }

    /// Has everything looked at that a machine needs, and mended what is asked for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self, request: &DoctorRequest) -> Result<DoctorReport, ClientError> {
        self.ask(Method::POST, "/doctor", Some(request)).await
    }

    /// Has a diagnostics bundle made; it is sent nowhere.
    ///
    /// # Errors
    /// See [`ClientError`]; a file that is there already is not overwritten.
    pub async fn diagnose(&self, request: &DiagnoseRequest) -> Result<Bundle, ClientError> {
        self.ask(Method::POST, "/diagnose", Some(request)).await
    }

    /// What a reset would take.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn holdings(&self) -> Result<Holdings, ClientError> {
        self.get("/holdings").await
    }

    /// What the data disk takes, and what is on it. Takes the engine a while when it has much.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disk(&self) -> Result<DiskUsage, ClientError> {
        self.get("/disk").await
    }

    /// Gives back to the host what the machine no longer needs. It must run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn trim_disk(&self) -> Result<DiskTrim, ClientError> {
        self.ask(Method::POST, "/disk/trim", None::<&()>).await
    }

    /// Lets the data disk grow to `size`, such as `200GiB`, from the next start on; never less than it may now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resize_disk(&self, size: &str) -> Result<Setting, ClientError> {
        self.ask(Method::POST, "/disk/resize", Some(&SettingValue { value: size.into() })).await
    }

    /// Takes it away. The machine must be stopped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reset(&self, what: Reset) -> Result<(), ClientError> {
        self.ask(Method::POST, "/reset", Some(&ResetRequest { what })).await
    }

    /// Replaces the guest image; the machine must be stopped. Returns the image's version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn install_image(&self, request: &ImageRequest) -> Result<String, ClientError> {
        self.ask(Method::POST, "/image", Some(request)).await
    }

    /// The guest images that there are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn images(&self) -> Result<GuestImages, ClientError> {
        self.get("/images").await
    }

    /// Goes back to the guest image before the installed one; the machine must be stopped. Returns its version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn roll_back_image(&self) -> Result<String, ClientError> {
        self.ask(Method::POST, "/image/rollback", None::<&()>).await
    }

    /// Checks the image that [`update`](Self::update) would take; reads all of it, and changes nothing.
    ///
    /// # Errors
    /// See [`ClientError`]; `update-none` where there is no other image than the one in use.
    pub async fn check_update(&self, request: &UpdateRequest) -> Result<Update, ClientError> {
        self.ask(Method::POST, "/update/check", Some(request)).await
    }

    /// Puts another image in place of the one in use. A machine that runs is stopped and started for it, and goes back to the image
    /// before when the new one does not start. Answers when all that is done; it goes on when nobody waits.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update(&self, request: &UpdateRequest) -> Result<Updated, ClientError> {
        self.ask(Method::POST, "/update", Some(request)).await
    }

    /// Every folder that the machine sees.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn mounts(&self) -> Result<Mounts, ClientError> {
        self.get("/mounts").await
    }

    /// Shares one more folder, or file.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_mount(&self, request: &MountRequest) -> Result<Mounts, ClientError> {
        self.ask(Method::POST, "/mounts", Some(request)).await
    }

    /// Shares it no longer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_mount(&self, request: &MountRequest) -> Result<Mounts, ClientError> {
        self.ask(Method::POST, "/mounts/remove", Some(request)).await
    }

    /// Runs a program in the guest; frames of [`crate::exec`] travel on the stream.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exec(
        &self,
        request: &ExecRequest,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, ClientError> {
        let response = self.send(Method::POST, "/exec", Some(request), true).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| ClientError::Broken(e.into()))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, body, false).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let bytes = whole(response).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Answer(e.into()))
    }

    async fn lines<T>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let response = self.send(Method::GET, path, None::<&()>, false).await?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(Lines { body: response.into_body(), pending: BytesMut::new(), of: std::marker::PhantomData })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        upgrade: bool,
    ) -> Result<Response<Incoming>, ClientError> {
        let uri = connect::uri(&self.socket, &format!("{}{path}", crate::PREFIX));
        let json = body.map(serde_json::to_vec).transpose().map_err(|e| ClientError::Answer(e.into()))?;
        let mut request = Request::builder().method(method).uri(uri).header(header::HOST, "slipway");
        if json.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if upgrade {
            request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, UPGRADE);
        }
        let request = request
            .body(Full::new(Bytes::from(json.unwrap_or_default())))
            .map_err(|e| ClientError::Answer(e.into()))?;
        self.http.request(request).await.map_err(|source| {
            if source.is_connect() {
                ClientError::Unreachable { path: self.socket.clone(), source }
            } else {
                ClientError::Broken(source.into())
            }
        })
    }
}

/// A name as one segment of a path: what is not plain is escaped.
fn segment(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(response.into_body(), LONGEST);
    Ok(body.collect().await.map_err(ClientError::Broken)?.to_bytes())
}

async fn refused(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    match whole(response).await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Answer(format!("it answered with {status}").into()),
        },
        Err(error) => error,
    }
}

/// A stream of JSON lines.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    pending: BytesMut,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next one; `None` when the daemon ends the stream. Cancel-safe.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line = self.pending.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|e| ClientError::Answer(e.into()));
            }
            if self.pending.len() > LONGEST {
                return Err(ClientError::Answer("a line without an end".into()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                        data.advance(data.len());
                    }
                }
                Some(Err(e)) => return Err(ClientError::Broken(e.into())),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(segment("machine.cpus"), "machine.cpus");
        assert_eq!(segment("a/../b c"), "a%2F..%2Fb%20c");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_path() {
        let error = ApiClient::new(Path::new("/nonexistent/api.sock")).status().await.expect_err("nobody");
        assert!(error.to_string().contains("/nonexistent/api.sock"), "{error}");
        assert_eq!(error.into_problem().code, "daemon-unreachable");
    }
}
