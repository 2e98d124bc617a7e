//! Which folders of the host a request to the engine names, and how to name others in it. Pure.

use serde_json::Value;
use slipway_relay::http::Kind;
use slipway_share::guest_path;

/// A folder of the host that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Absolute.
    pub(super) path: String,
    /// The engine makes it where it is not there, as `-v` does and `--mount` does not.
    pub(super) made: bool,
}

/// Calls `see` with every source; what it returns takes the source's place. True when something was replaced.
pub(super) fn visit(kind: Kind, body: &mut Value, see: &mut dyn FnMut(&Source) -> Option<String>) -> bool {
    let mut changed = false;
    match kind {
        Kind::Container => {
            for bind in items(body, "/HostConfig/Binds") {
                let Some((source, rest)) = bind.as_str().and_then(split) else { continue };
                if let Some(other) = see(&Source { path: source.to_owned(), made: true }) {
                    *bind = Value::String(format!("{other}{rest}"));
                    changed = true;
                }
            }
            changed |= mounts(items(body, "/HostConfig/Mounts"), see);
        }
        Kind::Service => changed |= mounts(items(body, "/TaskTemplate/ContainerSpec/Mounts"), see),
        Kind::Volume => changed |= volume(body, see),
    }
    changed
}

/// `SOURCE:TARGET[:OPTIONS]` into source and the rest, when the source is a path and no volume's name.
fn split(bind: &str) -> Option<(&str, &str)> {
    // The engine splits at every colon, so a source with one cannot be said in this form.
    let at = bind.find(':').filter(|_| bind.starts_with('/'))?;
    Some(bind.split_at(at))
}

/// The list at a place of the body, if there is one. Clients send anything: indexing to write panics at what is no object.
fn items<'a>(body: &'a mut Value, place: &str) -> &'a mut [Value] {
    body.pointer_mut(place).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

fn mounts(mounts: &mut [Value], see: &mut dyn FnMut(&Source) -> Option<String>) -> bool {
    let mut changed = false;
    for mount in mounts {
        match mount["Type"].as_str() {
            Some("bind") => {
                let made = mount["BindOptions"]["CreateMountpoint"].as_bool().unwrap_or(false);
                let source =
                    mount["Source"].as_str().filter(|source| source.starts_with('/')).map(str::to_owned);
                if let Some(other) = source.and_then(|path| see(&Source { path, made })) {
                    mount["Source"] = Value::String(other);
                    changed = true;
                }
            }
            Some("volume") => {
                let name = mount["VolumeOptions"]["DriverConfig"]["Name"].as_str().map(str::to_owned);
                if let Some(found) = mount.pointer_mut("/VolumeOptions/DriverConfig/Options") {
                    changed |= options(name.as_deref(), found, see);
                }
            }
            _ => {}
        }
    }
    changed
}

fn volume(body: &mut Value, see: &mut dyn FnMut(&Source) -> Option<String>) -> bool {
    let driver = body["Driver"].as_str().map(str::to_owned);
    body.pointer_mut("/DriverOpts").is_some_and(|found| options(driver.as_deref(), found, see))
}

/// The local driver's `type=none, o=bind, device=PATH`.
fn options(
    driver: Option<&str>,
    options: &mut Value,
    see: &mut dyn FnMut(&Source) -> Option<String>,
) -> bool {
    let binds =
        options["o"].as_str().is_some_and(|o| o.split(',').any(|word| word == "bind" || word == "rbind"));
    let local = matches!(driver, None | Some("" | "local"));
    let device =
        options["device"].as_str().filter(|path| local && binds && path.starts_with('/')).map(str::to_owned);
    match device.and_then(|path| see(&Source { path, made: false })) {
        Some(other) => {
            options["device"] = Value::String(other);
            true
        }
        None => false,
    }
}

/// The engine's own way with a path: `//a/./b/../c/` is `/a/c`.
pub(super) fn clean(path: &str) -> std::path::PathBuf {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    std::path::Path::new("/").join(parts.join("/"))
}

/// A path of the guest as it is on the host.
pub(super) fn on_host(path: &std::path::Path) -> std::path::PathBuf {
    path.strip_prefix(guest_path::ASIDE)
        .map_or_else(|_| path.to_owned(), |rest| std::path::Path::new("/").join(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn sources(kind: Kind, mut body: Value) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        let changed = visit(kind, &mut body, &mut |source| {
            found.push((source.path.clone(), source.made));
            None
        });
        assert!(!changed);
        found
    }

    #[test]
    fn every_way_to_name_a_folder_is_found() {
        let container = json!({ "HostConfig": {
            "Binds": ["/a b:/x:ro", "volume:/y", "/c:/z", "/w"],
            "Mounts": [
                { "Type": "bind", "Source": "/d:e", "Target": "/x" },
                { "Type": "bind", "Source": "/made", "Target": "/x", "BindOptions": { "CreateMountpoint": true } },
                { "Type": "volume", "Source": "name", "VolumeOptions": { "DriverConfig": { "Name": "local", "Options": {
                    "type": "none", "o": "ro,bind", "device": "/f" } } } },
                { "Type": "tmpfs", "Target": "/x" },
            ],
        }});
        let expected = [("/a b", true), ("/c", true), ("/d:e", false), ("/made", true), ("/f", false)];
        assert_eq!(sources(Kind::Container, container), expected.map(|(p, m)| (p.to_owned(), m)));
        let service = json!({ "TaskTemplate": { "ContainerSpec": { "Mounts": [{ "Type": "bind", "Source": "/s" }] } } });
        assert_eq!(sources(Kind::Service, service), [("/s".to_owned(), false)]);
        let volume = json!({ "Name": "v", "DriverOpts": { "type": "none", "o": "bind", "device": "/v" } });
        assert_eq!(sources(Kind::Volume, volume), [("/v".to_owned(), false)]);
        let nfs =
            json!({ "Name": "v", "DriverOpts": { "type": "nfs", "o": "addr=1.2.3.4", "device": ":/v" } });
        assert!(sources(Kind::Volume, nfs).is_empty());
    }

    #[test]
    fn a_source_is_replaced_and_nothing_else() {
        let mut body =
            json!({ "Image": "x", "HostConfig": { "Binds": ["/etc/localtime:/etc/localtime:ro", "/a:/b"] } });
        let changed = visit(Kind::Container, &mut body, &mut |source| {
            (source.path == "/etc/localtime").then(|| "/run/host/etc/localtime".into())
        });
        let expected = json!(["/run/host/etc/localtime:/etc/localtime:ro", "/a:/b"]);
        assert!(changed && body["HostConfig"]["Binds"] == expected && body["Image"] == "x", "{body}");
    }

    #[test]
    fn paths_are_cleaned_as_the_engine_does() {
        for (path, is) in [("//a/./b/../c/", "/a/c"), ("/..", "/"), ("/a b", "/a b")] {
            assert_eq!(clean(path), std::path::Path::new(is));
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(text in "[\\[\\]{}\":,a-zA-Z0-9/ ]{0,200}", kind in 0..3usize) {
            if let Ok(mut body) = serde_json::from_str::<Value>(&text) {
                let kind = [Kind::Container, Kind::Service, Kind::Volume][kind];
                visit(kind, &mut body, &mut |_| Some("/x".into()));
            }
        }
    }
}
