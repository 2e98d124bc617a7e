//! What the engine needs of the network around this computer: the proxies that it is told of, and whom it is to trust.

use std::time::Duration;

use hyper::Uri;
use slipway_api::DaemonSeen;
use slipway_settings::resolved::Settings;
use tokio::{net::TcpStream, time::timeout};

use super::{Finding, Subject, Ward};
use crate::{configure, redact};

/// How long a proxy may take to be there.
const PATIENCE: Duration = Duration::from_secs(2);

/// A proxy that the engine is told of, and why it cannot be reached, if so. Without its login.
pub(super) type Proxy = (String, Result<(), String>);

/// Connects to each and says nothing.
pub(super) async fn proxies_of(subject: &Subject, settings: &Settings) -> Vec<Proxy> {
    // The daemon's environment counts, and it has its own when it lives already.
    let ours = subject.shell.is_none() || matches!(subject.seen, DaemonSeen::Nobody);
    let set = configure::proxies(settings, |name| std::env::var(name).ok().filter(|_| ours));
    let mut urls: Vec<String> = vec![set.http, set.https];
    urls.retain(|url| !url.is_empty());
    urls.dedup();
    let mut tried = Vec::new();
    for url in urls {
        let reached = reached(&url).await;
        tried.push((redact::line(&url), reached));
    }
    tried
}

async fn reached(url: &str) -> Result<(), String> {
    let (host, port) = address(url).ok_or("it is no address of a proxy")?;
    match timeout(PATIENCE, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

fn address(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let standard = match uri.scheme_str() {
        Some("https") => 443,
        Some("socks5" | "socks5h") => 1080,
        _ => 80,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(standard)))
}

pub(super) fn proxies(ward: &Ward) -> Finding {
    proxies_found(&ward.facts.proxies)
}

fn proxies_found(proxies: &[Proxy]) -> Finding {
    let lost: Vec<String> = proxies
        .iter()
        .filter_map(|(url, reached)| reached.as_ref().err().map(|why| format!("`{url}`: {why}")))
        .collect();
    if lost.is_empty() {
        return match proxies.len() {
            0 => Finding::ok("none is set"),
            _ => Finding::ok("what is set can be reached"),
        };
    }
    lost.into_iter()
        .fold(Finding::warning("a proxy cannot be reached, and the engine pulls through it"), Finding::because)
        .hint("set the one of this network, or none: `slipway config set network.https-proxy none`, the same for `network.http-proxy`")
}

pub(super) fn authorities(ward: &Ward) -> Finding {
    let Ok(settings) = &ward.settings else {
        return Finding::not_applicable("the settings that there are cannot hold here");
    };
    let problems = configure::distrusted(settings);
    if problems.is_empty() {
        return Finding::ok("the engine trusts whom this computer trusts");
    }
    problems
        .into_iter()
        .fold(Finding::warning("the engine will not trust all that it is told to"), Finding::because)
        .hint("`slipway config get network.authorities` shows the files that are set; registries' own are in ~/.docker/certs.d")
}

#[cfg(test)]
mod tests {
    use slipway_api::CheckState;

    use super::*;

    #[test]
    fn where_a_proxy_listens_is_read_from_its_url() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(address("http://me:hush@proxy.example:3128/"), at("proxy.example", 3128));
        assert_eq!(address("https://proxy.example"), at("proxy.example", 443));
        assert_eq!(address("http://[::1]:1"), at("::1", 1));
        assert_eq!(address("http://"), None);
    }

    #[tokio::test]
    async fn a_proxy_that_nobody_serves_is_told_without_its_login() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let there = format!("http://127.0.0.1:{}", listener.local_addr().expect("bound").port());
        assert_eq!(reached(&there).await, Ok(()));
        drop(listener);
        let why = reached(&there).await.expect_err("nobody listens");
        assert!(why.contains("refused"), "{why}");
        let found =
            proxies_found(&[("http://***@127.0.0.1:1".into(), Err(why)), ("http://h:1".into(), Ok(()))]);
        assert_eq!((found.state, found.problem.causes.len()), (CheckState::Warning, 1));
        assert_eq!(proxies_found(&[]).state, CheckState::Ok);
    }
}
