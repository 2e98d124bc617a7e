//! Downloads, kept by their hash: what was fetched once and fits is not fetched again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    definition::{Arch, hex},
    lock::{Lock, Locked, Role},
};

/// Attempts at one file.
const ATTEMPTS: u32 = 4;
/// Between two of them, doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
/// Without a byte for this long an attempt is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// A package's file, and what the lock says about it.
pub(crate) struct Fetched {
    pub(crate) locked: Locked,
    pub(crate) file: PathBuf,
}

pub(crate) struct Fetcher {
    http: reqwest::Client,
    mirror: String,
    cache: PathBuf,
}

impl Fetcher {
    pub(crate) fn new(mirror: &str, cache: &Path) -> Result<Self> {
        std::fs::create_dir_all(cache).with_context(|| format!("failed to make `{}`", cache.display()))?;
        let http = reqwest::Client::builder()
            .read_timeout(SILENCE)
            .connect_timeout(SILENCE)
            .build()
            .context("failed to prepare downloads")?;
        Ok(Self { http, mirror: mirror.trim_end_matches('/').to_owned(), cache: cache.to_owned() })
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Everything that the lock pins for the image of `arch`, but for compilers that do not run on this computer.
    pub(crate) async fn packages(&self, lock: &Lock, arch: Arch) -> Result<Vec<Fetched>> {
        let mut fetched = Vec::new();
        let here = |role: Role| !role.is_compiler() || role == Role::compiler_for(arch);
        let wanted: Vec<&Locked> = lock.packages.iter().filter(|locked| here(locked.role)).collect();
        for (at, locked) in wanted.iter().enumerate() {
            let file = self.cache.join(&locked.sha256);
            if !is(&file, &locked.sha256) {
                println!(
                    "fetching {}/{} {} {} ({} KiB)",
                    at + 1,
                    wanted.len(),
                    locked.name,
                    locked.version,
                    locked.size >> 10
                );
                let bytes = self.get(&locked.path, Some(&locked.sha256)).await?;
                keep(&file, &bytes)?;
            }
            fetched.push(Fetched { locked: Locked::clone(locked), file });
        }
        Ok(fetched)
    }

    /// One file below the mirror, of that hash when one is given.
    pub(crate) async fn get(&self, path: &str, sha256: Option<&str>) -> Result<Vec<u8>> {
        let url = format!("{}/{path}", self.mirror);
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.once(&url, sha256).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if attempt < ATTEMPTS && !is_gone(&error) => {
                    println!("  {path}: {error:#}; trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                // The mirror's name stays out of messages that end up in logs and commits.
                Err(error) => return Err(error.context(format!("failed to fetch `{path}`"))),
            }
        }
        bail!("failed to fetch `{path}`")
    }

    async fn once(&self, url: &str, sha256: Option<&str>) -> Result<Vec<u8>> {
        let response = self.http.get(url).send().await.map_err(reqwest::Error::without_url)?;
        let response = response.error_for_status().map_err(reqwest::Error::without_url)?;
        let bytes = response.bytes().await.map_err(reqwest::Error::without_url)?;
        let found = hex(&Sha256::digest(&bytes));
        match sha256 {
            Some(expected) if expected != found => bail!("its hash is {found} instead of {expected}"),
            _ => Ok(bytes.into()),
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::status);
    status.is_some_and(|status| status.is_client_error())
}

fn is(file: &Path, sha256: &str) -> bool {
    std::fs::read(file).is_ok_and(|bytes| hex(&Sha256::digest(bytes)) == sha256)
}

/// Written beside and renamed, so that a file of that name is whole.
pub(crate) fn keep(file: &Path, bytes: &[u8]) -> Result<()> {
    let aside = file.with_extension("part");
    std::fs::write(&aside, bytes)
        .and_then(|()| std::fs::rename(&aside, file))
        .with_context(|| format!("failed to write `{}`", file.display()))
}
