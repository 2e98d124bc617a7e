//! The guest agent's conversation with the host: what it answers on each vsock port, over whatever stream carries it.
//!
//! The guest's own half (initramfs, PID 1, services) is not here yet; what is here runs as well on a host, where its tests
//! dial it with the real client over unix sockets.

#[cfg(target_os = "linux")]
pub mod clock;
#[cfg(target_os = "linux")]
pub mod logs;
#[cfg(target_os = "linux")]
pub mod phases;
#[cfg(target_os = "linux")]
pub mod serve;
