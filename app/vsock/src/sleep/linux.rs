//! Linux: the kernel cancels a timer for a time of day when the clock jumps, and a sleep is a jump. It needs no service of the system, and
//! tells of a clock that was set, too.
#![allow(unsafe_code)] // A descriptor is registered with the runtime.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::{Errno, read},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::io::unix::AsyncFd;

use super::Event;

/// A time that does not come: the kernel's clock ends before it.
const NEVER: Itimerspec = Itimerspec {
    it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
    it_value: Timespec { tv_sec: i64::MAX, tv_nsec: 0 },
};

/// Tells, from when it was made.
#[derive(Debug)]
pub struct Events {
    /// Only a jump of the clock makes it ready.
    timer: AsyncFd<OwnedFd>,
}

impl Events {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// That of the system.
    pub fn listen() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &NEVER)?;
        // SAFETY: an owned descriptor always gives the same number, and is open until it is dropped.
        let timer = unsafe { AsyncFd::register(timer) }?;
        Ok(Self { timer })
    }

    /// The next that is told. Cancel-safe.
    ///
    /// # Errors
    /// When nothing will be told any more.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut ready = self.timer.readable().await?;
            match read(self.timer.get_ref(), &mut [0; 8]) {
                Err(Errno::CANCELED) => return Ok(Event::Woke),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(io::Error::other("the end of time has come")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nothing_is_told_of_a_clock_that_goes_on() {
        let mut events = Events::listen().expect("every Linux has such timers");
        let told = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
        assert!(told.is_err(), "{told:?}");
    }

    /// For a machine whose clock nobody needs: `tests/e2e` has one, `slipway shell` leads into it.
    #[tokio::test]
    #[ignore = "sets the clock of the computer that it runs on"]
    async fn a_clock_that_is_set_is_told_each_time() {
        use rustix::time::{ClockId, clock_gettime, clock_settime};
        let mut events = Events::listen().expect("every Linux has such timers");
        for step in [3600, -3600] {
            let now = clock_gettime(ClockId::Realtime);
            clock_settime(ClockId::Realtime, Timespec { tv_sec: now.tv_sec + step, ..now }).expect("set");
            let told = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
            assert!(matches!(told, Ok(Ok(Event::Woke))), "{told:?}");
            // And once.
            let told = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
            assert!(told.is_err(), "{told:?}");
        }
    }
}
