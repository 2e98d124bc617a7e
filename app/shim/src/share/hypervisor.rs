//! The hypervisor shares folders itself: under the name of each export, as one device on macOS and as a share each with Hyper-V. It hides
//! nothing inside them and reports no file events: this process watches what containers mount, since it is the one that outlives
//! the daemon, and containers hear of changes for as long as they run.

use std::{path::Path, sync::Arc};

use slipway_protocol::{ports::FILE_EVENTS, v1::FileEvent};
use slipway_share::{
    host_watch::{self, Standing, Tells, Wanted, Watcher},
    wire::{Answer, Call, Export, Status},
};
use slipway_vm::SharedFolder;
use slipway_vsock::Transport;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::DropGuard, task::TaskTracker};

use super::{ShareConfig, failed, outbox::Outbox};
use crate::server::Act;

/// What is shared. Clones are the same.
#[derive(Clone)]
pub(crate) struct Share {
    shared: Arc<Mutex<Vec<Export>>>,
    acts: Option<mpsc::Sender<Act>>,
    transport: Option<Arc<dyn Transport>>,
    events: Outbox,
    watching: Arc<Watching>,
    /// Has the task that sends events.
    tasks: TaskTracker,
}

/// What is watched, and by whom.
struct Watching {
    watcher: Watcher,
    wanted: std::sync::Mutex<Wanted>,
    /// The task that sends events ends with the last asker.
    _end: DropGuard,
}

impl Watching {
    /// Waits as long as it takes to look at what is to be watched: on a thread where that is allowed.
    async fn watch(self: &Arc<Self>, wanted: Wanted) -> Standing {
        let this = Arc::clone(self);
        let watched = tokio::task::spawn_blocking(move || {
            let mut kept = this.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.clone_from(&wanted);
            this.watcher.watch(wanted)
        });
        let failed = |error: tokio::task::JoinError| Standing {
            unwatched: Some(format!("a task failed: {error}")),
            ..Standing::default()
        };
        watched.await.unwrap_or_else(failed)
    }

