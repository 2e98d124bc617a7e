//! What macOS and Windows say of this computer's proxies. What they say is text, so all of it is understood, and tested, everywhere.

use super::Found;

/// macOS: `scutil --proxy`, the system's own program for its dynamic store. It prints a dictionary, a line for each key.
#[cfg(any(test, target_os = "macos"))]
pub(super) fn of_scutil(printed: &str) -> Found {
    let mut values = std::collections::BTreeMap::new();
    let mut exceptions = Vec::new();
    let mut in_exceptions = false;
    for line in printed.lines() {
        match line.trim().split_once(" : ") {
            Some(("ExceptionsList", _)) => in_exceptions = true,
            Some((_, name)) if in_exceptions => exceptions.push(name),
            Some((key, value)) => {
                values.insert(key, value);
            }
            None if line.trim() == "}" => in_exceptions = false,
            None => {}
        }
    }
    let on = |key: &str| values.get(key) == Some(&"1");
    let proxy = |kind: &str| -> String {
        let part = |what: &str| values.get(format!("{kind}{what}").as_str()).copied();
        match (on(&format!("{kind}Enable")), part("Proxy"), part("Port")) {
            (true, Some(host), Some(port)) => format!("http://{}:{port}", bracketed(host)),
            (true, Some(host), None) => format!("http://{}", bracketed(host)),
            _ => String::new(),
        }
    };
    Found {
        http: proxy("HTTP"),
        https: proxy("HTTPS"),
        without: without(exceptions.into_iter()),
        script: on("ProxyAutoConfigEnable")
            .then(|| values.get("ProxyAutoConfigURLString").map(|url| (*url).to_owned()))
            .flatten(),
    }
}

/// Windows: values of `Internet Settings`. `server` is one for all, or `http=…;https=…`.
#[cfg(any(test, windows))]
pub(super) fn of_registry(enabled: bool, server: &str, exceptions: &str, script: Option<String>) -> Found {
    let server = if enabled { server } else { "" };
    let proxy = |kind: &str| {
        let mut parts = server.split(';').map(str::trim).filter(|part| !part.is_empty());
        let found = parts.find_map(|part| match part.split_once('=') {
            Some((named, address)) => named.eq_ignore_ascii_case(kind).then_some(address),
            None => Some(part),
        });
        super::with_scheme(found.unwrap_or_default().to_owned())
    };
    Found {
        http: proxy("http"),
        https: proxy("https"),
        without: if enabled { without(exceptions.split([';', ',', ' '])) } else { String::new() },
        script: script.filter(|url| !url.is_empty()),
    }
}

/// An address of IPv6 as it is in an URL.
#[cfg(any(test, target_os = "macos"))]
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Exceptions as Go, which the engine is written in, reads NO_PROXY. What cannot be said there is left out: `<local>`, all names
/// without a dot, and stars that are not for a whole label.
fn without<'a>(exceptions: impl Iterator<Item = &'a str>) -> String {
    let said: Vec<String> = exceptions.filter_map(exception).collect();
    said.join(",")
}

fn exception(written: &str) -> Option<String> {
    let written = written.trim();
    let bare = written.split_once("://").map_or(written, |(_scheme, rest)| rest);
    if bare == "*" {
        return Some(bare.to_owned());
    }
    if bare.is_empty() || bare.starts_with('<') {
        return None;
    }
    if let Some(network) = network(bare) {
        return Some(network);
    }
    let name = bare.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(bare);
    (!name.contains('*')).then(|| name.to_owned())
}

/// `10.*` of Windows' and `169.254/16` of macOS's.
fn network(written: &str) -> Option<String> {
    let (address, bits) = match written.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok().filter(|bits| *bits <= 32)?)),
        None => (written, None),
    };
    let octets: Vec<&str> = address.split('.').collect();
    let numbers: Vec<u8> = octets.iter().map_while(|octet| octet.parse().ok()).collect();
    let stars = octets.get(numbers.len()..)?;
    let starred = !stars.is_empty() && stars.iter().all(|octet| *octet == "*");
    if numbers.is_empty() || octets.len() > 4 || !(starred || (bits.is_some() && stars.is_empty())) {
        return None;
    }
    let bits = bits.unwrap_or(u8::try_from(numbers.len() * 8).ok()?);
    let mut all = numbers;
    all.resize(4, 0);
    let all: Vec<String> = all.iter().map(u8::to_string).collect();
    Some(format!("{}/{bits}", all.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(http: &str, https: &str, without: &str, script: Option<&str>) -> Found {
        Found {
            http: http.into(),
            https: https.into(),
            without: without.into(),
            script: script.map(str::to_owned),
        }
    }

    #[test]
    fn what_scutil_prints_is_understood() {
        let printed = "<dictionary> {\n  ExceptionsList : <array> {\n    0 : *.local\n    1 : 169.254/16\n    2 : fd00::/8\n  }\n  \
            ExcludeSimpleHostnames : 1\n  FTPPassive : 1\n  HTTPEnable : 1\n  HTTPPort : 3128\n  HTTPProxy : proxy.example\n  \
            HTTPSEnable : 1\n  HTTPSPort : 3129\n  HTTPSProxy : fd00::1\n  ProxyAutoConfigEnable : 0\n}\n";
        assert_eq!(
            of_scutil(printed),
            found(
                "http://proxy.example:3128",
                "http://[fd00::1]:3129",
                ".local,169.254.0.0/16,fd00::/8",
                None
            )
        );
        // One that is written down and switched off is none; and who has none has this.
        let off = "<dictionary> {\n  HTTPEnable : 0\n  HTTPPort : 3128\n  HTTPProxy : proxy.example\n}\n";
        assert_eq!(of_scutil(off), Found::default());
        assert_eq!(of_scutil(""), Found::default());
        let script = "<dictionary> {\n  ProxyAutoConfigEnable : 1\n  ProxyAutoConfigURLString : http://a/proxy.pac\n}\n";
        assert_eq!(of_scutil(script), found("", "", "", Some("http://a/proxy.pac")));
    }

    #[test]
    fn what_the_registry_holds_is_understood() {
        assert_eq!(
            of_registry(true, "proxy:8080", "localhost;127.*;*.corp.example;<local>", None),
            found("http://proxy:8080", "http://proxy:8080", "localhost,127.0.0.0/8,.corp.example", None)
        );
        assert_eq!(
            of_registry(true, "ftp=f:1; HTTPS=https://s:2 ;http=h:3;socks=k:4", "", Some(String::new())),
            found("http://h:3", "https://s:2", "", None)
        );
        assert_eq!(of_registry(true, "socks=k:4", "", None), Found::default());
        // Switched off, the values stay where they are.
        let script = Some("http://a/proxy.pac".to_owned());
        assert_eq!(
            of_registry(false, "proxy:8080", "a;b", script),
            found("", "", "", Some("http://a/proxy.pac"))
        );
    }

    #[test]
    fn exceptions_are_said_as_go_reads_them_or_not_at_all() {
        for (written, said) in [
            ("example.com", Some("example.com")),
            ("*.example.com", Some(".example.com")),
            ("*example.com", None),
            ("10.0.0.*", Some("10.0.0.0/24")),
            ("192.168.*.*", Some("192.168.0.0/16")),
            ("10.*.1.2", None),
            ("10.1.2.3", Some("10.1.2.3")),
            ("10.1.2.3/33", Some("10.1.2.3/33")),
            ("https://x.example", Some("x.example")),
            ("*", Some("*")),
            ("<-loopback>", None),
            ("", None),
        ] {
            assert_eq!(exception(written).as_deref(), said, "{written}");
        }
    }
}
