//! What a container sees, and when.
//!
//! ```text
//!   look FOLDER    on each event of a name that asks for another look: what happened, the name, what the file says now
//!   poll FILE      what the file says, each time that it says something else; `-` when there is none
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

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

fn says(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|_| "-".into())
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
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(queue.as_fd(), &mut buffer);
    loop {
        out.flush()?;
        let event = reader.next()?;
        let Some((_, kind)) = kinds.iter().find(|(kind, _)| event.events().contains(*kind)) else { continue };
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        writeln!(out, "{kind} {name} {}", says(&folder.join(&name)))?;
    }
}

/// Looks a hundred times a second until it is killed.
pub(crate) fn poll(file: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut before = String::new();
    loop {
        let now = says(file);
        if now != before {
            writeln!(out, "{now}")?;
            out.flush()?;
            before = now;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
