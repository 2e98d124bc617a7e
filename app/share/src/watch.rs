//! Watches the folders that running containers mount, and makes of the host's events those that the guest is to have.
//!
//! ```text
//!   inotify ─▶ held ─▶ what the guest has under way is waited for ─▶ without the guest's own (echo) ─▶ without repetitions ─▶ guest
//!                └ a new folder is watched at once, and what is in it already is told as if it had just come
//! ```
//!
//! Events go out once in 10 ms, with repetitions left out: what comes after a pause goes at once, what follows it waits its turn.
//!
//! While the guest itself is at work its events are read once in 10 ms and not one by one: to be woken for each would cost the
//! guest as much as what it does. A folder that the host makes at that moment is watched so much later, which loses nothing.
//!
//! Not on the `notify` crate, as was planned: it hides which of two renames belong together, cannot leave folders out of a
//! recursive watch, and says of a limit only that there is one.

mod judge;
mod moves;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender as ChannelSender, channel},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{
        Dir, FileType, OFlags, Stat,
        inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    },
};
use slipway_protocol::v1;

use crate::{
    echo::Echoes,
    events::Sender,
    guest_path,
    mask::{ATTRIB, CLOSE_WRITE, CREATE, DELETE, ISDIR, MODIFY, MOVED_FROM, MOVED_TO, OVERFLOW},
    sandbox,
    under_way::{Marks, Waiter},
};

/// Between two batches, so that repetitions are seen; also how long half of a move waits for the other half.
const HOLD: Duration = Duration::from_millis(10);
/// Events that are held at most.
const HELD: usize = 1 << 14;

/// What is asked of the kernel.
const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// What is to be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Folders, watched with all that is below, and files.
    pub(crate) paths: Vec<PathBuf>,
    /// See [`crate::wire::Call::Watch`].
    pub(crate) exclude: Vec<String>,
}

/// How watching stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) watches: usize,
    pub(crate) unwatched: Option<String>,
    /// The limit that is the reason.
    pub(crate) limit: Option<Limit>,
    pub(crate) overflows: u64,
    pub(crate) echoes: u64,
}

type Done = ChannelSender<Standing>;

/// Where the kernel says how many folders one user may watch, and with how many descriptors.
const WATCHES: &str = "/proc/sys/fs/inotify/max_user_watches";
const INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";

/// A limit that was reached, as it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    of: &'static str,
    was: String,
}

impl Limit {
    fn now(of: &'static str) -> Self {
        let was = std::fs::read_to_string(of).map_or_else(|_| "?".into(), |text| text.trim().to_owned());
        Self { of, was }
    }

    /// Whether another try may get further. Descriptors are given back by whoever else ends.
    fn may_be_gone(&self) -> bool {
        self.of == INSTANCES || *self != Self::now(self.of)
    }
}

/// Asks the watching thread.
#[derive(Debug)]
pub(crate) struct Handle {
    orders: ChannelSender<(Wanted, Done)>,
    wake: OwnedFd,
    standing: Arc<Mutex<Standing>>,
}

impl Handle {
    /// Watches exactly this from now on; returns when it does.
    pub(crate) fn watch(&self, wanted: Wanted) -> Standing {
        let (done, answer) = channel();
        if self.orders.send((wanted, done)).is_ok() {
            let _ = rustix::io::write(&self.wake, &[0]);
            if let Ok(standing) = answer.recv() {
                return standing;
            }
        }
        Standing { unwatched: Some("the watcher has ended".into()), ..Standing::default() }
    }

    /// May the limit be gone that kept it from watching everything?
    pub(crate) fn limit_may_be_gone(&self) -> bool {
        self.standing().limit.is_some_and(|limit| limit.may_be_gone())
    }

