//! Vsock port numbers on which the agent listens. The host dials; the guest never does.

/// A vsock port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestPort(pub u32);

impl std::fmt::Display for GuestPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// `Hello` both ways, then `Request` / `Reply` frames.
pub const CONTROL: GuestPort = GuestPort(1024);
/// `Dial` / `DialReply`, then raw bytes.
pub const DIAL: GuestPort = GuestPort(1025);
/// Raw bytes to and from the engine's socket: no frame, so that a handed-over client socket needs no prefix.
pub const ENGINE: GuestPort = GuestPort(1026);
/// `Exec`, then `ExecFrame` both ways.
pub const EXEC: GuestPort = GuestPort(1027);
/// `Follow`, then `LogRecord` frames from the guest.
pub const LOGS: GuestPort = GuestPort(1028);
/// `Publish`, then `PortsAsk` from the guest and `PortsAnswer` from the host.
pub const PORTS: GuestPort = GuestPort(1029);
/// `Dial`, then raw bytes at once and no reply, so that a handed-over client socket sees only its own bytes. A target that
/// cannot be reached resets the stream.
pub const FORWARD: GuestPort = GuestPort(1030);
/// Ports of which each serves as [`FORWARD`] does. Linux looks for the stream of a packet among all that came to the same port,
/// one by one, so that many streams spread over these.
const LANES: std::ops::Range<u32> = 2048..2048 + 64;
/// `Dial` with a `udp` target, then `Datagram` frames both ways.
pub const DATAGRAMS: GuestPort = GuestPort(1031);
/// `Resolve`, then `NamesAsk` from the guest and `NamesAnswer` from the host.
pub const NAMES: GuestPort = GuestPort(1032);
/// `FileEvents` frames from the host: what changed in shared folders.
pub const FILE_EVENTS: GuestPort = GuestPort(1064);

/// The `nth` of the ports that serve as [`FORWARD`] does, in turns. A guest from before them refuses all of these.
pub fn lane(nth: u32) -> GuestPort {
    GuestPort(LANES.start + nth % (LANES.end - LANES.start))
}

/// All that [`lane`] can give.
pub fn lanes() -> impl Iterator<Item = GuestPort> {
    LANES.map(GuestPort)
}

/// Is this [`FORWARD`], or serves as it does?
pub fn forwards(port: GuestPort) -> bool {
    port == FORWARD || LANES.contains(&port.0)
}
