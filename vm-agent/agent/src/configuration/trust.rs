//! Whom the engine trusts: files that dockerd and BuildKit read, some of them at each connection to a registry.
//!
//! ```text
//!   authorities.pem    SSL_CERT_FILE of the engine: read once, when it first needs them
//!   certs.d ─▶ certs-N /etc/docker/certs.d leads here: read anew each time; a new folder takes the old one's place whole
//! ```

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::Path,
};

use slipway_protocol::v1::RegistryFile;

/// What the image brings, for a host that does not say whom it trusts.
const OWN: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Below the root: the authorities.
const AUTHORITIES: &str = "authorities.pem";
/// Below the root: what `/etc/docker/certs.d` leads to.
const REGISTRIES: &str = "certs.d";
/// What dockerd reads in a registry's folder.
const KINDS: [&str; 3] = [".crt", ".cert", ".key"];

/// Writes all of it below `root`.
pub(super) fn write(root: &Path, authorities: &[u8], files: &[RegistryFile]) -> io::Result<()> {
    let pem = if authorities.is_empty() { fs::read(OWN).unwrap_or_default() } else { authorities.to_owned() };
    super::replace(&root.join(AUTHORITIES), &pem)?;
    registries(root, files)
}

fn registries(root: &Path, files: &[RegistryFile]) -> io::Result<()> {
    let link = root.join(REGISTRIES);
    let old = fs::read_link(&link).ok();
    let next = if old.as_deref() == Some(Path::new("certs-1")) { "certs-2" } else { "certs-1" };
    let folder = root.join(next);
    // Left by an attempt that failed half way.
    let _ = fs::remove_dir_all(&folder);
    let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
    private(&folder)?;
    for file in files.iter().filter(|file| is_name(&file.registry) && is_file(&file.name)) {
        let registry = folder.join(&file.registry);
        if !registry.is_dir() {
            private(&registry)?;
        }
        // Keys are among them.
        let mut options = fs::OpenOptions::new();
        let mut out =
            options.write(true).create(true).truncate(true).mode(0o600).open(registry.join(&file.name))?;
        io::Write::write_all(&mut out, &file.content)?;
    }
    let aside = root.join("certs.d.new");
    let _ = fs::remove_file(&aside);
    symlink(next, &aside)?;
    fs::rename(&aside, &link)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(root.join(old));
    }
    Ok(())
}

/// One component of a path, and no way out of the folder.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && !text.contains(['/', '\0']) && text != "." && text != ".."
}

fn is_file(text: &str) -> bool {
    is_name(text) && KINDS.iter().any(|kind| text.ends_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(registry: &str, name: &str) -> RegistryFile {
        RegistryFile { registry: registry.into(), name: name.into(), content: b"pem".to_vec() }
    }

    #[test]
    fn what_is_there_is_what_was_said_last() {
        let root = tempfile::tempdir().expect("folder");
        let read = |path: &str| fs::read(root.path().join("certs.d").join(path)).ok();
        for registry in ["a:5000", "b:5000", "c:5000"] {
            write(root.path(), b"all", &[file(registry, "ca.crt")]).expect("written");
            assert_eq!(read(&format!("{registry}/ca.crt")).as_deref(), Some(&b"pem"[..]), "{registry}");
        }
        assert_eq!((read("a:5000/ca.crt"), read("b:5000/ca.crt")), (None, None));
        assert_eq!(fs::read(root.path().join(AUTHORITIES)).expect("there"), b"all");
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 3, "nothing is left over");
    }

    #[test]
    fn no_file_leaves_its_folder() {
        let root = tempfile::tempdir().expect("folder");
        let files = [
            file("..", "ca.crt"),
            file("a/b", "ca.crt"),
            file("a", "../../x.crt"),
            file("a", "sh"),
            file("", "x.crt"),
        ];
        write(root.path(), b"", &files).expect("written");
        assert_eq!(fs::read_dir(root.path().join("certs.d")).expect("there").count(), 0);
    }
}
