//! A diagnostics bundle: what somebody needs who is to help, in one file that the person looks into and sends, or does not.
//!
//! Made where it is asked for, with or without a daemon, and sent nowhere. Nothing goes in that has not been through
//! [`Redactor`]: the logs line by line, all else value by value.
//!
//! ```text
//!   doctor, status, settings, machine, engine (if it answers soon), logs (their ends) ─▶ redacted ─▶ tar.gz beside ─▶ renamed
//! ```

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde_json::Value;
use slipway_api::{Bundle, DaemonSeen, DoctorReport, Problem, State, UNITS, time};
use slipway_settings::file::SettingsFile;
use slipway_vsock::endpoint;
use tokio::time::timeout;

use crate::{
    config,
    doctor::{self, Fix, Subject},
    engine,
    redact::{GONE, Redactor, secrets_in, secrets_in_url},
};

/// How long the engine may take to say who it is: a machine that hangs is why a bundle is made.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer of the engine in bytes.
const LONGEST: usize = 1 << 20;
/// Bytes of each log, and of the one that was set aside before it; from their ends.
const OF_LOG: u64 = 2 << 20;
const OF_OLD_LOG: u64 = 512 << 10;
/// QEMU's own words, which are no unit of the logs.
const MORE_LOGS: [&str; 1] = ["qemu"];

/// What the bundle says about itself.
#[derive(Debug, Serialize)]
struct Manifest {
    made: String,
    slipway: &'static str,
    profile: String,
    about: &'static str,
    files: Vec<Entry>,
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    bytes: usize,
    about: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    name: String,
    why: String,
}

/// Name of a bundle that is made now.
pub fn file_name(unix_ms: u64) -> String {
    // `2026-11-24T09:30:00.123Z`, without what a file's name should not have.
    let stamp = time::stamp(unix_ms);
    let second = stamp.split('.').next().unwrap_or_default();
    format!("slipway-diagnose-{}Z.tar.gz", second.replace(['-', ':'], ""))
}

/// Makes one at `path`, which must not be there yet.
///
/// # Errors
/// The file is there, or cannot be made. What cannot be had for it is no error, and told in its manifest.
pub async fn bundle(subject: Subject, path: PathBuf) -> Result<Bundle, Problem> {
    if !path.is_absolute() {
        return Err(Problem::new("bad-request", format!("`{}` is not an absolute path", path.display())));
    }
    // Before the work: a mistake is told at once.
    if path.symlink_metadata().is_ok() {
        return Err(taken(&path));
    }
    let report = doctor::examine(subject.clone(), Fix::Only(Vec::new())).await?;
    let mut engine = Vec::new();
    for what in ["version", "info"] {
        engine.push((what, engine_says(&subject, what).await));
    }
    let work = move || {
        let files = Collected::of(&subject, &report, engine).finished(&subject);
        write(&path, &files)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::new("internal", "making the bundle failed").because(error.to_string()))?
}

/// The engine's answer, when there is an engine that should answer.
async fn engine_says(subject: &Subject, what: &str) -> Result<Value, String> {
    match &subject.seen {
        DaemonSeen::Answers { status, .. } if matches!(status.state, State::Running | State::Degraded) => {}
        _ => return Err("no engine is known to run".into()),
    }
    let asked = async {
        let stream = endpoint::connect(&subject.paths.docker_sock()).await.map_err(|e| e.to_string())?;
        let asked = engine::ask(stream, &format!("/{what}")).await;
        let (response, _connection) = asked.map_err(|e| e.to_string())?;
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&body.to_bytes()).map_err(|e| e.to_string())
    };
    timeout(PATIENCE, asked)
        .await
        .map_err(|_| format!("the engine did not answer in {} s", PATIENCE.as_secs()))?
}

/// What goes in, redacted already.
#[derive(Debug, Default)]
struct Collected {
    redactor: Redactor,
    files: Vec<(Entry, Vec<u8>)>,
    missing: Vec<Missing>,
}

