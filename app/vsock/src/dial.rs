//! Streams that somebody else's framework opens: each is a connected descriptor that it gives us.

use std::{fmt, os::fd::OwnedFd, pin::Pin, time::Duration};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use tokio::{net::UnixStream, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{ConnectError, GuestStream, splice::Opens};

/// How long the guest may take to answer: the same as our own device allows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a dial becomes.
pub type Dialing = Pin<Box<dyn Future<Output = Result<OwnedFd, ConnectError>> + Send>>;

/// Reaches the guest by asking `dial` for a descriptor each time.
pub struct DialTransport {
    dial: Box<dyn Fn(GuestPort) -> Dialing + Send + Sync>,
    copies: TaskTracker,
}

impl fmt::Debug for DialTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialTransport").finish_non_exhaustive()
    }
}

impl DialTransport {
    /// A transport whose streams `dial` opens. What it gives must be a connected stream socket.
    pub fn new(dial: impl Fn(GuestPort) -> Dialing + Send + Sync + 'static) -> Self {
        Self { dial: Box::new(dial), copies: TaskTracker::new() }
    }
}

#[async_trait]
impl Opens for DialTransport {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        let dialed = timeout(CONNECT_TIMEOUT, (self.dial)(port)).await;
        let descriptor = dialed.map_err(|_| ConnectError::TimedOut { port })??;
        // Of whatever family it is: reading, writing and half-closing are the same for all stream sockets.
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        Ok(Box::new(stream.map_err(|source| ConnectError::Io { port, source })?))
    }

    fn copies(&self) -> &TaskTracker {
        &self.copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;
    use bytes::Bytes;
    use std::{
        io::{Read, Write},
        net::Shutdown,
        os::unix::net::UnixStream as StdUnixStream,
        sync::{Arc, Mutex},
    };

    /// A transport, and where the guest's ends arrive.
    fn transport() -> (DialTransport, Arc<Mutex<Vec<StdUnixStream>>>) {
        let guests = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::clone(&guests);
        let dial = move |port: GuestPort| -> Dialing {
            let ends = Arc::clone(&ends);
            Box::pin(async move {
                match port.0 {
                    1 => {
                        let (host, guest) = StdUnixStream::pair().expect("pair");
                        ends.lock().expect("lock").push(guest);
                        Ok(OwnedFd::from(host))
                    }
                    2 => std::future::pending().await,
                    _ => Err(ConnectError::Refused { port }),
                }
            })
        };
        (DialTransport::new(dial), guests)
    }

    #[tokio::test]
    async fn a_client_is_joined_to_what_was_dialed_and_half_close_travels() {
        let (transport, guests) = transport();
        let (mut client, host) = StdUnixStream::pair().expect("pair");
        transport.splice(GuestPort(1), host.into(), Bytes::from_static(b"head ")).await.expect("spliced");
        let mut guest = guests.lock().expect("lock").pop().expect("dialed");
        let talk = tokio::task::spawn_blocking(move || {
            client.write_all(b"question").expect("written");
            client.shutdown(Shutdown::Write).expect("half-closed");
            let mut asked = String::new();
            guest.read_to_string(&mut asked).expect("the end arrives");
            guest.write_all(b"answer").expect("the way back is open");
            drop(guest);
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("read");
            (asked, answer)
        });
        assert_eq!(talk.await.expect("talked"), ("head question".to_owned(), "answer".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_gives_the_client_back_and_silence_ends() {
        let (transport, _guests) = transport();
        let (_client, host) = StdUnixStream::pair().expect("pair");
        let refused = transport.splice(GuestPort(3), host.into(), Bytes::new()).await.expect_err("refused");
        assert!(matches!(refused, (ConnectError::Refused { .. }, _)), "{refused:?}");
        let silent = transport.connect(GuestPort(2)).await.map(drop);
        assert!(matches!(silent, Err(ConnectError::TimedOut { .. })), "{silent:?}");
    }
}
