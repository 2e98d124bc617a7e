//! Our own vhost-user vsock device, for hosts without a working `/dev/vhost-vsock`.
//!
//! QEMU connects to a unix socket and shares the guest's memory and its two queues; one worker thread then moves bytes
//! between the queues and the host's sockets. The protocol is in [`crate::streams`]; here is only the plumbing.
//!
//! ```text
//!   connect()/splice() ──command──► worker thread ──epoll──┬─ queue kicks (QEMU)
//!                       ◄──answer──                        └─ nested epoll: host sockets, the command eventfd
//! ```
//!
//! The worker owns everything that changes, so no lock is held while bytes move.

use std::{
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll};
use rustix::process::{Resource, getrlimit, setrlimit};
use slipway_protocol::ports::GuestPort;
use tokio::{sync::oneshot, time::timeout};
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{ShutdownHandle, VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_bindings::{virtio_config::VIRTIO_F_VERSION_1, virtio_ring::VIRTIO_RING_F_EVENT_IDX};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use crate::{
    ConnectError, GuestCid, GuestStream, Transport, connect_by_splice,
    packet::{HEADER, Header},
    streams::{DialAnswer, MAX_PAYLOAD, Said, StreamId, Streams},
};

mod commands;
mod untold;

use commands::{Command, Commands};
use untold::Untold;

/// How long the guest may take to answer a dial.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the worker may take to give a dial up; only a dead worker takes longer.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// Packets per direction and round.
const BATCH: usize = 256;
/// Rounds per event.
const ROUNDS: usize = 16;
const RX: usize = 0;
const TX: usize = 1;
const QUEUES: usize = 2;
/// Above every queue and the exit event, which the backend crate numbers itself.
const HOST_EVENT: u16 = QUEUES as u16 + 1;
/// In the nested epoll: the command eventfd. Streams use their ids, which are 32 bits wide.
const COMMAND: u64 = u64::MAX;
/// There too: the timers of what each queue was not told, downwards from here.
const TIMERS: u64 = u64::MAX - 1;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The device could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The unix socket for QEMU could not be made.
    #[error("failed to listen for the VM on `{path}`")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A descriptor or a thread could not be had.
    #[error("failed to set up the vsock device")]
    Setup(#[source] io::Error),
    /// The vhost-user machinery refused.
    #[error("failed to set up the vhost-user backend: {0}")]
    Backend(String),
}

struct Backend {
    cid: GuestCid,
    memory: Memory,
    /// The queues stopped: the VM is paused, or its device was reset. Which of the two shows when they start again.
    stopped: bool,
    /// The guest broke its queues; said once, not for every kick.
    complained: bool,
    streams: Streams,
    commands: Arc<Commands>,
    watch: OwnedFd,
    scratch: Vec<u8>,
    /// Of each queue.
    untold: [Untold; QUEUES],
}

impl Backend {
    fn host_events(&mut self) -> io::Result<()> {
        let mut events = [const {
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }
        }; 256];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = match epoll::wait(&self.watch, &mut events[..], Some(&now)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        for event in &events[..count] {
            let (flags, data) = (event.flags, event.data.u64());
            if data == COMMAND {
                self.run_commands();
                continue;
            }
            if let Some(untold) = self.untold.get_mut((TIMERS - data) as usize) {
                untold.fired();
                continue;
            }
            let Ok(id) = StreamId::try_from(data) else { continue };
            use epoll::EventFlags as F;
            let gone = flags.intersects(F::HUP | F::ERR);
            self.streams.host_event(id, flags.intersects(F::IN | F::RDHUP), flags.contains(F::OUT), gone);
        }
        Ok(())
    }

    fn run_commands(&mut self) {
        for command in self.commands.take() {
            match command {
                Command::GiveUp(id) => self.streams.give_up(id),
                Command::Dial { port, host, head, answer, id: tell_id } => {
                    if answer.is_closed() {
                        continue;
                    }
                    let Some(id) = self.streams.dial(port, host, head, answer) else { continue };
                    use epoll::EventFlags as F;
                    let watched = self.streams.host_fd(id).map(|fd| {
                        let flags = F::IN | F::OUT | F::RDHUP | F::ET;
                        epoll::add(&self.watch, fd, epoll::EventData::new_u64(u64::from(id)), flags)
                    });
                    if let Some(Err(_)) = watched {
                        // Not a socket, or out of memory: without events the stream would never move.
                        self.streams.give_up(id);
                        continue;
                    }
                    if tell_id.send(id).is_err() {
                        self.streams.give_up(id);
                    }
                }
            }
        }
    }

    /// Takes what the guest sent, at most [`BATCH`] packets.
    fn take_from_guest(&mut self, vring: &VringRwLock<Memory>) -> io::Result<()> {
        let memory = self.memory.memory();
        let mut count = 0;
        let mut state = vring.get_mut();
        for _ in 0..BATCH {
            let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory.clone()) else { break };
            count += 1;
            let head = chain.head_index();
            if let Ok(mut reader) = chain.reader(&memory) {
                let mut header = [0u8; HEADER];
                if reader.read_exact(&mut header).is_ok() {
                    let header = Header::decode(&header);
                    let length = (header.len as usize).min(MAX_PAYLOAD).min(reader.available_bytes());
                    if reader.read_exact(&mut self.scratch[..length]).is_ok() {
                        self.streams.receive(&header, &self.scratch[..length]);
                    }
                }
            }
            state.add_used(head, 0).map_err(io::Error::other)?;
        }
        let size = state.get_queue().size();
        drop(state);
        if self.untold[TX].more(count, size)? && vring.needs_notification().map_err(io::Error::other)? {
            vring.signal_used_queue()?;
        }
        Ok(())
    }

    /// Says to the guest what there is to say, as far as it gave buffers, at most [`BATCH`] packets.
    fn give_to_guest(&mut self, vring: &VringRwLock<Memory>) -> io::Result<()> {
        let memory = self.memory.memory();
        let (mut quiet, mut awaited) = (0, false);
        let mut state = vring.get_mut();
        for _ in 0..BATCH {
            if !self.streams.has_work() {
                break;
            }
            let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory.clone()) else { break };
            let head = chain.head_index();
            let mut used = 0;
            if let Ok(mut writer) = chain.writer(&memory)
                && let Some(room) = writer.available_bytes().checked_sub(HEADER)
            {
                let room = room.min(self.scratch.len());
                let Some(Said { header, awaits }) = self.streams.next_for_guest(&mut self.scratch[..room])
                else {
                    state.get_queue_mut().go_to_previous_position();
                    break;
                };
                let length = header.len as usize;
                writer.write_all(&header.encode())?;
                writer.write_all(&self.scratch[..length])?;
                used = HEADER + length;
                awaited |= awaits;
                quiet += usize::from(!awaits);
            }
            state.add_used(head, used as u32).map_err(io::Error::other)?;
        }
        let size = state.get_queue().size();
        drop(state);
        if awaited {
            self.untold[RX].told();
        }
        if (awaited || self.untold[RX].more(quiet, size)?)
            && vring.needs_notification().map_err(io::Error::other)?
        {
            vring.signal_used_queue()?;
        }
        Ok(())
    }
}

