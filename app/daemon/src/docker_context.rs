//! The host's `docker` finds the engine by a context; the person's `config.json` says which one is current.
//!
//! That file is the person's: other programs keep logins in it, and people format it. So it is never parsed and
//! written again: one value is spliced into its text, and every other byte stays as it was.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use slipway_settings::paths::docker_host;

use crate::system;

/// By this a context is known to be ours.
const DESCRIPTION: &str = "Slipway";
/// What docker calls the context that no file describes.
const DEFAULT: &str = "default";
/// Links that are followed from `config.json` before they count as a circle.
const MOST_LINKS: usize = 16;

/// docker's configuration could not be read or changed; it is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A file cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be replaced or removed.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The person's file is not what docker reads.
    #[error("`{path}` is not valid JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The person's file is JSON, and not an object.
    #[error("`{0}` is not a JSON object")]
    NotAnObject(PathBuf),
    /// Somebody else made a context of that name.
    #[error("there is a docker context `{0}` that Slipway did not make")]
    Foreign(String),
    /// docker has no words for such a path.
    #[error("the socket's path `{0}` is not valid UTF-8")]
    Socket(PathBuf),
}

/// What became of the wish to make a context the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Used {
    /// It was already.
    Already,
    /// It is now.
    Changed {
        /// The one before; none: docker's own default.
        before: Option<String>,
    },
}

/// What docker is told under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Described {
    /// Nothing.
    Missing,
    /// Our engine.
    Right,
    /// We described it, and it leads elsewhere; `None`: it cannot be read.
    Wrong(Option<String>),
    /// Somebody else made it, and it leads elsewhere.
    Foreign,
}

/// A folder of docker's configuration: `~/.docker`, or what `DOCKER_CONFIG` says.
#[derive(Debug, Clone)]
pub struct DockerContext {
    dir: PathBuf,
}

impl DockerContext {
    /// The folder need not exist.
    pub fn new(docker_config_dir: PathBuf) -> Self {
        Self { dir: docker_config_dir }
    }

    /// What docker is told under that name, compared with the engine behind `socket`. Nothing is changed.
    ///
    /// # Errors
    /// That of reading it.
    pub fn look(&self, name: &str, socket: &Path) -> Result<Described, ContextError> {
        let host = host_of(socket)?;
        let Some(text) = read(&self.meta_file(name))? else { return Ok(Described::Missing) };
        let there: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if there["Name"] != name {
            return Ok(Described::Wrong(None));
        }
        let leads = there["Endpoints"]["docker"]["Host"].as_str();
        Ok(if leads == Some(host.as_str()) {
            Described::Right
        } else if there["Metadata"]["Description"] != DESCRIPTION {
            Described::Foreign
        } else {
            Described::Wrong(leads.map(str::to_owned))
        })
    }

    /// Describes the engine behind `socket` to docker under that name. Tells whether anything had to be written.
    ///
    /// # Errors
    /// [`ContextError::Foreign`] for a name that is taken; else that of the system.
    pub fn ensure(&self, name: &str, socket: &Path) -> Result<bool, ContextError> {
        match self.look(name, socket)? {
            Described::Right => return Ok(false),
            Described::Foreign => return Err(ContextError::Foreign(name.to_owned())),
            // What cannot be read as a description is a broken one: ours is better.
            Described::Missing | Described::Wrong(_) => {}
        }
        let host = host_of(socket)?;
        let path = self.meta_file(name);
        let meta = serde_json::json!({
            "Name": name,
            "Metadata": {"Description": DESCRIPTION},
            "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}},
        });
        self.make_dir(&self.meta_dir(name))?;
        replace(&path, meta.to_string().as_bytes(), 0o644)
            .map_err(|source| ContextError::Write { path, source })?;
        Ok(true)
    }

    /// The context that docker uses when nothing else is said; none: its own default.
    ///
    /// # Errors
    /// Those of a file that cannot be read or understood.
    pub fn current(&self) -> Result<Option<String>, ContextError> {
        let path = self.config();
        let text = read(&path)?.unwrap_or_default();
        Ok(document(&path, &text)?.and_then(|d| d.current))
    }

