//! macOS: frames on a stream socket, because it has no packets, with a descriptor beside the first of a frame's bytes.
//!
//! ```text
//!   frame: as in `framing`, and in the second length's highest bit whether a descriptor belongs to it
//!   descriptors come in the order of their frames, each no later than its frame's first byte
//! ```
//!
//! Nothing here is macOS' own, so Linux runs it, too: in its tests, and whole with the feature `stream-sockets`.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    sync::Mutex,
};
use tokio_util::bytes::{Buf, BytesMut};

use super::framing::{HEAD, Sink, Writer, frame, invalid, lengths};

/// In the last byte of a head: a descriptor belongs to the frame.
const WITH_DESCRIPTOR: u8 = 0x80;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Descriptors that may wait for their frames: those of the frames that one piece holds, and no more than one each.
const WAITING: usize = PIECE / HEAD;

/// What travels beside a message: a socket, or bytes that are too many for one.
#[derive(Debug)]
pub enum Beside {
    /// A socket.
    Descriptor(OwnedFd),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Bytes as what is beside a message.
#[allow(clippy::unnecessary_wraps)] // Elsewhere it fails.
pub(crate) fn beside(bytes: &[u8]) -> io::Result<Beside> {
    Ok(Beside::Bytes(bytes.to_owned()))
}

/// And back.
///
/// # Errors
/// It is a socket.
pub(crate) fn bytes_of(beside: Option<Beside>) -> io::Result<Vec<u8>> {
    match beside {
        Some(Beside::Bytes(bytes)) => Ok(bytes),
        None => Ok(Vec::new()),
        Some(Beside::Descriptor(_)) => Err(invalid("a descriptor came where bytes belong")),
    }
}

/// A socket as what is beside a message.
pub(crate) fn descriptor(fd: OwnedFd) -> Beside {
    Beside::Descriptor(fd)
}

/// And back.
pub(crate) fn into_descriptor(beside: Beside) -> Option<OwnedFd> {
    match beside {
        Beside::Descriptor(fd) => Some(fd),
        Beside::Bytes(_) => None,
    }
}

/// Where daemons connect.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl Listener {
    /// Listens at `path`, which must not exist; the folder decides who may connect.
    ///
    /// # Errors
    /// That of the system call.
    pub fn bind(path: &Path) -> io::Result<Self> {
        UnixListener::bind(path).map(Self)
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// That of the system call.
    pub async fn accept(&mut self) -> io::Result<Peer> {
        self.0.accept().await.map(|(stream, _)| Peer::new(stream))
    }
}

#[derive(Default)]
struct Incoming {
    read: BytesMut,
    fds: VecDeque<OwnedFd>,
}

/// One end of a connection that carries messages.
pub struct Peer {
    stream: Arc<UnixStream>,
    incoming: Mutex<Incoming>,
    outgoing: Writer<(Vec<u8>, Option<OwnedFd>)>,
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
    /// That of the system call; `ConnectionRefused` and `NotFound` mean that no shim lives.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self::new)
    }

    fn new(stream: UnixStream) -> Self {
        let stream = Arc::new(stream);
        let outgoing = Writer::new(Arc::clone(&stream));
        Self { stream, incoming: Mutex::default(), outgoing }
    }

    /// Sends one message, with what is beside it. Cancel-safe: it goes whole or not at all, because another task writes it. A descriptor
    /// stays the caller's; it should be kept until the answer comes, since macOS has lost some that were closed on their way.
    ///
    /// # Errors
    /// `InvalidInput` for one that is too long; the connection has ended.
    pub async fn send<M: Serialize>(&self, message: &M, beside: Option<&Beside>) -> io::Result<()> {
        let outgoing = match beside {
            Some(Beside::Descriptor(fd)) => {
                let mut frame = frame(message, &[])?;
                frame[HEAD - 1] |= WITH_DESCRIPTOR;
                (frame, Some(fd.try_clone()?))
            }
            Some(Beside::Bytes(bytes)) => (frame(message, bytes)?, None),
            None => (frame(message, &[])?, None),
        };
        self.outgoing.send(outgoing).await
    }

    /// Receives one message and what came beside it; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` for what is no such message, after which the next can be received. Others end the connection: the system's, and
    /// descriptors that were lost or belong to no frame.
    pub async fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Option<Beside>)>> {
        let mut incoming = self.incoming.lock().await;
        loop {
            if let Some((json, beside)) = incoming.frame()? {
                let message = serde_json::from_slice(&json).map_err(|e| invalid(&e.to_string()))?;
                return Ok(Some((message, beside)));
            }
            let (bytes, fds) = self.stream.async_io(Interest::READABLE, || receive(&self.stream)).await?;
            if bytes.is_empty() {
                // What began and does not end was written by a process that was killed.
                let whole = incoming.read.is_empty() && incoming.fds.is_empty() && fds.is_empty();
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            incoming.read.extend_from_slice(&bytes);
            incoming.fds.extend(fds);
            if incoming.fds.len() > WAITING {
                return Err(io::Error::other("descriptors come that belong to nothing"));
            }
        }
    }
}

