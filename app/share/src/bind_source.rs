//! Folders of a Windows host as clients write them, and where they are in the guest.
//!
//! ```text
//!   C:\Users\me\x  c:/Users/me/x  /c/Users/me/x  //c/Users/me/x  ──►  C:\Users\me\x on the host, /c/Users/me/x in the guest
//! ```
//!
//! The guest's path is the one that Git Bash and compose files already use. What names no folder of a local drive is refused
//! with a reason, because the engine would make an empty folder of that name in the guest and say nothing.

/// A folder or file of a local drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindSource {
    /// As Windows writes it: `C:\Users\me\x`.
    pub host: String,
    /// Where the guest has it: `/c/Users/me/x`.
    pub guest: String,
}

/// A source that cannot be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `\\server\share\x`: Hyper-V shares folders of local drives only.
    #[error("`{0}` is on a network share, and only folders of local drives can be shared: copy it to one")]
    Network(String),
    /// `\\.\pipe\x`, `\\.\PhysicalDrive0`, `NUL`.
    #[error("`{0}` is a device of Windows, and no file or folder")]
    Device(String),
    /// `C:x` is below whatever folder some program is in, and `\x` on whatever drive.
    #[error("`{0}` does not say from where: write the whole path with its drive, as in `C:\\Users`")]
    Relative(String),
    /// A character that no name on Windows has, or an end that Windows drops without a word.
    #[error("`{0}` cannot be a path on Windows because of `{1}`")]
    Name(String, String),
}

/// Names that Windows takes for devices, in any folder and with any extension.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Understands what a client names as the source of a bind mount. `None`: it is the name of a volume.
///
/// # Errors
/// Why it cannot be shared.
pub fn parse(source: &str) -> Option<Result<BindSource, Refused>> {
    let slashed = source.replace('\\', "/");
    let (drive, rest) = match drive(source, &slashed) {
        Ok(found) => found?,
        Err(refused) => return Some(Err(refused)),
    };
    Some(names(source, rest).map(|names| BindSource {
        host: format!("{}:\\{}", drive.to_ascii_uppercase(), names.join("\\")),
        guest:
            format!("/{}/{}", drive.to_ascii_lowercase(), names.join("/")).trim_end_matches('/').to_owned(),
    }))
}

/// The drive's letter and what follows `X:/`; `Ok(None)` for what is no path.
fn drive<'a>(source: &str, slashed: &'a str) -> Result<Option<(char, &'a str)>, Refused> {
    let device = || Refused::Device(source.to_owned());
    let network = || Refused::Network(source.to_owned());
    if let Some(verbatim) = slashed.strip_prefix("//?/") {
        let unc = verbatim.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("unc/"));
        return if unc { Err(network()) } else { lettered(verbatim).map(Some).ok_or_else(device) };
    }
    if slashed.starts_with("//./") {
        return Err(device());
    }
    if let Some(found) = lettered(slashed) {
        return Ok(Some(found));
    }
    let double = slashed.starts_with("//");
    let Some(rooted) = slashed.strip_prefix(if double { "//" } else { "/" }) else {
        // `C:x` is relative to that drive's current folder; anything else with no slash at its start is a volume, or the
        // engine's to refuse.
        let relative = slashed.as_bytes().get(1) == Some(&b':') || slashed.starts_with('.');
        return if relative { Err(Refused::Relative(source.to_owned())) } else { Ok(None) };
    };
    let (first, rest) = rooted.split_once('/').unwrap_or((rooted, ""));
    let mut letters = first.chars();
    match (letters.next(), letters.next()) {
        // Written with backslashes, it is the share of a computer with a short name.
        (Some(letter), None) if letter.is_ascii_alphabetic() && !source.starts_with('\\') => {
            Ok(Some((letter, rest)))
        }
        _ if double => Err(network()),
        _ => Err(Refused::Relative(source.to_owned())),
    }
}

/// `C:/rest`.
fn lettered(slashed: &str) -> Option<(char, &str)> {
    let letter = slashed.chars().next().filter(char::is_ascii_alphabetic)?;
    let rest = slashed[1..].strip_prefix(':')?;
    // `C:` alone is how people write the drive itself.
    if rest.is_empty() { Some((letter, rest)) } else { rest.strip_prefix('/').map(|rest| (letter, rest)) }
}

/// The names of a path, with `.` and `..` resolved as Windows does: above the drive is the drive.
fn names<'a>(source: &str, rest: &'a str) -> Result<Vec<&'a str>, Refused> {
    let wrong = |what: &str| Refused::Name(source.to_owned(), what.to_owned());
    let mut names = Vec::new();
    for name in rest.split('/') {
        match name {
            "" | "." => continue,
            ".." => {
                names.pop();
                continue;
            }
            _ => {}
        }
        // A colon would be an alternate data stream of the file before it.
        if let Some(bad) = name.chars().find(|c| c.is_control() || r#"<>:"|?*"#.contains(*c)) {
            return Err(wrong(&bad.escape_default().to_string()));
        }
        // Windows opens `x` for both, so `x.` would be shared under a name that it does not have.
        if name.ends_with(['.', ' ']) {
            return Err(wrong(name));
        }
        let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_lowercase();
        let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
        let numbered =
            port.is_some_and(|n| n.len() == 1 && n != "0" && n.chars().all(|c| c.is_ascii_digit()));
        if numbered || DEVICES.contains(&stem.as_str()) {
            return Err(Refused::Device(source.to_owned()));
        }
        names.push(name);
    }
    Ok(names)
}