    /// How it stands now.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the thread that watches. `echo` brings what the guest did, `marks` say what it does.
pub(crate) fn start(echo: File, marks: Marks, sender: Sender) -> io::Result<Handle> {
    let (wake, woken) = {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        (write, read)
    };
    let (orders, taken) = channel();
    let standing = Arc::new(Mutex::new(Standing::default()));
    let watcher = Watcher {
        inotify: None,
        wanted: Wanted::default(),
        folders: HashMap::new(),
        by_path: HashMap::new(),
        held: Vec::new(),
        flushed: None,
        told: HashSet::new(),
        echoes: Echoes::default(),
        echo,
        under_way: Waiter::new(marks),
        busy: false,
        sender,
        now: Standing::default(),
        standing: Arc::clone(&standing),
    };
    std::thread::Builder::new().name("watch".into()).spawn(move || watcher.run(&taken, &woken))?;
    Ok(Handle { orders, wake, standing })
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    ino: u64,
    /// Only these names count: a single file of the folder is watched.
    only: Option<HashSet<Vec<u8>>>,
}

#[derive(Debug)]
struct Held {
    at: Instant,
    mask: u32,
    cookie: u32,
    folder: PathBuf,
    folder_ino: u64,
    name: Vec<u8>,
}

struct Watcher {
    /// Had as soon as something is to be watched, when one can be had: folders are shared without.
    inotify: Option<OwnedFd>,
    wanted: Wanted,
    folders: HashMap<i32, Folder>,
    by_path: HashMap<PathBuf, i32>,
    held: Vec<Held>,
    /// When a batch went out last.
    flushed: Option<Instant>,
    /// Names that were told because they were there when their folder was seen first; the kernel may tell of them too.
    told: HashSet<(PathBuf, Vec<u8>)>,
    echoes: Echoes,
    echo: File,
    under_way: Waiter,
    /// The guest has just done something.
    busy: bool,
    sender: Sender,
    now: Standing,
    standing: Arc<Mutex<Standing>>,
}

impl Watcher {
    fn run(mut self, orders: &Receiver<(Wanted, Done)>, woken: &OwnedFd) {
        loop {
            if self.echoes.take_full() {
                self.sender.send(vec![v1::FileEvent::default()]);
            }
            let rest = self.rest();
            // An overdue batch goes out before more is read.
            if rest == Some(Duration::ZERO) {
                self.flush();
                continue;
            }
            let busy = std::mem::take(&mut self.busy);
            let events = self.inotify.as_ref().unwrap_or(woken);
            let mut fds = [woken.as_fd(), events.as_fd(), self.echo.as_fd()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let (waited, wait) =
                if busy { (&mut fds[..1], rest.or(Some(HOLD))) } else { (&mut fds[..], rest) };
            let wait = wait.map(|left| Timespec { tv_sec: 0, tv_nsec: left.as_nanos() as _ });
            match poll(waited, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let ready = [0, 1, 2].map(|n: usize| !fds[n].revents().is_empty());
            if busy || ready[2] {
                self.busy = self.echoes.hear(&mut self.echo, Instant::now());
            }
            if busy || ready[1] {
                self.read();
            }
            if ready[0] {
                let mut bytes = [0; 16];
                // The other end is gone with the process.
                if matches!(rustix::io::read(woken, &mut bytes), Ok(0)) {
                    return;
                }
                while let Ok((wanted, done)) = orders.try_recv() {
                    self.set(wanted);
                    let _ = done.send(self.now.clone());
                }
            }
            self.publish();
        }
    }

    /// How long what is held has to wait; `None` without any.
    fn rest(&self) -> Option<Duration> {
        let first = self.held.first()?;
        if self.held.len() >= HELD {
            return Some(Duration::ZERO);
        }
        // Nobody waits for the other half of a move that leads out of everything for longer.
        let since = if moves::is_open(&self.held) { Some(first.at) } else { self.flushed };
        Some(since.map_or(Duration::ZERO, |since| HOLD.saturating_sub(since.elapsed())))
    }

    fn publish(&mut self) {
        self.now.watches = self.folders.len();
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.now);
    }

    /// Watches what is wanted now and was not, and the other way round.
    fn set(&mut self, wanted: Wanted) {
        if wanted == self.wanted && self.now.unwatched.is_none() {
            return;
        }
        self.flush();
        self.now.unwatched = None;
        self.now.limit = None;
        let same_rules = wanted.exclude == self.wanted.exclude;
        self.wanted = wanted;
        let roots = self.wanted.paths.clone();
        if self.inotify.is_none() && !roots.is_empty() && !self.begin() {
            self.publish();
            return;
        }
        let kept = |folder: &Folder| {
            folder.only.is_none() && same_rules && roots.iter().any(|root| folder.path.starts_with(root))
        };
        let gone: Vec<i32> =
            self.folders.iter().filter(|(_, folder)| !kept(folder)).map(|(wd, _)| *wd).collect();
        gone.into_iter().for_each(|wd| self.unwatch(wd));
        for root in roots {
            match state(&root) {
                Some(found) if is_dir(&found) => self.watch_below(root, false),
                Some(_) => self.watch_file(&root),
                None => {}
            }
        }
        self.publish();
    }

    /// False when it cannot watch at all, and then it is said why.
    fn begin(&mut self) -> bool {
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(inotify) => {
                self.inotify = Some(inotify);
                true
            }
            Err(rustix::io::Errno::MFILE) => {
                let limit = Limit::now(INSTANCES);
                self.now.unwatched = Some(format!(
                    "the limit of {} programs that watch folders is reached; \
                     raise it: `sudo sysctl fs.inotify.max_user_instances=1024`",
                    limit.was
                ));
                self.now.limit = Some(limit);
                false
            }
            Err(error) => {
                self.now.unwatched = Some(format!("folders cannot be watched: {error}"));
                false
            }
        }
    }

