//! The engine's proxies: what is set; or what this process's environment says; or, where that names none, the system.

#[cfg_attr(target_os = "linux", path = "proxies/linux.rs")]
#[cfg_attr(target_os = "macos", path = "proxies/macos.rs")]
#[cfg_attr(windows, path = "proxies/windows.rs")]
mod host;
#[cfg(any(test, not(target_os = "linux")))]
mod system;

use slipway_protocol::v1::Proxies;
use slipway_settings::resolved::Settings;

/// Proxies as URLs, and who is reached without them. Empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    http: String,
    https: String,
    without: String,
    /// Where a script decides, for each address, on one.
    script: Option<String>,
}

/// The proxies that hold, and what does not hold although this computer says it, for a person.
pub(super) fn of(settings: &Settings, variable: impl Fn(&str) -> Option<String>) -> (Proxies, Vec<String>) {
    decided(settings, variable, host::found)
}

fn decided(
    settings: &Settings,
    variable: impl Fn(&str) -> Option<String>,
    system: impl FnOnce() -> Found,
) -> (Proxies, Vec<String>) {
    // Programs disagree about the case; Go, which the engine is written in, looks at capitals first.
    let said = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase())).unwrap_or_default();
    let environment = Found {
        http: with_scheme(said("HTTP_PROXY")),
        https: with_scheme(said("HTTPS_PROXY")),
        without: said("NO_PROXY"),
        script: None,
    };
    let asks = [&settings.http_proxy, &settings.https_proxy].iter().any(|set| set.as_str() == "auto");
    let auto = if environment.http.is_empty() && environment.https.is_empty() && asks {
        let found = system();
        let without = if environment.without.is_empty() { found.without } else { environment.without };
        Found { without, ..found }
    } else {
        environment
    };
    let chosen = |set: &str, auto: &str| match set {
        "auto" => auto.to_owned(),
        "none" => String::new(),
        told => told.to_owned(),
    };
    let proxies = Proxies {
        http: chosen(&settings.http_proxy, &auto.http),
        https: chosen(&settings.https_proxy, &auto.https),
        without: chosen(&settings.no_proxy, &auto.without),
    };
    let problems = auto.script.map(|url| {
        format!(
            "this computer's proxies are decided by a script, `{url}`, which the engine cannot run: \
             set `network.http-proxy` and `network.https-proxy` if it needs them"
        )
    });
    (proxies, problems.into_iter().collect())
}

/// In the environment it may be left out.
fn with_scheme(url: String) -> String {
    if url.is_empty() || url.contains("://") { url } else { format!("http://{url}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_settings::resolved::Host;

    fn with(
        raw: &[(&'static str, &str)],
        variable: impl Fn(&str) -> Option<String>,
        system: Found,
    ) -> (Proxies, Vec<String>) {
        let raw = raw.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        decided(&Settings::resolve(&raw, Host::here()).expect("fits"), variable, || system)
    }

    fn three(proxies: &Proxies) -> [&str; 3] {
        [&proxies.http, &proxies.https, &proxies.without]
    }

    #[test]
    fn what_is_set_wins_over_the_environment_and_none_is_none() {
        let variable = |name: &str| match name {
            "HTTP_PROXY" => Some("proxy:3128".to_owned()),
            "https_proxy" => Some("http://small:1".to_owned()),
            "NO_PROXY" => Some("a,b".to_owned()),
            _ => None,
        };
        let system = Found { http: "http://system:1".into(), without: "s".into(), ..Found::default() };
        let with = |raw| with(raw, variable, system.clone()).0;
        let auto = with(&[("machine.memory", "512MiB")]);
        assert_eq!(three(&auto), ["http://proxy:3128", "http://small:1", "a,b"]);
        let set = with(&[
            ("network.http-proxy", "none"),
            ("network.https-proxy", "http://x:2"),
            ("network.no-proxy", "c"),
        ]);
        assert_eq!(three(&set), ["", "http://x:2", "c"]);
    }

    #[test]
    fn where_the_environment_names_none_the_systems_hold_and_a_script_is_told() {
        let system = Found {
            http: "http://system:1".into(),
            https: String::new(),
            without: "s".into(),
            script: Some("http://a/proxy.pac".into()),
        };
        let (proxies, problems) = with(&[], |_| None, system.clone());
        assert_eq!(three(&proxies), ["http://system:1", "", "s"]);
        assert!(matches!(&problems[..], [told] if told.contains("http://a/proxy.pac")), "{problems:?}");
        // Somebody has said what they want.
        let set = [("network.http-proxy", "none"), ("network.https-proxy", "http://x:2")];
        let (proxies, problems) = with(&set, |_| None, system.clone());
        assert_eq!((three(&proxies), problems.len()), (["", "http://x:2", ""], 0));
        let (proxies, _) = with(&[], |name| (name == "no_proxy").then(|| "mine".into()), system);
        assert_eq!(three(&proxies), ["http://system:1", "", "mine"]);
    }
}
