//! Windows keeps them in the registry, where its settings write them.

use windows_registry::CURRENT_USER;

use super::{Found, system};

const SETTINGS: &str = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings";

/// What holds for this person now.
pub(super) fn found() -> Found {
    read(SETTINGS)
}

/// What is not there is not set.
fn read(path: &str) -> Found {
    let Ok(settings) = CURRENT_USER.open(path) else { return Found::default() };
    let text = |name| settings.get_string(name).unwrap_or_default();
    let enabled = settings.get_u32("ProxyEnable").is_ok_and(|on| on != 0);
    system::of_registry(
        enabled,
        &text("ProxyServer"),
        &text("ProxyOverride"),
        settings.get_string("AutoConfigURL").ok(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_values_are_read_where_they_are() {
        let path = r"Software\Slipway\TestProxies";
        assert_eq!(read(path), Found::default());
        let key = CURRENT_USER.create(path).expect("made");
        key.set_u32("ProxyEnable", 1).expect("written");
        key.set_string("ProxyServer", "proxy:8080").expect("written");
        key.set_string("ProxyOverride", "*.corp").expect("written");
        key.set_string("AutoConfigURL", "http://a/proxy.pac").expect("written");
        let script = Some("http://a/proxy.pac".into());
        assert_eq!(read(path), system::of_registry(true, "proxy:8080", "*.corp", script));
        key.set_u32("ProxyEnable", 0).expect("written");
        assert_eq!(read(path).http, "");
        CURRENT_USER.remove_tree(path).expect("removed");
    }
}
