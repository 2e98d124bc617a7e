//! When the guest hears that what it sent was taken. It needs its buffers back some time, and nothing else: no stream waits for
//! that, while it was one interrupt of three for a small message and its answer. So the guest hears when many are taken, or a
//! little later. That is worth something where each queue has an interrupt of its own (`vm-qemu` asks QEMU for them): with one
//! for both, the guest looks for them at each packet that comes.
//!
//! ```text
//!   nothing untold ─packet─▶ timer runs ─┬─ timer, or an eighth of the queue ─▶ interrupt ─▶ nothing untold
//!                              ▲─packet──┘
//! ```

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// How long a packet may wait to be told, in nanoseconds: of a socket that the guest has closed it is what keeps the memory.
const LATER: i64 = 10_000_000;
/// This part of the queue may be untold: a packet has two descriptors or a few more, so that the guest has room until then.
const PART: u16 = 8;

/// Packets of the guest that were taken and not told.
pub(super) struct Taken {
    untold: usize,
    timer: OwnedFd,
    /// The timer runs.
    running: bool,
    /// It came to its end.
    due: bool,
}

impl Taken {
    pub(super) fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { untold: 0, timer, running: false, due: false })
    }

    /// Becomes readable when [`Taken::fired`] is to be called.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// The timer has come to its end.
    pub(super) fn fired(&mut self) {
        let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
        self.running = false;
        self.due = self.untold > 0;
    }

    /// `count` more were taken from a queue of `size` descriptors. Is the guest to be told now?
    ///
    /// # Errors
    /// That of setting the timer.
    pub(super) fn more(&mut self, count: usize, size: u16) -> io::Result<bool> {
        self.untold += count;
        if self.due || self.untold >= usize::from(size / PART).max(1) {
            (self.untold, self.due) = (0, false);
            return Ok(true);
        }
        if self.untold > 0 && !self.running {
            let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
            let later =
                Itimerspec { it_interval: never_again, it_value: Timespec { tv_sec: 0, tv_nsec: LATER } };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &later)?;
            self.running = true;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec as Patience, poll};

    fn fires(taken: &Taken) -> bool {
        let patience = Patience { tv_sec: 10, tv_nsec: 0 };
        poll(&mut [PollFd::new(&taken.timer(), PollFlags::IN)], Some(&patience)).expect("polls") == 1
    }

    #[test]
    fn many_are_told_at_once_and_few_a_little_later() {
        let mut taken = Taken::new().expect("a timer");
        assert!(!taken.more(15, 128).expect("set"));
        assert!(taken.more(1, 128).expect("set"), "an eighth of the queue");
        assert!(!taken.more(1, 128).expect("set"));
        assert!(fires(&taken), "the timer that ran already");
        taken.fired();
        assert!(taken.more(0, 128).expect("set"), "due");
        assert!(!taken.more(0, 128).expect("set"), "nothing is left to tell");
        assert!(!taken.running, "nothing to wait for");
        assert!(!taken.more(1, 128).expect("set"));
        assert!(fires(&taken), "it runs again");
    }

    #[test]
    fn a_timer_that_finds_nothing_makes_nothing_due() {
        let mut taken = Taken::new().expect("a timer");
        assert!(!taken.more(1, 128).expect("set"));
        assert!(taken.more(15, 128).expect("set"));
        assert!(fires(&taken));
        taken.fired();
        assert!(!taken.more(0, 128).expect("set"));
    }

    #[test]
    fn a_queue_that_is_too_short_to_wait_is_told_at_once() {
        let mut taken = Taken::new().expect("a timer");
        assert!(!taken.more(0, 4).expect("set") && taken.more(1, 4).expect("set"));
    }
}
