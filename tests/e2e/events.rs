//! The host's file events in a container: what inotify says there is what it says on the host, where the same program
//! watches the same folders at the same time.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use slipway_test_harness::{Command, Home, Lines, gone, kill};

use crate::{Shared, ours};

pub(crate) const TESTS: &[Shared] = &[
    ("events_are_the_kernels_own", own),
    ("events_of_files_are_the_same_as_on_the_host", files),
    ("events_of_folders_are_the_same_as_on_the_host", folders),
    ("events_of_moves_have_cookies_that_match", moves),
    ("events_of_a_deleted_tree_reach_who_watches_in_it", deleted_tree),
    ("events_of_what_a_container_does_are_not_told_twice", echoes),
    ("events_come_for_one_file_and_for_what_an_editor_saves", editor),
    ("events_of_a_burst_of_10000_are_all_told", burst),
    ("events_that_were_lost_are_told_as_such_to_who_watches", lost),
];

/// The last event of a test is of this name.
const END: &str = "the end";

/// The program of the tests' containers, where they find it.
pub(crate) fn program(home: &Home) -> PathBuf {
    let program = home.path().join("watch");
    if !program.exists() {
        fs::copy(ours::program("slipway-test-guest"), &program).expect("copied");
    }
    program
}

/// A program that was started and runs on, and its lines.
pub(crate) struct Watcher {
    lines: Lines,
}

impl Watcher {
    /// Starts one whose first line is `ready`.
    fn start(command: Command) -> Self {
        let watcher = Self::read(command);
        assert_eq!(watcher.line(Duration::from_secs(60)), Some("ready".to_owned()));
        watcher
    }

    pub(crate) fn read(command: Command) -> Self {
        Self { lines: Lines::of(command) }
    }

    pub(crate) fn line(&self, patience: Duration) -> Option<String> {
        self.lines.next(patience).map(|(_, line)| line)
    }

    /// Everything up to the end. Whether a change that follows the same change is told is a matter of who reads how fast.
    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.line(left) {
                Some(line) if line.ends_with(END) => return told,
                Some(line) => {
                    let of = |line: &str| line.split_once(' ').map(|(watch, _)| watch.to_owned());
                    let before = told.iter().rev().find(|before| of(before) == of(&line));
                    let again = before == Some(&line) && line.contains(" MODIFY ");
                    told.extend((!again).then_some(line));
                }
                None => panic!("the end was not told; {} lines before it: {told:#?}", told.len()),
            }
        }
    }
}

/// A folder watched in a container, and one like it that only the host has, watched on the host. Both are treated alike.
pub(crate) struct Both {
    shared: PathBuf,
    native: tempfile::TempDir,
    host: Watcher,
    container: Watcher,
}

impl Both {
    /// Watches a new folder and these below it, which `prepare` has made.
    pub(crate) fn start(home: &Home, name: &str, below: &[&str], prepare: impl Fn(&Path)) -> Self {
        let shared = home.path().join("events").join(name);
        fs::create_dir_all(&shared).expect("made");
        let native = tempfile::tempdir().expect("a folder");
        prepare(&shared);
        prepare(native.path());
        let program = program(home);
        let paths = |root: &Path| -> Vec<PathBuf> {
            std::iter::once(root.to_owned()).chain(below.iter().map(|name| root.join(name))).collect()
        };
        let host = Watcher::start(Command::new(&program).arg("watch").args(paths(native.path())));
        let bind = format!("{}:/x", shared.display());
        let with = format!("{}:/watch:ro", program.display());
        let run = home.docker(["run", "--rm", "--init", "-v", &bind, "-v", &with, "box", "/watch", "watch"]);
        let container = Watcher::start(run.args(paths(Path::new("/x"))));
        home.wait_watched(&shared);
        Self { shared, native, host, container }
    }

    /// Does something in each, and waits until it was told: what comes next is not merged with it.
    pub(crate) fn each(&self, act: impl Fn(&Path)) {
        act(&self.shared);
        act(self.native.path());
        std::thread::sleep(Duration::from_millis(150));
    }

    /// Ends, and both have told the same. Returns what.
    pub(crate) fn same(self) -> Vec<String> {
        self.each(|dir| fs::create_dir(dir.join(END)).expect("made"));
        let (host, container) = (self.host.told(), self.container.told());
        assert!(!host.is_empty(), "the host's own watcher tells something");
        assert_eq!(container, host, "left: the container's, right: the host's");
        host
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
}

pub(crate) fn remove(path: &Path) {
    fs::remove_file(path).expect("removed");
}

pub(crate) fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("renamed");
}

pub(crate) fn has(told: &[String], wanted: &[&str]) {
    for wanted in wanted {
        assert!(told.iter().any(|line| line == wanted), "{wanted}: {told:#?}");
    }
}

