//! Settings as they hold on this host: every value there, every default decided.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{file::Raw, keys, size::Size};

/// What of the host decides defaults and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Processors that this process may use.
    pub cpus: u32,
    /// Physical memory.
    pub memory: Size,
}

impl Host {
    /// Of this host. What cannot be read counts as one processor and 4 GiB.
    pub fn here() -> Self {
        let cpus =
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let memory = memory_bytes();
        Self { cpus, memory: if memory == 0 { Size::mib(4096) } else { Size::bytes(memory) } }
    }
}

/// Physical memory in bytes; 0 when it cannot be read.
#[cfg(target_os = "linux")]
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

#[cfg(not(target_os = "linux"))]
fn memory_bytes() -> u64 {
    let memory = sysinfo::MemoryRefreshKind::nothing().with_ram();
    sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(memory)).total_memory()
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory of the machine.
    pub memory: Size,
    /// Size that the data disk can grow to.
    pub disk: Size,
    /// `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// Make the docker context the current one at start.
    pub activate_context: bool,
    /// Bring the docker programs where there are none.
    pub install_cli: bool,
    /// Share the home folder.
    pub share_home: bool,
    /// What to do when a container mounts what is not shared: `refuse` or `share`.
    pub share_on_demand: String,
    /// Folders in which changes are no events.
    pub share_exclude: Vec<String>,
    /// Containers reach the host's loopback.
    pub reach_host: bool,
    /// Name servers that answer containers; `None`: those of the host.
    pub name_servers: Option<Vec<SocketAddr>>,
    /// Proxies of the engine, as set: `auto`, `none` or an URL.
    pub http_proxy: String,
    /// The same for `https:`.
    pub https_proxy: String,
    /// Who is reached without them, or `auto`.
    pub no_proxy: String,
    /// Files of authorities that the engine trusts, too.
    pub authorities: Vec<PathBuf>,
    /// What is added to dockerd's configuration: a JSON object.
    pub engine_config: String,
    /// How long a start may take.
    pub start_timeout: Duration,
    /// How long containers get to stop.
    pub stop_timeout: Duration,
}

/// The settings ask for what this host has not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// More memory than there is.
    #[error("the machine is to have {asked} of memory, and this host has {there}")]
    Memory {
        /// What is set.
        asked: Size,
        /// What the host has.
        there: Size,
    },
    /// More processors than there are.
    #[error("the machine is to have {asked} CPUs, and this host has {there}")]
    Cpus {
        /// What is set.
        asked: u32,
        /// What the host has.
        there: u32,
    },
}

impl Settings {
    /// What holds on `host`, given what the file says.
    ///
    /// # Errors
    /// Every limit of the host that is crossed.
    pub fn resolve(raw: &Raw, host: Host) -> Result<Self, Vec<LimitError>> {
        let text = |name: &str| {
            let default = keys::find(name).map_or("", |k| k.default);
            raw.get(name).map_or(default, String::as_str)
        };
        let list = |name: &str| text(name).split(',').map(str::trim).filter(|word| !word.is_empty());
        // The form was checked when the file was read; a default that does not parse is decided from the host.
        let number = |name: &str, decided: u64| text(name).parse().unwrap_or(decided);
        let size = |name: &str, decided: Size| text(name).parse().unwrap_or(decided);
        let quarter = Size::bytes(host.memory.as_bytes() / 4);
        let memory = quarter.clamp(Size::mib(2048), Size::mib(8192)).min(host.memory);
        let settings = Self {
            cpus: u32::try_from(number("machine.cpus", host.cpus.into())).unwrap_or(u32::MAX),
            memory: Size::mib(size("machine.memory", memory).as_mib()),
            disk: size("machine.disk", Size::mib(100 << 10)),
            accel: text("machine.accel").to_owned(),
            activate_context: text("docker.activate-context") == "true",
            install_cli: text("docker.install-cli") == "true",
            share_home: text("shares.home") == "true",
            share_on_demand: text("shares.on-demand").to_owned(),
            share_exclude: list("shares.exclude").map(|name| name.trim_matches('/').to_owned()).collect(),
            reach_host: text("network.reach-host") == "true",
            name_servers: keys::name_servers(text("network.nameservers")).unwrap_or_default(),
            http_proxy: text("network.http-proxy").to_owned(),
            https_proxy: text("network.https-proxy").to_owned(),
            no_proxy: text("network.no-proxy").to_owned(),
            authorities: list("network.authorities").map(PathBuf::from).collect(),
            engine_config: text("engine.config").to_owned(),
            start_timeout: Duration::from_secs(number("start.timeout", 300)),
            stop_timeout: Duration::from_secs(number("stop.timeout", 60)),
        };
        let mut crossed = Vec::new();
        if settings.memory > host.memory {
            crossed.push(LimitError::Memory { asked: settings.memory, there: host.memory });
        }
        if settings.cpus > host.cpus {
            crossed.push(LimitError::Cpus { asked: settings.cpus, there: host.cpus });
        }
        if crossed.is_empty() { Ok(settings) } else { Err(crossed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { cpus: 4, memory: Size::mib(16 << 10) };

    #[test]
    fn a_newcomer_gets_a_quarter_of_the_memory_within_bounds() {
        let memory = |mib| {
            let host = Host { cpus: 4, memory: Size::mib(mib) };
            Settings::resolve(&Raw::new(), host).expect("defaults always fit").memory.as_mib()
        };
        assert_eq!([1024, 4096, 16 << 10, 256 << 10].map(memory), [1024, 2048, 4096, 8192]);
        assert_eq!(Settings::resolve(&Raw::new(), HOST).expect("fits").cpus, 4);
    }

    #[test]
    fn what_the_host_has_not_is_refused_all_at_once() {
        let raw = Raw::from([("machine.cpus", "64".into()), ("machine.memory", "1TiB".into())]);
        let crossed = Settings::resolve(&raw, HOST).expect_err("too much");
        let told: Vec<String> = crossed.iter().map(LimitError::to_string).collect();
        assert_eq!(
            told,
            [
                "the machine is to have 1TiB of memory, and this host has 16GiB",
                "the machine is to have 64 CPUs, and this host has 4"
            ]
        );
    }

    #[test]
    fn this_host_has_processors_and_memory() {
        let host = Host::here();
        assert!(host.cpus >= 1 && host.memory > Size::mib(64), "{host:?}");
    }
}
