//! The guest image of a profile: checked before each boot, replaced as a whole, and exchanged with the one before it.
//!
//! ```text
//!   install ─▶ image ──the next install──▶ image.previous ──the next but one──▶ gone
//!                ▲                              │
//!                └── roll back, first boot failed ┘  and what was in `image` then is not taken from the package again
//! ```
//!
//! The key that signed the first image is pinned as `image.pub`; an image of another key is refused unless the person says
//! that it is to be trusted from now on.

use std::{
    io,
    path::{Path, PathBuf},
};

use slipway_api::{GuestImage, GuestImages, ImageRequest, Problem, Update, paths::Paths};
use slipway_manifest::{MANIFEST, Manifest, SIGNATURE, VerifyError, verify, verify_bootable};
use slipway_vm::GuestArch;

use crate::system;

/// The public key, beside the parts of an image that was built here.
const KEY: &str = "key.pub";

fn pinned(paths: &Paths) -> PathBuf {
    paths.root().join("image.pub")
}

/// The image before the installed one.
fn previous(paths: &Paths) -> PathBuf {
    paths.image_dir().with_extension("previous")
}

/// The manifest of the image that the person went back from, or chose another instead of.
fn declined(paths: &Paths) -> PathBuf {
    paths.root().join("image.declined")
}

/// The manifest of the image that booted here last.
fn proven(paths: &Paths) -> PathBuf {
    paths.root().join("image.booted")
}

fn damaged(error: &VerifyError) -> Problem {
    Problem::from_error("image-damaged", error)
        .hint("install the image again: `slipway image install DIR` (`./installer/up` does it too)")
}

fn io_problem(act: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new("image-install", format!("failed to {act} `{}`", path.display())).because(error.to_string())
}

/// Where a package puts an image beside the program.
pub(crate) fn package(exe: &Path) -> Option<PathBuf> {
    Some(exe.parent()?.parent()?.join("share/slipway/image"))
}

/// The image that a package brought along with the program.
pub(crate) fn packaged(exe: &Path) -> Option<PathBuf> {
    package(exe).filter(|dir| dir.join(MANIFEST).is_file())
}

/// Installs the image of the package that `exe` is from: where there is none, or another one that the same key signed, as
/// after an upgrade. An image of the person's own stays. Blocks.
pub(crate) fn provide(paths: &Paths, exe: &Path) -> Result<(), Problem> {
    let Some(dir) = packaged(exe) else { return Ok(()) };
    let read = |file: PathBuf| std::fs::read(file).ok();
    let installed = read(paths.image_dir().join(MANIFEST));
    let packaged = read(dir.join(MANIFEST));
    let ours = read(pinned(paths))
        .is_some_and(|pin| read(dir.join(KEY)).is_some_and(|key| key.trim_ascii() == pin.trim_ascii()));
    let wanted = match &installed {
        None => true,
        Some(manifest) => ours && packaged.as_ref() != Some(manifest) && packaged != read(declined(paths)),
    };
    if wanted {
        // What the package brought is as trusted as the program itself.
        install(paths, &ImageRequest { dir, trust_key: installed.is_none() })?;
    }
    Ok(())
}

/// The image that the package brought, where it is another than the installed one and signed by the same key; unchecked, for a
/// status. Blocks.
pub(crate) fn ready(paths: &Paths, exe: &Path) -> Option<Update> {
    let dir = packaged(exe)?;
    let pin = std::fs::read_to_string(pinned(paths)).ok()?;
    let key = std::fs::read_to_string(dir.join(KEY)).ok()?;
    let other = (key.trim() == pin.trim()).then(|| another(paths, &dir))??;
    Some(update(paths, dir, other))
}

