//! Does KVM run a guest here? A device that opens proves nothing: under some hypervisors the firmware runs and the
//! kernel dies. So a kernel is started, and only its first line counts.

use std::{process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::{GuestArch, Qemu, QemuConfig, arch::Board, args, command};

/// How long the kernel may take to print its first line; on working KVM it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(6);
const FIRST_LINE: &[u8] = b"Linux version";
/// What QEMU says when the host's KVM cannot go on with a guest; QEMU itself then waits for a debugger.
const GIVEN_UP: &[u8] = b"KVM internal error";

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
    if config.guest != GuestArch::HOST {
        return Err(format!("the guest is for {}, and this host's processor is not", config.guest.name()));
    }
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
        .args(["-machine", config.guest.board(), "-m", "256M", "-kernel"])
        .arg(&config.probe_kernel)
        .args(["-append", config.guest.early_console()])
        .args(args::accelerator(config.guest, slipway_vm::Accel::Kvm, qemu.version))
        .args(args::hardening())
        .args(args::console())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("QEMU could not be started to try KVM: {e}"))?;
    let stdout = child.stdout.take().expect("BUG: stdout was asked to be a pipe");
    let stderr = child.stderr.take().expect("BUG: stderr was asked to be a pipe");
    let verdict = async {
        tokio::select! {
            alive = says(stdout, FIRST_LINE) => alive,
            // A QEMU that has nothing to complain of, or ends, is judged by what the kernel says.
            true = says(stderr, GIVEN_UP) => false,
        }
    };
    let alive = timeout(PATIENCE, verdict).await.unwrap_or(false);
    // It may have ended by itself.
    let _ = child.kill().await;
    if alive { Ok(()) } else { Err(DEAD.into()) }
}

/// Whether `words` come before the end; `false` also for a babbler that never says them.
async fn says(mut from: impl AsyncRead + Unpin, words: &[u8]) -> bool {
    let (mut seen, mut buffer) = (Vec::new(), [0u8; 4096]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..count]);
        if seen.windows(words.len()).any(|w| w == words) {
            return true;
        }
        if seen.len() > 1 << 20 {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Instant};

    use super::*;
    use crate::version::Version;

    /// Tries a "QEMU" that is a script.
    async fn tried(script: &str) -> (Result<(), String>, Duration) {
        let dir = tempfile::tempdir().expect("folder");
        let binary = dir.path().join("qemu");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("set");
        let qemu = Qemu { binary, version: Version::new(7, 2), full: "7.2".into() };
        let config = QemuConfig {
            binary: None,
            guest: GuestArch::HOST,
            probe_kernel: "/k".into(),
            verdict_file: dir.path().join("verdict"),
        };
        let began = Instant::now();
        (try_kernel(&config, &qemu).await, began.elapsed())
    }

    #[tokio::test]
    async fn a_kernel_that_prints_its_first_line_runs() {
        assert_eq!(
            tried("echo 'warning: x' >&2; echo '[0.0] Linux version 6.12'; exec sleep 60").await.0,
            Ok(())
        );
        assert_eq!(tried("exec 2>&-; echo '[0.0] Linux version 6.12'; exec sleep 60").await.0, Ok(()));
    }

    #[tokio::test]
    async fn a_kvm_that_gives_up_is_not_waited_for() {
        let script =
            "echo 'KVM internal error. Suberror: 1' >&2; echo 'emulation failure' >&2; exec sleep 60";
        let (verdict, took) = tried(script).await;
        assert!(verdict.is_err() && took < PATIENCE, "{verdict:?} after {took:?}");
        assert!(tried("exit 1").await.0.is_err(), "a QEMU that ends has run nothing");
    }
}