/// `SOURCE:TARGET[:OPTIONS]` into the source and the rest with its colon; the colon of a drive is no end. `None` without a target.
pub fn split(bind: &str) -> Option<(&str, &str)> {
    // `\\?\C:\x` has its drive later.
    let prefix = if bind.starts_with(r"\\?\") || bind.starts_with("//?/") { 4 } else { 0 };
    let drive = bind.get(prefix..).is_some_and(|rest| {
        let bytes = rest.as_bytes();
        bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && b"\\/".contains(&bytes[2])
    });
    let from = prefix + if drive { 2 } else { 0 };
    let at = from + bind.get(from..)?.find(':')?;
    Some(bind.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_a_local_folder_is_the_same_folder() {
        for source in [
            r"C:\Users\me\x",
            r"c:\Users\me\x\",
            "C:/Users/me/x",
            "/c/Users/me/x",
            "//c/Users/me/x",
            "/C/Users/me/./x",
            r"C:\Users\you\..\me\\x",
            r"\\?\C:\Users\me\x",
        ] {
            let found = parse(source).expect("a path").expect(source);
            assert_eq!(
                (found.host.as_str(), found.guest.as_str()),
                (r"C:\Users\me\x", "/c/Users/me/x"),
                "{source}"
            );
        }
        for (source, host, guest) in [
            (r"D:\", r"D:\", "/d"),
            ("/d", r"D:\", "/d"),
            ("D:", r"D:\", "/d"),
            (r"C:\..\..\x", r"C:\x", "/c/x"),
            (r"C:\Program Files (x86)\ä ö", r"C:\Program Files (x86)\ä ö", "/c/Program Files (x86)/ä ö"),
            (r"C:\.git\com10\lpt", r"C:\.git\com10\lpt", "/c/.git/com10/lpt"),
        ] {
            let found = parse(source).expect("a path").expect(source);
            assert_eq!((found.host.as_str(), found.guest.as_str()), (host, guest), "{source}");
        }
    }

    #[test]
    fn what_is_no_folder_of_a_local_drive_is_refused_with_its_reason() {
        let kind = |source: &str| match parse(source) {
            None => "volume",
            Some(Ok(_)) => "path",
            Some(Err(Refused::Network(_))) => "network",
            Some(Err(Refused::Device(_))) => "device",
            Some(Err(Refused::Relative(_))) => "relative",
            Some(Err(Refused::Name(..))) => "name",
        };
        for (source, expected) in [
            (r"\\server\share\x", "network"),
            ("//server/share/x", "network"),
            (r"\\c\share", "network"),
            (r"\\?\UNC\server\share", "network"),
            (r"\\?\unc\server\share", "network"),
            (r"\\.\pipe\docker_engine", "device"),
            ("//./pipe/docker_engine", "device"),
            (r"\\?\GLOBALROOT\Device", "device"),
            (r"C:\x\NUL", "device"),
            (r"C:\x\com1.txt", "device"),
            ("C:x", "relative"),
            (r"\Users\me", "relative"),
            ("/Users/me", "relative"),
            (r".\x", "relative"),
            ("./x", "relative"),
            (r"C:\a*b", "name"),
            (r"C:\a:stream", "name"),
            ("C:\\a\0b", "name"),
            (r"C:\end.", "name"),
            (r"C:\end ", "name"),
            ("data", "volume"),
            ("my-volume_2", "volume"),
        ] {
            assert_eq!(kind(source), expected, "{source}");
        }
        let said = parse(r"\\nas\home").expect("a path").expect_err("refused").to_string();
        assert!(said.contains(r"\\nas\home") && said.contains("network share"), "{said}");
    }

    #[test]
    fn the_colon_of_a_drive_does_not_end_a_source() {
        for (bind, source, rest) in [
            (r"C:\x:/src", r"C:\x", ":/src"),
            (r"C:\x:/src:ro", r"C:\x", ":/src:ro"),
            ("c:/x:/src", "c:/x", ":/src"),
            (r"\\?\C:\x:/src", r"\\?\C:\x", ":/src"),
            ("/c/x:/src", "/c/x", ":/src"),
            ("data:/src", "data", ":/src"),
            // A volume with a name of one letter, not a drive: the target has no backslash before it.
            ("d:src", "d", ":src"),
        ] {
            assert_eq!(split(bind), Some((source, rest)), "{bind}");
        }
        assert_eq!(split(r"C:\x"), None);
        assert_eq!(split("é"), None);
    }
}
