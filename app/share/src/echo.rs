//! What the guest did to the host's files, told by the worker to the watcher: those events are the guest's own, and a
//! container that made a file does not hear of it twice.
//!
//! Names (create, delete, move) match one event each. Contents match by the file's state: an event is the guest's when the
//! file is as the guest left it, so that a change of the host is never taken for an echo, however close they lie.
//!
//! They travel as records in a pipe, because a guest that writes many small files has a record for each few microseconds of
//! the worker: the watcher reads them by the hundred.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// How long a name waits for its event, and a state for its.
const KEPT: Duration = Duration::from_secs(2);
/// How long after the guest changed attributes an event of them is its own.
const ATTRIBUTES: Duration = Duration::from_millis(200);
/// Bytes that may wait for the watcher, where the kernel grants so many.
const ROOM: usize = 1 << 20;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    /// A name appeared in a folder.
    Create = 1,
    /// A name went.
    Delete = 2,
    /// A name went elsewhere.
    MovedFrom = 3,
    /// A name came from elsewhere.
    MovedTo = 4,
}

/// One thing that the guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Echo {
    /// In the folder of that inode number.
    Name(Deed, u64, Vec<u8>),
    /// The file has this time of change, in nanoseconds, and size now.
    Content {
        /// Inode number.
        ino: u64,
        /// Since the epoch.
        mtime: u64,
        /// In bytes.
        size: u64,
    },
    /// Mode, times, owner or extended attributes of that inode number.
    Attributes(u64),
    /// The guest did nothing, and is to: soon no more files can be open for it.
    Full,
}

impl Echo {
    /// A record, with its length before it.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&[0; 2]);
        match self {
            Self::Name(deed, ino, name) => {
                bytes.push(*deed as u8);
                bytes.extend_from_slice(&ino.to_ne_bytes());
                bytes.extend_from_slice(name);
            }
            Self::Content { ino, mtime, size } => {
                bytes.push(5);
                for number in [ino, mtime, size] {
                    bytes.extend_from_slice(&number.to_ne_bytes());
                }
            }
            Self::Attributes(ino) => {
                bytes.push(6);
                bytes.extend_from_slice(&ino.to_ne_bytes());
            }
            Self::Full => bytes.push(7),
        }
        // A name is at most 255 bytes long.
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let name = |deed| Some(Self::Name(deed, number(1)?, bytes.get(9..)?.to_vec()));
        match bytes.first()? {
            1 => name(Deed::Create),
            2 => name(Deed::Delete),
            3 => name(Deed::MovedFrom),
            4 => name(Deed::MovedTo),
            5 => Some(Self::Content { ino: number(1)?, mtime: number(9)?, size: number(17)? }),
            6 => Some(Self::Attributes(number(1)?)),
            7 => Some(Self::Full),
            _ => None,
        }
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Teller(OwnedFd);

impl Teller {
    /// Tells. One that does not fit is lost: the guest hears of its own deed then, which harms nothing.
    pub(crate) fn tell(&self, echo: &Echo) {
        let bytes = echo.encode();
        // Shorter than PIPE_BUF, so it is written whole or not at all.
        // SAFETY: the buffer lives; the descriptor is ours.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    }
}

/// From the worker to the watcher.
///
/// # Errors
/// That of the system call.
pub(crate) fn channel() -> io::Result<(Teller, File)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // What the kernel gives unasked does as well, for a slower guest.
    let _ = fcntl_setpipe_size(&theirs, ROOM);
    Ok((Teller(theirs), File::from(ours)))
}

impl Teller {
    /// Its descriptor, to be kept open.
    pub(crate) fn raw(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// What the guest did of late.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    names: HashMap<(Deed, u64, Vec<u8>), u32>,
    contents: HashMap<u64, (u64, u64)>,
    attributes: HashMap<u64, Instant>,
    /// In the order in which they came, to be forgotten.
    order: VecDeque<(Instant, Echo)>,
    full: bool,
    /// The beginning of a record whose end was not read yet.
    begun: Vec<u8>,
}

impl Echoes {
    /// Takes in what the worker has told, without waiting; whether there was anything.
    pub(crate) fn hear(&mut self, from: &mut File, now: Instant) -> bool {
        let mut any = false;
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mut all = std::mem::take(&mut self.begun);
            all.extend_from_slice(&bytes[..count]);
            let mut rest = all.as_slice();
            while let Some((length, after)) = rest.split_first_chunk()
                && let Some((record, after)) = after.split_at_checked(u16::from_ne_bytes(*length).into())
            {
                if let Some(echo) = Echo::decode(record) {
                    self.take(echo, now);
                }
                rest = after;
            }
            self.begun = rest.to_vec();
            any = true;
        }
        self.forget(now);
        any
    }

