//! A container, a service or a volume is about to be created: may it have the folders that it names?
//!
//! Never a silent empty folder: what the machine does not see is shared first, if the setting says so, or the request is
//! refused with what to do. A path that leads through links is looked at where it really ends.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use slipway_api::{Problem, paths::Paths};
use slipway_relay::http::{Review, Verdict, creates};
use slipway_shim::client::{Asked, ShimClient};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Entry, Shares,
    binds::{self, Source},
    json::Json,
    naming::{Named, Naming},
    shareable,
};
use crate::config;

/// Judges requests by the table and the settings.
#[derive(Debug, Clone)]
pub(crate) struct Reviewer {
    shares: Arc<Shares>,
    paths: Paths,
    /// What the host says of a path. Tests of another system's paths have words of their own.
    look: fn(Naming, &Path) -> std::io::Result<Real>,
}

fn refuse(message: String) -> Verdict {
    Verdict::Refuse { status: 400, message }
}

impl Reviewer {
    pub(crate) fn new(shares: Arc<Shares>, paths: Paths) -> Self {
        Self { shares, paths, look: real }
    }

    /// Judges what the shim asks, several at once, until it has no more.
    pub(crate) async fn run(self, shim: ShimClient, mut asked: mpsc::Receiver<Asked>) {
        let mut judging = JoinSet::new();
        while let Some(Asked { ask, review }) = asked.recv().await {
            while judging.try_join_next().is_some() {}
            let (reviewer, shim) = (self.clone(), shim.clone());
            judging.spawn(async move {
                let verdict = reviewer.judge(&review).await;
                if verdict != Verdict::Pass {
                    tracing::info!(path = review.path, "a request to the engine does not pass as it is");
                }
                if let Err(error) = shim.reviewed(ask, verdict).await {
                    tracing::warn!(%error, "the word on a request was lost");
                }
            });
        }
        judging.shutdown().await;
    }

    /// Judges one request. What it asks for is shared by then, or it is refused.
    pub(crate) async fn judge(&self, asked: &Review) -> Verdict {
        let Some(kind) = creates(&asked.path) else { return Verdict::Pass };
        // Not left to the engine: what is not understood here, it might understand.
        let mut body = match Json::parse(&asked.body) {
            Ok(body) => body,
            Err(error) => return refuse(format!("invalid JSON: {error}")),
        };
        let naming = self.shares.naming;
        let mut sources = Vec::new();
        binds::visit(kind, naming, &mut body, &mut |source| {
            sources.push(source.clone());
            None
        });
        let mut replaced = Vec::new();
        for source in sources {
            match self.allow(&source).await {
                Ok(None) => {}
                Ok(Some(other)) => replaced.push((source.path, other)),
                Err(problem) => return refuse(told(&problem)),
            }
        }
        if replaced.is_empty() {
            return Verdict::Pass;
        }
        binds::visit(kind, naming, &mut body, &mut |source| {
            replaced.iter().find(|(path, _)| *path == source.path).map(|(_, other)| other.clone())
        });
        match serde_json::to_vec(&body) {
            Ok(bytes) => Verdict::Replace(bytes),
            Err(_) => Verdict::Pass,
        }
    }

    /// Sees to it that the guest finds the source; what is to be named instead, if something.
    async fn allow(&self, source: &Source) -> Result<Option<String>, Problem> {
        let naming = self.shares.naming;
        let wrong = |message: String| Err(Problem::new("mount-path", message));
        let named = match naming.read(&source.path) {
            Some(Ok(Named::Host(path))) => path,
            Some(Ok(Named::Neither(path))) if path.exists() => {
                let shown = path.display();
                return wrong(format!("{shown} cannot be shared: the machine has a folder of its own there"));
            }
            Some(Ok(Named::Neither(_) | Named::Machine)) | None => return Ok(None),
            Some(Err(refused)) => return wrong(refused.to_string()),
        };
        let real = match (self.look)(naming, &named) {
            Ok(real) => real,
            Err(error) => return wrong(format!("{} cannot be read: {error}", named.display())),
        };
        let ends = match naming {
            // Both: the guest walks the same links.
            Naming::Unix => vec![&named, &real.path],
            // The guest's paths have one spelling only, and the host follows the links.
            Naming::Windows => vec![&real.path],
        };
        for path in &ends {
            if self.shares.holder(path)?.is_none() {
                self.share(path, &real, source.made).await?;
            }
        }
        // A new folder is made by the engine, through the share.
        let there = naming.in_guest(ends[0]);
        let changed = ends[0] != &there;
        let there = there.to_string_lossy().into_owned();
        Ok((changed && there != source.path).then_some(there))
    }

