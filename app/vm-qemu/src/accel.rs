//! Does KVM run a guest here? A device that opens proves nothing: under some hypervisors the firmware runs and the
//! kernel dies. So a kernel is started, and only its first line counts.

use std::{process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{Qemu, QemuConfig, args, command};

/// How long the kernel may take to print its first line; on working KVM it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(6);
const FIRST_LINE: &[u8] = b"Linux version";

/// A verdict holds until the host boots anew or QEMU changes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    boot_id: String,
    qemu: String,
    /// Why KVM does not work; `None`: it does.
    failure: Option<String>,
}

/// `Err` says why not, for a person.
pub(crate) async fn kvm_works(config: &QemuConfig, qemu: &Qemu) -> Result<(), String> {
    if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Err(match e.kind() {
            std::io::ErrorKind::NotFound => "/dev/kvm does not exist on this host".into(),
            std::io::ErrorKind::PermissionDenied => "this user may not open /dev/kvm".into(),
            _ => format!("/dev/kvm cannot be opened: {e}"),
        });
    }
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let remembered = std::fs::read(&config.verdict_file)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Verdict>(&bytes).ok())
        .filter(|v| v.boot_id == boot_id && v.qemu == qemu.full);
    if let Some(verdict) = remembered {
        return verdict.failure.map_or(Ok(()), Err);
    }
    let failure = try_kernel(config, qemu).await.err();
    let verdict = Verdict { boot_id, qemu: qemu.full.clone(), failure: failure.clone() };
    // Not remembered: the next start tries again, which costs seconds and nothing else.
    if let Ok(bytes) = serde_json::to_vec(&verdict) {
        let _ = std::fs::write(&config.verdict_file, bytes);
    }
    failure.map_or(Ok(()), Err)
}

async fn try_kernel(config: &QemuConfig, qemu: &Qemu) -> Result<(), String> {
    const DEAD: &str = "/dev/kvm opened but the guest did not run on it";
    let mut child = command(qemu)
        .args(["-machine", "q35", "-m", "256M", "-kernel"])
        .arg(&config.probe_kernel)
        .args(["-append", "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1"])
        .args(args::accelerator(slipway_vm::Accel::Kvm, qemu.version))
        .args(args::hardening())
        .args(args::console())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("QEMU could not be started to try KVM: {e}"))?;
    let mut stdout = child.stdout.take().expect("BUG: stdout was asked to be a pipe");
    let mut seen = Vec::new();
    let first_line = async {
        let mut buffer = [0u8; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..count]);
            if seen.windows(FIRST_LINE.len()).any(|w| w == FIRST_LINE) {
                return true;
            }
            // A guest that babbles and never says it is not a kernel that runs.
            if seen.len() > 1 << 20 {
                return false;
            }
        }
        false
    };
    let alive = timeout(PATIENCE, first_line).await.unwrap_or(false);
    // It may have ended by itself.
    let _ = child.kill().await;
    if alive { Ok(()) } else { Err(DEAD.into()) }
}
