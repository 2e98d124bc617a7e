//! Unpacks a Debian package: an `ar` archive with a tar in it. Nothing of it is run, and nothing leaves the tree.

use std::io::Read;

use anyhow::{Context, Result, bail};
use tar::EntryType;

use crate::tree::{Node, Tree};

/// Longest package contents in bytes: a small file that unpacks without end is refused.
const LONGEST: u64 = 2 << 30;

/// Puts the package's files into the tree; returns their bytes together.
pub(crate) fn unpack(deb: &[u8], tree: &mut Tree) -> Result<()> {
    let mut archive = ar::Archive::new(deb);
    while let Some(entry) = archive.next_entry() {
        let entry = entry.context("the package is damaged")?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        match name.trim_end_matches('/') {
            "data.tar.xz" => return unpack_tar(liblzma::read::XzDecoder::new(entry), tree),
            "data.tar.zst" => return unpack_tar(zstd::stream::read::Decoder::new(entry)?, tree),
            "data.tar" => return unpack_tar(entry, tree),
            name if name.starts_with("data.tar") => {
                bail!("`{name}` is packed in a way that is not understood")
            }
            _ => {}
        }
    }
    bail!("the package has no contents")
}

fn unpack_tar(reader: impl Read, tree: &mut Tree) -> Result<()> {
    let mut tar = tar::Archive::new(reader.take(LONGEST));
    // Hard links name files that came before.
    for entry in tar.entries().context("the package is damaged")? {
        let mut entry = entry.context("the package is damaged")?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).context("a path is not UTF-8")?;
        let mode = entry.header().mode()? & 0o7777;
        let target = || -> Result<String> {
            let bytes = entry.link_name_bytes().context("a link without a target")?;
            String::from_utf8(bytes.into_owned()).context("a link's target is not UTF-8")
        };
        let node = match entry.header().entry_type() {
            EntryType::Directory => Node::Dir { mode },
            EntryType::Symlink => Node::Link { target: target()? },
            EntryType::Link => {
                let from = Tree::place(&target()?)?;
                let bytes = tree
                    .get(&from)
                    .with_context(|| format!("`{path}` links to `{from}`, which is not there"))?;
                Node::File { mode, bytes: bytes.to_owned() }
            }
            EntryType::Regular | EntryType::Continuous => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).with_context(|| format!("failed to unpack `{path}`"))?;
                Node::File { mode, bytes }
            }
            other => bail!("`{path}` is of a kind ({other:?}) that no package of the guest has"),
        };
        tree.put(&path, node)?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package of these files; a mode of 0 makes a symlink to the contents.
    pub(crate) fn package(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, mode, bytes) in files {
            let mut header = tar::Header::new_gnu();
            // Not `set_path`, which refuses what this must be able to make.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(if *mode == 0 { 0o777 } else { *mode });
            if *mode == 0 {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name(std::str::from_utf8(bytes).expect("text")).expect("fits");
                header.set_size(0);
            } else {
                header.set_size(bytes.len() as u64);
            }
            header.set_cksum();
            tar.append(&header, if *mode == 0 { &[][..] } else { bytes }).expect("appends");
        }
        let tar = tar.into_inner().expect("finishes");
        let mut deb = ar::Builder::new(Vec::new());
        deb.append(&ar::Header::new(b"debian-binary".to_vec(), 4), &b"2.0\n"[..]).expect("appends");
        deb.append(&ar::Header::new(b"data.tar".to_vec(), tar.len() as u64), tar.as_slice())
            .expect("appends");
        deb.into_inner().expect("finishes")
    }

    #[test]
    fn files_and_links_arrive() {
        let mut tree = Tree::merged();
        unpack(&package(&[("./bin/a", 0o755, b"a"), ("./usr/bin/b", 0, b"a")]), &mut tree).expect("unpacks");
        assert_eq!(tree.get("usr/bin/a"), Some(&b"a"[..]));
        assert_eq!(tree.nodes()["usr/bin/b"], Node::Link { target: "a".into() });
    }

    #[test]
    fn a_hostile_package_is_refused() {
        let hostile: [&[(&str, u32, &[u8])]; 2] =
            [&[("./../../etc/cron.d/x", 0o644, b"x")], &[("./a", 0, b"/etc"), ("./a/passwd", 0o644, b"x")]];
        for files in hostile {
            assert!(unpack(&package(files), &mut Tree::merged()).is_err(), "{files:?}");
        }
        assert!(unpack(b"!<arch>\n", &mut Tree::merged()).is_err());
        assert!(unpack(b"garbage", &mut Tree::merged()).is_err());
    }
}
