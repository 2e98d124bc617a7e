//! Published ports, as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A port of the host that leads into the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address on the host: `0.0.0.0`, `::`, `127.0.0.1`.
    pub host_ip: String,
    /// Port on the host.
    pub host_port: u16,
    /// Where it leads, inside the machine: `172.17.0.2:80`.
    pub target: String,
    /// Port in the container.
    pub container_port: u16,
    /// Whose it is; none while the engine has not said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<PortContainer>,
    /// Who asked for it.
    pub origin: PortOrigin,
    /// Whether it is listened on.
    pub state: PortState,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Since when it is listened on, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// A container, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortContainer {
    /// Its whole id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
}

/// Who asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortOrigin {
    /// The engine: `docker run -p`.
    Published,
    /// A program of a container with `--network host`, or a port of a swarm, listens.
    Listening,
}

/// Whether a port is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// It is.
    Listening,
    /// There is nothing to listen on: `::` on a host without IPv6.
    Absent,
    /// It should be and is not, for the reason in [`Port::problem`]; it is tried again.
    Failed,
}