impl Collected {
    fn of(
        subject: &Subject,
        report: &DoctorReport,
        engine: Vec<(&'static str, Result<Value, String>)>,
    ) -> Self {
        let mut all = Self { redactor: Redactor::knowing(known_secrets(subject)), ..Self::default() };
        let paths = &subject.paths;
        all.json("doctor.json", "what `slipway doctor` found", report);
        all.json("versions.json", "of Slipway, its daemon and this computer's system", &versions(subject));
        match &subject.seen {
            DaemonSeen::Answers { status, mounts, .. } => {
                all.json("status.json", "how things stood", status);
                match mounts {
                    Some(mounts) => all.json("mounts.json", "which folders are shared", mounts),
                    None => all.miss("mounts.json", "the daemon did not say"),
                }
            }
            DaemonSeen::Nobody => all.miss("status.json", "no daemon runs"),
            DaemonSeen::Silent(problem) => all.miss("status.json", &problem.message),
        }
        match config::list(paths) {
            Ok(settings) => {
                let mut value = serde_json::to_value(settings).unwrap_or_default();
                unfold_settings(&mut value);
                all.json("settings.json", "every setting; what is secret in one is not", &value);
            }
            Err(problem) => all.miss("settings.json", &problem.message),
        }
        for (file, about) in [
            (paths.shim_config(), "what the machine was started with"),
            (paths.exit_file(), "why the machine ended last"),
            (paths.accel_verdict(), "what was found out about the accelerator"),
        ] {
            let name = format!("machine/{}", file.file_name().unwrap_or_default().to_string_lossy());
            match std::fs::read(&file)
                .map_err(|e| e.to_string())
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string()))
            {
                Ok(value) => all.json(&name, about, &value),
                Err(why) => all.miss(&name, &why),
            }
        }
        for (what, answer) in engine {
            let name = format!("engine/{what}.json");
            match answer {
                Ok(value) => all.json(&name, "the engine's answer", &value),
                Err(why) => all.miss(&name, &why),
            }
        }
        for unit in UNITS.iter().chain(&MORE_LOGS) {
            let log = paths.log(unit);
            all.log(&log.with_extension("log.1"), OF_OLD_LOG);
            all.log(&log, OF_LOG);
        }
        all
    }

    fn json(&mut self, name: &str, about: &str, value: &impl Serialize) {
        let mut value = serde_json::to_value(value).unwrap_or_default();
        self.redactor.json(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.add(name, about, format!("{text}\n").into_bytes());
    }

    fn log(&mut self, path: &Path, most: u64) {
        let name = format!("logs/{}", path.file_name().unwrap_or_default().to_string_lossy());
        match end_of(path, most) {
            Ok((text, whole)) => {
                let about = if whole { "whole".into() } else { format!("the last {} KiB", most >> 10) };
                self.add(&name, &about, self.redactor.log(&text).into_bytes());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.miss(&name, &error.to_string()),
        }
    }

    fn add(&mut self, name: &str, about: &str, bytes: Vec<u8>) {
        let entry = Entry { name: name.into(), bytes: bytes.len(), about: about.into() };
        self.files.push((entry, bytes));
    }

    fn miss(&mut self, name: &str, why: &str) {
        self.missing.push(Missing { name: name.into(), why: self.redactor.text(why) });
    }

    /// All files, the manifest first.
    fn finished(self, subject: &Subject) -> Vec<(String, Vec<u8>)> {
        let (entries, bytes): (Vec<Entry>, Vec<Vec<u8>>) = self.files.into_iter().unzip();
        let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        let manifest = Manifest {
            made: time::stamp(time::now_ms()),
            slipway: env!("CARGO_PKG_VERSION"),
            profile: subject.paths.profile().to_owned(),
            about: "made by `slipway diagnose` on this computer and sent nowhere; secrets that were recognized are ***",
            files: entries,
            missing: self.missing,
        };
        let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
        let manifest = ("manifest.json".to_owned(), format!("{text}\n").into_bytes());
        std::iter::once(manifest).chain(names.into_iter().zip(bytes)).collect()
    }
}

/// Settings whose value is JSON itself are shown as such, so that what is secret is known by its name.
fn unfold_settings(settings: &mut Value) {
    for setting in settings.as_array_mut().into_iter().flatten() {
        let parsed = setting["value"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(parsed) = parsed.filter(Value::is_object) {
            setting["value"] = parsed;
        }
    }
}

#[derive(Debug, Serialize)]
struct Versions {
    slipway: &'static str,
    daemon: Option<slipway_api::Version>,
    kernel: Option<String>,
    /// Lines of `/etc/os-release`.
    system: Vec<String>,
    processors: usize,
    architecture: &'static str,
}

fn versions(subject: &Subject) -> Versions {
    let daemon = match &subject.seen {
        DaemonSeen::Answers { version, .. } => Some(version.clone()),
        DaemonSeen::Nobody | DaemonSeen::Silent(_) => None,
    };
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/etc/os-release").unwrap_or_default();
    Versions {
        slipway: env!("CARGO_PKG_VERSION"),
        daemon,
        kernel: read("/proc/version").map(|text| text.trim().to_owned()),
        system: system.lines().filter(|line| !line.contains("_URL=")).map(str::to_owned).collect(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        architecture: std::env::consts::ARCH,
    }
}

/// Values that are secret wherever they stand: of the settings, of docker's configuration and of this process's environment.
fn known_secrets(subject: &Subject) -> Vec<String> {
    let mut found = Vec::new();
    let raw = SettingsFile::new(subject.paths.settings_file()).read().unwrap_or_default();
    for value in raw.values() {
        match serde_json::from_str::<Value>(value) {
            Ok(json) if json.is_object() => secrets_in(&json, &mut found),
            _ => found.extend(secrets_in_url(value)),
        }
    }
    let docker = subject.docker_config.as_ref().map(|dir| std::fs::read(dir.join("config.json")));
    if let Some(Ok(json)) = docker
        && let Ok(config) = serde_json::from_slice::<Value>(&json)
    {
        secrets_in(&config, &mut found);
        for headers in config["HttpHeaders"].as_object().into_iter().flat_map(|h| h.values()) {
            found.extend(headers.as_str().map(str::to_owned));
        }
        // What `auth` says once it is decoded.
        for login in config["auths"].as_object().into_iter().flat_map(|logins| logins.values()) {
            let decoded = login["auth"].as_str().and_then(base64_decoded);
            found.extend(decoded.and_then(|text| text.split_once(':').map(|(_, secret)| secret.to_owned())));
        }
    }
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if crate::redact::is_secret_name(&name) {
            found.push(value.into_owned());
        } else if name.to_ascii_lowercase().ends_with("_proxy") {
            found.extend(secrets_in_url(&value));
        }
    }
    found.retain(|secret| secret != GONE);
    found
}

fn base64_decoded(text: &str) -> Option<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// The end of a file from the beginning of a line, and whether that is all of it: what is cut may be a secret without the name
/// that tells it.
fn end_of(path: &Path, most: u64) -> io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if from == 0 {
        return Ok((text, true));
    }
    Ok((text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()), false))
}

