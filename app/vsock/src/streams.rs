//! The streams of the vhost-user vsock device: virtio packets in, virtio packets out, host sockets in between.
//!
//! This is the whole protocol and nothing of the plumbing, so that it is tested packet by packet without a VM.
//!
//! ```text
//!       REQUEST, early ─►            ◄─ RESPONSE
//!   Connecting ─────────────────────────────────► Open ──► both directions end, each on its own:
//!       │ ◄─ RST, or given up                      │        host EOF      ─► SHUTDOWN(SEND)
//!       ▼                                          │        ◄─ SHUTDOWN(SEND): flush, then SHUT_WR to the host
//!   refused, the host's socket is given back       ▼
//!                                   ◄─ SHUTDOWN(both) or RST, or the host is gone: flush, RST ─►, forget
//! ```
//!
//! The host dials, the guest never does: a REQUEST of the guest is answered with RST, always.
//!
//! A head follows its REQUEST at once, and with it what the client has said already: a guest that listens has the stream open when
//! it has taken the REQUEST, and need not be woken twice for a connection. One that refuses answers both with RST, of which the
//! second belongs to no stream any more; the client's bytes are looked at only, and leave its socket when the guest has accepted.
//!
//! Memory of a stream is bounded: the guest may send [`BUF_ALLOC`] bytes beyond what the host took, and what the host
//! sends stays in its own socket until the guest has room.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
};

use bytes::{Buf, Bytes};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use slipway_protocol::ports::GuestPort;
use tokio::sync::oneshot;

use crate::{
    ConnectError, GuestCid,
    packet::{Header, Op, SHUTDOWN_RCV, SHUTDOWN_SEND, TYPE_STREAM},
};

/// Context id of the host.
const HOST_CID: u64 = 2;
/// Bytes that the guest may have in flight towards one host socket: the buffer that is promised to it.
pub(crate) const BUF_ALLOC: u32 = 256 * 1024;
/// Bytes that the host may take before the guest is told of the room: well under the promise, so that it never waits.
const CREDIT_UPDATE_AFTER: u32 = BUF_ALLOC / 4;
/// Bytes that go to the guest before it has said how many it has room for: no system's buffer is smaller.
const EARLY: usize = 4096;
/// Packets with bytes that a stream says before others have their turn. The guest takes what came of one stream together, and
/// passes it on together: one by one they cost it several times as much. Its buffers are of 4 KiB.
const TURN: usize = 16;
/// Streams at once. Each costs two descriptors at most and, when its reader is stuck, [`BUF_ALLOC`] bytes.
pub(crate) const MAX_STREAMS: usize = 16_384;
/// Answers to packets that belong to no stream; beyond this many they are dropped, as a flood deserves.
const MAX_STRAY_RESETS: usize = 1_024;
/// Largest payload in bytes of a packet from the guest that is accepted (Linux: VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// Names one stream for its whole life: the host port, which is never used twice while the stream lives.
pub(crate) type StreamId = u32;
/// The answer to a dial: accepted, or why not and the host's socket back.
pub(crate) type DialAnswer = Result<(), (ConnectError, OwnedFd)>;

struct Stream {
    host: OwnedFd,
    guest_port: u32,
    /// Who waits for the guest's RESPONSE; `None` once it came.
    dialler: Option<oneshot::Sender<DialAnswer>>,
    /// Bytes that go to the guest before anything is read from the host.
    head: Bytes,
    /// Bytes that the guest has and the host's socket, too.
    peeked: usize,
    // Host to guest.
    readable: bool,
    host_ended: bool,
    sent: u32,
    guest_buf_alloc: u32,
    guest_fwd_cnt: u32,
    credit_requested: bool,
    // Guest to host.
    backlog: VecDeque<u8>,
    guest_ended: bool,
    guest_deaf: bool,
    forwarded: u32,
    told: u32,
    /// The host socket is closed both ways, or failed: nothing can be delivered any more.
    host_gone: bool,
    // What is to be said to the guest next.
    say_request: bool,
    say_shutdown: u32,
    said_shutdown: u32,
    say_credit: bool,
    ask_credit: bool,
    say_reset: bool,
    queued: bool,
}

