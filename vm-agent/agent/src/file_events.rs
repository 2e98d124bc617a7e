//! What changed on the host becomes an event in the guest: by the kernel module where it is there, by touching attributes
//! otherwise.
//!
//! The module does three things for each event, in this order: it drops what the kernel remembers and is not true any more,
//! asks the host for the file's new state, and tells whoever watches. The other way is what other tools do, and is all that
//! can be done without it: the file's mode is set to what it is, which shows as a change of attributes.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use slipway_protocol::{
    frame,
    v1::{FileEvent, FileEvents as Batch},
};

use tokio::{sync::watch, time::timeout};

use crate::serve::{ServeError, Stream};

/// What the module listens on.
const DEVICE: &str = "/dev/slipway-fsnotify";
/// inotify's events after which there may be nothing to touch.
const GONE: u32 = libc::IN_DELETE | libc::IN_MOVED_FROM;

/// Delivers events.
#[derive(Debug)]
pub struct FileEvents {
    module: Mutex<Result<File, String>>,
    settled: watch::Sender<bool>,
}

impl Default for FileEvents {
    fn default() -> Self {
        let module = Mutex::new(Err("the guest is still booting".into()));
        Self { module, settled: watch::Sender::new(false) }
    }
}

impl FileEvents {
    /// Uses the module, which was loaded, or says why it was not.
    pub(crate) fn set(&self, loaded: Result<(), String>) {
        let opened = loaded.and_then(|()| {
            let opened = OpenOptions::new().write(true).open(DEVICE);
            opened.map_err(|error| format!("failed to open {DEVICE}: {error}"))
        });
        *self.lock() = opened;
        self.settled.send_replace(true);
    }

    /// Waits until the boot knows whether the module is there. Cancel-safe.
    pub(crate) async fn settled(&self, patience: Duration) {
        let mut settled = self.settled.subscribe();
        let _ = timeout(patience, settled.wait_for(|settled| *settled)).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Result<File, String>> {
        self.module.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why events are only changes of attributes; `None` when they are the kernel's own.
    pub fn why_not(&self) -> Option<String> {
        self.lock().as_ref().err().cloned()
    }

    /// Delivers what comes on one stream, until the host closes it.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(self: Arc<Self>, mut stream: impl Stream) -> Result<(), ServeError> {
        while let Some(batch) = frame::read::<Batch, _>(&mut stream).await? {
            let events = Arc::clone(&self);
            // It asks the host, and may wait for it.
            let done =
                tokio::task::spawn_blocking(move || batch.events.iter().for_each(|e| events.deliver(e)))
                    .await;
            done.map_err(|error| ServeError::Io(std::io::Error::other(error)))?;
        }
        Ok(())
    }

    fn deliver(&self, event: &FileEvent) {
        match &mut *self.lock() {
            // What the module refuses (a folder that is not there any more) nobody can watch.
            Ok(module) => {
                if let Some(record) = record(event) {
                    let _ = module.write(&record);
                }
            }
            Err(_) => touch(event),
        }
    }
}

/// An event as the module takes it: mask, cookie, two lengths, two texts that end with a zero.
fn record(event: &FileEvent) -> Option<Vec<u8>> {
    let length = |text: &[u8]| u16::try_from(text.len()).ok().filter(|_| !text.contains(&0));
    let mut bytes = Vec::with_capacity(14 + event.folder.len() + event.name.len());
    bytes.extend_from_slice(&event.mask.to_ne_bytes());
    bytes.extend_from_slice(&event.cookie.to_ne_bytes());
    bytes.extend_from_slice(&length(&event.folder)?.to_ne_bytes());
    bytes.extend_from_slice(&length(&event.name)?.to_ne_bytes());
    for text in [&event.folder, &event.name] {
        bytes.extend_from_slice(text);
        bytes.push(0);
    }
    Some(bytes)
}

fn touch(event: &FileEvent) {
    let folder = Path::new(OsStr::from_bytes(&event.folder));
    let path =
        if event.mask & GONE != 0 { folder.to_owned() } else { folder.join(OsStr::from_bytes(&event.name)) };
    let Ok(found) = std::fs::symlink_metadata(&path) else { return };
    if !found.is_symlink() {
        let mode = std::fs::Permissions::from_mode(found.permissions().mode() & 0o7777);
        let _ = std::fs::set_permissions(&path, mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(folder: &[u8], name: &[u8]) -> FileEvent {
        FileEvent { mask: 2, cookie: 7, folder: folder.to_vec(), name: name.to_vec() }
    }

    #[test]
    fn a_record_is_what_the_module_reads() {
        let record = record(&event(b"/a", b"b c")).expect("fits");
        assert_eq!(record[0..4], 2u32.to_ne_bytes());
        assert_eq!(record[4..8], 7u32.to_ne_bytes());
        assert_eq!((&record[8..12], &record[12..]), (&[2, 0, 3, 0][..], &b"/a\0b c\0"[..]));
    }

    #[test]
    fn texts_that_the_kernel_would_misread_are_not_sent() {
        assert!(
            record(&event(b"/a\0b", b"")).is_none() && record(&event(&vec![b'a'; 1 << 16], b"")).is_none()
        );
    }

    #[test]
    fn without_the_module_the_file_is_touched_and_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "x").unwrap();
        let before = std::fs::metadata(&file).unwrap();
        touch(&event(dir.path().as_os_str().as_bytes(), b"f"));
        touch(&event(dir.path().as_os_str().as_bytes(), b"missing"));
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(
            (before.modified().unwrap(), before.permissions()),
            (after.modified().unwrap(), after.permissions())
        );
    }
}
