//! Datagrams of many clients to one target: each client has a socket of its own, so that answers find their way back.
//!
//! ```text
//!   client K ──datagram──▶ its socket, connected to the target ──▶ target
//!            ◀─(K, answer)──────── reader task ◀───────────────────
//!   idle for a while, or too many clients: the socket closes
//! ```

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// How long a flow may be idle. Above what the host's side keeps, so that the host decides.
pub(super) const IDLE: Duration = Duration::from_secs(120);
/// Clients of one port at once; beyond them the one that was silent longest is forgotten.
pub(super) const MOST: usize = 4096;
/// Longest datagram.
pub(super) const LONGEST: usize = 65_536;

struct Flow {
    socket: Arc<UdpSocket>,
    used: Arc<Mutex<Instant>>,
    _reader: AbortOnDropHandle<()>,
}

impl Flow {
    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn touch(used: &Mutex<Instant>) {
    *used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}

/// The flows of one port. Answers go to the channel that it was made with.
pub(super) struct Flows<K> {
    target: SocketAddr,
    flows: HashMap<K, Flow>,
    answers: mpsc::Sender<(K, Vec<u8>)>,
    swept: Instant,
}

impl<K: Clone + Eq + Hash + Send + 'static> Flows<K> {
    pub(super) fn new(target: SocketAddr, answers: mpsc::Sender<(K, Vec<u8>)>) -> Self {
        Self { target, flows: HashMap::new(), answers, swept: Instant::now() }
    }

    /// Sends one datagram of a client; waits while the socket is full. A refusal of the target loses the last one.
    pub(super) async fn send(&mut self, from: K, payload: &[u8]) -> io::Result<()> {
        self.sweep();
        if !self.flows.contains_key(&from) {
            let flow = self.open(from.clone()).await?;
            self.flows.insert(from.clone(), flow);
        }
        let Some(flow) = self.flows.get(&from) else { return Ok(()) };
        touch(&flow.used);
        match flow.socket.send(payload).await {
            // The refusal belongs to an earlier datagram, and took the place of this one's sending.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                flow.socket.send(payload).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// The client is gone.
    pub(super) fn end(&mut self, from: &K) {
        self.flows.remove(from);
    }

    async fn open(&mut self, from: K) -> io::Result<Flow> {
        if self.flows.len() >= MOST
            && let Some(oldest) =
                self.flows.iter().min_by_key(|(_, flow)| flow.used()).map(|(k, _)| k.clone())
        {
            self.flows.remove(&oldest);
        }
        let any: SocketAddr = if self.target.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.target).await?;
        let socket = Arc::new(socket);
        let used = Arc::new(Mutex::new(Instant::now()));
        let (reading, answers, used_now) = (Arc::clone(&socket), self.answers.clone(), Arc::clone(&used));
        // Owned by the flow: it ends when the flow is forgotten.
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; LONGEST];
            loop {
                match reading.recv(&mut buffer).await {
                    Ok(count) => {
                        touch(&used_now);
                        // A slow way back loses answers, as a slow network does.
                        match answers.try_send((from.clone(), buffer[..count].to_vec())) {
                            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                            Err(mpsc::error::TrySendError::Closed(_)) => return,
                        }
                    }
                    // Nobody listens at the target yet; its next datagram may find somebody.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Flow { socket, used, _reader: AbortOnDropHandle::new(reader) })
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.swept) > IDLE / 8 {
            self.swept = now;
            self.flows.retain(|_, flow| now.duration_since(flow.used()) < IDLE);
        }
    }

    /// Forgets the flows that were idle too long, for ever; to be polled beside `send`. Cancel-safe.
    pub(super) fn next_sweep(&self) -> impl Future<Output = ()> + use<K> {
        let (at, any) = (self.swept + IDLE / 8 + Duration::from_millis(1), !self.flows.is_empty());
        async move { if any { sleep_until(at).await } else { std::future::pending().await } }
    }

    /// To be called when [`next_sweep`](Self::next_sweep) resolved.
    pub(super) fn forget_idle(&mut self) {
        self.sweep();
    }
}
