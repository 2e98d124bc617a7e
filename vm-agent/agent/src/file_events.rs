//! What changed on the host becomes an event in the guest: by the kernel module where it is there, by touching attributes
//! otherwise.
//!
//! The module does three things for each event, in this order: it drops what the kernel remembers and is not true any more,
//! asks the host for the file's new state, and tells whoever watches. The other way is what other tools do, and is all that
//! can be done without it: the file's mode is set to what it is, which shows as a change of attributes.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::Write,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::{Mode, OFlags};
use slipway_protocol::{
    frame,
    v1::{FileEvent, FileEvents as Batch},
};

use tokio::{sync::watch, time::timeout};

use crate::serve::{ServeError, Stream};

/// What the module listens on.
const DEVICE: &str = "/dev/slipway-fsnotify";
/// Where the kernel is told to forget names and inodes that nobody uses.
const FORGET: &str = "/proc/sys/vm/drop_caches";
/// Bytes that the module takes at once, and of one record before its texts.
const LONGEST: usize = 1 << 16;
const HEAD: usize = 16;
/// inotify's events after which there may be nothing to touch.
const GONE: u32 = libc::IN_DELETE | libc::IN_MOVED_FROM;

/// Delivers events.
#[derive(Debug)]
pub struct FileEvents {
    module: Mutex<Result<File, String>>,
    settled: watch::Sender<bool>,
    roots: Mutex<BTreeMap<PathBuf, Root>>,
}

/// Where a share begins, on the device that carries it.
#[derive(Debug)]
pub(crate) struct Root {
    folder: OwnedFd,
    /// The share is one file, and this the folder that has nothing else.
    file: bool,
}

impl Root {
    /// Opens the folder of a share.
    pub(crate) fn open(folder: &Path, file: bool) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(folder, flags, Mode::empty())?, file })
    }
}

impl Default for FileEvents {
    fn default() -> Self {
        let module = Mutex::new(Err("the guest is still booting".into()));
        Self { module, settled: watch::Sender::new(false), roots: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileEvents {
    /// Uses the module, which was loaded, or says why it was not.
    pub(crate) fn set(&self, loaded: Result<(), String>) {
        let opened = loaded.and_then(|()| {
            let opened = OpenOptions::new().write(true).open(DEVICE);
            opened.map_err(|error| format!("failed to open {DEVICE}: {error}"))
        });
        *lock(&self.module) = opened;
        self.introduce();
        self.settled.send_replace(true);
    }

    /// Delivers what happens below these, by their place in the guest, and nowhere else.
    pub(crate) fn set_roots(&self, roots: BTreeMap<PathBuf, Root>) {
        *lock(&self.roots) = roots;
        self.introduce();
    }

    /// Names each share to the module, which does for a new one what has to be done once. The event says to believe nothing
    /// that was seen there, which is little when shares change.
    fn introduce(&self) {
        let Ok(module) = &mut *lock(&self.module) else { return };
        let roots = lock(&self.roots);
        let mut records = Vec::new();
        let event = FileEvent { mask: libc::IN_Q_OVERFLOW, ..FileEvent::default() };
        for root in roots.values() {
            record(&event, root.folder.as_raw_fd(), b"", &mut records);
        }
        if !records.is_empty() {
            write(module, &records);
        }
    }

    /// Waits until the boot knows whether the module is there. Cancel-safe.
    pub(crate) async fn settled(&self, patience: Duration) {
        let mut settled = self.settled.subscribe();
        let _ = timeout(patience, settled.wait_for(|settled| *settled)).await;
    }

    /// Why events are only changes of attributes; `None` when they are the kernel's own.
    pub fn why_not(&self) -> Option<String> {
        lock(&self.module).as_ref().err().cloned()
    }

    /// Delivers what comes on one stream, until the host closes it.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(self: Arc<Self>, stream: impl Stream) -> Result<(), ServeError> {
        let done = self.follow(stream).await;
        // Nobody tells of changes until the host comes again: what was seen before is not to be believed so long.
        self.aside(|events| events.introduce()).await?;
        done
    }

    async fn follow(self: &Arc<Self>, mut stream: impl Stream) -> Result<(), ServeError> {
        while let Some(batch) = frame::read::<Batch, _>(&mut stream).await? {
            self.aside(move |events| events.deliver(&batch.events)).await?;
        }
        Ok(())
    }

    /// Does something that asks the host, and may wait for it.
    async fn aside(self: &Arc<Self>, act: impl FnOnce(&Self) + Send + 'static) -> Result<(), ServeError> {
        let events = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || act(&events)).await;
        done.map_err(|error| ServeError::Io(std::io::Error::other(error)))
    }

    fn deliver(&self, batch: &[FileEvent]) {
        let (asks, batch): (Vec<_>, Vec<_>) = batch.iter().partition(|event| event.mask == 0);
        if !asks.is_empty() {
            // What it remembers of other file systems goes too; it is read again from the disk or the host's own cache.
            if let Err(error) = std::fs::write(FORGET, "2") {
                eprintln!("slipway-agent: files cannot be forgotten: {error}");
            }
        }
        match &mut *lock(&self.module) {
            Ok(module) => {
                let roots = lock(&self.roots);
                let mut records = Vec::new();
                for event in batch {
                    let Some((root, below)) = place(&roots, event) else { continue };
                    if records.len() + HEAD + below.len() + event.name.len() > LONGEST {
                        write(module, &records);
                        records.clear();
                    }
                    record(event, root, below, &mut records);
                }
                write(module, &records);
            }
            Err(_) => {
                batch.into_iter().map(touched).collect::<HashSet<_>>().iter().for_each(|path| touch(path))
            }
        }
    }
}

fn write(module: &mut File, records: &[u8]) {
    match module.write(records) {
        Ok(written) if written == records.len() => {}
        // The rest is lost, and only a mistake of ours can be the reason: it takes what is told as said.
        other => eprintln!("slipway-agent: the module for file events took {other:?} of {}", records.len()),
    }
}

/// The share that an event is in, and where its folder is in that.
fn place<'e>(roots: &BTreeMap<PathBuf, Root>, event: &'e FileEvent) -> Option<(RawFd, &'e [u8])> {
    let folder = Path::new(OsStr::from_bytes(&event.folder));
    // Backwards: a share in a share comes before the one around it.
    roots.iter().rev().find_map(|(path, root)| {
        let below = if root.file {
            let itself = path == folder && event.name.is_empty()
                || path.parent() == Some(folder)
                    && path.file_name().is_some_and(|name| name.as_bytes() == event.name);
            itself.then_some(&b""[..])?
        } else {
            folder.strip_prefix(path).ok()?.as_os_str().as_bytes()
        };
        Some((root.folder.as_raw_fd(), below))
    })
}

