//! The logs as files, read as what they are: by the daemon, and by the CLI where no daemon lives.
//!
//! A line is JSON as the daemon stores what the guest said, or text that begins with a time, or just text, which then
//! belongs to the moment of the line before it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::UNIX_EPOCH,
};

use crate::{LogLine, LogQuery, Problem, UNITS, paths::Paths, time};

/// Bytes that are read of each file, from its end.
const MOST: u64 = 16 << 20;

/// The lines that the query asks for, old ones first.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn read(paths: &Paths, query: &LogQuery) -> Result<Vec<LogLine>, Problem> {
    let mut lines = Vec::new();
    for unit in UNITS.iter().filter(|u| query.unit.as_deref().is_none_or(|wanted| wanted == **u)) {
        let path = paths.log(unit);
        // What was set aside when the log grew long comes first.
        for path in [path.with_extension("log.1"), path] {
            match tail(&path) {
                Ok((text, written_ms)) => lines.extend(parse(&text, unit, written_ms)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    let problem =
                        Problem::new("log-unreadable", format!("failed to read `{}`", path.display()));
                    return Err(problem.because(e.to_string()));
                }
            }
        }
    }
    // Stable: what one part said stays in its order.
    lines.sort_by_key(|line| line.unix_ms);
    lines.retain(|line| query.since_ms.is_none_or(|since| line.unix_ms >= since));
    if let Some(tail) = query.tail {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    Ok(lines)
}

/// The end of one log as text, from the beginning of a line.
///
/// # Errors
/// That of reading it.
pub fn end_of(path: &Path) -> io::Result<String> {
    tail(path).map(|(text, _)| text)
}

/// The end of a file, and when it was written last.
fn tail(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    let from = found.len().saturating_sub(MOST);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if from > 0 {
        // The first line is cut.
        text = text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned());
    }
    let written = found.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Ok((text, written.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0))))
}

fn parse(text: &str, unit: &str, written_ms: u64) -> Vec<LogLine> {
    let mut lines: Vec<LogLine> = Vec::new();
    let mut undated = 0;
    for line in text.lines() {
        if let Ok(line) = serde_json::from_str::<LogLine>(line) {
            lines.push(line);
            continue;
        }
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (unix_ms, said) = match time::rfc3339(first).filter(|_| first.len() > 10) {
            Some(at) => (at, rest.trim_start()),
            None => match lines.last() {
                Some(before) if lines.len() > undated => (before.unix_ms, line),
                _ => {
                    undated += 1;
                    (written_ms, line)
                }
            },
        };
        lines.push(LogLine { unix_ms, unit: unit.to_owned(), line: said.to_owned() });
    }
    // What came before the first time cannot be younger than it.
    if let Some(first) = lines.get(undated).map(|line| line.unix_ms) {
        lines[..undated].iter_mut().for_each(|line| line.unix_ms = first);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Env;

    #[test]
    fn json_and_text_are_merged_by_time() {
        let dir = tempfile::tempdir().expect("folder");
        let env = Env { slipway_home: Some(dir.path().into()), ..Env::default() };
        let paths = Paths::resolve(&env, "default").expect("resolves");
        assert!(read(&paths, &LogQuery::default()).expect("no files are no lines").is_empty());
        paths.prepare().expect("made");
        std::fs::write(
            paths.log("daemon"),
            "cut short\n1970-01-01T00:00:02.5Z  INFO hello\n  more\n1970-01-01T00:00:04Z  INFO bye\n",
        )
        .expect("written");
        std::fs::write(paths.log("agent"), "{\"unix_ms\":3000,\"unit\":\"agent\",\"line\":\"up\"}\n")
            .expect("written");
        let said = |query: &LogQuery| -> Vec<String> {
            let lines = read(&paths, query).expect("read");
            lines.iter().map(|l| format!("{} {} {}", l.unix_ms, l.unit, l.line)).collect()
        };
        let all = [
            "2500 daemon cut short",
            "2500 daemon INFO hello",
            "2500 daemon   more",
            "3000 agent up",
            "4000 daemon INFO bye",
        ];
        assert_eq!(said(&LogQuery::default()), all);
        assert_eq!(said(&LogQuery { since_ms: Some(3000), ..LogQuery::default() }), all[3..]);
        assert_eq!(said(&LogQuery { tail: Some(1), ..LogQuery::default() }), all[4..]);
        assert_eq!(said(&LogQuery { unit: Some("agent".into()), ..LogQuery::default() }), all[3..4]);
    }

    #[test]
    fn lines_without_any_time_are_of_the_moment_of_writing() {
        let lines = parse("a\nb\n", "console", 77);
        assert!(lines.iter().all(|l| l.unix_ms == 77) && lines.len() == 2, "{lines:?}");
    }
}
