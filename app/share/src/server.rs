//! The outer process: `slipway share`. Opens what is to be shared, watches, and passes orders to its confined worker.
//!
//! Its control socket is its standard input; its first packet is [`Call::Start`]. It ends with the shim, with the VM, or
//! when the worker does.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, OFlags};
use virtiofsd_vhost::vhost_user::Listener;

use crate::{
    echo,
    events::{self, Sender},
    packets, sandbox,
    under_way::Marks,
    watch::{self, Wanted},
    wire::{Answer, Call, Export, Sandbox, Status},
    worker::{self, Order, Word},
};

/// Descriptors that the worker needs for itself.
const OWN_FILES: u64 = 512;

/// The share server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The control socket broke.
    #[error("failed to speak with the shim")]
    Control(#[source] io::Error),
    /// The first packet was another.
    #[error("the first packet does not say what to share")]
    NoStart,
    /// The device's socket could not be made.
    #[error("failed to listen on `{0}`")]
    Listen(PathBuf, #[source] io::Error),
    /// The processes could not be confined, and so do not start.
    #[error("the share server cannot be confined on this system: {0}")]
    Sandbox(String),
    /// A folder that nobody is to see would have been seen.
    #[error("failed to hide `{0}` from the machine")]
    Hide(PathBuf, #[source] io::Error),
    /// The system refused something that every process may have.
    #[error("failed to start the share server")]
    System(#[source] io::Error),
}

/// An error and its cause, in one line for whoever has only that.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn refusal(code: &str, message: String) -> Answer {
    Answer::Failed { code: code.into(), message }
}

/// Is the share server until its end. To be called while the process has one thread.
///
/// # Errors
/// See [`ServerError`]; the shim was told before.
pub fn run() -> Result<(), ServerError> {
    let control = sandbox::inherited(0);
    let first = packets::receive::<Call>(&control).map_err(ServerError::Control)?;
    let Some((Call::Start { socket, exports, hidden }, _)) = first else { return Err(ServerError::NoStart) };
    match Server::start(&socket, exports, &hidden) {
        Ok(mut server) => {
            packets::send(&control, &Answer::Status(server.status()), None).map_err(ServerError::Control)?;
            server.serve(&control)
        }
        Err(error) => {
            let code = if matches!(error, ServerError::Sandbox(_)) { "sandbox" } else { "start" };
            packets::send(&control, &refusal(code, with_cause(&error)), None)
                .map_err(ServerError::Control)?;
            Err(error)
        }
    }
}

/// Listens for the VM. The library's own way to make a listener takes the socket's file along when it is dropped, and this
/// process drops what its worker listens on.
fn listen(socket: &Path) -> io::Result<Listener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::net::UnixListener::bind(socket).map(Listener::from)
}

struct Server {
    worker: OwnedFd,
    exports: BTreeMap<String, Export>,
    failed: Vec<(String, String)>,
    sandbox: Sandbox,
    watcher: watch::Handle,
    watched: Vec<PathBuf>,
    /// What was said last to be watched.
    asked: (Vec<PathBuf>, Vec<String>, bool),
    sender: Sender,
}

impl Server {
    fn start(socket: &Path, exports: Vec<Export>, hidden: &[PathBuf]) -> Result<Self, ServerError> {
        let listener = listen(socket).map_err(|error| ServerError::Listen(socket.to_owned(), error))?;
        let files = sandbox::raise_file_limit().saturating_sub(OWN_FILES);
        sandbox::enter_outer().map_err(|error| ServerError::Sandbox(with_cause(&error)))?;
        for path in hidden {
            sandbox::cover(path).map_err(|error| ServerError::Hide(path.clone(), error))?;
        }
        // After the namespaces: entering one forgets it.
        sandbox::die_with_parent().map_err(ServerError::System)?;
        let (ours, theirs) = packets::pair().map_err(ServerError::System)?;
        let (teller, echo) = echo::channel().map_err(ServerError::System)?;
        let marks = Marks::new().map_err(ServerError::System)?;
        let Some(pid) = sandbox::fork_into_own_pids().map_err(ServerError::System)? else {
            worker::run(listener, theirs, teller, marks, files);
        };
        drop((listener, theirs, teller));
        let sandbox = match packets::receive::<Word>(&ours) {
            Ok(Some((Word::Confined(found), _))) if found.complete() => found,
            Ok(Some((Word::Confined(found), _))) => return Err(ServerError::Sandbox(format!("{found:?}"))),
            Ok(Some((Word::Failed(why), _))) => return Err(ServerError::Sandbox(why)),
            Ok(_) => return Err(ServerError::Sandbox("the worker ended".into())),
            Err(error) => return Err(ServerError::System(error)),
        };
        std::thread::Builder::new()
            .name("worker".into())
            .spawn(move || {
                let pid = rustix::process::Pid::from_raw(pid);
                let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
                eprintln!("share: the worker ended: {ended:?}");
                // With the VM; or by a request that no guest sends by accident. Either way nothing is left to serve.
                std::process::exit(0)
            })
            .map_err(ServerError::System)?;
        let sender = events::start().map_err(ServerError::System)?;
        let watcher = watch::start(echo, marks, sender.clone()).map_err(ServerError::System)?;
        let mut server = Self {
            worker: ours,
            exports: BTreeMap::new(),
            failed: Vec::new(),
            sandbox,
            watcher,
            watched: Vec::new(),
            asked: Default::default(),
            sender,
        };
        for export in exports {
            if let Err(why) = server.add(&export) {
                server.failed.push((export.id, why));
            }
        }
        Ok(server)
    }

    fn serve(&mut self, control: &OwnedFd) -> Result<(), ServerError> {
        while let Some((call, fd)) = packets::receive::<Call>(control).map_err(ServerError::Control)? {
            let answer = match (call, fd) {
                (Call::Start { .. }, _) => refusal("invalid", "it has started already".into()),
                (Call::Add(export), _) => match self.add(&export) {
                    Ok(()) => {
                        self.failed.retain(|(id, _)| *id != export.id);
                        Answer::Done
                    }
                    Err(why) => refusal("export", why),
                },
                (Call::Remove { id }, _) => {
                    self.exports.remove(&id);
                    self.failed.retain(|(failed, _)| *failed != id);
                    self.order(&Order::Remove { id }, None)
                        .map_or_else(|why| refusal("export", why), |()| Answer::Done)
                }
                (Call::Status, _) => {
                    // Of what it does not hear it may keep nothing.
                    if self.sender.broken().is_some() && !self.watched.is_empty() {
                        self.watch(Vec::new(), Vec::new(), false);
                    } else if self.watcher.limit_may_be_gone() {
                        let (paths, exclude, vouch) = self.asked.clone();
                        self.watch(paths, exclude, vouch);
                    }
                    Answer::Status(self.status())
                }
                (Call::Watch { paths, exclude, vouch }, _) => {
                    self.asked = (paths.clone(), exclude.clone(), vouch);
                    self.watch(paths, exclude, vouch)
                }
                (Call::Events, Some(stream)) => {
                    self.sender.connect(stream);
                    // What happened while nobody listened is lost.
                    self.sender.overflow(self.watched.iter().map(|path| watch::lost(path)).collect());
                    Answer::Done
                }
                (Call::Events, None) => refusal("invalid", "events need a stream".into()),
            };
            packets::send(control, &answer, None).map_err(ServerError::Control)?;
        }
        Ok(())
    }

    fn order(&self, order: &Order, fd: Option<&OwnedFd>) -> Result<(), String> {
        packets::send(&self.worker, order, fd.map(AsFd::as_fd)).map_err(|e| e.to_string())?;
        match packets::receive::<Word>(&self.worker) {
            Ok(Some((Word::Done, _))) => Ok(()),
            Ok(Some((Word::Failed(why), _))) => Err(why),
            Ok(_) => Err("the worker ended".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn add(&mut self, export: &Export) -> Result<(), String> {
        if self.exports.get(&export.id) == Some(export) {
            return Ok(());
        }
        let path = &export.path;
        let said = |error: io::Error| format!("failed to share `{}`: {error}", path.display());
        let flags = OFlags::PATH;
        // Who asks has followed links already; one that is there now was put there since, maybe by the guest.
        let place = sandbox::open_exactly(path, flags).map_err(said)?;
        let found = rustix::fs::fstat(&place).map_err(|error| said(error.into()))?;
        let (folder, only) = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => (place, None),
            FileType::RegularFile => {
                let folder = path.parent().unwrap_or(Path::new("/"));
                let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec());
                (sandbox::open_exactly(folder, flags).map_err(said)?, name)
            }
            _ => {
                return Err(format!(
                    "failed to share `{}`: only folders and files can be shared",
                    path.display()
                ));
            }
        };
        let tree = sandbox::detached(folder, export.read_only).map_err(said)?;
        self.order(&Order::Add { id: export.id.clone(), only }, Some(&tree))
            .map_err(|why| format!("failed to share `{}`: {why}", path.display()))?;
        self.exports.insert(export.id.clone(), export.clone());
        Ok(())
    }

    fn watch(&mut self, paths: Vec<PathBuf>, exclude: Vec<String>, vouch: bool) -> Answer {
        // Nested ones are watched with what they are in.
        let outer = |path: &PathBuf| !paths.iter().any(|other| other != path && path.starts_with(other));
        let mut wanted: Vec<PathBuf> = paths.iter().filter(|path| outer(path)).cloned().collect();
        wanted.sort();
        wanted.dedup();
        // Nothing that is about to be left unwatched is vouched for, and what the guest kept of it must go.
        let kept: Vec<PathBuf> = self.watched.iter().filter(|path| wanted.contains(path)).cloned().collect();
        let gone: Vec<_> =
            self.watched.iter().filter(|path| !wanted.contains(path)).map(|p| watch::rescan(p)).collect();
        if !gone.is_empty() {
            if let Err(why) = self.vouch(&kept, &exclude, vouch) {
                return refusal("watch", why);
            }
            self.sender.send(gone);
        }
        let standing = self.watcher.watch(Wanted { paths: wanted.clone(), exclude: exclude.clone() });
        // Watched in part is not watched.
        let vouched = if standing.unwatched.is_none() { wanted.as_slice() } else { &[] };
        let done = self.vouch(vouched, &exclude, vouch);
        self.watched = wanted;
        match done {
            Ok(()) => Answer::Status(self.status()),
            Err(why) => refusal("watch", why),
        }
    }

    fn vouch(&self, watched: &[PathBuf], exclude: &[String], vouch: bool) -> Result<(), String> {
        let place = |path: &PathBuf| {
            let holds = |export: &&Export| path.starts_with(&export.path);
            let export = self.exports.values().filter(holds).max_by_key(|e| e.path.as_os_str().len())?;
            let below = path.strip_prefix(&export.path).ok()?;
            let name = |part: std::path::Component<'_>| part.as_os_str().as_encoded_bytes().to_vec();
            Some((export.id.clone(), below.components().map(name).collect::<Vec<_>>()))
        };
        let paths = if vouch { watched.iter().filter_map(place).collect() } else { Vec::new() };
        let last =
            |pattern: &String| Path::new(pattern).file_name().map(|name| name.as_encoded_bytes().to_vec());
        let skipped = exclude.iter().filter_map(last).collect();
        self.order(&Order::Vouch { paths, skipped, echoing: !watched.is_empty() }, None)
    }

    fn status(&self) -> Status {
        let standing = self.watcher.standing();
        Status {
            exports: self.exports.values().cloned().collect(),
            failed: self.failed.clone(),
            sandbox: self.sandbox.clone(),
            watches: standing.watches,
            unwatched: standing.unwatched,
            undelivered: self.sender.broken(),
            events: self.sender.sent(),
            overflows: standing.overflows,
            echoes: standing.echoes,
        }
    }
}
