//! The device: takes the guest's requests from its queues and has them done.
//!
//! ```text
//!   queue ─▶ taker ─┬─ its kind is quick ───────────────────────────▶ done at once
//!                   └─ may wait for a disk, was slow, found no room ─▶ helpers
//! ```
//!
//! A request that finds what it needs in memory takes some microseconds, and to wake another thread for it takes as many again.
//! So who takes requests does them, one after the other, until a kind of them turns out to be slow: then the helpers have that
//! kind for a while, and no container waits for what another one reads from the disk. What lets files go has a queue
//! and a thread of its own.
//!
//! The library's own backend has either all done by helpers or none, and ends the process when the guest sends nonsense.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtiofsd::{
    descriptor_utils::{Reader, Writer},
    fuse::Opcode,
    server::Server,
};
use virtiofsd_vhost::vhost_user::{Backend as ToVmm, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use virtiofsd_vhost_user_backend::{VhostUserBackend, VringMutex, VringT, bitmap::BitmapMmapRegion};
use virtiofsd_virtio_queue::{DescriptorChain, QueueT};
use virtiofsd_vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap,
};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use crate::{
    fs::{Shares, put_off},
    sandbox,
    under_way::Marks,
};

/// One for what lets files go, one for requests.
const QUEUES: usize = 2;
/// As long a queue as there may be.
const LONGEST: usize = 32768;
/// A request that takes longer has waited for something.
const SLOW: Duration = Duration::from_millis(1);
/// How long a slow kind is the helpers', before it is tried at once again.
const HELPED: Duration = Duration::from_millis(100);
/// Where a request says what it is.
const OPCODE: u64 = 4;

type Map = GuestMemoryMmap<BitmapMmapRegion>;
type Memory = GuestMemoryAtomic<Map>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<Map>>;
type Vring = VringMutex<Memory>;

/// What a request may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Names, attributes, opening.
    Names,
    Read,
    Write,
    /// It is there to wait for the disk, or works on a whole file.
    Long,
}

impl Kind {
    fn of(opcode: u32) -> Self {
        const READ: u32 = Opcode::Read as u32;
        const WRITE: u32 = Opcode::Write as u32;
        const FSYNC: u32 = Opcode::Fsync as u32;
        const FSYNCDIR: u32 = Opcode::Fsyncdir as u32;
        const SYNCFS: u32 = Opcode::Syncfs as u32;
        const FALLOCATE: u32 = Opcode::Fallocate as u32;
        const COPY: u32 = Opcode::CopyFileRange as u32;
        match opcode {
            READ => Self::Read,
            WRITE => Self::Write,
            FSYNC | FSYNCDIR | SYNCFS | FALLOCATE | COPY => Self::Long,
            _ => Self::Names,
        }
    }
}

/// May it change a file of the host, so that its watcher hears of it? What is not known may.
fn changes(opcode: u32) -> bool {
    const READS: [Opcode; 18] = [
        Opcode::Lookup,
        Opcode::Forget,
        Opcode::Getattr,
        Opcode::Readlink,
        Opcode::Read,
        Opcode::Statfs,
        Opcode::Fsync,
        Opcode::Getxattr,
        Opcode::Listxattr,
        Opcode::Flush,
        Opcode::Opendir,
        Opcode::Readdir,
        Opcode::Releasedir,
        Opcode::Fsyncdir,
        Opcode::BatchForget,
        Opcode::Readdirplus,
        Opcode::Lseek,
        Opcode::Syncfs,
    ];
    !READS.iter().any(|reads| *reads as u32 == opcode)
}

/// Which kinds are slow at the moment.
#[derive(Debug)]
struct Pace {
    since: Instant,
    /// Until when each is the helpers', in microseconds since `since`.
    until: [AtomicU64; 3],
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), until: Default::default() }
    }

    fn at(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_micros() as u64
    }

    fn is_quick(&self, kind: Kind, now: Instant) -> bool {
        self.until.get(kind as usize).is_some_and(|until| until.load(Ordering::Relaxed) <= self.at(now))
    }

    /// One of the kind took this long, and has ended `now`.
    fn took(&self, kind: Kind, took: Duration, now: Instant) {
        if took >= SLOW
            && let Some(until) = self.until.get(kind as usize)
        {
            until.store(self.at(now + HELPED), Ordering::Relaxed);
        }
    }
}

/// A request that was taken, and where its answer goes.
struct Request {
    chain: Chain,
    memory: Memory,
    vring: Vring,
    opcode: u32,
}

impl Request {
    fn new(chain: Chain, memory: Memory, vring: Vring) -> Self {
        let place = chain.clone().next().map(|piece| GuestAddress(piece.addr().0.saturating_add(OPCODE)));
        // Whatever the first piece of a request is too short for is answered with an error soon enough.
        let opcode = place.and_then(|place| memory.memory().read_obj(place).ok()).unwrap_or_default();
        Self { chain, memory, vring, opcode }
    }

