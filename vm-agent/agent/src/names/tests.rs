use super::*;
use proptest::prelude::*;
use simple_dns::{Name, Question};
use tokio::task::JoinHandle;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn ask(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).expect("a name");
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().expect("built")
}

/// The code and the addresses of an answer to the question of [`ask`].
fn told(bytes: &[u8]) -> (RCODE, Vec<Ipv4Addr>) {
    let packet = Packet::parse(bytes).expect("understood");
    assert_eq!((packet.id(), packet.questions.len()), (0x1234, 1));
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address)),
        _ => None,
    });
    (packet.rcode(), addresses.collect())
}

#[test]
fn the_hosts_names_have_its_address_in_any_case_and_nothing_of_another_kind() {
    for name in ["host.docker.internal", "gateway.docker.internal", "HOST.docker.Internal"] {
        assert_eq!(
            told(&answer(&ask(name, TYPE::A), Some(HOST)).expect("known")),
            (RCODE::NoError, vec![HOST])
        );
        let other = answer(&ask(name, TYPE::AAAA), Some(HOST)).expect("known");
        assert_eq!(told(&other), (RCODE::NoError, vec![]), "a name without such an address");
        assert_eq!(told(&answer(&ask(name, TYPE::A), None).expect("known")), (RCODE::NameError, vec![]));
    }
    for name in ["docker.internal", "x.host.docker.internal", "host.docker.internal.example", "example.org"] {
        assert_eq!(answer(&ask(name, TYPE::A), Some(HOST)), None, "{name}");
    }
}

#[test]
fn what_is_no_plain_question_is_not_answered_here() {
    let asked = ask("host.docker.internal", TYPE::A);
    let mut reply = asked.clone();
    reply[2] |= 0x80;
    let mut many = asked.clone();
    many[4..12].copy_from_slice(&[0xff; 8]);
    for wrong in [&reply, &many, &asked[..20].to_vec(), &Vec::new()] {
        assert_eq!((answer(wrong, Some(HOST)), failure(wrong)), (None, None), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = (answer(&bytes, Some(HOST)), failure(&bytes));
    }

    /// Bytes behind a head that announces a question and extensions: the parser's whole way.
    #[test]
    fn nor_does_a_question_that_is_damaged(
        tail in proptest::collection::vec(any::<u8>(), 0..200), more in 0u8..4, at in 12usize..60, byte: u8,
    ) {
        let mut bytes = ask("host.docker.internal", TYPE::A);
        bytes[11] = more;
        bytes.extend(tail);
        if let Some(there) = bytes.get_mut(at) {
            *there = byte;
        }
        let _ = (answer(&bytes, Some(HOST)), failure(&bytes));
    }
}

struct Served {
    at: SocketAddr,
    reach_host: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

/// A server in front of `resolver`.
async fn serve(resolver: SocketAddr) -> Served {
    let reach_host = Arc::new(AtomicBool::new(true));
    let zone = Zone { host: HOST, reach_host: Arc::clone(&reach_host), resolver, mark: None };
    let names = Names::bind(([127, 0, 0, 1], 0).into(), zone).await.expect("listens");
    let at = names.tcp.local_addr().expect("an address");
    Served { at, reach_host, serving: tokio::spawn(names.run()) }
}

async fn by_udp(at: SocketAddr, question: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    socket.connect(at).await.expect("connected");
    socket.send(question).await.expect("sent");
    let mut answer = vec![0; LONGEST];
    let length = timeout(PATIENCE * 2, socket.recv(&mut answer)).await.expect("in time").expect("answered");
    answer.truncate(length);
    answer
}

async fn by_tcp(stream: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    write(stream, question).await.expect("asked");
    timeout(PATIENCE * 2, read(stream)).await.expect("in time").expect("answered")
}

#[tokio::test]
async fn other_names_are_the_resolvers_by_udp_and_by_tcp() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = tcp.local_addr().expect("an address");
    let udp = UdpSocket::bind(at).await.expect("bound");
    let by = |word: &[u8], question: &[u8]| [&question[..2], word, question].concat();
    let resolver = tokio::spawn(async move {
        let mut buffer = vec![0; LONGEST];
        let (length, client) = udp.recv_from(&mut buffer).await.expect("a question");
        // Somebody else's answer comes first, and is not taken for it.
        udp.send_to(b"??", client).await.expect("sent");
        udp.send_to(&by(b"udp", &buffer[..length]), client).await.expect("answered");
        let (mut stream, _) = tcp.accept().await.expect("a connection");
        let question = read(&mut stream).await.expect("a question");
        write(&mut stream, &by(b"tcp", &question)).await.expect("answered");
    });
    let served = serve(at).await;
    // Not even understood here: whatever extensions there will be, they pass.
    let mut question = ask("example.org", TYPE::MX);
    question[11] = 9;
    assert_eq!(by_udp(served.at, &question).await, by(b"udp", &question));
    let mut stream = TcpStream::connect(served.at).await.expect("connects");
    assert_eq!(by_tcp(&mut stream, &question).await, by(b"tcp", &question));
    // On the same connection, and of the setting's own mind.
    let host = ask("host.docker.internal", TYPE::A);
    assert_eq!(told(&by_tcp(&mut stream, &host).await).1, [HOST]);
    served.reach_host.store(false, Ordering::Relaxed);
    assert_eq!(told(&by_udp(served.at, &host).await).0, RCODE::NameError);
    resolver.await.expect("joins");
    served.serving.abort();
}

#[tokio::test]
async fn a_resolver_that_is_not_there_is_told_at_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
    let served = serve(nobody).await;
    let question = ask("example.org", TYPE::A);
    assert_eq!(told(&by_udp(served.at, &question).await).0, RCODE::ServerFailure);
    let mut stream = TcpStream::connect(served.at).await.expect("connects");
    assert_eq!(told(&by_tcp(&mut stream, &question).await).0, RCODE::ServerFailure);
    served.serving.abort();
}

#[tokio::test]
async fn beyond_the_most_connections_the_next_waits_and_is_served() {
    let served = serve(([127, 0, 0, 1], 9).into()).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(TcpStream::connect(served.at).await.expect("connects"));
    }
    let host = ask("host.docker.internal", TYPE::A);
    for stream in &mut open {
        by_tcp(stream, &host).await;
    }
    let mut next = TcpStream::connect(served.at).await.expect("connects");
    write(&mut next, &host).await.expect("asked");
    assert!(timeout(Duration::from_millis(200), next.readable()).await.is_err(), "not served yet");
    drop(open.pop());
    assert_eq!(
        told(&timeout(PATIENCE, read(&mut next)).await.expect("in time").expect("answered")).1,
        [HOST]
    );
    served.serving.abort();
}
