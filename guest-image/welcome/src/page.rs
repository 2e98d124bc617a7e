//! The page: self-contained, because it must look the same in a VM without a network.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the page can say about where it runs.
pub(crate) struct Facts {
    host: String,
    kernel: String,
    arch: &'static str,
    memory: String,
    cpus: String,
    time: String,
    client: String,
}

impl Facts {
    /// Looks around.
    pub(crate) fn here(peer: SocketAddr) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let kib = memory_kib(&read("/proc/meminfo"));
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        // A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d.
        let client = match peer.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            ip => ip,
        };
        Self {
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            arch: std::env::consts::ARCH,
            memory: kib.map_or_else(String::new, |kib| format!("{} MiB", kib / 1024)),
            cpus: if cpus == 0 { String::new() } else { cpus.to_string() },
            time: utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
            client: client.to_string(),
        }
    }
}

fn memory_kib(meminfo: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// Seconds since 1970 as `2026-01-31 12:00:00 UTC`.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day at their end; 400 of them have 146 097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!(
        "{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The page as HTML.
pub(crate) fn html(facts: &Facts) -> String {
    let mut rows = String::new();
    for (name, value) in [
        ("Container", facts.host.as_str()),
        ("Kernel", &facts.kernel),
        ("Architecture", facts.arch),
        ("Memory", &facts.memory),
        ("Processors", &facts.cpus),
        ("Time", &facts.time),
        ("Your address", &facts.client),
    ] {
        let value = if value.is_empty() { "unknown" } else { value };
        let _ = write!(rows, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(value));
    }
    include_str!("page.html").replace("{{facts}}", &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn what_the_container_is_called_cannot_become_markup() {
        let mut facts = Facts::here(([127, 0, 0, 1], 1).into());
        facts.host = "<script>alert(1)</script>".to_owned();
        let html = html(&facts);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let html = html(&Facts::here(([127, 0, 0, 1], 1).into()));
        for foreign in ["http://", "https://", "src=", "url(", "@import"] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        assert!(html.contains("127.0.0.1") && !html.contains("{{"));
    }

    #[test]
    fn ipv4_clients_of_the_dual_stack_socket_are_shown_as_such() {
        assert_eq!(Facts::here("[::ffff:10.0.0.7]:5".parse().unwrap()).client, "10.0.0.7");
    }
}
