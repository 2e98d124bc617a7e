//! slipway-vm-qemu
