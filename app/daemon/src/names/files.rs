//! What this computer's own files say about names: `resolv.conf` and `hosts`.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::Path,
};

use slipway_protocol::v1::HostName;

/// Which name servers there are, and where to look for short names.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Names that need no server.
pub(crate) const HOSTS: &str = "/etc/hosts";
/// systemd-resolved's list of all servers, for programs that cannot speak to itself …
const UPLINKS: &str = "/run/systemd/resolve/resolv.conf";
/// … and the file that leads to itself, which alone knows which domain is whose.
const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";
const PORT: u16 = 53;
/// Names that are told to the guest. A longer file is one that blocks names, and no list of computers.
const NAMES: usize = 4096;

/// This computer's name servers at this moment, in the order in which they are asked.
pub(super) fn name_servers() -> Vec<SocketAddr> {
    let is_uplinks = || fs::canonicalize(RESOLV_CONF).is_ok_and(|real| real == Path::new(UPLINKS));
    let stub = if is_uplinks() { fs::read_to_string(STUB).ok() } else { None };
    servers(&stub.unwrap_or_else(|| fs::read_to_string(RESOLV_CONF).unwrap_or_default()))
}

/// Domains in which this computer looks for short names.
pub(crate) fn search() -> Vec<String> {
    domains(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// What this computer's `hosts` says, but for what is only true on itself.
pub(crate) fn host_names() -> Vec<HostName> {
    names(&fs::read_to_string(HOSTS).unwrap_or_default())
}

/// The words behind `key` of each line that begins with it.
fn lines<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = std::str::SplitWhitespace<'a>> {
    text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then_some(words)
    })
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let found: Vec<_> = lines(text, "nameserver").filter_map(|mut words| server(words.next()?)).collect();
    // As the C library does without any.
    if found.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { found }
}

/// `10.0.0.1`, `fd00::1`, `fe80::1%eth0`.
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = word.split_once('%') else {
        return Some((word.parse::<IpAddr>().ok()?, PORT).into());
    };
    let index = || fs::read_to_string(Path::new("/sys/class/net").join(interface).join("ifindex")).ok();
    let is_name = !interface.contains('/') && !interface.starts_with('.');
    let scope = interface.parse().ok().or_else(|| is_name.then(index)??.trim().parse().ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

fn domains(text: &str) -> Vec<String> {
    let last = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then_some(words)
    });
    // `.` says that there are none.
    last.into_iter().flatten().filter(|domain| *domain != ".").map(str::to_owned).collect()
}

fn names(text: &str) -> Vec<HostName> {
    let mut names = BTreeMap::<String, Vec<String>>::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        // The first two would be the container itself; the last leads out of no container.
        let multicast_or_link =
            address.is_multicast() || matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if address.is_loopback() || address.is_unspecified() || multicast_or_link {
            continue;
        }
        for name in words {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if names.len() < NAMES || names.contains_key(&name) {
                names.entry(name).or_default().push(address.to_string());
            }
        }
    }
    names.into_iter().map(|(name, addresses)| HostName { name, addresses }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_asked_in_their_order_and_without_any_this_computer_itself() {
        let text = "# comment\nnameserver 10.0.0.1\nnameserver fd00::1 \nnameserver nonsense\nsearch a\n\
                    nameserver fe80::1%7\nnameserver fe80::1%../x\nnameservers 1.1.1.1\n";
        let expected = ["10.0.0.1:53", "[fd00::1]:53", "[fe80::1%7]:53"];
        assert_eq!(servers(text), expected.map(|server| server.parse().expect("an address")));
        assert_eq!(servers("search a\n"), ["127.0.0.1:53".parse().expect("an address")]);
        let lo = server("fe80::1%lo").map(|server| server.to_string());
        assert!(lo.is_none_or(|lo| lo == "[fe80::1%1]:53"), "where there is such an interface");
    }

    #[test]
    fn the_last_word_about_short_names_holds() {
        assert_eq!(domains("domain old.example\nsearch corp.example example\n"), ["corp.example", "example"]);
        assert_eq!(domains("search a\ndomain b\n"), ["b"]);
        assert!(domains("search .\n").is_empty());
        assert!(domains("nameserver 1.1.1.1\n").is_empty());
    }

    #[test]
    fn names_that_mean_this_computer_are_not_told() {
        let text = "127.0.0.1 localhost blocked.example\n127.0.1.1 me\n::1 ip6-localhost\n0.0.0.0 ads.example\n\
                    10.1.1.1 NAS nas.example. # the cellar\nfd00::5\tnas\nff02::1 ip6-allnodes\nnonsense x\n#10.2.2.2 no\n";
        let told: Vec<_> = names(text).into_iter().map(|n| (n.name, n.addresses)).collect();
        let addresses = |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                ("nas".to_owned(), addresses(&["10.1.1.1", "fd00::5"])),
                ("nas.example".to_owned(), addresses(&["10.1.1.1"])),
            ]
        );
        let long: String = (0..2 * NAMES).map(|n| format!("10.0.0.1 name{n}\n")).collect();
        assert_eq!(names(&long).len(), NAMES);
    }
}
