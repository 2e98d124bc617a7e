//! Programs of other processors: the kernel starts them with the image's emulators, so `docker run --platform` and
//! `docker build --platform` work.
//!
//! What is registered is what the image brings: each emulator's package has the line for it, as systemd-binfmt reads them.

use std::{fs, io, path::Path};

use rustix::mount::{MountFlags, mount};

/// Lines for the kernel, one emulator each.
const LINES: &str = "/usr/share/qemu/binfmt.d";
/// Where the kernel's module shows itself.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// Registers every emulator of the image; what failed. Needs the module `binfmt_misc`.
pub(super) fn register() -> Vec<String> {
    let failed = |what: &str, error: io::Error| format!("failed to {what}: {error}");
    let lines = match lines(Path::new(LINES)) {
        Ok(lines) if lines.is_empty() => return Vec::new(),
        Ok(lines) => lines,
        Err(error) => return vec![failed(&format!("read {LINES}"), error)],
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(error) = mount("binfmt_misc", BINFMT_MISC, "binfmt_misc", flags, None) {
        return vec![failed(&format!("mount {BINFMT_MISC}"), error.into())];
    }
    let register = Path::new(BINFMT_MISC).join("register");
    let ask =
        |line: &String| fs::write(&register, line).map_err(|e| failed(&format!("register `{line}`"), e));
    lines.iter().filter_map(|line| ask(line).err()).collect()
}

/// The lines of every `.conf`; none without the folder.
fn lines(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut lines = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "conf") {
            let text = fs::read_to_string(path)?;
            let rules = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';']));
            lines.extend(rules.map(with_credentials));
        }
    }
    Ok(lines)
}

/// With the flag `C`: a setuid program gets its owner's rights as it would on its own processor, so `sudo` works in such a
/// container. The emulator is the image's, and `F` opened it before any container ran.
fn with_credentials(line: &str) -> String {
    match line.rsplit_once(':') {
        Some((rule, flags)) if !flags.contains('C') => format!("{rule}:{flags}C"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_all_files_are_read_and_get_their_flag() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("a.conf"), "# words\n:a:M::x:y:/usr/bin/a:OPF\n\n").expect("written");
        fs::write(dir.path().join("b.conf"), ":b:M::x:y:/usr/bin/b:OCF").expect("written");
        fs::write(dir.path().join("README"), "nothing").expect("written");
        let mut found = lines(dir.path()).expect("read");
        found.sort();
        assert_eq!(found, [":a:M::x:y:/usr/bin/a:OPFC", ":b:M::x:y:/usr/bin/b:OCF"]);
        assert!(lines(Path::new("/nonexistent")).expect("none is fine").is_empty());
    }
}
