//! The host as containers see it: its loopback by name, where that is allowed, and never what Slipway itself listens on.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use slipway_test_harness::{Greeter, Home, Ran};

use crate::{Shared, ours};

pub(crate) const TESTS: &[Shared] = &[
    ("network_every_container_reaches_the_hosts_loopback_by_name", by_name),
    ("network_other_names_are_answered_as_on_the_host", other_names),
    ("network_name_servers_are_those_of_the_setting_at_once", name_servers),
    ("network_a_setting_takes_the_host_away_at_once_and_gives_it_back", turned_off),
    ("network_a_container_may_have_a_name_server_on_its_port", name_server),
    ("network_nothing_of_slipways_is_reachable_from_containers", unreachable),
];

const PATIENCE: Duration = Duration::from_secs(30);
/// Where the guest answers questions about names.
const NAMES: &str = "10.0.2.15:65353";

/// A container that asks for a page of the host.
fn get(home: &Home, options: &[&str], url: &str) -> Ran {
    home.docker(["run", "--rm"]).args(options).args(["box", "wget", "-qO-", url]).run()
}

fn by_name(home: &Home) {
    let greeter = Greeter::new("hello from the host");
    let url = |name: &str| format!("http://{name}:{}/", greeter.port());
    let (host, gateway) = (url("host.docker.internal"), url("gateway.docker.internal"));
    let greeted = |ran: Ran| assert_eq!(ran.ok().text(), "hello from the host");
    greeted(get(home, &[], &host));
    greeted(get(home, &[], &gateway));
    greeted(get(home, &["--network", "host"], &host));
    home.docker(["network", "create", "named"]).run().ok();
    greeted(get(home, &["--network", "named"], &host));
    home.docker(["network", "rm", "named"]).run().ok();
    // As compose files for plain Docker on Linux say it.
    greeted(get(home, &["--add-host", "my-host:host-gateway"], &url("my-host")));

    let dir = home.path().join("asks-the-host");
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join("Dockerfile"), format!("FROM box\nRUN wget -qO /greeting {host}\n")).expect("written");
    home.docker(["build", "-q", "-t", "greeted", "."]).in_dir(&dir).run().ok();
    greeted(home.docker(["run", "--rm", "greeted", "cat", "/greeting"]).run());
    home.docker(["rmi", "greeted"]).run().ok();
    let yaml = format!("services:\n  asks:\n    image: box\n    command: wget -qO- {gateway}\n");
    fs::write(dir.join("compose.yaml"), yaml).expect("written");
    let compose = |args: &[&str]| home.docker(["compose"]).args(args).in_dir(&dir).run();
    greeted(compose(&["run", "--rm", "-T", "asks"]));
    compose(&["down"]).ok();

    let ask = ["/bin/echoes", "host.docker.internal", &greeter.port().to_string()];
    home.docker(["create", "--name", "asks", "box"]).args(ask).run().ok();
    crate::ports::put_echoes(home, "asks");
    greeted(home.docker(["start", "-a", "asks"]).run());
    home.docker(["rm", "asks"]).run().ok();
}

/// A question for the address of a name that there is not, as it is sent.
const QUESTION: &[u8] = b"\x51\x1b\x01\0\0\x01\0\0\0\0\0\0\x07slipway\x07invalid\0\0\x01\0\x01";

fn other_names(home: &Home) {
    let configured = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = configured.lines().find_map(|line| line.strip_prefix("nameserver ")).map(str::trim);
    let Some(server) = server.and_then(|server| server.parse::<Ipv4Addr>().ok()) else {
        println!("skipped: this host has no name server with an IPv4 address");
        return;
    };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
    let mut answer = [0; 512];
    let asked = socket.send_to(QUESTION, (server, 53)).and_then(|_| socket.recv(&mut answer));
    if asked.is_err() {
        println!("skipped: this host's name server does not answer");
        return;
    }
    let code = match answer[3] & 0xf {
        2 => "SERVFAIL",
        5 => "REFUSED",
        _ => "NXDOMAIN",
    };
    let ran = home.docker(["run", "--rm", "box", "nslookup", "-type=a", "slipway.invalid"]).run();
    let told = format!("{}{}", ran.text(), ran.err).to_uppercase();
    assert!(told.contains(code), "the host is told {code}: {ran}");
}

