//! The guest image of a profile: checked before each boot, and replaced as a whole.
//!
//! The key that signed the first image is pinned as `image.pub`; an image of another key is refused unless the person says
//! that it is to be trusted from now on.

use std::{
    io,
    path::{Path, PathBuf},
};

use slipway_api::{ImageRequest, Problem, paths::Paths};
use slipway_manifest::{MANIFEST, Manifest, SIGNATURE, VerifyError, verify, verify_bootable};

/// The public key, beside the parts of an image that was built here.
const KEY: &str = "key.pub";

fn pinned(paths: &Paths) -> PathBuf {
    paths.root().join("image.pub")
}

fn damaged(error: &VerifyError) -> Problem {
    Problem::from_error("image-damaged", error)
        .hint("install the image again: `slipway image install DIR` (`./installer/up` does it too)")
}

fn io_problem(act: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new("image-install", format!("failed to {act} `{}`", path.display())).because(error.to_string())
}

/// The image that a package brought along with the program.
pub(crate) fn packaged(exe: &Path) -> Option<PathBuf> {
    let dir = exe.parent()?.parent()?.join("share/slipway/image");
    dir.join(MANIFEST).is_file().then_some(dir)
}

/// Installs the image of the package that `exe` is from: where there is none, or another one that the same key signed, as
/// after an upgrade. An image of the person's own stays. Blocks.
pub(crate) fn provide(paths: &Paths, exe: &Path) -> Result<(), Problem> {
    let Some(dir) = packaged(exe) else { return Ok(()) };
    let read = |file: PathBuf| std::fs::read(file).ok();
    let installed = read(paths.image_dir().join(MANIFEST));
    let ours = read(pinned(paths))
        .is_some_and(|pin| read(dir.join(KEY)).is_some_and(|key| key.trim_ascii() == pin.trim_ascii()));
    let wanted = match &installed {
        None => true,
        Some(manifest) => ours && read(dir.join(MANIFEST)).as_ref() != Some(manifest),
    };
    if wanted {
        // What the package brought is as trusted as the program itself.
        install(paths, &ImageRequest { dir, trust_key: installed.is_none() })?;
    }
    Ok(())
}

/// Checks what of the installed image is booted. Blocks for as long as reading it takes.
pub(crate) fn check(paths: &Paths) -> Result<Manifest, Problem> {
    let dir = paths.image_dir();
    if !dir.join(MANIFEST).exists() {
        return Err(Problem::new("image-missing", format!("there is no guest image in `{}`", dir.display()))
            .hint("build and install one: `./installer/up`, or `slipway image install DIR`"));
    }
    let key = pinned(paths);
    let text = std::fs::read_to_string(&key).map_err(|error| io_problem("read", &key, &error))?;
    verify_bootable(&dir, &text).map_err(|error| damaged(&error))
}

/// The installed image's version, unchecked: for a status.
pub(crate) fn version(paths: &Paths) -> Option<String> {
    let json = std::fs::read(paths.image_dir().join(MANIFEST)).ok()?;
    Some(serde_json::from_slice::<Manifest>(&json).ok()?.version)
}

/// Checks the image in a folder and puts it in place of the installed one, whole or not at all. Blocks.
pub(crate) fn install(paths: &Paths, request: &ImageRequest) -> Result<Manifest, Problem> {
    let from = &request.dir;
    let key_file = from.join(KEY);
    let key = std::fs::read_to_string(&key_file).map_err(|error| {
        io_problem("read", &key_file, &error)
            .hint("name the folder that `slipway-image build --out DIR` wrote")
    })?;
    let pin = pinned(paths);
    match std::fs::read_to_string(&pin) {
        Ok(known) if known.trim() != key.trim() && !request.trust_key => {
            return Err(Problem::new(
                "image-key",
                "the image was signed with another key than the installed one",
            )
            .because(format!("`{}` differs from `{}`", key_file.display(), pin.display()))
            .hint("if you trust whoever built it: `slipway image install --trust-key DIR`"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_problem("read", &pin, &error)),
    }
    let manifest = verify(from, &key).map_err(|error| damaged(&error))?;
    let target = paths.image_dir();
    let aside = target.with_extension("new");
    let old = target.with_extension("old");
    let _ = std::fs::remove_dir_all(&aside);
    let names = manifest.parts.iter().map(|part| part.name.as_str()).chain([MANIFEST, SIGNATURE, KEY]);
    for name in names {
        let (source, copy) = (from.join(name), aside.join(name));
        copy_synced(&source, &copy).map_err(|error| io_problem("copy", &source, &error))?;
    }
    // Checked where it will be used: what was copied may not be what was read before.
    verify(&aside, &key).map_err(|error| damaged(&error))?;
    let _ = std::fs::remove_dir_all(&old);
    if target.exists() {
        std::fs::rename(&target, &old).map_err(|error| io_problem("set aside", &target, &error))?;
    }
    if let Err(error) = std::fs::rename(&aside, &target) {
        // The old one is as good as it was.
        let _ = std::fs::rename(&old, &target);
        return Err(io_problem("put the image into", &target, &error));
    }
    let _ = std::fs::remove_dir_all(&old);
    slipway_settings::file::replace(&pin, key.as_bytes())
        .map_err(|error| io_problem("write", &pin, &error))?;
    Ok(manifest)
}

fn copy_synced(source: &Path, target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(source, target)?;
    std::fs::File::open(target)?.sync_all()
}