/// Checks an image that is to take the place of the installed one: that in `dir`, or the package's. Reads all of it. Blocks.
pub(crate) fn examine(paths: &Paths, exe: &Path, dir: Option<PathBuf>) -> Result<Update, Problem> {
    let none = |what: String| {
        Problem::new("update-none", what)
            .hint("newer images come with newer packages; `slipway update --from DIR` takes another")
    };
    let in_use = version(paths)
        .map_or_else(|| "no guest image is installed".into(), |v| format!("guest image {v} is in use"));
    let Some(dir) = dir.or_else(|| packaged(exe)) else {
        return Err(none(format!("{in_use}, and none lies beside the program")));
    };
    let key = trusted(paths, &dir, false)?;
    let manifest = verify(&dir, &key).map_err(|error| damaged(&error))?;
    processor(&manifest)?;
    match another(paths, &dir) {
        Some(other) => Ok(update(paths, dir, other)),
        None => Err(none(format!("{in_use}, and that in `{}` is the same", dir.display()))),
    }
}

/// The manifest in `dir`, where it is not the installed one's.
fn another(paths: &Paths, dir: &Path) -> Option<Vec<u8>> {
    let manifest = std::fs::read(dir.join(MANIFEST)).ok()?;
    let installed = std::fs::read(paths.image_dir().join(MANIFEST)).ok();
    (installed.as_ref() != Some(&manifest)).then_some(manifest)
}

fn update(paths: &Paths, dir: PathBuf, manifest: Vec<u8>) -> Update {
    let declined = std::fs::read(declined(paths)).is_ok_and(|declined| declined == manifest);
    let version = version_in(&dir).unwrap_or_default();
    Update { from: self::version(paths), to: GuestImage { version, dir }, declined }
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

/// What the image is for. Another processor than the host's is emulated.
pub(crate) fn processor(manifest: &Manifest) -> Result<GuestArch, Problem> {
    GuestArch::of_name(&manifest.arch).ok_or_else(|| {
        Problem::new("image-processor", format!("the guest image is for `{}`", manifest.arch))
            .because("no machine of this Slipway has such a processor")
            .hint("install an image for amd64 or arm64: `slipway image install DIR`")
    })
}

/// What the installed image is for, unchecked; the host's processor where there is none.
pub(crate) fn installed_processor(paths: &Paths) -> GuestArch {
    let json = std::fs::read(paths.image_dir().join(MANIFEST)).ok();
    let manifest = json.and_then(|json| serde_json::from_slice::<Manifest>(&json).ok());
    manifest.and_then(|manifest| GuestArch::of_name(&manifest.arch)).unwrap_or_default()
}

/// The installed image's version, unchecked: for a status.
pub(crate) fn version(paths: &Paths) -> Option<String> {
    version_in(&paths.image_dir())
}

fn version_in(dir: &Path) -> Option<String> {
    let json = std::fs::read(dir.join(MANIFEST)).ok()?;
    Some(serde_json::from_slice::<Manifest>(&json).ok()?.version)
}

/// The installed image and the one before it, unchecked.
pub(crate) fn images(paths: &Paths) -> GuestImages {
    let image = |dir: PathBuf| version_in(&dir).map(|version| GuestImage { version, dir });
    GuestImages { current: image(paths.image_dir()), previous: image(previous(paths)) }
}

/// Puts the image before the installed one back into its place, and that one where it was. Blocks.
pub(crate) fn roll_back(paths: &Paths) -> Result<Manifest, Problem> {
    let (target, previous) = (paths.image_dir(), previous(paths));
    if !previous.join(MANIFEST).exists() {
        return Err(Problem::new("image-no-previous", "there is no earlier guest image to go back to")
            .hint("`slipway image install DIR` installs one"));
    }
    let key_file = previous.join(KEY);
    let key = std::fs::read_to_string(&key_file).map_err(|error| io_problem("read", &key_file, &error))?;
    let manifest = verify(&previous, &key).map_err(|error| damaged(&error))?;
    let left = std::fs::read(target.join(MANIFEST)).unwrap_or_default();
    exchange(&previous, &target)?;
    for (file, bytes) in [(pinned(paths), key.as_bytes()), (declined(paths), left.as_slice())] {
        slipway_settings::file::replace(&file, bytes).map_err(|error| io_problem("write", &file, &error))?;
    }
    Ok(manifest)
}

/// Remembers that the installed image booted here. Blocks.
pub(crate) fn booted(paths: &Paths) {
    let read = |path: PathBuf| std::fs::read(path).ok();
    let Some(manifest) = read(paths.image_dir().join(MANIFEST)) else { return };
    if read(proven(paths)).as_ref() != Some(&manifest)
        && let Err(error) = slipway_settings::file::replace(&proven(paths), &manifest)
    {
        tracing::warn!(%error, "it could not be remembered that this image boots");
    }
}

/// After a boot that failed: an image that never booted here makes room for the one before it, where the failure may be the
/// image's own. Says so beside what failed. Blocks.
pub(crate) fn boot_failed(paths: &Paths, problem: Problem) -> Problem {
    let own = match problem.code.as_str() {
        // What it was to boot with, not itself.
        "guest-data-disk" => false,
        // A panic of its kernel is a reset.
        "machine-reset" | "machine-powered-off" => true,
        code => code.starts_with("guest-"),
    };
    let manifest = std::fs::read(paths.image_dir().join(MANIFEST)).ok();
    let known = manifest.is_some() && manifest == std::fs::read(proven(paths)).ok();
    let images = images(paths);
    let (Some(current), Some(previous), true, false) = (images.current, images.previous, own, known) else {
        return problem;
    };
    let told = problem.because(format!("guest image {} never booted here before", current.version));
    match roll_back(paths) {
        Ok(_) => told.hint(format!(
            "image {}, which was installed before it, is in its place again: `slipway start`",
            previous.version
        )),
        Err(error) => error.causes.into_iter().fold(
            told.because(format!("the image before it could not be put back: {}", error.message)),
            Problem::because,
        ),
    }
}

/// Two folders in each other's place; where `to` is not there, `from` is moved.
fn exchange(from: &Path, to: &Path) -> Result<(), Problem> {
    let done = match system::exchange(from, to) {
        // A file system that cannot do it at once.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let aside = to.with_extension("old");
            let _ = std::fs::remove_dir_all(&aside);
            std::fs::rename(to, &aside)
                .and_then(|()| std::fs::rename(from, to))
                .and_then(|()| std::fs::rename(&aside, from))
        }
        other => other,
    };
    done.map_err(|error| io_problem("put back", from, &error))
}