/// A name server on the host that gives every name this address, until it is dropped.
struct NameServer {
    at: SocketAddr,
    over: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl NameServer {
    fn new(address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let (at, over) = (socket.local_addr().expect("an address"), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&over);
        let serving = thread::spawn(move || {
            let mut question = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut question) else { continue };
                let name = question[12..length].iter().position(|byte| *byte == 0).expect("a name");
                let asked = &question[12..12 + name + 5];
                let head = [&question[..2], b"\x81\x80\0\x01\0\x01\0\0\0\0"].concat();
                let record = [&b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04"[..], &address.octets()].concat();
                // Only whoever asks for an IPv4 address gets one.
                let is_a = asked.ends_with(b"\0\x01\0\x01");
                let mut answer = [&head[..], asked, if is_a { &record[..] } else { &[] }].concat();
                answer[7] = is_a.into();
                socket.send_to(&answer, client).expect("answered");
            }
        });
        Self { at, over, serving: Some(serving) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.serving.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the name server ended well");
    }
}

fn name_servers(home: &Home) {
    let (one, two) =
        (NameServer::new(Ipv4Addr::new(10, 9, 8, 7)), NameServer::new(Ipv4Addr::new(10, 9, 8, 6)));
    home.docker(["network", "create", "corp"]).run().ok();
    for (name, network) in [("plain", "bridge"), ("corporate", "corp")] {
        home.docker(["run", "-d", "--name", name, "--network", network, "box", "sleep", "1000"]).run().ok();
    }
    let told = |home: &Home, from: &str, address: &str| {
        home.docker(["exec", from, "nslookup", "-type=a", "wiki.corp"]).run().text().contains(address)
    };
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let silent = silent.local_addr().expect("an address");
    // A first one that nobody is at costs nothing but the next one's answer.
    for (servers, address) in
        [(format!("{silent}, {}", one.at), "10.9.8.7"), (two.at.to_string(), "10.9.8.6")]
    {
        home.slipway(["config", "set", "network.nameservers", &servers]).run().ok();
        for from in ["plain", "corporate"] {
            home.wait_for("the setting's server answers", PATIENCE, |home| told(home, from, address));
        }
    }
    let ran = home.slipway(["config", "set", "network.nameservers", "dns.example"]).run();
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.err.contains("addresses such as"), "{ran}");
    home.slipway(["config", "unset", "network.nameservers"]).run().ok();
    home.wait_for("this computer's own answer again", PATIENCE, |home| !told(home, "plain", "10.9.8.6"));
    home.docker(["rm", "-f", "plain", "corporate"]).run().ok();
    home.docker(["network", "rm", "corp"]).run().ok();
}

fn turned_off(home: &Home) {
    let greeter = Greeter::new("still here");
    let port = greeter.port();
    for (name, network) in [("near", "bridge"), ("hostly", "host")] {
        home.docker(["run", "-d", "--name", name, "--network", network, "box", "sleep", "1000"]).run().ok();
    }
    let get = |home: &Home, from: &str, host: &str| {
        home.docker(["exec", from, "timeout", "30", "wget", "-qO-", &format!("http://{host}:{port}/")]).run()
    };
    get(home, "near", "host.docker.internal").ok();
    home.slipway(["config", "set", "network.reach-host", "false"]).run().ok();
    for from in ["near", "hostly"] {
        home.wait_for("the name is gone", PATIENCE, |home| {
            get(home, from, "host.docker.internal").err.contains("bad address")
        });
        // The last two lead to the host's loopback, too, when nothing is in their way.
        for address in ["10.0.2.2", "10.0.2.3", "10.0.2.200"] {
            let ran = get(home, from, address);
            assert!(ran.err.contains("refused"), "at once, and not after a minute: {from}, {address}: {ran}");
        }
    }
    home.slipway(["config", "unset", "network.reach-host"]).run().ok();
    home.wait_for("the name is back", PATIENCE, |home| get(home, "near", "host.docker.internal").code == 0);
    home.docker(["rm", "-f", "near", "hostly"]).run().ok();
}

