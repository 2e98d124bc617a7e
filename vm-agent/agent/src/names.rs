//! The name server of the guest: knows the host's two names, and asks the network's resolver for all others.
//!
//! ```text
//!   question ─┬─ host.docker.internal, gateway.docker.internal ─▶ the host's address, or "no such name" where it is forbidden
//!             └─ anything else, unread ─▶ resolver ─▶ its answer, unread; without one: SERVFAIL
//! ```
//!
//! The packet filter leads everybody's questions here ([`crate::netfilter`]). They come from containers, so nothing in
//! them is believed: what cannot be understood is the resolver's to refuse, and how much goes on at once is bounded.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, RData},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{netfilter::MARK, network::Network};

/// Where questions are led to: above the ports that clients get, and asked for by nobody.
pub(crate) const PORT: u16 = 65353;
/// The names of the host, as Docker Desktop has them.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];
/// Seconds that an answer of ours may be remembered: a setting changes it.
const TTL: u32 = 5;
/// How long the resolver may take. Clients ask again after 5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may be without a question.
const IDLE: Duration = Duration::from_secs(10);
/// Datagrams that wait for the resolver; beyond them they are lost, and the client asks again.
const QUESTIONS: usize = 256;
/// Connections at once; beyond them the next wait.
const CONNECTIONS: usize = 64;
/// Longest datagram.
const LONGEST: usize = 65_535;

/// The server, listening.
#[derive(Debug)]
pub(crate) struct Names {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    zone: Arc<Zone>,
}

/// What is known here, and who knows the rest.
#[derive(Debug)]
struct Zone {
    host: Ipv4Addr,
    reach_host: Arc<AtomicBool>,
    resolver: SocketAddr,
    /// Set on questions to the resolver.
    mark: Option<u32>,
}

impl Names {
    /// Listens on the guest's own address.
    pub(crate) async fn listen(network: &Network, reach_host: Arc<AtomicBool>) -> io::Result<Self> {
        let resolver = (network.resolver, 53).into();
        let zone = Zone { host: network.gateway, reach_host, resolver, mark: Some(MARK) };
        Self::bind((network.address, PORT).into(), zone).await
    }

    async fn bind(at: SocketAddr, zone: Zone) -> io::Result<Self> {
        let tcp = TcpListener::bind(at).await?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Self { udp: Arc::new(udp), tcp, zone: Arc::new(zone) })
    }

    /// Answers for ever.
    pub(crate) async fn run(self) {
        tokio::join!(datagrams(self.udp, Arc::clone(&self.zone)), connections(self.tcp, self.zone));
    }
}

async fn datagrams(socket: Arc<UdpSocket>, zone: Arc<Zone>) {
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            Some(_) = waiting.join_next() => {}
            got = socket.recv_from(&mut buffer) => {
                // An earlier answer did not arrive: nothing to do with the next question.
                let Ok((length, client)) = got else { continue };
                let question = &buffer[..length];
                if let Some(answer) = zone.knows(question) {
                    // Lost, as datagrams may be; the client asks again.
                    let _ = socket.send_to(&answer, client).await;
                } else if waiting.len() < QUESTIONS {
                    let (socket, zone, question) = (Arc::clone(&socket), Arc::clone(&zone), question.to_vec());
                    waiting.spawn(async move {
                        let asked = timeout(PATIENCE, zone.ask(&question)).await;
                        if let Some(answer) = asked.ok().and_then(Result::ok).or_else(|| failure(&question)) {
                            let _ = socket.send_to(&answer, client).await;
                        }
                    });
                }
            }
        }
    }
}

async fn connections(listener: TcpListener, zone: Arc<Zone>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                let zone = Arc::clone(&zone);
                open.spawn(async move {
                    // A client that breaks off has no further question.
                    let _ = connection(client, &zone).await;
                    drop(permit);
                });
            }
            // Out of descriptors: some are given back soon.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(mut client: TcpStream, zone: &Zone) -> io::Result<()> {
    loop {
        let question = timeout(IDLE, read(&mut client)).await??;
        let answer = match zone.knows(&question) {
            Some(answer) => Some(answer),
            None => {
                let asked = timeout(PATIENCE, zone.ask_by_tcp(&question)).await;
                asked.ok().and_then(Result::ok).or_else(|| failure(&question))
            }
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(IDLE, write(&mut client, &answer)).await??;
    }
}

/// A message on a connection: two bytes of length, then the message.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

impl Zone {
    /// The answer, if the question is for one of the host's names.
    fn knows(&self, question: &[u8]) -> Option<Vec<u8>> {
        let host = self.reach_host.load(Ordering::Relaxed).then_some(self.host);
        answer(question, host)
    }

    /// Asks the resolver, from a port of its own: nobody else can guess where the answer is awaited.
    async fn ask(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        self.mark(&socket)?;
        socket.connect(self.resolver).await?;
        socket.send(question).await?;
        let mut answer = vec![0; LONGEST];
        loop {
            let length = socket.recv(&mut answer).await?;
            if length >= 2 && question.get(..2) == Some(&answer[..2]) {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }

    async fn ask_by_tcp(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = TcpSocket::new_v4()?;
        self.mark(&socket)?;
        let mut stream = socket.connect(self.resolver).await?;
        write(&mut stream, question).await?;
        read(&mut stream).await
    }

    fn mark(&self, socket: &impl AsRawFd) -> io::Result<()> {
        let Some(mark) = self.mark else { return Ok(()) };
        let length = size_of_val(&mark) as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_MARK);
        // SAFETY: the option is read from `mark`, which is as long as said and lives until the call is over.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const mark).cast(), length) };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A plain question: one, and nothing besides but what extensions add. Checked before it is parsed, because the parser
/// makes room for as many as the head announces.
fn question(bytes: &[u8]) -> Option<Packet<'_>> {
    let counts = bytes.get(4..12)?;
    if counts[..6] != [0, 1, 0, 0, 0, 0] || counts[6] != 0 {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    let asks = !packet.has_flags(PacketFlag::RESPONSE) && packet.opcode() == OPCODE::StandardQuery;
    asks.then_some(packet)
}

/// The beginning of an answer.
fn reply<'a>(question: &Packet<'a>, code: RCODE) -> Packet<'a> {
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.rcode_mut() = code;
    reply.questions.clone_from(&question.questions);
    reply
}

/// The answer for the host's names; `None` for all others. Without an address there are no such names.
fn answer(bytes: &[u8], host: Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let question = question(bytes)?;
    let asked = question.questions.first()?;
    let name = asked.qname.to_string();
    if !HOST_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return None;
    }
    let mut reply = reply(&question, if host.is_some() { RCODE::NoError } else { RCODE::NameError });
    let wants_address = matches!(asked.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY)
        && matches!(asked.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    if let Some(address) = host.filter(|_| wants_address) {
        let address = RData::A(A { address: address.into() });
        reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, address));
    }
    reply.build_bytes_vec().ok()
}

/// What is said when the resolver does not answer.
fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    reply(&question(bytes)?, RCODE::ServerFailure).build_bytes_vec().ok()
}

#[cfg(test)]
mod tests;
