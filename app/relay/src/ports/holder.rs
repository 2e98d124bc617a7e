//! Which program holds a port: found out by each system's own tables, judged here.

use std::net::IpAddr;

#[cfg_attr(target_os = "linux", path = "holder/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "holder/listed.rs")]
mod tables;

pub(super) use tables::find;

/// Does a socket on `there` keep another one from `here`?
pub(super) fn in_the_way(there: IpAddr, here: IpAddr) -> bool {
    match (there, here) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            there == here || there.is_unspecified() || here.is_unspecified()
        }
        // One socket of `::` takes IPv4 as well, unless told otherwise; the tables do not say.
        (IpAddr::V6(_), IpAddr::V4(_)) => there.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::ports::Protocol;

    #[test]
    fn an_address_is_in_the_way_of_itself_and_of_all_addresses() {
        for (there, here, is) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.2", "127.0.0.1", false),
            ("::1", "::1", true),
            ("::", "127.0.0.1", true),
            ("::1", "127.0.0.1", false),
            ("0.0.0.0", "::", false),
        ] {
            let address = |text: &str| text.parse().expect("address");
            assert_eq!(in_the_way(address(there), address(here)), is, "{there} {here}");
        }
    }

    #[test]
    fn our_own_socket_is_found_by_any_address_that_it_stands_in_the_way_of() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        // Wine knows the owner only of what its process, and not only Wine's server, has touched.
        listener.set_ttl(64).expect("set");
        let port = listener.local_addr().expect("address").port();
        let pid = std::process::id();
        let at = |ip: &str| SocketAddr::new(ip.parse().expect("address"), port);
        for host in ["127.0.0.1", "0.0.0.0"] {
            assert_eq!(find(at(host), Protocol::Tcp).map(|holder| holder.pid), Some(pid), "{host}");
        }
        assert_eq!(find(at("127.0.0.2"), Protocol::Tcp), None, "another address is free");
        assert_eq!(find(at("127.0.0.1"), Protocol::Udp), None, "another protocol, too");
        // Who has connected holds nothing.
        let client = std::net::TcpStream::connect(at("127.0.0.1")).expect("connects");
        assert_eq!(find(client.local_addr().expect("address"), Protocol::Tcp), None);
    }
}
