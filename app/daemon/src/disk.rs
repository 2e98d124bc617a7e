//! The data disk from both sides: what it takes of this computer, what is in it, and giving back what is in it no longer.
//!
//! The disk is a sparse file, or what Hyper-V has for one. It grows as the guest writes, and shrinks when the guest says which of its blocks are free: a trim.

use std::time::Duration;

use serde::Deserialize;
use slipway_agent_client::CallError;
use slipway_api::{DiskHolding, DiskTrim, DiskUsage, Problem, Setting, paths::Paths};
use slipway_protocol::v1;
use slipway_settings::size::Size;
use slipway_shim::client::ShimClient;
use slipway_vm::room;

use crate::{boot, config, engine, guest};

/// How long the engine may take to add up what it has: it looks at every file of every volume.
const ADD_UP: Duration = Duration::from_secs(60);
/// How long a trim may take: it reads the maps of the whole file system.
const TRIM: Duration = Duration::from_secs(300);

/// What there is now. Without a machine that is awake only what the host sees.
pub(crate) async fn usage(
    paths: &Paths,
    awake: Result<Option<ShimClient>, Problem>,
) -> Result<DiskUsage, Problem> {
    let (host_bytes, limit_bytes) = on_host(paths)?.unwrap_or_default();
    let mut usage = DiskUsage {
        data_disk: paths.data_disk(),
        host_bytes,
        limit_bytes,
        guest_bytes: None,
        guest_free_bytes: None,
        holdings: Vec::new(),
        missing: Vec::new(),
    };
    let shim = match awake {
        Ok(Some(shim)) => shim,
        Ok(None) => return Ok(usage),
        Err(paused) => {
            usage.missing.push(paused);
            return Ok(usage);
        }
    };
    let (inside, engine) = tokio::join!(inside(&shim), engine::json_within(&shim, "/system/df", ADD_UP));
    match inside {
        Ok(status) => {
            let used = status.data_disk_bytes.saturating_sub(status.data_disk_free_bytes);
            usage.guest_bytes = Some(used);
            usage.guest_free_bytes = Some(status.data_disk_free_bytes);
        }
        Err(problem) => usage.missing.push(problem),
    }
    match engine {
        Ok(found) => usage.holdings = holdings(&found),
        Err(error) => usage.missing.push(Problem::from_error("engine", &error)),
    }
    Ok(usage)
}

/// Gives back to the host what the guest no longer needs.
pub(crate) async fn trim(paths: &Paths, shim: Option<ShimClient>) -> Result<DiskTrim, Problem> {
    let shim = shim.ok_or_else(|| {
        Problem::new("not-running", "the machine does not run, and only it knows what it no longer needs")
            .hint("`slipway start` starts it")
    })?;
    let (before_bytes, _) = on_host(paths)?.unwrap_or_default();
    // On a stream of its own: it holds up what comes after it on the same one.
    let agent = guest::agent(&shim).await?;
    let failed = |error: CallError| Problem::from_error("trim", &error);
    agent.trim(TRIM).await.map_err(failed)?;
    let (after_bytes, _) = on_host(paths)?.unwrap_or_default();
    Ok(DiskTrim { before_bytes, after_bytes })
}

/// Lets the disk grow to `size`, from the next start on.
pub(crate) fn resize(paths: &Paths, size: &str) -> Result<Setting, Problem> {
    config::change(paths, "machine.disk", Some(size))
}

/// Refuses a size that the disk has outgrown: it would change nothing.
pub(crate) fn check_size(paths: &Paths, wanted: Size) -> Result<(), Problem> {
    let (_, limit_bytes) = on_host(paths)?.unwrap_or_default();
    if wanted.as_bytes() < limit_bytes {
        let now = Size::bytes(limit_bytes);
        let problem = Problem::new("disk-shrink", format!("the disk can grow to {now} already"))
            .because("it is never made smaller: what is on it could be lost");
        return Err(problem.hint("`slipway disk trim` gives back what is free in it"));
    }
    Ok(())
}

/// What the disk takes on the host, and what it may take at most; `None` when there is none yet.
pub(crate) fn on_host(paths: &Paths) -> Result<Option<(u64, u64)>, Problem> {
    let path = paths.data_disk();
    let found = std::fs::metadata(&path).and_then(|_| Ok((room::taken(&path)?, boot::disk::size(&path)?)));
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Problem::new("data-disk", format!("failed to look at the data disk `{}`", path.display()))
                .because(error.to_string()))
        }
    }
}

async fn inside(shim: &ShimClient) -> Result<v1::Status, Problem> {
    guest::agent(shim).await?.status().await.map_err(|error| Problem::from_error("agent", &error))
}

