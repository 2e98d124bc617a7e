//! Watches what running containers mount where the hypervisor shares folders itself: macOS and Windows.
//!
//! ```text
//!   FSEvents, ReadDirectoryChangesW ─▶ hints ─▶ held 10 ms ─▶ what is there now, against what was there (tree) ─▶ guest
//!                                        └ too many, or the system says that it lost some: told, and all is looked at again
//! ```
//!
//! Both systems watch a folder with all that is below it, and neither says what inotify says: FSEvents names a path and
//! everything that happened to it of late, in one; ReadDirectoryChangesW does not tell a file from a folder, nor contents from
//! attributes. So what they say is a hint where to look, and the difference to what was there before is what is told. It
//! costs the memory of a name and a few numbers for each file, and what came and went between two looks is not told.
//!
//! What the guest does itself comes back as an event of the host here, since no server of ours knows what the guest did: a
//! container hears of its own deed a second time. To leave out what the guest seems to know would lose what it has only looked
//! at. A change that leaves size, time, owner and mode as they were is told to nobody: so an agent without the
//! module, which touches files, does not hear of its own touch for ever.

#[cfg(any(test, windows))]
mod changes;
#[cfg_attr(windows, path = "host_watch/look_windows.rs")]
#[cfg_attr(unix, path = "host_watch/look_unix.rs")]
mod look;
#[cfg(any(target_os = "macos", all(test, target_os = "linux")))]
mod notified;
mod tree;

use std::{
    any::Any,
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use slipway_protocol::v1;

use crate::mask;
use tree::{Hint, Told, Tree};

/// Between the first hint and the look: repetitions are seen, and both halves of a move.
const HOLD: Duration = Duration::from_millis(10);
/// Hints that wait at most.
const WAITING: usize = 1 << 14;
/// Files and folders that are kept in mind at most, of all that is watched.
const KNOWN: usize = 500_000;
/// Before what was too much is looked at again, although the same is wanted: whoever asks how it stands asks every few seconds.
const AGAIN: Duration = Duration::from_secs(300);

/// Takes what the guest is to hear.
pub trait Tells: Send {
    /// Queues a batch; false when there is no room for it.
    fn send(&self, batch: Vec<v1::FileEvent>) -> bool;
    /// Says that something was lost, which cannot get lost itself.
    fn overflow(&self, events: Vec<v1::FileEvent>);
}

/// What is to be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Folders, watched with all that is below, and files.
    pub paths: Vec<PathBuf>,
    /// See [`crate::wire::Call::Watch`].
    pub exclude: Vec<String>,
}

/// How watching stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Folders with a watch of their own; all that is below is watched with them.
    pub watches: usize,
    /// Why not everything that is to be watched is; for a person.
    pub unwatched: Option<String>,
    /// Times that events were lost; each was told.
    pub overflows: u64,
}

/// Where the system's hints about one folder go.
#[derive(Debug, Clone)]
struct Hints {
    root: u64,
    full: Arc<AtomicBool>,
    to: SyncSender<Message>,
}

impl Hints {
    /// Never waits: who gives hints must be back at the system before it loses some.
    fn give(&self, hint: Hint) {
        if self.to.try_send(Message::Hint(self.root, hint)).is_err() {
            self.full.store(true, Ordering::Release);
        }
    }
}

#[derive(Debug)]
enum Message {
    Hint(u64, Hint),
    Watch(Wanted, Sender<Standing>),
    End,
}

/// Begins to watch a folder, with all that is below it or only what is in it; ends when what it gives is dropped.
type Begin = fn(&Path, bool, Hints) -> Result<Box<dyn Any + Send>, String>;

/// The watching thread; it ends with this.
#[derive(Debug)]
pub struct Watcher {
    to: SyncSender<Message>,
    standing: Arc<Mutex<Standing>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread. It watches nothing yet.
    ///
    /// # Errors
    /// The system's, when it has no thread.
    #[cfg(not(target_os = "linux"))]
    pub fn start(tells: impl Tells + 'static) -> io::Result<Self> {
        #[cfg(windows)]
        let begin = changes::begin;
        #[cfg(not(windows))]
        let begin = notified::begin;
        Self::with(begin, KNOWN, Box::new(tells))
    }

