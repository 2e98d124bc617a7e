//! What a Linux computer gives: QEMU, acceleration, namespaces, watches.
//!
//! What is read of the system and what follows from it are apart, so that the second is tested for computers that are not
//! at hand.

use std::{io, process::Stdio, time::Duration};

use serde::Deserialize;
use slipway_api::CheckState;
use slipway_settings::resolved::Settings;
use slipway_vm::GuestArch;
use tokio::{process::Command, time::timeout};

use super::{
    Finding, Subject, Ward,
    network::{Proxy, proxies_of},
};
use crate::{
    boot::vmm::{self, qemu_for, qemu_package},
    image::installed_processor,
};

/// How long a program may take to say what it is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// Oldest QEMU that the driver takes.
const OLDEST: (u32, u32) = (7, 2);
/// Folders that a project of ordinary size has: `node_modules` alone is some thousand.
const WATCHES: u64 = 8192;

/// What programs of this computer say.
#[derive(Debug)]
pub(super) struct Facts {
    /// What the installed image is for.
    guest: GuestArch,
    /// First line of `qemu --version`.
    qemu: Result<String, String>,
    /// Whether this user may make the namespaces that the share server is confined to; `None`: nobody to ask.
    spaces: Option<Result<(), String>>,
    /// The engine's proxies.
    pub(super) proxies: Vec<Proxy>,
}

impl Facts {
    pub(super) async fn gather(subject: &Subject, settings: Option<&Settings>) -> Self {
        let guest = installed_processor(&subject.paths);
        let (mut version, mut namespaces) = (Command::new(qemu_for(guest)), Command::new("unshare"));
        version.arg("--version");
        namespaces.args(["--user", "--mount", "--net", "--map-root-user", "true"]);
        let proxies = async {
            match settings {
                Some(settings) => proxies_of(subject, settings).await,
                None => Vec::new(),
            }
        };
        let (qemu, spaces, proxies) = tokio::join!(said(&mut version), said(&mut namespaces), proxies);
        let spaces = match spaces {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error.to_string())),
        };
        let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
        Self { guest, qemu: qemu.map(first).map_err(|error| error.to_string()), spaces, proxies }
    }
}

/// What a program prints; its complaint as the error when it fails.
async fn said(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output)
        .await
        .map_err(|_| io::Error::other(format!("it did not end in {} s", PATIENCE.as_secs())))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let complaint = text(&output.stderr);
    Err(io::Error::other(if complaint.is_empty() { output.status.to_string() } else { complaint }))
}

pub(super) fn qemu(ward: &Ward) -> Finding {
    let guest = ward.facts.guest;
    if let Err(problem) = vmm::find(guest) {
        return Finding::of(CheckState::Failed, problem);
    }
    match &ward.facts.qemu {
        Ok(line) => qemu_of(line),
        Err(why) => Finding::failed(format!("`{} --version` fails", qemu_for(guest)))
            .because(why.clone())
            .hint(format!("install it again: `sudo apt install --reinstall {}`", qemu_package(guest))),
    }
}

fn qemu_of(line: &str) -> Finding {
    let found = line.strip_prefix("QEMU emulator version ").and_then(|number| {
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?))
    });
    let needed = format!("{}.{}", OLDEST.0, OLDEST.1);
    match found {
        Some(version) if version >= OLDEST => Finding::ok(qemu_number(line)),
        Some((major, minor)) => {
            Finding::failed(format!("QEMU is {major}.{minor}, and {needed} is the oldest that works"))
                .hint("install a newer one: Debian 12 and Ubuntu 24.04 bring one")
        }
        None => Finding::failed("QEMU does not say which version it is")
            .because(line.to_owned())
            .hint(format!("QEMU {needed} or newer is needed")),
    }
}

/// As the driver remembers it: `7.2.22`.
fn qemu_number(line: &str) -> String {
    let number = line.trim_start_matches("QEMU emulator version ");
    number.split(' ').next().unwrap_or_default().to_owned()
}

