//! The way down: services stop in the reverse order of their start, the data disk is unmounted clean, the power goes off.

use std::{path::Path, time::Duration};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
    system::{RebootCommand, reboot},
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{logs::Logs, service};

/// A service that can be asked to stop.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) stop: oneshot::Sender<Duration>,
    pub(super) task: JoinSet<()>,
}

/// What every service but the first asked gets at least, when containers used up the whole time.
const LEAST: Duration = Duration::from_secs(2);
/// How long the data disk may be busy after everything was killed.
const BUSY: Duration = Duration::from_secs(5);

/// Stops everything within `time`, and powers off. Returns only when the kernel refuses to.
pub(super) async fn off(mut services: Vec<Running>, data: Option<&Path>, time: Duration, logs: &Logs) {
    let deadline = Instant::now() + time;
    logs.say(format!("powering off; containers get {} s", time.as_secs()));
    // dockerd last started, first stopped: it gives each container its own time.
    while let Some(mut service) = services.pop() {
        let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
        // Refused when it had just ended by itself.
        if service.stop.send(left).is_ok() {
            while service.task.join_next().await.is_some() {}
        }
        logs.say(format!("{} stopped", service.name));
    }
    // What is left of containers whose time was over, and whatever the shell started.
    for group in groups() {
        service::kill_group(&group);
    }
    rustix::fs::sync();
    if let Some(data) = data {
        release(data, logs).await;
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
}

fn groups() -> Vec<std::path::PathBuf> {
    let Ok(found) = std::fs::read_dir("/sys/fs/cgroup") else { return Vec::new() };
    found.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Unmounts the data disk, so that its file system is clean; read-only is the next best.
async fn release(data: &Path, logs: &Logs) {
    let deadline = Instant::now() + BUSY;
    loop {
        // Overlays and networks that a killed dockerd left behind hold the disk.
        for target in mounted_below(&["/var/lib/docker", "/var/lib/containerd", "/run/docker"]) {
            let _ = unmount(&target, UnmountFlags::empty());
        }
        match unmount(data, UnmountFlags::empty()) {
            Ok(()) => return,
            Err(error) if Instant::now() > deadline => {
                logs.say(format!("the data disk is busy ({error}); it is made read-only instead"));
                let _ = mount_remount(data, MountFlags::RDONLY, c"");
                return;
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Mount points at or below any of `roots`, deepest and newest first.
fn mounted_below(roots: &[&str]) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|target| roots.iter().any(|root| Path::new(target).starts_with(root)))
        .map(str::to_owned)
        .collect();
    found.reverse();
    found
}