    async fn share(&self, path: &Path, real: &Real, made: bool) -> Result<(), Problem> {
        let shown = path.display();
        let policy = config::with(&self.paths, &[])?.share_on_demand;
        if !real.exists && !made {
            // The engine says so itself, and better.
            return Ok(());
        }
        if policy != "share" {
            return Err(Problem::new("mount-not-shared", format!("{shown} is not shared with Slipway"))
                .hint(format!("slipway mount add {}", self.shares.naming.quoted(path))));
        }
        if !real.exists {
            // As the engine would: it makes the folder that is not there.
            std::fs::create_dir_all(&real.path)
                .map_err(|error| Problem::new("mount-path", format!("{shown} cannot be made: {error}")))?;
        }
        let path = shareable(&real.path)?;
        self.shares.insert(Entry { path: path.clone(), read_only: false, on_demand: true }).await?;
        let failed = self.shares.list().await?.mounts.into_iter().find(|mount| mount.path == path);
        match failed.and_then(|mount| mount.problem) {
            Some(why) => {
                self.shares.take(&path).await?;
                Err(Problem::new("mount-failed", format!("{shown} could not be shared: {why}")))
            }
            None => Ok(()),
        }
    }
}

/// Where a path ends when its links are followed.
struct Real {
    path: PathBuf,
    exists: bool,
}

fn real(naming: Naming, path: &Path) -> std::io::Result<Real> {
    match naming.canonical(path) {
        Ok(path) => Ok(Real { path, exists: true }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // The part that is there, and what is to come below it.
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
            Ok(Real { path: real(naming, parent)?.path.join(name), exists: false })
        }
        Err(error) => Err(error),
    }
}

fn told(problem: &Problem) -> String {
    let causes: String = problem.causes.iter().map(|cause| format!(": {cause}")).collect();
    let hint = problem.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{}{causes}{hint}", problem.message)
}

#[cfg(all(test, unix))] // Their paths are.
mod tests {
    use super::*;

    fn reviewer(dir: &Path, settings: &str) -> Reviewer {
        let paths = crate::paths_in(dir);
        std::fs::write(paths.settings_file(), format!("[shares]\nhome = false\n{settings}")).expect("writes");
        Reviewer::new(Arc::new(Shares::new(paths.clone())), paths)
    }

