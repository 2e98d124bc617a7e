//! The kernel's modules: unpacked at build time, picked by name with what they need, in load order. The guest has no
//! modprobe and no depmod, so all of that is settled here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::tree::{Node, Tree};

pub(crate) struct Modules {
    /// By name: path below the release's folder, and the unpacked module.
    found: BTreeMap<String, (String, Vec<u8>)>,
    built_in: BTreeSet<String>,
    /// `6.12.117+deb13-cloud-amd64`.
    pub(crate) release: String,
}

/// Names are written with `-` and `_` alike.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

impl Modules {
    /// Takes the modules out of the tree of the kernel's package.
    pub(crate) fn take(tree: &Tree) -> Result<Self> {
        let base = "usr/lib/modules/";
        let first = tree.nodes().keys().find_map(|path| path.strip_prefix(base)?.split('/').next());
        let release = first.context("the kernel's package has no modules")?.to_owned();
        let base = format!("{base}{release}/");
        let mut found = BTreeMap::new();
        let mut built_in = BTreeSet::new();
        for (path, node) in tree.nodes() {
            let (Some(path), Node::File { bytes, .. }) = (path.strip_prefix(&base), node) else { continue };
            let file = path.rsplit('/').next().unwrap_or(path);
            if let Some(name) = file.strip_suffix(".ko.xz") {
                found.insert(plain(name), (path.trim_end_matches(".xz").to_owned(), bytes.clone()));
            } else if let Some(name) = file.strip_suffix(".ko") {
                found.insert(plain(name), (path.to_owned(), bytes.clone()));
            } else if file == "modules.builtin" {
                let text = String::from_utf8_lossy(bytes);
                let names = text.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
                built_in.extend(names.map(plain));
            }
        }
        Ok(Self { found, built_in, release })
    }

    /// Adds one that is not in the kernel's package. `path` is below the release's folder, with `.ko`.
    pub(crate) fn add(&mut self, path: String, bytes: Vec<u8>) {
        let name = path.rsplit('/').next().unwrap_or(&path).trim_end_matches(".ko");
        self.found.insert(plain(name), (path, bytes));
    }

    /// The modules and all that they need, in load order: path below the release's folder, and bytes.
    pub(crate) fn load_order(&self, names: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
        let (mut order, mut done) = (Vec::new(), BTreeSet::new());
        for name in names {
            self.visit(&plain(name), &mut order, &mut done)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        order: &mut Vec<(String, Vec<u8>)>,
        done: &mut BTreeSet<String>,
    ) -> Result<()> {
        if self.built_in.contains(name) || !done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some((path, packed)) = self.found.get(name) else {
            bail!("the kernel {} has no module `{name}`", self.release);
        };
        let bytes = unpacked(packed).with_context(|| format!("failed to unpack the module `{name}`"))?;
        for needed in depends(&bytes) {
            self.visit(&needed, order, done)?;
        }
        order.push((path.clone(), bytes));
        Ok(())
    }
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut unpacked = Vec::new();
    if bytes.starts_with(b"\x7fELF") {
        unpacked.extend_from_slice(bytes);
    } else {
        liblzma::read::XzDecoder::new(bytes).take(256 << 20).read_to_end(&mut unpacked)?;
    }
    unsign(&mut unpacked);
    Ok(unpacked)
}

/// Takes the signature off a module. The package that it came in was verified, and the image is signed as a whole, so it
/// would prove nothing new; but for an emulated processor each check of one is a tenth of a second of every boot.
///
/// At the end of the file: the signature, `struct module_signature` (its last four bytes are the signature's length,
/// big-endian), the mark.
fn unsign(module: &mut Vec<u8>) {
    const MARK: &[u8] = b"~Module signature appended~\n";
    const DESCRIPTION: usize = 12;
    let Some(rest) = module.strip_suffix(MARK).and_then(|signed| signed.split_last_chunk::<4>()) else {
        return;
    };
    let (before, length) = (rest.0.len() + 4, u32::from_be_bytes(*rest.1) as usize);
    if let Some(end) = before.checked_sub(DESCRIPTION).and_then(|end| end.checked_sub(length)) {
        module.truncate(end);
    }
}

/// What `.modinfo` says that the module needs: `depends=a,b`, between NULs.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    let starts = module.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY);
    let mut of_modinfo = starts.filter(|(at, _)| *at == 0 || module[at - 1] == 0);
    let Some((at, _)) = of_modinfo.next() else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_taken_off_and_nothing_else() {
        let plain = b"\x7fELF and code".to_vec();
        let signed = |length: u32| {
            let tail = [&[9; 40][..], &[0; 8], &length.to_be_bytes(), b"~Module signature appended~\n"];
            [&plain[..], &tail.concat()].concat()
        };
        assert_eq!(unpacked(&plain).expect("is one"), plain);
        assert_eq!(unpacked(&signed(40)).expect("is one"), plain);
        // A length that cannot be is no signature's.
        assert_eq!(unpacked(&signed(4000)).expect("is one"), signed(4000));
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let mut tree = Tree::merged();
        let mut module = |name: &str, needs: &str| {
            let bytes = [b"\x7fELF\0license=GPL\0depends=", needs.as_bytes(), b"\0x"].concat();
            tree.file(&format!("lib/modules/6.1/kernel/{name}.ko"), 0o644, bytes).expect("put");
        };
        module("top", "mid-dle,other");
        module("mid_dle", "base");
        module("other", "base,built_in");
        module("base", "");
        tree.file("lib/modules/6.1/modules.builtin", 0o644, "kernel/x/built-in.ko\n").expect("put");
        let mut modules = Modules::take(&tree).expect("reads");
        assert!(modules.load_order(&["9p".into()]).is_err(), "not yet");
        modules.add("kernel/fs/9p/9p.ko".into(), b"\x7fELF\0depends=base\0".to_vec());
        let order = modules.load_order(&["9p".into()]).expect("orders");
        assert_eq!(order[1].0, "kernel/fs/9p/9p.ko", "after what it needs");
        let order = modules.load_order(&["top".into(), "base".into(), "built_in".into()]).expect("orders");
        let paths: Vec<&str> = order.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["kernel/base.ko", "kernel/mid_dle.ko", "kernel/other.ko", "kernel/top.ko"]);
        assert!(modules.load_order(&["gone".into()]).is_err());
    }
}
