//! What travels between the shim and the share server: one JSON message per packet, a descriptor beside it where said.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The device's tag: what the guest mounts.
pub const TAG: &str = "slipway";

/// One folder, or one file, that the guest may see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Export {
    /// Name below the device's root: the same for the same path, always.
    pub id: String,
    /// Where it is on the host: absolute, without links.
    pub path: PathBuf,
    /// The guest may not change it. Enforced by the host's kernel.
    pub read_only: bool,
}

impl Export {
    /// The export of `path`.
    pub fn new(path: PathBuf, read_only: bool) -> Self {
        Self { id: id(&path), path, read_only }
    }
}

/// The name of a path's export: FNV-1a, which no build changes.
pub fn id(path: &std::path::Path) -> String {
    let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// What the share server may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Call {
    /// The first packet: enter the sandbox, listen for the VM at `socket`, offer these.
    Start {
        /// The vhost-user socket.
        socket: PathBuf,
        /// What is shared from the beginning. One that cannot be opened is left out and told in the answer.
        exports: Vec<Export>,
        /// Folders that no export shows, wherever they lie: the guest finds them empty.
        hidden: Vec<PathBuf>,
    },
    /// Share one more. Sharing what is shared is fine.
    Add(Export),
    /// Stop sharing one, by its id; what the guest has open of it fails from now on.
    Remove {
        /// See [`Export::id`].
        id: String,
    },
    /// What is shared, and how things stand.
    Status,
    /// Watch exactly these folders and files, instead of those before.
    Watch {
        /// Absolute, without links, each below an export. Nested ones are watched once.
        paths: Vec<PathBuf>,
        /// Folders that are not entered: a path below a watched one, or a name (`node_modules`), or an ending of path
        /// (`.git/objects`).
        exclude: Vec<String>,
        /// The guest applies events to its caches at once, so that it may keep what is watched for long.
        vouch: bool,
    },
    /// Send events to the stream that comes with this packet, instead of the one before.
    Events,
}

/// What the share server may answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done.
    Done,
    /// Done, and this is how things stand.
    Status(Status),
    /// Not done.
    Failed {
        /// Stable: `sandbox`, `export`, `watch`, `invalid`.
        code: String,
        /// For a person.
        message: String,
    },
}

/// How the share server stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What is shared.
    pub exports: Vec<Export>,
    /// What was to be shared and could not be: the export's id, and why.
    pub failed: Vec<(String, String)>,
    /// How the worker is confined, as it found out itself.
    pub sandbox: Sandbox,
    /// Folders with a watch of their own.
    pub watches: usize,
    /// Why not everything that is to be watched is; for a person, with what to do.
    pub unwatched: Option<String>,
    /// Why the guest gets no events, although it is to.
    pub undelivered: Option<String>,
    /// Events that were sent to the guest.
    pub events: u64,
    /// Times that events had to be dropped; each was told to the guest.
    pub overflows: u64,
    /// Events that were the guest's own doing, and were kept from it.
    pub echoes: u64,
}

/// How a process is confined, as it finds out about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// Its process id, on the host.
    pub pid: u32,
    /// It has namespaces of its own: user, mount, pid, network, ipc.
    pub namespaces: bool,
    /// Its root is an empty folder that cannot be written to.
    pub empty_root: bool,
    /// It has no capability and cannot get one.
    pub no_capabilities: bool,
    /// Its system calls are filtered.
    pub seccomp: bool,
}

impl Sandbox {
    /// Everything that is asked of it.
    pub fn complete(&self) -> bool {
        self.namespaces && self.empty_root && self.no_capabilities && self.seccomp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_changes_because_containers_keep_it() {
        assert_eq!(id(std::path::Path::new("/etc")), "1328959c9f9075a4".to_owned());
    }
}
