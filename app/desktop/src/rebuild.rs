//! A build from the history once more: the same folder, Dockerfile and arguments, as BuildKit and buildx remember them.
//!
//! A page names the build and nothing else of it. What is run comes from the record, so that no page can have a folder of this
//! computer built that nobody built before.

use std::{path::Path, process::Stdio};

use serde::Deserialize;
use slipway_api::Problem;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
};

use crate::{HistoryVerb, Transfer, bridge::Bridge, history::refusal, system, transfer::Lines};

/// Bytes of what buildx says beside its steps that are kept: the end tells why it failed.
const LAST_WORDS: usize = 8 << 10;

/// What a person chooses anew.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuild {
    /// The build's name in the history.
    pub reference: String,
    /// Name of the image that is made; none: it has none.
    #[serde(default)]
    pub tag: Option<String>,
    /// Every step is done again.
    #[serde(default)]
    pub no_cache: bool,
}

/// A build as `history inspect` tells it, as far as it is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Record {
    context: String,
    dockerfile: String,
    target: String,
    platform: Vec<String>,
    named_contexts: Vec<Pair>,
    build_args: Vec<Pair>,
    labels: Vec<Pair>,
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    network: String,
    extra_hosts: Vec<String>,
    cgroup_parent: String,
    no_cache_filter: Vec<String>,
    shm_size: String,
    ulimit: String,
    // Arguments of BuildKit itself, which the record keeps apart from the others.
    #[serde(rename = "CacheMountNS")]
    cache_mount_ns: String,
    dockerfile_check_config: String,
    source_date_epoch: String,
    sandbox_hostname: String,
}

impl Bridge {
    /// Builds again what the history knows, and tells `on` its steps as they go: BuildKit's own JSON lines. Dropping the future ends
    /// the build.
    ///
    /// # Errors
    /// A build that was not made of a folder of this computer, a folder that is gone, and what buildx said against it.
    pub async fn rebuild(&self, asked: &Rebuild, mut on: impl FnMut(Transfer) + Send) -> Result<(), Problem> {
        let record = self.build_history(HistoryVerb::Inspect, Some(&asked.reference)).await?;
        let record: Record = serde_json::from_str(&record).map_err(|error| {
            Problem::new("buildx-failed", "the build's record is not understood").because(error.to_string())
        })?;
        let words = words(&record, asked)?;
        if !tokio::fs::metadata(&record.context).await.is_ok_and(|found| found.is_dir()) {
            return Err(not_again(format!(
                "the folder that it was built from is gone: `{}`",
                record.context
            )));
        }
        let failed = |error: std::io::Error| {
            Problem::new("buildx-failed", "docker's buildx was not started").because(error.to_string())
        };
        let mut command = self.buildx().await?;
        command.arg("build").args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut building = Building(command.spawn().map_err(failed)?);
        let words = match building.0.stderr.take() {
            Some(said) => steps(said, &mut on).await,
            None => String::new(),
        };
        let status = building.0.wait().await.map_err(failed)?;
        if status.success() { Ok(()) } else { Err(refusal(&words)) }
    }
}

/// A build that is asked to end when nobody waits for it any more. Not killed: docker hands the wish on to buildx, and that to the
/// engine, which then knows it as one that was cancelled.
struct Building(Child);

impl Drop for Building {
    fn drop(&mut self) {
        // The runtime reaps it.
        if let Err(error) = system::ask_to_end(&mut self.0) {
            eprintln!("error: a build was not asked to end: {error}");
        }
    }
}

/// Tells the steps as whole lines; the end of everything else that was said.
async fn steps(mut from: impl AsyncRead + Unpin, on: &mut (dyn FnMut(Transfer) + Send)) -> String {
    let mut lines = Lines::default();
    let mut words = String::new();
    let mut tell = |transfer: Transfer| {
        if let Transfer::Chunk { chunk } = &transfer {
            for line in chunk.lines().filter(|line| !line.starts_with('{')) {
                words.push_str(line);
                words.push('\n');
            }
            if words.len() > LAST_WORDS {
                let over = words.len() - LAST_WORDS;
                let cut = words.char_indices().map(|(at, _)| at).find(|at| *at >= over);
                words.drain(..cut.unwrap_or(over));
            }
        }
        on(transfer);
    };
    let mut bytes = vec![0; 64 << 10];
    // What was read before an error is what there is.
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        lines.push(&bytes[..count], &mut tell);
    }
    // BuildKit's lines have no error of their own: the exit code says it.
    let _ = lines.end(&mut tell);
    words
}

fn not_again(why: impl Into<String>) -> Problem {
    Problem::new("rebuild-refused", "this build cannot be done again").because(why)
}

