//! Another guest image than the one in use, and the way to it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{GuestImage, State, Status};

/// Which image is to take the place of the one in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// Folder that the image builder wrote; none: the one beside the program.
    #[schema(value_type = Option<String>)]
    pub dir: Option<PathBuf>,
    /// The folder of the caller's docker configuration; none: leave `docker` alone.
    #[schema(value_type = Option<String>)]
    pub docker_config: Option<PathBuf>,
}

/// A guest image that can take the place of the one in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Update {
    /// Version of the one in use; none where there is none.
    pub from: Option<String>,
    /// The other one.
    pub to: GuestImage,
    /// No start takes it by itself: the person went back from it, or it did not boot.
    #[serde(default)]
    pub declined: bool,
}

/// An image that was put in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Updated {
    /// Version of the one that was in use.
    pub from: Option<String>,
    /// Version of the one that is now.
    pub to: String,
    /// How the machine is: stopped, if it was so before.
    pub state: State,
}

impl Status {
    /// The update that a person should hear of: a start takes one by itself, and what they went back from is no news to them.
    #[must_use]
    pub fn news(&self) -> Option<&Update> {
        self.update.as_ref().filter(|update| !update.declined && self.machine.is_some())
    }
}
