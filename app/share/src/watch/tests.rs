use std::{
    fs::Permissions,
    io::Read,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
};

use slipway_protocol::Message;

use super::*;
use crate::{
    echo::{self, Deed, Echo, Teller},
    events,
};

struct Running {
    dir: tempfile::TempDir,
    handle: Handle,
    teller: Teller,
    marks: Marks,
    guest: UnixStream,
}

impl Running {
    fn start(exclude: &[&str]) -> Self {
        let running = Self::idle();
        let exclude = exclude.iter().map(|e| (*e).to_owned()).collect();
        let standing = running.handle.watch(Wanted { paths: vec![running.root()], exclude });
        assert_eq!(standing.unwatched, None);
        running
    }

    /// Nothing is watched yet.
    fn idle() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let (teller, echo) = echo::channel().expect("channel");
        let sender = events::start().expect("starts");
        let (ours, theirs) = UnixStream::pair().expect("pair");
        sender.connect(theirs.into());
        ours.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let marks = Marks::new().expect("memory");
        let handle = start(echo, marks.clone(), sender).expect("starts");
        Self { dir, handle, teller, marks, guest: ours }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// What the guest is told until a file of that name is made, or something was lost, one word each.
    fn told(&mut self, until: &str) -> Vec<String> {
        std::fs::write(self.path(until), "").expect("writes");
        let mut told = Vec::new();
        loop {
            let mut length = [0; 4];
            self.guest.read_exact(&mut length).expect("a frame in time");
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            self.guest.read_exact(&mut frame).expect("a frame");
            for event in v1::FileEvents::decode(frame.as_slice()).expect("events").events {
                let folder = PathBuf::from(OsStr::from_bytes(&event.folder));
                let folder = folder.strip_prefix(self.root()).map(Path::to_owned).unwrap_or(folder);
                let name = folder.join(OsStr::from_bytes(&event.name));
                if event.mask & OVERFLOW != 0 {
                    told.push("overflow".into());
                    return told;
                }
                if name == Path::new(until) {
                    if event.mask & CLOSE_WRITE != 0 {
                        return told;
                    }
                    continue;
                }
                told.push(crate::mask::said(event.mask, name.display()));
            }
        }
    }
}

#[test]
fn a_file_s_life_is_told_as_it_was_lived() {
    let mut watch = prepared(&[]);
    std::fs::write(watch.path("a"), "x").expect("writes");
    std::fs::rename(watch.path("a"), watch.path("b")).expect("renames");
    std::fs::remove_file(watch.path("b")).expect("removes");
    assert_eq!(watch.told("end"), ["create a", "modify a", "close a", "from a", "to b", "delete b"]);
}

/// With the folder there before it is watched.
fn prepared(exclude: &[&str]) -> Running {
    let watch = Running::start(exclude);
    std::fs::create_dir_all(watch.root()).expect("makes");
    let wanted = Wanted { paths: Vec::new(), exclude: Vec::new() };
    watch.handle.watch(wanted);
    let exclude = exclude.iter().map(|e| (*e).to_owned()).collect();
    watch.handle.watch(Wanted { paths: vec![watch.root()], exclude });
    watch
}

#[test]
fn folders_that_come_are_watched_and_what_is_in_them_is_told_once() {
    let mut watch = prepared(&[]);
    std::fs::create_dir_all(watch.path("one/two/three")).expect("makes");
    std::fs::write(watch.path("one/two/three/file"), "").expect("writes");
    let told = watch.told("end");
    for once in ["create one/", "create one/two/", "create one/two/three/", "create one/two/three/file"] {
        assert_eq!(told.iter().filter(|t| *t == once).count(), 1, "{once}: {told:?}");
    }
    // And after a move the folder's new name counts.
    std::fs::rename(watch.path("one"), watch.path("uno")).expect("renames");
    let _ = watch.told("moved");
    std::fs::write(watch.path("uno/two/file"), "").expect("writes");
    let told = watch.told("again");
    assert!(told.contains(&"create uno/two/file".to_owned()), "{told:?}");
}

#[test]
fn what_is_excluded_is_not_watched() {
    let mut watch = prepared(&[".git/objects"]);
    std::fs::create_dir_all(watch.path(".git/objects")).expect("makes");
    let _ = watch.told("made");
    std::fs::write(watch.path(".git/objects/x"), "").expect("writes");
    std::fs::write(watch.path(".git/HEAD"), "").expect("writes");
    let told = watch.told("end");
    assert!(
        told.contains(&"create .git/HEAD".to_owned()) && !told.iter().any(|t| t.contains("objects/x")),
        "{told:?}"
    );
}

