//! Unpacks a Debian package: an `ar` archive with a tar in it. Nothing of it is run, and nothing leaves the tree.

use std::{collections::BTreeMap, io::Read};

use anyhow::{Context, Result, bail};
use tar::EntryType;

use crate::tree::{Node, Tree};

/// Longest package contents in bytes: a small file that unpacks without end is refused.
const LONGEST: u64 = 2 << 30;

/// Puts the package's files into the tree.
pub(crate) fn unpack(deb: &[u8], tree: &mut Tree) -> Result<()> {
    contents(deb, |tar| unpack_tar(tar, tree))
}

/// Files of a source package, which holds one packed tar: those right in one of `folders` of its own top folder, by their path below
/// that. Nothing else is kept, in memory or on the disk: a kernel is a gigabyte and a half.
pub(crate) fn source_files(deb: impl Read, folders: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    contents(deb, |tar| {
        let mut tar = tar::Archive::new(tar);
        for entry in tar.entries().context("the package is damaged")? {
            let entry = entry.context("the package is damaged")?;
            if entry.path_bytes().ends_with(b".tar.xz") {
                return of_source(liblzma::read::XzDecoder::new(entry), folders, &mut files);
            }
        }
        bail!("the package has no `.tar.xz`")
    })?;
    Ok(files)
}

fn of_source(reader: impl Read, folders: &[&str], files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let mut tar = tar::Archive::new(reader.take(LONGEST));
    for entry in tar.entries().context("the source is damaged")? {
        let mut entry = entry.context("the source is damaged")?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((_, path)) = path.split_once('/') else { continue };
        let wanted = path.rsplit_once('/').is_some_and(|(folder, _)| folders.contains(&folder));
        if wanted && entry.header().entry_type() == EntryType::Regular {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(|| format!("failed to unpack `{path}`"))?;
            files.insert(path.to_owned(), bytes);
        }
    }
    Ok(())
}

/// Reads the tar with the package's files.
fn contents(deb: impl Read, read: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<()> {
    let mut archive = ar::Archive::new(deb);
    while let Some(entry) = archive.next_entry() {
        let entry = entry.context("the package is damaged")?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        match name.trim_end_matches('/') {
            "data.tar.xz" => return read(&mut liblzma::read::XzDecoder::new(entry)),
            "data.tar.zst" => return read(&mut zstd::stream::read::Decoder::new(entry)?),
            "data.tar" => return read(&mut { entry }),
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
    fn of_a_source_only_the_folders_that_are_asked_for_are_kept() {
        let mut tar = tar::Builder::new(Vec::new());
        for path in [
            "linux-6/net/9p/mod.c",
            "linux-6/net/9p/deep/no.c",
            "linux-6/fs/9p/v9fs.c",
            "linux-6/fs/9pno/x.c",
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            tar.append_data(&mut header, path, &b"x"[..]).expect("appends");
        }
        let mut packed = Vec::new();
        let tar = tar.into_inner().expect("finishes");
        liblzma::read::XzEncoder::new(tar.as_slice(), 1).read_to_end(&mut packed).expect("packs");
        let deb =
            package(&[("./usr/share/doc/x", 0o644, b"x"), ("./usr/src/linux-6.tar.xz", 0o644, &packed)]);
        let files = source_files(deb.as_slice(), &["net/9p", "fs/9p"]).expect("unpacks");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["fs/9p/v9fs.c", "net/9p/mod.c"]);
        let none = package(&[("./usr/share/doc/x", 0o644, b"x")]);
        assert!(source_files(none.as_slice(), &["net/9p"]).is_err());
        // Behind it are the rest of its block and two empty ones.
        let cut = deb.len() - 3 * 512 + packed.len() / 2;
        assert!(source_files(&deb[..cut], &["net/9p"]).is_err(), "cut off");
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
