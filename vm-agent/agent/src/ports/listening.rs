//! Which sockets of containers listen in the guest's own network: those of `--network host`.
//!
//! The kernel lists what listens, but not for whom; so the sockets are looked up among the open files of the processes in the
//! containers' cgroups, once for each socket. dockerd's stand-ins are in no container's cgroup, so what is published is
//! not claimed a second time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use slipway_protocol::v1;

use super::sockets::{self, Socket};

/// Folders between the root of the cgroups and a container's own: `--cgroup-parent` can be several deep.
const DEPTH: usize = 4;
/// Ports that are claimed at most: each is a socket on the host, and a container must not use up those.
const MOST: usize = 1000;
/// How often a socket is looked for before it is nobody's: its process may have been starting another one.
const TRIES: u8 = 3;
/// A port of a container in the guest's own network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listening {
    protocol: v1::PortProtocol,
    host: SocketAddr,
    target: SocketAddr,
    container: String,
}

impl Listening {
    pub(crate) fn bind(&self) -> v1::PortBind {
        v1::PortBind {
            id: 0,
            protocol: self.protocol.into(),
            host_ip: self.host.ip().to_string(),
            host_port: self.host.port().into(),
            target: self.target.to_string(),
            origin: v1::PortOrigin::Listening.into(),
            container: self.container.clone(),
        }
    }
}

/// What one look found.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whether any container is in the guest's own network, listening or not.
    pub(crate) containers: bool,
    pub(crate) ports: BTreeSet<Listening>,
}

/// Whose a socket is.
#[derive(Debug, Default)]
struct Owner {
    container: Option<String>,
    tries: u8,
}

/// Looks at the guest's sockets, and remembers whose they are.
#[derive(Debug)]
pub(crate) struct Looker {
    cgroups: PathBuf,
    owners: HashMap<u64, Owner>,
    /// UDP clients have ports in this range, and look like servers.
    ephemeral: (u16, u16),
}

impl Looker {
    /// `cgroups` is where the cgroup file system is.
    pub(crate) fn new(cgroups: PathBuf) -> Self {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ends = range.split_whitespace().map(|end| end.parse().ok());
        let range = ends.next().flatten().zip(ends.next().flatten());
        // Linux's own default.
        Self { cgroups, owners: HashMap::new(), ephemeral: range.unwrap_or((32_768, 60_999)) }
    }

    /// Looks once. `visited` is called with every folder in which a container's may appear, before that is read.
    ///
    /// # Errors
    /// The kernel does not list its sockets.
    pub(crate) fn look(&mut self, mut visited: impl FnMut(&Path)) -> io::Result<Seen> {
        let mut processes = Vec::new();
        let own = fs::read_link("/proc/self/ns/net")?;
        containers(&self.cgroups, DEPTH, &mut visited, &mut |id, folder| {
            for pid in pids(folder) {
                // One that ended meanwhile has none.
                if fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its == own) {
                    processes.push((id.to_owned(), pid));
                }
            }
        });
        if processes.is_empty() {
            self.owners.clear();
            return Ok(Seen::default());
        }
        let sockets = sockets::waiting()?;
        self.learn(&sockets, &processes);
        let owned = sockets.into_iter().filter_map(|socket| {
            let container = self.owners.get(&socket.inode)?.container.clone()?;
            Some((socket, container))
        });
        Ok(Seen { containers: true, ports: wanted(owned.collect(), self.ephemeral) })
    }

    /// Finds out whose the sockets are that were not there before.
    fn learn(&mut self, sockets: &[Socket], processes: &[(String, u32)]) {
        let there: BTreeSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        self.owners.retain(|inode, _| there.contains(inode));
        let mut unknown: BTreeSet<u64> = BTreeSet::new();
        for inode in there {
            let owner = self.owners.entry(inode).or_default();
            if owner.container.is_none() && owner.tries < TRIES {
                owner.tries += 1;
                unknown.insert(inode);
            }
        }
        for (container, pid) in processes {
            if unknown.is_empty() {
                return;
            }
            // One that ended meanwhile has none.
            let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for file in files.flatten() {
                let Ok(link) = fs::read_link(file.path()) else { continue };
                let Some(inode) = sockets::inode(&link) else { continue };
                if unknown.remove(&inode) {
                    self.owners.entry(inode).or_default().container = Some(container.clone());
                }
            }
        }
    }
}

/// Calls `found` with the id and the folder of each container below `folder`.
fn containers(
    folder: &Path,
    depth: usize,
    visited: &mut impl FnMut(&Path),
    found: &mut impl FnMut(&str, &Path),
) {
    visited(folder);
    for child in children(folder) {
        match child.file_name().and_then(|name| name.to_str()) {
            // What is in a container's folder is the container's own matter: an engine inside has its own.
            Some(name) if is_id(name) => found(name, &child),
            Some(_) if depth > 0 => containers(&child, depth - 1, visited, found),
            _ => {}
        }
    }
}

fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The folders in a folder; none when that is gone.
fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// The processes in a cgroup and below it: a container may have made cgroups of its own.
fn pids(cgroup: &Path) -> Vec<u32> {
    let (mut pids, mut todo) = (Vec::new(), vec![cgroup.to_owned()]);
    while let Some(folder) = todo.pop() {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        todo.extend(children(&folder));
    }
    pids
}

