//! Requests to the engine that wait for a daemon's word. Streams are carried here and outlive the daemon; what it alone can
//! decide waits for it, or for its successor, for a bounded time.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use slipway_relay::http::{Review, Reviewer, Verdict};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::wire::{self, Answer, Beside, Peer, Reply, Word, bytes_of};

/// How long a daemon may be missing: a new one is there within 2 s.
const DAEMON: Duration = Duration::from_secs(10);
/// How long it may take for its word: what a container needs may have to be shared first.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Reviews {
    /// Connected daemons, the newest last.
    daemons: watch::Sender<Vec<Arc<Peer>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Verdict>>>,
    next: AtomicU64,
}

impl Default for Reviews {
    fn default() -> Self {
        Self { daemons: watch::Sender::new(Vec::new()), waiting: Mutex::default(), next: AtomicU64::new(1) }
    }
}

impl Reviews {
    pub(crate) fn connected(&self, daemon: Arc<Peer>) {
        self.daemons.send_modify(|daemons| daemons.push(daemon));
    }

    pub(crate) fn gone(&self, daemon: &Arc<Peer>) {
        self.daemons.send_modify(|daemons| daemons.retain(|other| !Arc::ptr_eq(other, daemon)));
    }

    /// A daemon has spoken.
    pub(crate) fn spoken(&self, ask: u64, word: Word, body: Option<Beside>) {
        let lost = |error: io::Error| Verdict::Refuse {
            status: 503,
            message: format!("slipway's answer was lost: {error}"),
        };
        let verdict = match word {
            Word::Pass => Verdict::Pass,
            Word::Refuse { status, message } => Verdict::Refuse { status, message },
            Word::Replace => bytes_of(body).map_or_else(lost, Verdict::Replace),
        };
        let asker = self.lock().remove(&ask);
        // The client may have left.
        if let Some(asker) = asker {
            let _ = asker.send(verdict);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Verdict>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, asked: &Review) -> Result<Verdict, String> {
        let mut daemons = self.daemons.subscribe();
        let there = timeout(DAEMON, daemons.wait_for(|daemons| !daemons.is_empty())).await;
        let daemon = there.ok().and_then(Result::ok).and_then(|daemons| daemons.last().cloned());
        let daemon = daemon.ok_or("slipway's daemon does not run")?;
        let body =
            wire::beside(&asked.body).map_err(|error| format!("the request cannot be looked at: {error}"))?;
        let ask = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, verdict) = oneshot::channel();
        self.lock().insert(ask, tell);
        let review = Answer::Review { ask, path: asked.path.clone() };
        let sent = daemon.send(&Reply { id: 0, answer: review }, Some(&body)).await;
        let word = match sent {
            Ok(()) => {
                let left =
                    daemons.wait_for(|daemons| !daemons.iter().any(|other| Arc::ptr_eq(other, &daemon)));
                tokio::select! {
                    verdict = timeout(PATIENCE, verdict) => match verdict {
                        Ok(Ok(verdict)) => Ok(verdict),
                        _ => Err("slipway's daemon does not answer".to_owned()),
                    },
                    _ = left => Err("slipway's daemon ended".to_owned()),
                }
            }
            Err(error) => Err(format!("slipway's daemon cannot be asked: {error}")),
        };
        self.lock().remove(&ask);
        word
    }
}

#[async_trait]
impl Reviewer for Reviews {
    async fn review(&self, asked: Review) -> Verdict {
        // A second time: the daemon may have been replaced just then.
        if let Ok(verdict) = self.ask(&asked).await {
            return verdict;
        }
        self.ask(&asked).await.unwrap_or_else(|why| Verdict::Refuse {
            status: 503,
            message: format!("{why}\nhint: slipway status"),
        })
    }
}
