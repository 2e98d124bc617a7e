//! Kernel modules that no package brings, compiled for the image's kernel by the compiler that Debian pairs it with: our own, and
//! some of the kernel's, which Debian's configuration leaves out.
//!
//! ```text
//! packages of role `compiler` ─unpack─▶ a folder ─chroot, own namespaces, no network─▶ make ─▶ .ko, kept by its inputs' hash
//!   our sources, or folders of the kernel's source package ──▲
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
    definition::{OfKernel, Ours, hex},
    fetch::{Fetched, keep},
    tree::{Node, Tree},
};

/// What kbuild calls, out of busybox.
const APPLETS: &str = "sh awk basename cat cmp cp cut date dirname echo env expr false find grep head ln ls mkdir mktemp mv od \
    printf pwd readlink rm sed sort tail test touch tr true uname uniq wc which xargs";
/// Where the modules' sources lie in the compiler's root, each in a folder of its name.
const SOURCES: &str = "build";
/// The folder there of what is the kernel's, and the file that says what of it is made.
const SOURCE: &str = "kernel";
const KBUILD: &str = "Kbuild";
/// Debug information is not wanted: it is most of a module's bytes. BTF would need `pahole`.
const MAKE: [&str; 4] = ["/usr/bin/make", "-s", "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES="];
/// Becomes root of the packages' folder, where `/dev/null` is the only device.
const ENTER: &str = r#"mount --bind /dev/null "$1/dev/null" && cd "$1" && shift && exec chroot . "$@""#;

/// What was compiled, and the kernel that it is for.
pub(crate) struct Compiled {
    pub(crate) release: String,
    /// Our own, in the order of their sources.
    pub(crate) modules: Vec<Module>,
    /// The kernel's: place in its source without `.ko`, and bytes.
    pub(crate) of_kernel: Vec<(String, Vec<u8>)>,
}

/// One of them.
pub(crate) struct Module {
    /// Its name, and its file's without `.ko`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Compiles the modules whose sources are folders in `beside`, and those of the kernel's source, or takes them from `cache` when the
/// same inputs were compiled before. `packages` are all of the image, and those that compile on this computer.
pub(crate) fn compile(beside: &Path, ours: &Ours, packages: &[Fetched], cache: &Path) -> Result<Compiled> {
    let packages = packages.iter().filter(|p| p.locked.role.is_compiler());
    let (source, packages): (Vec<_>, Vec<_>) = packages.partition(|p| p.locked.name == ours.of_kernel.source);
    let (headers, release) = headers(&packages)?;
    let of_same_kernel = source_of(source.first().copied(), headers, &ours.of_kernel)?;
    let mut compiler = Compiler { packages, release: release.to_owned(), cache, root: None };
    let modules = ours.sources.iter().map(|source| {
        let name = format!("slipway_{source}");
        let files = files(&beside.join(source))?;
        let kept = cache.join(format!("{name}-{}.ko", compiler.key(&files)));
        if let Ok(bytes) = std::fs::read(&kept) {
            return Ok(Module { name, bytes });
        }
        println!("compiling the kernel module {name} for {}", compiler.release);
        let folder = compiler.make(source, &files)?;
        let bytes = built(&folder.join(format!("{name}.ko")), &kept)?;
        Ok(Module { name, bytes })
    });
    let modules = modules.collect::<Result<_>>()?;
    let of_kernel = compiler.of_kernel(&ours.of_kernel, of_same_kernel)?;
    Ok(Compiled { release: compiler.release, modules, of_kernel })
}

/// The package of the kernel's headers, and the kernel's release, which its name says.
fn headers<'a>(packages: &[&'a Fetched]) -> Result<(&'a Fetched, &'a str)> {
    let found = packages.iter().find_map(|package| {
        let release = package.locked.name.strip_prefix("linux-headers-")?;
        let one = release.starts_with(|c: char| c.is_ascii_digit()) && !release.ends_with("-common");
        one.then_some((*package, release))
    });
    found.context("the lock has no kernel headers")
}