/// What the host is to listen on for these sockets. Addresses that only the guest has mean nothing there. A socket on `::`
/// serves IPv4 too, unless it was told not to or somebody else does.
fn wanted(sockets: Vec<(Socket, String)>, ephemeral: (u16, u16)) -> BTreeSet<Listening> {
    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const LOOP4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LOOP6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut ports = BTreeMap::new();
    let mut dual = Vec::new();
    for (Socket { protocol, address, only_v6, .. }, container) in sockets {
        let (ip, port) = (address.ip(), address.port());
        let client = protocol == v1::PortProtocol::Udp && (ephemeral.0..=ephemeral.1).contains(&port);
        let target = match ip {
            ANY4 => LOOP4,
            ANY6 => LOOP6,
            ip => ip,
        };
        if client || !target.is_loopback() {
            continue;
        }
        if ip == ANY6 && !only_v6 {
            dual.push((protocol, port, container.clone()));
        }
        ports.entry((protocol, port, ip)).or_insert((target, container));
    }
    for (protocol, port, container) in dual {
        ports.entry((protocol, port, ANY4)).or_insert((LOOP4, container));
    }
    // All addresses are all: the host would find a single one taken by ourselves.
    let covered = |(protocol, port, ip): &(v1::PortProtocol, u16, IpAddr)| {
        let all = if ip.is_ipv4() { ANY4 } else { ANY6 };
        *ip != all && ports.contains_key(&(*protocol, *port, all))
    };
    let listening = ports.iter().filter(|(key, _)| !covered(key)).map(|(key, (target, container))| {
        let (protocol, port, ip) = *key;
        Listening {
            protocol,
            host: (ip, port).into(),
            target: (*target, port).into(),
            container: container.clone(),
        }
    });
    listening.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: v1::PortProtocol = v1::PortProtocol::Tcp;
    const UDP: v1::PortProtocol = v1::PortProtocol::Udp;

    fn asked(protocol: v1::PortProtocol, addresses: &[&str]) -> Vec<(String, String)> {
        let socket = |text: &&str| {
            let only_v6 = text.ends_with('!');
            let address = text.trim_end_matches('!').parse().expect("address");
            (Socket { protocol, address, only_v6, inode: 1 }, "c".to_owned())
        };
        let sockets = addresses.iter().map(socket).collect();
        wanted(sockets, (32_768, 60_999)).iter().map(|p| (p.host.to_string(), p.target.to_string())).collect()
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(host, target)| ((*host).into(), (*target).into())).collect()
    }

    #[test]
    fn the_host_listens_where_the_guest_does_and_the_guests_own_addresses_stay_there() {
        assert_eq!(
            asked(TCP, &["0.0.0.0:80", "127.0.0.1:80", "127.0.0.1:90", "172.17.0.1:80", "10.0.2.15:80"]),
            pairs(&[("0.0.0.0:80", "127.0.0.1:80"), ("127.0.0.1:90", "127.0.0.1:90")])
        );
        assert_eq!(
            asked(TCP, &["[::]:80", "[::1]:90", "[fe80::1]:80"]),
            pairs(&[("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("[::1]:90", "[::1]:90")])
        );
        assert_eq!(
            asked(TCP, &["[::]:80!"]),
            pairs(&[("[::]:80", "[::1]:80")]),
            "it was told not to serve IPv4"
        );
    }

    #[test]
    fn a_udp_client_is_no_server() {
        assert_eq!(asked(UDP, &["0.0.0.0:40000", "0.0.0.0:53"]), pairs(&[("0.0.0.0:53", "127.0.0.1:53")]));
        assert_eq!(asked(TCP, &["0.0.0.0:40000"]).len(), 1, "TCP clients do not listen");
    }

    #[test]
    fn more_than_the_host_can_bear_is_not_asked_for() {
        let all: Vec<String> = (1..5000).map(|port| format!("0.0.0.0:{port}")).collect();
        assert_eq!(asked(TCP, &all.iter().map(String::as_str).collect::<Vec<_>>()).len(), MOST);
    }

    #[test]
    fn sockets_belong_to_the_container_in_whose_cgroup_their_process_is() {
        if !sockets::is_answered() {
            return;
        }
        let root = tempfile::tempdir().expect("folder");
        let (ours, other) = ("a".repeat(64), "b".repeat(64));
        let deep = root.path().join("docker/deeper").join(&ours).join("made/inside");
        fs::create_dir_all(&deep).expect("folders");
        fs::write(deep.join("cgroup.procs"), format!("{}\n", std::process::id())).expect("written");
        let ended = root.path().join("docker").join(other);
        fs::create_dir_all(&ended).expect("folders");
        fs::write(ended.join("cgroup.procs"), format!("{}\n", u32::MAX)).expect("written");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let host = listener.local_addr().expect("address");
        let mut looker = Looker::new(root.path().to_owned());
        let mut folders = Vec::new();
        let mut look = || looker.look(|folder| folders.push(folder.to_owned())).expect("looks");
        let seen = look();
        let port = Listening { protocol: TCP, host, target: host, container: ours };
        assert!(seen.containers && seen.ports.contains(&port), "{seen:?}");
        drop(listener);
        assert!(!look().ports.contains(&port));
        fs::remove_file(deep.join("cgroup.procs")).expect("removed");
        let seen = look();
        assert!(!seen.containers && seen.ports.is_empty(), "nobody is left: {seen:?}");
        assert_eq!(folders[..3], ["", "docker", "docker/deeper"].map(|f| root.path().join(f)));
    }
}
