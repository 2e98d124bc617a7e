//! The person's settings file: read with every mistake at once, changed without touching anything else in it.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
};

use toml_edit::{DocumentMut, Item, Table, Value};

use crate::keys::{self, Kind};
use crate::paths;
use crate::size::Size;

/// One thing that is wrong in a file or in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, as it was written.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such setting; perhaps this one was meant.
    Unknown(Option<&'static str>),
    /// It takes something else.
    Expected {
        /// What it takes.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Unknown(None) => write!(f, "there is no setting `{}`", self.key),
            Problem::Unknown(Some(near)) => {
                write!(f, "there is no setting `{}`; did you mean `{near}`?", self.key)
            }
            Problem::Expected { expected, found } => {
                write!(f, "`{}` takes {expected}, not `{found}`", self.key)
            }
        }
    }
}

/// The settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be replaced; the old one is whole.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not TOML.
    #[error("`{path}` is not valid TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml_edit::TomlError,
    },
    /// It is TOML, and not what Slipway takes.
    #[error("{}", list(.0))]
    Mistakes(Vec<Mistake>),
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// What the file says: the settings that are set, checked for their form, by name, as text.
pub type Raw = BTreeMap<&'static str, String>;

/// The settings file of one profile.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    path: PathBuf,
}

impl SettingsFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads what is set; a file that is not there sets nothing.
    ///
    /// # Errors
    /// [`FileError::Mistakes`] with all of them.
    pub fn read(&self) -> Result<Raw, FileError> {
        check(&self.document()?).map_err(FileError::Mistakes)
    }

    /// Reads what is set, with `overrides` (name and value as a person writes them) in its place.
    ///
    /// # Errors
    /// [`FileError::Mistakes`] with all of the overrides', or as for [`read`](Self::read).
    pub fn read_with(&self, overrides: &[(String, String)]) -> Result<Raw, FileError> {
        let mut raw = self.read()?;
        let mut mistakes = Vec::new();
        for (name, value) in overrides {
            match keys::find(name).ok_or_else(|| unknown(name)).and_then(|k| parse(k, value).map(|_| k)) {
                Ok(key) => drop(raw.insert(key.name, value.clone())),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() { Ok(raw) } else { Err(FileError::Mistakes(mistakes)) }
    }

    /// Sets one value. Comments, order and the other settings stay as they are.
    ///
    /// # Errors
    /// A mistake in the key or the value, or a file that cannot be read or written; the file is then as before.
    pub fn set(&self, key: &str, value: &str) -> Result<(), FileError> {
        let key = known(key)?;
        let value = parse(key, value).map_err(|m| FileError::Mistakes(vec![m]))?;
        self.change(key, Some(value))
    }

    /// Goes back to the default of one setting.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn unset(&self, key: &str) -> Result<(), FileError> {
        self.change(known(key)?, None)
    }

    /// Writes the commented defaults where there is no file yet.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn create(&self) -> Result<(), FileError> {
        if self.path.exists() { Ok(()) } else { self.write(&keys::commented_defaults()) }
    }

    fn change(&self, key: &keys::Key, value: Option<Value>) -> Result<(), FileError> {
        let mut document = self.document()?;
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        let table = document.entry(of).or_insert_with(|| Item::Table(Table::new()));
        let not_a_table = || {
            let problem = Problem::Expected { expected: "a table".into(), found: "a value".into() };
            FileError::Mistakes(vec![Mistake { key: of.to_owned(), problem }])
        };
        let table = table.as_table_like_mut().ok_or_else(not_a_table)?;
        match value {
            Some(mut value) => match table.get_mut(name) {
                // In its place, so that its indentation and the comment behind it stay.
                Some(there) => {
                    if let Some(before) = there.as_value() {
                        *value.decor_mut() = before.decor().clone();
                    }
                    *there = Item::Value(value);
                }
                None => drop(table.insert(name, Item::Value(value))),
            },
            None => drop(table.remove(name)),
        }
        self.write(&document.to_string())
    }

    fn document(&self) -> Result<DocumentMut, FileError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => keys::commented_defaults(),
            Err(source) => return Err(FileError::Read { path: self.path.clone(), source }),
        };
        text.parse().map_err(|source| FileError::Syntax { path: self.path.clone(), source })
    }

    fn write(&self, text: &str) -> Result<(), FileError> {
        replace(&self.path, text.as_bytes())
            .map_err(|source| FileError::Write { path: self.path.clone(), source })
    }
}

