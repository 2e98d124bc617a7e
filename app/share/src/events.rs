//! Sends events to the guest. Bounded: what does not fit is dropped, and the guest is told to look for itself.

use std::{
    io::Write,
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use slipway_protocol::{frame, v1};

/// Batches that wait for a guest that is slow.
const WAITING: usize = 256;
/// Events that fit a frame, whatever their paths are.
const PER_FRAME: usize = 128;

/// Takes batches of events. Clones send to the same guest.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    batches: SyncSender<Vec<v1::FileEvent>>,
    stream: Arc<Mutex<Option<UnixStream>>>,
    sent: Arc<AtomicU64>,
}

/// Starts the thread that sends.
pub(crate) fn start() -> std::io::Result<Sender> {
    let (batches, waiting) = sync_channel(WAITING);
    let sender = Sender { batches, stream: Arc::default(), sent: Arc::default() };
    let (stream, sent) = (Arc::clone(&sender.stream), Arc::clone(&sender.sent));
    std::thread::Builder::new().name("events".into()).spawn(move || send(&waiting, &stream, &sent))?;
    Ok(sender)
}

impl Sender {
    /// Sends to this stream from now on.
    pub(crate) fn connect(&self, stream: OwnedFd) {
        let stream = UnixStream::from(stream);
        let _ = stream.set_nonblocking(false);
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// Queues a batch; false when there is no room for it.
    pub(crate) fn send(&self, batch: Vec<v1::FileEvent>) -> bool {
        !matches!(self.batches.try_send(batch), Err(TrySendError::Full(_)))
    }

    /// Events that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn send(waiting: &Receiver<Vec<v1::FileEvent>>, stream: &Mutex<Option<UnixStream>>, sent: &AtomicU64) {
    while let Ok(batch) = waiting.recv() {
        for events in batch.chunks(PER_FRAME) {
            let Ok(bytes) = frame::encode(&v1::FileEvents { events: events.to_vec() }) else { continue };
            // Not under the lock: a guest that does not read must not hold up its successor.
            let to = stream
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .and_then(|s| s.try_clone().ok());
            let Some(mut to) = to else { continue };
            if to.write_all(&bytes).is_ok() {
                sent.fetch_add(events.len() as u64, Ordering::Relaxed);
            } else {
                // The next guest brings its own.
                stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        }
    }
}