#[test]
fn the_guest_does_not_hear_of_its_own_deeds_and_hears_of_everybody_elses() {
    let mut watch = prepared(&[]);
    let ino = std::fs::metadata(watch.root()).expect("there").ino();
    let mark = watch.marks.begin(0);
    std::fs::write(watch.path("guest"), "x").expect("writes");
    watch.teller.tell(&Echo::Name(Deed::Create, ino, b"guest".to_vec()));
    let found = std::fs::metadata(watch.path("guest")).expect("there");
    let mtime = found.mtime() as u64 * 1_000_000_000 + found.mtime_nsec() as u64;
    watch.teller.tell(&Echo::Content { ino: found.ino(), mtime, size: 1 });
    drop(mark);
    std::fs::write(watch.path("host"), "x").expect("writes");
    assert_eq!(watch.told("end"), ["create host", "modify host", "close host"]);
    // The host's own change of the same file is no echo.
    std::fs::write(watch.path("guest"), "longer").expect("writes");
    let told = watch.told("end2");
    assert!(told.contains(&"close guest".to_owned()), "{told:?}");
    assert!(watch.handle.standing().echoes >= 2);
}

/// On a busy host the worker may be kept from going on between a deed and its word.
#[test]
fn what_the_guest_is_slow_to_tell_is_its_own_nevertheless() {
    let mut watch = prepared(&[]);
    let ino = std::fs::metadata(watch.root()).expect("there").ino();
    let slow = || std::thread::sleep(Duration::from_millis(50));
    {
        let _mark = watch.marks.begin(0);
        std::fs::create_dir(watch.path("folder")).expect("makes");
        slow();
        watch.teller.tell(&Echo::Name(Deed::Create, ino, b"folder".to_vec()));
    }
    std::fs::write(watch.path("file"), "").expect("writes");
    assert_eq!(watch.told("end"), ["create file", "close file"]);
    {
        let _mark = watch.marks.begin(0);
        std::fs::write(watch.path("file"), "x").expect("writes");
        slow();
        let found = std::fs::metadata(watch.path("file")).expect("there");
        let mtime = found.mtime() as u64 * 1_000_000_000 + found.mtime_nsec() as u64;
        watch.teller.tell(&Echo::Content { ino: found.ino(), mtime, size: 1 });
    }
    assert_eq!(watch.told("end2"), [""; 0]);
}

#[test]
fn what_the_guest_changed_stays_its_own_under_the_next_name() {
    let mut watch = prepared(&[]);
    std::fs::write(watch.path("f"), "x").expect("writes");
    watch.told("before");
    let folder = std::fs::metadata(watch.root()).expect("there").ino();
    let mark = watch.marks.begin(0);
    for (from, to) in [("f", "g"), ("g", "h")] {
        std::fs::set_permissions(watch.path(from), Permissions::from_mode(0o600)).expect("set");
        std::fs::rename(watch.path(from), watch.path(to)).expect("renames");
        watch.teller.tell(&Echo::Name(Deed::MovedFrom, folder, from.into()));
        watch.teller.tell(&Echo::Name(Deed::MovedTo, folder, to.into()));
    }
    let ino = std::fs::metadata(watch.path("h")).expect("there").ino();
    watch.teller.tell(&Echo::Attributes(ino));
    drop(mark);
    assert_eq!(watch.told("end"), [""; 0]);
    // Not what the host changed and moved.
    std::thread::sleep(Duration::from_millis(250));
    std::fs::set_permissions(watch.path("h"), Permissions::from_mode(0o644)).expect("set");
    std::fs::rename(watch.path("h"), watch.path("i")).expect("renames");
    assert_eq!(watch.told("end2"), ["attrib h", "from h", "to i"]);
}

#[test]
fn a_burst_of_ten_thousand_is_told_whole() {
    let mut watch = prepared(&[]);
    for n in 0..10_000 {
        std::fs::File::create(watch.path(&format!("f{n}"))).expect("creates");
    }
    let told = watch.told("end");
    if told.iter().any(|t| t == "overflow") {
        return;
    }
    assert_eq!(told.iter().filter(|t| t.starts_with("create f")).count(), 10_000);
}

