//! What one container does while another does its part.
//!
//! ```text
//!   hold FILE             locks in both ways, says `held`, keeps it until its input ends, says `let go`
//!   try  FILE             says of each way whether it is `free` or `busy`
//!   map  FILE even|odd    counts to 2,000 in the file's memory with another that has the other numbers, says how far
//!   list FOLDER           says how many entries it has, and how many names
//! ```
#![allow(unsafe_code)] // A map has no safe form.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, fcntl_lock, flock},
    io::Errno,
};

const LOCK: FlockOperation = FlockOperation::NonBlockingLockExclusive;
const COUNT: u32 = 2000;
const LENGTH: usize = 4096;

/// The first page of a file, shared with whoever has it mapped too.
pub(super) struct Map(*mut libc::c_void);

impl Map {
    /// Maps it; the file must have a page.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the place, and the file has a page that nobody takes away.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), LENGTH, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at)) }
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: a page is large enough and aligned, mapped as long as this lives, and written atomically only.
        unsafe { AtomicU32::from_ptr(self.0.cast()) }
    }

    pub(super) fn set(&self, value: u32) {
        self.word().store(value, Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    /// Writes it to the file.
    pub(super) fn flush(&self) -> io::Result<()> {
        // SAFETY: exactly what was mapped.
        let done = unsafe { libc::msync(self.0, LENGTH, libc::MS_SYNC) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.0, LENGTH) };
    }
}

/// See the module.
pub(crate) fn run(words: &[&str]) -> io::Result<()> {
    let open = |path: &str| {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(Path::new(path))
    };
    let mut out = io::stdout();
    match words {
        ["hold", path] => {
            let file = open(path)?;
            flock(&file, LOCK)?;
            fcntl_lock(&file, LOCK)?;
            writeln!(out, "held")?;
            io::stdin().read_to_end(&mut Vec::new())?;
            drop(file);
            writeln!(out, "let go")
        }
        ["try", path] => {
            let file = open(path)?;
            let word = |done: Result<(), Errno>| match done {
                Ok(()) => Ok("free"),
                Err(Errno::AGAIN) => Ok("busy"),
                Err(error) => Err(error),
            };
            writeln!(out, "flock {}, fcntl {}", word(flock(&file, LOCK))?, word(fcntl_lock(&file, LOCK))?)
        }
        ["map", path, turn] => {
            let map = Map::new(&open(path)?)?;
            let deadline = Instant::now() + Duration::from_secs(60);
            let mine = u32::from(*turn == "odd");
            loop {
                let now = map.get();
                if now >= COUNT || Instant::now() > deadline {
                    break;
                }
                if now % 2 == mine {
                    map.set(now + 1);
                } else {
                    std::thread::yield_now();
                }
            }
            map.flush()?;
            writeln!(out, "{}", map.get())
        }
        ["list", folder] => {
            let mut names = HashSet::new();
            let mut count = 0;
            for entry in std::fs::read_dir(folder)? {
                names.insert(entry?.file_name());
                count += 1;
            }
            writeln!(out, "{count} listed, {} names", names.len())
        }
        _ => Err(io::Error::other("usage: posix FOLDER | hold|try FILE | map FILE even|odd | list FOLDER")),
    }
}
