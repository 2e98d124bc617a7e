//! Hears that this computer sleeps and wakes, from the system itself. A stream into a machine outlives a sleep only by luck, and both of its
//! ends must know. Each system tells it by calls of its own, which is why this is here and not with the daemon, which makes none.

#[cfg_attr(target_os = "linux", path = "sleep/linux.rs")]
#[cfg_attr(target_os = "macos", path = "sleep/macos.rs")]
#[cfg_attr(windows, path = "sleep/windows.rs")]
mod system;

pub use system::Events;

/// What a system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is about to sleep. Not every system says so, and not each time.
    Sleeps,
    /// It woke, or its clock was set: what was known of the time does not hold any more.
    Woke,
}
