//! The driver with the real QEMU and a real kernel. Needs both; says so and skips where they are not.
//!
//! `tests/run` sets `SLIPWAY_TEST_KERNEL` to a Debian kernel. The guest has no root, so the kernel comes as far as its panic:
//! far enough to see that QEMU takes our command line, our vsock device and our orders.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_protocol::ports::CONTROL;
use slipway_vm::{Accel, AccelChoice, Driver, DriverError, ExitReason, Machine, MachineSpec, contract};
use slipway_vm_qemu::{GuestArch, QemuConfig, QemuDriver};
use slipway_vsock::ConnectError;
use tokio::time::{Instant, sleep, timeout};

struct Bench {
    dir: tempfile::TempDir,
    driver: QemuDriver,
    spec: MachineSpec,
}

/// `None`, with the reason on stderr, where this cannot run.
fn bench() -> Option<Bench> {
    let Some(kernel) = std::env::var_os("SLIPWAY_TEST_KERNEL").map(PathBuf::from) else {
        eprintln!("skipped: SLIPWAY_TEST_KERNEL does not name a kernel");
        return None;
    };
    // A comma and a space, because people's homes have them.
    let dir = tempfile::Builder::new().prefix("qemu, test").tempdir().expect("folder");
    let spec = contract::spec(dir.path(), kernel.clone()).expect("files");
    let spec = MachineSpec { accel: AccelChoice::Tcg, ..spec };
    let config = QemuConfig {
        binary: None,
        guest: GuestArch::HOST,
        probe_kernel: kernel,
        verdict_file: dir.path().join("accel.json"),
    };
    Some(Bench { driver: QemuDriver::new(config), spec, dir })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_driver_as_any_other() {
    let Some(bench) = bench() else { return };
    contract::check(&bench.driver, &bench.spec).await;
}

async fn says(machine: &dyn Machine, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !String::from_utf8_lossy(&machine.console_tail()).contains(words) {
        let tail = machine.console_tail();
        assert!(
            Instant::now() < deadline,
            "the guest says `{words}`, not {}",
            String::from_utf8_lossy(&tail)
        );
        sleep(Duration::from_millis(100)).await;
    }
}

async fn ended(machine: &mut dyn Machine) -> ExitReason {
    timeout(Duration::from_secs(20), machine.wait()).await.expect("the machine ends in time")
}

fn is_gone(path: &Path) -> bool {
    !path.exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_runs_and_is_ended_on_request() {
    let Some(bench) = bench() else { return };
    let mut machine = bench.driver.start(&bench.spec).await.expect("starts");
    assert_eq!(machine.capabilities().accel, Accel::Tcg);
    says(&*machine, "Linux version").await;
    machine.pause().await.expect("pauses");
    machine.resume().await.expect("goes on");
    let dial = machine.transport().connect(CONTROL).await.map(drop);
    assert!(matches!(dial, Err(ConnectError::TimedOut { .. })), "no agent answers: {dial:?}");
    machine.kill(Duration::from_secs(5)).await.expect("ends");
    assert_eq!(ended(&mut *machine).await, ExitReason::Killed);
    let dial = machine.transport().connect(CONTROL).await.map(drop);
    assert!(matches!(dial, Err(ConnectError::Closed)), "the device is gone with its machine: {dial:?}");
    for socket in ["vsock.sock", "qmp.sock"] {
        assert!(is_gone(&bench.dir.path().join(socket)), "{socket} is removed");
    }
    let log = std::fs::read_to_string(&bench.spec.console_log).expect("the console is kept");
    assert!(log.contains("Linux version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vm_process_is_a_crash_with_its_signal() {
    let Some(bench) = bench() else { return };
    let mut machine = bench.driver.start(&bench.spec).await.expect("starts");
    let pid = machine.pid().and_then(|p| rustix::process::Pid::from_raw(p.cast_signed())).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("our own process");
    let ExitReason::Crashed { detail } = ended(&mut *machine).await else { panic!("that is a crash") };
    assert!(detail.contains("signal 9"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_qemu_refuses_is_told_in_its_own_words() {
    let Some(mut bench) = bench() else { return };
    bench.spec.root_image = bench.dir.path().join("nothing here");
    let refused = bench.driver.start(&bench.spec).await.map(|_| ());
    let Err(DriverError::EndedEarly { detail }) = refused else { panic!("QEMU ends: {refused:?}") };
    assert!(detail.contains("nothing here"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accelerator_is_chosen_by_what_runs_a_guest_within_ten_seconds() {
    let Some(bench) = bench() else { return };
    let start = Instant::now();
    let found = bench.driver.probe(AccelChoice::Auto).await.expect("some accelerator works everywhere");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    eprintln!("this host: {found:?}");
    assert_eq!(found.accel == Accel::Tcg, found.accel_reason.is_some(), "the slower one has a reason");
    let insisted = bench.driver.probe(AccelChoice::Kvm).await;
    assert_eq!(insisted.is_ok(), found.accel == Accel::Kvm, "insisting changes nothing: {insisted:?}");
}

#[tokio::test]
async fn a_missing_qemu_is_named() {
    let config = QemuConfig {
        guest: GuestArch::HOST,
        binary: Some("/nonexistent/qemu-system-x86_64".into()),
        probe_kernel: "/nonexistent".into(),
        verdict_file: "/nonexistent".into(),
    };
    let missing = QemuDriver::new(config).probe(AccelChoice::Auto).await;
    assert!(matches!(missing, Err(DriverError::NotInstalled { .. })), "{missing:?}");
}
