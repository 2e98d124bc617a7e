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
use slipway_share::guest_path::{self, Whose};
use slipway_shim::client::{Asked, ShimClient};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Entry, Shares,
    binds::{self, Source},
    json::Json,
    shareable,
};
use crate::config;

/// Judges requests by the table and the settings.
#[derive(Debug, Clone)]
pub(crate) struct Reviewer {
    shares: Arc<Shares>,
    paths: Paths,
}

fn refuse(message: String) -> Verdict {
    Verdict::Refuse { status: 400, message }
}

impl Reviewer {
    pub(crate) fn new(shares: Arc<Shares>, paths: Paths) -> Self {
        Self { shares, paths }
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
        let mut sources = Vec::new();
        binds::visit(kind, &mut body, &mut |source| {
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
        binds::visit(kind, &mut body, &mut |source| {
            replaced.iter().find(|(path, _)| *path == source.path).map(|(_, other)| other.clone())
        });
        match serde_json::to_vec(&body) {
            Ok(bytes) => Verdict::Replace(bytes),
            Err(_) => Verdict::Pass,
        }
    }

    /// Sees to it that the guest finds the source; what is to be named instead, if something.
    async fn allow(&self, source: &Source) -> Result<Option<String>, Problem> {
        let named = binds::clean(&source.path);
        match guest_path::whose(&named) {
            Whose::Machine => return Ok(None),
            Whose::Neither if named.exists() => {
                return Err(Problem::new(
                    "mount-path",
                    format!(
                        "{} cannot be shared: the machine has a folder of its own there",
                        named.display()
                    ),
                ));
            }
            Whose::Neither => return Ok(None),
            Whose::Host => {}
        }
        let real = real(&named).map_err(|error| {
            Problem::new("mount-path", format!("{} cannot be read: {error}", named.display()))
        })?;
        // Both ends: the guest walks the same links.
        for path in [&named, &real.path] {
            if self.shares.holder(path)?.is_none() {
                self.share(path, &real, source.made).await?;
            }
        }
        // A new folder is made by the engine, through the share.
        let there = guest_path::in_guest(&named);
        Ok((there != named).then(|| there.to_string_lossy().into_owned()))
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
                .hint(format!("slipway mount add {}", quoted(path))));
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

fn real(path: &Path) -> std::io::Result<Real> {
    match path.canonicalize() {
        Ok(path) => Ok(Real { path, exists: true }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // The part that is there, and what is to come below it.
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
            Ok(Real { path: real(parent)?.path.join(name), exists: false })
        }
        Err(error) => Err(error),
    }
}

fn told(problem: &Problem) -> String {
    let causes: String = problem.causes.iter().map(|cause| format!(": {cause}")).collect();
    let hint = problem.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{}{causes}{hint}", problem.message)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
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

    #[test]
    fn a_path_is_said_as_a_shell_takes_it() {
        assert_eq!(quoted(Path::new("/srv/data")), "/srv/data");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