/// Adds an event as the module takes it: mask, cookie, descriptor, two lengths, two texts.
fn record(event: &FileEvent, root: RawFd, below: &[u8], records: &mut Vec<u8>) {
    let (Ok(path), Ok(name)) = (u16::try_from(below.len()), u16::try_from(event.name.len())) else { return };
    records.extend_from_slice(&event.mask.to_ne_bytes());
    records.extend_from_slice(&event.cookie.to_ne_bytes());
    records.extend_from_slice(&root.to_ne_bytes());
    records.extend_from_slice(&path.to_ne_bytes());
    records.extend_from_slice(&name.to_ne_bytes());
    records.extend_from_slice(below);
    records.extend_from_slice(&event.name);
}

/// What stands for an event where there is no module: the file, or the folder that it is gone from.
fn touched(event: &FileEvent) -> PathBuf {
    let folder = Path::new(OsStr::from_bytes(&event.folder));
    if event.mask & GONE != 0 { folder.to_owned() } else { folder.join(OsStr::from_bytes(&event.name)) }
}

fn touch(path: &Path) {
    let Ok(found) = std::fs::symlink_metadata(path) else { return };
    if !found.is_symlink() {
        let mode = std::fs::Permissions::from_mode(found.permissions().mode() & 0o7777);
        let _ = std::fs::set_permissions(path, mode);
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
        let mut records = Vec::new();
        record(&event(b"/s/a", b"b c"), 5, b"a", &mut records);
        record(&event(b"/s", &vec![b'x'; 1 << 16]), 5, b"", &mut records);
        assert_eq!(records.len(), HEAD + 4, "a name that has no length is left out");
        assert_eq!(records[0..4], 2u32.to_ne_bytes());
        assert_eq!(records[4..8], 7u32.to_ne_bytes());
        assert_eq!(records[8..12], 5i32.to_ne_bytes());
        assert_eq!((&records[12..16], &records[16..]), (&[1, 0, 3, 0][..], &b"ab c"[..]));
    }

    #[test]
    fn an_event_is_in_the_innermost_share() {
        let root = |file| Root::open(Path::new("/"), file).expect("opens");
        let roots: BTreeMap<PathBuf, Root> = [
            ("/home/me".into(), root(false)),
            ("/home/me/in side".into(), root(false)),
            ("/srv/one.conf".into(), root(true)),
        ]
        .into();
        let found = |folder: &str, name: &str| {
            let event = event(folder.as_bytes(), name.as_bytes());
            place(&roots, &event).map(|(fd, below)| (fd, String::from_utf8_lossy(below).into_owned()))
        };
        let fd = |path: &str| roots[Path::new(path)].folder.as_raw_fd();
        assert_eq!(found("/home/me", "x"), Some((fd("/home/me"), String::new())));
        assert_eq!(found("/home/me/a/b", "x"), Some((fd("/home/me"), "a/b".into())));
        assert_eq!(found("/home/me/in side/c", "x"), Some((fd("/home/me/in side"), "c".into())));
        assert_eq!(found("/srv", "one.conf"), Some((fd("/srv/one.conf"), String::new())));
        assert_eq!(found("/srv", "other"), None);
        assert_eq!(found("/home/meow", "x"), None);
    }

    #[tokio::test]
    async fn when_nobody_tells_of_changes_any_more_nothing_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("module");
        let events = Arc::new(FileEvents::default());
        *lock(&events.module) = Ok(File::create(&module).unwrap());
        events.set_roots([("/home/me".into(), Root::open(Path::new("/"), false).unwrap())].into());
        let introduced = std::fs::read(&module).unwrap();
        let (host, guest) = tokio::io::duplex(64);
        drop(host);
        events.serve(guest).await.unwrap();
        assert_eq!(introduced[..4], libc::IN_Q_OVERFLOW.to_ne_bytes());
        assert_eq!(std::fs::read(&module).unwrap(), introduced.repeat(2));
    }

    #[test]
    fn without_the_module_the_file_is_touched_and_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "x").unwrap();
        let before = std::fs::metadata(&file).unwrap();
        let folder = dir.path().as_os_str().as_bytes();
        FileEvents::default().deliver(&[event(folder, b"f"), event(folder, b"missing")]);
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(
            (before.modified().unwrap(), before.permissions()),
            (after.modified().unwrap(), after.permissions())
        );
    }
}