/// The package of the kernel's source, when it is of the headers' kernel: a module of another would not be loaded, or worse.
fn source_of<'a>(source: Option<&'a Fetched>, headers: &Fetched, wanted: &OfKernel) -> Result<&'a Fetched> {
    let source = source.with_context(|| format!("the lock has no `{}`", wanted.source))?;
    if source.locked.version != headers.locked.version {
        bail!(
            "`{}` is of version {} and `{}` of {}: modules need the source of their own kernel; `slipway-image lock` takes what Debian has now",
            source.locked.name,
            source.locked.version,
            headers.locked.name,
            headers.locked.version
        );
    }
    Ok(source)
}

/// What compiles, unpacked when it is first needed.
struct Compiler<'a> {
    packages: Vec<&'a Fetched>,
    release: String,
    cache: &'a Path,
    root: Option<TempDir>,
}

impl Compiler<'_> {
    /// Changes with whatever decides about the bytes of a module that these files become.
    fn key(&self, files: &BTreeMap<String, Vec<u8>>) -> String {
        let mut hash = Sha256::new().chain_update(MAKE.concat()).chain_update(APPLETS);
        for package in &self.packages {
            hash.update(&package.locked.sha256);
        }
        for (name, bytes) in files {
            hash.update(name);
            hash.update(Sha256::digest(bytes));
        }
        hex(&hash.finalize())
    }

    /// Runs `make` on these files, in a folder of this name; returns where that is.
    fn make(&mut self, name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<PathBuf> {
        let root = match &self.root {
            Some(root) => root,
            None => self.root.insert(compiler(&self.packages, self.cache)?),
        };
        let folder = format!("{SOURCES}/{name}");
        for (file, bytes) in files {
            let path = root.path().join(&folder).join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(root.path()))
                .and_then(|()| std::fs::write(path, bytes))
                .context("failed to copy a module's source")?;
        }
        run(root.path(), &folder, &self.release)?;
        Ok(root.path().join(folder))
    }

    /// The modules of the kernel's source, in the order in which they are asked for.
    fn of_kernel(&mut self, wanted: &OfKernel, source: &Fetched) -> Result<Vec<(String, Vec<u8>)>> {
        let make = kbuild(wanted);
        // The source as a whole stands for its files: reading those takes longer than compiling them.
        let inputs =
            [(KBUILD.to_owned(), make.clone()), (SOURCE.to_owned(), source.locked.sha256.clone().into())];
        let mut inputs: BTreeMap<String, Vec<u8>> = inputs.into();
        inputs.insert("edits".into(), format!("{:?}", wanted.edits).into());
        let key = self.key(&inputs);
        let kept = |module: &str| {
            let name = module.rsplit('/').next().unwrap_or(module);
            self.cache.join(format!("{name}-{key}.ko"))
        };
        let kept: Vec<PathBuf> = wanted.modules.iter().map(|module| kept(module)).collect();
        let read = || kept.iter().map(|path| std::fs::read(path).ok()).collect::<Option<Vec<_>>>();
        if let Some(bytes) = read() {
            return Ok(wanted.modules.iter().cloned().zip(bytes).collect());
        }
        println!("compiling {} of the kernel's own source for {}", wanted.modules.join(", "), self.release);
        let failed = || format!("failed to read `{}`", source.locked.name);
        let deb = std::fs::File::open(&source.file).with_context(failed)?;
        let mut files =
            deb::source_files(std::io::BufReader::new(deb), &wanted.folders()).with_context(failed)?;
        edit(&mut files, &wanted.edits)?;
        files.insert(KBUILD.into(), make);
        let folder = self.make(SOURCE, &files)?;
        let modules = wanted.modules.iter().zip(&kept);
        modules
            .map(|(module, kept)| Ok((module.clone(), built(&folder.join(format!("{module}.ko")), kept)?)))
            .collect()
    }
}