    fn wanted(&self) -> Wanted {
        self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Tells for Outbox {
    fn send(&self, batch: Vec<FileEvent>) -> bool {
        Outbox::send(self, batch)
    }

    fn overflow(&self, events: Vec<FileEvent>) {
        Outbox::overflow(self, events);
    }
}

impl Share {
    /// Shares nothing yet: the daemon asks for each folder once the machine runs.
    ///
    /// # Errors
    /// The system has no thread for what watches.
    #[allow(clippy::unused_async)] // Elsewhere a process is started.
    pub(crate) async fn start(
        _exe: &Path,
        _config: &ShareConfig,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let events = Outbox::default();
        let watcher = Watcher::start(events.clone()).map_err(|error| format!("failed to watch: {error}"))?;
        let wanted = std::sync::Mutex::default();
        let watching = Arc::new(Watching { watcher, wanted, _end: events.ends_with() });
        let tasks = tasks.clone();
        Ok(Self { shared: Arc::default(), acts: None, transport: None, events, watching, tasks })
    }

    /// With the machine that shares them.
    pub(crate) fn with_machine(mut self, transport: Arc<dyn Transport>, acts: mpsc::Sender<Act>) -> Self {
        self.acts = Some(acts);
        self.transport = Some(transport);
        self
    }

    /// Asks one thing.
    pub(crate) async fn ask(&self, call: Call) -> Answer {
        match call {
            Call::Watch { paths, exclude, vouch: _ } => {
                let standing = self.watching.watch(Wanted { paths, exclude }).await;
                let shared = self.shared.lock().await.clone();
                Answer::Status(self.status(shared, standing))
            }
            Call::Events => self.begin_events().await,
            Call::Status => {
                let mut standing = self.watching.watcher.standing();
                if standing.unwatched.is_some() {
                    // What kept it from being watched may be gone.
                    standing = self.watching.watch(self.watching.wanted()).await;
                }
                let shared = self.shared.lock().await.clone();
                Answer::Status(self.status(shared, standing))
            }
            call => self.change(call).await,
        }
    }

    fn status(&self, exports: Vec<Export>, standing: Standing) -> Status {
        Status {
            exports,
            watches: standing.watches,
            unwatched: standing.unwatched,
            undelivered: self.events.broken(),
            events: self.events.sent(),
            overflows: standing.overflows,
            ..Status::default()
        }
    }

    /// Opens a stream of events into the guest, instead of the one before.
    async fn begin_events(&self) -> Answer {
        let Some(transport) = &self.transport else { return failed("events", "the machine has ended") };
        match transport.connect(FILE_EVENTS).await {
            Ok(stream) => {
                // What happened while nobody listened is lost.
                let end = self.events.begin(host_watch::lost(&self.watching.wanted().paths));
                self.tasks.spawn(self.events.clone().serve(stream, end));
                Answer::Done
            }
            Err(error) => failed("events", crate::server::chain(&error)),
        }
    }

    async fn change(&self, call: Call) -> Answer {
        // Kept while the machine is asked: changes come one after the other.
        let mut shared = self.shared.lock().await;
        let mut wanted = shared.clone();
        match call {
            // With the folder that it is in, the guest would have all that is beside it.
            Call::Add(export) if export.path.is_file() => {
                let path = export.path.display();
                return failed(
                    "export",
                    format!(
                        "`{path}` is a file, and on this system only folders can be shared: share the one that it is in"
                    ),
                );
            }
            Call::Add(export) => {
                wanted.retain(|other| other.id != export.id);
                wanted.push(export);
            }
            Call::Remove { id } => wanted.retain(|other| other.id != id),
            _ => return failed("invalid", "it has started already"),
        }
        match self.bring(&wanted).await {
            Ok(()) => {
                *shared = wanted;
                Answer::Done
            }
            Err(why) => failed("export", why),
        }
    }

    async fn bring(&self, wanted: &[Export]) -> Result<(), String> {
        let gone = || "the machine has ended".to_owned();
        let folders = wanted.iter().map(|export| SharedFolder {
            name: export.id.clone(),
            path: export.path.clone(),
            read_only: export.read_only,
        });
        let (reply, done) = oneshot::channel();
        let acts = self.acts.as_ref().ok_or_else(gone)?;
        acts.send(Act::Share(folders.collect(), reply)).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?.map_err(|error| crate::server::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slipway_protocol::{frame, v1::FileEvents};
    use slipway_vsock::{ConnectError, GuestStream, HostSocket};
    use tokio::{io::DuplexStream, time::timeout};

    use super::*;

    /// Gives each stream's other end to the test.
    struct Guest(mpsc::UnboundedSender<DuplexStream>);

    #[async_trait::async_trait]
    impl Transport for Guest {
        async fn connect(
            &self,
            port: slipway_protocol::ports::GuestPort,
        ) -> Result<GuestStream, ConnectError> {
            assert_eq!(port, FILE_EVENTS);
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            self.0.send(theirs).map_err(|_| ConnectError::Closed)?;
            Ok(Box::new(ours))
        }

        async fn splice(
            &self,
            _port: slipway_protocol::ports::GuestPort,
            host: HostSocket,
            _head: bytes::Bytes,
        ) -> Result<(), (ConnectError, HostSocket)> {
            Err((ConnectError::Closed, host))
        }
    }

    fn nothing() -> ShareConfig {
        ShareConfig { socket: "s".into(), exports: Vec::new(), hidden: Vec::new() }
    }

    #[tokio::test]
    async fn a_folder_goes_to_the_machine_and_a_file_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("writes");
        let tasks = TaskTracker::new();
        let (acts, mut act) = mpsc::channel(1);
        let share = Share::start(Path::new(""), &nothing(), &tasks).await.expect("starts");
        let share = share.with_machine(Arc::new(Guest(mpsc::unbounded_channel().0)), acts);
        let Answer::Failed { message, .. } = share.ask(Call::Add(Export::new(file, false))).await else {
            panic!("it is refused")
        };
        assert!(message.contains("share the one that it is in"), "{message}");
        let export = Export::new(dir.path().to_owned(), true);
        let machine = async {
            let Some(Act::Share(folders, done)) = act.recv().await else { panic!("asked") };
            assert!(folders.len() == 1 && folders[0].read_only && folders[0].name == export.id);
            done.send(Ok(())).expect("waited for");
        };
        let (answer, ()) = tokio::join!(share.ask(Call::Add(export.clone())), machine);
        assert_eq!(answer, Answer::Done);
        let Answer::Status(status) = share.ask(Call::Status).await else { panic!("a status") };
        assert_eq!(status.exports, [export]);
    }

    #[tokio::test]
    async fn what_is_watched_is_told_to_whoever_asked_last_until_the_last_asker_is_gone() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().canonicalize().expect("there");
        let root = root.to_str().expect("text").trim_start_matches(r"\\?\").to_owned();
        let config = nothing();
        let tasks = TaskTracker::new();
        let (streams, mut theirs) = mpsc::unbounded_channel();
        let share = Share::start(Path::new(""), &config, &tasks).await.expect("starts");
        let share = share.with_machine(Arc::new(Guest(streams)), mpsc::channel(1).0);
        let watch = Call::Watch { paths: vec![root.clone().into()], exclude: Vec::new(), vouch: true };
        let Answer::Status(status) = share.ask(watch).await else { panic!("it is watched") };
        assert_eq!((status.watches, status.unwatched), (1, None));
        for round in 0..2 {
            assert_eq!(share.ask(Call::Events).await, Answer::Done);
            let mut guest = theirs.recv().await.expect("a stream");
            let name = format!("file{round}");
            std::fs::write(Path::new(&root).join(&name), "x").expect("writes");
            let mut masks = Vec::new();
            while !masks.contains(&(name.clone(), 0x8)) {
                let read = timeout(Duration::from_secs(20), frame::read::<FileEvents, _>(&mut guest)).await;
                let events = read.expect("in time").expect("a frame").expect("not the end").events;
                masks.extend(
                    events.into_iter().map(|e| (String::from_utf8_lossy(&e.name).into_owned(), e.mask)),
                );
            }
            assert_eq!(masks[0], (String::new(), 0x4000), "first, that what it missed is lost");
            assert!(masks.contains(&(name, 0x100)), "{masks:?}");
        }
        let Answer::Status(status) = share.ask(Call::Status).await else { panic!("a status") };
        assert!(status.events >= 4, "{status:?}");
        drop(share);
        tasks.close();
        timeout(Duration::from_secs(20), tasks.wait()).await.expect("nobody sends any more");
    }
}
