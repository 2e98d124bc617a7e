use std::time::Duration;

use slipway_protocol::{
    frame,
    ports::{DATAGRAMS, FORWARD, lanes},
    v1,
};
use slipway_vsock::memory::{Fault, MemoryTransport};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::*;

#[cfg(target_os = "linux")]
mod many;

const SOON: Duration = Duration::from_secs(10);

fn guest() -> (Arc<MemoryTransport>, Publisher) {
    let guest = Arc::new(MemoryTransport::new());
    let publisher = Publisher::new(guest.clone());
    (guest, publisher)
}

/// A port that is free now; another process may take it, which these tests would notice.
fn free(protocol: Protocol, ip: &str) -> SocketAddr {
    let any = SocketAddr::new(ip.parse().expect("address"), 0);
    match protocol {
        Protocol::Tcp => std::net::TcpListener::bind(any).expect("binds").local_addr().expect("address"),
        Protocol::Udp => std::net::UdpSocket::bind(any).expect("binds").local_addr().expect("address"),
    }
}

fn spec(id: u64, protocol: Protocol, host: SocketAddr) -> PortSpec {
    PortSpec { id, protocol, host, target: "172.17.0.2:80".parse().expect("address") }
}

async fn dialled(stream: &mut DuplexStream) -> v1::dial::Target {
    let dial = frame::read::<v1::Dial, _>(stream).await.expect("a frame").expect("not the end");
    dial.target.expect("a target")
}

#[tokio::test]
async fn a_connection_is_led_to_its_target_with_nothing_added_or_lost() {
    let (guest, publisher) = guest();
    let mut forwarded = guest.serve(FORWARD);
    for host in [free(Protocol::Tcp, "127.0.0.1"), free(Protocol::Tcp, "::1")] {
        publisher.publish(spec(u64::from(host.port()), Protocol::Tcp, host)).expect("listens");
        let mut client = TcpStream::connect(host).await.expect("connects");
        let mut container = forwarded.recv().await.expect("a stream");
        assert_eq!(dialled(&mut container).await, v1::dial::Target::Tcp("172.17.0.2:80".into()));
        client.write_all(b"question").await.expect("writes");
        client.shutdown().await.expect("half-close");
        let mut question = Vec::new();
        container.read_to_end(&mut question).await.expect("to its end");
        container.write_all(b"answer after the end").await.expect("answers");
        drop(container);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("reads");
        assert_eq!(
            (question.as_slice(), answer.as_slice()),
            (&b"question"[..], &b"answer after the end"[..])
        );
    }
    assert_eq!(publisher.list().len(), 2);
}

#[tokio::test]
async fn connections_spread_over_the_guests_lanes() {
    let (guest, publisher) = guest();
    let lanes: Vec<_> = lanes().map(|lane| guest.serve(lane)).collect();
    let host = free(Protocol::Tcp, "127.0.0.1");
    publisher.publish(spec(1, Protocol::Tcp, host)).expect("listens");
    let mut clients = Vec::new();
    // Other tests may take some turns between.
    for _ in 0..4 * lanes.len() {
        clients.push(TcpStream::connect(host).await.expect("connects"));
    }
    for mut lane in lanes {
        assert!(timeout(SOON, lane.recv()).await.expect("each has one").is_some());
    }
}

