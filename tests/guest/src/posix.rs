//! `posix FOLDER`: does in an empty folder what programs do to files, and says for each how it went, a line each. A test runs
//! it on the host and in a container on a share, and compares.
//!
//! Between containers: `posix hold|try FILE` and `posix map FILE even|odd`, see [`between`].

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use rustix::{
    fs::{self as sys, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags},
    io::Errno,
};

mod between;

pub(crate) use between::run as between;

type Case = fn(&Path) -> io::Result<String>;

const CASES: &[(&str, Case)] = &[
    ("rename over", rename_over),
    ("rename of folders", rename_folders),
    ("unlink while open", unlink_while_open),
    ("anonymous file", anonymous),
    ("fallocate", fallocate),
    ("sparse file", sparse),
    ("hard links", hard_links),
    ("attributes", attributes),
    ("inode reuse", inode_reuse),
    ("append", append),
    ("fsync", fsync),
    ("times and modes", times_and_modes),
    ("masks", masks),
    ("names", names),
    ("links", links),
    ("pipe and socket", pipe_and_socket),
    ("a folder emptied while it is read", emptied),
    ("copy in the kernel", copied),
    ("locks of one process", locks),
    ("mapped file", mapped),
];

/// Runs every case in a folder of its own.
pub(crate) fn run(folder: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, case) in CASES {
        let dir = folder.join(name);
        fs::create_dir(&dir)?;
        let said = case(&dir).unwrap_or_else(|error| format!("failed: {error}"));
        writeln!(out, "{name}: {said}")?;
    }
    out.flush()
}

fn said<T>(done: Result<T, Errno>) -> String {
    match done {
        Ok(_) => "ok".into(),
        Err(errno) => format!("errno {}", errno.raw_os_error()),
    }
}

fn text(mut file: &File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn rename_over(dir: &Path) -> io::Result<String> {
    let (one, other) = (dir.join("one"), dir.join("other"));
    fs::write(&one, "new")?;
    fs::write(&other, "old")?;
    let held = open(&other)?;
    fs::rename(&one, &other)?;
    let links = held.metadata()?.nlink();
    let (was, is) = (text(&held)?, fs::read_to_string(&other)?);
    fs::write(&one, "third")?;
    let refused = said(sys::renameat_with(CWD, &one, CWD, &other, RenameFlags::NOREPLACE));
    let swapped = said(sys::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE));
    let now = fs::read_to_string(&one)? + &fs::read_to_string(&other)?;
    Ok(format!("{was} {links}, {is}; no replace {refused}; exchange {swapped} {now}"))
}

