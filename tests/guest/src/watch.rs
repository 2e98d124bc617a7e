//! `watch FOLDER…`: says what inotify says, a line each, the same on the host and in a container, so that a test can compare.
//!
//! ```text
//! 0 CREATE|ISDIR - sub        number of the folder, what happened, which move, name in the folder
//! ```
//!
//! Moves are numbered from 1 as they come, because cookies differ between two kernels.

use std::{
    collections::HashMap,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// Watches until it is killed; `ready` is its first line.
pub(crate) fn run(folders: &[&str]) -> io::Result<()> {
    let queue = inotify::init(CreateFlags::CLOEXEC)?;
    let mut numbers = HashMap::new();
    for (number, folder) in folders.iter().enumerate() {
        numbers.insert(inotify::add_watch(&queue, *folder, MASK)?, number);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    let mut moves: Vec<u32> = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 64 << 10];
    let mut reader = inotify::Reader::new(queue.as_fd(), &mut buffer);
    loop {
        // Not after each: whoever reads this must not be what is slow.
        if reader.is_buffer_empty() && !soon(&queue)? {
            out.flush()?;
        }
        let event = reader.next()?;
        let number = numbers.get(&event.wd()).map_or("-".to_owned(), ToString::to_string);
        let moved = match event.cookie() {
            0 => "-".to_owned(),
            cookie => {
                let at = moves.iter().position(|known| *known == cookie).unwrap_or_else(|| {
                    moves.push(cookie);
                    moves.len() - 1
                });
                (at + 1).to_string()
            }
        };
        let name = event.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        writeln!(out, "{number} {} {moved} {name}", words(event.events()))?;
    }
}

/// Is there another event within a moment?
fn soon(queue: impl AsFd) -> io::Result<bool> {
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    Ok(poll(&mut [PollFd::new(&queue, PollFlags::IN)], Some(&moment))? > 0)
}

fn words(flags: ReadFlags) -> String {
    let known = [
        (ReadFlags::CREATE, "CREATE"),
        (ReadFlags::MODIFY, "MODIFY"),
        (ReadFlags::CLOSE_WRITE, "CLOSE_WRITE"),
        (ReadFlags::ATTRIB, "ATTRIB"),
        (ReadFlags::DELETE, "DELETE"),
        (ReadFlags::MOVED_FROM, "MOVED_FROM"),
        (ReadFlags::MOVED_TO, "MOVED_TO"),
        (ReadFlags::DELETE_SELF, "DELETE_SELF"),
        (ReadFlags::MOVE_SELF, "MOVE_SELF"),
        (ReadFlags::IGNORED, "IGNORED"),
        (ReadFlags::QUEUE_OVERFLOW, "Q_OVERFLOW"),
        (ReadFlags::ISDIR, "ISDIR"),
    ];
    let words: Vec<&str> = known.iter().filter(|(f, _)| flags.contains(*f)).map(|(_, word)| *word).collect();
    words.join("|")
}
