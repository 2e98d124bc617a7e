//! The process that owns one VM and outlives the daemon, and the client by which the daemon speaks to it.
//!
//! [`server`] is the process, [`client`] the daemon's half, [`wire`] what travels between them on `shim.sock`, [`spawn`]
//! starts the process or finds one that lives.

pub mod client;
pub mod drivers;
pub mod server;
pub mod spawn;
pub mod wire;
