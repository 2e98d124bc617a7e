//! What every driver owes whoever uses it, as one test for all of them: each driver's own tests run it with a machine of theirs.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use crate::{AccelChoice, Driver, ExitReason, Machine, MachineSpec};

/// A driver that needs longer for anything here does not do it.
const SOON: Duration = Duration::from_secs(30);
/// Long enough for what has ended to be seen to have ended.
const MOMENT: Duration = Duration::from_millis(100);
/// What a console tail has at most, in bytes.
const TAIL: usize = 64 << 10;

/// A small machine whose files lie in `dir`. Nothing is in them: its kernel comes as far as its panic, and stays.
///
/// # Errors
/// That of a file that cannot be made.
pub fn spec(dir: &Path, kernel: PathBuf) -> io::Result<MachineSpec> {
    let file = |name: &str, bytes: u64| {
        let path = dir.join(name);
        File::create(&path)?.set_len(bytes)?;
        Ok::<_, io::Error>(path)
    };
    Ok(MachineSpec {
        name: "test".into(),
        cpus: 1,
        memory_mib: 256,
        kernel,
        // Empty but for the trailer of an empty archive.
        initramfs: file("initramfs", 512)?,
        root_image: file("root", 1 << 20)?,
        data_disk: file("data", 1 << 20)?,
        cmdline: ["console=ttyS0", "panic=0"].map(String::from).to_vec(),
        run_dir: dir.into(),
        console_log: dir.join("console.log"),
        accel: AccelChoice::Auto,
        share_socket: None,
    })
}

/// Has machines of `spec` live and end, one after the other.
///
/// # Panics
/// When the driver does not do what [`Driver`] and [`Machine`] say.
pub async fn check(driver: &dyn Driver, spec: &MachineSpec) {
    let found = driver.probe(spec.accel).await.expect("machines run here");
    assert!(!found.vmm.is_empty() && !found.transport.is_empty(), "{found:?}");

    let none = MachineSpec { cpus: 0, ..spec.clone() };
    let refused = timeout(SOON, driver.start(&none)).await.expect("refused in time");
    assert!(refused.is_err(), "a machine without a processor is refused");

    // What was refused keeps nothing of the next one's.
    let mut machine = start(driver, spec).await;
    let capabilities = machine.capabilities();
    assert_eq!((capabilities.accel, &capabilities.transport), (found.accel, &found.transport));
    assert_ne!(machine.pid(), Some(0));
    assert_eq!(*machine.stall().borrow(), None);
    // As often as somebody looks and turns away.
    for _ in 0..2 {
        assert!(timeout(MOMENT, machine.wait()).await.is_err(), "it runs");
    }
    machine.pause().await.expect("pauses");
    assert!(timeout(MOMENT, machine.wait()).await.is_err(), "paused is not ended");
    machine.resume().await.expect("goes on");
    machine.kill(MOMENT).await.expect("ends");
    for _ in 0..2 {
        assert_eq!(timeout(SOON, machine.wait()).await.expect("ends in time"), ExitReason::Killed);
    }
    machine.kill(MOMENT).await.expect("again, which is nothing");
    assert!(machine.console_tail().len() <= TAIL);
    drop(machine);

    // One that is dropped while it runs lets go of everything, too.
    drop(start(driver, spec).await);
    let mut last = start(driver, spec).await;
    assert!(timeout(MOMENT, last.wait()).await.is_err(), "it runs");
    last.pause().await.expect("pauses");
    last.kill(MOMENT).await.expect("ends, paused or not");
    assert_eq!(timeout(SOON, last.wait()).await.expect("ends in time"), ExitReason::Killed);
}

async fn start(driver: &dyn Driver, spec: &MachineSpec) -> Box<dyn Machine> {
    timeout(SOON, driver.start(spec)).await.expect("starts in time").expect("starts")
}
