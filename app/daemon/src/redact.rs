//! Takes secrets out of what leaves this computer by the person's hand: logs, settings and answers in a diagnostics bundle.
//!
//! Three nets, one behind the other: values that are known to be secret (the settings' and docker's own), wherever they stand;
//! names that say that what follows is one, in JSON, logs, headers, URLs and command lines; and shapes that tokens are known
//! by. Too much taken out is a worse report, too little a published password: in doubt it goes.

use std::{borrow::Cow, collections::BTreeSet, sync::LazyLock};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use regex::{Captures, Regex};
use serde_json::Value;

/// What stands where a secret was.
pub(crate) const GONE: &str = "***";
/// Known values shorter than this are words that are everywhere.
const SHORTEST: usize = 4;
/// What stands escaped in an URL: all but the unreserved of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Nesting of JSON beyond which it goes as a whole.
const DEEPEST: usize = 64;

/// Names that say that their value is secret.
const NAME: &str = r#"(?:[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|unlock[_-]?key|credential)[\w.-]*|(?:[\w.]+[_-])?(?:auth|pass)|[\w.]+[_-]pwd)"#;
/// A value: quoted in one way or another, a list, or all until a blank.
const VALUE: &str = r#"(?:\\+"(?:[^"\\]|\\[^"])*(?:\\+")?|"(?:[^"\\]|\\.)*"?|'[^']*'?|\[[^\]]*\]?|\S+)"#;