    fn with(begin: Begin, most: usize, tells: Box<dyn Tells>) -> io::Result<Self> {
        let (to, messages) = sync_channel(WAITING);
        let standing = Arc::new(Mutex::new(Standing::default()));
        let watching = Watching {
            begin,
            most,
            tells,
            to: to.clone(),
            wanted: Wanted::default(),
            roots: BTreeMap::new(),
            too_much: BTreeMap::new(),
            last: 0,
            cookie: 0,
            now: Standing::default(),
            standing: Arc::clone(&standing),
        };
        let thread =
            std::thread::Builder::new().name("watch".into()).spawn(move || watching.run(&messages))?;
        Ok(Self { to, standing, thread: Some(thread) })
    }

    /// Watches exactly this from now on; returns when it does, which takes as long as to look at all of it.
    pub fn watch(&self, wanted: Wanted) -> Standing {
        let (done, answer) = channel();
        if self.to.send(Message::Watch(wanted, done)).is_ok()
            && let Ok(standing) = answer.recv()
        {
            return standing;
        }
        Standing { unwatched: Some("the watcher has ended".into()), ..Standing::default() }
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.to.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A folder or file that is watched.
struct Root {
    id: u64,
    full: Arc<AtomicBool>,
    tree: Tree,
    /// The system's watch.
    _watch: Box<dyn Any + Send>,
}

struct Watching {
    begin: Begin,
    most: usize,
    tells: Box<dyn Tells>,
    to: SyncSender<Message>,
    wanted: Wanted,
    roots: BTreeMap<PathBuf, Root>,
    /// What was too much, since when, and what was said of it.
    too_much: BTreeMap<PathBuf, (Instant, String)>,
    /// What the last one was called: hints of one that is watched no more find none of that name.
    last: u64,
    cookie: u32,
    now: Standing,
    standing: Arc<Mutex<Standing>>,
}

impl Watching {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let Ok(mut message) = messages.recv() else { return };
            let until = Instant::now() + HOLD;
            let (mut hints, mut order) = (BTreeMap::<u64, Vec<Hint>>::new(), None);
            let mut held = 0;
            loop {
                match message {
                    Message::Hint(root, hint) => hints.entry(root).or_default().push(hint),
                    Message::Watch(wanted, done) => {
                        order = Some((wanted, done));
                        break;
                    }
                    Message::End => return,
                }
                held += 1;
                if held == WAITING {
                    break;
                }
                message = match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(next) => next,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
            }
            self.judge(hints);
            if let Some((wanted, done)) = order {
                self.set(wanted);
                // Who asked may have given up.
                let _ = done.send(self.now.clone());
            }
        }
    }

    /// Tells what the hints are about.
    fn judge(&mut self, mut hints: BTreeMap<u64, Vec<Hint>>) {
        let (mut told, mut lost, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for (path, root) in &mut self.roots {
            let mut hints = hints.remove(&root.id).unwrap_or_default();
            if root.full.swap(false, Ordering::AcqRel) {
                hints.push(Hint::Lost);
            }
            if let Some(why) = hints.iter().find_map(Hint::ended) {
                ended.push((path.clone(), why.to_owned()));
            }
            if hints.iter().any(|hint| matches!(hint, Hint::Lost)) {
                self.now.overflows += 1;
                lost.push(path.clone());
            }
            root.tree.judge(hints, &mut self.cookie, &mut told);
        }
        // First, so that what was there before is not believed when the rest is told.
        if !lost.is_empty() {
            self.publish();
            self.tells.overflow(lost.iter().filter_map(|path| event(&lost_below(path))).collect());
        }
        let batch: Vec<_> = told.iter().filter_map(event).collect();
        if !batch.is_empty() && !self.tells.send(batch) {
            self.now.overflows += 1;
            self.publish();
            let all = self.roots.keys().filter_map(|path| event(&lost_below(path)));
            self.tells.overflow(all.collect());
        }
        for (path, why) in ended {
            self.roots.remove(&path);
            // One that is gone is watched no more, and nothing is wrong with that.
            if look::state(&path).is_some() {
                self.cannot(&path, &why);
            }
        }
        self.within_bounds();
        self.publish();
    }

    /// Before a loss is told: who hears of it finds it counted.
    fn publish(&mut self) {
        self.now.watches = self.roots.len();
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.now);
    }

