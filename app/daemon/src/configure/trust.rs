//! Whom this computer trusts, as the engine is to: the system's authorities, files that a setting names, and what docker
//! clients keep for single registries.

#[cfg(any(test, not(target_os = "linux")))]
mod pem;
#[cfg_attr(target_os = "linux", path = "trust/files.rs")]
#[cfg_attr(not(target_os = "linux"), path = "trust/store.rs")]
mod system;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use slipway_protocol::v1::RegistryFile;

/// The system's authorities, for a person.
const THIS_COMPUTERS: &str = "this computer's authorities";
/// Where clients keep registries' files for all users.
const EVERYBODYS: &str = if cfg!(windows) { r"C:\ProgramData\docker\certs.d" } else { "/etc/docker/certs.d" };
/// The same for one, below the home.
const OWN: &str = ".docker/certs.d";
/// What is read in a registry's folder.
const KINDS: [&str; 3] = [".crt", ".cert", ".key"];
/// Longest bundle, and longest of all registries' files, in bytes: together they fit into one message.
const MOST: usize = 448 << 10;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// PEM.
    pub(super) authorities: Vec<u8>,
    pub(super) files: Vec<RegistryFile>,
    /// What could not be read, for a person.
    pub(super) problems: Vec<String>,
}

/// What is looked at, whether it is there or not.
pub(super) fn places(more: &[PathBuf], home: Option<&Path>) -> Vec<PathBuf> {
    let fixed = system::places().chain([EVERYBODYS.into()]);
    fixed.chain(home.map(|home| home.join(OWN))).chain(more.iter().cloned()).collect()
}

/// Reads all of it.
pub(super) fn read(more: &[PathBuf], home: Option<&Path>) -> Trust {
    let mut trust = Trust::default();
    system::add_to(&mut trust);
    for path in more {
        match fs::read(path) {
            Ok(pem) if pem.windows(10).any(|w| w == b"-----BEGIN") => trust.add(path, pem),
            Ok(_) => trust.problems.push(format!("`{}` holds no certificate in PEM", path.display())),
            Err(error) => trust.problems.push(format!("failed to read `{}`: {error}", path.display())),
        }
    }
    // A person's own files win over everybody's.
    let mut files = BTreeMap::new();
    let folders = [Some(PathBuf::from(EVERYBODYS)), home.map(|home| home.join(OWN))];
    for folder in folders.into_iter().flatten() {
        if let Err(error) = registries(&folder, &mut files)
            && error.kind() != io::ErrorKind::NotFound
        {
            trust.problems.push(format!("failed to read `{}`: {error}", folder.display()));
        }
    }
    let mut room = MOST;
    for ((registry, name), content) in files {
        match room.checked_sub(content.len()) {
            Some(left) => {
                room = left;
                trust.files.push(RegistryFile { registry, name, content });
            }
            None => trust.problems.push(format!(
                "`{registry}/{name}` is left out: such files are larger than {MOST} bytes together"
            )),
        }
    }
    trust
}

impl Trust {
    fn add(&mut self, whose: &Path, pem: Vec<u8>) {
        if self.authorities.len() + pem.len() >= MOST {
            self.problems.push(format!("`{}` is left out: it is too large", whose.display()));
            return;
        }
        self.authorities.extend(pem);
        if !self.authorities.ends_with(b"\n") && !self.authorities.is_empty() {
            self.authorities.push(b'\n');
        }
    }
}

type Files = BTreeMap<(String, String), Vec<u8>>;

fn registries(folder: &Path, files: &mut Files) -> io::Result<()> {
    for registry in fs::read_dir(folder)? {
        let registry = registry?;
        // What is no folder is nothing to docker either.
        let Ok(entries) = fs::read_dir(registry.path()) else { continue };
        for entry in entries {
            let entry = entry?;
            let (Ok(registry), Ok(name)) =
                (registry.file_name().into_string(), entry.file_name().into_string())
            else {
                continue;
            };
            if KINDS.iter().any(|kind| name.ends_with(kind)) && entry.path().is_file() {
                let content = fs::read(entry.path())?;
                #[cfg(windows)]
                for registry in with_ports(&registry) {
                    files.insert((registry, name.clone()), content.clone());
                }
                files.insert((registry, name), content);
            }
        }
    }
    Ok(())
}

