//! What `slipway doctor` finds and `slipway diagnose` leaves, as they travel.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Mounts, Problem, Status, Version};

/// The check whose state the daemon's status tells, too.
pub const DOCKER_CONTEXT: &str = "docker-context";

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// It works, and not as well as it could.
    Warning,
    /// Something cannot work like this.
    Failed,
    /// It cannot be looked at here, or not now.
    NotApplicable,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Stable, for machines: `docker-context`.
    pub id: String,
    /// How it went.
    pub state: CheckState,
    /// What was found, in a line.
    pub message: String,
    /// Why, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// A fix can be asked for: `slipway doctor --fix`.
    #[serde(default)]
    pub fixable: bool,
    /// It was not as it should be, and has just been mended.
    #[serde(default)]
    pub fixed: bool,
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// Version of whoever looked.
    pub slipway: String,
    /// The profile.
    pub profile: String,
    /// Always the same checks, in the same order.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// How many checks went so.
    pub fn count(&self, state: CheckState) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }
}

/// What to look at and to mend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DoctorRequest {
    /// Checks, by their ids, that are to be mended if they can be.
    #[serde(default)]
    pub fix: Vec<String>,
    /// The folder of the caller's docker configuration; none: it is not looked at.
    #[schema(value_type = Option<String>)]
    pub docker_config: Option<PathBuf>,
}

/// Where to put a diagnostics bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiagnoseRequest {
    /// The file that is made: an absolute path, at which nothing is yet.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The folder of the caller's docker configuration; its secrets are known then, and taken out.
    #[schema(value_type = Option<String>)]
    pub docker_config: Option<PathBuf>,
}

/// A diagnostics bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    /// The file.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub files: Vec<String>,
}

/// What a client saw of the daemon, for a look that must also work without one.
#[derive(Debug, Clone)]
pub enum DaemonSeen {
    /// Nobody listens.
    Nobody,
    /// Somebody is there and cannot be spoken to.
    Silent(Problem),
    /// It answers.
    Answers {
        /// Who it is.
        version: Version,
        /// How things stand.
        status: Box<Status>,
        /// What is shared, when it said so.
        mounts: Option<Mounts>,
    },
}
