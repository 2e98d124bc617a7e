//! The packet filter's part in how containers meet the host: questions about names come to the agent instead of the network's
//! resolver, and nothing else reaches the host's own addresses while a setting forbids it.
//!
//! ```text
//!   container, or a program of the guest ──▶ resolver:53 ────────▶ the agent (names) ──marked──▶ resolver:53
//!                                        ──▶ host's network ──┬─ allowed:   leaves
//!                                                             └─ forbidden: a closed port of the guest: refused at once
//! ```
//!
//! Rewriting the address is chosen over listening on port 53, which belongs to whoever runs a name server in a container.
//!
//! What forbids is in the guest, so it binds those who have no power over the guest's own network: containers in networks
//! of Docker's, without privileges. Root of the guest (a privileged container, or one in the host's network with `NET_ADMIN` or
//! `NET_RAW`) can take the rules away or send around them.

use std::{fs, io, net::SocketAddrV4, path::Path, process::Command, time::Duration};

use crate::{
    network::Network,
    reaper::{Exit, Reaper},
};

/// Set on the agent's own questions to the resolver, which are not to come back to it.
pub(crate) const MARK: u32 = 0x511b;
/// Our chain in each table; Docker's have other names.
const CHAIN: &str = "SLIPWAY";
/// Where nobody listens: what is sent there is refused. tcpmux is long gone.
const CLOSED: u16 = 1;
/// The program, and where it reads the rules.
const PROGRAM: &str = "/usr/sbin/iptables-restore";
const RULES: &str = "/run/slipway/netfilter.rules";
/// A program start under emulation, on a busy host.
const LIMIT: Duration = Duration::from_secs(60);

/// What of the host can be reached.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Where questions about names are answered.
    pub(crate) names: SocketAddrV4,
    /// Everybody reaches the host's loopback.
    pub(crate) reach_host: bool,
    /// Ports of the host's loopback that the engine reaches all the same.
    pub(crate) proxy_ports: Vec<u16>,
}

/// The rules in the form of `iptables-save`; `first` also leads packets to our chains, which is done once.
fn rules(network: &Network, opening: &Opening, first: bool) -> String {
    let (address, resolver, names) = (network.address, network.resolver, opening.names);
    let around = format!("{address}/{}", network.prefix);
    let asks = ["udp", "tcp"].map(|protocol| format!("-A {CHAIN} -d {resolver} -p {protocol} --dport 53"));
    let ours = asks.each_ref().map(|asks| format!("{asks} -m mark --mark {MARK:#x} -j RETURN"));
    let mut nat = ours.to_vec();
    nat.extend(asks.map(|asks| format!("{asks} -j DNAT --to-destination {names}")));
    let mut mangle = Vec::new();
    if !opening.reach_host {
        // The engine's own proxy: for programs in the guest's network, and not for what is forwarded.
        let proxies = opening.proxy_ports.iter().map(|port| {
            let to = format!("-d {} -p tcp --dport {port}", network.gateway);
            format!("-A {CHAIN} {to} -m addrtype --src-type LOCAL -j RETURN")
        });
        nat.extend(proxies.clone());
        mangle.extend(proxies);
        // The guest's own address lies in the host's network.
        nat.push(format!("-A {CHAIN} -d {address} -j RETURN"));
        nat.extend(
            ["udp", "tcp"].map(|protocol| {
                format!("-A {CHAIN} -d {around} -p {protocol} -j REDIRECT --to-ports {CLOSED}")
            }),
        );
        // Connections that were open before, and packets that belong to none.
        mangle.extend(ours);
        mangle.push(format!("-A {CHAIN} -o eth0 -d {around} -j DROP"));
    }
    let lead = |from: &[&str]| match first {
        true => from.iter().map(|from| format!("-A {from} -j {CHAIN}\n")).collect(),
        false => String::new(),
    };
    let (to_nat, to_mangle) = (lead(&["PREROUTING", "OUTPUT"]), lead(&["POSTROUTING"]));
    let lines = |rules: &[String]| rules.iter().map(|rule| format!("{rule}\n")).collect::<String>();
    format!(
        "*nat\n:{CHAIN} - [0:0]\n{to_nat}{}COMMIT\n*mangle\n:{CHAIN} - [0:0]\n{to_mangle}{}COMMIT\n",
        lines(&nat),
        lines(&mangle)
    )
}

/// Puts the rules in force, all at once.
///
/// # Errors
/// With the program's words; the rules are then as before.
pub(crate) async fn apply(
    network: &Network,
    opening: &Opening,
    first: bool,
    reaper: &Reaper,
) -> io::Result<()> {
    if let Some(folder) = Path::new(RULES).parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(RULES, rules(network, opening, first))?;
    let mut command = Command::new(PROGRAM);
    let output = reaper.run_to_end(command.args(["--noflush", RULES]), LIMIT).await?;
    match output.exit {
        Exit::Code(0) => Ok(()),
        exit => Err(io::Error::other(format!("{PROGRAM}: {} ({exit})", output.text.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(reach_host: bool, proxy_ports: &[u16]) -> Opening {
        let names = SocketAddrV4::new([10, 0, 2, 15].into(), 99);
        Opening { names, reach_host, proxy_ports: proxy_ports.to_vec() }
    }

    #[test]
    fn the_agents_own_questions_pass_before_all_others_are_led_to_it() {
        let text = rules(&Network::default(), &opening(true, &[]), true);
        let expected = "*nat\n:SLIPWAY - [0:0]\n-A PREROUTING -j SLIPWAY\n-A OUTPUT -j SLIPWAY\n\
            -A SLIPWAY -d 10.0.2.3 -p udp --dport 53 -m mark --mark 0x511b -j RETURN\n\
            -A SLIPWAY -d 10.0.2.3 -p tcp --dport 53 -m mark --mark 0x511b -j RETURN\n\
            -A SLIPWAY -d 10.0.2.3 -p udp --dport 53 -j DNAT --to-destination 10.0.2.15:99\n\
            -A SLIPWAY -d 10.0.2.3 -p tcp --dport 53 -j DNAT --to-destination 10.0.2.15:99\n\
            COMMIT\n*mangle\n:SLIPWAY - [0:0]\n-A POSTROUTING -j SLIPWAY\nCOMMIT\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_forbidden_host_is_refused_and_its_open_connections_end() {
        let text = rules(&Network::default(), &opening(false, &[3128]), false);
        let proxy = "-A SLIPWAY -d 10.0.2.2 -p tcp --dport 3128 -m addrtype --src-type LOCAL -j RETURN\n";
        assert_eq!(text.matches(proxy).count(), 2, "to be rewritten, and to be dropped: {text}");
        assert!(text.contains("-A SLIPWAY -d 10.0.2.15/24 -p tcp -j REDIRECT --to-ports 1\n"), "{text}");
        assert!(text.contains("-A SLIPWAY -o eth0 -d 10.0.2.15/24 -j DROP\n"), "{text}");
        assert!(!text.contains("PREROUTING"), "led there already: {text}");
    }
}