    fn cannot(&mut self, path: &Path, why: &str) {
        self.now.unwatched.get_or_insert(format!("`{}` cannot be watched: {why}", path.display()));
    }

    /// Watches what is wanted now and was not, and the other way round.
    fn set(&mut self, mut wanted: Wanted) {
        // Nested ones are watched with what they are in.
        let outer = |path: &PathBuf| !wanted.paths.iter().any(|one| one != path && path.starts_with(one));
        let mut paths: Vec<PathBuf> = wanted.paths.iter().filter(|path| outer(path)).cloned().collect();
        paths.sort();
        paths.dedup();
        wanted.paths = paths;
        if wanted.exclude != self.wanted.exclude {
            self.roots.clear();
        }
        self.now.unwatched = None;
        if wanted == self.wanted {
            self.too_much.retain(|_, (since, _)| since.elapsed() < AGAIN);
        } else {
            self.too_much.clear();
        }
        self.wanted = wanted;
        self.roots.retain(|path, _| self.wanted.paths.contains(path));
        for path in self.wanted.paths.clone() {
            if let Some((_, why)) = self.too_much.get(&path) {
                let why = why.clone();
                self.cannot(&path, &why);
                continue;
            }
            if !self.roots.contains_key(&path) && look::state(&path).is_some() {
                match self.root(&path) {
                    Ok(root) => drop(self.roots.insert(path, root)),
                    Err(why) => self.cannot(&path, &why),
                }
            }
        }
        self.within_bounds();
        self.publish();
    }

    fn root(&mut self, path: &Path) -> Result<Root, String> {
        self.last += 1;
        let full = Arc::new(AtomicBool::new(false));
        let hints = Hints { root: self.last, full: Arc::clone(&full), to: self.to.clone() };
        let file = look::state(path).is_none_or(|state| !state.is_folder());
        let (folder, only) = match (file, path.parent(), path.file_name()) {
            (true, Some(folder), Some(name)) => (folder.to_owned(), Some(name.to_owned())),
            _ => (path.to_owned(), None),
        };
        // Before the look: what comes between is a hint about what is known by then.
        let watch = (self.begin)(&folder, only.is_none(), hints)?;
        let room = self.most.saturating_sub(self.known());
        let tree = Tree::new(folder, only, self.wanted.exclude.clone(), room);
        Ok(Root { id: self.last, full, tree, _watch: watch })
    }

    fn known(&self) -> usize {
        self.roots.values().map(|root| root.tree.known()).sum()
    }

    /// What is watched half is not watched, and it is said why.
    fn within_bounds(&mut self) {
        while self.known() > self.most {
            let largest = self.roots.iter().max_by_key(|(_, root)| root.tree.known());
            let Some(path) = largest.map(|(path, _)| path.clone()) else { return };
            self.roots.remove(&path);
            let why = format!(
                "there are more than {} files; leave folders out: \
                 `slipway config set shares.exclude .git/objects,node_modules`",
                self.most
            );
            self.cannot(&path, &why);
            self.too_much.insert(path, (Instant::now(), why));
        }
    }
}

fn lost_below(path: &Path) -> Told {
    Told { mask: mask::OVERFLOW, cookie: 1, folder: path.to_owned(), name: OsString::new() }
}

/// That the guest is to believe nothing that was seen at or below these, because events were lost.
pub fn lost(paths: &[PathBuf]) -> Vec<v1::FileEvent> {
    paths.iter().filter_map(|path| event(&lost_below(path))).collect()
}

/// What is told, in the guest's words. Nothing of a folder that the guest cannot have under that name.
fn event(told: &Told) -> Option<v1::FileEvent> {
    #[cfg(windows)]
    let folder = crate::bind_source::parse(told.folder.to_str()?)?.ok()?.guest;
    #[cfg(not(windows))]
    let folder = crate::guest_path::in_guest(&told.folder);
    let bytes = |text: OsString| text.into_encoded_bytes();
    Some(v1::FileEvent {
        mask: told.mask,
        cookie: told.cookie,
        folder: bytes(folder.into()),
        name: bytes(told.name.clone()),
    })
}

#[cfg(test)]
mod tests;
