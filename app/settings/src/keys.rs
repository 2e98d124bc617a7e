//! Every setting there is: its name, what it takes, its default and what it is for.
//!
//! The commented defaults file, `slipway config list` and the check of a person's file are all made from this table.

use std::net::{IpAddr, SocketAddr};

use crate::size::Size;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number from the first to the last.
    Count {
        /// The smallest that is taken.
        from: u64,
        /// The largest that is taken.
        to: u64,
    },
    /// An amount of bytes with its unit, at least this much.
    Size {
        /// The smallest that is taken.
        at_least: Size,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Names or relative paths, with commas between them.
    Names,
    /// Absolute paths, with commas between them.
    Paths,
    /// `auto`, or addresses of name servers with commas between them.
    NameServers,
    /// `auto`, `none`, or the URL of a proxy.
    Proxy,
    /// A JSON object of dockerd's configuration file, without what Slipway has to decide itself.
    Engine,
}

impl Kind {
    /// What a value has to look like, for a person.
    pub fn expected(self) -> String {
        match self {
            Self::Count { from, to } => format!("a whole number from {from} to {to}"),
            Self::Size { at_least } => format!("a size of at least {at_least}, such as `4GiB`"),
            Self::Names => "names with commas between them".into(),
            Self::NameServers => {
                "`auto` or addresses such as `10.0.0.53` or `[fd00::1]:5353`, with commas between them".into()
            }
            Self::Paths => "absolute paths with commas between them".into(),
            Self::Proxy => "`auto`, `none` or an URL such as `http://proxy.example:3128`".into(),
            Self::Engine => {
                format!("a JSON object as in dockerd's daemon.json, without {}", ENGINE_OWN.join(", "))
            }
            Self::Switch => "`true` or `false`".into(),
            Self::OneOf(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" or "),
        }
    }
}

/// What of dockerd's configuration is Slipway's: its folders, who speaks to it, and the published ports.
pub const ENGINE_OWN: &[&str] = &[
    "containerd",
    "data-root",
    "exec-root",
    "group",
    "hosts",
    "pidfile",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
    "userland-proxy",
    "userland-proxy-path",
];

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `table.name`, as a person writes it.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The default as it is written in the file; empty: decided from the host.
    pub default: &'static str,
    /// What it is for, one line or more.
    pub doc: &'static str,
    /// A change takes effect with the machine's next start only.
    pub needs_restart: bool,
}