/// Has the folders of the kernel's source made as if the kernel were configured with them. What reads the configuration is `make` and
/// the preprocessor, and neither has these words from the headers.
fn kbuild(wanted: &OfKernel) -> Vec<u8> {
    let mut text = String::new();
    for word in &wanted.config {
        text += &format!("export {word} := m\nsubdir-ccflags-y += -D{word}_MODULE=1\n");
    }
    let folders: Vec<String> = wanted.folders().iter().map(|folder| format!("{folder}/")).collect();
    text += &format!("obj-m := {}\n", folders.join(" "));
    text.into()
}

/// Changes the source. What does not fit it any more is an error: the kernel's own may have changed.
fn edit(files: &mut BTreeMap<String, Vec<u8>>, edits: &[(String, String, String)]) -> Result<()> {
    for (file, from, to) in edits {
        let bytes = files.get_mut(file).with_context(|| format!("the kernel's source has no `{file}`"))?;
        let text = String::from_utf8_lossy(bytes);
        let found = text.matches(from.as_str()).count();
        if found != 1 {
            bail!("`{file}` of the kernel's source has `{from}` {found} times instead of once");
        }
        *bytes = text.replace(from.as_str(), to).into_bytes();
    }
    Ok(())
}

/// What the compiler wrote, kept for the next time.
fn built(module: &Path, kept: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(module).context("failed to read what the compiler wrote")?;
    keep(kept, &bytes)?;
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Locked, Role};

    fn fetched(name: &str, version: &str) -> Fetched {
        let locked = Locked {
            name: name.into(),
            version: version.into(),
            role: Role::Compiler,
            suite: "trixie".into(),
            path: name.into(),
            size: 1,
            sha256: "00".into(),
        };
        Fetched { locked, file: name.into() }
    }

    fn wanted() -> OfKernel {
        OfKernel {
            source: "linux-source-6.12".into(),
            config: vec!["CONFIG_NET_9P".into()],
            modules: ["net/9p/9pnet", "net/9p/9pnet_fd", "fs/9p/9p"].map(String::from).to_vec(),
            edits: Vec::new(),
        }
    }

    #[test]
    fn a_source_of_another_kernel_than_the_headers_is_refused() {
        let common = fetched("linux-headers-6.12.117+deb13-common", "6.12.117-1");
        let own = fetched("linux-headers-6.12.117+deb13-cloud-amd64", "6.12.117-1");
        let (headers, release) = headers(&[&common, &own]).expect("there");
        assert_eq!(release, "6.12.117+deb13-cloud-amd64");
        let same = fetched("linux-source-6.12", "6.12.117-1");
        assert!(source_of(Some(&same), headers, &wanted()).is_ok());
        let other = fetched("linux-source-6.12", "6.12.120-1");
        let error = source_of(Some(&other), headers, &wanted()).err().expect("another").to_string();
        assert!(error.contains("6.12.120-1") && error.contains("6.12.117-1"), "{error}");
        let error = source_of(None, headers, &wanted()).err().expect("none").to_string();
        assert!(error.contains("no `linux-source-6.12`"), "{error}");
    }

    #[test]
    fn an_edit_that_does_not_fit_is_an_error() {
        let mut files = BTreeMap::from([("a.c".to_owned(), b"if (x) y(); y();".to_vec())]);
        let edits = |file: &str, from: &str| [(file.to_owned(), from.to_owned(), "(!x)".to_owned())];
        edit(&mut files, &edits("a.c", "(x)")).expect("fits");
        assert_eq!(files["a.c"], b"if (!x) y(); y();");
        for (file, from, why) in
            [("b.c", "y", "no `b.c`"), ("a.c", "(x)", "0 times"), ("a.c", "y()", "2 times")]
        {
            let error = edit(&mut files, &edits(file, from)).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn folders_of_the_kernel_are_made_as_if_it_were_configured_so() {
        let made = String::from_utf8(kbuild(&wanted())).expect("text");
        assert_eq!(
            made,
            "export CONFIG_NET_9P := m\nsubdir-ccflags-y += -DCONFIG_NET_9P_MODULE=1\nobj-m := net/9p/ fs/9p/\n"
        );
    }
}