/// The key of the image in `from`: the pinned one, or one that is trusted from now on.
fn trusted(paths: &Paths, from: &Path, any: bool) -> Result<String, Problem> {
    let key_file = from.join(KEY);
    let key = std::fs::read_to_string(&key_file).map_err(|error| {
        io_problem("read", &key_file, &error)
            .hint("name the folder that `slipway-image build --out DIR` wrote")
    })?;
    let pin = pinned(paths);
    match std::fs::read_to_string(&pin) {
        Ok(known) if known.trim() != key.trim() && !any => {
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
    Ok(key)
}

/// Installs what the person chose. The package's image does not take its place at the next start; that of the next package may.
/// Blocks.
pub(crate) fn install_chosen(paths: &Paths, exe: &Path, request: &ImageRequest) -> Result<Manifest, Problem> {
    let manifest = install(paths, request)?;
    if let Some(other) = packaged(exe).and_then(|dir| another(paths, &dir)) {
        let file = declined(paths);
        slipway_settings::file::replace(&file, &other).map_err(|error| io_problem("write", &file, &error))?;
    }
    Ok(manifest)
}

/// Checks the image in a folder and puts it in place of the installed one, whole or not at all. Blocks.
pub(crate) fn install(paths: &Paths, request: &ImageRequest) -> Result<Manifest, Problem> {
    let from = &request.dir;
    let key = trusted(paths, from, request.trust_key)?;
    let manifest = verify(from, &key).map_err(|error| damaged(&error))?;
    let target = paths.image_dir();
    let aside = target.with_extension("new");
    let _ = std::fs::remove_dir_all(&aside);
    let names = manifest.parts.iter().map(|part| part.name.as_str()).chain([MANIFEST, SIGNATURE, KEY]);
    for name in names {
        let (source, copy) = (from.join(name), aside.join(name));
        copy_synced(&source, &copy).map_err(|error| io_problem("copy", &source, &error))?;
    }
    // Checked where it will be used: what was copied may not be what was read before.
    verify(&aside, &key).map_err(|error| damaged(&error))?;
    // The same one again does not take the place of the one before it.
    let manifest_in = |dir: &Path| std::fs::read(dir.join(MANIFEST)).ok();
    let again = manifest_in(&aside) == manifest_in(&target);
    let old = if again { target.with_extension("old") } else { previous(paths) };
    let _ = std::fs::remove_dir_all(&old);
    if target.exists() {
        std::fs::rename(&target, &old).map_err(|error| io_problem("set aside", &target, &error))?;
    }
    if let Err(error) = std::fs::rename(&aside, &target) {
        // The old one is as good as it was.
        let _ = std::fs::rename(&old, &target);
        return Err(io_problem("put the image into", &target, &error));
    }
    if again {
        let _ = std::fs::remove_dir_all(&old);
    }
    // What is installed is what the person, or a new package, wants now.
    let _ = std::fs::remove_file(declined(paths));
    let pin = pinned(paths);
    slipway_settings::file::replace(&pin, key.as_bytes())
        .map_err(|error| io_problem("write", &pin, &error))?;
    Ok(manifest)
}

fn copy_synced(source: &Path, target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(source, target)?;
    // Windows flushes only what may be written to.
    std::fs::File::options().append(true).open(target)?.sync_all()
}

#[cfg(test)]
mod tests {
    use minisign::KeyPair;
    use slipway_manifest::Part;

    use super::*;

    fn home() -> (tempfile::TempDir, Paths) {
        let home = tempfile::tempdir().expect("folder");
        let paths = crate::paths_in(&home.path().join("home"));
        (home, paths)
    }

    /// An image of one part, as the builder lays it out.
    fn built(dir: PathBuf, version: &str, KeyPair { pk, sk }: &KeyPair) -> PathBuf {
        std::fs::create_dir_all(&dir).expect("folder");
        std::fs::write(dir.join("kernel"), version).expect("part");
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(version);
        let sha256 = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = Part { name: "kernel".into(), size: version.len() as u64, sha256 };
        let manifest = Manifest {
            version: version.into(),
            arch: "amd64".into(),
            parts: vec![part],
            ..Manifest::default()
        };
        let json = serde_json::to_vec(&manifest).expect("json");
        let signature = minisign::sign(Some(pk), sk, json.as_slice(), None, None).expect("signs");
        std::fs::write(dir.join(MANIFEST), json).expect("manifest");
        std::fs::write(dir.join(SIGNATURE), signature.into_string()).expect("signature");
        std::fs::write(dir.join(KEY), pk.to_base64()).expect("key");
        dir
    }

    fn key() -> KeyPair {
        KeyPair::generate_unencrypted_keypair().expect("key")
    }

    fn request(dir: &Path) -> ImageRequest {
        ImageRequest { dir: dir.to_owned(), trust_key: true }
    }

    fn versions(paths: &Paths) -> (Option<String>, Option<String>) {
        let images = images(paths);
        (images.current.map(|image| image.version), images.previous.map(|image| image.version))
    }

    fn are(paths: &Paths, current: &str, previous: Option<&str>) {
        assert_eq!(versions(paths), (Some(current.to_owned()), previous.map(str::to_owned)));
        assert_eq!(check(paths).expect("boots").version, current);
    }

    #[test]
    fn the_image_before_is_kept_and_can_be_gone_back_to() {
        let (kept, paths) = home();
        let (ours, theirs) = (key(), key());
        let image = |version: &str, key: &KeyPair| built(kept.path().join(version), version, key);
        assert_eq!(roll_back(&paths).expect_err("nothing there").code, "image-no-previous");
        install(&paths, &request(&image("1", &ours))).expect("installed");
        are(&paths, "1", None);
        assert_eq!(roll_back(&paths).expect_err("nothing before it").code, "image-no-previous");
        // Of another key, so that the pin must go back, too.
        install(&paths, &request(&image("2", &theirs))).expect("installed");
        are(&paths, "2", Some("1"));
        install(&paths, &request(&image("2", &theirs))).expect("again");
        are(&paths, "2", Some("1"));
        assert_eq!(roll_back(&paths).expect("went back").version, "1");
        are(&paths, "1", Some("2"));
        assert_eq!(roll_back(&paths).expect("and forth").version, "2");
        are(&paths, "2", Some("1"));
    }

    #[test]
    fn an_image_says_which_processor_it_needs() {
        let of = |arch: &str| processor(&Manifest { arch: arch.into(), ..Manifest::default() });
        assert_eq!(of("amd64").expect("known"), GuestArch::X86_64);
        assert_eq!(of("arm64").expect("known"), GuestArch::Aarch64);
        let unknown = of("riscv64").expect_err("unknown");
        assert!(unknown.code == "image-processor" && unknown.message.contains("riscv64"), "{unknown:?}");
    }

    #[test]
    fn a_damaged_image_is_not_gone_back_to() {
        let (kept, paths) = home();
        let key = key();
        for version in ["1", "2"] {
            let image = built(kept.path().join(version), version, &key);
            install(&paths, &request(&image)).expect("installed");
        }
        std::fs::write(previous(&paths).join("kernel"), "x").expect("written");
        assert_eq!(roll_back(&paths).expect_err("damaged").code, "image-damaged");
        are(&paths, "2", Some("1"));
        // With nothing in its place the one before is better than none.
        std::fs::write(previous(&paths).join("kernel"), "1").expect("written");
        std::fs::remove_dir_all(paths.image_dir()).expect("removed");
        roll_back(&paths).expect("went back");
        are(&paths, "1", None);
    }

    #[test]
    fn an_image_whose_first_boot_fails_makes_room_for_the_one_before() {
        let (kept, paths) = home();
        let key = key();
        let image = |version: &str| built(kept.path().join(version), version, &key);
        let failed = |code: &str| boot_failed(&paths, Problem::new(code, "it failed"));
        install(&paths, &request(&image("1"))).expect("installed");
        assert_eq!(failed("guest-engine"), Problem::new("guest-engine", "it failed"), "there is no other");
        booted(&paths);
        install(&paths, &request(&image("2"))).expect("installed");
        // None of these is about the image.
        for code in ["guest-data-disk", "start-timeout", "cancelled", "machine-crashed", "machine-lost"] {
            assert_eq!(failed(code), Problem::new(code, "it failed"));
        }
        are(&paths, "2", Some("1"));
        let told = failed("machine-reset");
        assert!(told.hint.as_ref().is_some_and(|hint| hint.contains("image 1,")), "{told:?}");
        assert_eq!(told.causes, ["guest image 2 never booted here before"]);
        are(&paths, "1", Some("2"));
        // The one that booted before is not given up for the one that did not.
        assert_eq!(failed("guest-engine"), Problem::new("guest-engine", "it failed"));
        roll_back(&paths).expect("the person tries again");
        booted(&paths);
        assert_eq!(failed("guest-engine"), Problem::new("guest-engine", "it failed"));
        are(&paths, "2", Some("1"));
    }

    #[test]
    fn a_package_does_not_bring_again_what_was_gone_back_from() {
        let (kept, paths) = home();
        let key = key();
        let share = kept.path().join("usr/share/slipway/image");
        let exe = kept.path().join("usr/bin/slipway");
        let provided = |version: &str| {
            let _ = std::fs::remove_dir_all(&share);
            built(share.clone(), version, &key);
            provide(&paths, &exe).expect("provided");
        };
        provided("1");
        provided("2");
        are(&paths, "2", Some("1"));
        roll_back(&paths).expect("went back");
        provided("2");
        are(&paths, "1", Some("2"));
        // The next version is another matter.
        provided("3");
        are(&paths, "3", Some("1"));
        provided("2");
        are(&paths, "2", Some("3"));
    }

    /// A program with `version` beside it, and what is there of an update to it.
    fn packed(root: &Path, version: &str, key: &KeyPair) -> PathBuf {
        let share = root.join("usr/share/slipway/image");
        let _ = std::fs::remove_dir_all(&share);
        built(share, version, key);
        root.join("usr/bin/slipway")
    }

    #[test]
    fn an_update_is_the_other_image_beside_the_program() {
        let (kept, paths) = home();
        let (ours, theirs) = (key(), key());
        let exe = packed(kept.path(), "1", &ours);
        let told =
            |exe: &Path| ready(&paths, exe).map(|u| (u.from.unwrap_or_default(), u.to.version, u.declined));
        let both = |from: &str, to: &str, declined: bool| Some((from.to_owned(), to.to_owned(), declined));
        assert_eq!(told(&exe), None, "the next start takes it by itself");
        provide(&paths, &exe).expect("provided");
        assert_eq!(told(&exe), None, "it is in use");
        assert_eq!(examine(&paths, &exe, None).expect_err("the same").code, "update-none");
        packed(kept.path(), "2", &ours);
        assert_eq!(told(&exe), both("1", "2", false));
        let update = examine(&paths, &exe, None).expect("whole");
        assert_eq!((update.to.version.as_str(), update.declined), ("2", false));
        install_chosen(&paths, &exe, &ImageRequest { dir: update.to.dir, trust_key: false })
            .expect("installed");
        assert_eq!(told(&exe), None);
        roll_back(&paths).expect("went back");
        assert_eq!(told(&exe), both("1", "2", true));
        // Another's is not offered, and not taken when it is asked for.
        packed(kept.path(), "3", &theirs);
        assert_eq!(told(&exe), None);
        assert_eq!(examine(&paths, &exe, None).expect_err("another's").code, "image-key");
        let elsewhere = kept.path().join("usr/local/bin/slipway");
        assert_eq!(examine(&paths, &elsewhere, None).expect_err("nothing there").code, "update-none");
        are(&paths, "1", Some("2"));
    }

    #[test]
    fn a_damaged_update_is_found_before_anything_is_done() {
        let (kept, paths) = home();
        let key = key();
        let exe = packed(kept.path(), "1", &key);
        provide(&paths, &exe).expect("provided");
        packed(kept.path(), "2", &key);
        std::fs::write(kept.path().join("usr/share/slipway/image/kernel"), "x").expect("written");
        assert_eq!(examine(&paths, &exe, None).expect_err("damaged").code, "image-damaged");
        are(&paths, "1", None);
    }

    #[test]
    fn what_the_person_chose_stays_until_the_next_package() {
        let (kept, paths) = home();
        let key = key();
        let exe = packed(kept.path(), "1", &key);
        provide(&paths, &exe).expect("provided");
        let own = built(kept.path().join("own"), "own", &key);
        let update = examine(&paths, &exe, Some(own)).expect("whole");
        install_chosen(&paths, &exe, &ImageRequest { dir: update.to.dir, trust_key: false })
            .expect("installed");
        provide(&paths, &exe).expect("nothing to do");
        are(&paths, "own", Some("1"));
        assert!(ready(&paths, &exe).is_some_and(|update| update.declined));
        packed(kept.path(), "2", &key);
        provide(&paths, &exe).expect("provided");
        are(&paths, "2", Some("own"));
    }
}
