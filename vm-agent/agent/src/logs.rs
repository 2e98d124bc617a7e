//! Bounded memory of what every unit said, so that the host can read the slice that explains a failure.
//!
//! Each unit has its own budget, so that a chatty one cannot push out the others; one sequence numbers all lines, so
//! that a follower that lost its stream goes on where it was.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard},
};

use slipway_protocol::v1::LogRecord;
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch};

use crate::clock;

/// Bytes of lines that one unit may keep.
const UNIT_BUDGET: usize = 4 << 20;
/// What one record costs besides its line.
const RECORD_COST: usize = 64;
/// Longer lines are cut into several records.
const LONGEST_LINE: usize = 16 << 10;
/// The agent's own unit.
pub const AGENT: &str = "agent";
/// The kernel's.
pub const KERNEL: &str = "kernel";

/// The memory itself.
#[derive(Debug)]
pub struct Logs {
    inner: Mutex<Inner>,
    newest: watch::Sender<u64>,
    budget: usize,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    units: BTreeMap<String, Unit>,
}

#[derive(Debug, Default)]
struct Unit {
    records: VecDeque<LogRecord>,
    bytes: usize,
}

impl Default for Logs {
    fn default() -> Self {
        Self::new()
    }
}

impl Logs {
    /// An empty memory.
    pub fn new() -> Self {
        Self::with_budget(UNIT_BUDGET)
    }

    fn with_budget(budget: usize) -> Self {
        Self { inner: Mutex::default(), newest: watch::Sender::new(0), budget }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Says something in the agent's own name: to the followers, and on the console for whoever debugs a boot.
    pub fn say(&self, line: impl AsRef<str>) {
        eprintln!("slipway-agent: {}", line.as_ref());
        self.push(AGENT, line.as_ref().as_bytes());
    }

    /// Remembers one line of a unit; the oldest of that unit give way.
    pub fn push(&self, unit: &str, line: &[u8]) {
        let mut inner = self.lock();
        inner.last += 1;
        let sequence = inner.last;
        let kept = inner.units.entry(unit.to_owned()).or_default();
        kept.bytes += line.len() + RECORD_COST;
        kept.records.push_back(LogRecord {
            sequence,
            unix_nanos: clock::unix_nanos(),
            unit: unit.to_owned(),
            line: line.to_vec(),
        });
        while kept.bytes > self.budget {
            let Some(oldest) = kept.records.pop_front() else { break };
            kept.bytes -= oldest.line.len() + RECORD_COST;
        }
        drop(inner);
        self.newest.send_replace(sequence);
    }

    /// The oldest records after `sequence`, at most `limit`, in order.
    pub fn after(&self, sequence: u64, limit: usize) -> Vec<LogRecord> {
        let inner = self.lock();
        let mut found: Vec<LogRecord> = Vec::new();
        for unit in inner.units.values() {
            let from = unit.records.partition_point(|record| record.sequence <= sequence);
            found.extend(unit.records.range(from..).take(limit).cloned());
        }
        drop(inner);
        found.sort_unstable_by_key(|record| record.sequence);
        found.truncate(limit);
        found
    }

    /// The last lines of one unit as text, for a failed phase's detail.
    pub fn tail(&self, unit: &str, lines: usize) -> String {
        let inner = self.lock();
        let Some(unit) = inner.units.get(unit) else { return String::new() };
        let from = unit.records.len().saturating_sub(lines);
        let tail: Vec<_> = unit.records.range(from..).map(|r| String::from_utf8_lossy(&r.line)).collect();
        tail.join("\n")
    }

    /// Changes whenever a record is added.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Takes in what comes out of `output`, line by line, until its last writer is gone.
    pub async fn collect(&self, unit: &str, output: OwnedFd) {
        let Ok(mut output) = pipe::Receiver::from_owned_fd(output) else { return };
        let mut pending = Vec::new();
        let mut chunk = vec![0u8; 8 << 10];
        while let Ok(count @ 1..) = output.read(&mut chunk).await {
            self.take_lines(unit, &mut pending, &chunk[..count]);
        }
        if !pending.is_empty() {
            self.push(unit, &pending);
        }
    }

    /// Takes in the kernel's messages until they cannot be read any more. Blocks: for a thread of its own.
    pub fn collect_kernel(&self) -> std::io::Result<()> {
        use std::io::Read;
        let mut device = std::fs::File::open("/dev/kmsg")?;
        let mut record = vec![0u8; 8 << 10];
        loop {
            match device.read(&mut record) {
                // "6,339,5140900,-;text\n key=value": only the text is for people.
                Ok(count) => {
                    let text = record[..count].splitn(2, |b| *b == b';').nth(1).unwrap_or(&record[..count]);
                    self.push(KERNEL, text.split(|b| *b == b'\n').next().unwrap_or(text));
                }
                // The kernel overwrote what was not read yet; the next read goes on with what is left.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_lines(&self, unit: &str, pending: &mut Vec<u8>, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, ended) = part.strip_suffix(b"\n").map_or((part, false), |line| (line, true));
            pending.extend_from_slice(line);
            while pending.len() > LONGEST_LINE {
                self.push(unit, &pending[..LONGEST_LINE]);
                pending.drain(..LONGEST_LINE);
            }
            if ended {
                self.push(unit, pending);
                pending.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_unit_loses_its_own_oldest_lines_only() {
        let logs = Logs::with_budget(1000);
        logs.push("quiet", b"keep me");
        for n in 0..100 {
            logs.push("chatty", format!("line {n}").as_bytes());
        }
        let all = logs.after(0, 1000);
        assert_eq!(all[0].line, b"keep me");
        assert_eq!(all.last().unwrap().line, b"line 99");
        assert!(all.len() < 20, "{} records kept", all.len());
    }

    #[test]
    fn records_of_several_units_come_in_order_and_in_pages() {
        let logs = Logs::new();
        for n in 0..10 {
            logs.push(if n % 2 == 0 { "even" } else { "odd" }, n.to_string().as_bytes());
        }
        let (mut seen, mut after) = (Vec::new(), 0);
        loop {
            let page = logs.after(after, 3);
            let Some(last) = page.last() else { break };
            after = last.sequence;
            seen.extend(page.iter().map(|r| r.sequence));
        }
        assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_cut_where_they_end_and_where_they_are_too_long() {
        let logs = Logs::new();
        let mut pending = Vec::new();
        logs.take_lines("u", &mut pending, b"one\ntw");
        logs.take_lines("u", &mut pending, b"o\n");
        logs.take_lines("u", &mut pending, &vec![b'x'; LONGEST_LINE + 5]);
        logs.take_lines("u", &mut pending, b"\n");
        let lengths: Vec<_> = logs.after(0, 10).iter().map(|r| r.line.len()).collect();
        assert_eq!(lengths, [3, 3, LONGEST_LINE, 5]);
    }
}