#[tokio::test]
async fn a_connection_that_the_guest_does_not_take_is_reset_and_later_ones_are_served() {
    let (guest, publisher) = guest();
    let mut forwarded = guest.serve(FORWARD);
    let host = free(Protocol::Tcp, "127.0.0.1");
    publisher.publish(spec(1, Protocol::Tcp, host)).expect("listens");
    guest.inject(FORWARD, Fault::Refuse(3));
    let _client = TcpStream::connect(host).await.expect("connects");
    assert!(
        timeout(SOON, forwarded.recv()).await.expect("tried again").is_some(),
        "a short backlog is waited for"
    );
    guest.inject(FORWARD, Fault::Refuse(10_000));
    let mut client = TcpStream::connect(host).await.expect("connects");
    let answer = timeout(SOON, client.read(&mut [0])).await.expect("in time");
    match answer {
        // Wine ends a socket in order before it closes it, whatever was asked for.
        Ok(0) if cfg!(windows) => {}
        answer => {
            assert_eq!(answer.expect_err("no empty answer").kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn a_taken_port_names_who_holds_it() {
    let (_guest, publisher) = guest();
    let name = match std::fs::read_to_string("/proc/self/comm") {
        Ok(name) if cfg!(target_os = "linux") => name.trim().to_owned(),
        _ => {
            let program = std::env::current_exe().expect("a program");
            program.file_name().expect("a name").to_string_lossy().into_owned()
        }
    };
    let holder = format!("{name} (pid {})", std::process::id());
    for (protocol, kind) in [(Protocol::Tcp, Type::STREAM), (Protocol::Udp, Type::DGRAM)] {
        let host = free(protocol, "127.0.0.1");
        let holding = Socket::new(Domain::IPV4, kind, None).expect("a socket");
        holding.bind(&host.into()).expect("binds");
        if protocol == Protocol::Tcp {
            holding.listen(1).expect("listens");
        }
        // Wine knows the owner only of what its process, and not only Wine's server, has touched.
        holding.set_ttl_v4(64).expect("set");
        let told = format!("port {} is in use on this computer by {holder}", host.port());
        for asked in [host, SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), host.port())] {
            let error = publisher.publish(spec(1, protocol, asked)).expect_err("taken");
            assert_eq!((error.to_string(), error.code()), (told.clone(), "port-in-use"));
        }
        drop(holding);
        publisher.publish(spec(1, protocol, host)).expect("free at once");
    }
}

#[tokio::test]
async fn a_port_is_taken_until_it_is_withdrawn() {
    let (_guest, publisher) = guest();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let host = free(protocol, "127.0.0.1");
        publisher.publish(spec(1, protocol, host)).expect("listens");
        publisher.publish(spec(1, protocol, host)).expect("the same again is fine");
        let error = publisher.publish(spec(2, protocol, host)).expect_err("taken");
        assert_eq!(error.code(), "port-in-use");
        assert!(publisher.withdraw(1).await, "it was there");
        publisher.publish(spec(2, protocol, host)).expect("free at once");
        assert!(publisher.withdraw(2).await && !publisher.withdraw(2).await);
    }
    assert!(publisher.list().is_empty());
}

#[tokio::test]
async fn a_published_port_can_be_shared_or_stolen_by_nobody() {
    let (_guest, publisher) = guest();
    for (id, protocol, kind) in [(1, Protocol::Tcp, Type::STREAM), (2, Protocol::Udp, Type::DGRAM)] {
        let host = free(protocol, "127.0.0.1");
        publisher.publish(spec(id, protocol, host)).expect("listens");
        let thief = Socket::new(Domain::IPV4, kind, None).expect("a socket");
        // On Windows this is the wish to have what another one has.
        thief.set_reuse_address(true).expect("set");
        let stolen = thief.bind(&host.into()).and_then(|()| match protocol {
            Protocol::Tcp => thief.listen(1),
            Protocol::Udp => Ok(()),
        });
        stolen.expect_err("it is ours");
    }
}

#[tokio::test]
async fn the_address_is_taken_literally() {
    let (_guest, publisher) = guest();
    let host = free(Protocol::Tcp, "127.0.0.1");
    publisher.publish(spec(1, Protocol::Tcp, host)).expect("listens");
    let other = SocketAddr::new([127, 0, 0, 2].into(), host.port());
    TcpStream::connect(other).await.expect_err("nobody asked for that address");
    publisher.publish(spec(2, Protocol::Tcp, other)).expect("another address, the same port");
    let both = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), host.port());
    publisher.publish(spec(3, Protocol::Tcp, both)).expect("the other family does not stand in the way");
    let foreign = "203.0.113.9:8080".parse().expect("address");
    let error = publisher.publish(spec(4, Protocol::Tcp, foreign)).expect_err("not ours");
    assert_eq!(error.to_string(), "this computer does not have the address 203.0.113.9");
}

