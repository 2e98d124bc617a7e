//! Runs a machine with Windows' Host Compute Service (HCS), the part of Hyper-V that WSL and containers stand on.
//!
//! What is data is made and read on every system, and tested on each: the [`document`] of a machine, why it [`exit`]ed, the
//! [`vhd`] that a disk image must be, and the [`bind_source`] that a Windows client names.

pub mod bind_source;
pub mod document;
pub mod exit;
pub mod vhd;
