//! Room for descriptors. Each file that the guest remembers is an open one here, and only so many may be: the guest, which
//! remembers for as long as it has memory, is asked to let go in time. What finds no room nevertheless waits for that.
//!
//! ```text
//!   worker: three quarters are taken ─echo─▶ outer process ─event without a mask─▶ agent: drops what is not in use ─▶ FORGET
//! ```

use std::{
    cell::Cell,
    io,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Inner, errno, read};
use crate::echo::Echo;

/// New files between two counts of all.
const EACH: usize = 64;
/// Between two requests to the guest.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a request waits for room: a guest by emulation needs some hundred milliseconds to let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(10);

thread_local! {
    /// This thread must not wait.
    static HASTY: Cell<bool> = const { Cell::new(false) };
    /// It would have had to.
    static GAVE_UP: Cell<bool> = const { Cell::new(false) };
}

/// Does something unless it has to wait for room: `None` then, and nothing was done.
pub(crate) fn put_off<T>(act: impl FnOnce() -> T) -> Option<T> {
    HASTY.set(true);
    let done = act();
    HASTY.set(false);
    (!GAVE_UP.replace(false)).then_some(done)
}

/// May this thread wait? What it does is put off if not.
pub(super) fn may_wait() -> bool {
    if HASTY.get() {
        GAVE_UP.set(true);
    }
    !HASTY.get()
}

/// Waits that long. Not by `sleep`: its system call is none that a confined worker may do, and would be its end.
pub(super) fn rest(how_long: Duration) {
    let nothing = Mutex::new(());
    let guard = nothing.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody ever calls: it is over when the time is.
    let _ = Condvar::new().wait_timeout_while(guard, how_long, |()| true);
}

/// What there is room for, and who waits.
#[derive(Debug)]
pub(super) struct Room {
    /// Files that may be open.
    pub(super) files: u64,
    /// Threads that may wait; one at least must stay for what needs none.
    threads: usize,
    waiting: AtomicUsize,
    asked: Mutex<Option<Instant>>,
}

fn is_full<T>(done: &io::Result<T>) -> bool {
    let error = done.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(error, Some(libc::ENFILE | libc::EMFILE))
}

impl Room {
    pub(super) fn new(files: u64, threads: usize) -> Self {
        Self { files, threads, waiting: AtomicUsize::new(0), asked: Mutex::default() }
    }
}

impl Inner {
    /// One export knows `grown` files now.
    pub(super) fn look_for_room(&self, grown: usize) {
        if grown.is_multiple_of(EACH) && self.taken() > self.room.files / 4 * 3 {
            self.ask_for_room();
        }
    }

    fn taken(&self) -> u64 {
        read(&self.exports).values().map(|export| read(&export.known).len() as u64).sum()
    }

    fn ask_for_room(&self) {
        let mut asked = self.room.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|last| last.elapsed() >= PAUSE) {
            *asked = Some(Instant::now());
            self.echo.tell(&Echo::Full);
        }
    }

    /// Does something that needs a descriptor, as soon as there is one. It must be harmless to do it twice.
    pub(super) fn with_room<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut done = act();
        if is_full(&done) {
            self.wait_while(|| {
                done = act();
                is_full(&done)
            });
        }
        done
    }

    /// Waits until there is room for something new. What makes a file first opens it afterwards: to find no room only then
    /// would leave the file there and tell the guest that it is not.
    ///
    /// # Errors
    /// `ENFILE` where this thread must not wait.
    pub(super) fn make_room(&self) -> io::Result<()> {
        let crowded = || self.taken() > self.room.files / 16 * 15;
        if crowded() && !self.wait_while(crowded) {
            return Err(errno(libc::ENFILE));
        }
        Ok(())
    }

    /// False, at once, where this thread must not wait.
    fn wait_while(&self, mut full: impl FnMut() -> bool) -> bool {
        self.ask_for_room();
        if !may_wait() {
            return false;
        }
        if self.room.waiting.fetch_add(1, Ordering::SeqCst) + 1 < self.room.threads {
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                rest(AGAIN);
                self.ask_for_room();
                if !full() {
                    break;
                }
            }
        }
        self.room.waiting.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests {
    use virtiofsd::seccomp::{SeccompAction, enable_seccomp};

    use super::*;

    /// Runs itself again, as a process that may do what a worker may.
    #[test]
    fn a_confined_worker_may_wait() {
        const CONFINED: &str = "SLIPWAY_TEST_CONFINED";
        if std::env::var_os(CONFINED).is_some() {
            enable_seccomp(SeccompAction::Kill, false).expect("confined");
            let began = Instant::now();
            rest(AGAIN);
            assert!(began.elapsed() >= AGAIN);
            return;
        }
        let program = std::env::current_exe().expect("this test");
        let name = ["--exact", "fs::room::tests::a_confined_worker_may_wait"];
        let ran = std::process::Command::new(program).args(name).env(CONFINED, "1").output().expect("runs");
        assert!(ran.status.success(), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "{ran:?}");
    }
}
