//! The name server of the guest: knows the host's two names and those of its `/etc/hosts`, and has the host ask for all others.
//!
//! ```text
//!   question ─┬─ host.docker.internal, gateway.docker.internal ─▶ the host's address, or "no such name" where it is forbidden
//!             ├─ an address of a name in the host's /etc/hosts ─▶ as it says
//!             └─ anything else, unread ─▶ the host's name servers, asked by the host ([`host`])
//!                                          └─ no daemon there ─▶ the network's resolver      no answer: SERVFAIL
//! ```
//!
//! The packet filter leads everybody's questions here ([`crate::netfilter`]). They come from containers, so nothing in
//! them is believed: what cannot be understood is the resolver's to refuse, and how much goes on at once is bounded.

mod host;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use simple_dns::{
    CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, RData},
};
use slipway_protocol::v1::HostName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

pub(crate) use host::HostResolver;

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

/// What the host says about names.
#[derive(Debug, Default)]
pub(crate) struct Known {
    reach_host: bool,
    /// In small letters.
    names: HashMap<String, Vec<IpAddr>>,
}

impl Known {
    /// What cannot be an address is left out.
    pub(crate) fn new(reach_host: bool, names: &[HostName]) -> Self {
        let addresses = |name: &HostName| name.addresses.iter().filter_map(|a| a.parse().ok()).collect();
        let names = names.iter().map(|name| (name.name.to_ascii_lowercase(), addresses(name))).collect();
        Self { reach_host, names }
    }
}

/// What is known here, and who knows the rest.
#[derive(Debug)]
struct Zone {
    host: Ipv4Addr,
    known: watch::Receiver<Known>,
    /// Asks the host's name servers, while the host is there.
    asked: Arc<HostResolver>,
    /// Is asked while it is not.
    resolver: SocketAddr,
    /// Set on questions to the resolver.
    mark: Option<u32>,
}

impl Names {
    /// Listens on the guest's own address.
    pub(crate) async fn listen(
        network: &Network,
        known: watch::Receiver<Known>,
        asked: Arc<HostResolver>,
    ) -> io::Result<Self> {
        let resolver = (network.resolver, 53).into();
        let zone = Zone { host: network.gateway, known, asked, resolver, mark: Some(MARK) };
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
                        if let Some(answer) = zone.ask(&question, false).await {
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
            None => zone.ask(&question, true).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(IDLE, write(&mut client, &answer)).await??;
    }
}

/// The guest's `resolv.conf`.
pub(crate) fn resolv_conf(resolver: Ipv4Addr, search: &[String]) -> String {
    let search = if search.is_empty() { String::new() } else { format!("search {}\n", search.join(" ")) };
    format!("nameserver {resolver}\n{search}")
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
    /// The answer, if the question is for one of the names that are known here.
    fn knows(&self, question: &[u8]) -> Option<Vec<u8>> {
        answer(question, self.host, &self.known.borrow())
    }

    /// Asks whoever knows the rest; says that nobody answered. `None` for what is no question.
    async fn ask(&self, question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let asking = async {
            match self.asked.ask(question, by_tcp).await {
                Some(answer) => Ok(answer),
                None if by_tcp => self.ask_by_tcp(question).await,
                None => self.ask_by_udp(question).await,
            }
        };
        let answer = timeout(PATIENCE, asking).await.ok().and_then(Result::ok);
        answer.filter(|answer| !answer.is_empty()).or_else(|| failure(question))
    }

    /// Asks the resolver, from a port of its own: nobody else can guess where the answer is awaited.
    async fn ask_by_udp(&self, question: &[u8]) -> io::Result<Vec<u8>> {
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

/// The answer for names that are known; `None` for all others.
fn answer(bytes: &[u8], host: Ipv4Addr, known: &Known) -> Option<Vec<u8>> {
    let question = question(bytes)?;
    let asked = question.questions.first()?;
    let name = asked.qname.to_string().to_ascii_lowercase();
    let (code, addresses) = if HOST_NAMES.contains(&name.as_str()) {
        // Without an address there is no such name.
        let code = if known.reach_host { RCODE::NoError } else { RCODE::NameError };
        (code, known.reach_host.then_some(host.into()).into_iter().collect())
    } else if matches!(asked.qtype, QTYPE::TYPE(TYPE::A | TYPE::AAAA)) {
        // As on the host: only what asks for addresses looks there.
        (RCODE::NoError, known.names.get(&name)?.clone())
    } else {
        return None;
    };
    let mut reply = reply(&question, code);
    if matches!(asked.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
        let data = addresses.into_iter().filter_map(|address| match (address, asked.qtype) {
            (IpAddr::V4(ip), QTYPE::TYPE(TYPE::A) | QTYPE::ANY) => Some(RData::A(A { address: ip.into() })),
            (IpAddr::V6(ip), QTYPE::TYPE(TYPE::AAAA) | QTYPE::ANY) => {
                Some(RData::AAAA(AAAA { address: ip.into() }))
            }
            _ => None,
        });
        let record = |data| ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data);
        reply.answers.extend(data.map(record));
    }
    reply.build_bytes_vec().ok()
}

/// What is said when nobody answers.
fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    reply(&question(bytes)?, RCODE::ServerFailure).build_bytes_vec().ok()
}

#[cfg(test)]
mod tests;
