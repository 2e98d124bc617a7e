//! Runs a machine with macOS' Virtualization.framework.
//!
//! What the machine is made of is decided as data, on any system and tested there ([`configuration`]); the driver then says the
//! same to the framework and decides nothing.
#![cfg_attr(target_os = "macos", allow(unsafe_code))] // The framework is Objective-C.

pub mod configuration;
#[cfg(target_os = "macos")]
mod driver;
#[cfg(target_os = "macos")]
mod machine;
#[cfg(target_os = "macos")]
mod objects;

#[cfg(target_os = "macos")]
pub use driver::VzDriver;
