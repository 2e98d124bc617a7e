//! Claims the ports on which containers of `--network host` listen, for as long as they do.
//!
//! ```text
//!            a cgroup appears
//!   QUIET ───────────────────▶ LOOKING ── every half second ──▶ what listens is claimed, what does not is given up
//!     ▲                           │
//!     └── nobody in our network ──┘
//!         for some seconds
//! ```
//!
//! The kernel tells nobody that a socket began to listen, so it is looked for; but only while there is somebody who could
//! listen: a guest without such containers sleeps.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

use super::{
    Claim, Ports,
    listening::{Listening, Looker},
};
use crate::logs::Logs;

/// Where the guest's cgroups are.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// Between two looks: short against what a person takes to use a port, long against a look.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it takes at most from a container's cgroup to its first process, on a busy machine.
const STARTING: Duration = Duration::from_secs(20);

/// Watches for ever.
///
/// # Errors
/// The kernel does not tell of new cgroups.
pub(crate) async fn run(cgroups: PathBuf, ports: Ports, logs: &Logs) -> io::Result<()> {
    let news = Arc::new(queue()?);
    let mut looker = Looker::new(cgroups);
    let mut claims: BTreeMap<Listening, Claim> = BTreeMap::new();
    let mut until = Instant::now() + STARTING;
    let mut told = false;
    loop {
        let watch = Arc::clone(&news);
        // A thread for it: reading about many processes takes a while.
        let looked = tokio::task::spawn_blocking(move || {
            let seen = looker.look(|folder| {
                // A folder that is gone already needs no watch; one that is watched already stays so.
                let _ = inotify::add_watch(watch.get_ref(), folder, WatchFlags::CREATE);
            });
            (looker, seen)
        });
        let (back, seen) = looked.await.map_err(io::Error::other)?;
        looker = back;
        match seen {
            Ok(seen) => {
                claims.retain(|port, _| seen.ports.contains(port));
                for port in seen.ports {
                    if let Entry::Vacant(vacant) = claims.entry(port) {
                        // What the host says to it is the host's to show: it goes on trying.
                        let claim = ports.claim(vacant.key().bind()).await;
                        vacant.insert(claim);
                    }
                }
                if seen.containers {
                    until = Instant::now() + STARTING;
                }
            }
            Err(error) if !told => {
                told = true;
                logs.say(format!("failed to look for ports of containers in the host's network: {error}"));
            }
            Err(_) => {}
        }
        if Instant::now() < until {
            sleep(PAUSE).await;
        } else {
            created(&news).await?;
            until = Instant::now() + STARTING;
        }
    }
}

/// Where the kernel tells of new folders.
fn queue() -> io::Result<AsyncFd<OwnedFd>> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) }?)
}

/// Returns when folders were made since it returned last.
async fn created(news: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = news.readable().await?;
        let mut some = false;
        let mut buffer = [0; 4096];
        // What they are is seen by looking. Read to the end, which is an error by the name of `WouldBlock`.
        while let Ok(read) = ready.try_io(|news| Ok(rustix::io::read(news.get_ref(), &mut buffer)?)) {
            some = read? > 0 || some;
        }
        if some {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_quiet_watcher_wakes_for_each_new_folder_once() {
        let root = tempfile::tempdir().expect("folder");
        let news = queue().expect("a queue");
        inotify::add_watch(news.get_ref(), root.path(), WatchFlags::CREATE).expect("watched");
        let quiet = Duration::from_millis(50);
        for name in ["one", "two"] {
            assert!(timeout(quiet, created(&news)).await.is_err(), "nothing is there before {name}");
            std::fs::create_dir(root.path().join(name)).expect("made");
            timeout(Duration::from_secs(5), created(&news)).await.expect("in time").expect("read");
        }
    }
}
