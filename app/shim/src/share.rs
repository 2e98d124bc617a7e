//! Host folders for the machine: on Linux a share server of our own (`confined`), elsewhere the hypervisor's
//! (`hypervisor`). Either is asked in the share server's words.

#[cfg(any(test, not(target_os = "linux")))]
mod outbox;
#[cfg(target_os = "linux")]
#[path = "share/confined.rs"]
mod server;
#[cfg(not(target_os = "linux"))]
#[path = "share/hypervisor.rs"]
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use slipway_share::wire::{Answer, Export};

pub(crate) use server::Share;

/// What is shared from the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// The vhost-user socket, in the run folder.
    pub socket: PathBuf,
    /// What is shared.
    pub exports: Vec<Export>,
    /// What no export shows: Slipway's own folder lies in the person's home.
    #[serde(default)]
    pub hidden: Vec<PathBuf>,
}

fn failed(code: &str, message: impl Into<String>) -> Answer {
    Answer::Failed { code: code.into(), message: message.into() }
}
