//! The device without a VM: how it ends, and what the diallers learn.

use std::os::unix::net::UnixStream as StdUnixStream;

use super::*;
use slipway_protocol::ports::ENGINE;

fn device(dir: &tempfile::TempDir) -> VhostUserVsock {
    let cid = GuestCid::new(3).expect("a guest's id");
    VhostUserVsock::listen(&dir.path().join("vsock.sock"), cid).expect("listens")
}

#[test]
fn a_device_without_a_vm_ends_even_when_its_socket_was_removed() {
    let dir = tempfile::tempdir().expect("folder");
    let device = device(&dir);
    std::fs::remove_file(dir.path().join("vsock.sock")).expect("the socket is there");
    drop(device);
}

#[tokio::test]
async fn a_dial_after_the_end_gives_the_socket_back() {
    let dir = tempfile::tempdir().expect("folder");
    let device = device(&dir);
    let transport = device.transport();
    device.stop();
    assert!(!dir.path().join("vsock.sock").exists(), "the socket is removed");
    let (_client, host) = StdUnixStream::pair().expect("pair");
    let answer = transport.splice(ENGINE, host.into(), Bytes::new()).await;
    assert!(matches!(answer, Err((ConnectError::Closed, _))));
}

#[tokio::test]
async fn a_dial_that_waits_ends_with_the_device() {
    let dir = tempfile::tempdir().expect("folder");
    let device = device(&dir);
    let transport = device.transport();
    let dial = tokio::spawn(async move { transport.connect(ENGINE).await.err() });
    // Long enough for the dial to reach the device; shorter would test the case above again.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::task::spawn_blocking(|| device.stop()).await.expect("stops");
    assert!(matches!(dial.await.expect("joins"), Some(ConnectError::Closed)));
}