/// The words for `docker buildx build`. Values are never words of their own, so none is taken for an option.
fn words(record: &Record, asked: &Rebuild) -> Result<Vec<String>, Problem> {
    let context = Path::new(&record.context);
    match record.context.as_str() {
        "" => {
            return Err(not_again("no record on this computer says from which folder it was built")
                .hint("a build by another user or through another socket leaves none"));
        }
        "-" => return Err(not_again("its context was piped into docker, and nobody kept it")),
        remote if !context.is_absolute() => {
            return Err(not_again(format!(
                "it was built from `{remote}`, which is no folder of this computer"
            ))
            .hint("`docker build` takes the same address again"));
        }
        _ if record.dockerfile == "-" => {
            return Err(not_again("its Dockerfile was piped into docker, and nobody kept it"));
        }
        _ => {}
    }
    let mut words = vec!["--progress=rawjson".to_owned()];
    let mut add = |option: &str, value: &str| {
        if !value.is_empty() {
            words.push(format!("--{option}={value}"));
        }
    };
    if !record.dockerfile.is_empty() {
        add("file", &context.join(&record.dockerfile).to_string_lossy());
    }
    add("target", &record.target);
    add("platform", &record.platform.join(","));
    for Pair { name, value } in &record.named_contexts {
        // Of a folder only a number is remembered.
        if !value.contains("://") {
            return Err(not_again(format!("nobody kept which folder its further context `{name}` was")));
        }
        add("build-context", &format!("{name}={value}"));
    }
    let config = &record.config;
    let own = [
        ("BUILDKIT_CACHE_MOUNT_NS", &config.cache_mount_ns),
        ("BUILDKIT_DOCKERFILE_CHECK", &config.dockerfile_check_config),
        ("SOURCE_DATE_EPOCH", &config.source_date_epoch),
        ("SANDBOX_HOSTNAME", &config.sandbox_hostname),
    ];
    for (name, value) in own.into_iter().filter(|(_, value)| !value.is_empty()) {
        add("build-arg", &format!("{name}={value}"));
    }
    for Pair { name, value } in &record.build_args {
        add("build-arg", &format!("{name}={value}"));
    }
    for Pair { name, value } in &record.labels {
        add("label", &format!("{name}={value}"));
    }
    add("network", &config.network);
    add("cgroup-parent", &config.cgroup_parent);
    add("shm-size", &config.shm_size);
    config.extra_hosts.iter().for_each(|host| add("add-host", host));
    config.ulimit.split(',').for_each(|limit| add("ulimit", limit));
    if asked.no_cache {
        add("no-cache", "true");
    } else {
        config.no_cache_filter.iter().for_each(|stage| add("no-cache-filter", stage));
    }
    add("tag", asked.tag.as_deref().map(str::trim).unwrap_or_default());
    words.push(record.context.clone());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn asked(tag: &str, no_cache: bool) -> Rebuild {
        Rebuild { reference: "a".into(), tag: Some(tag.into()), no_cache }
    }

    #[test]
    fn a_build_is_done_again_with_all_that_is_remembered_of_it() {
        let record: Record = from_value(json!({
            "Name": "shop", "Context": "/home/anna/shop", "Dockerfile": "api/Dockerfile", "Target": "-x", "Platform": ["linux/amd64", "linux/arm64"],
            "NamedContexts": [{ "Name": "base", "Value": "docker-image://alpine:3" }],
            "BuildArgs": [{ "Name": "GREETING", "Value": "a b --c" }], "Labels": [{ "Name": "of", "Value": "" }],
            "Config": { "Network": "host", "ExtraHosts": ["db=10.0.0.1"], "NoCacheFilter": ["api"], "ShmSize": "67108864",
                "Ulimit": "nofile=1024:1024,core=0:0", "SourceDateEpoch": "0", "ImageResolveMode": "local" },
            "Status": "completed", "Error": null,
        }))
        .expect("a record");
        assert_eq!(
            words(&record, &asked(" shop/api:2 ", false)).expect("words"),
            [
                "--progress=rawjson",
                "--file=/home/anna/shop/api/Dockerfile",
                "--target=-x",
                "--platform=linux/amd64,linux/arm64",
                "--build-context=base=docker-image://alpine:3",
                "--build-arg=SOURCE_DATE_EPOCH=0",
                "--build-arg=GREETING=a b --c",
                "--label=of=",
                "--network=host",
                "--shm-size=67108864",
                "--add-host=db=10.0.0.1",
                "--ulimit=nofile=1024:1024",
                "--ulimit=core=0:0",
                "--no-cache-filter=api",
                "--tag=shop/api:2",
                "/home/anna/shop",
            ]
        );
        let anew = words(&record, &asked("", true)).expect("words");
        assert!(
            anew.contains(&"--no-cache=true".into()) && !anew.iter().any(|word| word.starts_with("--tag")),
            "{anew:?}"
        );
    }

    #[test]
    fn what_was_not_built_from_a_folder_here_is_refused_with_its_reason() {
        for (context, dockerfile, why) in [
            ("", "", "no record"),
            ("-", "", "piped"),
            ("/home/anna/shop", "-", "Dockerfile was piped"),
            ("https://example.org/shop.git#main", "Dockerfile", "https://example.org/shop.git#main"),
            ("--output=/etc", "", "no folder of this computer"),
        ] {
            let record =
                Record { context: context.into(), dockerfile: dockerfile.into(), ..Record::default() };
            let refused = words(&record, &asked("", false)).expect_err(context);
            assert!(refused.code == "rebuild-refused" && refused.causes[0].contains(why), "{refused:?}");
        }
        let named = vec![Pair { name: "src".into(), value: "local:src".into() }];
        let record = Record { context: "/c".into(), named_contexts: named, ..Record::default() };
        assert!(words(&record, &asked("", false)).expect_err("a folder").causes[0].contains("`src`"));
    }

    #[tokio::test]
    async fn steps_are_told_as_they_go_and_the_last_words_are_kept() {
        let said = format!("{{\"vertexes\":[]}}\n{}\nERROR: failed to solve\n", "warning ü\n".repeat(2000));
        let mut told = String::new();
        let words = steps(said.as_bytes(), &mut |transfer| match transfer {
            Transfer::Chunk { chunk } => told.push_str(&chunk),
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(told, said);
        assert!(words.len() <= LAST_WORDS, "{}", words.len());
        assert_eq!(refusal(&words).message, "failed to solve");
    }
}
