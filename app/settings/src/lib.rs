//! What a person can set, and where Slipway keeps things on the host.
//!
//! Raw settings are what the file says; [`resolved::Settings`] is what holds on this host. Every file name on the host is spelt in
//! [`paths`] and nowhere else.

pub mod file;
pub mod keys;
pub mod lock;
pub mod paths;
pub mod resolved;
pub mod size;
