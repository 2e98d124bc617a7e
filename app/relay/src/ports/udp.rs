//! Datagrams of one published port: every client is a flow, all flows share one stream to the guest.
//!
//! ```text
//!   clients ──► socket ──► flow of the client ──► queue ──► stream to the guest     (full queue: lost, as datagrams may be)
//!           ◄── socket ◄── client of the flow ◄────────────────┘
//! ```
//!
//! Answers leave from the address that the client asked: with several addresses the kernel would choose another.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use slipway_protocol::{frame, ports::DATAGRAMS, v1};
use slipway_vsock::{GuestStream, Transport};
use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter},
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

#[cfg_attr(unix, path = "udp/unix.rs")]
#[cfg_attr(windows, path = "udp/windows.rs")]
mod system;

/// How long a client is remembered after its last datagram, either way: longer than the minute that NATs and clients
/// reckon with.
const IDLE: Duration = Duration::from_secs(90);
/// Clients of one port at once; beyond them the one that was silent longest is forgotten.
const MOST: usize = 4096;
/// Datagrams that wait for the guest, and for the host's socket.
const QUEUE: usize = 512;
/// Datagrams that are taken before anything else gets its turn.
const BATCH: usize = 64;
/// Longest datagram.
const LONGEST: usize = 65_536;
/// Between two attempts to reach the guest.
const RETRY: Duration = Duration::from_millis(200);

/// Who asked, and at which of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    peer: SocketAddr,
    asked: Option<IpAddr>,
}

#[derive(Default)]
struct Flows {
    next: u32,
    ids: HashMap<Client, u32>,
    clients: HashMap<u32, (Client, Instant)>,
}

impl Flows {
    /// The flow of a client, which is used now; and the flow that had to make room for it.
    fn of(&mut self, client: Client, now: Instant) -> (u32, Option<u32>) {
        if let Some(id) = self.ids.get(&client) {
            self.clients.insert(*id, (client, now));
            return (*id, None);
        }
        let oldest = (self.ids.len() >= MOST)
            .then(|| self.clients.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id))
            .flatten();
        if let Some(oldest) = oldest {
            self.forget(oldest);
        }
        while self.clients.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.ids.insert(client, id);
        self.clients.insert(id, (client, now));
        (id, oldest)
    }

    /// The client of a flow, which is used now.
    fn client(&mut self, id: u32, now: Instant) -> Option<Client> {
        let (client, used) = self.clients.get_mut(&id)?;
        *used = now;
        Some(*client)
    }

    fn forget(&mut self, id: u32) {
        if let Some((client, _)) = self.clients.remove(&id) {
            self.ids.remove(&client);
        }
    }

    fn idle(&mut self, now: Instant) -> Vec<u32> {
        let idle = |(_, (_, used)): &(&u32, &(Client, Instant))| now.duration_since(*used) >= IDLE;
        let ids: Vec<u32> = self.clients.iter().filter(idle).map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.forget(*id));
        ids
    }
}

/// Serves until `stop`.
pub(super) async fn run(
    socket: std::net::UdpSocket,
    target: SocketAddr,
    transport: Arc<dyn Transport>,
    stop: CancellationToken,
) {
    if let Err(error) = system::wants_asked(&socket) {
        tracing::warn!(%error, "answers of a published UDP port may leave from another address than was asked");
    }
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a published port cannot be served"),
    };
    let (ask, asked) = mpsc::channel(QUEUE);
    let (answer, mut answers) = mpsc::channel(QUEUE);
    let _link = AbortOnDropHandle::new(tokio::spawn(link(target, transport, asked, answer)));
    let (mut flows, mut sweep) = (Flows::default(), interval(IDLE / 8));
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => for flow in flows.idle(Instant::now()) {
                // Lost in a full queue: the guest forgets it by itself, later.
                let _ = ask.try_send(v1::Datagram { flow, payload: Vec::new(), end: true });
            },
            Some(v1::Datagram { flow, payload, .. }) = answers.recv() => {
                if let Some(client) = flows.client(flow, Instant::now()) {
                    // Lost, as datagrams may be.
                    let _ = socket.async_io(tokio::io::Interest::WRITABLE, || system::send(&socket, client, &payload)).await;
                }
            }
            got = socket.async_io(tokio::io::Interest::READABLE, || system::receive(&socket, &mut buffer)) => {
                let mut got = got;
                for _ in 0..BATCH {
                    match got {
                        Ok((client, count)) => {
                            let (flow, gone) = flows.of(client, Instant::now());
                            if let Some(flow) = gone {
                                let _ = ask.try_send(v1::Datagram { flow, payload: Vec::new(), end: true });
                            }
                            let payload = buffer[..count].to_vec();
                            let _ = ask.try_send(v1::Datagram { flow, payload, end: false });
                        }
                        Err(ref e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        // A client that was answered is gone; the socket is as good as before.
                        Err(ref e) if system::is_of_one_client(e) => {}
                        Err(error) => {
                            tracing::debug!(%error, "a published UDP port could not be read");
                            sleep(Duration::from_millis(10)).await;
                            break;
                        }
                    }
                    got = socket.try_io(tokio::io::Interest::READABLE, || system::receive(&socket, &mut buffer));
                }
            }
        }
    }
}