    fn unwatch(&mut self, wd: i32) {
        if let Some(inotify) = &self.inotify {
            let _ = inotify::remove_watch(inotify, wd);
        }
        self.forget(wd);
    }

    fn forget(&mut self, wd: i32) {
        if let Some(folder) = self.folders.remove(&wd)
            && self.by_path.get(&folder.path) == Some(&wd)
        {
            self.by_path.remove(&folder.path);
        }
    }

    fn watch_file(&mut self, file: &Path) {
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return };
        let name = name.as_bytes().to_vec();
        if let Some(known) = self.by_path.get(folder).and_then(|wd| self.folders.get_mut(wd)) {
            if let Some(only) = &mut known.only {
                only.insert(name);
            }
            return;
        }
        if let Ok(found) = open(folder) {
            self.watch_one(folder, &found, Some(HashSet::from([name])));
        }
    }

    /// Watches a folder, which is `open`; false when that is not possible.
    fn watch_one(&mut self, path: &Path, open: &OwnedFd, only: Option<HashSet<Vec<u8>>>) -> bool {
        if only.is_none()
            && let Some(known) = self.by_path.get(path).and_then(|wd| self.folders.get_mut(wd))
        {
            known.only = None;
            return true;
        }
        let Some(inotify) = &self.inotify else { return false };
        // By its descriptor: the path may lead elsewhere by now.
        let at = format!("/proc/self/fd/{}", open.as_raw_fd());
        match inotify::add_watch(inotify, at, MASK) {
            Ok(wd) => {
                // Known under another path before it moved.
                self.forget(wd);
                let ino = rustix::fs::fstat(open).map_or(0, |found| found.st_ino);
                self.folders.insert(wd, Folder { path: path.to_owned(), ino, only });
                self.by_path.insert(path.to_owned(), wd);
                true
            }
            Err(rustix::io::Errno::NOSPC) => {
                let limit = Limit::now(WATCHES);
                self.now.unwatched.get_or_insert(format!(
                    "the limit of {} watched folders is reached; \
                     raise it: `sudo sysctl fs.inotify.max_user_watches=1048576`",
                    limit.was
                ));
                self.now.limit = Some(limit);
                false
            }
            // Gone again, or not ours to look into.
            Err(_) => false,
        }
    }

    fn excluded(&self, path: &Path) -> bool {
        self.wanted.exclude.iter().any(|pattern| path.ends_with(pattern))
    }

    /// Watches a folder and all below it. With `tell`, what is there already is told as created.
    fn watch_below(&mut self, root: PathBuf, tell: bool) {
        let mut below = vec![root];
        while let Some(path) = below.pop() {
            if self.excluded(&path) {
                continue;
            }
            // Gone again, or a link by now, or not ours to look into.
            let Ok(folder) = open(&path) else { continue };
            if !self.watch_one(&path, &folder, None) {
                // At the limit every further folder would fail too.
                if self.now.unwatched.is_some() {
                    return;
                }
                continue;
            }
            let ino = rustix::fs::fstat(&folder).map_or(0, |found| found.st_ino);
            // After the watch: what comes between is told twice, never not at all.
            let Ok(entries) = Dir::new(folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let entry_path = path.join(OsStr::from_bytes(name));
                let dir = match entry.file_type() {
                    FileType::Unknown => state(&entry_path).is_some_and(|found| is_dir(&found)),
                    kind => kind == FileType::Directory,
                };
                if tell {
                    let mask = if dir { CREATE | ISDIR } else { CREATE };
                    self.told.insert((path.clone(), name.to_vec()));
                    self.hold(mask, 0, path.clone(), ino, name.to_vec());
                }
                if dir {
                    below.push(entry_path);
                }
            }
        }
    }

