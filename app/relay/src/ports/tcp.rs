//! Accepts the connections of one published port and hands their sockets over.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use slipway_protocol::{
    frame,
    ports::{self, FORWARD},
    v1,
};
use slipway_vsock::{ConnectError, Transport, endpoint};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections of one port that wait for the guest at once; later ones wait in the kernel's queue.
const WAITING: usize = 512;

/// Counts the connections, to spread them over the guest's ports.
static NTH: AtomicU32 = AtomicU32::new(0);

/// Accepts until `stop`. Connections that wait for the guest then are closed, those handed over go on without us.
pub(super) async fn run(
    listener: std::net::TcpListener,
    target: SocketAddr,
    transport: Arc<dyn Transport>,
    stop: CancellationToken,
) {
    let dial = v1::Dial { target: Some(v1::dial::Target::Tcp(target.to_string())) };
    let (listener, head) = match (TcpListener::from_std(listener), frame::encode(&dial)) {
        (Ok(listener), Ok(head)) => (listener, Bytes::from(head)),
        (Err(error), _) => return tracing::error!(%error, "a published port cannot be served"),
        (_, Err(error)) => return tracing::error!(%error, "a published port cannot be served"),
    };
    let tasks = TaskTracker::new();
    let waiting = Arc::new(Semaphore::new(WAITING));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&waiting).acquire_owned() => permit,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((client, _)) => {
                let (transport, head, stop) = (Arc::clone(&transport), head.clone(), stop.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = pass(client, &*transport, head) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors: give the open ones time to close.
                tracing::warn!(%error, "a connection to a published port could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn pass(client: TcpStream, transport: &dyn Transport, head: Bytes) {
    // What the container sends is sent: a second delay would add to the container's own.
    let _ = client.set_nodelay(true);
    let Ok(client) = endpoint::give_tcp(client) else { return };
    let lane = ports::lane(NTH.fetch_add(1, Ordering::Relaxed));
    let passed = match transport.splice(lane, client, head.clone()).await {
        // A guest from before the lanes, or one that has too many at its door.
        Err((ConnectError::Refused { .. } | ConnectError::Io { .. }, client)) => {
            crate::splice(transport, FORWARD, client, head).await
        }
        passed => passed,
    };
    if let Err((error, client)) = passed {
        tracing::debug!(%error, "a connection to a published port did not reach the guest");
        endpoint::reset(client);
    }
}
