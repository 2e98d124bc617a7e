//! Our kernel modules, compiled for the image's kernel by the compiler that Debian pairs it with.
//!
//! ```text
//! packages of role `compiler` ─unpack─▶ a folder ─chroot, own namespaces, no network─▶ make ─▶ .ko, kept by its inputs' hash
//! ```
//!
//! These are the only programs out of packages that are ever run here. They are pinned like everything else, so the host's
//! compiler has no say and the same lock gives the same module; what they see is a root that holds nothing but them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{
    deb,
    definition::hex,
    fetch::{Fetched, keep},
    tree::{Node, Tree},
};

/// What kbuild calls, out of busybox.
const APPLETS: &str = "sh awk basename cat cmp cp cut date dirname echo env expr false find grep head ln ls mkdir mktemp mv od \
    printf pwd readlink rm sed sort tail test touch tr true uname wc which xargs";
/// Where the modules' sources lie in the compiler's root, each in a folder of its name.
const SOURCES: &str = "build";
/// Debug information is not wanted: it is most of a module's bytes. BTF would need `pahole`.
const MAKE: [&str; 4] = ["/usr/bin/make", "-s", "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES="];
/// Becomes root of the packages' folder, where `/dev/null` is the only device.
const ENTER: &str = r#"mount --bind /dev/null "$1/dev/null" && cd "$1" && shift && exec chroot . "$@""#;

/// The modules in the order of their sources, and the kernel that they are for.
pub(crate) struct Compiled {
    pub(crate) release: String,
    pub(crate) modules: Vec<Module>,
}

/// One of them.
pub(crate) struct Module {
    /// Its name, and its file's without `.ko`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Compiles the modules whose sources are folders in `beside`, or takes them from `cache` when the same inputs were compiled
/// before. `packages` are all of the image, and those that compile on this computer.
pub(crate) fn compile(
    beside: &Path,
    sources: &[String],
    packages: &[Fetched],
    cache: &Path,
) -> Result<Compiled> {
    let packages: Vec<&Fetched> = packages.iter().filter(|p| p.locked.role.is_compiler()).collect();
    let headers = packages.iter().map(|p| p.locked.name.as_str());
    let release = headers
        .filter_map(|name| name.strip_prefix("linux-headers-"))
        .find(|name| name.starts_with(|c: char| c.is_ascii_digit()) && !name.ends_with("-common"))
        .context("the lock has no kernel headers")?
        .to_owned();
    let mut root = None;
    let modules = sources.iter().map(|source| {
        let name = format!("slipway_{source}");
        let files = files(&beside.join(source))?;
        let kept = cache.join(format!("{name}-{}.ko", key(&packages, &files)));
        if let Ok(bytes) = std::fs::read(&kept) {
            return Ok(Module { name, bytes });
        }
        println!("compiling the kernel module {name} for {release}");
        let root = match &root {
            Some(root) => root,
            None => root.insert(compiler(&packages, cache)?),
        };
        let folder = format!("{SOURCES}/{source}");
        std::fs::create_dir_all(root.path().join(&folder)).context("failed to make a folder")?;
        for (file, bytes) in files {
            std::fs::write(root.path().join(&folder).join(file), bytes)
                .context("failed to copy a module's source")?;
        }
        run(root.path(), &folder, &release)?;
        let built = root.path().join(folder).join(format!("{name}.ko"));
        let bytes = std::fs::read(&built).context("failed to read what the compiler wrote")?;
        keep(&kept, &bytes)?;
        Ok(Module { name, bytes })
    });
    let modules = modules.collect::<Result<_>>()?;
    Ok(Compiled { release, modules })
}

/// A root that holds the compiler and nothing else.
fn compiler(packages: &[&Fetched], cache: &Path) -> Result<TempDir> {
    let mut tree = Tree::merged();
    for package in packages {
        let bytes = std::fs::read(&package.file)
            .with_context(|| format!("failed to read `{}`", package.file.display()))?;
        deb::unpack(&bytes, &mut tree)
            .with_context(|| format!("failed to unpack `{}`", package.locked.name))?;
    }
    for applet in APPLETS.split_whitespace() {
        tree.put(&format!("usr/bin/{applet}"), Node::Link { target: "busybox".into() })?;
    }
    tree.put("tmp", Node::Dir { mode: 0o755 })?;
    tree.file("dev/null", 0o644, "")?;
    let dir = tempfile::tempdir_in(cache).context("failed to make a temporary folder")?;
    tree.write_to(dir.path())?;
    Ok(dir)
}

/// The source's files by name.
fn files(source: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let failed = || format!("failed to read `{}`", source.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(source).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) {
            files.insert(name.to_owned(), std::fs::read(&path).with_context(failed)?);
        }
    }
    Ok(files)
}

/// Changes with whatever decides about the module's bytes.
fn key(packages: &[&Fetched], files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new().chain_update(MAKE.concat()).chain_update(APPLETS);
    for package in packages {
        hash.update(&package.locked.sha256);
    }
    for (name, bytes) in files {
        hash.update(name);
        hash.update(Sha256::digest(bytes));
    }
    hex(&hash.finalize())
}

fn run(root: &Path, source: &str, release: &str) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net"]);
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let headers = PathBuf::from("/usr/src").join(format!("linux-headers-{release}"));
    let output = command
        .args(["sh", "-c", ENTER, "sh"])
        .arg(root)
        .args(MAKE)
        .arg(format!("M=/{source}"))
        .arg("-C")
        .arg(headers)
        .arg("modules")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .output()
        .context("failed to run `unshare` (package util-linux)")?;
    if !output.status.success() {
        bail!(
            "the kernel module cannot be compiled: {}{}",
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Root needs no user namespace, and may be in a container that allows none.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    uid == Some("0")
}
