//! Sends events to the guest. Bounded: what does not fit is dropped, and the guest is told to look for itself.

use std::{
    io::Write,
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use slipway_protocol::{frame, v1};

/// Batches that wait for a guest that is slow.
const WAITING: usize = 256;
/// Events that fit a frame, whatever their paths are.
const PER_FRAME: usize = 128;

/// Where events go.
#[derive(Debug, Default)]
enum To {
    /// No guest has asked for them.
    #[default]
    Nobody,
    Guest(UnixStream),
    /// It broke off.
    Broken(String),
    /// Nobody sends any more.
    Ended,
}

/// Takes batches of events. Clones send to the same guest.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    batches: SyncSender<Vec<v1::FileEvent>>,
    overflow: Arc<Mutex<Vec<v1::FileEvent>>>,
    to: Arc<Mutex<To>>,
    sent: Arc<AtomicU64>,
}

/// Starts the thread that sends.
pub(crate) fn start() -> std::io::Result<Sender> {
    let (batches, waiting) = sync_channel(WAITING);
    let sender = Sender { batches, overflow: Arc::default(), to: Arc::default(), sent: Arc::default() };
    let overflow = Arc::clone(&sender.overflow);
    let (to, sent) = (Arc::clone(&sender.to), Arc::clone(&sender.sent));
    std::thread::Builder::new().name("events".into()).spawn(move || {
        // Ends by a panic alone, while there are senders.
        let _end = End(&to);
        send(&waiting, &overflow, &to, &sent);
    })?;
    Ok(sender)
}

/// Says, whatever the reason, that nobody sends any more.
struct End<'a>(&'a Mutex<To>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *lock(self.0) = To::Ended;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    /// Sends to this stream from now on.
    pub(crate) fn connect(&self, stream: OwnedFd) {
        let stream = UnixStream::from(stream);
        let _ = stream.set_nonblocking(false);
        let mut to = lock(&self.to);
        if !matches!(*to, To::Ended) {
            *to = To::Guest(stream);
        }
    }

    /// Queues a batch; false when there is no room for it.
    pub(crate) fn send(&self, batch: Vec<v1::FileEvent>) -> bool {
        !matches!(self.batches.try_send(batch), Err(TrySendError::Full(_)))
    }

    /// Says that something was lost. This cannot get lost itself: it waits beside the queue, and who sends looks there before
    /// each batch.
    pub(crate) fn overflow(&self, events: Vec<v1::FileEvent>) {
        *lock(&self.overflow) = events;
        // Wakes who sends; a queue without room has woken it already.
        let _ = self.batches.try_send(Vec::new());
    }

    /// Why the guest gets none, when it did or was to.
    pub(crate) fn broken(&self) -> Option<String> {
        match &*lock(&self.to) {
            To::Broken(why) => Some(why.clone()),
            To::Ended => Some("the thread that sends them has ended; `slipway restart` helps".into()),
            To::Nobody | To::Guest(_) => None,
        }
    }

    /// Events that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn send(
    waiting: &Receiver<Vec<v1::FileEvent>>,
    overflow: &Mutex<Vec<v1::FileEvent>>,
    to: &Mutex<To>,
    sent: &AtomicU64,
) {
    while let Ok(batch) = waiting.recv() {
        let mut first = std::mem::take(&mut *lock(overflow));
        first.extend(batch);
        for events in first.chunks(PER_FRAME) {
            let Ok(bytes) = frame::encode(&v1::FileEvents { events: events.to_vec() }) else { continue };
            // Not under the lock: a guest that does not read must not hold up its successor.
            let guest = match &*lock(to) {
                To::Guest(stream) => stream.try_clone(),
                To::Nobody | To::Broken(_) | To::Ended => continue,
            };
            match guest.and_then(|mut guest| guest.write_all(&bytes)) {
                Ok(()) => drop(sent.fetch_add(events.len() as u64, Ordering::Relaxed)),
                Err(error) => *lock(to) = To::Broken(format!("the guest takes no more of them: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        time::{Duration, Instant},
    };

    use slipway_protocol::Message;

    use super::*;

    #[test]
    fn an_overflow_arrives_although_the_queue_has_no_room_for_it() {
        let sender = start().expect("starts");
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        sender.connect(ours.into());
        let one = |mask| v1::FileEvent { mask, name: vec![b'x'; 4000], ..Default::default() };
        // Until the socket is full and the queue as well.
        while sender.send(vec![one(1)]) {}
        sender.overflow(vec![one(2)]);
        drop(sender);
        theirs.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let mut found = false;
        let mut length = [0; 4];
        while !found {
            theirs.read_exact(&mut length).expect("the overflow comes before the end");
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            theirs.read_exact(&mut frame).expect("a frame");
            let events = v1::FileEvents::decode(frame.as_slice()).expect("events").events;
            found = events.iter().any(|event| event.mask == 2);
        }
    }

    #[test]
    fn a_guest_that_takes_no_more_is_noticed_and_its_successor_served() {
        let sender = start().expect("starts");
        assert!(sender.send(vec![v1::FileEvent::default()]) && sender.broken().is_none(), "nobody asked yet");
        let (ours, theirs) = UnixStream::pair().expect("pair");
        sender.connect(theirs.into());
        drop(ours);
        let deadline = Instant::now() + Duration::from_secs(5);
        while sender.broken().is_none() {
            assert!(Instant::now() < deadline, "it is noticed");
            sender.send(vec![v1::FileEvent::default()]);
            std::thread::sleep(Duration::from_millis(5));
        }
        let (_ours, theirs) = UnixStream::pair().expect("pair");
        sender.connect(theirs.into());
        assert!(sender.broken().is_none());
    }
}
