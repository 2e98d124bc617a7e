//! The vsock device with a real Linux guest at its other end, under QEMU.
//!
//! `tests/run` sets `SLIPWAY_TEST_KERNEL` to a Debian kernel with its modules beside it and `SLIPWAY_TEST_GUEST` to the static
//! program of `tests/guest`, which says what its ports do. One guest serves the whole test, because a boot takes seconds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_protocol::ports::GuestPort;
use slipway_test_harness::initramfs;
use slipway_vm::{AccelChoice, Driver, ExitReason, Machine, MachineSpec};
use slipway_vm_qemu::{GuestArch, QemuConfig, QemuDriver};
use slipway_vsock::{ConnectError, GuestStream, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const DIGEST: GuestPort = GuestPort(2001);
const SOURCE: GuestPort = GuestPort(2002);
const ECHO: GuestPort = GuestPort(2003);
const AFTER_END: GuestPort = GuestPort(2004);
/// For one stream, on a machine that is busy and emulates.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the guest needs to have vsock, in load order. Whatever is built in is not there as a file.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/vmw_vsock/vsock.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common.ko",
    "net/vmw_vsock/vmw_vsock_virtio_transport.ko",
];

async fn boot(dir: &Path, kernel: PathBuf, guest: &Path) -> Box<dyn Machine> {
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("file");
        path
    };
    let spec = MachineSpec {
        name: "streams".into(),
        cpus: 2,
        memory_mib: 512,
        kernel: kernel.clone(),
        initramfs: file("initramfs", &initramfs(&kernel, guest, MODULES, &[])),
        root_image: file("root", &[0; 4096]),
        data_disk: file("data", &[0; 4096]),
        cmdline: ["console=ttyS0", "quiet", "panic=-1"].map(String::from).to_vec(),
        run_dir: dir.into(),
        console_log: dir.join("console.log"),
        accel: AccelChoice::Auto,
        share_socket: None,
    };
    let config = QemuConfig {
        binary: None,
        guest: GuestArch::HOST,
        probe_kernel: kernel,
        verdict_file: dir.join("accel.json"),
    };
    let machine = QemuDriver::new(config).start(&spec).await.expect("starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let console = String::from_utf8_lossy(&machine.console_tail()).into_owned();
        if console.contains("test guest ready") {
            return machine;
        }
        assert!(Instant::now() < deadline, "the guest boots:\n{console}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Dials again while the guest's short backlog is full, as every caller of an ordinary listener must.
async fn dial(guest: &dyn Transport, port: GuestPort) -> GuestStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match guest.connect(port).await {
            Ok(stream) => return stream,
            Err(ConnectError::Refused { .. } | ConnectError::TimedOut { .. })
                if Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            Err(e) => panic!("port {port}: {e}"),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 32_768 % 251) as u8).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

/// The host's direction ends first: the answer must still come.
async fn host_ends_first(guest: &dyn Transport, length: usize) {
    let mut stream = dial(guest, DIGEST).await;
    let bytes = pattern(length);
    stream.write_all(&bytes).await.expect("the guest takes it");
    stream.shutdown().await.expect("half-close");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the answer after our end");
    let mut expected = (length as u64).to_le_bytes().to_vec();
    expected.extend_from_slice(&sum(&bytes).to_le_bytes());
    assert_eq!(answer, expected, "count and sum of {length} bytes");
}

/// The guest's direction ends first: what the host sends afterwards must still arrive.
async fn guest_ends_first(guest: &dyn Transport, length: usize, late: usize) {
    let mut stream = dial(guest, SOURCE).await;
    stream.write_all(&(length as u64).to_le_bytes()).await.expect("write");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.expect("its end");
    assert!(got == pattern(length), "{} of {length} bytes, or changed", got.len());
    stream.write_all(&pattern(late)).await.expect("our direction is open");
    stream.shutdown().await.expect("half-close");
}

/// Both directions full at once, then both end.
async fn both_at_once(guest: &dyn Transport, length: usize) {
    let (mut read, mut write) = tokio::io::split(dial(guest, ECHO).await);
    let bytes = pattern(length);
    let mut got = Vec::new();
    let send = async {
        write.write_all(&bytes).await?;
        write.shutdown().await
    };
    let (sent, received) = tokio::join!(send, read.read_to_end(&mut got));
    sent.expect("sent");
    received.expect("received");
    assert!(got == bytes, "{} of {length} bytes, or changed", got.len());
}

async fn told_after_end(guest: &dyn Transport) -> u64 {
    let mut told = [0; 8];
    dial(guest, AFTER_END).await.read_exact(&mut told).await.expect("eight bytes");
    u64::from_le_bytes(told)
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = timeout(PATIENCE, work).await;
    eprintln!("{what}: {:.1} s", start.elapsed().as_secs_f32());
    done.unwrap_or_else(|_| panic!("{what} stalls"))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_to_a_real_guest_end_as_they_should() {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(kernel), Some(program)) = (var("SLIPWAY_TEST_KERNEL"), var("SLIPWAY_TEST_GUEST")) else {
        eprintln!("skipped: SLIPWAY_TEST_KERNEL and SLIPWAY_TEST_GUEST do not name a kernel and a guest");
        return;
    };
    let dir = tempfile::tempdir().expect("folder");
    let mut machine = in_time("boot", boot(dir.path(), kernel, &program)).await;
    let guest = machine.transport();

    in_time("the half-close matrix, 200 streams", async {
        for length in (0..67).map(|i| [0, 1, 4095, 65_536, 300_000][i % 5]) {
            host_ends_first(&*guest, length).await;
            guest_ends_first(&*guest, length, 1000).await;
            both_at_once(&*guest, length).await;
        }
    })
    .await;
    let deadline = Instant::now() + PATIENCE;
    while told_after_end(&*guest).await < 67_000 {
        assert!(Instant::now() < deadline, "bytes sent after the guest's end arrive");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told_after_end(&*guest).await, 67_000, "and none arrives twice");

    in_time("100 MB to the guest", host_ends_first(&*guest, 100_000_000)).await;
    in_time("100 MB from the guest", guest_ends_first(&*guest, 100_000_000, 0)).await;
    in_time("20 MB both ways at once", both_at_once(&*guest, 20_000_000)).await;

    in_time("1,000 streams at once, beside one that is never read", async {
        let mut stuck = dial(&*guest, SOURCE).await;
        stuck.write_all(&1_000_000_000u64.to_le_bytes()).await.expect("write");
        let mut streams = JoinSet::new();
        for _ in 0..1000 {
            let guest = guest.clone();
            streams.spawn(async move { both_at_once(&*guest, 5_000).await });
        }
        let mut done = 0;
        while let Some(joined) = streams.join_next().await {
            joined.expect("no stream fails");
            done += 1;
        }
        assert_eq!(done, 1000);
    })
    .await;

    let refused = guest.connect(GuestPort(9)).await.map(drop);
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "nothing listens there: {refused:?}");
    machine.kill(Duration::from_secs(5)).await.expect("ends");
    assert_eq!(machine.wait().await, ExitReason::Killed);
}
