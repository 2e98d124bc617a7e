//! Windows, where no descriptor can travel: messages in frames, over the streams that this system has for programs of one user (see
//! [`endpoint`]).
//!
//! ```text
//!   connection ─► Opening::Daemon ─► frames both ways
//!            └──► Opening::Stream ─► one frame back, Done or Failed ─► the bytes of one stream to the guest, half-closes included
//! ```

use std::{io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_vsock::{
    Stream,
    endpoint::{self, Client},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::Mutex,
};
use tokio_util::bytes::{Buf, BytesMut};

use super::framing::{HEAD, Sink, Writer, frame, invalid, lengths};

/// What travels beside a message: bytes that are too many for one.
pub type Beside = Vec<u8>;

/// Bytes as what is beside a message.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn beside(bytes: &[u8]) -> io::Result<Beside> {
    Ok(bytes.to_owned())
}

/// And back.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn bytes_of(beside: Option<Beside>) -> io::Result<Vec<u8>> {
    Ok(beside.unwrap_or_default())
}

/// The first frame of a connection: what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "opens", rename_all = "kebab-case")]
pub(crate) enum Opening {
    /// A daemon that asks.
    Daemon,
    /// One stream to the guest.
    Stream {
        /// The guest's port.
        port: u32,
    },
}

/// Says one thing on a stream that carries bytes afterwards.
pub(crate) async fn say<M: Serialize>(stream: &mut (impl Stream + ?Sized), message: &M) -> io::Result<()> {
    stream.write_all(&frame(message, &[])?).await?;
    stream.flush().await
}

/// Hears it, and reads no byte more.
pub(crate) async fn hear<M: DeserializeOwned>(stream: &mut (impl Stream + ?Sized)) -> io::Result<M> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let (json, beside) = lengths(&head)?;
    let mut bytes = vec![0; json + beside];
    stream.read_exact(&mut bytes).await?;
    serde_json::from_slice(&bytes[..json]).map_err(|error| invalid(&error.to_string()))
}

/// Where daemons connect.
#[derive(Debug)]
pub struct Listener(endpoint::Listener);

impl Listener {
    /// Listens at `path`, for this user alone.
    ///
    /// # Errors
    /// That of the system.
    pub fn bind(path: &Path) -> io::Result<Self> {
        endpoint::Listener::bind(path).map(Self)
    }

    /// The next connection, whatever it is for. Cancel-safe.
    ///
    /// # Errors
    /// That of the system.
    pub async fn accept(&mut self) -> io::Result<Client> {
        self.0.accept().await
    }
}

struct Incoming {
    stream: ReadHalf<Box<dyn Stream>>,
    read: BytesMut,
}

/// One end of a connection that carries messages.
pub struct Peer {
    incoming: Mutex<Incoming>,
    outgoing: Writer<Vec<u8>>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Peer {
    /// Connects to a listening shim.
    ///
    /// # Errors
    /// That of the system; no shim lives there, most likely.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let mut stream = endpoint::connect(path).await?;
        say(&mut stream, &Opening::Daemon).await?;
        Ok(Self::new(Box::new(stream)))
    }

    /// A connection whose opening was heard.
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let incoming = Mutex::new(Incoming { stream: reader, read: BytesMut::new() });
        Self { incoming, outgoing: Writer::new(writer) }
    }

    /// Sends one message, with what is beside it. Cancel-safe: it goes whole or not at all, because another task writes it.
    ///
    /// # Errors
    /// `InvalidInput` for one that is too long; the connection has ended.
    pub async fn send<M: Serialize>(&self, message: &M, beside: Option<&Beside>) -> io::Result<()> {
        self.outgoing.send(frame(message, beside.map_or(&[][..], Vec::as_slice))?).await
    }

    /// Receives one message and what came beside it; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` for what is no such message, after which the next can be received; that of the system otherwise.
    pub async fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Option<Beside>)>> {
        let mut incoming = self.incoming.lock().await;
        let Incoming { stream, read } = &mut *incoming;
        loop {
            if read.len() >= HEAD {
                let (json, beside) = lengths(&read[..HEAD])?;
                if read.len() >= HEAD + json + beside {
                    read.advance(HEAD);
                    let json = read.split_to(json);
                    let beside = read.split_to(beside);
                    let message = serde_json::from_slice(&json).map_err(|e| invalid(&e.to_string()))?;
                    return Ok(Some((message, (!beside.is_empty()).then(|| beside.to_vec()))));
                }
            }
            if stream.read_buf(read).await? == 0 {
                // What began and does not end was written by a process that was killed.
                return if read.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

impl Sink for WriteHalf<Box<dyn Stream>> {
    type Frame = Vec<u8>;

    async fn write(&mut self, frame: Vec<u8>) -> io::Result<()> {
        self.write_all(&frame).await?;
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::wire::MAX_BODY;

    fn pair() -> (Peer, Peer) {
        let (one, other) = duplex(64);
        (Peer::new(Box::new(one)), Peer::new(Box::new(other)))
    }

    #[tokio::test]
    async fn messages_keep_their_borders_and_what_is_beside_them() {
        let (one, other) = pair();
        let body = vec![7; 100_000];
        let sending = async {
            one.send(&"first", Some(&body)).await.expect("sent");
            one.send(&"second", None).await.expect("sent");
            drop(one);
        };
        let receiving = async {
            let (first, beside) = other.receive::<String>().await.expect("received").expect("one");
            assert_eq!((first.as_str(), beside.as_deref()), ("first", Some(&body[..])));
            let (second, beside) = other.receive::<String>().await.expect("received").expect("one");
            assert_eq!((second.as_str(), beside), ("second", None));
            assert!(other.receive::<String>().await.expect("the end").is_none());
        };
        tokio::join!(sending, receiving);
    }

    #[tokio::test]
    async fn a_receiver_that_is_cancelled_loses_nothing() {
        let (one, other) = pair();
        let text = "x".repeat(1000);
        let sent = tokio::spawn({
            let text = text.clone();
            async move { one.send(&text, None).await.map(|()| one) }
        });
        let mut got = None;
        for _ in 0..10_000 {
            tokio::select! {
                biased;
                received = other.receive::<String>() => { got = received.expect("received"); break }
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(got.expect("a message").0, text);
        let _one = sent.await.expect("joins").expect("sent");
    }

    #[tokio::test]
    async fn nonsense_is_told_and_what_comes_after_it_is_understood() {
        let (one, other) = pair();
        one.send(&1, None).await.expect("sent");
        one.send(&"text", None).await.expect("sent");
        let error = other.receive::<String>().await.expect_err("no text");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(other.receive::<String>().await.expect("received").expect("one").0, "text");
    }

    #[tokio::test]
    async fn no_length_makes_it_wait_for_gigabytes() {
        let (mut raw, other) = duplex(64);
        let other = Peer::new(Box::new(other));
        raw.write_all(&[0xff; HEAD]).await.expect("written");
        let error = other.receive::<String>().await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::Other);
        let long = vec![0; MAX_BODY + 1];
        let error = other.send(&(), Some(&long)).await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let (mut raw, other) = duplex(64);
        let other = Peer::new(Box::new(other));
        raw.write_all(&[4, 0, 0, 0, 0]).await.expect("written");
        drop(raw);
        let error = other.receive::<String>().await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
