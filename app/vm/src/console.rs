//! What the guest writes to its serial console: kept in a file that cannot grow without end, its tail in memory.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
};

/// Bytes of the console that go into a failure report.
const TAIL: usize = 64 * 1024;
/// Bytes after which the log is put aside as `<name>.1` and begun anew: a guest can flood at most twice this.
const ROTATE_AT: u64 = 5 * 1024 * 1024;

/// The end of the console, shared between the reader and whoever reports a failure.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// What is kept of it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(TAIL);
        tail.drain(..surplus);
    }
}

/// Reads the console until the VM ends. A full disk costs the log, never the VM.
pub async fn keep(mut from: impl AsyncRead + Unpin, log: PathBuf, tail: Tail) {
    let mut file = open(&log).await;
    let mut written = match &file {
        Some(f) => f.metadata().await.map_or(0, |m| m.len()),
        None => 0,
    };
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        tail.push(&buffer[..count]);
        if written >= ROTATE_AT {
            let mut aside = log.clone().into_os_string();
            aside.push(".1");
            // If it cannot be put aside, the file is begun anew all the same: bounded is what matters.
            let _ = tokio::fs::rename(&log, aside).await;
            file = open(&log).await;
            if let Some(f) = &file {
                let _ = f.set_len(0).await;
            }
            written = 0;
        }
        if let Some(f) = &mut file {
            written += count as u64;
            if f.write_all(&buffer[..count]).await.is_err() || f.flush().await.is_err() {
                file = None;
            }
        }
    }
}

async fn open(log: &Path) -> Option<File> {
    OpenOptions::new().create(true).append(true).open(log).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_bounded_on_disk_and_in_memory() {
        let dir = tempfile::tempdir().expect("folder");
        let log = dir.path().join("console.log");
        let tail = Tail::default();
        let flood = tokio::io::repeat(b'x').take(3 * ROTATE_AT + 7);
        keep(flood.chain(&b"the end"[..]), log.clone(), tail.clone()).await;
        let size = |p: &Path| std::fs::metadata(p).expect("log").len();
        assert!(size(&log) <= ROTATE_AT + 16 * 1024);
        assert!(size(&log.with_file_name("console.log.1")) <= ROTATE_AT + 16 * 1024);
        let kept = tail.bytes();
        assert_eq!(kept.len(), TAIL);
        assert!(kept.ends_with(b"the end"));
    }
}