    /// Makes the context of that name the current one.
    ///
    /// # Errors
    /// Those of a file that cannot be understood or replaced; it is then as it was.
    pub fn use_it(&self, name: &str) -> Result<Used, ContextError> {
        let path = self.config();
        let text = read(&path)?;
        let Some(text) = text else {
            self.make_dir(&self.dir)?;
            self.write(&path, &with_current(&path, "", name)?, 0o600)?;
            return Ok(Used::Changed { before: None });
        };
        let before = document(&path, &text)?.and_then(|d| d.current);
        if before.as_deref() == Some(name) {
            return Ok(Used::Already);
        }
        self.write(&path, &with_current(&path, &text, name)?, 0o600)?;
        Ok(Used::Changed { before })
    }

    /// Gives docker its default back if the context of that name is the current one. Tells whether it was.
    ///
    /// # Errors
    /// As for [`use_it`](Self::use_it).
    pub fn release(&self, name: &str) -> Result<bool, ContextError> {
        let path = self.config();
        let Some(before) = read(&path)? else { return Ok(false) };
        let mut text = before.clone();
        // A file that says it several times means the last one; without it the one before would hold.
        while let Some(document) = document(&path, &text)?
            && document.current.as_deref() == Some(name)
        {
            text = document.without_current(&text);
        }
        if text == before {
            return Ok(false);
        }
        self.write(&path, &text, 0o600)?;
        Ok(true)
    }

