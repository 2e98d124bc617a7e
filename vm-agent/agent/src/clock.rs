//! The two clocks of the guest: time since power-on for phases, time of day for logs and containers.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Differences up to this are left alone, because stepping a clock disturbs whoever measures with it.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Milliseconds since the guest was powered on; goes on while the guest sleeps.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Nanoseconds since the epoch.
pub fn unix_nanos() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sets the time of day when it is off by more than the tolerance; says whether it did.
pub fn set_unix_nanos(wanted: u64) -> std::io::Result<bool> {
    if wanted.abs_diff(unix_nanos()) <= TOLERANCE.as_nanos() as u64 {
        return Ok(false);
    }
    let time = Timespec { tv_sec: (wanted / 1_000_000_000) as i64, tv_nsec: (wanted % 1_000_000_000) as _ };
    clock_settime(ClockId::Realtime, time)?;
    Ok(true)
}

/// In place of [`set_unix_nanos`] where the clock is not the agent's to set.
pub fn only_check(wanted: u64) -> std::io::Result<bool> {
    if wanted.abs_diff(unix_nanos()) <= TOLERANCE.as_nanos() as u64 {
        return Ok(false);
    }
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this clock is the host's own"))
}
