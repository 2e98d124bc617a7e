//! The engine's proxies as variables of its environment. One that listens on the host's loopback is reached at the host's
//! address in the guest's network.

use std::net::Ipv4Addr;

use slipway_protocol::v1::Proxies;

/// Never asked for by a proxy: it would not find them, or find something else.
const NEAR: &str = "localhost,127.0.0.0/8,::1,host.docker.internal,gateway.docker.internal";

/// The variables, and the ports of the host's loopback to which they lead.
pub(super) fn environment(proxies: &Proxies, host: Ipv4Addr) -> (Vec<String>, Vec<u16>) {
    let (mut variables, mut ports) = (Vec::new(), Vec::new());
    for (name, url) in [("HTTP_PROXY", &proxies.http), ("HTTPS_PROXY", &proxies.https)] {
        if url.is_empty() {
            continue;
        }
        let (url, port) = from_the_guest(url, host);
        variables.push(format!("{name}={url}"));
        ports.extend(port);
    }
    if !variables.is_empty() {
        let without = proxies.without.trim_matches(',');
        let comma = if without.is_empty() { "" } else { "," };
        variables.push(format!("NO_PROXY={without}{comma}{NEAR}"));
    }
    ports.dedup();
    (variables, ports)
}

/// The same proxy as the guest sees it, and its port on the host's loopback, where it is there.
fn from_the_guest(url: &str, host: Ipv4Addr) -> (String, Option<u16>) {
    let same = || (url.to_owned(), None);
    let Some((scheme, rest)) = url.split_once("://") else { return same() };
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    let (user, place) = authority.rfind('@').map_or(("", authority), |at| authority.split_at(at + 1));
    let (name, port) = match place.rfind(':').filter(|at| !place[*at..].contains(']')) {
        Some(at) => (&place[..at], place[at + 1..].parse().ok()),
        None => (place, None),
    };
    let loopback = name.eq_ignore_ascii_case("localhost")
        || name == "[::1]"
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if !loopback {
        return same();
    }
    let usual = match scheme {
        "https" => 443,
        "socks5" => 1080,
        _ => 80,
    };
    let port = port.unwrap_or(usual);
    (format!("{scheme}://{user}{host}:{port}{path}"), Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    #[test]
    fn a_proxy_on_the_hosts_loopback_is_reached_at_the_hosts_address() {
        for (url, seen, port) in [
            ("http://127.0.0.1:3128", "http://10.0.2.2:3128", Some(3128)),
            ("http://me:p%40ss@localhost:8080/", "http://me:p%40ss@10.0.2.2:8080/", Some(8080)),
            ("http://LocalHost", "http://10.0.2.2:80", Some(80)),
            ("socks5://[::1]:9050", "socks5://10.0.2.2:9050", Some(9050)),
            ("https://127.1.2.3", "https://10.0.2.2:443", Some(443)),
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
            ("http://localhost.example", "http://localhost.example", None),
        ] {
            assert_eq!(from_the_guest(url, HOST), (seen.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn what_is_near_is_reached_without_and_without_proxies_nothing_is_said() {
        let proxies =
            Proxies { http: "http://p:1".into(), https: String::new(), without: "corp.example".into() };
        let (variables, ports) = environment(&proxies, HOST);
        assert_eq!(variables, ["HTTP_PROXY=http://p:1".to_owned(), format!("NO_PROXY=corp.example,{NEAR}")]);
        assert!(ports.is_empty());
        let none = Proxies { without: "x".into(), ..Proxies::default() };
        assert_eq!(environment(&none, HOST), (Vec::new(), Vec::new()));
    }
}
