//! The driver with the real framework and a real kernel. Nobody has run this yet: it is compiled for macOS on every run of the
//! tests (`installer/check-cross`), and needs a Mac, a test program that is signed with the entitlement
//! `com.apple.security.virtualization` (`installer/macos`), and a kernel that `SLIPWAY_TEST_KERNEL` names.
#![cfg(target_os = "macos")]

use slipway_vm::{GuestArch, contract};
use slipway_vm_vz::VzDriver;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_driver_as_any_other() {
    let Some(kernel) = std::env::var_os("SLIPWAY_TEST_KERNEL") else {
        eprintln!("skipped: SLIPWAY_TEST_KERNEL does not name a kernel");
        return;
    };
    let dir = tempfile::tempdir().expect("folder");
    let spec = contract::spec(dir.path(), kernel.into()).expect("files");
    contract::check(&VzDriver::new(GuestArch::HOST), &spec).await;
}