fn rename_folders(dir: &Path) -> io::Result<String> {
    for name in ["a/b", "empty", "full/x"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let rename = |from: &str, to: &str| said(sys::rename(dir.join(from), dir.join(to)));
    fs::write(dir.join("file"), "")?;
    let tries = [rename("a", "a/b/c"), rename("a", "full"), rename("a", "file"), rename("file", "a")];
    let over = rename("a", "empty");
    let moved = rename("empty/b", "b");
    let parent = fs::read_dir(dir.join("empty"))?.count();
    Ok(format!(
        "{tries:?}; over an empty one {over}, then {moved}, {parent} left; {}",
        dir.join("b").is_dir()
    ))
}

fn unlink_while_open(dir: &Path) -> io::Result<String> {
    let path = dir.join("file");
    let mut file = open(&path)?;
    file.write_all(b"before ")?;
    fs::remove_file(&path)?;
    file.write_all(b"after")?;
    let links = file.metadata()?.nlink();
    let again = text(&file)?;
    file.set_len(3)?;
    file.sync_all()?;
    let mode = file.set_permissions(Permissions::from_mode(0o600)).is_ok();
    // A folder that is gone and still open.
    let gone = dir.join("folder");
    fs::create_dir(&gone)?;
    let held = File::open(&gone)?;
    fs::remove_dir(&gone)?;
    let made = sys::openat(&held, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    Ok(format!(
        "{again}, {links} names, then {} bytes, {mode}; in a gone folder {}",
        text(&file)?.len(),
        said(made)
    ))
}

/// As the C library's `tmpfile` and most programs do it: with a name for a moment where it must be.
fn anonymous(dir: &Path) -> io::Result<String> {
    let made = sys::open(dir, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR);
    let mut file = match made {
        Ok(file) => File::from(file),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let path = dir.join("with a name");
            let file = open(&path)?;
            fs::remove_file(path)?;
            file
        }
        Err(error) => return Err(error.into()),
    };
    file.write_all(b"nobody's")?;
    let left = fs::read_dir(dir)?.count();
    Ok(format!("{} {left}", text(&file)?))
}

fn fallocate(dir: &Path) -> io::Result<String> {
    let file = open(&dir.join("file"))?;
    sys::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
    let size = file.metadata()?.len();
    sys::fallocate(&file, FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 20)?;
    let kept = file.metadata()?;
    let full = kept.blocks() >= 2 << 20 >> 9;
    file.write_all_at(&vec![7; 1 << 20], 0)?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    sys::fallocate(&file, hole, 64 << 10, 256 << 10)?;
    let mut bytes = vec![1; 256 << 10];
    file.read_exact_at(&mut bytes, 64 << 10)?;
    let zeros = bytes.iter().all(|b| *b == 0);
    file.sync_all()?;
    let less = file.metadata()?.blocks() < kept.blocks();
    Ok(format!("{size}, kept {} {full}; hole {zeros} {less}", kept.len()))
}

fn sparse(dir: &Path) -> io::Result<String> {
    let file = open(&dir.join("file"))?;
    file.set_len(1 << 30)?;
    file.write_all_at(b"island", 512 << 20)?;
    file.sync_all()?;
    let found = file.metadata()?;
    let data = sys::seek(&file, sys::SeekFrom::Data(0))?;
    let hole = sys::seek(&file, sys::SeekFrom::Hole(data))?;
    let after = said(sys::seek(&file, sys::SeekFrom::Data(hole)));
    let mut bytes = [1; 8];
    file.read_exact_at(&mut bytes, (512 << 20) - 4)?;
    let small = found.blocks() < 4096;
    Ok(format!("{} bytes, {small}, from {data} to {hole}, then {after}; {bytes:?}", found.len()))
}

fn hard_links(dir: &Path) -> io::Result<String> {
    let (one, other) = (dir.join("one"), dir.join("other"));
    fs::write(&one, "same")?;
    fs::hard_link(&one, &other)?;
    let same = fs::metadata(&one)?.ino() == fs::metadata(&other)?.ino();
    let links = fs::metadata(&one)?.nlink();
    OpenOptions::new().append(true).open(&other)?.write_all(b" file")?;
    let read = fs::read_to_string(&one)?;
    fs::remove_file(&one)?;
    let left = fs::metadata(&other)?.nlink();
    fs::create_dir(dir.join("folder"))?;
    let folder = said(sys::link(dir.join("folder"), dir.join("second")));
    let there = said(sys::link(&other, &other));
    Ok(format!("{same} {links} {read}, then {left}; of a folder {folder}, over itself {there}"))
}

fn attributes(dir: &Path) -> io::Result<String> {
    let path = dir.join("file");
    fs::write(&path, "")?;
    let set = |value: &[u8], flags| said(sys::setxattr(&path, "user.test", value, flags));
    let first = set(b"one", XattrFlags::CREATE);
    let twice = set(b"two", XattrFlags::CREATE);
    let replaced = set(&[b'x'; 1500], XattrFlags::REPLACE);
    let mut value = [0u8; 2000];
    let length = sys::getxattr(&path, "user.test", &mut value[..])?;
    let short = said(sys::getxattr(&path, "user.test", &mut value[..10]));
    let mut list = [0u8; 200];
    let listed = sys::listxattr(&path, &mut list[..])?;
    let listed = String::from_utf8_lossy(&list[..listed]).replace('\0', " ");
    let removed = said(sys::removexattr(&path, "user.test"));
    let gone = said(sys::getxattr(&path, "user.test", &mut value[..]));
    Ok(format!("{first} {twice} {replaced} {length} {short}; {listed}; {removed} {gone}"))
}

/// The host gives a new file the number of one that is gone; whoever has that one open must go on with it.
fn inode_reuse(dir: &Path) -> io::Result<String> {
    let (mut held, mut wrong) = (Vec::new(), 0);
    for round in 0..300 {
        let path = dir.join(format!("file {}", round % 3));
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        write!(file, "{round}")?;
        fs::remove_file(&path)?;
        if round % 2 == 0 {
            held.push((round, file));
        }
    }
    for (round, file) in &held {
        wrong += u32::from(text(file)? != round.to_string());
    }
    let numbers: HashSet<u64> =
        held.iter().filter_map(|(_, file)| Some(file.metadata().ok()?.ino())).collect();
    Ok(format!("{} held, {} numbers, {wrong} wrong", held.len(), numbers.len()))
}

fn append(dir: &Path) -> io::Result<String> {
    let path = dir.join("log");
    let open = || OpenOptions::new().append(true).create(true).open(&path);
    let (mut one, mut other) = (open()?, open()?);
    for line in 0..50 {
        writeln!(one, "a{line}")?;
        writeln!(other, "b{line}")?;
    }
    let lines = fs::read_to_string(&path)?;
    Ok(format!("{} lines, {:?}", lines.lines().count(), lines.lines().last()))
}

fn fsync(dir: &Path) -> io::Result<String> {
    let mut file = open(&dir.join("file"))?;
    file.write_all(b"safe")?;
    file.sync_all()?;
    file.sync_data()?;
    File::open(dir)?.sync_all()?;
    Ok(format!("ok, all of it {}", said(sys::syncfs(&file))))
}

fn times_and_modes(dir: &Path) -> io::Result<String> {
    let path = dir.join("file");
    fs::write(&path, "#!/bin/true")?;
    let times = sys::Timestamps {
        last_access: sys::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
        last_modification: sys::Timespec { tv_sec: 2_000_000_000, tv_nsec: 987_654_321 },
    };
    sys::utimensat(CWD, &path, &times, AtFlags::empty())?;
    let found = fs::metadata(&path)?;
    let mut modes = Vec::new();
    for mode in [0o4755, 0o2711, 0o1777, 0o444] {
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        modes.push(format!("{:o}", fs::metadata(&path)?.mode() & 0o7777));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o4755))?;
    OpenOptions::new().write(true).open(&path)?.write_all(b"changed")?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o640).open(dir.join("made"))?;
    let made = made.metadata()?.mode() & 0o777;
    Ok(format!("{}.{:09} {modes:?}, made {made:o}", found.mtime(), found.mtime_nsec()))
}

