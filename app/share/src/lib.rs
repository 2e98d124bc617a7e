//! Host folders for the guest: one vhost-user-fs device that carries every export, and the host's file events.
//!
//! ```text
//!   shim ──stdin: packets──▶ `slipway share` (user and mount namespace of its own: opens what is to be shared)
//!                              │  ▲ echoes: what the guest did             │ inotify ──▶ events ──▶ guest
//!                              ▼  │ descriptors of detached mounts
//!                            worker: empty root, no capabilities, seccomp ◀══ vhost-user ══▶ QEMU
//! ```
//!
//! Only the worker touches bytes of the guest. It has no path to open: its root is an empty folder, and what it serves it
//! was handed as descriptors of mounts that lead nowhere but into the export, read-only ones read-only by the kernel.
//! [`wire`] is what the shim says, [`server`] the outer process, the rest its parts. All of that is Linux's; elsewhere the hypervisor
//! shares folders itself, and `host_watch` has the shim hear of file events.
#![allow(unsafe_code)] // Namespaces, capabilities and detached mounts have no safe wrapper everywhere; nor has how Windows watches.

pub mod bind_source;
pub mod guest_path;
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code, unreachable_pub))] // There for its tests.
pub mod host_watch;
#[cfg(target_os = "linux")]
pub mod packets;
#[cfg(target_os = "linux")]
pub mod server;
pub mod wire;

#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod echo;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod fs;
mod mask;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod under_way;
#[cfg(target_os = "linux")]
mod watch;
#[cfg(target_os = "linux")]
mod worker;