impl Incoming {
    /// The next frame that is whole.
    fn frame(&mut self) -> io::Result<Option<(BytesMut, Option<Beside>)>> {
        let Some(head) = self.read.first_chunk::<HEAD>() else { return Ok(None) };
        let (mut head, with) = (*head, head[HEAD - 1] & WITH_DESCRIPTOR != 0);
        head[HEAD - 1] &= !WITH_DESCRIPTOR;
        let (json, beside) = lengths(&head)?;
        if self.read.len() < HEAD + json + beside {
            return Ok(None);
        }
        self.read.advance(HEAD);
        let json = self.read.split_to(json);
        let bytes = self.read.split_to(beside);
        let beside = if with {
            let fd = self.fds.pop_front();
            Some(Beside::Descriptor(fd.ok_or_else(|| io::Error::other("a descriptor was lost on its way"))?))
        } else {
            (!bytes.is_empty()).then(|| Beside::Bytes(bytes.to_vec()))
        };
        Ok(Some((json, beside)))
    }
}

/// One read, and what came beside it.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; PIECE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = &mut [IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(stream, read, &mut control, RecvFlags::empty())?;
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = messages.flatten().collect();
    for fd in &fds {
        // macOS cannot have it so from the start.
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        // Which frame they belonged to is not known any more.
        return Err(io::Error::other("more descriptors came at once than are ever sent"));
    }
    bytes.truncate(got.bytes);
    Ok((bytes, fds))
}

impl Sink for Arc<UnixStream> {
    type Frame = (Vec<u8>, Option<OwnedFd>);

    async fn write(&mut self, (frame, fd): Self::Frame) -> io::Result<()> {
        write_frame(self, &frame, fd.as_ref()).await
    }
}

async fn write_frame(stream: &UnixStream, frame: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let (mut left, mut fd) = (frame, fd);
    while !left.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = fd.map(AsFd::as_fd);
            if let Some(fd) = &fds {
                control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
            }
            Ok(rustix::net::sendmsg(stream, &[IoSlice::new(left)], &mut control, no_signal())?)
        });
        left = &left[sent.await?..];
        // It went with the first byte.
        fd = None;
    }
    Ok(())
}

