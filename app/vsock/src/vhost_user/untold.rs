//! When the guest hears of what it does not wait for: that what it sent was taken, and that a stream is over which it has closed
//! itself. It needs its buffers and its memory back some time, and nothing else, while that was one interrupt of three for a small
//! message and its answer, and one of three for a connection. So the guest hears when there is much of it, with the next that it
//! does wait for, or a little later. That is worth something where each queue has an interrupt of its own (`vm-qemu` asks QEMU for
//! them): with one for both, the guest looks for them at each packet that comes.
//!
//! ```text
//!   nothing untold ─packet─▶ timer runs ─┬─ timer, an eighth of the queue, or another reason ─▶ interrupt ─▶ nothing untold
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

/// Packets of one queue that were done with and not told.
pub(super) struct Untold {
    packets: usize,
    timer: OwnedFd,
    /// The timer runs.
    running: bool,
    /// It came to its end.
    due: bool,
}

impl Untold {
    pub(super) fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { packets: 0, timer, running: false, due: false })
    }

    /// Becomes readable when [`Untold::fired`] is to be called.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// The timer has come to its end.
    pub(super) fn fired(&mut self) {
        let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
        self.running = false;
        self.due = self.packets > 0;
    }

    /// `count` more were done with in a queue of `size` descriptors. Is the guest to be told now? It counts as told then.
    ///
    /// # Errors
    /// That of setting the timer.
    pub(super) fn more(&mut self, count: usize, size: u16) -> io::Result<bool> {
        self.packets += count;
        if self.due || self.packets >= usize::from(size / PART).max(1) {
            self.told();
            return Ok(true);
        }
        if self.packets > 0 && !self.running {
            let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
            let later =
                Itimerspec { it_interval: never_again, it_value: Timespec { tv_sec: 0, tv_nsec: LATER } };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &later)?;
            self.running = true;
        }
        Ok(false)
    }

    /// The guest is told of all, for another reason.
    pub(super) fn told(&mut self) {
        (self.packets, self.due) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec as Patience, poll};

    fn fires(untold: &Untold) -> bool {
        let patience = Patience { tv_sec: 10, tv_nsec: 0 };
        poll(&mut [PollFd::new(&untold.timer(), PollFlags::IN)], Some(&patience)).expect("polls") == 1
    }

    #[test]
    fn many_are_told_at_once_and_few_a_little_later() {
        let mut untold = Untold::new().expect("a timer");
        assert!(!untold.more(15, 128).expect("set"));
        assert!(untold.more(1, 128).expect("set"), "an eighth of the queue");
        assert!(!untold.more(1, 128).expect("set"));
        assert!(fires(&untold), "the timer that ran already");
        untold.fired();
        assert!(untold.more(0, 128).expect("set"), "due");
        assert!(!untold.more(0, 128).expect("set"), "nothing is left to tell");
        assert!(!untold.running, "nothing to wait for");
        assert!(!untold.more(1, 128).expect("set"));
        assert!(fires(&untold), "it runs again");
    }

    #[test]
    fn a_timer_that_finds_nothing_makes_nothing_due() {
        let mut untold = Untold::new().expect("a timer");
        assert!(!untold.more(1, 128).expect("set"));
        assert!(untold.more(15, 128).expect("set"));
        assert!(fires(&untold));
        untold.fired();
        assert!(!untold.more(0, 128).expect("set"));
    }

    #[test]
    fn what_was_told_for_another_reason_is_not_told_again() {
        let mut untold = Untold::new().expect("a timer");
        assert!(!untold.more(1, 128).expect("set"));
        assert!(fires(&untold));
        untold.fired();
        untold.told();
        assert!(!untold.more(0, 128).expect("set"));
    }

    #[test]
    fn a_queue_that_is_too_short_to_wait_is_told_at_once() {
        let mut untold = Untold::new().expect("a timer");
        assert!(!untold.more(0, 4).expect("set") && untold.more(1, 4).expect("set"));
    }
}
