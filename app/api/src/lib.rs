//! The control API: what the daemon tells about itself and can be asked to do, as types, and a client for it.
//!
//! HTTP and JSON over `api.sock`, on Windows over a named pipe. Windows, tray and CLI speak to the daemon through this crate alone. Fields may be added;
//! none changes its meaning within `/v1`.

pub mod client;
#[cfg(unix)]
#[path = "connect/unix.rs"]
mod connect;
#[cfg(windows)]
#[path = "connect/windows.rs"]
mod connect;
mod disk;
mod doctor;
pub mod exec;
pub mod log_files;
mod ports;
pub mod time;
mod types;
mod update;

pub use disk::{DiskHolding, DiskTrim, DiskUsage};
pub use doctor::{
    Bundle, Check, CheckState, DOCKER_CONTEXT, DaemonSeen, DiagnoseRequest, DoctorReport, DoctorRequest,
};
pub use ports::{Port, PortContainer, PortOrigin, PortState};
pub use slipway_settings::{lock, paths};
pub use types::*;
pub use update::{Update, UpdateRequest, Updated};

/// Prefix of every path.
pub const PREFIX: &str = "/v1";
