//! The engine's proxies: what is set, or what this process's environment says.

use slipway_protocol::v1::Proxies;
use slipway_settings::resolved::Settings;

/// The proxies that hold, in an environment.
pub(super) fn of(settings: &Settings, variable: impl Fn(&str) -> Option<String>) -> Proxies {
    // Programs disagree about the case; Go, which the engine is written in, looks at capitals first.
    let found = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase())).unwrap_or_default();
    let proxy = |set: &str, name: &str| match set {
        "auto" => with_scheme(found(name)),
        "none" => String::new(),
        url => url.to_owned(),
    };
    Proxies {
        http: proxy(&settings.http_proxy, "HTTP_PROXY"),
        https: proxy(&settings.https_proxy, "HTTPS_PROXY"),
        without: match settings.no_proxy.as_str() {
            "auto" => found("NO_PROXY"),
            "none" => String::new(),
            names => names.to_owned(),
        },
    }
}

/// In the environment it may be left out.
fn with_scheme(url: String) -> String {
    if url.is_empty() || url.contains("://") { url } else { format!("http://{url}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_settings::resolved::Host;

    #[test]
    fn what_is_set_wins_over_the_environment_and_none_is_none() {
        let variable = |name: &str| match name {
            "HTTP_PROXY" => Some("proxy:3128".to_owned()),
            "https_proxy" => Some("http://small:1".to_owned()),
            "NO_PROXY" => Some("a,b".to_owned()),
            _ => None,
        };
        let with = |raw: &[(&'static str, &str)]| {
            let raw = raw.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            of(&Settings::resolve(&raw, Host::here()).expect("fits"), variable)
        };
        let auto = with(&[("machine.memory", "512MiB")]);
        assert_eq!((auto.http.as_str(), auto.https.as_str()), ("http://proxy:3128", "http://small:1"));
        assert_eq!(auto.without, "a,b");
        let set = with(&[
            ("network.http-proxy", "none"),
            ("network.https-proxy", "http://x:2"),
            ("network.no-proxy", "c"),
        ]);
        assert_eq!((set.http.as_str(), set.https.as_str(), set.without.as_str()), ("", "http://x:2", "c"));
    }
}