/// What is made has the mode that was asked for but for the maker's own mask; the file system has none. More than one of each:
/// not all of them are made by the same thread of a server.
fn masks(dir: &Path) -> io::Result<String> {
    let mut modes = Vec::new();
    let before = rustix::process::umask(Mode::empty());
    for (folder, mask) in [("open", 0), ("of a group", 0o007), ("closed", 0o077)] {
        let mode = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        rustix::process::umask(Mode::empty());
        let dir = dir.join(folder);
        sys::mkdir(&dir, mode)?;
        rustix::process::umask(Mode::from_raw_mode(mask));
        let mut found = HashSet::new();
        for number in 0..20 {
            let path = |what: &str| dir.join(format!("{what} {number}"));
            sys::mkdir(path("folder"), mode)?;
            sys::mkfifoat(CWD, path("pipe"), mode)?;
            let file = sys::open(path("file"), OFlags::CREATE | OFlags::WRONLY, mode)?;
            let modes = [path("folder"), path("pipe"), path("file")]
                .map(|path| fs::symlink_metadata(path).map(|found| found.mode() & 0o7777));
            drop(file);
            for mode in modes {
                found.insert(format!("{:o}", mode?));
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort();
        modes.push(format!("{folder} {}", found.join(" ")));
    }
    rustix::process::umask(before);
    Ok(modes.join(", "))
}

fn names(dir: &Path) -> io::Result<String> {
    let mut known = Vec::new();
    let longest = "n".repeat(255);
    for name in
        [&longest, "with space", "ünïcode ✓", "new\nline", "-rf", "a\\b", "\u{1}", "caf\u{65}\u{301}", "café"]
    {
        fs::write(dir.join(name), name)?;
        known.push(fs::read_to_string(dir.join(name))? == name);
    }
    let bytes = std::ffi::OsStr::from_bytes(b"not \xff UTF-8");
    fs::write(dir.join(bytes), "")?;
    let long = said(sys::open(dir.join("n".repeat(256)), OFlags::CREATE | OFlags::RDWR, Mode::RUSR));
    let listed = fs::read_dir(dir)?.flatten().any(|entry| entry.file_name() == bytes);
    Ok(format!("{known:?}, {} listed, {listed}; too long {long}", fs::read_dir(dir)?.count()))
}

fn links(dir: &Path) -> io::Result<String> {
    let target = "t/".repeat(500);
    symlink(&target, dir.join("long"))?;
    symlink("nothing", dir.join("dangling"))?;
    symlink("loop", dir.join("loop"))?;
    fs::write(dir.join("file"), "through")?;
    symlink("file", dir.join("good"))?;
    let read = fs::read_link(dir.join("long"))?.as_os_str() == target.as_str();
    let flags = OFlags::RDONLY;
    let looped = said(sys::open(dir.join("loop"), flags, Mode::empty()));
    let itself = said(sys::open(dir.join("good"), flags | OFlags::NOFOLLOW, Mode::empty()));
    let new = said(sys::open(dir.join("dangling"), OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR));
    Ok(format!("{read} {looped} {itself} {new}, {}", fs::read_to_string(dir.join("good"))?))
}

fn pipe_and_socket(dir: &Path) -> io::Result<String> {
    // A socket's path has an end.
    std::env::set_current_dir(dir)?;
    let listener = UnixListener::bind("socket")?;
    let mut client = UnixStream::connect("socket")?;
    client.write_all(b"hello")?;
    client.shutdown(std::net::Shutdown::Write)?;
    let mut heard = String::new();
    listener.accept()?.0.read_to_string(&mut heard)?;
    let kind = fs::symlink_metadata("socket")?.file_type().is_socket();
    sys::mkfifoat(CWD, "pipe", Mode::RUSR | Mode::WUSR)?;
    let mut both = OpenOptions::new().read(true).write(true).open("pipe")?;
    both.write_all(b"piped")?;
    let mut piped = [0; 5];
    both.read_exact(&mut piped)?;
    std::env::set_current_dir("/")?;
    Ok(format!("{heard} {kind}, {}", String::from_utf8_lossy(&piped)))
}

fn emptied(dir: &Path) -> io::Result<String> {
    for number in 0..500 {
        File::create(dir.join(number.to_string()))?;
    }
    let mut seen = 0;
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
        seen += 1;
    }
    Ok(format!("{seen} seen, {} left", fs::read_dir(dir)?.count()))
}

fn copied(dir: &Path) -> io::Result<String> {
    let (from, to) = (open(&dir.join("from"))?, open(&dir.join("to"))?);
    from.write_all_at(&[b'x'; 100_000], 0)?;
    let mut done = 0;
    while done < 100_000 {
        let (mut at, mut there) = (done, done);
        let count = sys::copy_file_range(&from, Some(&mut at), &to, Some(&mut there), 100_000)?;
        if count == 0 {
            break;
        }
        done += count as u64;
    }
    let same = fs::read(dir.join("from"))? == fs::read(dir.join("to"))?;
    Ok(format!("{done} {same}"))
}

fn locks(dir: &Path) -> io::Result<String> {
    let path = dir.join("file");
    let (one, other) = (open(&path)?, open(&path)?);
    sys::flock(&one, FlockOperation::LockExclusive)?;
    let busy = said(sys::flock(&other, FlockOperation::NonBlockingLockShared));
    sys::flock(&one, FlockOperation::Unlock)?;
    let free = said(sys::flock(&other, FlockOperation::NonBlockingLockShared));
    let record = said(sys::fcntl_lock(&one, FlockOperation::NonBlockingLockExclusive));
    Ok(format!("{busy} {free} {record}"))
}

fn mapped(dir: &Path) -> io::Result<String> {
    let path = dir.join("file");
    let mut file = open(&path)?;
    file.set_len(8192)?;
    let map = between::Map::new(&file)?;
    map.set(41);
    map.flush()?;
    let read = {
        let mut word = [0; 4];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut word)?;
        u32::from_ne_bytes(word)
    };
    // And the other way, without a word to the map.
    file.write_all_at(&42u32.to_ne_bytes(), 0)?;
    fs::remove_file(&path)?;
    Ok(format!("{read}, {}", map.get()))
}
