//! Runs a machine with Windows' Host Compute Service (HCS), the part of Hyper-V that WSL and containers stand on.
//!
//! What is data is made and read on every system, and tested on each: the [`document`] of a machine and its [`network`], why it [`exit`]ed, and
//! the [`vhd`] that a disk image must be. The calls are Windows' alone, those for the data disk (`disk`) also.

#![cfg_attr(windows, allow(unsafe_code))] // Windows' libraries have C functions.

#[cfg(windows)]
pub mod disk;
pub mod document;
#[cfg(windows)]
mod driver;
pub mod exit;
#[cfg(windows)]
mod hcn;
#[cfg(windows)]
mod hcs;
#[cfg(windows)]
pub mod library;
pub mod network;
pub mod vhd;

#[cfg(windows)]
pub use driver::{HypervConfig, HypervDriver};
