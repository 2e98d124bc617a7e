//! Streams that never leave this process, with scripted faults: what tests use in place of a VM.
//!
//! A test [serves](MemoryTransport::serve) a port and gets the guest's end of every stream that is opened to it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use slipway_protocol::ports::GuestPort;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};
use tokio_util::task::TaskTracker;

use crate::{ConnectError, GuestStream, splice::Opens};

/// Bytes on their way in one direction of one stream: about what a unix socket holds.
const BUFFER: usize = 256 * 1024;

/// What goes wrong on the next streams to one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next `n` streams are refused, as a guest listener with a full backlog does.
    Refuse(u32),
    /// Opening takes this long.
    Delay(Duration),
    /// The stream is cut in both directions after this many bytes from the guest.
    CutAfter(usize),
}

#[derive(Debug, Default)]
struct Port {
    guest: Option<mpsc::Sender<DuplexStream>>,
    faults: Vec<Fault>,
}

/// A guest in this process.
#[derive(Debug, Default)]
pub struct MemoryTransport {
    ports: Mutex<HashMap<GuestPort, Port>>,
    copies: TaskTracker,
}

impl MemoryTransport {
    /// A guest in which nothing listens yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on `port`: the receiver yields the guest's end of every stream. Dropping it stops listening.
    pub fn serve(&self, port: GuestPort) -> mpsc::Receiver<DuplexStream> {
        let (sender, receiver) = mpsc::channel(4096);
        self.with(port, |p| p.guest = Some(sender));
        receiver
    }

    /// Adds a fault to the next streams to `port`; faults come in the order in which they were added.
    pub fn inject(&self, port: GuestPort, fault: Fault) {
        self.with(port, |p| p.faults.push(fault));
    }

    fn with<T>(&self, port: GuestPort, act: impl FnOnce(&mut Port) -> T) -> T {
        act(self.ports.lock().unwrap_or_else(PoisonError::into_inner).entry(port).or_default())
    }

    fn next_fault(&self, port: GuestPort) -> Option<Fault> {
        self.with(port, |p| match p.faults.first().copied() {
            Some(Fault::Refuse(n)) if n > 1 => {
                p.faults[0] = Fault::Refuse(n - 1);
                Some(Fault::Refuse(n))
            }
            Some(fault) => {
                p.faults.remove(0);
                Some(fault)
            }
            None => None,
        })
    }
}

#[async_trait]
impl Opens for MemoryTransport {
    async fn open(&self, port: GuestPort) -> Result<GuestStream, ConnectError> {
        let fault = self.next_fault(port);
        match fault {
            Some(Fault::Refuse(_)) => return Err(ConnectError::Refused { port }),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::CutAfter(_)) | None => {}
        }
        let guest = self.with(port, |p| p.guest.clone()).ok_or(ConnectError::Refused { port })?;
        let (host_end, guest_end) = duplex(BUFFER);
        let host_end = match fault {
            Some(Fault::CutAfter(limit)) => {
                let (outer, inner) = duplex(BUFFER);
                self.copies.spawn(cut_after(limit, inner, host_end));
                outer
            }
            _ => host_end,
        };
        guest.send(guest_end).await.map_err(|_| ConnectError::Refused { port })?;
        Ok(Box::new(host_end))
    }

    fn copies(&self) -> &TaskTracker {
        &self.copies
    }
}

async fn cut_after(limit: usize, host: DuplexStream, guest: DuplexStream) {
    let (mut host_read, mut host_write) = tokio::io::split(host);
    let (guest_read, mut guest_write) = tokio::io::split(guest);
    let up = tokio::io::copy(&mut host_read, &mut guest_write);
    let down = async {
        let mut bytes = Vec::new();
        // A fault in a test: an error here is the same as the cut that is wanted.
        let _ = guest_read.take(limit as u64).read_to_end(&mut bytes).await;
        let _ = host_write.write_all(&bytes).await;
    };
    tokio::select! {
        () = down => {}
        _ = async { let _ = up.await; std::future::pending::<()>().await } => {}
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::fd::OwnedFd;

    use tokio::net::UnixStream;

    use bytes::Bytes;

    use super::*;
    use crate::Transport;
    use slipway_protocol::ports::ENGINE;

    #[tokio::test]
    async fn a_spliced_socket_carries_the_head_first_and_half_closes() {
        let transport = MemoryTransport::new();
        let mut guest = transport.serve(ENGINE);
        let (mut client, host) = UnixStream::pair().expect("pair");
        let host = OwnedFd::from(host.into_std().expect("std"));
        transport
            .splice(ENGINE, host, Bytes::from_static(b"head,"))
            .await
            .map_err(|(e, _)| e)
            .expect("accepted");
        let mut guest = guest.recv().await.expect("the guest has the stream");
        client.write_all(b"body").await.expect("write");
        client.shutdown().await.expect("half-close");
        let mut got = Vec::new();
        guest.read_to_end(&mut got).await.expect("end");
        assert_eq!(got, b"head,body");
        guest.write_all(b"answer").await.expect("the way back is open");
        drop(guest);
        got.clear();
        client.read_to_end(&mut got).await.expect("end");
        assert_eq!(got, b"answer");
    }

    #[tokio::test]
    async fn a_refused_splice_gives_the_socket_back() {
        let transport = MemoryTransport::new();
        let _guest = transport.serve(ENGINE);
        transport.inject(ENGINE, Fault::Refuse(2));
        let (mut client, host) = UnixStream::pair().expect("pair");
        let mut host = OwnedFd::from(host.into_std().expect("std"));
        for _ in 0..2 {
            let (error, back) =
                transport.splice(ENGINE, host, Bytes::new()).await.expect_err("the fault is scripted");
            assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
            host = back;
        }
        let mut host = UnixStream::from_std(host.into()).expect("still a socket");
        host.write_all(b"503").await.expect("the caller can still answer");
        drop(host);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("end");
        assert_eq!(got, b"503");
    }

    #[tokio::test]
    async fn a_cut_stream_ends_after_its_bytes() {
        let transport = MemoryTransport::new();
        let mut guest = transport.serve(ENGINE);
        transport.inject(ENGINE, Fault::CutAfter(3));
        let mut host = transport.connect(ENGINE).await.expect("opens");
        guest.recv().await.expect("stream").write_all(b"123456").await.expect("write");
        let mut got = Vec::new();
        host.read_to_end(&mut got).await.expect("end");
        assert_eq!(got, b"123");
    }
}
