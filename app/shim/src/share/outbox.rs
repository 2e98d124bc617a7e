//! What the guest is to hear of files, on its way there. Bounded: what does not fit is dropped, and the guest is told to look for
//! itself.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use slipway_protocol::{
    frame,
    v1::{FileEvent, FileEvents},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Batches that wait for a guest that is slow.
const WAITING: usize = 256;
/// Events that fit a frame, whatever their paths are.
const PER_FRAME: usize = 128;

/// Takes events, and gives them to the guest that asked last. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    more: Notify,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<FileEvent>>,
    /// That something was lost. Beside the queue, so that it cannot get lost itself; it goes before the rest.
    lost: Vec<FileEvent>,
    /// Ends whoever sends now.
    sender: Option<CancellationToken>,
    broken: Option<String>,
    sent: u64,
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a batch; false when there is no room for it. Without a guest that asked, it goes nowhere.
    pub(crate) fn send(&self, batch: Vec<FileEvent>) -> bool {
        let mut state = self.state();
        if state.sender.is_none() {
            return true;
        }
        let room = state.waiting.len() < WAITING;
        if room {
            state.waiting.push_back(batch);
            self.0.more.notify_one();
        }
        room
    }

    /// Says that something was lost; what waits is no news after that.
    pub(crate) fn overflow(&self, events: Vec<FileEvent>) {
        let mut state = self.state();
        state.waiting.clear();
        state.lost = events;
        self.0.more.notify_one();
    }

    /// Why the guest gets none, when it did or was to.
    pub(crate) fn broken(&self) -> Option<String> {
        self.state().broken.clone()
    }

    /// Events that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// Ends whoever sends, now and later, when what is given is dropped.
    pub(crate) fn ends_with(&self) -> DropGuard {
        self.0.end.clone().drop_guard()
    }

    /// The way of whoever asks now; whoever asked before gets no more. `first` is what it has missed.
    pub(crate) fn begin(&self, first: Vec<FileEvent>) -> CancellationToken {
        let token = self.0.end.child_token();
        let mut state = self.state();
        if let Some(before) = state.sender.replace(token.clone()) {
            before.cancel();
        }
        state.waiting.clear();
        state.lost = first;
        state.broken = None;
        self.0.more.notify_one();
        token
    }

    /// Sends to this stream until it breaks off, or `end` says that there is another.
    pub(crate) async fn serve(self, mut guest: impl AsyncWrite + Unpin, end: CancellationToken) {
        let error = tokio::select! {
            () = end.cancelled() => return,
            error = self.give(&mut guest, &end) => error,
        };
        let mut state = self.state();
        // Its successor may be there already.
        if !end.is_cancelled() {
            state.sender = None;
            state.waiting.clear();
            state.broken = Some(format!("the guest takes no more of them: {error}"));
        }
    }

    async fn give(&self, guest: &mut (impl AsyncWrite + Unpin), end: &CancellationToken) -> std::io::Error {
        loop {
            let events = {
                let mut state = self.state();
                // What is there now is another's.
                if end.is_cancelled() {
                    // And so was what woke this one.
                    self.0.more.notify_one();
                    return std::io::ErrorKind::Interrupted.into();
                }
                let mut events = std::mem::take(&mut state.lost);
                events.extend(state.waiting.pop_front().unwrap_or_default());
                events
            };
            if events.is_empty() {
                self.0.more.notified().await;
                continue;
            }
            for events in events.chunks(PER_FRAME) {
                let Ok(bytes) = frame::encode(&FileEvents { events: events.to_vec() }) else { continue };
                if let Err(error) = guest.write_all(&bytes).await {
                    return error;
                }
                self.state().sent += events.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt, time::timeout};

    use super::*;

    fn one(mask: u32) -> Vec<FileEvent> {
        vec![FileEvent { mask, name: vec![b'x'; 4000], ..FileEvent::default() }]
    }

    struct Guest<S> {
        stream: S,
        heard: VecDeque<u32>,
    }

    impl<S: AsyncReadExt + Unpin> Guest<S> {
        fn new(stream: S) -> Self {
            Self { stream, heard: VecDeque::new() }
        }

        /// How many others come before one of this mask.
        async fn until(&mut self, mask: u32) -> usize {
            let mut before = 0;
            loop {
                if let Some(heard) = self.heard.pop_front() {
                    if heard == mask {
                        return before;
                    }
                    before += 1;
                    continue;
                }
                let read = frame::read::<FileEvents, _>(&mut self.stream);
                let read = timeout(Duration::from_secs(20), read).await;
                let events = read.expect("in time").expect("a frame").expect("not the end").events;
                self.heard.extend(events.iter().map(|event| event.mask));
            }
        }
    }

    #[tokio::test]
    async fn a_loss_is_told_although_the_queue_has_no_room_and_what_comes_after_it_too() {
        let outbox = Outbox::default();
        assert!((0..WAITING * 2).all(|_| outbox.send(one(1))), "nobody asked");
        let (ours, theirs) = tokio::io::duplex(64);
        let mut theirs = Guest::new(theirs);
        let end = outbox.begin(one(9));
        let sending = tokio::spawn(outbox.clone().serve(ours, end));
        while outbox.send(one(1)) {}
        outbox.overflow(one(2));
        assert!(outbox.send(one(3)));
        assert!(theirs.until(2).await <= 2, "what waited is no news");
        assert_eq!(theirs.until(3).await, 0);
        drop(theirs);
        assert!(outbox.send(one(4)));
        timeout(Duration::from_secs(20), sending).await.expect("in time").expect("ends");
        assert!(outbox.broken().is_some_and(|why| why.contains("takes no more")));
    }

    #[tokio::test]
    async fn who_asks_last_is_told_first_what_it_missed_and_who_asked_before_nothing() {
        let outbox = Outbox::default();
        let (ours, mut before) = tokio::io::duplex(1 << 16);
        let first = tokio::spawn(outbox.clone().serve(ours, outbox.begin(Vec::new())));
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut theirs = Guest::new(theirs);
        let end = outbox.begin(one(7));
        let second = tokio::spawn(outbox.clone().serve(ours, end.clone()));
        timeout(Duration::from_secs(20), first).await.expect("in time").expect("ends");
        assert!(outbox.send(one(8)));
        assert_eq!(theirs.until(7).await, 0);
        assert_eq!(theirs.until(8).await, 0);
        assert_eq!(before.read(&mut [0]).await.expect("the end"), 0);
        assert_eq!((outbox.broken(), outbox.sent()), (None, 2));
        drop(outbox.ends_with());
        assert!(end.is_cancelled());
        timeout(Duration::from_secs(20), second).await.expect("in time").expect("ends");
    }
}
