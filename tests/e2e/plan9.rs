//! Folders as Hyper-V shares them, in the real guest: its kernel's 9p, which the image brings and no machine of QEMU's loads, and the
//! agent's own code for it, in a program of the tests. The server is diod, on this host, reached by TCP where Windows has a stream of
//! its hypervisor; so what Windows' own server does otherwise is not seen here.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_test_harness::{Command, Home, Ran, Running};

use crate::{
    Shared,
    events::{Both, has, program, remove, rename, write},
    ours, ports, posix,
    shares::with,
};

pub(crate) const TESTS: &[Shared] = &[
    ("plan9_folders_come_stay_and_go_by_the_agents_own_code", folders),
    ("plan9_what_programs_do_ends_as_it_does_on_the_host", programs),
    ("plan9_events_are_the_kernels_own", events),
];

/// What goes otherwise than on the host's own disk, by the names in the program's lines. The protocol has neither an exchange of two
/// names, nor holes, nor space that is set aside, and one kind of locks where Linux has two; a file that is open and deleted, and what
/// is behind a second of a time, are diod's to keep.
const DIFFERENT: &[&str] = &[
    "rename over",
    "unlink while open",
    "fallocate",
    "sparse file",
    "inode reuse",
    "times and modes",
    "locks of one process",
];

/// The server, until it is dropped.
struct Diod {
    _running: Running,
    port: u16,
}

impl Diod {
    /// Serves what is below `dir`, on a port of its own or on one that was served before.
    fn start(dir: &Path, port: Option<u16>) -> Self {
        let port = port.unwrap_or_else(ports::free);
        let listen = format!("127.0.0.1:{port}");
        let diod = Command::new("/usr/sbin/diod").args(["--foreground", "--no-auth", "--listen", &listen]);
        let log = format!("{}", dir.with_extension("log").display());
        let running = diod
            .args(["--config-file", "/dev/null", "--logdest", &log])
            .arg("--export")
            .arg(dir)
            .spawn_silent();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "diod does not listen: see {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { _running: running, port }
    }
}

/// The agent's code in the guest, which shares what it is told.
struct Agent(Running);

impl Agent {
    fn start(home: &Home, diod: &Diod, within: &Path) -> Self {
        let own = home.path().join("plan9-agent");
        if !own.exists() {
            fs::copy(ours::program("slipway-test-plan9"), &own).expect("copied");
        }
        let address = format!("10.0.2.2:{}", diod.port);
        let shell = home.slipway(["shell", "--"]).arg(own).arg(address);
        Self(shell.arg(format!("{}/", within.display())).arg("/run/plan9").spawn())
    }

    /// Shares exactly this, `ID PATH [ro|file];…`, and returns what it says to that.
    fn share(&mut self, what: &str) -> String {
        let stdin = self.0.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{what}").expect("written");
        let mut line = String::new();
        // Byte by byte: what comes after the line is not to be lost in a buffer.
        BufReader::with_capacity(1, self.0.stdout.as_mut().expect("a pipe"))
            .read_line(&mut line)
            .expect("read");
        assert!(line.ends_with('\n'), "it ended: {}", self.ended());
        line.trim_end().to_owned()
    }

    fn ended(&mut self) -> String {
        let mut said = String::new();
        let _ = self.0.stderr.take().expect("a pipe").read_to_string(&mut said);
        said
    }
}

/// What the guest's root does.
fn inside(home: &Home, script: &str) -> Ran {
    home.slipway(["shell", "--", "sh", "-c", script]).run()
}

/// A folder with the test's folders below it, and the kernel's modules loaded.
fn prepare(home: &Home, name: &str, below: &[&str]) -> PathBuf {
    let dir = home.path().join(name);
    // The kernel attaches first as nobody, whom the server lets in like anybody.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("set");
    below.iter().for_each(|name| fs::create_dir_all(dir.join(name)).expect("made"));
    let script = "cd /usr/lib/modules/$(uname -r)/kernel; for m in fs/netfs/netfs net/9p/9pnet net/9p/9pnet_fd fs/9p/9p; do \
        n=${m##*/}; grep -q \"^$n \" /proc/modules || insmod $m.ko || exit 1; done; grep -w 9p /proc/filesystems";
    assert_eq!(inside(home, script).ok().text(), "nodev\t9p");
    dir
}