fn taken(path: &Path) -> Problem {
    Problem::new("file-exists", format!("`{}` is there already", path.display()))
        .hint("choose another name, or move it away")
}

/// Packs the files beside `path`, and gives them its name when all is written.
fn write(path: &Path, files: &[(String, Vec<u8>)]) -> Result<Bundle, Problem> {
    let failed = |error: io::Error| {
        Problem::new("diagnose-write", format!("failed to write `{}`", path.display()))
            .because(error.to_string())
            .hint("choose a folder that is there and can be written: `slipway diagnose --output FILE`")
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = name.trim_end_matches(".gz").trim_end_matches(".tar").trim_end_matches(".tgz");
    // For this user alone, as the temporary file is; gone again if anything fails.
    let packed = || {
        let aside = tempfile::Builder::new().prefix(".slipway-diagnose-").tempfile_in(dir)?;
        let mut archive = tar::Builder::new(GzEncoder::new(aside, Compression::default()));
        let now = time::now_ms() / 1000;
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            archive.append_data(&mut header, format!("{folder}/{name}"), bytes.as_slice())?;
        }
        let aside = archive.into_inner()?.finish()?;
        aside.as_file().sync_all()?;
        // Never onto a file, also not onto one that came meanwhile.
        let file = aside.persist_noclobber(path).map_err(|failed| failed.error)?;
        file.metadata().map(|found| found.len())
    };
    match packed() {
        Ok(bytes) => Ok(Bundle {
            path: path.to_owned(),
            bytes,
            files: files.iter().map(|(name, _)| name.clone()).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(path)),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(all(test, unix))] // What they look at is: modes, sockets.
#[path = "diagnose_tests.rs"]
mod tests;