fn own(home: &Home) {
    let status = home.status();
    assert_eq!(status["state"], "running", "without a reason to be degraded: {status}");
    let loaded = home.slipway(["shell", "--", "cat", "/proc/modules"]).run().ok().text();
    assert!(loaded.lines().any(|line| line.starts_with("slipway_fsnotify ")), "{loaded}");
    // Nobody but the agent may write to it, not even root.
    let script = "stat -c %a /dev/slipway-fsnotify; echo x > /dev/slipway-fsnotify";
    let ran = home.slipway(["shell", "--", "sh", "-c", script]).run();
    assert!(ran.code != 0 && ran.text() == "600" && ran.err.contains("busy"), "{ran}");
    let script = "ls /dev/slipway-fsnotify; mknod /tmp/d c 10 $(cat /n) && echo x > /tmp/d";
    let minor =
        home.slipway(["shell", "--", "sh", "-c", "grep slipway-fsnotify /proc/misc"]).run().ok().text();
    let minor = minor.split_whitespace().next().expect("a number").to_owned();
    let script = script.replace("$(cat /n)", &minor);
    let ran = home.docker(["run", "--rm", "box", "sh", "-c", &script]).run();
    assert!(ran.code != 0 && ran.text().is_empty() && ran.err.contains("not permitted"), "{ran}");
}

fn files(home: &Home) {
    let both = Both::start(home, "files", &["old"], |dir| {
        write(&dir.join("old"), "before");
        write(&dir.join("other"), "x");
    });
    let other = both.shared.join("other");
    let before = fs::metadata(&other).expect("there");
    both.each(|dir| write(&dir.join("new"), "one"));
    both.each(|dir| write(&dir.join("old"), "another"));
    both.each(|dir| {
        let append = OpenOptions::new().append(true).open(dir.join("old"));
        append.expect("opened").write_all(b"more").expect("written");
    });
    both.each(|dir| {
        OpenOptions::new().write(true).open(dir.join("old")).expect("opened").set_len(1).expect("cut")
    });
    both.each(|dir| fs::set_permissions(dir.join("old"), Permissions::from_mode(0o600)).expect("set"));
    both.each(|dir| fs::hard_link(dir.join("old"), dir.join("second name")).expect("linked"));
    both.each(|dir| symlink("old", dir.join("link")).expect("linked"));
    // Seen by nobody in the guest before it is gone.
    both.each(|dir| {
        write(&dir.join("short"), "x");
        remove(&dir.join("short"));
    });
    both.each(|dir| ["new", "old", "second name", "link"].iter().for_each(|name| remove(&dir.join(name))));
    let told = both.same();
    has(
        &told,
        &[
            "0 CREATE - new",
            "0 MODIFY - old",
            "1 MODIFY - ",
            "0 ATTRIB - old",
            "0 DELETE - link",
            "0 MODIFY - short",
            "1 DELETE_SELF - ",
        ],
    );
    let after = fs::metadata(other).expect("there");
    assert_eq!(
        (after.mtime_nsec(), after.ctime_nsec(), after.mode()),
        (before.mtime_nsec(), before.ctime_nsec(), before.mode()),
        "what the host has is not touched"
    );
}

fn folders(home: &Home) {
    let both = Both::start(home, "folders", &[], |dir| fs::create_dir(dir.join("old")).expect("made"));
    both.each(|dir| fs::create_dir_all(dir.join("new/deep/er")).expect("made"));
    both.each(|dir| fs::set_permissions(dir.join("old"), Permissions::from_mode(0o700)).expect("set"));
    both.each(|dir| rename(&dir.join("old"), &dir.join("other")));
    both.each(|dir| {
        fs::remove_dir_all(dir.join("new")).expect("removed");
        fs::remove_dir(dir.join("other")).expect("removed");
    });
    has(&both.same(), &["0 CREATE|ISDIR - new", "0 ATTRIB|ISDIR - old", "0 DELETE|ISDIR - other"]);
}

fn moves(home: &Home) {
    let both = Both::start(home, "moves", &["a", "b", "a/file", "a/sub", "b/target"], |dir| {
        for folder in ["a", "b", "a/sub"] {
            fs::create_dir(dir.join(folder)).expect("made");
        }
        for file in ["a/file", "a/over", "b/target"] {
            write(&dir.join(file), file);
        }
    });
    for (from, to) in [
        ("a/file", "a/renamed"),
        ("a/renamed", "b/moved"),
        ("a/over", "b/target"),
        ("a/sub", "b/sub"),
        ("b/moved", "moved out"),
        ("moved out", "a/file"),
    ] {
        both.each(|dir| rename(&dir.join(from), &dir.join(to)));
    }
    // In from where nobody watches, and out again.
    let outside = tempfile::tempdir_in(home.path()).expect("a folder");
    both.each(|dir| {
        let came = outside.path().join("came");
        write(&came, "x");
        rename(&came, &dir.join("a/came"));
    });
    both.each(|dir| rename(&dir.join("a/came"), &outside.path().join("gone")));
    // Quicker than the guest is told: it hears of names that are others by then.
    both.each(|dir| {
        let path = |name: &str| dir.join(name);
        for (from, to) in [("a/file", "a/1"), ("a/1", "b/2"), ("b/2", "a/3")] {
            rename(&path(from), &path(to));
        }
        remove(&path("a/3"));
    });
    let told = both.same();
    has(
        &told,
        &[
            "1 MOVED_FROM 1 file",
            "1 MOVED_TO 1 renamed",
            "1 MOVED_FROM 2 renamed",
            "2 MOVED_TO 2 moved",
            "3 MOVE_SELF - ",
            "3 DELETE_SELF - ",
            "4 MOVE_SELF - ",
            "5 DELETE_SELF - ",
        ],
    );
}