fn folders(home: &Home) {
    let dir = prepare(home, "plan9-folders", &["work", "look", "work/below"]);
    let (work, look) = (dir.join("work"), dir.join("look"));
    fs::write(look.join("file"), "host\n").expect("written");
    let diod = Diod::start(&dir, None);
    let mut agent = Agent::start(home, &diod, &dir);
    let both = format!("work {};look {} ro", work.display(), look.display());
    // Those that cannot be say why, and the others are there.
    let bad = format!("{both};gone {0}/g;one {0}/o file", dir.display());
    let said = agent.share(&bad);
    assert!(said.contains("gone: failed to mount") && said.contains("No such file or directory"), "{said}");
    assert!(said.contains("one: failed to mount") && said.contains("only folders can be shared"), "{said}");
    assert!(!said.contains("work:") && !said.contains("look:"), "{said}");
    assert_eq!(agent.share(&both), "ok");

    let ran = with(home, &look, "/x", "grep -c ' /x 9p ro' /proc/mounts; cat /x/file; echo no > /x/file");
    assert!(ran.code != 0 && ran.text() == "1\nhost" && ran.err.contains("Read-only"), "{ran}");
    let script = "set -e; grep -c ' /x 9p rw' /proc/mounts; cd /x; echo guest > new; mkdir -p deep/er; mv new deep/er/moved; \
        ln -s deep/er/moved link; cat link; ln deep/er/moved hard; echo x > gone; rm gone; truncate -s 1M sparse; chown 5:6 hard";
    assert_eq!(with(home, &work, "/x", script).ok().text(), "1\nguest");
    assert_eq!(fs::read_to_string(work.join("deep/er/moved")).expect("there"), "guest\n");
    assert_eq!(fs::read_link(work.join("link")).expect("a link"), Path::new("deep/er/moved"));
    let hard = fs::metadata(work.join("hard")).expect("there");
    assert_eq!((hard.nlink(), hard.uid(), hard.gid()), (2, 5, 6));
    assert_eq!(fs::metadata(work.join("sparse")).expect("there").len(), 1 << 20);
    assert!(!work.join("gone").exists());
    assert_eq!(with(home, &work, "/x", "chmod 777 /x").ok().text(), "");
    let bind = format!("{}:/x", work.display());
    let script = "touch /x/own; stat -c %u:%g /x/own";
    let run = ["run", "--rm", "--user", "1:1", "-v", &bind, "box", "sh", "-c", script];
    assert_eq!(home.docker(run).run().ok().text(), "1:1", "who makes a file has it");

    // What the host changes is there at once: by a new look, and to who has the file open; and what is appended comes after it.
    let script = "cd /x; exec 3<log; exec 4>>log; read a <&3; echo $a; touch ready; until read b <&3; do sleep 0.1; done; echo $b; echo three >&4; cat log; ls below";
    fs::write(work.join("log"), "one\n").expect("written");
    let follows = home.docker(["run", "--rm", "-v", &bind, "box", "sh", "-c", script]).spawn();
    home.wait_for("it has read the first line", Duration::from_secs(60), |_| work.join("ready").exists());
    fs::write(work.join("below/more"), "").expect("written");
    let mut log = fs::OpenOptions::new().append(true).open(work.join("log")).expect("opened");
    log.write_all(b"two\n").expect("written");
    assert_eq!(follows.end().ok().text(), "one\ntwo\none\ntwo\nthree\nmore");

    // The server ends: it is an error to who asks, and the next word of the host brings all back.
    let port = diod.port;
    drop(diod);
    let lost = inside(home, &format!("ls {}", work.display()));
    assert!(lost.code != 0, "{lost}");
    let said = agent.share(&both);
    assert!(said.contains("work: failed to mount") && said.contains("cannot be reached"), "{said}");
    let _diod = Diod::start(&dir, Some(port));
    assert_eq!(agent.share(&both), "ok");
    assert_eq!(with(home, &work, "/x", "cat /x/hard").ok().text(), "guest");

    // No longer shared, and shared again.
    assert_eq!(agent.share(&format!("look {}", look.display())), "ok");
    assert_eq!(
        with(home, &look, "/x", "echo yes > /x/file; grep -c ' /x 9p rw' /proc/mounts").ok().text(),
        "1"
    );
    assert_eq!(fs::read_to_string(look.join("file")).expect("there"), "yes\n");
    assert_eq!(agent.share(""), "ok");
    let left = inside(home, "grep -c ' 9p ' /proc/mounts; ls -A /run/plan9/*");
    assert!(left.text().starts_with('0'), "{left}");
}

