//! dockerd's configuration file: the image's own, with what the host's settings add, if dockerd itself takes it.

use std::{fs, io, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use serde_json::{Map, Value};

use crate::reaper::{Exit, Reaper};

/// What the image brings.
const OWN: &str = "/etc/docker/daemon.json";
/// Below the root: what dockerd reads.
const FILE: &str = "daemon.json";
/// What `host-gateway` means to docker.
const HOST_ADDRESSES: &str = "host-gateway-ips";
const PROGRAM: &str = "/usr/sbin/dockerd";
/// Starting dockerd to have it read a file, under emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes the file below `root`, with the host's address in the guest's network, where that is known; says whether it is another one than before. What dockerd refuses is left out.
///
/// # Errors
/// Why the addition is not in force; the image's own configuration is.
pub(super) async fn write(
    root: &Path,
    addition: &str,
    gateway: Option<Ipv4Addr>,
    reaper: &Reaper,
) -> io::Result<bool> {
    let own = fs::read_to_string(OWN).unwrap_or_else(|_| "{}".into());
    let own = with_host(own, gateway);
    let file = root.join(FILE);
    let before = fs::read(&file).ok();
    let laid_over = async {
        let wanted = lay_over(&own, addition).map_err(io::Error::other)?;
        if wanted != own {
            check(root, &wanted, reaper).await?;
        }
        Ok(wanted)
    };
    let (text, refused) = match laid_over.await {
        Ok(text) => (text, None),
        Err(error) => (own.clone(), Some(error)),
    };
    super::replace(&file, text.as_bytes())?;
    match refused {
        None => Ok(before.is_some_and(|before| before != text.as_bytes())),
        Some(error) => Err(error),
    }
}

/// The image's own configuration with the address that `host-gateway` means. Byte for byte the image's where it is that already.
fn with_host(own: String, gateway: Option<Ipv4Addr>) -> String {
    let Some(gateway) = gateway.map(|gateway| Value::from(gateway.to_string())) else { return own };
    let says = serde_json::from_str::<Value>(&own).ok().and_then(|own| own.get(HOST_ADDRESSES).cloned());
    match says {
        Some(Value::Array(says)) if says.first() != Some(&gateway) => {
            let upper = serde_json::json!({ HOST_ADDRESSES: [gateway] }).to_string();
            lay_over(&own, &upper).unwrap_or(own)
        }
        _ => own,
    }
}

/// One object over another: what both have is the upper one's, but for objects in them, of which the same is true.
fn lay_over(lower: &str, upper: &str) -> serde_json::Result<String> {
    let upper: Map<String, Value> = if upper.is_empty() { Map::new() } else { serde_json::from_str(upper)? };
    if upper.is_empty() {
        return Ok(lower.to_owned());
    }
    let mut merged: Map<String, Value> = serde_json::from_str(lower)?;
    for (key, value) in upper {
        match (merged.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
            (_, value) => drop(merged.insert(key, value)),
        }
    }
    serde_json::to_string_pretty(&merged)
}

async fn check(root: &Path, text: &str, reaper: &Reaper) -> io::Result<()> {
    let file = root.join("daemon.json.check");
    super::replace(&file, text.as_bytes())?;
    let mut command = Command::new(PROGRAM);
    let output = reaper.run_to_end(command.arg("--validate").arg("--config-file").arg(&file), LIMIT).await?;
    let _ = fs::remove_file(&file);
    match output.exit {
        Exit::Code(0) => Ok(()),
        // Its words name the file that was only for it.
        _ => Err(io::Error::other(output.text.replace(&*file.to_string_lossy(), FILE).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_wins_and_leaves_the_rest() {
        let lower = r#"{"log-opts": {"max-size": "20m", "max-file": "3"}, "exec-opts": ["a"], "x": 1}"#;
        let upper = r#"{"log-opts": {"max-size": "1m"}, "exec-opts": ["b"], "debug": true}"#;
        let merged: Value = serde_json::from_str(&lay_over(lower, upper).expect("merged")).expect("JSON");
        let expected = serde_json::json!({
            "log-opts": {"max-size": "1m", "max-file": "3"}, "exec-opts": ["b"], "x": 1, "debug": true
        });
        assert_eq!(merged, expected);
        assert_eq!(lay_over(lower, "{}").expect("merged"), lower, "byte for byte");
        assert!(lay_over(lower, "[]").is_err());
    }

    #[test]
    fn the_host_is_where_the_network_says() {
        let own = r#"{"a": 1, "host-gateway-ips": ["10.0.2.2"]}"#;
        let at = |last| Some(Ipv4Addr::new(10, 0, 2, last));
        assert_eq!(with_host(own.into(), at(2)), own, "byte for byte");
        assert_eq!(with_host(own.into(), None), own);
        assert_eq!(with_host("{}".into(), at(1)), "{}", "an image that does not say it");
        let moved: Value = serde_json::from_str(&with_host(own.into(), at(1))).expect("JSON");
        assert_eq!(moved, serde_json::json!({"a": 1, "host-gateway-ips": ["10.0.2.1"]}));
    }
}