/// The engine's `/system/df`, as far as it is added up here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Found {
    layers_size: i64,
    images: Option<Vec<Image>>,
    containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<Vec<Cache>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Image {
    size: i64,
    shared_size: i64,
    containers: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    size_rw: i64,
    state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volume {
    usage_data: Option<VolumeUsage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VolumeUsage {
    size: i64,
    ref_count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Cache {
    size: i64,
    in_use: bool,
    shared: bool,
}

/// As `docker system df` adds it up. The engine says -1 for what it does not know.
fn holdings(found: &Found) -> Vec<DiskHolding> {
    let known = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let images = found.images.as_deref().unwrap_or_default();
    let used = images
        .iter()
        .filter(|image| image.containers > 0 && image.size >= 0 && image.shared_size >= 0)
        .map(|image| known(image.size - image.shared_size))
        .sum();
    let bytes = known(found.layers_size);
    let mut all = vec![DiskHolding {
        kind: "images".into(),
        count: images.len() as u64,
        bytes,
        reclaimable_bytes: bytes.saturating_sub(used),
    }];
    let containers = found.containers.iter().flatten().map(|container| {
        let lives = ["running", "paused", "restarting"].contains(&container.state.as_str());
        (known(container.size_rw), !lives)
    });
    all.push(sum("containers", containers));
    let volumes = found.volumes.iter().flatten().map(|volume| match &volume.usage_data {
        Some(usage) => (known(usage.size), usage.ref_count == 0),
        None => (0, false),
    });
    all.push(sum("volumes", volumes));
    // What is shared is a layer of an image, and was added up there.
    let cache = found.build_cache.iter().flatten();
    let cache = cache.map(|entry| (if entry.shared { 0 } else { known(entry.size) }, !entry.in_use));
    all.push(sum("build cache", cache));
    all
}

/// Of pairs of bytes and whether nobody needs them.
fn sum(kind: &str, parts: impl Iterator<Item = (u64, bool)>) -> DiskHolding {
    let nothing = DiskHolding { kind: kind.into(), count: 0, bytes: 0, reclaimable_bytes: 0 };
    parts.fold(nothing, |all, (bytes, free)| DiskHolding {
        count: all.count + 1,
        bytes: all.bytes.saturating_add(bytes),
        reclaimable_bytes: all.reclaimable_bytes.saturating_add(if free { bytes } else { 0 }),
        ..all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_grows_and_never_shrinks() {
        let home = tempfile::tempdir().expect("folder");
        let paths = crate::paths_in(home.path());
        let code = |size: &str| resize(&paths, size).expect_err("refused").code;
        assert_eq!(code("much"), "settings-wrong");
        assert_eq!(resize(&paths, "20GiB").expect("there is no disk yet").value, "20GiB");
        boot::disk::prepare(&paths.data_disk(), 30 << 30).expect("a disk");
        assert_eq!(code("29GiB"), "disk-shrink");
        let set = config::change(&paths, "machine.disk", Some("29GiB"));
        assert_eq!(set.expect_err("the same, by its setting").code, "disk-shrink");
        assert_eq!(config::list(&paths).expect("read").iter().filter(|s| s.value == "20GiB").count(), 1);
        assert_eq!(resize(&paths, "30 GiB").expect("as it is").value, "30GiB");
        assert_eq!(resize(&paths, "40GiB").expect("larger").value, "40GiB");
    }

    #[test]
    fn what_the_engine_has_is_added_up_as_docker_does() {
        let json = r#"{"LayersSize":1000,
            "Images":[{"Size":600,"SharedSize":100,"Containers":2},{"Size":500,"SharedSize":100,"Containers":0},
                      {"Size":-1,"SharedSize":-1,"Containers":1}],
            "Containers":[{"SizeRw":7,"State":"running"},{"SizeRw":5,"State":"exited"},{"State":"created"}],
            "Volumes":[{"UsageData":{"Size":40,"RefCount":1}},{"UsageData":{"Size":2,"RefCount":0}},
                       {"UsageData":{"Size":-1,"RefCount":-1}},{}],
            "BuildCache":[{"Size":9,"InUse":false,"Shared":false},{"Size":9,"InUse":false,"Shared":true},{"Size":1,"InUse":true}]}"#;
        let found = holdings(&serde_json::from_str(json).expect("understood"));
        let told: Vec<_> =
            found.iter().map(|h| (h.kind.as_str(), h.count, h.bytes, h.reclaimable_bytes)).collect();
        let expected = [
            ("images", 3, 1000, 500),
            ("containers", 3, 12, 5),
            ("volumes", 4, 42, 2),
            ("build cache", 3, 10, 9),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_engine_that_has_nothing_says_null() {
        let json = r#"{"LayersSize":0,"Images":null,"Containers":null,"Volumes":null,"BuildCache":null}"#;
        let found = holdings(&serde_json::from_str(json).expect("understood"));
        assert!(found.iter().all(|h| (h.count, h.bytes, h.reclaimable_bytes) == (0, 0, 0)), "{found:?}");
    }
}
