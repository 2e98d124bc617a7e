//! Puts the pieces together: packages, our own programs and the definition's files become an image folder.

use std::{
    collections::BTreeMap,
    fmt,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use slipway_manifest::{HOST_TOOLS, MANIFEST, Manifest, Part, SIGNATURE};

use crate::{
    deb,
    definition::{Definition, Devices, Kernel, hex},
    fetch::Fetched,
    initramfs,
    lock::{Lock, Role},
    module::Compiled,
    modules::Modules,
    sbom,
    sign::Signer,
    tree::{Node, Tree, matches_pattern},
    vmlinux, welcome,
};

/// Where the guest finds its welcome image.
const WELCOME: &str = "usr/share/slipway/images/welcome.tar";
/// The module that delivers the host's file events.
const FILE_EVENTS: &str = "slipway_fsnotify";
/// A file system's identity must be something; a random one would change the bytes.
const UUID: &str = "51195a11-0000-4000-8000-000000000001";

pub(crate) struct Inputs<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) lock: &'a Lock,
    pub(crate) packages: Vec<Fetched>,
    pub(crate) agent: Vec<u8>,
    pub(crate) iptables: Vec<u8>,
    pub(crate) welcome: Vec<u8>,
    pub(crate) compiled: Compiled,
    pub(crate) signer: Signer,
}

/// What was built, in bytes.
pub(crate) struct Report {
    packages: Vec<(String, u64)>,
    parts: Vec<(String, u64)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| bytes.div_ceil(1024);
        writeln!(f, "{:>9}  package, after trimming", "KiB")?;
        for (name, bytes) in &self.packages {
            writeln!(f, "{:>9}  {name}", kib(*bytes))?;
        }
        writeln!(f, "{:>9}  part of the image", "KiB")?;
        for (name, bytes) in &self.parts {
            writeln!(f, "{:>9}  {name}", kib(*bytes))?;
        }
        let booted = self
            .parts
            .iter()
            .filter(|(name, _)| ["kernel", "initramfs", "root.erofs"].contains(&name.as_str()));
        writeln!(f, "{:>9}  booted in all", kib(booted.map(|(_, bytes)| bytes).sum()))
    }
}