    async fn create(reviewer: &Reviewer, binds: &[String]) -> Verdict {
        let body = serde_json::json!({ "HostConfig": { "Binds": binds } });
        let body = serde_json::to_vec(&body).expect("JSON");
        reviewer.judge(&Review { path: "/v1.47/containers/create".into(), body }).await
    }

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().canonicalize().expect("real");
        (dir, path)
    }

    #[tokio::test]
    async fn what_is_not_shared_is_refused_with_what_to_do() {
        let (_dir, dir) = dir();
        let reviewer = reviewer(&dir, "");
        let data = dir.join("some data");
        std::fs::create_dir(&data).expect("makes");
        let shown = data.display();
        let message = format!("{shown} is not shared with Slipway\nhint: slipway mount add '{shown}'");
        assert_eq!(create(&reviewer, &[format!("{shown}:/data")]).await, refuse(message));
        assert_eq!(
            create(&reviewer, &["/var/run/docker.sock:/x".into(), "v:/y".into()]).await,
            Verdict::Pass
        );
        reviewer
            .shares
            .add(&slipway_api::MountRequest { path: data.clone(), read_only: false })
            .await
            .expect("adds");
        assert_eq!(create(&reviewer, &[format!("{shown}/below/new:/data")]).await, Verdict::Pass);
    }

    #[tokio::test]
    async fn every_request_that_names_a_folder_is_judged_however_it_is_spelled() {
        let (_dir, dir) = dir();
        let reviewer = reviewer(&dir, "");
        let data = dir.join("data");
        std::fs::create_dir(&data).expect("makes");
        let shown = data.to_str().expect("UTF-8");
        let volume = |options: &str| {
            format!(r#"{{"Name":"v","{options}":{{"type":"none","o":"bind","device":"{shown}"}}}}"#)
        };
        let bodies = [
            ("/containers/create", format!(r#"{{"hostconfig":{{"binds":["{shown}:/x"]}}}}"#)),
            (
                "/v1.47/containers/create",
                format!(r#"{{"HostConfig":{{"Binds":["{shown}:/x"]}},"HostConfig":{{}}}}"#),
            ),
            (
                "/containers/cre%61te",
                format!(r#"{{"HostConfig":{{"Mounts":[{{"Type":"bind","Source":"{shown}"}}]}}}}"#),
            ),
            (
                "/services/create",
                format!(
                    r#"{{"TaskTemplate":{{"ContainerSpec":{{"Mounts":[{{"type":"bind","source":"{shown}"}}]}}}}}}"#
                ),
            ),
            (
                "/services/abc/update?version=1",
                format!(
                    r#"{{"taskTemplate":{{"containerSpec":{{"mounts":[{{"Type":"bind","Source":"{shown}"}}]}}}}}}"#
                ),
            ),
            ("/volumes/create", volume("DriverOpts")),
            ("/volumes/create", volume("driveropts")),
        ];
        for (path, body) in bodies {
            let asked = Review { path: path.into(), body: body.clone().into_bytes() };
            let verdict = reviewer.judge(&asked).await;
            let Verdict::Refuse { status: 400, message } = verdict else {
                panic!("{path} {body}: {verdict:?}")
            };
            assert!(message.contains(&format!("{shown} is not shared with Slipway")), "{message}");
        }
        // What is not understood does not pass either.
        let asked = Review { path: "/containers/create".into(), body: b"{\"HostConfig\":".to_vec() };
        let Verdict::Refuse { message, .. } = reviewer.judge(&asked).await else { panic!("it passes") };
        assert!(message.starts_with("invalid JSON: "), "{message}");
    }

    #[tokio::test]
    async fn a_link_out_of_what_is_shared_is_followed() {
        let (_dir, dir) = dir();
        let reviewer = reviewer(&dir, "");
        for name in ["in", "out"] {
            std::fs::create_dir(dir.join(name)).expect("makes");
        }
        std::os::unix::fs::symlink(dir.join("out"), dir.join("in/link")).expect("links");
        reviewer
            .shares
            .add(&slipway_api::MountRequest { path: dir.join("in"), read_only: false })
            .await
            .expect("adds");
        let verdict = create(&reviewer, &[format!("{}:/x", dir.join("in/link").display())]).await;
        let Verdict::Refuse { message, .. } = verdict else { panic!("{verdict:?}") };
        assert!(message.contains(&format!("{} is not shared", dir.join("out").display())), "{message}");
    }

    #[tokio::test]
    async fn by_policy_it_is_shared_and_made_where_the_engine_would_make_it() {
        let (_dir, dir) = dir();
        let reviewer = reviewer(&dir, "on-demand = \"share\"\n");
        let new = dir.join("new/folder");
        assert_eq!(create(&reviewer, &[format!("{}:/x", new.display())]).await, Verdict::Pass);
        assert!(new.is_dir());
        let mounts = reviewer.shares.list().await.expect("lists").mounts;
        assert_eq!(mounts.iter().map(|m| m.path.clone()).collect::<Vec<_>>(), [new]);
        assert_eq!(mounts[0].origin, slipway_api::MountOrigin::OnDemand);
        // The host's file at a place that the machine has itself is named elsewhere.
        if Path::new("/etc/hostname").is_file() {
            let verdict = create(&reviewer, &["/etc/hostname:/h:ro".into()]).await;
            let Verdict::Replace(body) = verdict else { panic!("{verdict:?}") };
            assert!(String::from_utf8_lossy(&body).contains("/run/host/etc/hostname:/h:ro"));
        }
    }
    /// As on a Windows host that shares `C:\Users\me`.
    fn on_windows(dir: &Path) -> Reviewer {
        let paths = crate::paths_in(dir);
        std::fs::write(paths.settings_file(), "[shares]\nhome = false\n").expect("writes");
        let mut shares = Shares::new(paths.clone());
        shares.naming = Naming::Windows;
        let shared = Entry { path: r"C:\Users\me".into(), read_only: false, on_demand: false };
        shares.write(&[shared]).expect("writes");
        let look = |_, path: &Path| {
            let real = match path.to_str().expect("text") {
                r"c:\users\ME\x" | r"C:\users\ME\x" => r"C:\Users\me\x",
                r"C:\Users\me\link" => r"D:\secret files",
                r"C:\link" => r"C:\Users\me\x",
                other => other,
            };
            Ok(Real { path: real.into(), exists: true })
        };
        Reviewer { look, ..Reviewer::new(Arc::new(shares), paths) }
    }

    #[tokio::test]
    async fn a_windows_path_is_named_as_the_guest_has_it() {
        let (_dir, dir) = dir();
        let reviewer = on_windows(&dir);
        for (bind, becomes) in [
            (r"C:\Users\me\x:/app", "/c/Users/me/x:/app"),
            (r"C:\Users\me\x:/app:ro,z", "/c/Users/me/x:/app:ro,z"),
            ("c:/Users/me/x/../y z:/app", "/c/Users/me/y z:/app"),
            ("//c/Users/me:/app", "/c/Users/me:/app"),
            (r"\\?\C:\Users\me\x:/app", "/c/Users/me/x:/app"),
            // Windows finds it in any case, the guest does not.
            ("/c/users/ME/x:/app", "/c/Users/me/x:/app"),
            (r"C:\link:/app", "/c/Users/me/x:/app"),
        ] {
            let Verdict::Replace(body) = create(&reviewer, &[bind.into(), "v:/y".into()]).await else {
                panic!("{bind}")
            };
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["HostConfig"]["Binds"], serde_json::json!([becomes, "v:/y"]));
        }
        for bind in
            ["/c/Users/me/x:/app", "volume:/app", "/var/run/docker.sock:/x", "//var/run/docker.sock:/x"]
        {
            assert_eq!(create(&reviewer, &[bind.into()]).await, Verdict::Pass, "{bind}");
        }
    }

    #[tokio::test]
    async fn what_a_windows_host_cannot_share_is_refused_with_its_reason() {
        let (_dir, dir) = dir();
        let reviewer = on_windows(&dir);
        for (bind, why) in [
            (r"\\nas\home\me:/app", "network share"),
            ("//nas/home/me:/app", "network share"),
            ("/home/me:/app", "write the whole path with its drive"),
            (r".\x:/app", "write the whole path with its drive"),
            (r"C:\Users\me\nul:/app", "device of Windows"),
            (r"C:\Users\me\a?b:/app", "cannot be a path on Windows"),
            (
                r"C:\Users\you:/app",
                "C:\\Users\\you is not shared with Slipway\nhint: slipway mount add C:\\Users\\you",
            ),
            (r"C:\Users\meet:/app", "is not shared"),
            (
                r"C:\Users\me\link:/app",
                "D:\\secret files is not shared with Slipway\nhint: slipway mount add \"D:\\secret files\"",
            ),
        ] {
            let verdict = create(&reviewer, &[r"C:\Users\me:/fine".into(), bind.into()]).await;
            let Verdict::Refuse { status: 400, message } = verdict else { panic!("{bind}: {verdict:?}") };
            assert!(message.contains(why), "{bind}: {message}");
        }
    }

    #[tokio::test]
    async fn every_request_that_names_a_windows_folder_is_judged() {
        let (_dir, dir) = dir();
        let reviewer = on_windows(&dir);
        let bind = |path: &str| serde_json::json!([{ "Type": "bind", "Source": path, "Target": "/x" }]);
        let options = |path: &str| serde_json::json!({ "type": "none", "o": "bind", "device": path });
        let bodies = |path: &str| {
            let config = serde_json::json!({ "Name": "local", "Options": options(path) });
            let volume = serde_json::json!([{ "Type": "volume", "Source": "v", "VolumeOptions": { "DriverConfig": config } }]);
            [
                ("/containers/create", serde_json::json!({ "HostConfig": { "Mounts": bind(path) } })),
                ("/containers/create", serde_json::json!({ "HostConfig": { "Mounts": volume } })),
                (
                    "/services/create",
                    serde_json::json!({ "TaskTemplate": { "ContainerSpec": { "Mounts": bind(path) } } }),
                ),
                ("/volumes/create", serde_json::json!({ "Name": "v", "DriverOpts": options(path) })),
            ]
        };
        let wanted = bodies("/c/Users/me/x");
        for ((path, body), (_, wanted)) in bodies(r"C:\Users\me\x").into_iter().zip(wanted) {
            let asked = Review { path: path.into(), body: body.to_string().into_bytes() };
            let Verdict::Replace(got) = reviewer.judge(&asked).await else { panic!("{path} {body}") };
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&got).expect("JSON"), wanted);
        }
        for (path, body) in bodies(r"\\nas\home") {
            let asked = Review { path: path.into(), body: body.to_string().into_bytes() };
            let verdict = reviewer.judge(&asked).await;
            let Verdict::Refuse { message, .. } = verdict else { panic!("{path} {body}: {verdict:?}") };
            assert!(message.contains(r"`\\nas\home` is on a network share"), "{message}");
        }
    }
}