    /// Takes our description of that name away. Tells whether there was one.
    ///
    /// # Errors
    /// That of the system. A context that is not ours stays, without an error.
    pub fn remove(&self, name: &str) -> Result<bool, ContextError> {
        let dir = self.meta_dir(name);
        let path = dir.join("meta.json");
        let Some(text) = read(&path)? else { return Ok(false) };
        let there: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if there["Metadata"]["Description"] != DESCRIPTION {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(|source| ContextError::Write { path, source })?;
        // What else lies in it is not ours.
        let _ = fs::remove_dir(&dir);
        Ok(true)
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    fn meta_file(&self, name: &str) -> PathBuf {
        self.meta_dir(name).join("meta.json")
    }

    fn meta_dir(&self, name: &str) -> PathBuf {
        let id: String = Sha256::digest(name).iter().map(|b| format!("{b:02x}")).collect();
        self.dir.join("contexts/meta").join(id)
    }

    fn make_dir(&self, dir: &Path) -> Result<(), ContextError> {
        let failed = |source| ContextError::Write { path: dir.to_owned(), source };
        // It will hold logins, as docker's own folder does.
        system::make_dir(&self.dir, 0o700).map_err(failed)?;
        system::make_dir(dir, 0o755).map_err(failed)
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), ContextError> {
        replace(path, text.as_bytes(), mode)
            .map_err(|source| ContextError::Write { path: path.to_owned(), source })
    }
}

/// The socket as docker writes it.
fn host_of(socket: &Path) -> Result<String, ContextError> {
    socket.to_str().ok_or_else(|| ContextError::Socket(socket.to_owned()))?;
    Ok(docker_host(socket))
}

fn read(path: &Path) -> Result<Option<String>, ContextError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ContextError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces the file that `path` leads to, or makes it. Links, mode and owner stay.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut path = path.to_owned();
    // By hand: the system does not resolve a link to a file that is not there yet.
    for step in 0.. {
        match fs::read_link(&path) {
            Ok(_) if step == MOST_LINKS => return Err(io::Error::other("too many symbolic links")),
            Ok(to) => path = path.parent().unwrap_or(Path::new("/")).join(to),
            Err(_) => break,
        }
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.join(format!(".{name}.slipway-{}", std::process::id()));
    let there = fs::metadata(&path).ok();
    let write = || {
        // A rest of a process that had our number and died.
        let _ = fs::remove_file(&aside);
        let mut file = system::create_new(&aside, 0o600)?;
        file.write_all(bytes)?;
        let mode = there.as_ref().map_or(mode, system::mode);
        if let Some(there) = &there {
            system::owned_as(&file, there);
        }
        system::set_mode(&file, mode)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        system::settle(dir)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

/// One `"key": value` of the outermost object, as places in the text.
#[derive(Debug, Clone, Copy)]
struct Member {
    key: usize,
    key_end: usize,
    value: usize,
    value_end: usize,
}

/// Where in the text things are.
#[derive(Debug)]
struct Document {
    /// Behind the outermost `{`.
    open: usize,
    members: Vec<Member>,
    /// The member that counts, as a place in `members`.
    ours: Option<usize>,
    current: Option<String>,
}

/// Finds the members of the outermost object; none in a file without a word, which docker takes for an empty object.
fn document(path: &Path, text: &str) -> Result<Option<Document>, ContextError> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let body = &text[start..];
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    if body.trim_matches(space).is_empty() {
        return Ok(None);
    }
    // From here on the text is known to be JSON, so that finding things in it needs no care for mistakes.
    serde_json::from_str::<IgnoredAny>(body)
        .map_err(|source| ContextError::Json { path: path.to_owned(), source })?;
    if !body.trim_start_matches(space).starts_with('{') {
        return Err(ContextError::NotAnObject(path.to_owned()));
    }
    let open = start + body.find('{').unwrap_or(0) + 1;
    let members = members(text.as_bytes(), open);
    // docker's reader takes keys in any case, and of several the last.
    let is_ours = |m: &Member| {
        serde_json::from_str::<String>(&text[m.key..m.key_end])
            .is_ok_and(|key| key.eq_ignore_ascii_case("currentContext"))
    };
    let ours = members.iter().rposition(is_ours);
    let current = ours
        .and_then(|at| serde_json::from_str::<String>(&text[members[at].value..members[at].value_end]).ok())
        .filter(|name| !name.is_empty() && name != DEFAULT);
    Ok(Some(Document { open, members, ours, current }))
}

fn members(text: &[u8], open: usize) -> Vec<Member> {
    let mut members = Vec::new();
    let mut at = skip_space(text, open);
    while text.get(at) == Some(&b'"') {
        let key = at;
        let key_end = skip_value(text, key);
        let value = skip_space(text, skip_space(text, key_end) + 1);
        let value_end = skip_value(text, value);
        members.push(Member { key, key_end, value, value_end });
        at = skip_space(text, value_end);
        if text.get(at) != Some(&b',') {
            break;
        }
        at = skip_space(text, at + 1);
    }
    members
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the value that begins at `at`.
fn skip_value(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while text.get(at).is_some_and(|b| *b != b'"') {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
            b'}' | b']' if depth > 0 => (depth, at) = (depth - 1, at + 1),
            // Inside: a comma, a colon, a blank, a letter of a number or a word.
            _ if depth > 0 => at += 1,
            // Outside: a number or a word ends before what cannot be part of it.
            b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The text with that context as the current one.
fn with_current(path: &Path, text: &str, name: &str) -> Result<String, ContextError> {
    let name = serde_json::Value::from(name).to_string();
    let Some(document) = document(path, text)? else {
        return Ok(format!("{text}{{\n\t\"currentContext\": {name}\n}}\n"));
    };
    let splice = |from: usize, to: usize, new: &str| format!("{}{new}{}", &text[..from], &text[to..]);
    if let Some(at) = document.ours {
        let ours = document.members[at];
        return Ok(splice(ours.value, ours.value_end, &name));
    }
    Ok(match document.members.last() {
        // In the manner of the person: blanks as before the last key and around its colon.
        Some(last) => {
            let before = &text.as_bytes()[..last.key];
            let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
            let blanks = before.iter().rev().take_while(|b| blank(b)).count();
            let (blanks, colon) = (&text[last.key - blanks..last.key], &text[last.key_end..last.value]);
            splice(last.value_end, last.value_end, &format!(",{blanks}\"currentContext\"{colon}{name}"))
        }
        None => {
            let eol = if text.contains("\r\n") { "\r\n" } else { "\n" };
            let end = if text[document.open..].trim_start_matches([' ', '\t']).starts_with(['\r', '\n']) {
                ""
            } else {
                eol
            };
            let new = format!("{eol}\t\"currentContext\": {name}{end}");
            splice(document.open, document.open, &new)
        }
    })
}

impl Document {
    /// The text without the member that counts, its comma and the blanks between.
    fn without_current(&self, text: &str) -> String {
        let Some(at) = self.ours else { return text.to_owned() };
        let ours = self.members[at];
        let (from, to) = match (at.checked_sub(1).map(|i| self.members[i]), self.members.get(at + 1)) {
            (Some(before), _) => (before.value_end, ours.value_end),
            (None, Some(next)) => (ours.key, next.key),
            (None, None) => (self.open, ours.value_end),
        };
        format!("{}{}", &text[..from], &text[to..])
    }
}

#[cfg(all(test, unix))] // What they look at is: modes, sockets.
#[path = "docker_context_tests.rs"]
mod tests;