/// macOS has no such flag; Rust's programs ignore the signal.
fn no_signal() -> SendFlags {
    #[cfg(target_os = "linux")]
    return SendFlags::NOSIGNAL;
    #[cfg(not(target_os = "linux"))]
    SendFlags::empty()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::Shutdown,
        os::unix::net::UnixStream as StdUnixStream,
    };

    use rustix::io::fcntl_getfd;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn pair() -> (Peer, Peer) {
        let (one, other) = UnixStream::pair().expect("pair");
        (Peer::new(one), Peer::new(other))
    }

    fn socket(beside: Option<Beside>) -> StdUnixStream {
        into_descriptor(beside.expect("something")).expect("a descriptor").into()
    }

    /// The other end of a socket that was sent says a word.
    fn speak(mut end: StdUnixStream, word: &str) {
        end.write_all(word.as_bytes()).expect("written");
    }

    fn heard(mut socket: StdUnixStream) -> String {
        let mut word = String::new();
        socket.set_nonblocking(false).expect("set");
        socket.read_to_string(&mut word).expect("read");
        word
    }

    #[tokio::test]
    async fn each_message_has_what_was_beside_it() {
        let (one, other) = pair();
        // Many, so that a read holds several frames, and some that no read holds whole.
        let long = vec![7; 300_000];
        let (mut ends, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let (ours, theirs) = StdUnixStream::pair().expect("pair");
            ends.push(ours);
            sent.push(descriptor(theirs.into()));
        }
        let bytes = beside(&long).expect("bytes");
        let sending = async {
            for (number, fd) in sent.iter().enumerate() {
                one.send(&(number, "bare"), None).await.expect("sent");
                one.send(&(number, "descriptor"), Some(fd)).await.expect("sent");
                if number % 5 == 0 {
                    one.send(&(number, "bytes"), Some(&bytes)).await.expect("sent");
                }
            }
        };
        let receiving = async {
            let mut sockets = Vec::new();
            for number in 0..20 {
                let (message, bare) =
                    other.receive::<(usize, String)>().await.expect("received").expect("one");
                assert_eq!((message.0, message.1.as_str(), bare.is_none()), (number, "bare", true));
                let (message, fd) = other.receive::<(usize, String)>().await.expect("received").expect("one");
                assert_eq!((message.0, message.1.as_str()), (number, "descriptor"));
                sockets.push(socket(fd));
                if number % 5 == 0 {
                    let (_, bytes) =
                        other.receive::<(usize, String)>().await.expect("received").expect("one");
                    assert_eq!(bytes_of(bytes).expect("bytes"), long);
                }
            }
            sockets
        };
        let ((), sockets) = tokio::join!(sending, receiving);
        drop(sent);
        for (number, (end, socket)) in ends.into_iter().zip(sockets).enumerate() {
            assert!(fcntl_getfd(&socket).expect("flags").contains(FdFlags::CLOEXEC));
            speak(end, &number.to_string());
            assert_eq!(heard(socket), number.to_string(), "each in its place");
        }
        drop(one);
        assert!(other.receive::<String>().await.expect("the end").is_none());
    }

    #[tokio::test]
    async fn a_socket_that_travelled_is_half_closed_in_both_directions() {
        let (one, other) = pair();
        let (client, theirs) = StdUnixStream::pair().expect("pair");
        one.send(&"here", Some(&descriptor(theirs.into()))).await.expect("sent");
        let (_, fd) = other.receive::<String>().await.expect("received").expect("one");
        let mut server = socket(fd);
        client.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(heard(server.try_clone().expect("twice")), "", "its end arrives");
        server.write_all(b"answer").expect("the way back is open");
        server.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(heard(client), "answer");
    }

    #[tokio::test]
    async fn a_sender_or_receiver_that_is_cancelled_loses_nothing() {
        let (one, other) = pair();
        let (end, theirs) = StdUnixStream::pair().expect("pair");
        let fd = descriptor(theirs.into());
        let long = "x".repeat(100_000);
        let sending = async {
            one.send(&long, Some(&fd)).await.expect("sent");
            one.send(&"next", None).await.expect("sent");
        };
        let receiving = async {
            let mut got = None;
            while got.is_none() {
                tokio::select! {
                    biased;
                    received = other.receive::<String>() => got = received.expect("received"),
                    () = tokio::task::yield_now() => {}
                }
            }
            got.expect("one")
        };
        let ((), (text, fd)) = tokio::join!(sending, receiving);
        assert_eq!(text, long);
        speak(end, "word");
        // The sender's own must be closed, too, before the end is seen.
        assert!(matches!(fd, Some(Beside::Descriptor(_))));
        assert_eq!(other.receive::<String>().await.expect("received").expect("one").0, "next");
    }

    #[tokio::test]
    async fn a_descriptor_that_is_missing_or_one_too_many_ends_the_connection() {
        // Announced, and not there.
        let (mut raw, other) = UnixStream::pair().expect("pair");
        let other = Peer::new(other);
        let mut lost = frame(&"text", &[]).expect("framed");
        lost[HEAD - 1] |= WITH_DESCRIPTOR;
        raw.write_all(&lost).await.expect("written");
        let error = other.receive::<String>().await.expect_err("lost");
        assert!(error.kind() == io::ErrorKind::Other && error.to_string().contains("lost"), "{error}");

        // More at once than there is room for: some are lost, and nobody knows which.
        let (raw, other) = UnixStream::pair().expect("pair");
        let other = Peer::new(other);
        let many: Vec<StdUnixStream> = (0..8).map(|_| StdUnixStream::pair().expect("pair").0).collect();
        let borrowed: Vec<_> = many.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        let text = frame(&"text", &[]).expect("framed");
        rustix::net::sendmsg(&raw, &[IoSlice::new(&text)], &mut control, no_signal()).expect("sent");
        let error = other.receive::<String>().await.expect_err("truncated");
        assert_eq!(error.kind(), io::ErrorKind::Other, "{error}");
    }

    #[tokio::test]
    async fn nonsense_is_told_and_what_comes_after_it_is_understood() {
        let (one, other) = pair();
        one.send(&1, None).await.expect("sent");
        one.send(&"text", None).await.expect("sent");
        let error = other.receive::<String>().await.expect_err("no text");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(other.receive::<String>().await.expect("received").expect("one").0, "text");
        let (mut raw, other) = UnixStream::pair().expect("pair");
        let other = Peer::new(other);
        raw.write_all(&[0xff; HEAD]).await.expect("written");
        assert_eq!(other.receive::<String>().await.expect_err("too long").kind(), io::ErrorKind::Other);
        let (mut raw, other) = UnixStream::pair().expect("pair");
        let other = Peer::new(other);
        raw.write_all(&[4, 0, 0, 0, 0]).await.expect("written");
        drop(raw);
        assert_eq!(other.receive::<String>().await.expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
    }
}
