//! The guest agent: `/init` of the initramfs, then PID 1 of the guest, and the host's only counterpart there.
//!
//! ```text
//! PID 1 in the initramfs ──exec──▶ `slipway-agent init` (PID 1 on the real root) ──▶ serves until power-off
//! `slipway-agent serve --dir DIR` ──▶ the same server on unix sockets, without mounts, for tests on a host
//! `docker-proxy …` (a link to it) ──▶ stands in for docker-proxy, one process for each published port
//! `slipway-dhcp …` (another)      ──▶ tells the agent what address the network gave, where the host says none
//! ```
//!
//! [`serve`] is the conversation with the host, [`init`] the boot, [`service`] keeps the engine's programs running.
// Mounting, modules, interface ioctls and process set-up between fork and exec have no safe wrapper everywhere.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]
#![cfg(target_os = "linux")]

pub mod clock;
mod configuration;
mod data_disk;
mod emulation;
mod engine;
mod exec;
mod file_events;
mod guest;
mod init;
mod iptables;
mod listen;
pub mod logs;
mod names;
mod netfilter;
mod netlink;
mod network;
pub mod phases;
pub mod ports;
mod reaper;
pub mod serve;
mod service;
pub mod shares;
mod splice;
mod tool;

pub use init::{stage1, stage2};
pub use network::dhcp::hand_over as hand_over_lease;
pub use ports::stand_in::run as docker_proxy;
pub use tool::serve as serve_on_host;

/// What the agent calls itself in its greeting.
pub const BUILD: &str = concat!("slipway-agent ", env!("CARGO_PKG_VERSION"));
