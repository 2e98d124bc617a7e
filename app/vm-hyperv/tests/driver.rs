//! The driver's own paths, against a Host Compute Service and Network that play their part (`tests/windows/computecore.c`,
//! `computenetwork.c`), and against none. Run by `tests/windows/run`.
#![cfg(windows)]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use slipway_vm::{
    Accel, AccelChoice, Driver, DriverError, ExitReason, Machine, MachineSpec, SharedFolder, contract,
};
use slipway_vm_hyperv::{HypervConfig, HypervDriver};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(20);
/// The mock's folder is one per process, so its machine is, too.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Stage {
    dir: tempfile::TempDir,
    driver: HypervDriver,
    spec: MachineSpec,
}

impl Stage {
    /// A machine's files and the mock; `None`: this run has no mock.
    fn set() -> Option<Self> {
        let Some(dll) = std::env::var_os("SLIPWAY_TEST_HCS") else {
            println!("skipped: SLIPWAY_TEST_HCS names no computecore.dll (tests/windows/run makes one)");
            return None;
        };
        let folder = PathBuf::from(std::env::var_os("SLIPWAY_MOCK_HCS").expect("the mock's folder"));
        for file in ["calls", "refuse", "exit.json", "endpoint", "no-default-switch", "own-network"] {
            let _ = std::fs::remove_file(folder.join(file));
        }
        let dir = tempfile::tempdir().expect("folder");
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![7; 1 << 20]).expect("written");
            path
        };
        let spec = MachineSpec {
            name: "default".into(),
            cpus: 2,
            memory_mib: 2048,
            kernel: file("kernel"),
            initramfs: file("initramfs"),
            root_image: file("root.erofs"),
            data_disk: file("data.vhdx"),
            cmdline: vec!["quiet".into()],
            run_dir: dir.path().to_owned(),
            console_log: dir.path().join("console.log"),
            accel: AccelChoice::Auto,
            share_socket: None,
        };
        let driver = HypervDriver::new(HypervConfig { dll: Some(dll.into()), ..HypervConfig::default() });
        Some(Self { dir, driver, spec })
    }

    async fn start(&self) -> Box<dyn Machine> {
        timeout(SOON, self.driver.start(&self.spec)).await.expect("in time").expect("starts")
    }

    /// What HCS was asked, in order.
    fn calls() -> Vec<String> {
        let text = std::fs::read_to_string(mock("calls")).expect("calls");
        text.lines().map(str::to_owned).collect()
    }
}

fn mock(name: &str) -> PathBuf {
    Path::new(&std::env::var_os("SLIPWAY_MOCK_HCS").expect("the mock's folder")).join(name)
}

/// Ends the machine from within, with these words of HCS's.
fn end(how: &str) {
    // Renamed, so that the mock does not read a half.
    std::fs::write(mock("exit.new"), how).expect("written");
    std::fs::rename(mock("exit.new"), mock("exit.json")).expect("renamed");
}

async fn ends(machine: &mut Box<dyn Machine>) -> ExitReason {
    timeout(SOON, machine.wait()).await.expect("ends")
}

#[tokio::test]
async fn without_hyper_v_it_is_said() {
    let driver = HypervDriver::new(HypervConfig {
        dll: Some(r"C:\no\computecore.dll".into()),
        ..HypervConfig::default()
    });
    let error = driver.probe(AccelChoice::Auto).await.expect_err("there is none");
    assert!(
        matches!(&error, DriverError::NotInstalled { program } if program.contains("Hyper-V")),
        "{error}"
    );
    let error = driver.probe(AccelChoice::Kvm).await.expect_err("not here").to_string();
    assert!(error.contains("on Windows machines run on Hyper-V"), "{error}");
}