/// Replaces a file whole: after a crash there is the old one or the new one.
///
/// # Errors
/// That of the system; the old file is then untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut aside = tempfile::NamedTempFile::new_in(dir)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    aside.persist(path).map_err(|e| e.error)?;
    // The rename itself has to reach the disk too.
    paths::settle(dir)
}

fn known(name: &str) -> Result<&'static keys::Key, FileError> {
    keys::find(name).ok_or_else(|| FileError::Mistakes(vec![unknown(name)]))
}

fn unknown(name: &str) -> Mistake {
    Mistake { key: name.to_owned(), problem: Problem::Unknown(keys::nearest(name)) }
}

fn check(document: &DocumentMut) -> Result<Raw, Vec<Mistake>> {
    let mut raw = Raw::new();
    let mut mistakes = Vec::new();
    for (of, item) in document.iter() {
        let Some(table) = item.as_table_like() else {
            mistakes.push(unknown(of));
            continue;
        };
        for (name, item) in table.iter() {
            let name = format!("{of}.{name}");
            let Some(key) = keys::find(&name) else {
                mistakes.push(unknown(&name));
                continue;
            };
            let text = match item.as_value() {
                Some(Value::String(text)) => text.value().clone(),
                // Without the spaces and the comment around it, which are part of a value to this library.
                Some(other) => other.clone().decorated("", "").to_string(),
                None => item.to_string().trim().to_owned(),
            };
            match parse(key, &text) {
                Ok(_) => drop(raw.insert(key.name, text)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }
    if mistakes.is_empty() { Ok(raw) } else { Err(mistakes) }
}

/// The value as it is written into the file, if it is one that the setting takes.
fn parse(key: &keys::Key, text: &str) -> Result<Value, Mistake> {
    let value = match key.kind {
        Kind::Count { from, to } => text
            .parse::<u64>()
            .ok()
            .filter(|n| (from..=to).contains(n))
            .and_then(|n| i64::try_from(n).ok())
            .map(Value::from),
        Kind::Size { at_least } => {
            text.parse::<Size>().ok().filter(|s| *s >= at_least).map(|s| Value::from(s.to_string()))
        }
        Kind::Names => (!text.contains(['\n', '"', '\\'])).then(|| Value::from(text)),
        Kind::Paths => is_list_of_paths(text).then(|| Value::from(text)),
        Kind::NameServers => keys::name_servers(text).is_some().then(|| Value::from(text)),
        Kind::Proxy => (["auto", "none"].contains(&text) || is_proxy(text)).then(|| Value::from(text)),
        Kind::Engine => engine_config(text).is_some().then(|| Value::from(text)),
        Kind::Switch => text.parse::<bool>().ok().map(Value::from),
        Kind::OneOf(words) => words.contains(&text).then(|| Value::from(text)),
    };
    value.ok_or_else(|| Mistake {
        key: key.name.to_owned(),
        problem: Problem::Expected { expected: key.kind.expected(), found: text.to_owned() },
    })
}

fn is_list_of_paths(text: &str) -> bool {
    text.split(',').map(str::trim).filter(|path| !path.is_empty()).all(|path| Path::new(path).is_absolute())
}

/// What the engine's HTTP client takes for a proxy.
fn is_proxy(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    ["http", "https", "socks5"].contains(&scheme)
        && !host.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn engine_config(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let object: serde_json::Map<_, _> = serde_json::from_str(text).ok()?;
    (!keys::ENGINE_OWN.iter().any(|own| object.contains_key(*own))).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, SettingsFile) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("settings.toml");
        std::fs::write(&path, text).expect("write");
        (dir, SettingsFile::new(path))
    }

    fn mistakes(result: Result<impl fmt::Debug, FileError>) -> Vec<String> {
        match result {
            Err(FileError::Mistakes(m)) => m.iter().map(Mistake::to_string).collect(),
            other => panic!("mistakes are expected: {other:?}"),
        }
    }

    #[test]
    fn every_mistake_is_told_at_once_with_what_was_probably_meant() {
        let (_dir, file) =
            file("[machine]\ncpu = 4\nmemory = \"4 apples\"\ncpus = 0\n[sound]\nvolume = 11\n");
        assert_eq!(
            mistakes(file.read()),
            [
                "there is no setting `machine.cpu`; did you mean `machine.cpus`?",
                "`machine.memory` takes a size of at least 512MiB, such as `4GiB`, not `4 apples`",
                "`machine.cpus` takes a whole number from 1 to 256, not `0`",
                "there is no setting `sound.volume`",
            ]
        );
    }

    #[test]
    fn a_change_leaves_the_rest_of_the_file_byte_for_byte() {
        let before = "# mine\n[machine]\n  cpus = 2   # two\nmemory = \"4GiB\"\n\n# end\n";
        let (_dir, file) = file(before);
        file.set("machine.memory", "6G").expect("set");
        file.set("machine.cpus", "3").expect("set");
        let after = std::fs::read_to_string(&file.path).expect("read");
        assert_eq!(after, before.replace("4GiB", "6GiB").replace("cpus = 2 ", "cpus = 3 "));
        file.unset("machine.memory").expect("unset");
        assert_eq!(file.read().expect("read").keys().copied().collect::<Vec<_>>(), ["machine.cpus"]);
    }

    #[test]
    fn a_wrong_value_leaves_the_file_as_it_was() {
        let (_dir, file) = file("[machine]\ncpus = 2\n");
        for (key, value) in
            [("machine.cpus", "0"), ("machine.cpus", "many"), ("cpus", "3"), ("docker.install-cli", "yes")]
        {
            assert_eq!(mistakes(file.set(key, value)).len(), 1, "{key} = {value}");
        }
        assert_eq!(
            mistakes(file.set("cpus", "3")),
            ["there is no setting `cpus`; did you mean `machine.cpus`?"]
        );
        assert_eq!(std::fs::read_to_string(&file.path).expect("read"), "[machine]\ncpus = 2\n");
    }

    #[test]
    fn the_defaults_file_sets_nothing_and_explains_everything() {
        let dir = tempfile::tempdir().expect("folder");
        let file = SettingsFile::new(dir.path().join("settings.toml"));
        assert_eq!(file.read().expect("no file sets nothing"), Raw::new());
        file.create().expect("made");
        assert_eq!(file.read().expect("valid"), Raw::new());
        let text = std::fs::read_to_string(&file.path).expect("read");
        for key in keys::KEYS {
            let name = key.name.rsplit('.').next().expect("a name");
            assert!(text.contains(&format!("# {name} = ")), "{name} is missing:\n{text}");
        }
        let uncommented: String = text
            .lines()
            .filter(|l| !l.starts_with("# ") || l.contains(" = "))
            .map(|l| format!("{}\n", l.trim_start_matches("# ")))
            .collect();
        std::fs::write(&file.path, uncommented).expect("write");
        assert_eq!(file.read().expect("every example is valid").len(), keys::KEYS.len());
    }

    #[test]
    fn proxies_paths_name_servers_and_the_engines_configuration_are_checked_for_their_form() {
        let (_dir, file) = file("");
        let authorities = if cfg!(windows) { r"C:\a.pem, d:/b.pem" } else { "/a.pem, /b.pem" };
        for (key, value) in [
            ("network.http-proxy", "http://user:p%40ss@proxy.example:3128/"),
            ("network.https-proxy", "none"),
            ("network.authorities", authorities),
            ("network.nameservers", "auto"),
            ("network.nameservers", "10.0.0.53, [fd00::1]:5353, fd00::2"),
            ("engine.config", r#"{"insecure-registries": ["a:5000"], "log-opts": {"max-size": "1m"}}"#),
        ] {
            file.set(key, value).expect(key);
            assert_eq!(file.read().expect("valid")[key], value);
        }
        for (key, value) in [
            ("network.http-proxy", "proxy.example:3128"),
            ("network.http-proxy", "http://"),
            ("network.http-proxy", "http://a b"),
            ("network.authorities", "relative.pem"),
            ("network.nameservers", "dns.example"),
            ("network.nameservers", ""),
            ("network.nameservers", "10.0.0.53:0"),
            ("engine.config", "[]"),
            ("engine.config", "{"),
            ("engine.config", r#"{"hosts": ["tcp://0.0.0.0:2375"]}"#),
            ("engine.config", r#"{"userland-proxy": false}"#),
        ] {
            assert_eq!(mistakes(file.set(key, value)).len(), 1, "{key} = {value}");
        }
    }

    #[test]
    fn broken_toml_is_told_with_its_place_and_kept() {
        let (_dir, file) = file("[machine\ncpus = 2\n");
        assert!(matches!(file.read(), Err(FileError::Syntax { .. })));
        assert!(matches!(file.set("machine.cpus", "2"), Err(FileError::Syntax { .. })));
        assert_eq!(std::fs::read_to_string(&file.path).expect("read"), "[machine\ncpus = 2\n");
    }
}
