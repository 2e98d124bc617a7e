//! The logs of all parts, a file for each, with a bounded size; and whoever follows them.
//!
//! A line of a unit that the daemon writes is JSON with its time. Lines of the guest also carry the agent's number and the
//! machine's process id, so that a daemon that finds a machine goes on where the last one was killed.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use slipway_api::{LogLine, log_files, paths::Paths};
use tokio::sync::broadcast;

/// Bytes of one log before it is set aside as `NAME.log.1`, replacing the one before.
const LONGEST: u64 = 8 << 20;
/// Lines that a slow follower may be behind before it misses some.
const BEHIND: usize = 4096;

/// The unit of the daemon itself.
pub(crate) const DAEMON: &str = "daemon";

/// Where the agent numbered a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Process id of the VM.
    pub(crate) machine: u32,
    /// The agent's number.
    pub(crate) sequence: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    line: LogLine,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogStore {
    paths: Paths,
    open: Mutex<HashMap<String, Open>>,
    live: broadcast::Sender<LogLine>,
}

impl LogStore {
    pub(crate) fn new(paths: Paths) -> Self {
        Self { paths, open: Mutex::default(), live: broadcast::Sender::new(BEHIND) }
    }

    /// Everything from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<LogLine> {
        self.live.subscribe()
    }

    /// Writes one line. A log that cannot be written is no reason to stop: followers get it all the same.
    pub(crate) fn push(&self, line: LogLine, origin: Option<Origin>) {
        if let Err(error) = self.write(&line, origin) {
            eprintln!("failed to write the log of {}: {error}", line.unit);
        }
        // Nobody may be following.
        let _ = self.live.send(line);
    }

    fn write(&self, line: &LogLine, origin: Option<Origin>) -> io::Result<()> {
        let mut json = serde_json::to_vec(&Stored { line: line.clone(), origin })?;
        json.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(&line.unit) {
            open.insert(line.unit.clone(), open_log(&self.paths.log(&line.unit))?);
        }
        let Some(log) = open.get_mut(&line.unit) else { return Ok(()) };
        if log.bytes > LONGEST {
            let path = self.paths.log(&line.unit);
            set_aside(&path)?;
            *log = open_log(&path)?;
        }
        log.bytes += json.len() as u64;
        log.file.write_all(&json)
    }

    /// The last lines of one unit, for the slice that explains a failure.
    pub(crate) fn tail(&self, unit: &str, lines: usize) -> Vec<String> {
        let query =
            slipway_api::LogQuery { unit: Some(unit.into()), tail: Some(lines), ..Default::default() };
        let read = log_files::read(&self.paths, &query).unwrap_or_default();
        read.into_iter().map(|line| line.line).collect()
    }

    /// The number of the newest line of `unit` that this machine's agent gave.
    pub(crate) fn newest(&self, unit: &str, machine: u32) -> u64 {
        let of =
            |line: &str| serde_json::from_str::<Stored>(line).ok()?.origin.filter(|o| o.machine == machine);
        let text = log_files::end_of(&self.paths.log(unit)).unwrap_or_default();
        text.lines().rev().find_map(of).map_or(0, |origin| origin.sequence)
    }

    /// Sets aside the logs that other processes write, when they are long. Only while those do not run.
    pub(crate) fn rotate_idle(&self) {
        for unit in ["shim", "console", "qemu"] {
            let path = self.paths.log(unit);
            if std::fs::metadata(&path).is_ok_and(|found| found.len() > LONGEST) {
                // It stays long otherwise, which is the lesser harm.
                let _ = set_aside(&path);
            }
        }
    }
}

fn set_aside(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_extension("log.1"))
}

fn open_log(path: &Path) -> io::Result<Open> {
    let file = File::options().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

/// Milliseconds since the epoch.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sends what the program traces to the daemon's log. `SLIPWAY_LOG` filters, as `RUST_LOG` does elsewhere.
pub(crate) fn trace_into(logs: &Arc<LogStore>) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| "info".into());
    let store = Arc::downgrade(logs);
    // A test may run several daemons in one process; the first one's log has them all.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .without_time()
        .with_writer(move || Lines { store: store.clone() })
        .try_init();
}

struct Lines {
    store: Weak<LogStore>,
}

impl Write for Lines {
    /// The subscriber writes each event whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(store) = self.store.upgrade() {
            for line in String::from_utf8_lossy(bytes).lines() {
                let line = line.trim().to_owned();
                store.push(LogLine { unix_ms: unix_ms(), unit: DAEMON.into(), line }, None);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use slipway_api::LogQuery;

    use super::*;

    fn store() -> (tempfile::TempDir, LogStore) {
        let dir = tempfile::tempdir().expect("folder");
        let paths = crate::paths_in(dir.path());
        (dir, LogStore::new(paths))
    }

    fn say(store: &LogStore, line: &str, sequence: u64) {
        let line = LogLine { unix_ms: 5, unit: "agent".into(), line: line.into() };
        store.push(line, Some(Origin { machine: 7, sequence }));
    }

    #[test]
    fn a_log_never_grows_beyond_two_files_and_keeps_the_newest() {
        let (dir, store) = store();
        let long = "x".repeat(64 << 10);
        for n in 0..300 {
            say(&store, &format!("{n} {long}"), n);
        }
        let logs = dir.path().join("logs");
        let sizes: Vec<u64> = std::fs::read_dir(&logs)
            .expect("folder")
            .map(|f| f.expect("file").metadata().expect("size").len())
            .collect();
        assert_eq!(sizes.len(), 2, "{sizes:?}");
        assert!(sizes.iter().all(|s| *s < LONGEST + (1 << 20)), "{sizes:?}");
        let tail = store.tail("agent", 2);
        assert!(tail[1].starts_with("299 ") && tail[0].starts_with("298 "));
    }

    #[test]
    fn the_next_daemon_goes_on_where_this_one_was() {
        let (_dir, store) = store();
        assert_eq!(store.newest("agent", 7), 0);
        say(&store, "a", 41);
        say(&store, "b", 42);
        let next = LogStore::new(store.paths.clone());
        assert_eq!((next.newest("agent", 7), next.newest("agent", 8)), (42, 0));
        let all = log_files::read(&store.paths, &LogQuery::default()).expect("reads");
        assert_eq!(all.iter().map(|l| l.line.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
