//! An address from the network itself, where no host can say one beforehand: Virtualization.framework's network hands them out, and so
//! does Windows' where it says none.
//!
//! ```text
//!   agent ──starts──▶ busybox's udhcpc ──at each lease──▶ this program as `slipway-dhcp` ──one line──▶ agent: configures the card
//! ```
//!
//! The client asks anew in time for as long as the machine runs. That it has lost a lease changes nothing: a network that translates
//! addresses has no other use for this one, and a wrong address is no worse than none.

use std::{
    fmt::Write as _,
    io,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
};

use super::Network;
use crate::reaper::{Reaper, Started};

const PROGRAM: &str = "/usr/bin/busybox";
/// This program, by the name under which [`hand_over`] is what it does.
const SCRIPT: &str = "/usr/bin/slipway-dhcp";
/// What the line for the agent begins with: the client writes lines of its own.
const LEASE: &str = "slipway-lease";
/// Of what the client knows, by its names for it.
const KEPT: [&str; 5] = ["ip", "mask", "router", "dns", "mtu"];
/// What may be set: IPv4 needs the least, and no card here has more.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;

/// The client, running.
#[derive(Debug)]
pub(crate) struct Client {
    lines: Lines<BufReader<pipe::Receiver>>,
    _started: Started,
}

impl Client {
    /// Asks on `interface`, which must be up.
    pub(crate) fn start(interface: &str, reaper: &Reaper) -> io::Result<Self> {
        let mut command = Command::new(PROGRAM);
        // Quickly at first: on a translated network the answer takes milliseconds, and nothing works before it.
        let patience = ["-t", "4", "-T", "1", "-A", "1"];
        command.args(["udhcpc", "-f", "-i", interface, "-s", SCRIPT, "-O", "mtu", "-x", "hostname:slipway"]);
        Self::run(command.args(patience), reaper)
    }

    fn run(command: &mut Command, reaper: &Reaper) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
        let (_child, started) = reaper.spawn(command)?;
        command.stdout(Stdio::null());
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok(Self { lines: BufReader::new(reader).lines(), _started: started })
    }

    /// The next lease; those that cannot be used are passed over. Cancel-safe.
    ///
    /// # Errors
    /// The client has ended.
    pub(crate) async fn lease(&mut self) -> io::Result<Network> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some(network) = network(&line) {
                return Ok(network);
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client that asks for an address has ended"))
    }
}

/// As the client's script: prints the agent's line. Its one argument says what has happened, its environment what it was given.
pub fn hand_over(arguments: &[String]) {
    let event = arguments.first().map_or("", String::as_str);
    if let Some(line) = line(event, |name| std::env::var(name).ok()) {
        println!("{line}");
    }
}

fn line(event: &str, given: impl Fn(&str) -> Option<String>) -> Option<String> {
    if !matches!(event, "bound" | "renew") {
        return None;
    }
    let mut line = LEASE.to_owned();
    for name in KEPT {
        // Of several routers and name servers the first.
        if let Some(value) = given(name).as_deref().and_then(|value| value.split_whitespace().next()) {
            let _ = write!(line, " {name}={value}");
        }
    }
    Some(line)
}

/// What a line says; `None` for one that says no address, or none that can be used.
fn network(line: &str) -> Option<Network> {
    let mut words = line.split_whitespace();
    if words.next()? != LEASE {
        return None;
    }
    let said: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let value = |name: &str| said.iter().find(|(said, _)| *said == name).map(|(_, value)| *value);
    let address = |name: &str| value(name)?.parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified());
    let gateway = address("router")?;
    Some(Network {
        address: address("ip")?,
        prefix: value("mask")?.parse().ok().filter(|prefix| (1..=30).contains(prefix))?,
        gateway,
        // As on home networks: who says none answers himself.
        resolver: address("dns").unwrap_or(gateway),
        mtu: value("mtu").and_then(|mtu| mtu.parse().ok()).filter(|mtu| MTU.contains(mtu)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Option<Network> {
        let given = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        network(&line("bound", given).expect("a line"))
    }

    #[test]
    fn a_lease_is_a_network() {
        let all = [
            ("ip", "192.168.64.7"),
            ("subnet", "255.255.255.0"),
            ("mask", "24"),
            ("router", "192.168.64.1 192.168.64.254"),
            ("dns", "192.168.64.2 1.1.1.1"),
            ("mtu", "1400"),
            ("domain", "x\nslipway-lease ip=1.1.1.1"),
        ];
        let network = of(&all).expect("a network");
        assert_eq!((network.address, network.prefix), ([192, 168, 64, 7].into(), 24));
        assert_eq!((network.gateway, network.resolver), ([192, 168, 64, 1].into(), [192, 168, 64, 2].into()));
        assert_eq!(network.mtu, Some(1400));
        let bare = of(&[("ip", "192.168.64.7"), ("mask", "24"), ("router", "192.168.64.1"), ("mtu", "9")]);
        let bare = bare.expect("a network");
        assert_eq!((bare.resolver, bare.mtu), (bare.gateway, None), "who says none answers himself");
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        assert_eq!(of(&[("ip", "192.168.64.7"), ("mask", "24")]), None, "no way out");
        assert_eq!(of(&[("ip", "192.168.64.7"), ("mask", "33"), ("router", "192.168.64.1")]), None);
        assert_eq!(of(&[("ip", "0.0.0.0"), ("mask", "24"), ("router", "192.168.64.1")]), None);
        for event in ["deconfig", "leasefail", "nak", ""] {
            assert_eq!(line(event, |_| Some("x".into())), None, "{event}");
        }
        for wrong in ["", "udhcpc: started", "slipway-lease", "ip=1.2.3.4 mask=24 router=1.2.3.1"] {
            assert_eq!(network(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn leases_come_until_the_client_ends() {
        let reaper = Reaper::new(false);
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "echo udhcpc: started; echo slipway-lease ip=10.1.1.9 mask=24 router=10.1.1.1; \
             echo slipway-lease ip=10.1.1.9; echo slipway-lease ip=10.1.2.9 mask=24 router=10.1.2.1",
        ]);
        let mut client = Client::run(&mut command, &reaper).expect("starts");
        for third in [1, 2] {
            assert_eq!(client.lease().await.expect("a lease").address, Ipv4Addr::new(10, 1, third, 9));
        }
        assert_eq!(client.lease().await.expect_err("ended").kind(), io::ErrorKind::UnexpectedEof);
    }
}