fn programs(home: &Home) {
    let dir = prepare(home, "plan9-programs", &["share", "native"]);
    let diod = Diod::start(&dir, None);
    let mut agent = Agent::start(home, &diod, &dir);
    let share = dir.join("share");
    assert_eq!(agent.share(&format!("share {}", share.display())), "ok");
    let wanted = Command::new(program(home)).arg("posix").arg(dir.join("native")).run().ok().text();
    let found = posix::posix(home, &share, &["/x"]).run().ok().text();
    let name = |line: &str| line.split_once(':').map_or(line, |(name, _)| name).to_owned();
    let differ = wanted.lines().zip(found.lines()).filter(|(wanted, found)| wanted != found);
    let (known, differ): (Vec<_>, Vec<_>) =
        differ.partition(|(wanted, _)| DIFFERENT.contains(&name(wanted).as_str()));
    assert!(
        differ.is_empty() && wanted.lines().count() == found.lines().count(),
        "host, share: {differ:#?}\n{found}"
    );
    assert_eq!(known.len(), DIFFERENT.len(), "what is different is known: {known:#?}");
    posix::memory_in(home, &share);
    assert_eq!(agent.share(""), "ok");
}

/// The real agent has events of what it shares itself, so the mount is put into that once more: below a folder that it has open.
fn events(home: &Home) {
    const NAME: &str = "plan9";
    let dir = prepare(home, "events", &[NAME]);
    let diod = Diod::start(&dir, None);
    let mut agent = Agent::start(home, &diod, &dir);
    let share = dir.join(NAME);
    assert_eq!(agent.share(&format!("{NAME} {}", share.display())), "ok");
    let place = |root: &str| format!("{root}/events/{NAME}");
    let script = format!(
        "for d in /run/slipway/share/*; do if [ -d {} ]; then mount --bind {} {} && echo mounted; fi; done",
        place("$d"),
        share.display(),
        place("$d")
    );
    assert_eq!(inside(home, &script).ok().text(), "mounted");

    // Folders and a file that the container has opened once and nobody holds: each look of the kernel is at another inode.
    let both = Both::start(home, NAME, &["sub", "old"], |dir| {
        fs::create_dir(dir.join("sub")).expect("made");
        write(&dir.join("old"), "before");
    });
    both.each(|dir| write(&dir.join("new"), "one"));
    both.each(|dir| write(&dir.join("old"), "another"));
    both.each(|dir| write(&dir.join("sub/deep"), "x"));
    both.each(|dir| rename(&dir.join("new"), &dir.join("sub/moved")));
    both.each(|dir| fs::set_permissions(dir.join("old"), fs::Permissions::from_mode(0o600)).expect("set"));
    both.each(|dir| fs::create_dir(dir.join("sub/folder")).expect("made"));
    both.each(|dir| remove(&dir.join("sub/moved")));
    has(
        &both.same(),
        &[
            "0 CREATE - new",
            "0 MODIFY - old",
            "2 MODIFY - ",
            "1 CLOSE_WRITE - deep",
            "0 MOVED_FROM 1 new",
            "1 MOVED_TO 1 moved",
            "2 ATTRIB - ",
            "1 CREATE|ISDIR - folder",
            "1 DELETE - moved",
        ],
    );
    let script = format!("for d in /run/slipway/share/*; do umount {} 2>&-; done", place("$d"));
    inside(home, &script);
    assert_eq!(agent.share(""), "ok");
}