impl Stream {
    /// Bytes that the guest has room for. The counters wrap, the difference does not; a lying guest gets nothing.
    fn credit(&self) -> usize {
        let in_flight = self.sent.wrapping_sub(self.guest_fwd_cnt);
        self.guest_buf_alloc.saturating_sub(in_flight) as usize
    }
}

/// A packet for the guest.
pub(crate) struct Said {
    pub(crate) header: Header,
    /// It may be waiting for it: not so for the end of a stream that it has closed itself.
    pub(crate) awaits: bool,
}

/// All streams of one device.
pub(crate) struct Streams {
    cid: GuestCid,
    table: HashMap<StreamId, Stream>,
    ready: VecDeque<StreamId>,
    /// What the first of them has said of its turn.
    said: usize,
    stray: VecDeque<Header>,
    next_port: u32,
}

impl Streams {
    pub(crate) fn new(cid: GuestCid) -> Self {
        // Above every port that has a meaning; see `ports`.
        Self {
            cid,
            table: HashMap::new(),
            ready: VecDeque::new(),
            said: 0,
            stray: VecDeque::new(),
            next_port: 1 << 16,
        }
    }

    /// Dials `port` for `host`, which must be non-blocking. The caller registers the descriptor under the id that comes
    /// back, for both directions, edge-triggered. `None`: the dialler has been answered already.
    pub(crate) fn dial(
        &mut self,
        port: GuestPort,
        host: OwnedFd,
        head: Bytes,
        dialler: oneshot::Sender<DialAnswer>,
    ) -> Option<StreamId> {
        if self.table.len() >= MAX_STREAMS {
            // The dialler may have given up; then the socket closes, which is the answer.
            let _ = dialler.send(Err((ConnectError::Exhausted { limit: MAX_STREAMS }, host)));
            return None;
        }
        while self.table.contains_key(&self.next_port) {
            self.next_port = self.next_port.checked_add(1).unwrap_or(1 << 16);
        }
        let id = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(1 << 16);
        let stream = Stream {
            host,
            guest_port: port.0,
            dialler: Some(dialler),
            head,
            peeked: 0,
            readable: true,
            host_ended: false,
            sent: 0,
            guest_buf_alloc: 0,
            guest_fwd_cnt: 0,
            credit_requested: false,
            backlog: VecDeque::new(),
            guest_ended: false,
            guest_deaf: false,
            forwarded: 0,
            told: 0,
            host_gone: false,
            say_request: true,
            say_shutdown: 0,
            said_shutdown: 0,
            say_credit: false,
            ask_credit: false,
            say_reset: false,
            queued: false,
        };
        self.table.insert(id, stream);
        self.queue(id);
        Some(id)
    }

    /// The dialler's patience ended. Does nothing when the guest has answered meanwhile.
    pub(crate) fn give_up(&mut self, id: StreamId) {
        let Some(stream) = self.table.get(&id) else { return };
        if stream.dialler.is_none() {
            return;
        }
        let (port, heard_of) = (GuestPort(stream.guest_port), !stream.say_request);
        self.remove(id, ConnectError::TimedOut { port });
        if heard_of {
            self.stray_reset(HOST_CID, id, port.0);
        } else {
            // Before the guest runs nobody takes from this queue, and dials come and go.
            self.ready.retain(|other| *other != id);
        }
    }

    /// The machine is gone: every dialler is told, every host socket closes.
    pub(crate) fn clear(&mut self) {
        let ids: Vec<StreamId> = self.table.keys().copied().collect();
        for id in ids {
            self.remove(id, ConnectError::Closed);
        }
        self.ready.clear();
        self.stray.clear();
    }

