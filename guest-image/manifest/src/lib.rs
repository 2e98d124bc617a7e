//! What a guest image says about itself, and the check that it is still what was signed.
//!
//! The builder writes the manifest, the host refuses to boot what does not fit it; both read it through this crate, so
//! that neither can mean something else by it.
//!
//! ```text
//!   key.pub ──signs──▶ manifest.json.minisig ──of──▶ manifest.json ──size, sha256──▶ kernel initramfs root.erofs …
//! ```

use std::{
    fs::File,
    io::{self, Read},
    panic::resume_unwind,
    path::{Path, PathBuf},
};

use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The manifest's file name in an image folder.
pub const MANIFEST: &str = "manifest.json";
/// Its signature's.
pub const SIGNATURE: &str = "manifest.json.minisig";
/// The one folder that parts may lie in, besides the image's own.
pub const HOST_TOOLS: &str = "host-tools";
/// Longest manifest or signature in bytes: read whole before it is trusted.
const LONGEST: u64 = 1 << 20;

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Relative to the image folder: `kernel`, `host-tools/docker`.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// What is signed. Keys of newer builders are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the image, for a person.
    pub version: String,
    /// Debian's name: `amd64`, `arm64`.
    pub arch: String,
    /// Hash of the lock that it was built from, in lower-case hexadecimal.
    pub created_from_lock: String,
    /// Every file but the manifest, its signature and the key.
    pub parts: Vec<Part>,
    /// Words for the kernel's command line.
    pub cmdline: Vec<String>,
}

/// The image is not what was signed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file could not be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key is none.
    #[error("the image key is not a minisign public key")]
    Key(#[source] minisign_verify::Error),
    /// The manifest was not signed with this key, or was changed.
    #[error("the signature of `{path}` does not fit")]
    Signature {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: minisign_verify::Error,
    },
    /// The manifest was signed and is not understood.
    #[error("failed to parse `{path}`")]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A part would lie outside the image folder.
    #[error("the image names a part `{0}`, which no image has")]
    Name(String),
    /// A part is shorter or longer than it was.
    #[error("`{path}` has {found} bytes instead of {expected}")]
    Size {
        /// The part.
        path: PathBuf,
        /// In bytes.
        expected: u64,
        /// In bytes.
        found: u64,
    },
    /// A part was changed.
    #[error("`{path}` is damaged: its checksum does not fit")]
    Checksum {
        /// The part.
        path: PathBuf,
    },
}