    fn unwatch_below(&mut self, root: &Path) {
        let gone: Vec<i32> =
            self.folders.iter().filter(|(_, f)| f.path.starts_with(root)).map(|(wd, _)| *wd).collect();
        gone.into_iter().for_each(|wd| self.unwatch(wd));
    }

    fn hold(&mut self, mask: u32, cookie: u32, folder: PathBuf, folder_ino: u64, name: Vec<u8>) {
        self.held.push(Held { at: Instant::now(), mask, cookie, folder, folder_ino, name });
    }

    fn read(&mut self) {
        let Some(Ok(inotify)) = self.inotify.as_ref().map(OwnedFd::try_clone) else { return };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 64 << 10];
        let mut reader = inotify::Reader::new(inotify.as_fd(), &mut buffer);
        // Until nothing is left, or a batch is full: then it goes out first.
        while self.held.len() < HELD {
            let Ok(event) = reader.next() else { return };
            let (wd, mask, cookie) = (event.wd(), event.events().bits(), event.cookie());
            let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
            self.take(wd, mask, cookie, name);
        }
        // What the reader has buffered and not given is lost with it: so it is only left when it is empty.
        while !reader.is_buffer_empty() {
            let Ok(event) = reader.next() else { return };
            let (wd, mask, cookie) = (event.wd(), event.events().bits(), event.cookie());
            let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
            self.take(wd, mask, cookie, name);
        }
    }

    fn take(&mut self, wd: i32, mask: u32, cookie: u32, name: Vec<u8>) {
        if mask & OVERFLOW != 0 {
            self.overflow();
            return;
        }
        if mask & ReadFlags::IGNORED.bits() != 0 {
            self.forget(wd);
            return;
        }
        let Some(folder) = self.folders.get(&wd) else { return };
        if folder.only.as_ref().is_some_and(|only| !only.contains(&name)) {
            return;
        }
        let (path, ino, whole) = (folder.path.clone(), folder.ino, folder.only.is_none());
        if mask & CREATE != 0 && self.told.remove(&(path.clone(), name.clone())) {
            return;
        }
        // An event of the folder itself: its parent tells it with a name, unless it is a root.
        if name.is_empty() && !self.wanted.paths.contains(&path) {
            return;
        }
        let entry = path.join(OsStr::from_bytes(&name));
        self.hold(mask, cookie, path, ino, name);
        if mask & ISDIR != 0 && whole {
            if mask & CREATE != 0 {
                self.watch_below(entry, true);
            } else if mask & MOVED_TO != 0 {
                self.watch_below(entry, false);
            } else if mask & MOVED_FROM != 0 {
                self.unwatch_below(&entry);
            }
        }
    }

    /// Something was lost: the guest is told to believe nothing that it has seen.
    fn overflow(&mut self) {
        self.now.overflows += 1;
        self.held.clear();
        self.told.clear();
        let all = self.wanted.paths.iter().map(|path| lost(path)).collect();
        self.sender.overflow(all);
        // Folders may have come without a word.
        for root in self.wanted.paths.clone() {
            if state(&root).is_some_and(|found| is_dir(&found)) {
                self.watch_below(root, false);
            }
        }
    }
}

/// Opens a folder that is there without a link on the way: what a guest has put in its place since is not looked into.
fn open(path: &Path) -> io::Result<OwnedFd> {
    sandbox::open_exactly(path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// How what is at `path` stands, a link itself and not what it leads to.
fn state(path: &Path) -> Option<Stat> {
    rustix::fs::fstat(sandbox::open_exactly(path, OFlags::PATH).ok()?).ok()
}

fn is_dir(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
}

/// An event for the guest, where the folder is there.
pub(crate) fn event(mask: u32, cookie: u32, folder: &Path, name: &[u8]) -> v1::FileEvent {
    let folder = guest_path::in_guest(folder);
    v1::FileEvent { mask, cookie, folder: folder.into_os_string().into_encoded_bytes(), name: name.to_vec() }
}

/// An event that says to believe nothing that was seen at or below `path`.
pub(crate) fn rescan(path: &Path) -> v1::FileEvent {
    event(OVERFLOW, 0, path, b"")
}

/// The same, and who watches there is told to look again: events were lost.
pub(crate) fn lost(path: &Path) -> v1::FileEvent {
    event(OVERFLOW, 1, path, b"")
}

#[cfg(test)]
mod tests;