/// Moves datagrams between the queues and the guest; opens the stream when there is something to say.
async fn link(
    target: SocketAddr,
    transport: Arc<dyn Transport>,
    mut asked: mpsc::Receiver<v1::Datagram>,
    answers: mpsc::Sender<v1::Datagram>,
) {
    let dial = v1::Dial { target: Some(v1::dial::Target::Udp(target.to_string())) };
    while let Some(first) = asked.recv().await {
        if first.end {
            // A guest that has no stream knows no flow.
            continue;
        }
        match transport.connect(DATAGRAMS).await {
            Ok(stream) => {
                if let Err(error) = carry(stream, &dial, first, &mut asked, &answers).await {
                    tracing::debug!(%error, "the stream of a published UDP port ended");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a published UDP port does not reach the guest");
                sleep(RETRY).await;
            }
        }
    }
}

async fn carry(
    stream: GuestStream,
    dial: &v1::Dial,
    first: v1::Datagram,
    asked: &mut mpsc::Receiver<v1::Datagram>,
    answers: &mpsc::Sender<v1::Datagram>,
) -> Result<(), frame::FrameError> {
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (BufReader::with_capacity(LONGEST, reader), BufWriter::new(writer));
    frame::write(&mut writer, dial).await?;
    frame::write(&mut writer, &first).await?;
    let asking = async {
        loop {
            writer.flush().await.map_err(frame::FrameError::Io)?;
            // The publisher ended: so does this task.
            let Some(datagram) = asked.recv().await else { return Ok(()) };
            frame::write(&mut writer, &datagram).await?;
            // Those that wait already go with it.
            while let Ok(datagram) = asked.try_recv() {
                frame::write(&mut writer, &datagram).await?;
            }
        }
    };
    let answering = async {
        while let Some(datagram) = frame::read::<v1::Datagram, _>(&mut reader).await? {
            // A slow client's answers are lost, as on any network.
            let _ = answers.try_send(datagram);
        }
        Ok(())
    };
    tokio::select! {
        asked = asking => asked,
        answered = answering => answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> Client {
        Client { peer: ([127, 0, 0, 1], port).into(), asked: None }
    }

    #[test]
    fn a_client_keeps_its_flow_for_at_least_a_minute_of_silence() {
        let (mut flows, start) = (Flows::default(), Instant::now());
        let (flow, _) = flows.of(client(1), start);
        assert!(flows.idle(start + Duration::from_secs(60)).is_empty());
        assert_eq!(flows.of(client(1), start + Duration::from_secs(60)), (flow, None), "used again");
        assert_eq!(
            flows.client(flow, start + Duration::from_secs(120)),
            Some(client(1)),
            "an answer uses it, too"
        );
        assert!(flows.idle(start + Duration::from_secs(180)).is_empty());
        assert_eq!(flows.idle(start + Duration::from_secs(300)), [flow]);
        assert_eq!(flows.client(flow, start), None);
    }

    #[test]
    fn beyond_the_most_the_longest_silent_client_makes_room() {
        let (mut flows, start) = (Flows::default(), Instant::now());
        for n in 0..MOST {
            flows.of(client(n as u16), start + Duration::from_millis(n as u64));
        }
        let (_, gone) = flows.of(client(60_000), start + Duration::from_secs(60));
        assert_eq!(gone, Some(0));
        assert_eq!((flows.ids.len(), flows.clients.len()), (MOST, MOST));
    }
}