    /// The host's socket of `id` can be read, written, or is gone.
    pub(crate) fn host_event(&mut self, id: StreamId, readable: bool, writable: bool, gone: bool) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        stream.readable |= readable || gone;
        stream.host_gone |= gone;
        if writable || gone {
            self.flush(id);
        }
        self.queue(id);
    }

    /// One packet of the guest. `payload` is at most [`MAX_PAYLOAD`] bytes, and may differ from what the header claims.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) {
        if header.src_cid != u64::from(self.cid.get()) {
            return;
        }
        let (id, guest_port) = (header.dst_port, header.src_port);
        let known = self.table.get(&id).is_some_and(|s| s.guest_port == guest_port);
        if !known || header.kind != TYPE_STREAM || header.dst_cid != HOST_CID {
            if header.op != Op::Rst as u16 {
                self.stray_reset(header.dst_cid, id, guest_port);
            }
            return;
        }
        let Some(stream) = self.table.get_mut(&id) else { return };
        stream.guest_buf_alloc = header.buf_alloc;
        stream.guest_fwd_cnt = header.fwd_cnt;
        if stream.credit() > 0 {
            stream.credit_requested = false;
        }
        match header.op {
            op if op == Op::Response as u16 => {
                drop_peeked(stream);
                if let Some(dialler) = stream.dialler.take()
                    && dialler.send(Ok(())).is_err()
                {
                    stream.say_reset = true;
                }
            }
            op if op == Op::Rst as u16 => {
                if stream.dialler.is_some() {
                    let port = GuestPort(guest_port);
                    self.remove(id, ConnectError::Refused { port });
                    return;
                }
                stream.guest_ended = true;
                stop_reading(stream);
                // What came before the reset is the host's; it is forgotten only when that is delivered.
                stream.said_shutdown = SHUTDOWN_RCV | SHUTDOWN_SEND;
                self.flush(id);
            }
            // A payload that was cut short would be a hole in the stream.
            op if op == Op::Rw as u16 && header.len as usize > payload.len() => stream.say_reset = true,
            op if op == Op::Rw as u16 => self.data(id, payload),
            op if op == Op::Shutdown as u16 => {
                stream.guest_ended |= header.flags & SHUTDOWN_SEND != 0;
                if header.flags & SHUTDOWN_RCV != 0 {
                    stop_reading(stream);
                }
                self.flush(id);
            }
            op if op == Op::CreditUpdate as u16 => {}
            op if op == Op::CreditRequest as u16 => stream.say_credit = true,
            _ => stream.say_reset = true,
        }
        self.queue(id);
    }

    fn data(&mut self, id: StreamId, payload: &[u8]) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let room = (BUF_ALLOC as usize).saturating_sub(stream.backlog.len());
        if stream.dialler.is_some() || stream.guest_ended || payload.len() > room {
            // The guest sent before it accepted, after its end, or beyond the promised buffer.
            stream.say_reset = true;
            return;
        }
        let mut rest = payload;
        if stream.backlog.is_empty() {
            rest = &payload[deliver(stream, payload)..];
        }
        stream.backlog.extend(rest);
        self.after_delivery(id);
    }

    /// Gives the host what it can take of the backlog, then what the end of the guest's direction asks for.
    fn flush(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        // Taken out, because `deliver` counts in the stream what it sends.
        let mut backlog = std::mem::take(&mut stream.backlog);
        while !backlog.is_empty() {
            let (front, _) = backlog.as_slices();
            let (count, all) = (deliver(stream, front), front.len());
            backlog.drain(..count);
            if count < all {
                break;
            }
        }
        if !backlog.is_empty() {
            stream.backlog = backlog;
        }
        self.after_delivery(id);
    }

    fn after_delivery(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        if stream.host_gone {
            // Counted as taken: a guest that writes must see the end of the stream, not wait for room for ever.
            stream.forwarded = stream.forwarded.wrapping_add(stream.backlog.len() as u32);
            stream.backlog = VecDeque::new();
        }
        if stream.forwarded.wrapping_sub(stream.told) >= CREDIT_UPDATE_AFTER {
            stream.say_credit = true;
        }
        if !stream.backlog.is_empty() {
            return;
        }
        if stream.guest_ended && !stream.host_gone {
            // An error means that the host left; its own event says so.
            let _ = rustix::net::shutdown(&stream.host, Shutdown::Write);
        }
        if stream.guest_ended && stream.guest_deaf {
            // Closed by the guest and delivered: it waits for a reset to forget the stream (a reset needs none).
            stream.say_reset = true;
        }
    }

    fn queue(&mut self, id: StreamId) {
        if let Some(stream) = self.table.get_mut(&id)
            && !stream.queued
        {
            stream.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Says a reset in the name of `cid`, the only one that the guest believes.
    fn stray_reset(&mut self, cid: u64, host_port: u32, guest_port: u32) {
        if self.stray.len() < MAX_STRAY_RESETS {
            let header =
                Header { src_cid: cid, src_port: host_port, dst_port: guest_port, ..self.header(Op::Rst) };
            self.stray.push_back(header);
        }
    }

    fn header(&self, op: Op) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: u64::from(self.cid.get()),
            kind: TYPE_STREAM,
            op: op as u16,
            ..Header::default()
        }
    }

    /// Forgets a stream; one that was still dialling is answered with `error` and its socket.
    fn remove(&mut self, id: StreamId, error: ConnectError) {
        if let Some(stream) = self.table.remove(&id)
            && let Some(dialler) = stream.dialler
        {
            // The dialler may have gone; then nobody wants the socket back.
            let _ = dialler.send(Err((error, stream.host)));
        }
    }

    /// Is there perhaps something to say to the guest?
    pub(crate) fn has_work(&self) -> bool {
        !self.stray.is_empty() || !self.ready.is_empty()
    }

    /// The next packet for the guest, streams in turn; the payload is put into `payload`, of which at most
    /// `payload.len()` bytes are used. `None` when nothing can be said now.
    pub(crate) fn next_for_guest(&mut self, payload: &mut [u8]) -> Option<Said> {
        if let Some(header) = self.stray.pop_front() {
            return Some(Said { header, awaits: true });
        }
        while let Some(id) = self.ready.pop_front() {
            let said = std::mem::take(&mut self.said);
            let Some(stream) = self.table.get_mut(&id) else { continue };
            stream.queued = false;
            let Some((op, flags, len)) = next_of(stream, payload) else { continue };
            stream.told = stream.forwarded;
            let (dst_port, fwd_cnt) = (stream.guest_port, stream.forwarded);
            let awaits = op != Op::Rst || !(stream.guest_ended && stream.guest_deaf);
            if op == Op::Rst {
                // Closes the host's socket: whatever it still wants, there is nobody left to give it.
                let port = GuestPort(dst_port);
                self.remove(id, ConnectError::Refused { port });
            } else if op == Op::Rw && said + 1 < TURN {
                self.said = said + 1;
                stream.queued = true;
                self.ready.push_front(id);
            } else {
                self.queue(id);
            }
            let header = Header {
                src_port: id,
                dst_port,
                len: len as u32,
                flags,
                buf_alloc: BUF_ALLOC,
                fwd_cnt,
                ..self.header(op)
            };
            return Some(Said { header, awaits });
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The host's socket of a stream, to be watched by the device.
    pub(crate) fn host_fd(&self, id: StreamId) -> Option<impl AsFd + '_> {
        self.table.get(&id).map(|s| s.host.as_fd())
    }
}

