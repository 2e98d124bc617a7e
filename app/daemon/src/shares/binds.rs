//! Which folders of the host a request to the engine names, and how to name others in it. Pure.

use slipway_relay::http::Kind;

use super::{json::Json, naming::Naming};

/// A folder of the host that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// As the request writes it; a path of the host's system, or what is wrong with one.
    pub(super) path: String,
    /// The engine makes it where it is not there, as `-v` does and `--mount` does not.
    pub(super) made: bool,
}

/// What takes a source's place; the source need not be a path.
type See<'a> = dyn FnMut(&str, bool) -> Option<String> + 'a;

/// Calls `see` with every source; what it returns takes the source's place. True when something was replaced.
pub(super) fn visit(
    kind: Kind,
    naming: Naming,
    body: &mut Json,
    see: &mut dyn FnMut(&Source) -> Option<String>,
) -> bool {
    let see = &mut |path: &str, made| {
        let path = naming.read(path).map(|_| path.to_owned())?;
        see(&Source { path, made })
    };
    let mut changed = false;
    match kind {
        Kind::Container => {
            for host in body.fields("HostConfig") {
                for bind in host.fields("Binds").flat_map(Json::items) {
                    let Some((source, rest)) = bind.text().and_then(|bind| naming.split(bind)) else {
                        continue;
                    };
                    if let Some(other) = see(source, true) {
                        *bind = Json::Text(format!("{other}{rest}"));
                        changed = true;
                    }
                }
                for mount in host.fields("Mounts").flat_map(Json::items) {
                    changed |= mounted(mount, see);
                }
            }
        }
        Kind::Service => {
            for task in body.fields("TaskTemplate") {
                for container in task.fields("ContainerSpec") {
                    for mount in container.fields("Mounts").flat_map(Json::items) {
                        changed |= mounted(mount, see);
                    }
                }
            }
        }
        Kind::Volume => {
            let drivers = texts(body.fields("Driver"));
            for found in body.fields("DriverOpts") {
                changed |= options(&drivers, found, see);
            }
        }
    }
    changed
}

fn texts<'a>(values: impl Iterator<Item = &'a mut Json>) -> Vec<String> {
    values.filter_map(|value| value.text().map(str::to_owned)).collect()
}

/// A place's text, seen and maybe replaced.
fn place(value: &mut Json, made: bool, see: &mut See<'_>) -> bool {
    match value.text().and_then(|path| see(path, made)) {
        Some(other) => {
            *value = Json::Text(other);
            true
        }
        None => false,
    }
}

fn mounted(mount: &mut Json, see: &mut See<'_>) -> bool {
    let mut changed = false;
    let types = texts(mount.fields("Type"));
    if types.iter().any(|kind| kind == "bind") {
        let makes = |options: &mut Json| {
            options.fields("CreateMountpoint").any(|made| *made == Json::Other(true.into()))
        };
        let made = mount.fields("BindOptions").any(makes);
        for source in mount.fields("Source") {
            changed |= place(source, made, see);
        }
    }
    if types.iter().any(|kind| kind == "volume") {
        for volume in mount.fields("VolumeOptions") {
            for config in volume.fields("DriverConfig") {
                let drivers = texts(config.fields("Name"));
                for found in config.fields("Options") {
                    changed |= options(&drivers, found, see);
                }
            }
        }
    }
    changed
}

/// The local driver's `type=none, o=bind, device=PATH`. Of what is said several times any may be the one that counts.
fn options(drivers: &[String], options: &mut Json, see: &mut See<'_>) -> bool {
    let local = drivers.is_empty() || drivers.iter().any(|name| name.is_empty() || name == "local");
    let says_bind = |o: &String| o.split(',').any(|word| word == "bind" || word == "rbind");
    if !local || !texts(options.entries("o")).iter().any(says_bind) {
        return false;
    }
    let mut changed = false;
    for device in options.entries("device") {
        changed |= place(device, false, see);
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &str) -> Json {
        Json::parse(body.as_bytes()).expect("JSON")
    }

    fn sources(kind: Kind, body: Value) -> Vec<(String, bool)> {
        said(kind, &body.to_string())
    }

    fn said(kind: Kind, body: &str) -> Vec<(String, bool)> {
        let (mut found, mut body) = (Vec::new(), read(body));
        let changed = visit(kind, Naming::Unix, &mut body, &mut |source| {
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
    fn no_spelling_and_no_repetition_hides_a_folder() {
        for (kind, body) in [
            (Kind::Container, r#"{"hostconfig":{"binds":["/a:/b"]}}"#),
            (Kind::Container, r#"{"HOSTCONFIG":{"MOUNTS":[{"TYPE":"bind","SOURCE":"/a"}]}}"#),
            (Kind::Container, r#"{"HostConfig":{"Binds":["/a:/b"]},"HostConfig":{"Memory":1}}"#),
            (Kind::Container, r#"{"HostConfig":{"Binds":["/a:/b"],"binds":[]}}"#),
            (
                Kind::Container,
                r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"x","source":"/a","type":"tmpfs"}]}}"#,
            ),
            (Kind::Container, "{\"Ho\u{17f}tConfig\":{\"Bind\u{17f}\":[\"/a:/b\"]}}"),
            (
                Kind::Service,
                r#"{"tasktemplate":{"containerSpec":{"mounts":[{"type":"bind","source":"/a"}]}}}"#,
            ),
            (
                Kind::Service,
                r#"{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"type":"volume","volumeoptions":{"driverconfig":
                    {"options":{"type":"none","o":"bind","device":"/a"}}}}]}}}"#,
            ),
            (Kind::Volume, r#"{"driveropts":{"type":"none","o":"bind","device":"/a"}}"#),
            (
                Kind::Volume,
                r#"{"DriverOpts":{"o":"bind","o":"ro","device":"/a","type":"none"},"driver":"local"}"#,
            ),
        ] {
            assert_eq!(
                said(kind, body),
                [("/a".to_owned(), false)].map(|(path, made)| (path, made || body.contains(":/b"))),
                "{body}"
            );
        }
    }

    #[test]
    fn a_source_is_replaced_and_nothing_else() {
        let body =
            json!({ "Image": "x", "HostConfig": { "Binds": ["/etc/localtime:/etc/localtime:ro", "/a:/b"] } });
        let mut body = read(&body.to_string());
        let changed = visit(Kind::Container, Naming::Unix, &mut body, &mut |source| {
            (source.path == "/etc/localtime").then(|| "/run/host/etc/localtime".into())
        });
        let expected = json!(["/run/host/etc/localtime:/etc/localtime:ro", "/a:/b"]);
        let body = serde_json::to_value(&body).expect("JSON");
        assert!(changed && body["HostConfig"]["Binds"] == expected && body["Image"] == "x", "{body}");
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(text in "[\\[\\]{}\":,a-zA-Z0-9/\\\\ ]{0,200}", kind in 0..3usize, windows: bool) {
            if let Ok(mut body) = Json::parse(text.as_bytes()) {
                let kind = [Kind::Container, Kind::Service, Kind::Volume][kind];
                let naming = if windows { Naming::Windows } else { Naming::Unix };
                visit(kind, naming, &mut body, &mut |_| Some("/x".into()));
            }
        }
    }
}