/// The table, in the order of the file.
pub const KEYS: &[Key] = &[
    Key {
        name: "machine.cpus",
        kind: Kind::Count { from: 1, to: 256 },
        default: "",
        doc: "Virtual CPUs. Default: as many as the host has.",
        needs_restart: true,
    },
    Key {
        name: "machine.memory",
        kind: Kind::Size { at_least: Size::mib(512) },
        default: "",
        doc: "Memory of the machine. Default: a quarter of the host's, 2GiB at least, 8GiB at most.",
        needs_restart: true,
    },
    Key {
        name: "machine.disk",
        kind: Kind::Size { at_least: Size::mib(1024) },
        default: "100GiB",
        doc: "Size that the data disk can grow to. It takes the space that its contents need, and is never shrunk.",
        needs_restart: true,
    },
    Key {
        name: "machine.accel",
        kind: Kind::OneOf(&["auto", "kvm", "tcg"]),
        default: "auto",
        doc: "auto: hardware where it really runs a guest. kvm: hardware or fail. tcg: software emulation.",
        needs_restart: true,
    },
    Key {
        name: "docker.activate-context",
        kind: Kind::Switch,
        default: "true",
        doc: "Make the docker context `slipway` the current one at start.",
        needs_restart: false,
    },
    Key {
        name: "docker.install-cli",
        kind: Kind::Switch,
        default: "true",
        doc: "Bring docker, buildx and compose where the host has none.",
        needs_restart: false,
    },
    Key {
        name: "shares.home",
        kind: Kind::Switch,
        default: "true",
        doc: "Share the home folder with the machine, at the same path.",
        needs_restart: true,
    },
    Key {
        name: "shares.on-demand",
        kind: Kind::OneOf(&["refuse", "share"]),
        default: "refuse",
        doc: "A container mounts a folder that is not shared. refuse: say so. share: share it, and remember.",
        needs_restart: false,
    },
    Key {
        name: "shares.exclude",
        kind: Kind::Names,
        default: ".git/objects",
        doc: "Folders in which changes on the host are no events in containers: names or ends of paths.",
        needs_restart: false,
    },
    Key {
        name: "network.reach-host",
        kind: Kind::Switch,
        default: "true",
        doc: "Containers reach what listens on this computer's 127.0.0.1, as `host.docker.internal`.",
        needs_restart: false,
    },
    Key {
        name: "network.nameservers",
        kind: Kind::NameServers,
        default: "auto",
        doc: "Name servers that answer containers. auto: those of this computer, as they are at the moment.",
        needs_restart: false,
    },
    Key {
        name: "network.http-proxy",
        kind: Kind::Proxy,
        default: "auto",
        doc: "Proxy by which the engine fetches from `http:` addresses. auto: HTTP_PROXY of the daemon's environment, else \
              macOS's or Windows' own.",
        needs_restart: true,
    },
    Key {
        name: "network.https-proxy",
        kind: Kind::Proxy,
        default: "auto",
        doc: "Proxy by which the engine fetches from `https:` addresses. auto: HTTPS_PROXY of the daemon's environment, else \
              macOS's or Windows' own.",
        needs_restart: true,
    },
    Key {
        name: "network.no-proxy",
        kind: Kind::Names,
        default: "auto",
        doc: "Hosts, domains and networks that the engine reaches without a proxy. auto: NO_PROXY of the daemon's \
              environment, else macOS's or Windows' own.",
        needs_restart: true,
    },
    Key {
        name: "network.authorities",
        kind: Kind::Paths,
        default: "",
        doc: "PEM files of authorities that the engine trusts besides those that this computer trusts.",
        needs_restart: true,
    },
    Key {
        name: "engine.config",
        kind: Kind::Engine,
        default: "{}",
        doc: "What to add to dockerd's configuration, as in daemon.json. Registries hold at once, the rest from the next start.",
        needs_restart: false,
    },
    Key {
        name: "start.timeout",
        kind: Kind::Count { from: 10, to: 3600 },
        default: "300",
        doc: "Seconds that a start may take until the engine answers.",
        needs_restart: false,
    },
    Key {
        name: "stop.timeout",
        kind: Kind::Count { from: 1, to: 3600 },
        default: "60",
        doc: "Seconds that containers get to stop before the machine is ended.",
        needs_restart: false,
    },
];

/// What [`Kind::NameServers`] says: `Some(None)` is `auto`; `None` is nothing that the setting takes.
pub(crate) fn name_servers(text: &str) -> Option<Option<Vec<SocketAddr>>> {
    /// DNS's own port.
    const PORT: u16 = 53;
    if text == "auto" {
        return Some(None);
    }
    let server = |word: &str| {
        let address = word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
        address.or_else(|_| word.parse()).ok().filter(|server| server.port() != 0)
    };
    text.split(',').map(|word| server(word.trim())).collect::<Option<Vec<_>>>().map(Some)
}

/// The setting of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// The name that was probably meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let last = |n: &'static str| n.rsplit('.').next().unwrap_or(n);
    KEYS.iter()
        .map(|k| {
            // `cpus` means `machine.cpus`, and `machine.cpu` does too.
            let similar = strsim::jaro_winkler(name, k.name).max(strsim::jaro_winkler(name, last(k.name)));
            (similar, k.name)
        })
        .filter(|(similar, _)| *similar > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The settings file of a newcomer: every setting with its explanation, none of them set.
pub fn commented_defaults() -> String {
    let mut text =
        String::from("# Slipway's settings. Everything here is optional; remove a `#` to set a value.\n");
    let mut table = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != table {
            text.push_str(&format!("\n[{of}]\n"));
            table = of;
        }
        for line in key.doc.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        let example = match (key.default, key.kind) {
            ("", Kind::Size { .. }) => "4GiB",
            ("", Kind::Paths) => crate::paths::EXAMPLE_FILE,
            ("", _) => "2",
            (default, _) => default,
        };
        let quoted = !matches!(key.kind, Kind::Count { .. } | Kind::Switch);
        let value = if quoted { format!("\"{example}\"") } else { example.to_owned() };
        text.push_str(&format!("# {name} = {value}\n"));
    }
    text
}
