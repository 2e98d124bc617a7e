//! Which program holds a port, as `ss -p` finds it: the socket's inode from `/proc/net`, the process from `/proc/PID/fd`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use super::in_the_way;
use crate::ports::{Holder, Protocol};

/// State of a listening TCP socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Looks for it; `None` when this user may not see.
pub(in super::super) fn find(host: SocketAddr, protocol: Protocol) -> Option<Holder> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.lines().skip(1))
        .filter_map(|line| inode(line, host, protocol))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if holds(&process.path().join("fd"), &links) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Holder { name: name.trim().to_owned(), pid });
        }
    }
    None
}

fn holds(dir: &Path, links: &[String]) -> bool {
    // Processes of other users keep this to themselves.
    let Ok(descriptors) = fs::read_dir(dir) else { return false };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| links.iter().any(|link| link == target)))
}

/// The inode of a line of the table, if its socket stands in the way of `host`.
fn inode(line: &str, host: SocketAddr, protocol: Protocol) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    if protocol == Protocol::Tcp && state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != host.port() {
        return None;
    }
    let address = parse(address)?;
    in_the_way(address, host.ip()).then(|| fields.nth(5)).flatten()
}

/// The kernel writes addresses as words of the machine's own byte order.
fn parse(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0u8; 16];
            for (n, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(n * 8)?);
            }
            let address = Ipv6Addr::from(bytes);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_shape_are_survived() {
        let host = SocketAddr::from(([127, 0, 0, 1], 80));
        for line in
            ["", "0: x", "0: 0100007F:0050", "0: :: 0A", "0: 0100007:0050 0:0 0A", "a b c d e f g h i j"]
        {
            assert_eq!(inode(line, host, Protocol::Tcp), None, "{line}");
        }
        let line = "   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1";
        if cfg!(target_endian = "little") {
            assert_eq!(inode(line, host, Protocol::Tcp), Some("777"));
        }
    }
}
