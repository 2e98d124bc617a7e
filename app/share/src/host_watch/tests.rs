//! With the system's own watch: ReadDirectoryChangesW on Windows and under Wine, inotify by `notify` on Linux, FSEvents on macOS.

use std::sync::{
    Condvar,
    mpsc::{Receiver as Told, Sender as Teller},
};

use super::*;
use crate::mask::{MOVED_FROM, MOVED_TO};

#[cfg(windows)]
use changes::begin;
#[cfg(not(windows))]
use notified::begin;

const PATIENCE: Duration = Duration::from_secs(20);

struct Guest {
    to: Teller<v1::FileEvent>,
    /// Takes nothing.
    full: bool,
}

impl Tells for Guest {
    fn send(&self, batch: Vec<v1::FileEvent>) -> bool {
        if !self.full {
            batch.into_iter().for_each(|event| drop(self.to.send(event)));
        }
        !self.full
    }

    fn overflow(&self, events: Vec<v1::FileEvent>) {
        events.into_iter().for_each(|event| drop(self.to.send(event)));
    }
}

struct Running {
    root: PathBuf,
    watcher: Watcher,
    told: Told<v1::FileEvent>,
    /// Removed last: under Wine a folder stays for as long as it is watched.
    _dir: tempfile::TempDir,
}

impl Running {
    fn idle(begin: Begin, most: usize, full: bool) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let root = plain(&dir.path().canonicalize().expect("there")).join("root");
        std::fs::create_dir(&root).expect("makes");
        let (to, told) = channel();
        let watcher = Watcher::with(begin, most, Box::new(Guest { to, full })).expect("starts");
        Self { root, watcher, told, _dir: dir }
    }

    fn start(prepare: impl FnOnce(&Path), exclude: &[&str]) -> Self {
        let running = Self::idle(begin, KNOWN, false);
        prepare(&running.root);
        let standing = running.watch(std::slice::from_ref(&running.root), exclude);
        assert_eq!((standing.watches, standing.unwatched), (1, None));
        running
    }

    fn watch(&self, paths: &[PathBuf], exclude: &[&str]) -> Standing {
        let exclude = exclude.iter().map(|one| (*one).to_owned()).collect();
        self.watcher.watch(Wanted { paths: paths.to_vec(), exclude })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What is told until something is told of `last`, one word each.
    fn until(&self, last: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let Ok(event) = self.told.recv_timeout(PATIENCE) else { panic!("no `{last}` among {said:?}") };
            said.push(self.word(&event));
            if said.last().is_some_and(|word| word == last) {
                return said;
            }
        }
    }

    fn word(&self, event: &v1::FileEvent) -> String {
        let guest = super::event(&lost_below(&self.root)).expect("a path").folder;
        let (folder, root) = (String::from_utf8_lossy(&event.folder), String::from_utf8_lossy(&guest));
        let below = folder.strip_prefix(&*root).expect("below the root").trim_start_matches('/');
        let name = String::from_utf8_lossy(&event.name);
        let path = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
        mask::said(event.mask, path)
    }
}