/// What is looked for, and what takes its place; in this order.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let made = |pattern: &str, with: &'static str| {
        (Regex::new(pattern).expect("BUG: a pattern of this file is wrong"), with)
    };
    vec![
        // Headers, to the end of their line: what follows may have blanks in it.
        made(
            r#"(?i)((?:proxy-)?authorization|x-registry-(?:auth|config)|(?:set-)?cookie)(["'\\]*\s*[:=]\s*)\S.*"#,
            "$1$2***",
        ),
        // `http://user:password@host`; the password may hold an `@` or a `/` that should have been escaped.
        made(r#"(://)[^\s/:@]*:\S*@"#, "$1***@"),
        // `https://token@host`
        made(r#"(://)[^\s/:@"']+@"#, "$1***@"),
        made(r#"(?i)([?&;](?:sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|key|code)=)[^&\s"'\\]+"#, "$1***"),
        // All of an environment, and of what a build is given.
        made(r#"(?i)(\benv(?:ironment)?\\*["']?\s*[:=]\s*\[)[^\]]*"#, "$1***"),
        made(r#"(?i)(\bbuild-?args?\\*["']?\s*[:=]\s*)(?:\{[^}]*|\S+)"#, "$1***"),
        made(r#"((?:^|\s)(?:-e|--env|--build-arg)[ =]["']?\w+=)(?:"[^"]*"|'[^']*'|\S+)"#, "$1***"),
        // `--password hush`, `-u me:hush`
        made(&format!(r#"(?i)((?:^|[\s"'\[,])--?{NAME}["',]*\s+)["']?[^-\s]\S*"#), "$1***"),
        made(r#"((?:^|\s)(?:-u|--user)[ =])\S+:\S+"#, "$1***"),
        // `NAME=value`, `name: value`, `"name": "value"`
        made(&format!(r#"(?i)(\b{NAME}\\*["']?\s*(?::=|=>|[:=])\s*){VALUE}"#), "$1***"),
        made(r#"(?i)\b(bearer|basic|negotiate|digest)\s+[\w+/=.~-]{8,}"#, "$1 ***"),
        // By their shape.
        made(
            r#"(?x)\b(?: gh[pousr]_\w{16,} | github_pat_\w{16,} | glpat-[\w-]{10,} | dckr_[a-z]{3}_[\w-]{10,} | xox[a-z]-[\w-]{10,}
                | (?:AKIA|ASIA)[A-Z0-9]{12,} | AIza[\w-]{30,} | npm_\w{20,} | hf_\w{20,} | sk-[\w-]{20,} | SWM(?:TKN|KEY)-1-[\w-]+
                | eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)? )"#,
            GONE,
        ),
    ]
});

/// `user:password@host` without a scheme, as proxies are written. A digest behind an image's tag looks alike.
static BARE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"([\w.%+-]+:[^\s/"'@]+)@([\w-]+)"#).expect("BUG: a pattern of this file is wrong")
});

/// A line of a key, as PEM breaks them.
static PEM_LINE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[A-Za-z0-9+/=]{16,}\s*$").expect("BUG: a pattern of this file is wrong"));
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";
const PEM_PRIVATE: &str = "PRIVATE KEY";

/// One line, by names and shapes alone.
pub(crate) fn line(text: &str) -> String {
    Redactor::default().text(text)
}

/// Whether the value under that name is secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    static ALL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(&format!("(?i)^(?:{NAME}|(?:proxy-)?authorization|(?:set-)?cookie|x-registry-(?:auth|config)|registryauth)$"))
            .expect("BUG: a pattern of this file is wrong")
    });
    ALL.is_match(name)
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    /// In every spelling, longest first, so that a secret within another leaves no rest.
    known: Vec<String>,
}

impl Redactor {
    /// With values that are secret wherever they stand.
    pub(crate) fn knowing(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut spellings = BTreeSet::new();
        for secret in secrets {
            let decoded = percent_decode_str(&secret).decode_utf8_lossy().into_owned();
            for plain in [&secret, &decoded] {
                spellings.insert(plain.clone());
                let quoted = Value::from(plain.as_str()).to_string();
                spellings.insert(quoted.trim_matches('"').to_owned());
                // As it stands in a text that is quoted once more.
                spellings
                    .insert(Value::from(quoted.trim_matches('"')).to_string().trim_matches('"').to_owned());
                spellings.insert(utf8_percent_encode(plain, ESCAPED).to_string());
            }
        }
        let mut known: Vec<String> = spellings.into_iter().filter(|s| s.len() >= SHORTEST).collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { known }
    }

    /// A text of any lines.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut in_key = false;
        for line in text.split('\n') {
            let (cleaned, now) = self.one_of_several(line, in_key);
            if !in_key && !now && ends_cut_key(line) {
                // The text was cut inside a key.
                for before in lines.iter_mut().rev().take_while(|before| PEM_LINE.is_match(before)) {
                    *before = GONE.to_owned();
                }
            }
            in_key = now;
            lines.push(cleaned);
        }
        lines.join("\n")
    }

    /// The lines of a log: those that are JSON stay JSON.
    pub(crate) fn log(&self, text: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut in_key = false;
        for line in text.lines() {
            let parsed = serde_json::from_str::<Value>(line).ok().filter(Value::is_object);
            let words = parsed.as_ref().and_then(|value| value["line"].as_str());
            let said = words.unwrap_or(if parsed.is_some() { "" } else { line }).to_owned();
            let (cleaned, now) = self.one_of_several(&said, in_key);
            let was_in_key = in_key;
            in_key = now;
            if !was_in_key && !now && ends_cut_key(&said) {
                let cut = |before: &&mut String| PEM_LINE.is_match(before.trim_end_matches(['"', '}', ',']));
                lines.iter_mut().rev().take_while(cut).for_each(|before| *before = GONE.to_owned());
            }
            lines.push(match parsed {
                Some(mut value) => {
                    self.json(&mut value);
                    if value.get("line").is_some() {
                        value["line"] = cleaned.into();
                    }
                    value.to_string()
                }
                None => cleaned,
            });
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// One line, and whether a private key goes on behind it.
    fn one_of_several(&self, line: &str, in_key: bool) -> (String, bool) {
        let begins = line.rfind(PEM_BEGIN).filter(|at| line[*at..].contains(PEM_PRIVATE));
        let ends = line.rfind(PEM_END);
        if in_key {
            let over = ends.is_some() && begins.is_none_or(|at| Some(at) < ends);
            return (GONE.to_owned(), !over);
        }
        match begins {
            // Also a key that lies in one line, with its line ends written out.
            Some(_) => (GONE.to_owned(), ends.is_none_or(|end| begins > Some(end))),
            None => (self.one(line), false),
        }
    }

    fn one(&self, line: &str) -> String {
        let mut text = Cow::Borrowed(line);
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), GONE));
            }
        }
        for (pattern, with) in PATTERNS.iter() {
            if let Cow::Owned(new) = pattern.replace_all(&text, *with) {
                text = Cow::Owned(new);
            }
        }
        let bare = |found: &Captures<'_>| match &found[2] {
            host if host.starts_with("sha256") || host.starts_with("sha512") => found[0].to_owned(),
            host => format!("{GONE}@{host}"),
        };
        match BARE.replace_all(&text, bare) {
            Cow::Owned(new) => new,
            Cow::Borrowed(_) => text.into_owned(),
        }
    }

    /// All of a JSON value, which stays of its form.
    pub(crate) fn json(&self, value: &mut Value) {
        self.json_at(value, DEEPEST);
    }

    fn json_at(&self, value: &mut Value, depth: usize) {
        if depth == 0 {
            *value = GONE.into();
            return;
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => {
                // `["--token", "hush"]`: the value is an item of its own.
                let mut follows = false;
                for item in items {
                    let flag = item.as_str().is_some_and(|text| {
                        text.starts_with('-') && is_secret_name(text.trim_start_matches('-'))
                    });
                    if follows && !flag {
                        *item = GONE.into();
                    } else {
                        self.json_at(item, depth - 1);
                    }
                    follows = flag;
                }
            }
            Value::Object(members) => {
                let taken = std::mem::take(members);
                for (name, mut member) in taken {
                    let environment = ["env", "environment", "buildargs", "build-args", "httpheaders"]
                        .iter()
                        .any(|known| name.eq_ignore_ascii_case(known));
                    if environment {
                        names_only(&mut member);
                    } else if is_secret_name(&name) {
                        gone(&mut member);
                    } else {
                        self.json_at(&mut member, depth - 1);
                    }
                    members.insert(self.one(&name), member);
                }
            }
        }
    }
}

