//! Where no descriptor can travel: a connection's first word says whether it is a daemon or one stream to the guest.

use std::time::Duration;

use slipway_protocol::ports::{ENGINE, GuestPort};
use slipway_relay::http;
use slipway_vsock::{copy, endpoint::Client};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Daemon, failure};
use crate::wire::{
    Answer, Beside, Failure, FailureKind, Peer, Reply,
    frames::{self, Opening},
};

/// How long a connection may take for its first word.
const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon. A stream is carried here until it ends.
pub(super) async fn opened(mut accepted: Client, daemon: &Daemon) -> Option<Peer> {
    match timeout(PATIENCE, frames::hear::<Opening>(&mut accepted)).await {
        Ok(Ok(Opening::Daemon)) => Some(Peer::new(Box::new(accepted))),
        Ok(Ok(Opening::Stream { port })) => {
            carry(accepted, GuestPort(port), daemon).await;
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection said nothing that is understood");
            None
        }
        Err(_) => None,
    }
}

async fn carry(mut client: Client, port: GuestPort, daemon: &Daemon) {
    let (answer, guest) = match daemon.transport.connect(port).await {
        Ok(guest) => (Answer::Done, Some(guest)),
        Err(error) => (Answer::Failed(failure(&error)), None),
    };
    if let Err(error) = frames::say(&mut client, &Reply { id: 0, answer }).await {
        tracing::debug!(%error, "a daemon left before its stream");
        return;
    }
    let Some(guest) = guest else { return };
    let carried = if port == ENGINE {
        http::carry(client, guest, &*daemon.reviews).await
    } else {
        copy::both_ways(client, guest).await
    };
    if let Err(error) = carried {
        tracing::debug!(%port, %error, "a client's stream broke off");
    }
}

/// Nothing that can be done here.
#[allow(clippy::unused_async)] // Elsewhere it waits for the guest.
pub(super) async fn splice(
    _daemon: &Daemon,
    _port: u32,
    _head: Vec<u8>,
    _beside: Option<Beside>,
    _streams: &TaskTracker,
) -> (Answer, Option<Beside>) {
    let message = "a stream is a connection of its own on this system".to_owned();
    (Answer::Failed(Failure { kind: FailureKind::Invalid, message }), None)
}
