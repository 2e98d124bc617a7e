//! The hypervisor shares folders itself: under the name of each export, as one device on macOS and as a share each with Hyper-V. It hides
//! nothing inside them and reports no file events.

use std::{path::Path, sync::Arc};

use slipway_share::wire::{Answer, Call, Export, Status};
use slipway_vm::SharedFolder;
use slipway_vsock::Transport;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{ShareConfig, failed};
use crate::server::Act;

/// What is shared. Clones are the same.
#[derive(Clone)]
pub(crate) struct Share {
    shared: Arc<Mutex<Vec<Export>>>,
    acts: Option<mpsc::Sender<Act>>,
}

impl Share {
    /// Shares nothing yet: the daemon asks for each folder once the machine runs.
    ///
    /// # Errors
    /// None here.
    #[allow(clippy::unused_async)] // Elsewhere a process is started.
    pub(crate) async fn start(
        _exe: &Path,
        _config: &ShareConfig,
        _tasks: &TaskTracker,
    ) -> Result<Self, String> {
        Ok(Self { shared: Arc::default(), acts: None })
    }

    /// With the machine that shares them.
    pub(crate) fn with_machine(mut self, _transport: Arc<dyn Transport>, acts: mpsc::Sender<Act>) -> Self {
        self.acts = Some(acts);
        self
    }

    /// Asks one thing.
    pub(crate) async fn ask(&self, call: Call) -> Answer {
        // Kept while the machine is asked: changes come one after the other.
        let mut shared = self.shared.lock().await;
        let mut wanted = shared.clone();
        match call {
            Call::Status => return Answer::Status(Status { exports: wanted, ..Status::default() }),
            Call::Add(export) => {
                wanted.retain(|other| other.id != export.id);
                wanted.push(export);
            }
            Call::Remove { id } => wanted.retain(|other| other.id != id),
            Call::Watch { .. } | Call::Events => {
                return failed(
                    "watch",
                    "changes on this computer are no events in containers on this system yet",
                );
            }
            Call::Start { .. } => return failed("invalid", "it has started already"),
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