/// Sends to the host what it takes now and counts it; marks the host as gone when it takes nothing ever again.
fn deliver(stream: &mut Stream, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() && !stream.host_gone {
        match rustix::net::send(&stream.host, &bytes[done..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(_) => {
                stream.host_gone = true;
                stream.readable = true;
            }
        }
    }
    stream.forwarded = stream.forwarded.wrapping_add(done as u32);
    done
}

/// The guest reads no more: the host's writer learns of it as it would from any other socket.
fn stop_reading(stream: &mut Stream) {
    if !stream.guest_deaf {
        stream.guest_deaf = true;
        // An error means that the host left; its own event says so.
        let _ = rustix::net::shutdown(&stream.host, Shutdown::Read);
    }
}

/// What one stream says next: operation, flags, payload length.
fn next_of(stream: &mut Stream, payload: &mut [u8]) -> Option<(Op, u32, usize)> {
    if stream.say_reset {
        return Some((Op::Rst, 0, 0));
    }
    if stream.say_request {
        stream.say_request = false;
        return Some((Op::Request, 0, 0));
    }
    if stream.dialler.is_some() {
        let room = payload.len().min(EARLY);
        let early = room > 0 && stream.sent == 0 && !stream.head.is_empty();
        return early.then(|| (Op::Rw, 0, take_early(stream, &mut payload[..room])));
    }
    if stream.say_credit {
        stream.say_credit = false;
        return Some((Op::CreditUpdate, 0, 0));
    }
    if stream.ask_credit {
        stream.ask_credit = false;
        return Some((Op::CreditRequest, 0, 0));
    }
    if !stream.host_ended && !stream.guest_deaf {
        let room = stream.credit().min(payload.len());
        let wants = !stream.head.is_empty() || stream.readable;
        if wants && room == 0 {
            if !stream.credit_requested {
                stream.credit_requested = true;
                return Some((Op::CreditRequest, 0, 0));
            }
        } else if wants {
            match take(stream, &mut payload[..room]) {
                Taken::Bytes(count) => return Some((Op::Rw, 0, count)),
                Taken::Later => stream.readable = false,
                Taken::Ended => {
                    stream.host_ended = true;
                    stream.say_shutdown |= SHUTDOWN_SEND;
                }
            }
        }
    }
    if stream.host_gone {
        // At once, even when the guest does not read what the host left behind: it may be waiting for room to write.
        stream.say_shutdown |= SHUTDOWN_RCV;
        if stream.host_ended || stream.guest_deaf {
            stream.say_shutdown |= SHUTDOWN_SEND;
        }
    }
    if stream.say_shutdown & !stream.said_shutdown != 0 {
        stream.said_shutdown |= stream.say_shutdown;
        return Some((Op::Shutdown, stream.said_shutdown, 0));
    }
    None
}

enum Taken {
    Bytes(usize),
    Later,
    Ended,
}

/// What fits of the head, counted as sent.
fn take_head(stream: &mut Stream, into: &mut [u8]) -> usize {
    let count = stream.head.len().min(into.len());
    stream.head.copy_to_slice(&mut into[..count]);
    stream.sent = stream.sent.wrapping_add(count as u32);
    count
}

/// The head, and behind it what the client has said, which stays with its socket; counted as sent.
fn take_early(stream: &mut Stream, into: &mut [u8]) -> usize {
    let head = take_head(stream, into);
    let rest = &mut into[head..];
    if stream.head.is_empty() && !rest.is_empty() {
        // What cannot be seen now is found when it is read.
        let seen = rustix::net::recv(&stream.host, rest, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        stream.peeked = seen.map_or(0, |(count, _)| count);
        stream.sent = stream.sent.wrapping_add(stream.peeked as u32);
    }
    head + stream.peeked
}

/// Takes what the guest has already out of the host's socket.
fn drop_peeked(stream: &mut Stream) {
    let mut bytes = [0; EARLY];
    while stream.peeked > 0 {
        match rustix::net::recv(&stream.host, &mut bytes[..stream.peeked], RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            Ok((count, _)) if count > 0 => stream.peeked -= count,
            // It is broken, and says so again when it is read.
            _ => stream.peeked = 0,
        }
    }
}

/// What goes to the guest next, counted as sent.
fn take(stream: &mut Stream, into: &mut [u8]) -> Taken {
    if !stream.head.is_empty() {
        return Taken::Bytes(take_head(stream, into));
    }
    loop {
        let answer = rustix::net::recv(&stream.host, &mut *into, RecvFlags::DONTWAIT);
        return match answer.map(|(count, _)| count).map_err(io::Error::from) {
            Ok(0) => Taken::Ended,
            Ok(count) => {
                stream.sent = stream.sent.wrapping_add(count as u32);
                Taken::Bytes(count)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Taken::Later,
            Err(_) => {
                stream.host_gone = true;
                Taken::Ended
            }
        };
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