/// Writes the image to `out`, which is replaced.
pub(crate) fn assemble(inputs: Inputs<'_>, out: &Path) -> Result<Report> {
    let definition = inputs.definition;
    let mut root = Tree::merged();
    let mut kernel_tree = Tree::merged();
    let mut tools = Vec::new();
    let mut sizes = Vec::new();
    for fetched in &inputs.packages {
        let locked = &fetched.locked;
        if locked.role.is_compiler() {
            continue;
        }
        let bytes = std::fs::read(&fetched.file)
            .with_context(|| format!("failed to read `{}`", fetched.file.display()))?;
        let mut tree = Tree::merged();
        let target = if locked.role == Role::Kernel { &mut kernel_tree } else { &mut tree };
        deb::unpack(&bytes, target).with_context(|| format!("failed to unpack `{}`", locked.name))?;
        match locked.role {
            Role::Kernel | Role::Compiler | Role::CrossCompiler => {}
            Role::HostTool => {
                let path =
                    definition.host_tools.programs.get(&locked.name).context("a tool without a program")?;
                let program =
                    tree.take(path).with_context(|| format!("`{}` has no `{path}`", locked.name))?;
                tools.push((path.rsplit('/').next().unwrap_or(path).to_owned(), program));
            }
            Role::Guest => {
                if let Some(only) = definition.packages.only.get(&locked.name) {
                    tree.keep_matching(only);
                    for pattern in only {
                        if !tree.nodes().keys().any(|path| matches_pattern(pattern, path)) {
                            bail!("`{}` has no `{pattern}`", locked.name);
                        }
                    }
                }
                let kept = |path: &str| !definition.drop.iter().any(|pattern| matches_pattern(pattern, path));
                let size =
                    |node: &Node| if let Node::File { bytes, .. } = node { bytes.len() as u64 } else { 0 };
                sizes.push((
                    locked.name.clone(),
                    tree.nodes().iter().filter(|(path, _)| kept(path)).map(|(_, node)| size(node)).sum(),
                ));
                for (path, node) in tree.nodes() {
                    root.put(path, node.clone())
                        .with_context(|| format!("`{}` does not fit in", locked.name))?;
                }
            }
        }
    }
    root.drop_matching(&definition.drop);
    certificates(&mut root)?;

    let mut modules = Modules::take(&kernel_tree)?;
    if inputs.compiled.release != modules.release {
        bail!(
            "our modules are compiled for {} and the kernel is {}",
            inputs.compiled.release,
            modules.release
        );
    }
    for (path, bytes) in &inputs.compiled.of_kernel {
        modules.add(format!("kernel/{path}.ko"), bytes.clone());
    }
    let kernel = &definition.kernel;
    let (early, late) = modules_for(&modules, kernel, &kernel.virtio)?;
    let (early_hyperv, late_hyperv) = modules_for(&modules, kernel, &kernel.hyperv)?;
    furnish(&mut root, &inputs, &modules.release, &late, &late_hyperv)?;
    let all: BTreeMap<_, _> = late.iter().chain(&late_hyperv).map(|(path, bytes)| (path, bytes)).collect();
    sizes.push(("(kernel modules)".into(), all.values().map(|bytes| bytes.len() as u64).sum()));
    sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));

    let vmlinuz = kernel_tree.nodes().keys().find(|path| path.starts_with("boot/vmlinuz-")).cloned();
    let kernel =
        vmlinuz.and_then(|path| kernel_tree.take(&path)).context("the kernel's package has no kernel")?;
    let kernel = if definition.kernel.unpacked { vmlinux::unpack(&kernel)? } else { kernel };
    let early = vec![("etc/modules", early), ("etc/modules.hyperv", early_hyperv)];
    let early = initramfs::build(&inputs.agent, early)?;
    let mut parts: Vec<(String, Vec<u8>)> =
        vec![("kernel".into(), kernel), ("initramfs".into(), early), ("root.erofs".into(), erofs(&root)?)];
    tools.sort();
    parts.extend(tools.into_iter().map(|(name, bytes)| (format!("{HOST_TOOLS}/{name}"), bytes)));
    // Of what boots and not of the lock alone: an image with another agent is another image.
    let contents =
        parts.iter().fold(Sha256::new(), |hash, (_, bytes)| hash.chain_update(Sha256::digest(bytes)));
    let version = format!("{}+{}", definition.version, &hex(&contents.finalize())[..8]);
    let lock_hash = inputs.lock.hash();
    parts.push((
        "sbom.cdx.json".into(),
        sbom::cyclonedx(inputs.lock, &inputs.compiled, &version, definition.arch.name()).into_bytes(),
    ));
    let manifest = Manifest {
        version,
        arch: definition.arch.name().into(),
        created_from_lock: lock_hash,
        parts: parts
            .iter()
            .map(|(name, bytes)| Part {
                name: name.clone(),
                size: bytes.len() as u64,
                sha256: hex(&Sha256::digest(bytes)),
            })
            .collect(),
        cmdline: definition.kernel.cmdline.clone(),
    };
    let json = serde_json::to_vec_pretty(&manifest).context("failed to write the manifest")?;
    let signature = inputs.signer.sign(&json)?;
    let report = parts.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    parts.push((MANIFEST.into(), json));
    parts.push((SIGNATURE.into(), signature.into_bytes()));
    parts.push(("key.pub".into(), inputs.signer.public().into_bytes()));
    write(out, &parts)?;
    Ok(Report { packages: sizes, parts: report })
}

/// In load order: path and bytes.
type Loaded = Vec<(String, Vec<u8>)>;