/// The guest answers on another port than DNS's, so that it is free.
fn name_server(home: &Home) {
    let free =
        (20_000..30_000).find(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("one");
    let publish = format!("127.0.0.1:{free}:53/udp");
    home.docker([
        "create",
        "--name",
        "dns",
        "-p",
        &publish,
        "--network",
        "bridge",
        "box",
        "/bin/echoes",
        "53",
    ])
    .run()
    .ok();
    crate::ports::put_echoes(home, "dns");
    home.docker(["start", "dns"]).run().ok();
    crate::ports::echoed(free);
    home.docker(["rm", "-f", "dns"]).run().ok();
    home.docker(["create", "--name", "dns", "--network", "host", "box", "/bin/echoes", "53"]).run().ok();
    crate::ports::put_echoes(home, "dns");
    home.docker(["start", "dns"]).run().ok();
    home.wait_for("it has port 53 of the machine", PATIENCE, |home| {
        home.slipway(["shell", "--", "netstat", "-lnu"]).run().ok().text().contains("0.0.0.0:53 ")
    });
    home.docker(["rm", "-f", "dns"]).run().ok();
}

fn unreachable(home: &Home) {
    // What listens on vsock, as those see it who may do anything.
    for options in
        [&["--privileged"][..], &["--privileged", "--network", "host"], &["--network", "host"], &[]]
    {
        home.docker(["create", "--name", "scans"]).args(options).args(["box", "/bin/scan"]).run().ok();
        ours::put(home, "slipway-test-vsock-scan", "scans:/bin/scan");
        let ran = home.docker(["start", "-a", "scans"]).within(Duration::from_secs(300)).run().ok();
        let text = ran.text();
        let tried = text.lines().find_map(|line| line.strip_prefix("tried ")?.parse::<u32>().ok());
        assert!(tried > Some(6000), "{ran}");
        assert!(!text.contains("answered "), "{options:?}: the agent speaks to a container: {text}");
        // The machine's own ports take connections of their own kind and hang up; the host's never do.
        assert!(!text.lines().any(|line| line.starts_with("open 2 ")), "{options:?}: {text}");
        home.docker(["rm", "scans"]).run().ok();
    }
    // What listens in the network that a container can have: everything there is in the machine's own.
    let netstat = ["--network", "host", "--privileged", "box", "netstat", "-lntu"];
    let listens = home.docker(["run", "--rm"]).args(netstat).run().ok().text();
    let addresses: BTreeSet<&str> = listens
        .lines()
        .filter(|line| line.starts_with("tcp") || line.starts_with("udp"))
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    assert_eq!(addresses, BTreeSet::from([NAMES]), "{listens}");
    let sockets =
        home.docker(["run", "--rm", "--network", "host", "box", "cat", "/proc/net/unix"]).run().ok();
    // Abstract names belong to the network, and begin with an `@`.
    let reachable: Vec<String> =
        sockets.text().lines().filter(|l| l.contains(" @")).map(str::to_owned).collect();
    assert!(reachable.is_empty(), "{reachable:?}");
    // What of Slipway's listens on the host, where containers do reach the loopback: nothing, but for published ports.
    for pid in family(home) {
        let listening = listening(pid);
        assert!(listening.is_empty(), "process {pid} of Slipway listens: {listening:?}");
    }
}

/// The daemon, and every process of the machine, on the host.
fn family(home: &Home) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let machine = home.machine_pid().expect("it runs");
    let shim = parent(machine).expect("it has a parent");
    let all = fs::read_dir("/proc")
        .expect("there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let above = |pid: u32| std::iter::successors(Some(pid), |pid| parent(*pid).filter(|pid| *pid > 1));
    let mut family: Vec<u32> = all.filter(|pid: &u32| above(*pid).any(|above| above == shim)).collect();
    assert!(family.contains(&machine) && family.len() >= 3, "shim, machine, share server: {family:?}");
    family.push(home.daemon_pid().expect("it runs"));
    family
}

/// Addresses on which a process waits for connections, as the kernel writes them.
fn listening(pid: u32) -> Vec<String> {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inodes: BTreeSet<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let listening = tables.iter().flat_map(|table| table.lines()).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        (*state == "0A" && inodes.contains(*inode)).then(|| (*address).to_owned())
    });
    listening.collect()
}
