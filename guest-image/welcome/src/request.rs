//! As much HTTP as one page needs: a bounded request head in, one answer out, connection closed.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

/// The longest request head that is read.
const HEAD_LIMIT: usize = 8 << 10;

/// Said to a client beyond the bound on connections.
pub(crate) const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    head_only: bool,
    known_method: bool,
    path: String,
}

/// Reads one request head; `Err` inside is the answer that refuses it.
pub(crate) fn read(
    from: &mut impl Read,
    patience: Duration,
) -> std::io::Result<Result<Request, &'static [u8]>> {
    let deadline = Instant::now() + patience;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(Err(BAD)),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Err(TIMEOUT));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        head.extend_from_slice(&buffer[..read]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(if end > HEAD_LIMIT { Err(TOO_LARGE) } else { parse(&head[..end]).ok_or(BAD) });
        }
        if head.len() > HEAD_LIMIT {
            return Ok(Err(TOO_LARGE));
        }
        // A byte a second keeps each read in time, but not the whole.
        if Instant::now() > deadline {
            return Ok(Err(TIMEOUT));
        }
    }
}

fn parse(head: &[u8]) -> Option<Request> {
    let line = std::str::from_utf8(head.split(|&byte| byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return None;
    }
    let path = target.split('?').next()?.to_owned();
    Some(Request { head_only: method == "HEAD", known_method: matches!(method, "GET" | "HEAD"), path })
}

impl Request {
    /// The whole answer; `page` is made only if it is what was asked for.
    pub(crate) fn answer(&self, page: impl FnOnce() -> String) -> Vec<u8> {
        let (status, kind, body) = match self.path.as_str() {
            _ if !self.known_method => {
                ("405 Method Not Allowed", "text/plain", "only GET and HEAD\n".to_owned())
            }
            "/" => ("200 OK", "text/html; charset=utf-8", page()),
            "/health" => ("200 OK", "text/plain", "ok".to_owned()),
            _ => ("404 Not Found", "text/plain", "there is only / and /health\n".to_owned()),
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if !self.head_only {
            answer.push_str(&body);
        }
        answer.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &[u8]) -> Result<Request, &'static [u8]> {
        read(&mut &*text, Duration::from_secs(1)).unwrap()
    }

    fn answer(text: &str) -> String {
        String::from_utf8(ask(text.as_bytes()).unwrap().answer(|| "the page".to_owned())).unwrap()
    }

    #[test]
    fn the_page_and_the_health_are_served() {
        assert!(answer("GET /?a=b HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\nthe page"));
        assert!(answer("GET /health HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok"));
    }

    #[test]
    fn head_says_the_length_and_sends_no_body() {
        let answer = answer("HEAD / HTTP/1.1\r\n\r\n");
        assert!(answer.contains("Content-Length: 8\r\n") && answer.ends_with("\r\n\r\n"));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert!(answer("GET /../etc/passwd HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(answer("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn a_head_without_end_is_cut_at_its_bound() {
        assert_eq!(ask(&[b'a'; 100_000]), Err(TOO_LARGE));
        assert_eq!(ask(b"GET / HTTP/1.1\r\n"), Err(BAD));
        assert_eq!(ask(b"\xff\xfe\r\n\r\n"), Err(BAD));
        assert_eq!(ask(b"GET / HTTP/1.1 x\r\n\r\n"), Err(BAD));
    }
}