/// What the driver found out about KVM; what it is remembered by decides whether it still holds.
#[derive(Debug, Deserialize)]
struct Verdict {
    boot_id: String,
    qemu: String,
    failure: Option<String>,
}

pub(super) fn acceleration(ward: &Ward) -> Finding {
    let choice = ward.settings.as_ref().map_or("auto", |settings| settings.accel.as_str());
    if ward.facts.guest != GuestArch::HOST && choice != "tcg" {
        return foreign(choice, ward.facts.guest);
    }
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").map(drop);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let qemu = ward.facts.qemu.as_deref().map(qemu_number).unwrap_or_default();
    let verdict = std::fs::read(ward.paths().accel_verdict())
        .ok()
        .and_then(|json| serde_json::from_slice::<Verdict>(&json).ok())
        .filter(|verdict| verdict.boot_id == boot_id && verdict.qemu == qemu)
        .map(|verdict| verdict.failure.map_or(Ok(()), Err));
    acceleration_of(choice, device.map_err(|error| error.kind()), verdict)
}

/// Of an image for another processor.
fn foreign(choice: &str, guest: GuestArch) -> Finding {
    not_accelerated(choice)
        .because(format!("the guest image is for {}, and this computer's processor is not", guest.name()))
        .hint(format!("`slipway image install DIR` with an image for {}", GuestArch::HOST.name()))
}

fn not_accelerated(choice: &str) -> Finding {
    if choice == "kvm" {
        Finding::failed("no hardware acceleration, and `machine.accel` asks for nothing else")
    } else {
        Finding::warning("no hardware acceleration: everything works, several times slower")
    }
}

fn acceleration_of(
    choice: &str,
    device: Result<(), io::ErrorKind>,
    verdict: Option<Result<(), String>>,
) -> Finding {
    if choice == "tcg" {
        return Finding::ok("software emulation, as `machine.accel` says");
    }
    let (why, hint) = match (device, verdict) {
        (Ok(()), Some(Ok(()))) => return Finding::ok("KVM runs guests"),
        (Ok(()), None) => return Finding::ok("/dev/kvm opens; the next start tries whether it runs a guest"),
        (Ok(()), Some(Err(why))) => {
            (why, "in a virtual machine, nested virtualization must be on in the computer below")
        }
        (Err(io::ErrorKind::PermissionDenied), _) => (
            "this user may not open /dev/kvm".to_owned(),
            "`sudo usermod -aG kvm $USER`, then log in anew; until then `sudo setfacl -m u:$USER:rw /dev/kvm`",
        ),
        (Err(io::ErrorKind::NotFound), _) => (
            "/dev/kvm does not exist".to_owned(),
            "turn virtualization on in the firmware, or nested virtualization in the computer below; \
             `sudo modprobe kvm_intel` or `kvm_amd` loads the driver",
        ),
        (Err(kind), _) => (format!("/dev/kvm cannot be opened: {kind}"), "`sudo dmesg` may say why"),
    };
    not_accelerated(choice).because(why).hint(hint)
}

pub(super) fn user_namespaces(ward: &Ward) -> Finding {
    let number = |name: &str| std::fs::read_to_string(name).ok().and_then(|text| text.trim().parse().ok());
    let limits = Spaces {
        most: number("/proc/sys/user/max_user_namespaces"),
        unprivileged: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        root: rustix::process::geteuid().is_root(),
    };
    user_namespaces_of(&limits, ward.facts.spaces.as_ref())
}

/// What the kernel says about user namespaces; `None` where it has no such knob.
#[derive(Debug, Default)]
struct Spaces {
    most: Option<u64>,
    unprivileged: Option<u64>,
    apparmor: Option<u64>,
    root: bool,
}