/// Without what the system puts before a path that it takes word for word: no daemon says such paths.
fn plain(path: &Path) -> PathBuf {
    let text = path.to_str().expect("text");
    PathBuf::from(text.strip_prefix(r"\\?\").unwrap_or(text))
}

#[test]
fn a_file_s_life_is_told_as_it_was_lived() {
    let watch = Running::start(|_| {}, &[]);
    std::fs::write(watch.path("a"), "x").expect("writes");
    // How many times it is told that it was written depends on when it was looked at.
    assert_eq!(watch.until("close a").first().map(String::as_str), Some("create a"));
    std::fs::write(watch.path("a"), "longer").expect("writes");
    assert_eq!(watch.until("close a").iter().filter(|word| *word == "modify a").count(), 1);
    std::fs::rename(watch.path("a"), watch.path("b")).expect("renames");
    let told = watch.until("to b");
    assert!(told.ends_with(&["from a".into(), "to b".into()]), "{told:?}");
    std::fs::remove_file(watch.path("b")).expect("removes");
    assert_eq!(watch.until("delete b"), ["delete b"]);
}

#[test]
fn both_halves_of_a_move_have_one_cookie_and_the_next_move_another() {
    let watch = Running::start(
        |root| {
            std::fs::create_dir(root.join("in")).expect("makes");
            std::fs::write(root.join("a"), "x").expect("writes");
        },
        &[],
    );
    let mut cookies = Vec::new();
    for (from, to) in [("a", "in/b"), ("in", "out")] {
        std::fs::rename(watch.path(from), watch.path(to)).expect("renames");
        let mut halves = Vec::new();
        while halves.len() < 2 {
            let event = watch.told.recv_timeout(PATIENCE).expect("told");
            assert!(event.mask & (MOVED_FROM | MOVED_TO) != 0, "{}", watch.word(&event));
            halves.push(event.cookie);
        }
        assert!(halves[0] == halves[1] && halves[0] != 0, "{halves:?}");
        cookies.push(halves[0]);
    }
    assert_ne!(cookies[0], cookies[1]);
    // What is in a folder that moved is known under its new name. Wine goes on to tell of it under the old one.
    if cfg!(windows) {
        return;
    }
    std::fs::remove_file(watch.path("out/b")).expect("removes");
    assert_eq!(watch.until("delete out/b").last().map(String::as_str), Some("delete out/b"));
}

#[test]
fn folders_that_come_are_told_with_what_is_in_them_once_and_go_as_they_came() {
    let watch = Running::start(|_| {}, &[]);
    std::fs::create_dir_all(watch.path("one/two")).expect("makes");
    std::fs::write(watch.path("one/two/file"), "").expect("writes");
    let mut told = watch.until("close one/two/file");
    std::fs::remove_dir_all(watch.path("one")).expect("removes");
    told.extend(watch.until("delete one/"));
    for once in
        ["create one/", "create one/two/", "create one/two/file", "delete one/two/file", "delete one/two/"]
    {
        assert_eq!(told.iter().filter(|word| *word == once).count(), 1, "{once}: {told:?}");
    }
}

#[test]
fn what_replaces_a_file_by_a_rename_is_told_as_a_move() {
    let watch = Running::start(|root| std::fs::write(root.join("file"), "old").expect("writes"), &[]);
    std::fs::write(watch.path("file.tmp"), "new").expect("writes");
    watch.until("close file.tmp");
    std::fs::rename(watch.path("file.tmp"), watch.path("file")).expect("renames");
    let told = watch.until("to file");
    assert!(
        told.contains(&"from file.tmp".to_owned()) && !told.iter().any(|w| w == "delete file"),
        "{told:?}"
    );
}

#[test]
fn what_is_excluded_is_not_told() {
    let watch = Running::start(
        |root| std::fs::create_dir_all(root.join(".git/objects")).expect("makes"),
        &[".git/objects"],
    );
    std::fs::write(watch.path(".git/objects/x"), "").expect("writes");
    std::fs::write(watch.path(".git/HEAD"), "").expect("writes");
    let told = watch.until("close .git/HEAD");
    assert!(told.iter().all(|word| !word.contains("objects")), "{told:?}");
}

#[test]
fn of_a_single_file_only_its_own_events_are_told() {
    let watch = Running::idle(begin, KNOWN, false);
    std::fs::write(watch.path("mine"), "").expect("writes");
    assert_eq!(watch.watch(&[watch.path("mine")], &[]).watches, 1);
    std::fs::write(watch.path("other"), "x").expect("writes");
    std::fs::write(watch.path("mine"), "x").expect("writes");
    let told = watch.until("close mine");
    assert!(told.iter().all(|word| word.ends_with(" mine")), "{told:?}");
}

#[test]
fn what_is_watched_no_more_is_told_no_more_and_nested_is_watched_once() {
    let watch = Running::idle(begin, KNOWN, false);
    for folder in ["a/in", "b"] {
        std::fs::create_dir_all(watch.path(folder)).expect("makes");
    }
    assert_eq!(watch.watch(&[watch.path("a"), watch.path("a/in"), watch.path("b")], &[]).watches, 2);
    assert_eq!(watch.watch(&[watch.path("b"), watch.path("missing")], &[]).watches, 1);
    std::fs::write(watch.path("a/file"), "x").expect("writes");
    std::fs::write(watch.path("b/file"), "x").expect("writes");
    let told = watch.until("close b/file");
    assert!(told.iter().all(|word| word.contains("b/")), "{told:?}");
}

#[test]
fn what_has_no_room_on_its_way_is_told_as_lost() {
    let watch = Running::idle(begin, KNOWN, true);
    watch.watch(std::slice::from_ref(&watch.root), &[]);
    std::fs::write(watch.path("file"), "x").expect("writes");
    assert_eq!(watch.until("lost "), ["lost "]);
    assert!(watch.watcher.standing().overflows >= 1);
}

/// A system that says what the test has it say.
static SAYS: (Mutex<Option<Hints>>, Condvar) = (Mutex::new(None), Condvar::new());

fn said(_: &Path, _: bool, hints: Hints) -> Result<Box<dyn Any + Send>, String> {
    *SAYS.0.lock().expect("lock") = Some(hints);
    SAYS.1.notify_all();
    Ok(Box::new(()))
}

#[test]
fn what_the_system_lost_is_told_and_found_nevertheless() {
    let watch = Running::idle(said, KNOWN, false);
    std::fs::write(watch.path("gone"), "x").expect("writes");
    std::fs::create_dir(watch.path("in")).expect("makes");
    std::fs::write(watch.path("in/kept"), "x").expect("writes");
    watch.watch(std::slice::from_ref(&watch.root), &[]);
    let hints = SAYS.0.lock().expect("lock").clone().expect("watched");
    std::fs::remove_file(watch.path("gone")).expect("removes");
    std::fs::write(watch.path("in/kept"), "longer").expect("writes");
    std::fs::write(watch.path("new"), "").expect("writes");
    hints.give(Hint::Lost);
    let told = watch.until("close new");
    assert_eq!(told, ["lost ", "delete gone", "modify in/kept", "close in/kept", "create new", "close new"]);
    // The system gives up while the folder is there: that is said, and the next try watches again.
    hints.give(Hint::Ended("the disk was pulled out".into()));
    let until = Instant::now() + PATIENCE;
    while watch.watcher.standing().unwatched.is_none() {
        assert!(Instant::now() < until, "it says so");
        std::thread::sleep(Duration::from_millis(5));
    }
    let standing = watch.watcher.standing();
    assert!(standing.watches == 0 && standing.unwatched.is_some_and(|why| why.contains("pulled out")));
    assert_eq!(watch.watch(std::slice::from_ref(&watch.root), &[]).unwatched, None);
}

fn refused(_: &Path, _: bool, _: Hints) -> Result<Box<dyn Any + Send>, String> {
    Err("no".into())
}

#[test]
fn what_cannot_be_watched_and_what_is_too_much_is_said() {
    let watch = Running::idle(refused, KNOWN, false);
    let standing = watch.watch(std::slice::from_ref(&watch.root), &[]);
    assert!(standing.unwatched.is_some_and(|why| why.contains("cannot be watched: no")));
    let watch = Running::idle(begin, 5, false);
    for name in 0..10 {
        std::fs::write(watch.path(&name.to_string()), "").expect("writes");
    }
    let standing = watch.watch(std::slice::from_ref(&watch.root), &[]);
    assert_eq!(standing.watches, 0);
    assert!(standing.unwatched.as_ref().is_some_and(|why| why.contains("shares.exclude")));
    for name in 3..10 {
        std::fs::remove_file(watch.path(&name.to_string())).expect("removes");
    }
    // Not at once, or who asks often has it looked through all the time; but when something else is wanted.
    assert_eq!(watch.watch(std::slice::from_ref(&watch.root), &[]), standing);
    let watched = Standing { watches: 1, ..Standing::default() };
    assert_eq!(watch.watch(std::slice::from_ref(&watch.root), &["node_modules"]), watched);
}

/// Such a touch is all that an agent without the module can do, and comes back as an event of the host.
#[test]
fn a_touch_that_changes_nothing_is_told_to_nobody() {
    let watch = Running::start(|root| std::fs::write(root.join("file"), "x").expect("writes"), &[]);
    let rights = std::fs::metadata(watch.path("file")).expect("there").permissions();
    std::fs::set_permissions(watch.path("file"), rights.clone()).expect("touched");
    let mut other = rights;
    other.set_readonly(true);
    std::fs::set_permissions(watch.path("file"), other).expect("changed");
    assert_eq!(watch.until("attrib file"), ["attrib file"]);
}

#[cfg(unix)]
#[test]
fn no_name_behind_a_link_is_told() {
    let watch = Running::idle(begin, KNOWN, false);
    let outside = watch.root.parent().expect("a folder").join("outside");
    std::fs::create_dir_all(outside.join("sub")).expect("makes");
    std::fs::write(outside.join("sub/secret"), "").expect("writes");
    std::os::unix::fs::symlink(&outside, watch.path("link")).expect("links");
    watch.watch(std::slice::from_ref(&watch.root), &[]);
    std::os::unix::fs::symlink(&outside, watch.path("other")).expect("links");
    std::fs::write(outside.join("sub/more"), "").expect("writes");
    std::fs::write(watch.path("end"), "").expect("writes");
    let told = watch.until("close end");
    assert!(told.contains(&"create other".to_owned()) && !told.iter().any(|w| w.contains("sub")), "{told:?}");
    // As a folder that is to be watched it is none.
    assert_eq!(watch.watch(&[watch.path("link/sub")], &[]).watches, 0);
}

/// All of a batch has happened when it is judged, as ReadDirectoryChangesW tells it.
#[test]
fn what_was_said_of_a_name_is_about_the_one_that_it_has_now() {
    let watch = Running::idle(begin, KNOWN, false);
    std::fs::create_dir_all(watch.path("was/in")).expect("makes");
    std::fs::write(watch.path("was/in/file"), "x").expect("writes");
    std::fs::write(watch.path("save"), "x").expect("writes");
    let mut tree = Tree::new(watch.root.clone(), None, Vec::new(), KNOWN);
    let (mut cookie, mut told) = (0, Vec::new());
    let look = |name| Hint::Look { path: watch.path(name), renamed: false };
    let moved = |from, to| Hint::Moved { from: watch.path(from), to: watch.path(to) };
    std::fs::write(watch.path("was/in/file"), "longer").expect("writes");
    std::fs::rename(watch.path("was"), watch.path("is")).expect("renames");
    // An editor that saves aside, of whose file nobody was told before it got the name.
    std::fs::remove_file(watch.path("save")).expect("removes");
    std::fs::write(watch.path("save"), "new").expect("writes");
    let hints = vec![
        look("was/in/file"),
        moved("was", "is"),
        look("save.tmp"),
        look("save"),
        moved("save.tmp", "save"),
        look("never"),
    ];
    tree.judge(hints, &mut cookie, &mut told);
    let told: Vec<String> =
        told.iter().map(|told| watch.word(&super::event(told).expect("a path"))).collect();
    assert_eq!(told, ["from was/", "to is/", "to save", "modify is/in/file", "close is/in/file"]);
    // Nothing is told twice, and what is not below the root not at all.
    let mut told = Vec::new();
    let outside = Hint::Look { path: watch.root.join("../outside"), renamed: false };
    tree.judge(vec![look("is"), look("save"), outside, Hint::Lost], &mut cookie, &mut told);
    assert_eq!(told, []);
    assert_eq!(tree.known(), 4);
}
