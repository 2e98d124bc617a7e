//! One request's head: what it asks for, how long its body is, and whether anything comes after it.

use percent_encoding::percent_decode_str;

/// Longest head in bytes; a longer one is not looked into.
pub(super) const LONGEST: usize = 64 << 10;
/// Most fields of a head.
const FIELDS: usize = 128;

/// What a request creates that can name folders of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `POST /containers/create`.
    Container,
    /// `POST /services/create`, `POST /services/ID/update`.
    Service,
    /// `POST /volumes/create`.
    Volume,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// In bytes, with the empty line.
    pub length: usize,
    /// As in its first line.
    pub path: String,
    /// What it creates, if that can name folders.
    pub creates: Option<Kind>,
    /// Its body.
    pub body: Body,
    /// No other request follows on this connection: it is upgraded or hijacked, or its client said so.
    pub last: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects: bool,
}

/// What bytes are the beginning of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Of a request.
    Head(Head),
    /// Of a request, perhaps; its head is not complete.
    More,
    /// Of nothing that is understood.
    Other,
}

/// What the request at this path creates, if something that can name folders: `/v1.47/containers/create?name=x`.
/// Written as the engine also takes it: with the host before it, or with `%63` for a `c`.
pub fn creates(path: &str) -> Option<Kind> {
    let path = percent_decode_str(path.split('?').next().unwrap_or(path)).decode_utf8_lossy();
    let path = match path.split_once("://") {
        Some((_, rest)) if !path.starts_with('/') => rest.split_once('/').map_or("", |(_, path)| path),
        _ => &path,
    };
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let version = |part: &&str| {
        part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if parts.first().is_some_and(version) {
        parts.remove(0);
    }
    match parts.as_slice() {
        ["containers", "create"] => Some(Kind::Container),
        ["services", "create"] | ["services", _, "update"] => Some(Kind::Service),
        ["volumes", "create"] => Some(Kind::Volume),
        _ => None,
    }
}

/// Does a connection become something else after this request, upgrade or not?
fn hijacks(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts.as_slice(),
        [.., "containers", _, "attach"]
            | [.., "exec", _, "start"]
            | [.., "attach", "ws"]
            | [.., "session"]
            | [.., "grpc"]
    )
}

/// Looks at the beginning of what a client sends.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::More;
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Parsed::More,
        _ => return Parsed::Other,
    };
    let path = request.path.unwrap_or_default().to_owned();
    let value = |name: &'static str| {
        let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value).trim().to_ascii_lowercase())
    };
    let says = |name: &'static str, word: &str| value(name).any(|v| v.split(',').any(|w| w.trim() == word));
    let body = match (value("transfer-encoding").next(), value("content-length").next()) {
        (Some(coding), None) if coding == "chunked" => Body::Chunked,
        (None, None) => Body::Length(0),
        (None, Some(length)) if value("content-length").all(|other| other == length) => {
            match length.parse() {
                Ok(length) => Body::Length(length),
                Err(_) => return Parsed::Other,
            }
        }
        // Two framings, or one that is not known: where it ends is a guess.
        _ => return Parsed::Other,
    };
    let upgrades = value("upgrade").next().is_some() || says("connection", "upgrade");
    let last = upgrades || hijacks(&path) || says("connection", "close") || request.version != Some(1);
    let creates = (request.method == Some("POST")).then(|| creates(&path)).flatten();
    Parsed::Head(Head { length, path, creates, body, last, expects: says("expect", "100-continue") })
}

impl Head {
    /// The same head for a body of another length; `bytes` are this head's.
    pub(super) fn with_length(&self, bytes: &[u8], length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 32);
        let framing = |line: &[u8]| {
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            is("content-length") || is("transfer-encoding") || is("expect") || is("trailer")
        };
        for (n, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            let empty = line.iter().all(|b| *b == b'\r' || *b == b'\n');
            if n > 0 && empty {
                break;
            }
            if n == 0 || !framing(line) {
                out.extend_from_slice(line);
            }
        }
        out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        out
    }
}