    /// Has it done by the thread of this number; how many bytes the answer has.
    fn serve(&self, doing: &Doing, thread: usize) -> u32 {
        let _mark = changes(self.opcode).then(|| doing.marks.begin(thread));
        let memory = self.memory.memory();
        let chain = &self.chain;
        let reader = Reader::new(&memory, chain.clone());
        let parts = reader.and_then(|reader| Ok((reader, Writer::new(&memory, chain.clone())?)));
        // What cannot be read or answered is the guest's mistake, and costs nobody but its maker an answer.
        let Ok((reader, writer)) = parts else { return 0 };
        let answered = doing.server.handle_message(reader, writer, None::<&mut ToVmm>);
        answered.ok().and_then(|length| u32::try_from(length).ok()).unwrap_or(0)
    }

    fn answer(&self, length: u32) {
        let mut vring = self.vring.get_mut();
        // The guest has broken its queue, and will not hear of it.
        if vring.add_used(self.chain.head_index(), length).is_ok()
            && vring.needs_notification().unwrap_or(true)
        {
            let _ = vring.signal_used_queue();
        }
    }
}

/// What every thread needs.
struct Doing {
    server: Server<Shares>,
    marks: Marks,
}

/// Serves one guest.
pub(crate) struct Device {
    doing: Arc<Doing>,
    memory: Mutex<Option<Memory>>,
    pace: Pace,
    /// Ends the helpers when it goes.
    helpers: Sender<Request>,
}

thread_local! {
    /// This thread's current folder is its own.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// The library goes into folders, in whichever thread it is.
fn be_alone() -> io::Result<()> {
    if !ALONE.get() {
        sandbox::own_folder()?;
        ALONE.set(true);
    }
    Ok(())
}

fn help(doing: &Doing, thread: usize, requests: &Mutex<Receiver<Request>>) {
    if let Err(error) = be_alone() {
        eprintln!("share: a helper ends: {error}");
        return;
    }
    loop {
        // A statement of its own: the next helper may wait as soon as this one has something to do.
        let request = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(request) = request else { return };
        let length = request.serve(doing, thread);
        request.answer(length);
    }
}

impl Device {
    /// Serves `shares`, with `helpers` threads beside those that take requests; each is marked while it changes something.
    ///
    /// # Errors
    /// That of a thread that cannot be had.
    pub(crate) fn new(shares: Shares, marks: Marks, helpers: usize) -> io::Result<Self> {
        let doing = Arc::new(Doing { server: Server::new(shares), marks });
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..helpers {
            let (doing, requests) = (Arc::clone(&doing), Arc::clone(&receiver));
            let name = format!("help {number}");
            thread::Builder::new().name(name).spawn(move || help(&doing, QUEUES + number, &requests))?;
        }
        Ok(Self { doing, memory: Mutex::default(), pace: Pace::new(), helpers: sender })
    }

    /// Does what is in the queue of this thread.
    fn take(&self, vring: &Vring, memory: &Memory, thread: usize) {
        loop {
            let chain = vring.get_mut().get_queue_mut().pop_descriptor_chain(memory.memory());
            let Some(chain) = chain else { return };
            let request = Request::new(chain, memory.clone(), vring.clone());
            let (kind, began) = (Kind::of(request.opcode), Instant::now());
            let done =
                self.pace.is_quick(kind, began).then(|| put_off(|| request.serve(&self.doing, thread)));
            match done.flatten() {
                Some(length) => {
                    request.answer(length);
                    let now = Instant::now();
                    self.pace.took(kind, now.duration_since(began), now);
                }
                // They end only with the device.
                None => drop(self.helpers.send(request)),
            }
        }
    }
}

impl VhostUserBackend for Device {
    type Bitmap = BitmapMmapRegion;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        LONGEST
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        self.doing.server.destroy();
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The queues know it themselves.
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        // Or what waits for room would keep the guest from making some.
        vec![0b01, 0b10]
    }

    fn handle_event(
        &self,
        _event: u16,
        _events: EventSet,
        vrings: &[Vring],
        thread: usize,
    ) -> io::Result<()> {
        be_alone()?;
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Each thread has one queue.
        let (Some(memory), Some(vring)) = (memory, vrings.first()) else { return Ok(()) };
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.take(vring, &memory, thread);
            // With EVENT_IDX a kick that is not asked for does not come.
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_disk_is_never_done_at_once() {
        let pace = Pace::new();
        for opcode in
            [Opcode::Fsync, Opcode::Fsyncdir, Opcode::Syncfs, Opcode::Fallocate, Opcode::CopyFileRange]
        {
            assert!(!pace.is_quick(Kind::of(opcode as u32), Instant::now()), "{opcode:?}");
        }
        for opcode in [Opcode::Lookup as u32, Opcode::Read as u32, Opcode::Write as u32, 0, u32::MAX] {
            assert!(pace.is_quick(Kind::of(opcode), Instant::now()), "{opcode}");
        }
    }

    #[test]
    fn a_slow_kind_is_the_helpers_for_a_while_and_the_others_are_not() {
        let (pace, now) = (Pace::new(), Instant::now());
        pace.took(Kind::Read, SLOW - Duration::from_micros(1), now);
        assert!(pace.is_quick(Kind::Read, now));
        pace.took(Kind::Read, SLOW, now);
        assert!(!pace.is_quick(Kind::Read, now) && !pace.is_quick(Kind::Read, now + HELPED / 2));
        assert!(pace.is_quick(Kind::Write, now) && pace.is_quick(Kind::Names, now));
        assert!(pace.is_quick(Kind::Read, now + HELPED * 2));
    }
}
