//! What a container sees, and when.
//!
//! ```text
//!   look FOLDER    on each event of a name that asks for another look: what happened, the name, what the file says now, and
//!                  whether the folder's listing disagrees
//!   poll FILE      what the file says, each time that it says something else and the folder's listing agrees; `-` when
//!                  there is none
//!   hear FOLDER…   at each change of a file's contents or attributes, at once: the folder's number, the name
//!   touch          reads `SECONDS NANOSECONDS FILE` a line each, and sets the time of the file's change
//! ```

use std::{
    fs,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::AsFd,
    path::Path,
    thread,
    time::Duration,
};

use rustix::fs::{
    AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT,
    inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    utimensat,
};

fn says(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|_| "-".into())
}

/// Does the folder's listing have the file just when it can be read?
fn listing_agrees(path: &Path, said: &str) -> bool {
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let listed = entries.is_some_and(|entries| entries.flatten().any(|entry| entry.path() == path));
    listed == (said != "-")
}

/// Looks at each event until it is killed; `ready` is its first line.
pub(crate) fn look(folder: &Path) -> io::Result<()> {
    let queue = inotify::init(CreateFlags::CLOEXEC)?;
    let kinds = [
        (ReadFlags::CLOSE_WRITE, "CLOSE_WRITE"),
        (ReadFlags::MOVED_TO, "MOVED_TO"),
        (ReadFlags::DELETE, "DELETE"),
    ];
    let mask = kinds
        .iter()
        .fold(WatchFlags::empty(), |mask, (kind, _)| mask | WatchFlags::from_bits_retain(kind.bits()));
    inotify::add_watch(&queue, folder, mask)?;
    each(&queue, |event, name| {
        let (_, kind) = kinds.iter().find(|(kind, _)| event.events().contains(*kind))?;
        let file = folder.join(name);
        let said = says(&file);
        let listed = if listing_agrees(&file, &said) { "" } else { ", which its folder's listing denies" };
        Some(format!("{kind} {name} {said}{listed}"))
    })
}

/// Says of each event, and of the name that it is about, what `told` makes of it, until it is killed; `ready` is its first line.
fn each(queue: impl AsFd, told: impl Fn(&inotify::Event<'_>, &str) -> Option<String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(queue.as_fd(), &mut buffer);
    loop {
        out.flush()?;
        let event = reader.next()?;
        let name = event.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if let Some(line) = told(&event, &name) {
            writeln!(out, "{line}")?;
        }
    }
}

/// Looks a hundred times a second until it is killed.
pub(crate) fn poll(file: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut before = String::new();
    loop {
        let now = says(file);
        if now != before && listing_agrees(file, &now) {
            writeln!(out, "{now}")?;
            out.flush()?;
            before = now;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Says what it hears until it is killed; `ready` is its first line.
pub(crate) fn hear(folders: &[&str]) -> io::Result<()> {
    let queue = inotify::init(CreateFlags::CLOEXEC)?;
    let mut watches = Vec::new();
    for folder in folders {
        let mask = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        watches.push(inotify::add_watch(&queue, *folder, mask)?);
    }
    each(&queue, |event, name| {
        let number = watches.iter().position(|watch| *watch == event.wd())?;
        Some(format!("{number} {name}"))
    })
}

/// Sets what it is told to until its input ends: the way in which other tools tell a guest of a change.
pub(crate) fn touch() -> io::Result<()> {
    for line in io::stdin().lines() {
        let line = line?;
        let mut words = line.splitn(3, ' ');
        let mut number =
            || words.next().and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidInput);
        let changed = Timespec { tv_sec: number()?, tv_nsec: number()? };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: changed,
        };
        utimensat(CWD, words.next().unwrap_or_default(), &times, AtFlags::empty())?;
    }
    Ok(())
}
