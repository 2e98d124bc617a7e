//! The process that owns one VM and outlives the daemon, and the client by which the daemon speaks to it.
//!
//! See `server` for the process, `client` for the daemon's half and `wire` for what travels on `shim.sock`.
