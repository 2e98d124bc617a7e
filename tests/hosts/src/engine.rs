//! Plays the engine: answers `_ping`, says of a container to be created what it was asked for, and attaches to containers that
//! each end their stream in another way.
//!
//! | container | what it does once attached |
//! |---|---|
//! | `echo` | sends back what it gets, until that ends |
//! | `reads` | reads to the end, then says how much that was |
//! | `speaks` | says 300 000 bytes and ends its direction, then reads to the end; `GET /heard` says how much that was |
//! | `leaves` | closes at once |

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Mutex, PoisonError},
    thread,
};

/// What `speaks` has to say.
const SPEECH: usize = 300_000;

/// What `speaks` has heard last.
static HEARD: Mutex<Option<usize>> = Mutex::new(None);

/// Serves until the process ends.
pub(crate) fn serve(listener: &UnixListener) {
    for stream in listener.incoming().flatten() {
        // Clients come and go.
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        if let Some((name, value)) = head[start..].split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let asked = path.split('?').next().unwrap_or_default();
    let container = asked.strip_suffix("/attach").and_then(|path| path.rsplit('/').next());
    match (method, path, container) {
        (_, "/_ping", _) => say(&mut stream, "200 OK", "OK"),
        ("GET", "/heard", _) => {
            let heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner).take();
            say(&mut stream, "200 OK", &heard.map_or_else(|| "nothing yet".into(), |count| count.to_string()))
        }
        ("POST", path, None) if path.ends_with("/containers/create") => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            say(&mut stream, "201 Created", &String::from_utf8_lossy(&body))
        }
        ("POST", _, Some(container)) => attached(stream, reader, container),
        _ => say(&mut stream, "404 Not Found", r#"{"message":"page not found"}"#),
    }
}

fn say(stream: &mut UnixStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nServer: Docker/28.5.1 (linux)\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn attached(mut stream: UnixStream, mut reader: BufReader<UnixStream>, container: &str) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
    match container {
        "echo" => {
            io::copy(&mut reader, &mut stream)?;
        }
        "reads" => {
            let mut all = Vec::new();
            reader.read_to_end(&mut all)?;
            write!(stream, "{}", all.len())?;
        }
        "speaks" => {
            stream.write_all(&vec![b'x'; SPEECH])?;
            stream.shutdown(Shutdown::Write)?;
            let mut all = Vec::new();
            reader.read_to_end(&mut all)?;
            *HEARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(all.len());
        }
        _ => {}
    }
    stream.shutdown(Shutdown::Both)
}