/// The registries with a port that a folder may stand for where names hold no colon: docker leaves it out there, `registry.example:5000`
/// is `registry.example5000`. Where the port begins is not to be seen, so it is for each that it can be, as it is to docker. An address of
/// IPv6 has lost more colons than can be found again.
#[cfg(any(test, windows))]
fn with_ports(folder: &str) -> Vec<String> {
    let is_host = |host: &str| match host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        true => host.parse::<std::net::Ipv4Addr>().is_ok(),
        false => !host.ends_with('.') && !host.contains(']'),
    };
    let is_port = |port: &str| !port.starts_with('0') && port.parse::<u16>().is_ok();
    let digits = folder.bytes().rev().take(5).take_while(u8::is_ascii_digit).count();
    let splits = (1..=digits).filter_map(|digits| folder.split_at_checked(folder.len() - digits));
    let pairs = splits.filter(|(host, port)| is_host(host) && is_port(port));
    pairs.map(|(host, port)| format!("{host}:{port}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_registries_and_further_authorities_are_read_and_what_is_wrong_is_told() {
        let home = tempfile::tempdir().expect("folder");
        let folder = if cfg!(windows) { "registry.example5000" } else { "registry.example:5000" };
        let folder = home.path().join(OWN).join(folder);
        fs::create_dir_all(&folder).expect("made");
        for (name, content) in [("ca.crt", "ca"), ("client.key", "key"), ("README", "no")] {
            fs::write(folder.join(name), content).expect("written");
        }
        let (good, bad) = (home.path().join("good.pem"), home.path().join("bad.pem"));
        fs::write(&good, "-----BEGIN CERTIFICATE-----\nours").expect("written");
        fs::write(&bad, "nothing").expect("written");
        let missing = home.path().join("missing.pem");
        let trust = read(&[good, bad, missing], Some(home.path()));
        let names: Vec<(&str, &str)> =
            trust.files.iter().map(|f| (f.registry.as_str(), f.name.as_str())).collect();
        let last = [("registry.example:5000", "ca.crt"), ("registry.example:5000", "client.key")];
        match cfg!(windows) {
            // Behind them comes the folder itself, by the name that it has there.
            true => assert!(last.iter().all(|file| names.contains(file)), "{names:?}"),
            false => assert!(names.ends_with(&last), "{names:?}"),
        }
        assert!(!names.iter().any(|(_, name)| *name == "README"), "{names:?}");
        assert!(trust.authorities.ends_with(b"ours\n"));
        assert_eq!(trust.problems.len(), 2, "{:?}", trust.problems);
    }

    #[test]
    fn a_folder_without_a_colon_is_every_registry_whose_port_may_end_its_name() {
        let found = |folder: &str| with_ports(folder).join(" ");
        assert_eq!(found("registry.example5000"), "registry.example:5000");
        assert_eq!(found("10.0.0.105000"), "10.0.0.10:5000");
        // As docker looks for it, for whichever of them is asked.
        assert_eq!(found("host8443"), "host844:3 host84:43 host8:443 host:8443");
        assert_eq!(found("10.0.0.18443"), "10.0.0.184:43 10.0.0.18:443 10.0.0.1:8443");
        for none in ["registry.example", "5000", "10.0.0.1000000", "[1]5000", "", "host0", "é"] {
            assert_eq!(found(none), "", "{none}");
        }
        assert_eq!(found("host65536"), "host6553:6 host655:36 host65:536 host6:5536");
    }

    #[test]
    fn what_is_too_large_is_left_out_and_told() {
        let home = tempfile::tempdir().expect("folder");
        let folder = home.path().join(OWN).join("r");
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("a.crt"), vec![b'x'; MOST]).expect("written");
        fs::write(folder.join("b.crt"), b"one byte too much").expect("written");
        let trust = read(&[], Some(home.path()));
        assert!(trust.problems.iter().any(|p| p.contains("r/b.crt")), "{:?}", trust.problems);
    }
}
