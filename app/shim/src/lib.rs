//! The process that owns one VM and outlives the daemon, and the client by which the daemon speaks to it.
//!
//! [`server`] is the process, [`client`] the daemon's half, [`wire`] what travels between them on `shim.sock`, [`share`] is its child that
//! serves host folders, [`spawn`] starts the process or finds one that lives.

pub mod client;
pub mod drivers;
mod reviews;
pub mod server;
pub mod share;
pub mod spawn;
pub mod wire;