impl Part {
    /// Whether it is for the host, and no machine boots from it.
    pub fn is_host_tool(&self) -> bool {
        self.name.strip_prefix(HOST_TOOLS).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Checks a file that is to be this part. Reads all of it. Blocks.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn check(&self, path: &Path) -> Result<(), VerifyError> {
        let path = path.to_owned();
        let failed = |source| VerifyError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found != self.size {
            return Err(VerifyError::Size { path, expected: self.size, found });
        }
        if hash(&mut file).map_err(failed)? != self.sha256 {
            return Err(VerifyError::Checksum { path });
        }
        Ok(())
    }
}

/// Reads the manifest in `dir` and checks it and every part. `key` is the text of a minisign public key.
///
/// Reads every byte of the image: some tenths of a second. Blocks.
///
/// # Errors
/// See [`VerifyError`]; the first thing that does not fit.
pub fn verify(dir: &Path, key: &str) -> Result<Manifest, VerifyError> {
    verify_those(dir, key, |_| true)
}

/// As [`verify`], but of the parts only those that a machine boots from: who uses a tool for the host checks it then.
///
/// # Errors
/// See [`VerifyError`]; the first thing that does not fit.
pub fn verify_bootable(dir: &Path, key: &str) -> Result<Manifest, VerifyError> {
    verify_those(dir, key, |part| !part.is_host_tool())
}

fn verify_those(dir: &Path, key: &str, which: impl Fn(&Part) -> bool) -> Result<Manifest, VerifyError> {
    let key =
        PublicKey::decode(key).or_else(|_| PublicKey::from_base64(key.trim())).map_err(VerifyError::Key)?;
    let path = dir.join(MANIFEST);
    let json = read_short(&path)?;
    let signature_path = dir.join(SIGNATURE);
    let text = String::from_utf8_lossy(&read_short(&signature_path)?).into_owned();
    let not_signed = |source| VerifyError::Signature { path: path.clone(), source };
    let signature = Signature::decode(&text).map_err(not_signed)?;
    key.verify(&json, &signature, false).map_err(not_signed)?;
    let manifest: Manifest =
        serde_json::from_slice(&json).map_err(|source| VerifyError::Parse { path: path.clone(), source })?;
    for part in &manifest.parts {
        if !is_part_name(&part.name) {
            return Err(VerifyError::Name(part.name.clone()));
        }
    }
    // At once: a boot waits for it.
    std::thread::scope(|threads| {
        let parts = manifest.parts.iter().filter(|part| which(part));
        let checks: Vec<_> = parts.map(|part| threads.spawn(|| part.check(&dir.join(&part.name)))).collect();
        let ended = checks.into_iter().map(|check| check.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ended.collect::<Result<(), _>>()
    })?;
    Ok(manifest)
}

fn read_short(path: &Path) -> Result<Vec<u8>, VerifyError> {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read(path).map_err(|source| VerifyError::Read { path: path.to_owned(), source })
}

/// A plain file name, alone or in [`HOST_TOOLS`].
fn is_part_name(name: &str) -> bool {
    let name = name.strip_prefix(HOST_TOOLS).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// SHA-256 of everything that `source` still has, in lower-case hexadecimal.
///
/// # Errors
/// The source's.
pub fn hash(source: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(source, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::KeyPair;

    struct Image {
        dir: tempfile::TempDir,
        key: String,
    }

    const PARTS: [(&str, &[u8]); 3] =
        [("kernel", b"a kernel"), ("root.erofs", &[7; 70_000]), ("host-tools/docker", b"#!docker")];

    fn image_with(parts: Vec<Part>) -> Image {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir(dir.path().join(HOST_TOOLS)).expect("folder");
        for (name, bytes) in PARTS {
            std::fs::write(dir.path().join(name), bytes).expect("part");
        }
        let manifest = Manifest {
            version: "1".into(),
            arch: "amd64".into(),
            created_from_lock: "0".into(),
            parts,
            cmdline: vec!["quiet".into()],
        };
        let json = serde_json::to_vec(&manifest).expect("json");
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().expect("key");
        let signature = minisign::sign(Some(&pk), &sk, json.as_slice(), None, None).expect("signs");
        std::fs::write(dir.path().join(MANIFEST), json).expect("manifest");
        std::fs::write(dir.path().join(SIGNATURE), signature.into_string()).expect("signature");
        Image { dir, key: pk.to_base64() }
    }

    fn image() -> Image {
        let part = |(name, mut bytes): (&str, &[u8])| Part {
            name: name.into(),
            size: bytes.len() as u64,
            sha256: hash(&mut bytes).expect("hashes"),
        };
        image_with(PARTS.into_iter().map(part).collect())
    }

    fn flip(path: &Path, bit: usize) {
        let mut bytes = std::fs::read(path).expect("reads");
        let at = bit % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        std::fs::write(path, bytes).expect("writes");
    }

    #[test]
    fn an_image_as_it_was_built_is_accepted() {
        let image = image();
        assert_eq!(verify(image.dir.path(), &image.key).expect("fits").parts.len(), PARTS.len());
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused() {
        let image = image();
        let dir = image.dir.path();
        for name in PARTS.map(|(name, _)| name).into_iter().chain([MANIFEST]) {
            for bit in [0, 13, 4_099] {
                flip(&dir.join(name), bit);
                assert!(verify(dir, &image.key).is_err(), "bit {bit} of {name}");
                flip(&dir.join(name), bit);
            }
        }
        verify(dir, &image.key).expect("every bit is back");
        // What is not booted delays no boot.
        flip(&dir.join("host-tools/docker"), 3);
        let manifest = verify_bootable(dir, &image.key).expect("what is booted is whole");
        let tool = manifest.parts.iter().find(|part| part.is_host_tool()).expect("listed");
        assert!(matches!(tool.check(&dir.join(&tool.name)), Err(VerifyError::Checksum { .. })));
        flip(&dir.join("kernel"), 3);
        assert!(matches!(verify_bootable(dir, &image.key), Err(VerifyError::Checksum { .. })));
    }

    #[test]
    fn another_key_or_a_damaged_signature_is_refused() {
        let (image, other) = (image(), image());
        let dir = image.dir.path();
        assert!(matches!(verify(dir, &other.key), Err(VerifyError::Signature { .. })));
        assert!(matches!(verify(dir, "no key"), Err(VerifyError::Key(_))));
        let signature = std::fs::read_to_string(dir.join(SIGNATURE)).expect("reads");
        let second_line = signature.lines().next().map_or(0, |line| line.len() + 1);
        flip(&dir.join(SIGNATURE), (second_line + 40) * 8);
        assert!(matches!(verify(dir, &image.key), Err(VerifyError::Signature { .. })));
    }

    #[test]
    fn parts_that_are_gone_short_or_elsewhere_are_named() {
        let image = image();
        let dir = image.dir.path();
        std::fs::write(dir.join("kernel"), "a ker").expect("cut");
        assert!(matches!(verify(dir, &image.key), Err(VerifyError::Size { found: 5, expected: 8, .. })));
        std::fs::remove_file(dir.join("kernel")).expect("removes");
        let error = verify(dir, &image.key).expect_err("gone");
        assert!(error.to_string().contains("kernel"), "{error}");
        for name in ["../kernel", "/etc/passwd", "a/b", "", "..", "host-tools/../kernel", "host-tools/.."] {
            let image = image_with(vec![Part { name: name.into(), size: 0, sha256: String::new() }]);
            let refused = verify(image.dir.path(), &image.key);
            assert!(matches!(refused, Err(VerifyError::Name(_))), "{name}: {refused:?}");
        }
    }
}