/// What is loaded before and on the root where a machine has these devices.
fn modules_for(modules: &Modules, kernel: &Kernel, devices: &Devices) -> Result<(Loaded, Loaded)> {
    // Devices first: a disk takes its time to appear.
    let early = modules.load_order(&[&devices.initramfs[..], &kernel.initramfs].concat())?;
    let late = modules.load_order(&[&devices.modules[..], &kernel.modules].concat())?;
    let late = late.into_iter().filter(|(path, _)| !early.iter().any(|(e, _)| e == path)).collect();
    Ok((early, late))
}

/// What no package brings: our agent, the definition's files, applets, modules.
fn furnish(
    root: &mut Tree,
    inputs: &Inputs<'_>,
    release: &str,
    modules: &Loaded,
    hyperv: &Loaded,
) -> Result<()> {
    let definition = inputs.definition;
    for folder in &definition.folders {
        root.put(folder, Node::Dir { mode: 0o755 })?;
    }
    for (path, text) in &definition.files {
        root.file(path, 0o644, text.as_bytes())?;
    }
    for (path, target) in &definition.links {
        root.put(path, Node::Link { target: target.clone() })?;
    }
    for applet in definition.applets.split_whitespace() {
        let (path, other) = (format!("usr/bin/{applet}"), format!("usr/sbin/{applet}"));
        if !root.nodes().contains_key(&path) && !root.nodes().contains_key(&other) {
            root.put(&path, Node::Link { target: "busybox".into() })?;
        }
    }
    root.file("usr/bin/slipway-agent", 0o755, inputs.agent.as_slice())?;
    root.file("usr/bin/slipway-iptables", 0o755, inputs.iptables.as_slice())?;
    root.file(WELCOME, 0o644, welcome::archive(&inputs.welcome, definition.arch.name())?)?;
    for (path, bytes) in modules.iter().chain(hyperv) {
        root.file(&format!("usr/lib/modules/{release}/{path}"), 0o644, bytes.as_slice())?;
    }
    let mut file_events = None;
    let paths = |modules: &Loaded| modules.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let (mut load, mut load_hyperv) = (paths(modules), paths(hyperv));
    for module in &inputs.compiled.modules {
        let path = format!("extra/{}.ko", module.name);
        root.file(&format!("usr/lib/modules/{release}/{path}"), 0o644, module.bytes.as_slice())?;
        // Whether this one is there is said of the shares.
        if module.name == FILE_EVENTS {
            file_events = Some(path);
        } else {
            load.push(path.clone());
            load_hyperv.push(path);
        }
    }
    let guest = serde_json::json!({
        "modules": load,
        "modules_hyperv": load_hyperv,
        "services": definition.services,
        "images": [format!("/{WELCOME}")],
        "file_events": file_events,
    });
    root.file("etc/slipway/guest.json", 0o644, serde_json::to_vec_pretty(&guest)?)
}