#[test]
fn of_a_single_file_only_its_own_events_are_told() {
    let watch = Running::start(&[]);
    std::fs::create_dir_all(watch.root()).expect("makes");
    std::fs::write(watch.path("mine"), "").expect("writes");
    std::fs::write(watch.path("end"), "").expect("writes");
    let paths = vec![watch.path("mine"), watch.path("end")];
    assert_eq!(watch.handle.watch(Wanted { paths, exclude: Vec::new() }).watches, 1);
    let mut watch = watch;
    std::fs::write(watch.path("other"), "x").expect("writes");
    std::fs::write(watch.path("mine"), "x").expect("writes");
    let told = watch.told("end");
    assert!(told.iter().all(|t| t.ends_with(" mine")) && !told.is_empty(), "{told:?}");
}

#[test]
fn a_link_that_takes_a_folder_s_place_is_not_watched_behind() {
    let mut watch = prepared(&[]);
    let outside = watch.dir.path().join("outside");
    std::fs::create_dir_all(outside.join("sub")).expect("makes");
    std::fs::create_dir_all(watch.path("in/sub")).expect("makes");
    watch.told("made");
    // Between the decision to watch `in/sub` and the watch, the guest puts a link there.
    std::fs::rename(watch.path("in"), watch.path("was")).expect("renames");
    std::os::unix::fs::symlink(&outside, watch.path("in")).expect("links");
    let paths = vec![watch.root(), watch.path("in/sub")];
    watch.handle.watch(Wanted { paths: vec![watch.path("in/sub")], exclude: Vec::new() });
    assert_eq!(watch.handle.standing().watches, 0, "nothing is there but a link that leads outside");
    watch.handle.watch(Wanted { paths, exclude: Vec::new() });
    std::fs::write(outside.join("sub/secret"), "").expect("writes");
    let told = watch.told("end");
    assert!(!told.iter().any(|line| line.contains("secret")), "{told:?}");
}

/// Runs a test of this module again in a user namespace of its own, whose limit is nobody else's. True there, where it is to
/// do its work.
fn limited(test: &str, limit: &str, to: u32) -> bool {
    const LIMITED: &str = "SLIPWAY_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_some() {
        return true;
    }
    let script = format!("echo {to} > {limit} && exec \"$0\" --exact --nocapture \"$1\"");
    let mut again = std::process::Command::new("unshare");
    again.args(["--user", "--map-root-user", "sh", "-c", &script]);
    again.arg(std::env::current_exe().expect("this program")).arg(format!("watch::tests::{test}"));
    let ended = again.env(LIMITED, "1").output().expect("unshare is installed");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[test]
fn at_the_limit_it_says_what_to_do_and_when_that_is_done_it_watches_all() {
    const LIMIT: &str = "/proc/sys/user/max_inotify_watches";
    if !limited("at_the_limit_it_says_what_to_do_and_when_that_is_done_it_watches_all", LIMIT, 5) {
        return;
    }
    let mut watch = prepared(&[]);
    for number in 0..10 {
        std::fs::create_dir(watch.path(&number.to_string())).expect("makes");
    }
    watch.told("made");
    let standing = watch.handle.standing();
    assert_eq!(standing.watches, 5);
    let why = standing.unwatched.expect("it says so");
    assert!(why.contains("sudo sysctl fs.inotify.max_user_watches="), "{why}");
    std::fs::write(LIMIT, "100").expect("raised");
    let wanted = Wanted { paths: vec![watch.root()], exclude: Vec::new() };
    let standing = watch.handle.watch(wanted);
    assert_eq!((standing.watches, standing.unwatched), (11, None));
    std::fs::write(watch.path("9/file"), "").expect("writes");
    assert!(watch.told("end").contains(&"create 9/file".to_owned()));
}

#[test]
fn where_nobody_may_watch_it_says_what_to_do_and_when_that_is_done_it_watches() {
    const LIMIT: &str = "/proc/sys/user/max_inotify_instances";
    if !limited("where_nobody_may_watch_it_says_what_to_do_and_when_that_is_done_it_watches", LIMIT, 0) {
        return;
    }
    let mut watch = Running::idle();
    std::fs::create_dir(watch.root()).expect("made");
    let wanted = Wanted { paths: vec![watch.root()], exclude: Vec::new() };
    let standing = watch.handle.watch(wanted.clone());
    assert_eq!(standing.watches, 0);
    let why = standing.unwatched.expect("it says so");
    assert!(why.contains("sudo sysctl fs.inotify.max_user_instances="), "{why}");
    assert!(watch.handle.limit_may_be_gone(), "it is tried again");
    std::fs::write(LIMIT, "1").expect("raised");
    assert_eq!(watch.handle.watch(wanted).unwatched, None);
    std::fs::write(watch.path("file"), "").expect("writes");
    assert!(watch.told("end").contains(&"create file".to_owned()));
}
