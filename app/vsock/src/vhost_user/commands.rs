//! What the device's worker is asked from other threads.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use slipway_protocol::ports::GuestPort;
use tokio::sync::oneshot;

use crate::streams::{DialAnswer, StreamId};

/// What the worker is asked to do.
pub(super) enum Command {
    /// Open a stream: from `host` to the guest's port, `head` first.
    Dial {
        port: GuestPort,
        host: OwnedFd,
        head: Bytes,
        answer: oneshot::Sender<DialAnswer>,
        id: oneshot::Sender<StreamId>,
    },
    /// Nobody waits for this one's opening any more.
    GiveUp(StreamId),
}

/// What the transport and the worker share: the commands and nothing else.
pub(super) struct Commands {
    /// `None` once the device is gone; a command then fails at once.
    queue: Mutex<Option<VecDeque<Command>>>,
    wake: OwnedFd,
}

impl Commands {
    /// `wake` is an eventfd that does not block; whoever waits for it calls [`Commands::take`].
    pub(super) fn new(wake: OwnedFd) -> Self {
        Self { queue: Mutex::new(Some(VecDeque::new())), wake }
    }

    /// Queues one; it is given back when the device is gone.
    pub(super) fn push(&self, command: Command) -> Result<(), Command> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = queue.as_mut() else { return Err(command) };
        waiting.push_back(command);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Has the worker look again.
    pub(super) fn wake(&self) {
        // Full (2^64 - 2 wakes unread) means that the worker is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// All that wait.
    pub(super) fn take(&self) -> VecDeque<Command> {
        let mut counter = [0u8; 8];
        let _ = rustix::io::read(&self.wake, &mut counter);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The same, and there will be no more.
    pub(super) fn close(&self) -> VecDeque<Command> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}
