//! One suite of a Debian archive, for one processor: its index, trusted because Debian signed the hash of it.

use std::{
    collections::HashMap,
    io::{Read, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{definition::Arch, fetch::Fetcher};

/// Debian's keys, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Longest index in bytes, unpacked.
const LONGEST: u64 = 512 << 20;

/// A package as the index describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// `Pre-Depends` and `Depends` together.
    pub(crate) depends: String,
    pub(crate) provides: String,
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

pub(crate) struct Archive {
    pub(crate) suite: String,
    pub(crate) arch: Arch,
    pub(crate) packages: HashMap<String, Vec<Package>>,
}

impl Archive {
    pub(crate) async fn fetch(fetcher: &Fetcher, suite: &str, arch: Arch) -> Result<Self> {
        let name = arch.name();
        println!("fetching the index of {suite} for {name}");
        let signed = fetcher.get(&format!("dists/{suite}/InRelease"), None).await?;
        let release = verified(&signed).with_context(|| format!("the index of {suite} is not Debian's"))?;
        if let Some(until) = release.lines().find_map(|line| line.strip_prefix("Valid-Until: ")) {
            // Mirrors lag behind; the hashes are Debian's all the same, and a lock outlives them anyway.
            println!("  {suite} says that it is valid until {until}");
        }
        let name = format!("main/binary-{name}/Packages.xz");
        let sha256 = hash_of(&release, &name).with_context(|| format!("{suite} has no `{name}`"))?;
        let packed = fetcher.get(&format!("dists/{suite}/{name}"), Some(&sha256)).await?;
        let mut text = String::new();
        liblzma::read::XzDecoder::new(packed.as_slice())
            .take(LONGEST)
            .read_to_string(&mut text)
            .with_context(|| format!("failed to unpack the index of {suite}"))?;
        Ok(Self { suite: suite.to_owned(), arch, packages: parse(&text) })
    }
}

/// The text that the signature covers. gpgv is what apt itself uses.
fn verified(signed: &[u8]) -> Result<String> {
    let mut child = Command::new("gpgv")
        .args(["--keyring", KEYRING, "--output", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run `gpgv` (packages gpgv and debian-archive-keyring)")?;
    let mut stdin = child.stdin.take().context("gpgv has no input")?;
    let signed = signed.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&signed));
    let output = child.wait_with_output().context("failed to read from gpgv")?;
    // A writer that broke shows in gpgv's verdict.
    let _ = writer.join();
    if !output.status.success() {
        bail!("gpgv says: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("the index is not text")
}

fn hash_of(release: &str, name: &str) -> Option<String> {
    let hashes = release.lines().skip_while(|line| *line != "SHA256:").skip(1);
    hashes.take_while(|line| line.starts_with(' ')).find_map(|line| {
        let mut words = line.split_whitespace();
        let hash = words.next()?;
        (words.nth(1)? == name).then(|| hash.to_owned())
    })
}

fn parse(text: &str) -> HashMap<String, Vec<Package>> {
    let mut packages: HashMap<String, Vec<Package>> = HashMap::new();
    for stanza in text.split("\n\n") {
        let mut package = Package::default();
        for line in stanza.lines() {
            let Some((field, value)) = line.split_once(": ") else { continue };
            match field {
                "Package" => package.name = value.to_owned(),
                "Version" => package.version = value.to_owned(),
                "Depends" | "Pre-Depends" if package.depends.is_empty() => package.depends = value.to_owned(),
                "Depends" | "Pre-Depends" => package.depends = format!("{}, {value}", package.depends),
                "Provides" => package.provides = value.to_owned(),
                "Filename" => package.path = value.to_owned(),
                "Size" => package.size = value.parse().unwrap_or(0),
                "SHA256" => package.sha256 = value.to_owned(),
                _ => {}
            }
        }
        if !package.name.is_empty() {
            packages.entry(package.name.clone()).or_default().push(package);
        }
    }
    packages
}

#[cfg(test)]
pub(crate) fn from_text(suite: &str, arch: Arch, text: &str) -> Archive {
    Archive { suite: suite.into(), arch, packages: parse(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_right_section() {
        let release = "MD5Sum:\n 11 5 main/Packages.xz\nSHA256:\n 22 5 other\n 33 5 main/Packages.xz\nSHA512:\n 44 5 main/x\n";
        assert_eq!(hash_of(release, "main/Packages.xz").as_deref(), Some("33"));
        assert_eq!(hash_of(release, "main/x"), None);
    }
}