impl Backend {
    /// Moves what can be moved, for a bounded time: the control messages of the VM wait for the same lock.
    fn turn(&mut self, host: bool, rx: &VringRwLock<Memory>, tx: &VringRwLock<Memory>) -> io::Result<()> {
        if host {
            self.host_events()?;
        }
        let ready = |v: &VringRwLock<Memory>| v.get_ref().is_enabled() && v.get_ref().get_queue().ready();
        if !ready(rx) || !ready(tx) {
            return Ok(());
        }
        if std::mem::take(&mut self.stopped) && rx.queue_next_avail() == 0 {
            // From the beginning: the guest's driver started afresh and knows no stream. A paused VM goes on in the
            // middle of its queues, and so do its streams.
            self.streams.clear();
        }
        // Until neither queue has more: with EVENT_IDX a kick that is not asked for does not come.
        for _ in 0..ROUNDS {
            tx.disable_notification().map_err(io::Error::other)?;
            rx.disable_notification().map_err(io::Error::other)?;
            self.take_from_guest(tx)?;
            self.give_to_guest(rx)?;
            let more_from_guest = tx.enable_notification().map_err(io::Error::other)?;
            let more_room = rx.enable_notification().map_err(io::Error::other)?;
            let more_to_guest = more_room && self.streams.has_work();
            if !more_from_guest && !more_to_guest {
                return Ok(());
            }
            // One busy stream must not keep the others' sockets waiting.
            self.host_events()?;
        }
        self.commands.wake();
        Ok(())
    }
}