/// Nothing of it is left but that there was something.
fn gone(value: &mut Value) {
    let empty = matches!(value, Value::Null | Value::Bool(_)) || value.as_str() == Some("");
    if !empty {
        *value = GONE.into();
    }
}

/// `NAME=***`, or the names of an object.
fn names_only(value: &mut Value) {
    match value {
        Value::Array(items) => {
            for item in items {
                let name =
                    item.as_str().and_then(|text| text.split_once('=')).map(|(name, _)| name.to_owned());
                *item = name.map_or(GONE.into(), |name| format!("{name}={GONE}").into());
            }
        }
        Value::Object(members) => members.values_mut().for_each(gone),
        other => gone(other),
    }
}

/// Every secret in a JSON value, by its name or in an URL: for [`Redactor::knowing`].
pub(crate) fn secrets_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.extend(secrets_in_url(text)),
        Value::Array(items) => items.iter().for_each(|item| secrets_in(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if is_secret_name(name) => found.push(text.clone()),
                    _ => secrets_in(member, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The password of an URL, or the name where that is all there is.
pub(crate) fn secrets_in_url(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (user, _) = rest.rsplit_once('@')?;
    let secret = user.split_once(':').map_or(user, |(_, password)| password);
    (!secret.is_empty() && !secret.contains(char::is_whitespace)).then(|| secret.to_owned())
}

/// Whether a line ends a private key whose beginning is not there.
fn ends_cut_key(line: &str) -> bool {
    line.contains(PEM_END) && line.contains(PEM_PRIVATE) && !line.contains(PEM_BEGIN)
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