    fn take(&mut self, echo: Echo, now: Instant) {
        match &echo {
            Echo::Name(deed, ino, name) => *self.names.entry((*deed, *ino, name.clone())).or_default() += 1,
            Echo::Content { ino, mtime, size } => drop(self.contents.insert(*ino, (*mtime, *size))),
            Echo::Attributes(ino) => drop(self.attributes.insert(*ino, now)),
            Echo::Full => {
                self.full = true;
                return;
            }
        }
        self.order.push_back((now, echo));
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            match self.order.pop_front() {
                Some((_, Echo::Name(deed, ino, name))) => drop(self.use_up(deed, ino, name)),
                Some((_, Echo::Content { ino, mtime, size }))
                    if self.contents.get(&ino) == Some(&(mtime, size)) =>
                {
                    self.contents.remove(&ino);
                }
                Some((at, Echo::Attributes(ino))) if self.attributes.get(&ino) == Some(&at) => {
                    self.attributes.remove(&ino);
                }
                _ => {}
            }
        }
    }

    fn use_up(&mut self, deed: Deed, ino: u64, name: Vec<u8>) -> bool {
        let key = (deed, ino, name);
        match self.names.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.names.remove(&key)),
            None => return false,
        }
        true
    }

    /// Is the guest to let go of files, since this was asked last?
    pub(crate) fn take_full(&mut self) -> bool {
        std::mem::take(&mut self.full)
    }

    /// Was it the guest that did this to a name? Answers yes as often as it did it.
    pub(crate) fn name(&mut self, deed: Deed, folder: u64, name: &[u8]) -> bool {
        !self.names.is_empty() && self.use_up(deed, folder, name.to_vec())
    }

    /// Is nothing known that could make an event of contents or attributes an echo?
    pub(crate) fn quiet(&self) -> bool {
        self.contents.is_empty() && self.attributes.is_empty()
    }

    /// Is a file of that state as the guest left it?
    pub(crate) fn content(&self, ino: u64, mtime: u64, size: u64) -> bool {
        self.contents.get(&ino) == Some(&(mtime, size))
    }

    /// Had the guest just changed attributes of that file at that time?
    pub(crate) fn attributes(&self, ino: u64, then: Instant) -> bool {
        self.attributes.get(&ino).is_some_and(|heard| then.saturating_duration_since(*heard) < ATTRIBUTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_echo_as_often_as_the_guest_did_it() {
        let (teller, mut heard) = channel().expect("channel");
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        teller.tell(&Echo::Name(Deed::Create, 7, b"a b".to_vec()));
        teller.tell(&Echo::Name(Deed::Create, 7, b"a b".to_vec()));
        echoes.hear(&mut heard, now);
        assert!(!echoes.name(Deed::Delete, 7, b"a b") && !echoes.name(Deed::Create, 8, b"a b"));
        assert!(echoes.name(Deed::Create, 7, b"a b") && echoes.name(Deed::Create, 7, b"a b"));
        assert!(!echoes.name(Deed::Create, 7, b"a b"), "the third was the host's");
    }

    #[test]
    fn many_are_heard_at_once_and_none_is_cut() {
        let (teller, mut heard) = channel().expect("channel");
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        // Longer names and shorter ones, so that they end at all places of what is read at once.
        let name = |n: u64| format!("{n:0>width$}", width = 5 + n as usize % 250).into_bytes();
        for n in 0..2000 {
            teller.tell(&Echo::Name(Deed::Delete, n, name(n)));
        }
        echoes.hear(&mut heard, now);
        assert!((0..2000).all(|n| echoes.name(Deed::Delete, n, &name(n))));
        assert!(echoes.names.is_empty() && echoes.begun.is_empty());
    }

    #[test]
    fn contents_are_an_echo_only_as_long_as_nobody_else_wrote() {
        let (teller, mut heard) = channel().expect("channel");
        let mut echoes = Echoes::default();
        teller.tell(&Echo::Content { ino: 1, mtime: 10, size: 3 });
        echoes.hear(&mut heard, Instant::now());
        assert!(echoes.content(1, 10, 3));
        assert!(!echoes.content(1, 11, 3) && !echoes.content(1, 10, 4) && !echoes.content(2, 10, 3));
    }

    #[test]
    fn everything_is_forgotten_in_time() {
        let (teller, mut heard) = channel().expect("channel");
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        for echo in [
            Echo::Name(Deed::MovedTo, 1, b"x".to_vec()),
            Echo::Content { ino: 1, mtime: 1, size: 1 },
            Echo::Attributes(1),
        ] {
            teller.tell(&echo);
        }
        echoes.hear(&mut heard, now);
        assert!(echoes.attributes(1, now) && !echoes.attributes(1, now + ATTRIBUTES));
        echoes.hear(&mut heard, now + KEPT * 2);
        assert!(echoes.quiet() && echoes.names.is_empty() && echoes.order.is_empty());
    }
}