impl VhostUserBackendMut for Backend {
    type Bitmap = ();
    type Vring = VringRwLock<Memory>;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&mut self, _enabled: bool) {
        // The queues know it themselves.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = u64::from(self.cid.get()).to_le_bytes();
        let start = (offset as usize).min(config.len());
        let end = start.saturating_add(size as usize).min(config.len());
        config[start..end].to_vec()
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn stop_vring(&mut self, _queue: u32) -> io::Result<()> {
        self.stopped = true;
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        _set: EventSet,
        vrings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        // An error would end the worker, and with it every stream of a guest whose next packet may be sound again.
        if let Err(error) = self.turn(event == HOST_EVENT, &vrings[RX], &vrings[TX])
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!(%error, "the guest's vsock queues are broken");
        }
        Ok(())
    }
}

/// The running device. Dropping it ends its threads and removes its socket.
pub struct VhostUserVsock {
    path: PathBuf,
    commands: Arc<Commands>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// How the owner ends the device's thread, whether or not a VM ever came.
struct Stop {
    asked: AtomicBool,
    wake: OwnedFd,
    vm: Mutex<Option<ShutdownHandle>>,
}

impl Stop {
    fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // Cannot be full: it is written once.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(vm) = self.vm.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            vm.shutdown();
        }
    }

    /// Waits for a VM to connect; false when the owner asked to stop first.
    fn wait_for_vm(&self, listener: &StdUnixListener) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => return Ok(fds[1].revents().is_empty()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn serve(&self, daemon: &mut VhostUserDaemon<Arc<Mutex<Backend>>>, listener: StdUnixListener) {
        match self.wait_for_vm(&listener) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::error!(%error, "could not wait for the VM"),
        }
        if let Err(error) = daemon.start(&mut Listener::from(listener)) {
            return tracing::error!(%error, "the VM could not use the vsock device");
        }
        *self.vm.lock().unwrap_or_else(PoisonError::into_inner) = daemon.shutdown_handle();
        if self.asked.load(Ordering::SeqCst) {
            daemon.request_shutdown();
        }
        if let Err(error) = daemon.wait() {
            tracing::debug!(%error, "the VM left the vsock device");
        }
    }
}

/// Every stream is a descriptor: asks for as many as this process may have. Best effort, because the limit then shows as
/// an error of the dial that met it.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

impl std::fmt::Debug for VhostUserVsock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VhostUserVsock").field("path", &self.path).finish_non_exhaustive()
    }
}

