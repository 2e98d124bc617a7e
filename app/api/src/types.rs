//! What travels as JSON.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Update;

/// Where a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No machine runs.
    Stopped,
    /// On its way to an answering engine.
    Starting,
    /// The engine answers.
    Running,
    /// The machine runs and something in it does not.
    Degraded,
    /// The machine's processors stand still, because somebody asked for that. Its memory is kept.
    Paused,
    /// On its way down.
    Stopping,
    /// It ended, or did not start, for the reason in [`Status::problem`].
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        })
    }
}

/// Something that failed: what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Stable, for machines: `image-damaged`.
    pub code: String,
    /// What failed.
    pub message: String,
    /// Why, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of that code, without a cause or a hint yet.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A problem out of an error: its causes become the problem's.
    pub fn from_error(code: &str, error: &dyn std::error::Error) -> Self {
        Self::new(code, error.to_string()).because_of(error)
    }

    /// Adds what lies below `error`.
    #[must_use]
    pub fn because_of(mut self, error: &dyn std::error::Error) -> Self {
        let mut cause = error.source();
        while let Some(error) = cause {
            self.causes.push(error.to_string());
            cause = error.source();
        }
        self
    }

    /// Adds a cause in words.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseState {
    /// It goes on.
    Running,
    /// It is done.
    Done,
    /// It is done, and not all of it worked.
    Degraded,
    /// It failed.
    Failed,
}

/// One named step of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Phase {
    /// `image`, `machine`, `agent`, then the guest's: `mounts`, `data-disk`, `network`, `containerd`, `engine`, `images`.
    pub name: String,
    /// How far it is.
    pub state: PhaseState,
    /// Milliseconds since the start was asked for.
    pub started_ms: u64,
    /// Likewise; none while it goes on.
    pub ended_ms: Option<u64>,
    /// What was done, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A program that the guest keeps running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// `containerd`, `dockerd`.
    pub name: String,
    /// Whether it runs just now.
    pub running: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_exit: String,
}

/// The machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Process id of the VM on the host.
    pub pid: Option<u32>,
    /// Driver and its version: `qemu 7.2.22`.
    pub vmm: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// Why it is not the faster one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel_reason: Option<String>,
    /// How host and guest speak: `vsock`, `vhost-user-vsock`.
    pub transport: String,
}

/// How the host's `docker` is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DockerSetup {
    /// Name of our context.
    pub context: String,
    /// Whether it is the current one.
    pub current: bool,
    /// Why it could not be set up, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Everything about a profile at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The profile.
    pub profile: String,
    /// Where it is.
    pub state: State,
    /// Why it is degraded or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What is worth knowing although it works.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The steps of this or the last start.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// What the guest keeps running.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Version of the engine that answers.
    pub engine: Option<String>,
    /// The engine's socket.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// The machine, while there is one.
    pub machine: Option<Machine>,
    /// The guest image that runs, or would.
    pub image: Option<String>,
    /// The host's `docker`.
    pub docker: Option<DockerSetup>,
    /// When the engine first answered, in seconds since the epoch.
    pub running_since: Option<u64>,
    /// Settings that hold from the next start only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_settings: Vec<String>,
    /// The guest image beside the program, where it is another than the one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Slipway's version.
    pub slipway: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Version of the engine, when it answers.
    pub engine: Option<String>,
    /// Version of the guest image.
    pub image: Option<String>,
}

/// How to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// Settings for this start alone: `machine.cpus` and its value as a person writes it.
    #[serde(default)]
    pub overrides: Vec<(String, String)>,
    /// Seconds until the engine must answer; none: the setting.
    pub timeout_s: Option<u64>,
    /// The folder of the caller's docker configuration; none: leave `docker` alone.
    #[schema(value_type = Option<String>)]
    pub docker_config: Option<PathBuf>,
}

/// How to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// End the machine at once: like pulling the plug.
    #[serde(default)]
    pub force: bool,
    /// Seconds that containers get; none: the setting.
    pub timeout_s: Option<u64>,
}

/// One setting with what holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// `machine.cpus`.
    pub name: String,
    /// What holds.
    pub value: String,
    /// The person set it.
    pub set: bool,
    /// What it is for.
    pub doc: String,
    /// What it takes, in words.
    pub expected: String,
    /// It takes effect with the next start only.
    pub needs_restart: bool,
}

/// A new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingValue {
    /// As a person writes it.
    pub value: String,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Milliseconds since the epoch.
    pub unix_ms: u64,
    /// Who said it.
    pub unit: String,
    /// What it said.
    pub line: String,
}

/// Which lines of the logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// One unit; none: all.
    pub unit: Option<String>,
    /// Milliseconds since the epoch: older lines are left out.
    pub since_ms: Option<u64>,
    /// At most so many of the newest.
    pub tail: Option<usize>,
    /// Go on with new ones.
    #[serde(default)]
    pub follow: bool,
}

/// Units of the logs, as `slipway logs --unit` takes them.
pub const UNITS: [&str; 7] = ["agent", "containerd", "dockerd", "kernel", "console", "daemon", "shim"];

/// A folder of docker's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextRequest {
    /// `~/.docker`, or what `DOCKER_CONFIG` says.
    #[schema(value_type = String)]
    pub docker_config: PathBuf,
}

/// What to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    /// The person's settings.
    Settings,
    /// Containers, images, volumes: the data disk.
    Data,
    /// Both, and the logs.
    All,
}

/// What a reset takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResetRequest {
    /// What to forget.
    pub what: Reset,
}

/// A guest image to use from the next start on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRequest {
    /// Folder that the image builder wrote.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Accept, from now on, the key that it is signed with.
    #[serde(default)]
    pub trust_key: bool,
}

/// The guest images that a profile has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestImages {
    /// The one that boots.
    pub current: Option<GuestImage>,
    /// The one before it, to go back to.
    pub previous: Option<GuestImage>,
}

/// A guest image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestImage {
    /// Its version.
    pub version: String,
    /// Its folder.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// What is on the disk now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holdings {
    /// The data disk.
    #[schema(value_type = String)]
    pub data_disk: PathBuf,
    /// Bytes that it takes on the host; none when there is no data disk.
    pub data_bytes: Option<u64>,
    /// Settings that the person has set.
    pub settings: Vec<String>,
}

/// A folder or file of the host that the machine is to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// Absolute.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The machine may not change it.
    #[serde(default)]
    pub read_only: bool,
}

/// Why something is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MountOrigin {
    /// It is the home folder.
    Home,
    /// The person said so.
    Added,
    /// A container mounted it, and the settings allow that.
    OnDemand,
}

/// A folder or file of the host that the machine sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    /// Where it is on the host, without links.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Where it is in the machine: the same, unless the machine's own system is there.
    #[schema(value_type = String)]
    pub guest_path: PathBuf,
    /// The machine may not change it.
    pub read_only: bool,
    /// Why it is shared.
    pub origin: MountOrigin,
    /// Why the machine does not see it just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Folders in it that running containers mount: changes there become events.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub watched: Vec<PathBuf>,
}

/// Everything that is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mounts {
    /// In the order of their paths.
    pub mounts: Vec<Mount>,
    /// Why changes on the host are not, or not all, events in containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}