#[tokio::test]
async fn a_machine_is_made_run_stopped_and_started_again() {
    let _one = ONE.lock().await;
    let Some(stage) = Stage::set() else { return };
    let found = stage.driver.probe(AccelChoice::Auto).await.expect("answers");
    assert_eq!((found.accel, found.transport.as_str()), (Accel::Hyperv, "hvsocket"));
    let mut machine = stage.start().await;
    let vhd = std::fs::metadata(stage.dir.path().join("root.vhd")).expect("the root as a disk").len();
    assert_eq!(vhd, (1 << 20) + 512, "the image and a footer");
    let deadline = Instant::now() + SOON;
    while !String::from_utf8_lossy(&machine.console_tail()).contains("Linux version of the mock") {
        assert!(Instant::now() < deadline, "nothing on the console");
        sleep(Duration::from_millis(10)).await;
    }
    machine.pause().await.expect("pauses");
    let error = machine.pause().await.expect_err("it is paused").to_string();
    assert!(error.contains("pause the machine"), "{error}");
    machine.resume().await.expect("goes on");

    let folder =
        |name: &str| SharedFolder { name: name.into(), path: stage.dir.path().join(name), read_only: true };
    machine.share(&[folder("one"), folder("two")]).await.expect("shared");
    machine.share(&[folder("two")]).await.expect("one less");

    machine.kill(Duration::from_secs(1)).await.expect("ends");
    assert_eq!(ends(&mut machine).await, ExitReason::Killed);
    machine.kill(Duration::from_secs(1)).await.expect("again, which is nothing");
    drop(machine);

    let calls = Stage::calls();
    let names: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').next()).collect();
    let asked = |name: &str| names.iter().filter(|call| **call == name).count();
    assert_eq!(
        (asked("HcsGrantVmAccess"), asked("HcsModifyComputeSystem"), asked("HcsTerminateComputeSystem")),
        (4, 3, 1),
        "{calls:#?}"
    );
    // Its endpoint goes after it.
    assert_eq!(names[names.len() - 2..], ["HcsCloseComputeSystem", "HcnDeleteEndpoint"], "{calls:#?}");
    assert!(calls.last().is_some_and(|call| call.ends_with(" 0 open")), "{calls:#?}");
    let document = calls.iter().find_map(|call| call.strip_prefix("HcsCreateComputeSystem ")).expect("made");
    let document: serde_json::Value = serde_json::from_str(document).expect("one line of JSON");
    assert_eq!(
        document.pointer("/VirtualMachine/ComputeTopology/Memory/SizeInMB"),
        Some(&2048.into()),
        "{document}"
    );
    let cmdline = document.pointer("/VirtualMachine/Chipset/LinuxKernelDirect/KernelCmdLine");
    assert_eq!(
        cmdline,
        Some(&"quiet slipway.net=172.20.16.9/20,172.20.16.1,172.20.16.1".into()),
        "{document}"
    );
    let adapters = document.pointer("/VirtualMachine/Devices/NetworkAdapters").and_then(|a| a.as_object());
    let adapter = adapters.and_then(|adapters| adapters.iter().next()).expect("one");
    assert_eq!(adapter.1["MacAddress"], "00-15-5D-AA-BB-CC", "{document}");

    let mut machine = stage.start().await;
    end(r#"{"Status":0,"ExitType":"GracefulExit"}"#);
    assert_eq!(ends(&mut machine).await, ExitReason::PoweredOff);
}

#[tokio::test]
async fn it_is_a_driver_as_any_other() {
    let _one = ONE.lock().await;
    let Some(stage) = Stage::set() else { return };
    contract::check(&stage.driver, &stage.spec).await;
}

#[tokio::test]
async fn a_machine_that_dies_says_of_what() {
    let _one = ONE.lock().await;
    let Some(stage) = Stage::set() else { return };
    let mut machine = stage.start().await;
    let crash = r#"{"ExitType":"UnexpectedExit","Attribution":[{"GuestCrash":{"CrashParameters":[1,255]}}]}"#;
    end(crash);
    let detail = "the guest's kernel panicked (0x1, 0xff)".to_owned();
    assert_eq!(ends(&mut machine).await, ExitReason::Crashed { detail });
}

#[tokio::test]
async fn a_start_that_is_refused_leaves_nothing() {
    let _one = ONE.lock().await;
    let Some(stage) = Stage::set() else { return };
    let calls = [
        "HcsCreateComputeSystem",
        "HcsStartComputeSystem",
        "HcsGrantVmAccess",
        "HcnOpenNetwork",
        "HcnCreateEndpoint",
        "HcnQueryEndpointProperties",
    ];
    for call in calls {
        std::fs::write(mock("refuse"), call).expect("written");
        let error = stage.driver.start(&stage.spec).await.map(drop).expect_err("refused");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(source.contains(call) && source.contains("0x80370102"), "{error}: {source}");
        assert_eq!(source.contains("no hypervisor is running"), call == "HcsStartComputeSystem", "{source}");
        assert_eq!(source.contains("the network service refused"), call.starts_with("Hcn"), "{source}");
        assert!(!mock("endpoint").exists(), "after {call}");
    }
    let calls = Stage::calls();
    let count = |name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
    // Two creations were tried; the one that made a machine closed it.
    assert_eq!((count("HcsCreateComputeSystem"), count("HcsCloseComputeSystem")), (2, 1), "{calls:#?}");
    std::fs::remove_file(mock("refuse")).expect("removed");
    drop(stage.start().await);
}

#[tokio::test]
async fn the_endpoint_that_a_crash_left_is_taken_away() {
    let _one = ONE.lock().await;
    let Some(stage) = Stage::set() else { return };
    let id = slipway_vm_hyperv::network::endpoint_id(stage.spec.id());
    let id = slipway_vm_hyperv::network::guid(id);
    std::fs::write(mock("endpoint"), &id).expect("written");
    let machine = stage.start().await;
    assert_eq!(std::fs::read_to_string(mock("endpoint")).expect("its own"), id);
    drop(machine);
    assert!(!mock("endpoint").exists());
}

#[tokio::test]
async fn a_windows_server_gets_a_network_once() {
    let _one = ONE.lock().await;
    let Some(stage) = Stage::set() else { return };
    std::fs::write(mock("no-default-switch"), "").expect("written");
    drop(stage.start().await);
    drop(stage.start().await);
    let calls = Stage::calls();
    let made: Vec<_> = calls.iter().filter(|call| call.starts_with("HcnCreateNetwork")).collect();
    assert!(made.len() == 1 && made[0].contains("ICS"), "{calls:#?}");
    let own = slipway_vm_hyperv::network::guid(slipway_vm_hyperv::network::OWN_NETWORK);
    assert_eq!(
        calls.iter().filter(|call| call.starts_with("HcnCreateEndpoint") && call.contains(&own)).count(),
        2
    );
}