fn user_namespaces_of(limits: &Spaces, tried: Option<&Result<(), String>>) -> Finding {
    let ok = || Finding::ok("can be made: the server of shared folders is confined by them");
    let (name, value) = match limits {
        Spaces { most: Some(0), .. } => ("user.max_user_namespaces", "15000"),
        Spaces { unprivileged: Some(0), root: false, .. } => ("kernel.unprivileged_userns_clone", "1"),
        _ if tried.is_some_and(Result::is_ok) => return ok(),
        Spaces { apparmor: Some(1), root: false, .. } => {
            ("kernel.apparmor_restrict_unprivileged_userns", "0")
        }
        _ => {
            return match tried {
                Some(Err(why)) => {
                    Finding::failed("namespaces cannot be made, and host folders not be shared")
                        .because(why.clone())
                        .hint("in a container, it needs the right to make user namespaces")
                }
                _ => ok(),
            };
        }
    };
    let found = Finding::failed("user namespaces are off for this user, and host folders cannot be shared");
    let found = match tried {
        Some(Err(why)) => found.because(why.clone()),
        _ => found.because(format!("`{name}` forbids them")),
    };
    found.hint(sysctl(name, value))
}

/// How to set a knob of the kernel, now and for good.
fn sysctl(name: &str, value: &str) -> String {
    format!(
        "`sudo sysctl {name}={value}`; for good: `echo {name}={value} | sudo tee /etc/sysctl.d/60-slipway.conf`"
    )
}

pub(super) fn inotify(_: &Ward) -> Finding {
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let (Some(watches), Some(instances)) = (number("max_user_watches"), number("max_user_instances")) else {
        return Finding::not_applicable("this kernel does not say how much may be watched");
    };
    inotify_of(watches, instances, used())
}

fn inotify_of(watches: u64, instances: u64, (used_watches, used_instances): (u64, u64)) -> Finding {
    if instances <= used_instances {
        return Finding::warning("no program of this user can begin to watch files")
            .because(format!("{used_instances} of {instances} inotify instances are taken"))
            .hint(sysctl("fs.inotify.max_user_instances", "1024"));
    }
    let message = format!("{used_watches} of {watches} folders are watched");
    if watches.saturating_sub(used_watches) < WATCHES {
        return Finding::warning("changes in large shared folders will not all be events in containers")
            .because(message)
            .hint(sysctl("fs.inotify.max_user_watches", "1048576"));
    }
    Finding::ok(message)
}