fn deleted_tree(home: &Home) {
    let both = Both::start(home, "tree", &["a", "a/b", "a/b/c", "a/b/file"], |dir| {
        fs::create_dir_all(dir.join("a/b/c")).expect("made");
        for file in ["a/one", "a/b/file", "a/b/c/three"] {
            write(&dir.join(file), file);
        }
    });
    // Not in the order of a walk, which may be another in another folder.
    both.each(|dir| {
        ["a/b/c/three", "a/b/file", "a/one"].iter().for_each(|file| remove(&dir.join(file)));
        for folder in ["a/b/c", "a/b", "a"] {
            fs::remove_dir(dir.join(folder)).expect("removed");
        }
    });
    has(&both.same(), &["2 DELETE - file", "4 DELETE_SELF - ", "1 DELETE_SELF - ", "0 DELETE|ISDIR - a"]);
}

fn echoes(home: &Home) {
    let both = Both::start(home, "echoes", &[], |_| {});
    let bind = format!("{}:/y", both.shared.display());
    let script = "echo one > f; echo two >> f; chmod 600 f; mv f g; mkdir d; rm g; rmdir d";
    let here = format!("cd /y; {script}");
    home.docker(["run", "--rm", "-v", &bind, "box", "sh", "-c", &here]).run().ok();
    Command::new("/bin/busybox").args(["sh", "-c", script]).in_dir(both.native.path()).run().ok();
    // Whatever would be told twice is told by now.
    std::thread::sleep(Duration::from_millis(500));
    both.same();
}

pub(crate) fn editor(home: &Home) {
    let both = Both::start(home, "editor", &["conf"], |dir| write(&dir.join("conf"), "one"));
    for text in ["two", "three"] {
        // As vim does, and as most others do.
        both.each(|dir| {
            rename(&dir.join("conf"), &dir.join("conf~"));
            write(&dir.join("conf"), text);
            remove(&dir.join("conf~"));
        });
        both.each(|dir| {
            write(&dir.join(".conf.tmp"), text);
            rename(&dir.join(".conf.tmp"), &dir.join("conf"));
        });
    }
    has(&both.same(), &["0 MOVED_TO 2 conf", "1 MOVE_SELF - ", "1 DELETE_SELF - ", "0 MODIFY - .conf.tmp"]);
}

fn burst(home: &Home) {
    const FILES: usize = 5_000;
    let both = Both::start(home, "burst", &[], |_| {});
    let began = Instant::now();
    for number in 0..FILES {
        write(&both.shared.join(format!("{number:05}")), "");
    }
    let made = began.elapsed();
    fs::create_dir(both.shared.join(END)).expect("made");
    let told = both.container.told();
    eprintln!("{} events made in {made:?}, told by {:?}", told.len(), began.elapsed());
    let expected = (0..FILES).flat_map(|n| [format!("0 CREATE - {n:05}"), format!("0 CLOSE_WRITE - {n:05}")]);
    assert!(told.into_iter().eq(expected), "each once, in order");
    let bind = format!("{}:/x", both.shared.display());
    let counted = home.docker(["run", "--rm", "-v", &bind, "box", "sh", "-c", "ls /x | wc -l"]).run().ok();
    assert_eq!(counted.text(), (FILES + 1).to_string());
}

/// Who sends them is connected anew by each daemon: what happened between two is lost.
fn lost(home: &Home) {
    let both = Both::start(home, "lost", &["sub", "file"], |dir| {
        fs::create_dir(dir.join("sub")).expect("made");
        write(&dir.join("file"), "");
    });
    let daemon = home.daemon_pid().expect("a daemon");
    kill(daemon, "KILL");
    home.wait_for("the daemon is gone", Duration::from_secs(5), |_| gone(daemon));
    home.wait_for("a new daemon has the machine", Duration::from_secs(10), |home| {
        home.slipway(["status"]).run().code == 0
    });
    let mut told = Vec::new();
    while told.len() < 3 {
        let line = both.container.line(Duration::from_secs(30)).expect("it is told within 30 s");
        told.push(line);
    }
    told.sort();
    assert_eq!(told, ["0 ATTRIB|ISDIR - ", "1 ATTRIB|ISDIR - ", "2 ATTRIB - "]);
}