#[tokio::test]
async fn datagrams_of_several_clients_share_a_stream_and_find_their_way_back() {
    let (guest, publisher) = guest();
    let mut streams = guest.serve(DATAGRAMS);
    // All of 127.0.0.0/8 is ours: what was sent to one address is answered from it, but by Windows.
    let bound = free(Protocol::Udp, "0.0.0.0");
    publisher.publish(spec(1, Protocol::Udp, bound)).expect("binds");
    let asked = SocketAddr::new([127, 0, 0, if cfg!(windows) { 1 } else { 3 }].into(), bound.port());
    let mut clients = Vec::new();
    for word in ["one", "two"] {
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        // Connected: an answer from another address would not be seen.
        client.connect(asked).await.expect("connects");
        client.send(word.as_bytes()).await.expect("sends");
        clients.push(client);
    }
    let mut container = timeout(SOON, streams.recv()).await.expect("in time").expect("a stream");
    assert_eq!(dialled(&mut container).await, v1::dial::Target::Udp("172.17.0.2:80".into()));
    for _ in 0..2 {
        let mut asked = frame::read::<v1::Datagram, _>(&mut container).await.expect("a frame").expect("one");
        asked.payload = [b"re:", asked.payload.as_slice()].concat();
        frame::write(&mut container, &asked).await.expect("answers");
    }
    for (client, expected) in clients.iter().zip(["re:one", "re:two"]) {
        let mut buffer = [0; 64];
        let count = timeout(SOON, client.recv(&mut buffer)).await.expect("in time").expect("an answer");
        assert_eq!(&buffer[..count], expected.as_bytes());
    }
    assert!(streams.try_recv().is_err(), "one stream for all");
    // The stream breaks, as when the guest's end restarts: the next datagram opens another.
    drop(container);
    let again = async {
        loop {
            clients[0].send(b"three").await.expect("sends");
            if let Ok(stream) = timeout(Duration::from_millis(50), streams.recv()).await {
                return stream.expect("a stream");
            }
        }
    };
    timeout(SOON, again).await.expect("in time");
}

#[tokio::test]
async fn a_client_that_never_reads_stops_its_container_and_no_other() {
    let (guest, publisher) = guest();
    let mut forwarded = guest.serve(FORWARD);
    let host = free(Protocol::Tcp, "127.0.0.1");
    publisher.publish(spec(1, Protocol::Tcp, host)).expect("listens");
    let _deaf = TcpStream::connect(host).await.expect("connects");
    let mut stuck = forwarded.recv().await.expect("a stream");
    dialled(&mut stuck).await;
    let chunk = vec![0; 1 << 16];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), stuck.write(&chunk)).await {
        sent += written.expect("writes");
        assert!(sent < 64 << 20, "somebody swallows what nobody reads");
    }
    let mut client = TcpStream::connect(host).await.expect("connects");
    let mut other = forwarded.recv().await.expect("a stream");
    dialled(&mut other).await;
    other.write_all(b"x").await.expect("writes");
    timeout(SOON, client.read_exact(&mut [0])).await.expect("in time").expect("not held up");
}

#[test]
fn what_a_privileged_port_needs_is_said() {
    let error = BindError::Denied { host: ([0, 0, 0, 0], 80).into() };
    assert_eq!(error.to_string(), "port 80 needs a privilege on this computer that slipway does not have");
    let known = match std::env::consts::OS {
        "windows" => "excludedportrange",
        "macos" => "on all of this computer's addresses",
        _ => "ip_unprivileged_port_start=80",
    };
    assert!(error.hint().expect("a hint").contains(known));
}

#[tokio::test]
async fn a_thousand_rounds_leave_no_listener() {
    let (_guest, publisher) = guest();
    let hosts = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, free(protocol, "127.0.0.1")));
    for round in 0..1000 {
        for (protocol, host) in hosts {
            let id = round * 2 + u64::from(protocol == Protocol::Udp);
            publisher.publish(spec(id, protocol, host)).expect("free since the last round");
        }
        for id in [round * 2, round * 2 + 1] {
            assert!(publisher.withdraw(id).await);
        }
    }
    assert!(publisher.list().is_empty());
    for (protocol, host) in hosts {
        match protocol {
            Protocol::Tcp => drop(std::net::TcpListener::bind(host).expect("free")),
            Protocol::Udp => drop(std::net::UdpSocket::bind(host).expect("free")),
        }
    }
}