/// Watches and instances of inotify that this user's processes have.
fn used() -> (u64, u64) {
    let (mut watches, mut instances) = (0, 0);
    // Others' folders of descriptors cannot be read, and do not count.
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = process.path();
        let owned = std::os::unix::fs::MetadataExt::uid;
        let ours = process.metadata().is_ok_and(|m| owned(&m) == rustix::process::getuid().as_raw());
        if !ours || !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        for descriptor in std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten() {
            let inotify = |to: std::path::PathBuf| to.as_os_str().as_encoded_bytes().ends_with(b"inotify");
            if !std::fs::read_link(descriptor.path()).is_ok_and(inotify) {
                continue;
            }
            instances += 1;
            let info = std::fs::read_to_string(dir.join("fdinfo").join(descriptor.file_name()));
            watches +=
                info.unwrap_or_default().lines().filter(|line| line.starts_with("inotify ")).count() as u64;
        }
    }
    (watches, instances)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(found: &Finding) -> &str {
        found.problem.hint.as_deref().unwrap_or_default()
    }

    #[test]
    fn an_old_qemu_is_told_apart_from_one_that_is_none() {
        let line = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(qemu_of(line), Finding::ok("7.2.22"));
        assert_eq!(qemu_of("QEMU emulator version 10.0.2").state, CheckState::Ok);
        let old = qemu_of("QEMU emulator version 6.2.0");
        assert!(old.state == CheckState::Failed && old.problem.message.contains("6.2"), "{old:?}");
        assert_eq!(qemu_of("bash: oops").state, CheckState::Failed);
    }

    #[test]
    fn a_kvm_without_rights_says_how_to_get_them() {
        let denied = acceleration_of("auto", Err(io::ErrorKind::PermissionDenied), None);
        assert!(
            denied.state == CheckState::Warning && denied.problem.message.contains("slower"),
            "{denied:?}"
        );
        assert!(hint(&denied).contains("usermod -aG kvm") && hint(&denied).contains("setfacl"), "{denied:?}");
        assert_eq!(
            acceleration_of("kvm", Err(io::ErrorKind::PermissionDenied), None).state,
            CheckState::Failed,
            "nothing else was asked for"
        );
    }

    #[test]
    fn an_image_for_another_processor_is_told_from_a_host_without_acceleration() {
        let found = foreign("auto", GuestArch::Aarch64);
        assert_eq!(found.state, CheckState::Warning);
        assert!(found.problem.causes[0].contains("for arm64"), "{found:?}");
        assert!(hint(&found).contains("image install"), "{found:?}");
        assert_eq!(
            foreign("kvm", GuestArch::Aarch64).state,
            CheckState::Failed,
            "nothing else was asked for"
        );
    }

    #[test]
    fn a_kvm_that_opens_counts_as_what_was_found_out_about_it() {
        assert_eq!(acceleration_of("auto", Ok(()), Some(Ok(()))).state, CheckState::Ok);
        assert_eq!(acceleration_of("auto", Ok(()), None).state, CheckState::Ok);
        let dead = acceleration_of("auto", Ok(()), Some(Err("the guest did not run on it".into())));
        assert_eq!(dead.state, CheckState::Warning);
        assert_eq!(dead.problem.causes, ["the guest did not run on it"]);
        let chosen = acceleration_of("tcg", Err(io::ErrorKind::NotFound), None);
        assert_eq!(chosen.state, CheckState::Ok, "emulation was asked for");
    }

    #[test]
    fn the_knob_that_forbids_namespaces_is_named() {
        let refused: Result<(), String> = Err("Operation not permitted".into());
        let off = Spaces { most: Some(0), ..Spaces::default() };
        assert!(
            hint(&user_namespaces_of(&off, Some(&refused))).contains("sudo sysctl user.max_user_namespaces=")
        );
        let debian = Spaces { unprivileged: Some(0), most: Some(100), ..Spaces::default() };
        assert!(hint(&user_namespaces_of(&debian, None)).contains("unprivileged_userns_clone=1"));
        let ubuntu = Spaces { apparmor: Some(1), most: Some(100), ..Spaces::default() };
        assert!(hint(&user_namespaces_of(&ubuntu, Some(&refused))).contains("apparmor_restrict"));
        assert_eq!(user_namespaces_of(&ubuntu, Some(&Ok(()))).state, CheckState::Ok, "what works counts");
        let root = Spaces { unprivileged: Some(0), root: true, most: Some(1), apparmor: None };
        assert_eq!(user_namespaces_of(&root, Some(&Ok(()))).state, CheckState::Ok);
        assert_eq!(user_namespaces_of(&root, Some(&refused)).state, CheckState::Failed);
    }

    #[test]
    fn limits_of_inotify_name_their_sysctl() {
        assert_eq!(inotify_of(65_536, 128, (100, 5)).state, CheckState::Ok);
        let few = inotify_of(8192, 128, (100, 5));
        assert!(
            few.state == CheckState::Warning && hint(&few).contains("fs.inotify.max_user_watches="),
            "{few:?}"
        );
        let none = inotify_of(65_536, 128, (100, 128));
        assert!(hint(&none).contains("fs.inotify.max_user_instances="), "{none:?}");
    }

    #[test]
    fn what_this_process_watches_is_counted() {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let (dir, before) = (tempfile::tempdir().expect("folder"), used());
        let watch = init(CreateFlags::CLOEXEC).expect("inotify");
        add_watch(&watch, dir.path(), WatchFlags::CREATE).expect("watched");
        let now = used();
        // Other processes of this user come and go; ours is there.
        assert!(now.0 >= 1 && now.1 >= 1, "{before:?} {now:?}");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_in_its_own_words() {
        let error = said(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).await.expect_err("fails");
        assert_eq!(error.to_string(), "no");
        let missing = said(&mut Command::new("/nonexistent/x")).await.expect_err("is not there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
