//! The Debian mirror that the host itself uses.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The first mirror of the host's apt configuration that looks like Debian's own archive.
pub(crate) fn mirror_of_host() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(found) = std::fs::read_dir("/etc/apt/sources.list.d") {
        let mut found: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
        found.sort();
        files.extend(found);
    }
    let texts = files.iter().filter_map(|path| Some((path.as_path(), std::fs::read_to_string(path).ok()?)));
    for (path, text) in texts {
        if let Some(mirror) = mirror_in(path, &text) {
            return Ok(mirror);
        }
    }
    bail!("no entry of the apt configuration is a Debian archive")
}

fn mirror_in(path: &Path, text: &str) -> Option<String> {
    let deb822 = path.extension().is_some_and(|extension| extension == "sources");
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let uris: Vec<&str> = lines
        .flat_map(|line| match deb822 {
            true => line.strip_prefix("URIs:").unwrap_or("").split_whitespace().collect::<Vec<_>>(),
            false => line.strip_prefix("deb ").unwrap_or("").split_whitespace().collect(),
        })
        .collect();
    uris.into_iter()
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .map(|uri| uri.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood_and_other_archives_left_alone() {
        let one_line = "# deb http://no/debian x\ndeb [signed-by=/k] https://a.example/apt stable main\n\
                        deb [arch=amd64] http://m.example/debian/ bookworm main\n";
        assert_eq!(
            mirror_in(Path::new("sources.list"), one_line).as_deref(),
            Some("http://m.example/debian")
        );
        let deb822 = "Types: deb\n# URIs: http://no/debian\nURIs: http://s.example/debian-security http://m.example/debian\n";
        assert_eq!(
            mirror_in(Path::new("debian.sources"), deb822).as_deref(),
            Some("http://m.example/debian")
        );
        assert_eq!(mirror_in(Path::new("x.list"), "deb https://a.example/apt stable main"), None);
    }
}