impl VhostUserVsock {
    /// Listens on `path` for one VM; the device of that VM has the context id `cid`.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left running.
    pub fn listen(path: &Path, cid: GuestCid) -> Result<Self, ListenError> {
        raise_descriptor_limit();
        // Left behind by a shim that was killed; who may run a shim is decided by a lock, not by this file.
        let _ = std::fs::remove_file(path);
        let listener =
            StdUnixListener::bind(path).map_err(|source| ListenError::Bind { path: path.into(), source })?;
        let setup = |e: rustix::io::Errno| ListenError::Setup(e.into());
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(setup)?;
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(setup)?;
        epoll::add(&watch, &wake, epoll::EventData::new_u64(COMMAND), epoll::EventFlags::IN)
            .map_err(setup)?;
        let untold = [Untold::new().map_err(ListenError::Setup)?, Untold::new().map_err(ListenError::Setup)?];
        for (queue, untold) in untold.iter().enumerate() {
            let timer = epoll::EventData::new_u64(TIMERS - queue as u64);
            epoll::add(&watch, untold.timer(), timer, epoll::EventFlags::IN).map_err(setup)?;
        }
        let watch_fd = watch.as_raw_fd();
        let commands = Arc::new(Commands::new(wake));
        let memory = Memory::new(GuestMemoryMmap::new());
        let backend = Arc::new(Mutex::new(Backend {
            cid,
            memory: memory.clone(),
            stopped: false,
            complained: false,
            streams: Streams::new(cid),
            commands: Arc::clone(&commands),
            watch,
            scratch: vec![0; MAX_PAYLOAD],
            untold,
        }));
        let mut daemon = VhostUserDaemon::new("slipway-vsock".into(), Arc::clone(&backend), memory)
            .map_err(|e| ListenError::Backend(e.to_string()))?;
        for handler in daemon.get_epoll_handlers() {
            handler
                .register_listener(watch_fd, EventSet::IN, u64::from(HOST_EVENT))
                .map_err(ListenError::Setup)?;
        }
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(setup)?,
            vm: Mutex::new(None),
        });
        let thread = std::thread::Builder::new()
            .name("vsock-device".into())
            .spawn({
                let (stop, commands) = (Arc::clone(&stop), Arc::clone(&commands));
                move || {
                    stop.serve(&mut daemon, listener);
                    // Ends the worker, so that nothing moves while the diallers are told.
                    for handler in daemon.get_epoll_handlers() {
                        handler.send_exit_event();
                    }
                    drop(daemon);
                    for command in commands.close() {
                        if let Command::Dial { host, answer, .. } = command {
                            let _ = answer.send(Err((ConnectError::Closed, host)));
                        }
                    }
                    backend.lock().unwrap_or_else(PoisonError::into_inner).streams.clear();
                }
            })
            .map_err(ListenError::Setup)?;
        Ok(Self { path: path.into(), commands, stop, thread: Some(thread) })
    }

    /// Streams into the guest; usable before the guest has booted (dials then wait and time out).
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(VhostUserTransport { commands: Arc::clone(&self.commands) })
    }

    /// Ends the device: every stream closes, the threads are joined, the socket is removed. Blocks shortly.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.stop.ask();
        if thread.join().is_err() {
            tracing::error!("the vsock device panicked");
        }
        // Gone already when the run folder was removed first.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for VhostUserVsock {
    fn drop(&mut self) {
        self.end();
    }
}

struct VhostUserTransport {
    commands: Arc<Commands>,
}

impl VhostUserTransport {
    async fn dial(&self, port: GuestPort, host: OwnedFd, head: Bytes) -> DialAnswer {
        // A second descriptor for the one case in which the worker cannot give the first one back: when it died.
        let spare = match host.try_clone() {
            Ok(spare) => spare,
            Err(source) => return Err((ConnectError::Io { port, source }, host)),
        };
        let (answer, mut answered) = oneshot::channel();
        let (id, told_id) = oneshot::channel();
        let dial = Command::Dial { port, host, head, answer, id };
        if let Err(Command::Dial { host, .. }) = self.commands.push(dial) {
            return Err((ConnectError::Closed, host));
        }
        let mut dialling = Dialling { commands: &self.commands, id: Some(told_id) };
        match timeout(CONNECT_TIMEOUT, &mut answered).await {
            Ok(answer) => {
                dialling.id = None;
                return answer.unwrap_or(Err((ConnectError::Closed, spare)));
            }
            Err(_) => drop(dialling),
        }
        // The guest's answer may have overtaken; then it holds.
        match timeout(GIVE_UP_TIMEOUT, answered).await {
            Ok(answer) => answer.unwrap_or(Err((ConnectError::TimedOut { port }, spare))),
            Err(_) => Err((ConnectError::TimedOut { port }, spare)),
        }
    }
}

/// A dial that is given up when its caller loses interest, so that cancelled dials do not pile up in a guest that boots.
struct Dialling<'a> {
    commands: &'a Commands,
    id: Option<oneshot::Receiver<StreamId>>,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        // Not told yet: the worker then finds nobody to tell, and gives the stream up itself.
        if let Some(Ok(id)) = self.id.as_mut().map(oneshot::Receiver::try_recv) {
            // Refused when the device is gone; then it has answered.
            let _ = self.commands.push(Command::GiveUp(id));
        }
    }
}

#[async_trait]
impl Transport for VhostUserTransport {
    async fn connect(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        connect_by_splice(self, port).await
    }

    async fn splice(
        &self,
        port: GuestPort,
        host: OwnedFd,
        head: Bytes,
    ) -> Result<(), (ConnectError, OwnedFd)> {
        self.dial(port, host, head).await
    }
}

#[cfg(test)]
#[path = "vhost_user_tests.rs"]
mod tests;
