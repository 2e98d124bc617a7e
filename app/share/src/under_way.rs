//! Which requests of the guest are being done at this moment. The kernel tells the watcher what one of them does before the
//! worker can say that it was the guest: so the watcher judges an event when everything that was under way then is done.
//!
//! ```text
//!   worker's thread: odd ─ does the request ─ tells its echoes ─ even
//!   watcher:                    └ reads the event ┄ waits until that number is another ┄ hears the echoes ─ judges
//! ```
//!
//! One number per thread of the worker, in memory that both processes have: a request pays two stores for it.

use std::{
    array, io, mem, ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Threads of the worker that may be marked. What others do, the guest may hear of itself.
pub(crate) const THREADS: usize = 16;
/// How long one request is waited for at most: one that takes longer keeps no event of the host back.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks at what is under way: hardly a request takes longer.
const LOOK: Duration = Duration::from_micros(200);

type Numbers = [AtomicU32; THREADS];

#[derive(Debug)]
struct Shared(ptr::NonNull<Numbers>);

// SAFETY: it leads to atomic numbers, which live as long as it does.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn numbers(&self) -> &Numbers {
        // SAFETY: mapped, zeroed and aligned to a page since `Marks::new`, and until the drop.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped with that size in `Marks::new`, and nobody has a reference any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), mem::size_of::<Numbers>()) };
    }
}

/// The numbers; a process forked afterwards has the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Marks(Arc<Shared>);

impl Marks {
    /// Nothing is under way.
    ///
    /// # Errors
    /// That of the system call.
    pub(crate) fn new() -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, at a place that the kernel chooses.
        let place = unsafe { libc::mmap(ptr::null_mut(), mem::size_of::<Numbers>(), access, kind, -1, 0) };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let place = ptr::NonNull::new(place.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(Arc::new(Shared(place))))
    }

    /// The worker's thread of that number is at a request until the mark is dropped. No other thread may use the number.
    pub(crate) fn begin(&self, thread: usize) -> Mark<'_> {
        Mark(self.0.numbers().get(thread).inspect(|number| {
            // Before the system calls of the request, in the order of all.
            number.fetch_add(1, Ordering::SeqCst);
        }))
    }

    fn read(&self) -> [u32; THREADS] {
        array::from_fn(|thread| self.0.numbers()[thread].load(Ordering::SeqCst))
    }
}

/// Something is under way.
#[derive(Debug)]
pub(crate) struct Mark<'a>(Option<&'a AtomicU32>);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            // After the echoes were told.
            number.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Waits for what is under way: the watcher's side.
#[derive(Debug)]
pub(crate) struct Waiter {
    marks: Marks,
    /// Since when each request is known to be under way.
    since: [(u32, Instant); THREADS],
    /// As it stood when that was done.
    settled: [u32; THREADS],
}

impl Waiter {
    pub(crate) fn new(marks: Marks) -> Self {
        Self { marks, since: [(0, Instant::now()); THREADS], settled: [0; THREADS] }
    }

    /// Returns when all that is under way now is done, or takes too long.
    pub(crate) fn settle(&mut self) {
        let then = self.marks.read();
        self.settled = then;
        for (thread, number) in then.into_iter().enumerate().filter(|(_, number)| !number.is_multiple_of(2)) {
            if self.since[thread].0 != number {
                self.since[thread] = (number, Instant::now());
            }
            // One that has taken too long once is not waited for again.
            while self.settled[thread] == number && self.since[thread].1.elapsed() < PATIENCE {
                thread::sleep(LOOK);
                self.settled = self.marks.read();
            }
        }
    }

    /// Has the guest begun or ended anything since?
    pub(crate) fn went_on(&self) -> bool {
        self.marks.read() != self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_waited_for_and_what_begins_later_is_not() {
        let marks = Marks::new().expect("memory");
        let mut waiter = Waiter::new(marks.clone());
        let first = marks.begin(0);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                waiter.settle();
                waiter
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished(), "the first is not done");
            let second = marks.begin(1);
            drop(first);
            let waiter = waiting.join().expect("ends");
            drop(second);
            assert!(waiter.went_on());
        });
    }

    #[test]
    fn what_never_ends_is_waited_for_once_and_in_no_one_s_way_then() {
        let marks = Marks::new().expect("memory");
        let mut waiter = Waiter::new(marks.clone());
        let _stuck = marks.begin(3);
        let began = Instant::now();
        waiter.settle();
        assert!(began.elapsed() >= PATIENCE);
        let again = Instant::now();
        (0..50).for_each(|_| waiter.settle());
        assert!(again.elapsed() < PATIENCE * 50, "not once more each time");
        assert!(!waiter.went_on());
        // A thread that has no number marks nothing.
        drop(marks.begin(THREADS));
        assert!(!waiter.went_on());
    }

    #[test]
    fn a_forked_process_marks_the_same_numbers() {
        let marks = Marks::new().expect("memory");
        let waiter = Waiter::new(marks.clone());
        // SAFETY: the child does nothing but add to memory and end.
        match unsafe { libc::fork() } {
            0 => {
                drop(marks.begin(0));
                // SAFETY: ends the child without the parent's destructors.
                unsafe { libc::_exit(0) }
            }
            child => {
                let child = rustix::process::Pid::from_raw(child).expect("forked");
                rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).expect("ends");
                assert!(waiter.went_on());
            }
        }
    }
}