/// One file of all certificates, which is what programs read; ca-certificates' own script would make it.
fn certificates(root: &mut Tree) -> Result<()> {
    let folder = "usr/share/ca-certificates/";
    let paths: Vec<String> = root.nodes().keys().filter(|path| path.starts_with(folder)).cloned().collect();
    let mut bundle = Vec::new();
    for path in &paths {
        if let Some(bytes) = root.take(path) {
            bundle.extend_from_slice(&bytes);
            if !bundle.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    if bundle.is_empty() {
        return Ok(());
    }
    root.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle)
}

/// lz4hc in clusters of 64 KiB: less than half the bytes for a twentieth more CPU time of an emulated boot, measured in
/// turns against no compression, clusters of 4 KiB and clusters of 1 MiB. With hardware acceleration unpacking is not seen.
const COMPRESSION: [&str; 2] = ["-zlz4hc,12", "-C65536"];

fn erofs(root: &Tree) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("failed to make a temporary folder")?;
    let (tree, image) = (dir.path().join("root"), dir.path().join("root.erofs"));
    std::fs::create_dir(&tree).context("failed to make a temporary folder")?;
    root.write_to(&tree)?;
    let output = Command::new("mkfs.erofs")
        .args(["--quiet", "-T0", "-U", UUID, "--all-root", "-x-1"])
        .args(COMPRESSION)
        .args([&image, &tree])
        .output()
        .context("failed to run `mkfs.erofs` (package erofs-utils)")?;
    if !output.status.success() {
        bail!("mkfs.erofs says: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    std::fs::read(&image).context("failed to read what mkfs.erofs wrote")
}

/// The folder is complete or not there: it is written beside and renamed.
fn write(out: &Path, parts: &[(String, Vec<u8>)]) -> Result<()> {
    let aside = PathBuf::from(format!("{}.new", out.display()));
    let _ = std::fs::remove_dir_all(&aside);
    for (name, bytes) in parts {
        let path = aside.join(name);
        let parent = path.parent().unwrap_or(&aside);
        let mode = if name.starts_with(HOST_TOOLS) { 0o755 } else { 0o644 };
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, bytes))
            .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(mode)))
            .with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    if out.exists() {
        std::fs::remove_dir_all(out).with_context(|| format!("failed to replace `{}`", out.display()))?;
    }
    std::fs::rename(&aside, out).with_context(|| format!("failed to write `{}`", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{deb::tests::package, definition::Arch, lock::Locked, module::Module};

    fn definition() -> Definition {
        let mut definition = Definition::read(Path::new("../slipway.yaml"), Arch::Amd64).expect("reads");
        let devices = |disk: &str, net: &str| Devices {
            initramfs: vec![disk.to_owned()],
            modules: vec![net.to_owned(), "all".into()],
        };
        definition.kernel.initramfs = vec!["fs".into()];
        definition.kernel.modules = vec!["all".into()];
        definition.kernel.virtio = devices("disk", "net");
        definition.kernel.hyperv = devices("hv-disk", "hv-net");
        definition.kernel.hyperv.modules.push("left_out".into());
        definition.kernel.unpacked = false;
        definition.host_tools.programs = [("cli".to_owned(), "usr/bin/docker".to_owned())].into();
        definition.packages.only = [("emulators".to_owned(), vec!["usr/bin/qemu-a".to_owned()])].into();
        definition
    }

    fn build(dir: &Path, key: &Path) -> PathBuf {
        let module = b"\x7fELF\0depends=\0";
        let packages: [(&str, Role, Vec<u8>); 4] = [
            (
                "kernel",
                Role::Kernel,
                package(&[
                    ("./boot/vmlinuz-6", 0o644, b"kernel"),
                    ("./lib/modules/6/kernel/disk.ko", 0o644, module),
                    ("./lib/modules/6/kernel/net.ko", 0o644, module),
                    ("./lib/modules/6/kernel/hv-disk.ko", 0o644, b"\x7fELF\0depends=bus\0"),
                    ("./lib/modules/6/kernel/hv-net.ko", 0o644, b"\x7fELF\0depends=bus\0"),
                    ("./lib/modules/6/kernel/bus.ko", 0o644, module),
                    ("./lib/modules/6/kernel/all.ko", 0o644, module),
                    ("./lib/modules/6/kernel/fs.ko", 0o644, module),
                ]),
            ),
            (
                "engine",
                Role::Guest,
                package(&[
                    ("./usr/sbin/dockerd", 0o755, b"engine"),
                    ("./usr/share/doc/engine/copyright", 0o644, b"words"),
                    ("./usr/share/ca-certificates/a.crt", 0o644, b"A"),
                ]),
            ),
            (
                "emulators",
                Role::Guest,
                package(&[("./usr/bin/qemu-a", 0o755, b"a"), ("./usr/bin/qemu-b", 0o755, b"b")]),
            ),
            ("cli", Role::HostTool, package(&[("./usr/bin/docker", 0o755, b"docker")])),
        ];
        let mut fetched = Vec::new();
        for (name, role, bytes) in packages {
            let file = dir.join(name);
            std::fs::write(&file, &bytes).expect("writes");
            let locked = Locked {
                name: name.into(),
                version: "1".into(),
                role,
                suite: "testing".into(),
                path: name.into(),
                size: bytes.len() as u64,
                sha256: hex(&Sha256::digest(&bytes)),
            };
            fetched.push(Fetched { locked, file });
        }
        let definition = definition();
        let lock = Lock {
            definition: definition.fingerprint(),
            packages: fetched.iter().map(|f| f.locked.clone()).collect(),
        };
        let inputs = Inputs {
            definition: &definition,
            lock: &lock,
            packages: fetched,
            agent: b"agent".to_vec(),
            iptables: b"iptables".to_vec(),
            welcome: b"welcome".to_vec(),
            compiled: Compiled {
                release: "6".into(),
                of_kernel: vec![("fs/left-out".into(), b"\x7fELF\0depends=fs\0".to_vec())],
                modules: vec![
                    Module { name: FILE_EVENTS.into(), bytes: module.to_vec() },
                    Module { name: "slipway_splice".into(), bytes: module.to_vec() },
                ],
            },
            signer: Signer::load(None, key).expect("key"),
        };
        let out = dir.join("out");
        assemble(inputs, &out).expect("builds");
        out
    }

    #[test]
    fn the_same_lock_gives_the_same_bytes_and_the_host_accepts_them() {
        if Command::new("mkfs.erofs").arg("-V").output().is_err() {
            eprintln!("skipped: mkfs.erofs is not installed (package erofs-utils)");
            return;
        }
        let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let (first, second) = (build(one.path(), one.path()), build(two.path(), one.path()));
        // But for the signature: minisign salts it, and it covers the manifest's bytes all the same.
        let names = ["kernel", "initramfs", "root.erofs", "host-tools/docker", "sbom.cdx.json", MANIFEST];
        for name in names {
            let read = |dir: &Path| std::fs::read(dir.join(name)).expect("part");
            assert!(read(&first) == read(&second), "`{name}` differs between two builds");
        }
        let key = std::fs::read_to_string(first.join("key.pub")).expect("key");
        let manifest = slipway_manifest::verify(&first, &key).expect("the host accepts it");
        assert_eq!(manifest.parts.len(), 5);
        let unpacked = one.path().join("unpacked");
        let extract = format!("--extract={}", unpacked.display());
        let output = Command::new("fsck.erofs").arg(extract).arg(first.join("root.erofs")).output();
        assert!(output.expect("fsck.erofs is where mkfs.erofs is").status.success());
        assert_eq!(std::fs::read(unpacked.join("usr/sbin/dockerd")).expect("kept"), b"engine");
        let guest = std::fs::read(unpacked.join("etc/slipway/guest.json")).expect("furnished");
        let guest: serde_json::Value = serde_json::from_slice(&guest).expect("JSON");
        let splice = "extra/slipway_splice.ko";
        assert_eq!(guest["modules"], serde_json::json!(["kernel/net.ko", "kernel/all.ko", splice]));
        // Their bus is loaded before the root already.
        let hyperv =
            serde_json::json!(["kernel/hv-net.ko", "kernel/all.ko", "kernel/fs/left-out.ko", splice]);
        assert_eq!(guest["modules_hyperv"], hyperv);
        let early = std::fs::read(first.join("initramfs")).expect("read");
        let has = |list: &[u8]| early.windows(list.len()).any(|window| window == list);
        assert!(has(b"/modules/disk.ko\n/modules/fs.ko\n"));
        assert!(has(b"/modules/bus.ko\n/modules/hv-disk.ko\n/modules/fs.ko\n"));
        let ours = |name| unpacked.join(format!("usr/lib/modules/6/extra/{name}.ko")).exists();
        assert!(ours(FILE_EVENTS) && ours("slipway_splice"), "with our own modules");
        let taken = |name| unpacked.join("usr/bin").join(name).exists();
        assert!(taken("qemu-a") && !taken("qemu-b"), "of some packages only what is asked for");
        assert!(!unpacked.join("usr/share/doc").exists(), "trimmed");
    }
}
